//! `whiskers`: the example app under load, and (`whiskers build`) the making of its modules.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{task_setup, workspace};

/// Modules written in Rust; each becomes `build/NAME.wasm`, as do those of [`JAVASCRIPT`] and `highscore`, in Python.
const RUST: [&str; 5] = ["files", "morsel", "reset", "session", "tally"];
const JAVASCRIPT: [&str; 2] = ["home", "scoreboard"];
const PYTHON: &str = "highscore";

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Games at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    players: u16,
    /// How long they play
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=300))]
    seconds: u16,
    /// Where the app's port is published on this machine
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// The engine, for the count of instances [default: the machine's own, where one runs]
    #[arg(long, env = "BIREME_HOST")]
    host: Option<String>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Build all modules into examples/whiskers/build
    Build,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(Action::Build) = args.action {
        return build();
    }
    // All of the workspace, as everything else is built: another set would mean other features, and compiling anew.
    workspace::run(&mut workspace::cargo(&["build", "--locked", "--workspace", "--bins"]))?;
    let mut bots = workspace::program(workspace::bin("whiskers-bots"));
    bots.args(["play", "--port", &args.port.to_string(), "--players", &args.players.to_string()]);
    bots.args(["--seconds", &args.seconds.to_string()]);
    // `./x demo` runs the example on the machine's own engine.
    let own = Path::new("/run/bireme/bireme.sock");
    let own = own.exists().then(|| format!("unix://{}", own.display()));
    if let Some(host) = args.host.as_ref().or(own.as_ref()) {
        bots.args(["--host", host]);
    }
    workspace::run(&mut bots)
}

fn folder() -> PathBuf {
    workspace::root().join("examples/whiskers")
}

/// Builds every module whose sources are newer than what was built of them.
pub(crate) fn build() -> Result<()> {
    task_setup::tools()?;
    let (home, made) = (folder(), folder().join("build"));
    std::fs::create_dir_all(&made).with_context(|| format!("cannot create {}", made.display()))?;

    let target = workspace::made("whiskers-build");
    let (manifest, into) = (home.join("Cargo.toml").display().to_string(), target.display().to_string());
    let arguments = [
        "build",
        "--release",
        "--locked",
        "--manifest-path",
        &manifest,
        "--target-dir",
        &into,
        "--target",
        "wasm32-wasip2",
    ];
    workspace::run(&mut task_setup::wasm_compiler()?.cargo(&arguments))?;
    for name in RUST {
        workspace::copy_into(&made, &target.join(format!("wasm32-wasip2/release/{name}.wasm")))?;
    }
    for name in JAVASCRIPT {
        let module = home.join("modules").join(name);
        unless_newer(&made.join(format!("{name}.wasm")), &[&module, &home.join("wit")], || {
            workspace::run(workspace::program("npm").args(["run", "--silent", "build"]).current_dir(&module))
        })?;
    }
    let module = home.join("modules").join(PYTHON);
    let wasm = made.join(format!("{PYTHON}.wasm"));
    unless_newer(&wasm, &[&module, &home.join("wit")], || {
        let tool = task_setup::python()?.join("bin/componentize-py");
        let wit = ["node_modules/@spinframework/wasi-http-proxy/wit", "wit", "modules/highscore/wit"];
        let wit = wit.iter().flat_map(|folder| ["-d", folder]);
        let world = ["-w", "whiskers:highscore/highscore", "componentize", "-p", "modules/highscore", "app", "-o"];
        workspace::run(workspace::program(tool).arg("-q").args(wit).args(world).arg(&wasm).current_dir(&home))
    })
}

/// Makes `wasm` unless it is newer than every source. The tools may fail and still end well: what counts is the file.
fn unless_newer(wasm: &Path, sources: &[&Path], make: impl FnOnce() -> Result<()>) -> Result<()> {
    let changed = |path: &Path| path.metadata().and_then(|known| known.modified()).ok();
    let built = changed(wasm);
    let mut newest = None;
    for source in sources {
        newest = newest.max(newest_below(source)?);
    }
    if built.is_some() && built >= newest {
        return Ok(());
    }
    let name = wasm.file_name().unwrap_or_default().to_string_lossy().into_owned();
    eprintln!("x: building {name}");
    if built.is_some() {
        std::fs::remove_file(wasm).with_context(|| format!("cannot replace {}", wasm.display()))?;
    }
    make()?;
    if !wasm.is_file() {
        bail!("{name} was not made: what its tool printed above says why");
    }
    Ok(())
}

/// When a source below `folder` last changed; what the tools leave there themselves does not count.
fn newest_below(folder: &Path) -> Result<Option<std::time::SystemTime>> {
    let mut newest = None;
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "node_modules" && name != "__pycache__" {
                newest = newest.max(newest_below(&path)?);
            }
        } else if !name.starts_with("precompiled-source") && !name.ends_with(".buildData.json") {
            newest = newest.max(path.metadata().and_then(|known| known.modified()).ok());
        }
    }
    Ok(newest)
}
