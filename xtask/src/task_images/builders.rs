//! Images that Dockerfiles build with: a C compiler, Python with pip, Node, Go, Rust. Each is small for its kind, and stands above the
//! layer of `busybox`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::archive::Image;
use super::tree::Tree;
use super::{PATH, libraries_named, libraries_of, loader};
use crate::{debian, workspace};

/// Writes the images into `folder`.
pub(super) fn write(base: &Tree, folder: &Path) -> Result<()> {
    let shell = json!({ "Cmd": ["sh"], "Env": [PATH] });
    Image { name: "cc", layers: vec![base.layer()?, compiler()?.layer()?], config: shell }.write(folder)?;
    let config = json!({ "Cmd": ["python3"], "Env": [PATH, "PYTHONDONTWRITEBYTECODE=1"] });
    Image { name: "python", layers: vec![base.layer()?, python()?.layer()?], config }.write(folder)?;
    let config = json!({ "Cmd": ["node"], "Env": [PATH, "NODE_VERSION=0"] });
    Image { name: "node", layers: vec![base.layer()?, node()?.layer()?], config }.write(folder)?;
    let path = PATH.replacen('=', "=/go/bin:/usr/local/go/bin:", 1);
    let config = json!({ "Cmd": ["sh"], "Env": [path, "GOPATH=/go"], "WorkingDir": "/go" });
    Image { name: "golang", layers: vec![base.layer()?, go()?.layer()?], config }.write(folder)?;
    let config = json!({ "Cmd": ["sh"], "Env": [PATH, "CARGO_HOME=/usr/local/cargo", "RUST_VERSION=0"] });
    Image { name: "rust", layers: vec![base.layer()?, rust()?.layer()?], config }.write(folder)
}

/// What C programs of a page include.
const HEADERS: &str = "#include <assert.h>\n#include <ctype.h>\n#include <errno.h>\n#include <fcntl.h>\n#include <limits.h>\n\
    #include <signal.h>\n#include <stdarg.h>\n#include <stdint.h>\n#include <stdio.h>\n#include <stdlib.h>\n\
    #include <string.h>\n#include <sys/stat.h>\n#include <sys/types.h>\n#include <time.h>\n#include <unistd.h>\n";

/// tcc, a whole C compiler in one program of some hundred kilobytes, as `cc`; with the C library of this machine.
fn compiler() -> Result<Tree> {
    let unpacked = workspace::made("images-build/tcc");
    workspace::once("small C compiler, of Debian", "1", &unpacked.join("usr/bin/tcc"), || {
        debian::unpack_with_what_is_missing("tcc", &unpacked)
    })?;
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    let mut tree = Tree::default();
    tree.folders_above(Path::new("usr/bin/cc"));
    tree.host_file("usr/bin/cc", &unpacked.join("usr/bin/tcc"), 0o755)?;
    let own = format!("usr/lib/{machine}/tcc");
    tree.host_folder(&own, &unpacked.join(&own), &|_| false)?;
    let source = workspace::made("images-build").join("headers.c");
    workspace::write(&source, HEADERS)?;
    // The compiler of this machine knows which files these are.
    let used = workspace::output(workspace::program("cc").args(["-M", "-U__GNUC__"]).arg(&source))?;
    for header in used.split_whitespace().filter(|word| word.starts_with("/usr/include/")) {
        tree.same_file(Path::new(header), 0o644)?;
    }
    for part in ["crt1.o", "crti.o", "crtn.o", "libc.so", "libc_nonshared.a"] {
        tree.same_file(&Path::new("/usr/lib").join(&machine).join(part), 0o644)?;
    }
    tree.library(&Path::new("/lib").join(&machine).join("libm.so.6"))?;
    for library in libraries_of(&unpacked.join("usr/bin/tcc"))? {
        tree.library(&library)?;
    }
    // Linked programs name the loader, which the compiler looks for beside the libraries.
    let loader = loader()?;
    let name = loader.file_name().and_then(|name| name.to_str()).context("the loader has no name")?;
    tree.link(&format!("lib/{machine}/{name}"), &loader.to_string_lossy());
    Ok(tree)
}

/// Parts of Python's library that nobody builds with, and what is only there for other versions of this machine's files.
fn python_leaves(name: &str) -> bool {
    ["__pycache__", "test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "EXTERNALLY-MANAGED", "pydoc_data"]
        .contains(&name)
        || name.starts_with("config-")
        || name.starts_with("sitecustomize")
        || name.ends_with(".pyc")
}

/// Python of this machine with its library, and the pip and setuptools that its virtual environments begin with.
fn python() -> Result<Tree> {
    let program = fs::canonicalize("/usr/bin/python3").context("no /usr/bin/python3: install the package python3")?;
    let asked = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let library = workspace::output(workspace::program(&program).args(["-I", "-c", asked]))?;
    let library = PathBuf::from(library.trim());
    let inside = library.strip_prefix("/").unwrap_or(&library).to_string_lossy().into_owned();
    let mut tree = Tree::default();
    tree.host_folder(&inside, &library, &python_leaves)?;
    tree.folders_above(Path::new("usr/bin/python3"));
    tree.host_file("usr/bin/python3", &program, 0o755)?;
    tree.link("usr/bin/python", "python3");
    let mut libraries: BTreeSet<PathBuf> = libraries_of(&program)?.into_iter().collect();
    for module in fs::read_dir(library.join("lib-dynload")).context("Python has no lib-dynload")? {
        libraries.extend(libraries_of(&module.context("cannot list Python's modules")?.path())?);
    }
    for library in libraries {
        tree.library(&library)?;
    }
    let packages = workspace::made("images-build/python-packages");
    workspace::once("pip for images", "1", &packages.join("pip"), || {
        let wheels = fs::read_dir("/usr/share/python-wheels")
            .context("no /usr/share/python-wheels: install the package python3-venv")?;
        for wheel in wheels {
            let wheel = wheel.context("cannot list the wheels")?.path();
            let name = wheel.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with("pip-") || name.starts_with("setuptools-") {
                let unpack = ["-m", "zipfile", "-e"];
                workspace::run(workspace::program("python3").args(unpack).arg(&wheel).arg(&packages))?;
            }
        }
        Ok(())
    })?;
    tree.host_folder("usr/lib/python3/dist-packages", &packages, &|name| name.ends_with(".pyc"))?;
    tree.text(
        "usr/bin/pip",
        "#!/usr/bin/python3\nimport sys\nfrom pip._internal.cli.main import main\nsys.exit(main())\n",
        0o755,
    );
    Ok(tree)
}

/// Node of this machine, with the account that its images have.
fn node() -> Result<Tree> {
    let program = fs::canonicalize("/usr/bin/node").context("no /usr/bin/node: install the package nodejs")?;
    let mut tree = Tree::default();
    tree.folders_above(Path::new("usr/local/bin/node"));
    tree.host_file("usr/local/bin/node", &program, 0o755)?;
    for library in libraries_of(&program)? {
        tree.library(&library)?;
    }
    tree.folder("home/node", 0o755, 1000);
    tree.folder("etc", 0o755, 0);
    tree.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n", 0o644);
    tree.text("etc/group", "root:x:0:\ntty:x:5:\nnode:x:1000:\nnogroup:x:65534:\n", 0o644);
    Ok(tree)
}

/// Go of Debian where its official image has it: what compiles programs without C, and the library as sources, which a first
/// build compiles.
fn go() -> Result<Tree> {
    let unpacked = workspace::made("images-build/golang");
    workspace::once("Go for images, of Debian", "1", &unpacked.join("usr/lib/go/bin/go"), || {
        debian::unpack_with_what_is_missing("golang-go", &unpacked)
    })?;
    // Links to folders called by a version, which point elsewhere from within this one.
    let version = |folder: &str| -> Result<PathBuf> {
        let link = unpacked.join(folder).join("go");
        let name = fs::read_link(&link).with_context(|| format!("cannot read {}", link.display()))?;
        Ok(unpacked.join(folder).join(name))
    };
    let (own, shared) = (version("usr/lib")?, version("usr/share")?);
    let mut tree = Tree::default();
    tree.folders_above(Path::new("usr/local/go/bin/go"));
    tree.host_file("usr/local/go/bin/go", &own.join("bin/go"), 0o755)?;
    tree.host_file("usr/local/go/VERSION", &own.join("VERSION"), 0o644)?;
    for machine in fs::read_dir(own.join("pkg/tool")).context("Go has no tools")? {
        let tools = machine.context("cannot list Go's tools")?.path();
        let name = tools.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for tool in ["asm", "compile", "link"] {
            let inside = format!("usr/local/go/pkg/tool/{name}/{tool}");
            tree.folders_above(Path::new(&inside));
            tree.host_file(&inside, &tools.join(tool), 0o755)?;
        }
    }
    tree.host_folder("usr/local/go/pkg/include", &shared.join("pkg/include"), &|_| false)?;
    let leaves = |name: &str| name == "testdata" || name == "cmd" || name.ends_with("_test.go");
    tree.host_folder("usr/local/go/src", &shared.join("src"), &leaves)?;
    tree.folder("go", 0o777, 0);
    Ok(tree)
}

/// Parts of Rust's library that programs of a page do without: tests, macros that are programs, and what the compiler is made of.
fn rust_leaves(name: &str) -> bool {
    let without = ["libtest-", "libproc_macro-", "libgetopts-", "libunicode_width-"];
    !name.ends_with(".rlib") || without.iter().any(|start| name.starts_with(start))
}

/// Rust of Debian: the compiler, cargo, the library of static programs, and a linker that knows what those begin and end with, as
/// no C compiler is there for that.
fn rust() -> Result<Tree> {
    let unpacked = workspace::made("images-build/rust");
    workspace::once("Rust for images, of Debian", "1", &unpacked.join("usr/bin/ld.lld"), || {
        debian::unpack_with_what_is_missing("cargo", &unpacked)?;
        debian::unpack_with_what_is_missing("lld", &unpacked)
    })?;
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut tree = Tree::default();
    tree.folders_above(Path::new("usr/bin/cargo"));
    for program in ["rustc", "cargo", "ld.lld"] {
        // What the machine has was not unpacked.
        let places = [unpacked.join("usr/bin"), PathBuf::from("/usr/bin")].map(|folder| folder.join(program));
        let host = places.iter().find(|place| place.exists()).unwrap_or(&places[0]).clone();
        tree.host_file(&format!("usr/bin/{program}"), &host, 0o755)?;
        let beside = unpacked.join("usr/lib").join(&machine);
        for library in libraries_named(workspace::program("ldd").env("LD_LIBRARY_PATH", beside).arg(&host))? {
            match library.strip_prefix(&unpacked) {
                Ok(inside) => {
                    tree.folders_above(inside);
                    tree.host_file(&inside.to_string_lossy(), &library, 0o755)?;
                }
                Err(_) => tree.library(&library)?,
            }
        }
    }
    let library = format!("usr/lib/rustlib/{target}/lib");
    tree.host_folder(&library, &unpacked.join(&library), &rust_leaves)?;
    // The compiler of this machine knows where these are.
    let mut part = |name: &str| -> Result<String> {
        let host = workspace::output(workspace::program("cc").arg(format!("-print-file-name={name}")))?;
        let mut host = PathBuf::from(host.trim());
        // Some are a line of text that names the archive.
        let text = fs::read(&host).with_context(|| format!("cannot read {}", host.display()))?;
        if text.starts_with(b"/* GNU ld script") {
            let text = String::from_utf8_lossy(&text).into_owned();
            let named = text.split_whitespace().find(|word| word.starts_with('/') && word.ends_with(".a"));
            host = named.context("a library of this machine names no archive")?.into();
        }
        tree.folders_above(Path::new("usr/lib/static/file"));
        tree.host_file(&format!("usr/lib/static/{name}"), &host, 0o644)?;
        Ok(format!("/usr/lib/static/{name}"))
    };
    let begin = ["crt1.o", "crti.o", "crtbeginT.o"].map(&mut part).into_iter().collect::<Result<Vec<_>>>()?.join(" ");
    let end = ["crtend.o", "crtn.o"].map(&mut part).into_iter().collect::<Result<Vec<_>>>()?.join(" ");
    for name in ["libc.a", "libgcc.a", "libgcc_eh.a", "libm.a", "libpthread.a", "libdl.a", "librt.a", "libutil.a"] {
        part(name)?;
    }
    tree.text(
        "usr/bin/link-static",
        &format!(
            "#!/bin/sh\nexec ld.lld -static -L/usr/lib/static {begin} \"$@\" --start-group -lgcc -lgcc_eh -lc --end-group {end}\n"
        ),
        0o755,
    );
    tree.folders_above(Path::new("usr/local/cargo/config.toml"));
    tree.text(
        "usr/local/cargo/config.toml",
        &format!(
            "[net]\noffline = true\n\n[target.{target}]\nlinker = \"link-static\"\n\
             rustflags = [\"-Clinker-flavor=ld\", \"-Ctarget-feature=+crt-static\", \"-Crelocation-model=static\"]\n"
        ),
        0o644,
    );
    Ok(tree)
}
