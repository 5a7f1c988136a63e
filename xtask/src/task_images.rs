//! `images`: the images that tests and the demo run, as archives in `target/images/NAME.tar`.
//!
//! Made from what Debian's packages put on this machine, since a public registry is not always at hand: `busybox`,
//! `alpine` (the same files under the name that everybody's examples use), `hello-world` and `redis`; for Dockerfiles to
//! build with `cc`, `python`, `node`, `golang` and `rust`. The archives are the same, byte for byte, as long as the packages are.

mod archive;
mod builders;
mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;

use self::archive::Image;
use self::tree::Tree;
use crate::workspace;

const REDIS: (&str, u64) = ("redis", 999);

pub(crate) fn run() -> Result<()> {
    let folder = workspace::made("images");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let base = busybox()?;
    let shell = json!({ "Cmd": ["sh"], "Env": [PATH] });
    Image { name: "busybox", layers: vec![base.layer()?], config: shell.clone() }.write(&folder)?;
    Image { name: "alpine", layers: vec![base.layer()?, alpine()?.layer()?], config: shell }.write(&folder)?;
    Image { name: "hello-world", layers: vec![hello()?.layer()?], config: json!({ "Cmd": ["/hello"], "Env": [PATH] }) }
        .write(&folder)?;
    let config = json!({
        "Cmd": ["redis-server", "--protected-mode", "no", "--save", ""],
        "Env": [PATH],
        "ExposedPorts": { "6379/tcp": {} },
        "User": REDIS.0,
        "Volumes": { "/data": {} },
        "WorkingDir": "/data",
    });
    Image { name: "redis", layers: vec![base.layer()?, redis()?.layer()?], config }.write(&folder)?;
    builders::write(&base, &folder)
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A small userland: one static binary under the names of all its tools, and the accounts that images expect.
fn busybox() -> Result<Tree> {
    let mut tree = Tree::default();
    for folder in [
        "bin", "dev", "etc", "home", "lib", "mnt", "opt", "proc", "run", "sbin", "sys", "usr", "usr/bin", "usr/sbin",
        "var", "var/log", "var/opt",
    ] {
        tree.folder(folder, 0o755, 0);
    }
    for (folder, mode) in [("root", 0o700), ("tmp", 0o1777), ("var/tmp", 0o1777)] {
        tree.folder(folder, mode, 0);
    }
    let program = fs::canonicalize("/bin/busybox").context("no /bin/busybox: install the package busybox-static")?;
    tree.host_file("bin/busybox", &program, 0o755)?;
    for tool in workspace::output(workspace::program(&program).arg("--list-full"))?.lines() {
        if tool != "bin/busybox" && !tool.is_empty() {
            let up = "../".repeat(tool.matches('/').count());
            tree.link(tool, &format!("{up}bin/busybox"));
        }
    }
    // The static binary looks names up through these, which it loads when it needs them.
    for library in ["libc.so.6", "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"] {
        tree.library(&PathBuf::from(format!("/lib/{}-linux-gnu", std::env::consts::ARCH)).join(library))?;
    }
    tree.library(&loader()?)?;
    tree.text(
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nbin:x:2:2:bin:/bin:/bin/false\n\
         postgres:x:70:70:postgres:/var/lib/postgresql:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n\
         nobody:x:65534:65534:nobody:/home:/bin/false\n",
        0o644,
    );
    tree.text(
        "etc/group",
        "root:x:0:\ndaemon:x:1:\nbin:x:2:\ntty:x:5:\nwheel:x:10:root\nwww-data:x:33:\npostgres:x:70:\nnogroup:x:65534:\n",
        0o644,
    );
    tree.text("etc/shadow", "root:*:::::::\n", 0o640);
    tree.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644);
    Ok(tree)
}

fn alpine() -> Result<Tree> {
    let mut tree = Tree::default();
    tree.folder("etc", 0o755, 0);
    tree.text("etc/os-release", "ID=busybox\nNAME=\"busybox of Debian, in place of Alpine\"\n", 0o644);
    Ok(tree)
}

const HELLO: &str = r#"#include <unistd.h>
int main(void) {
    static const char text[] = "\nHello from Docker!\nThis message shows that your installation appears to be working correctly.\n\n";
    return write(1, text, sizeof text - 1) == (ssize_t)sizeof text - 1 ? 0 : 1;
}
"#;

fn hello() -> Result<Tree> {
    let folder = workspace::made("images-build");
    let (source, program) = (folder.join("hello.c"), folder.join("hello"));
    workspace::write(&source, HELLO)?;
    workspace::run(workspace::program("cc").args(["-Os", "-s", "-static", "-o"]).arg(&program).arg(&source))?;
    let mut tree = Tree::default();
    tree.host_file("hello", &program, 0o755)?;
    Ok(tree)
}

/// Redis as Debian ships it, with the libraries it names, above the busybox layer.
fn redis() -> Result<Tree> {
    let (user, id) = REDIS;
    let mut tree = Tree::default();
    for folder in ["usr", "usr/bin", "etc"] {
        tree.folder(folder, 0o755, 0);
    }
    tree.folder("data", 0o755, id);
    let mut libraries = BTreeSet::new();
    for name in ["redis-server", "redis-cli"] {
        let program = fs::canonicalize(Path::new("/usr/bin").join(name))
            .with_context(|| format!("no /usr/bin/{name}: install the packages redis-server and redis-tools"))?;
        libraries.extend(libraries_of(&program)?);
        tree.host_file(&format!("usr/bin/{name}"), &program, 0o755)?;
    }
    for library in libraries {
        tree.library(&library)?;
    }
    tree.text("etc/passwd", &format!("root:x:0:0:root:/root:/bin/sh\n{user}:x:{id}:{id}::/data:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"), 0o644);
    tree.text("etc/group", &format!("root:x:0:\ntty:x:5:\n{user}:x:{id}:\nnogroup:x:65534:\n"), 0o644);
    Ok(tree)
}

/// What `ldd` says that a program loads.
pub(crate) fn libraries_of(program: &Path) -> Result<Vec<PathBuf>> {
    libraries_named(workspace::program("ldd").arg(program))
}

/// The libraries that a call of `ldd` names.
fn libraries_named(ldd: &mut Command) -> Result<Vec<PathBuf>> {
    let named = workspace::output(ldd)?;
    Ok(named
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}

/// The dynamic loader of this machine.
fn loader() -> Result<PathBuf> {
    let shell = fs::canonicalize("/bin/sh").context("no /bin/sh")?;
    libraries_of(&shell)?
        .into_iter()
        .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("ld-linux")))
        .context("ldd names no loader for /bin/sh")
}
