//! `bench`: the whole product in its release build, beside its peers in the same run.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::{task_guests, task_images, task_oracle, task_setup, workspace};

/// What of wasmtime's command line serves components; all else of it would only take time to compile.
const WASMTIME_FEATURES: &str =
    "run,serve,cranelift,pooling-allocator,component-model,component-model-async,parallel-compilation";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds of each table
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Only these tables: run, start, http, density, rest, images, builds, components
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Put the tables into docs/performance.md
    #[arg(long, conflicts_with = "only")]
    write: bool,
    /// Starts and rest of workloads, which is what is measured without this word; requests to components, and many of them;
    /// images and builds
    #[arg(value_enum, default_value_t = Subject::Workloads)]
    subject: Subject,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Subject {
    Workloads,
    Wasm,
    Images,
}

impl Subject {
    /// Its tables.
    fn tables(self) -> &'static str {
        match self {
            Self::Workloads => "run,start,rest",
            Self::Wasm => "http,density",
            Self::Images => "images,builds,components",
        }
    }

    /// Where in `docs/performance.md` they go.
    fn marks(self) -> (&'static str, &'static str) {
        match self {
            Self::Workloads => ("<!-- ./x bench --write -->", "<!-- end -->"),
            Self::Wasm => ("<!-- ./x bench wasm --write -->", "<!-- end of wasm -->"),
            Self::Images => ("<!-- ./x bench images --write -->", "<!-- end of images -->"),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match args.subject {
        Subject::Workloads | Subject::Wasm => task_setup::packages()?,
        // Of what it fetches, JavaScript's packages are files of an image.
        Subject::Images => task_setup::run()?,
    }
    task_setup::install(&[("wrk", "wrk")])?;
    // Components have other peers than containers.
    let containers = args.subject != Subject::Wasm;
    if containers {
        task_setup::install(&[("podman", "podman"), ("umoci", "umoci"), ("nsenter", "util-linux")])?;
        task_images::run()?;
    }
    task_guests::run()?;
    workspace::run(&mut workspace::cargo(&["build", "--locked", "--release", "--workspace", "--bins"]))?;
    let wasmtime = if args.subject == Subject::Wasm { Some(wasmtime()?) } else { None };
    let bench = workspace::root().join("target/release/bireme-benches");
    let mut command = workspace::program(bench);
    let mut podman = None;
    if containers {
        task_oracle::start()?;
        command.arg("--dockerd").arg(task_oracle::socket());
        let pid = workspace::read(&task_oracle::socket().with_file_name("pid"))?;
        command.args(["--dockerd-pid", pid.trim()]);
        let peer = podman.insert(Podman::set_up()?);
        command.args(["--podman", &peer.line.join(" ")]);
    }
    if let Some(wasmtime) = wasmtime {
        command.arg("--wasmtime").arg(wasmtime);
    }
    let buildx = workspace::made("setup/docker-buildx");
    if buildx.join("cli-plugins/docker-buildx").is_file() {
        command.arg("--buildx").arg(buildx);
    }
    command.args(["--rounds", &args.rounds.to_string()]);
    let only = if args.only.is_empty() { args.subject.tables().to_owned() } else { args.only.join(",") };
    command.args(["--only", &only]);
    let tables = workspace::output(command.stderr(Stdio::inherit()));
    drop(podman);
    if containers {
        task_oracle::stop()?;
    }
    let tables = tables?;
    println!("{tables}");
    if args.write { write(args.subject.marks(), &tables) } else { Ok(()) }
}

/// Puts tables into docs/performance.md, between two marks.
pub(crate) fn write(marks: (&str, &str), tables: &str) -> Result<()> {
    let page = workspace::root().join("docs/performance.md");
    let text = workspace::read(&page)?;
    let place = text.split_once(marks.0).and_then(|(before, rest)| Some((before, rest.split_once(marks.1)?.1)));
    let Some((before, after)) = place else {
        bail!("{} has no place for the tables: {} … {}", page.display(), marks.0, marks.1);
    };
    workspace::write(&page, format!("{before}{}\n\n{}\n\n{}{after}", marks.0, tables.trim(), marks.1))
}

/// The peer for components: wasmtime's own command line, of the version that we embed.
fn wasmtime() -> Result<PathBuf> {
    let lock = workspace::read(&workspace::root().join("Cargo.lock"))?;
    let version = lock
        .split_once("name = \"wasmtime\"\nversion = \"")
        .and_then(|(_, rest)| rest.split('"').next())
        .context("Cargo.lock names no wasmtime")?;
    let root = workspace::made("peers");
    let binary = root.join("bin/wasmtime");
    workspace::once("wasmtime, to compare with", version, &binary, || {
        let mut install = workspace::cargo(&["install", "--quiet", "--locked", "--no-default-features"]);
        install.args(["--features", WASMTIME_FEATURES, "--version", version, "--root"]).arg(&root);
        install.arg("--target-dir").arg(workspace::made("peers-build")).arg("wasmtime-cli");
        workspace::run(&mut install)
    })?;
    Ok(binary)
}

/// Debian's podman, with folders and a network namespace of its own, and Docker's runc, since its crun refuses machines
/// that mix both versions of cgroups.
struct Podman {
    folder: PathBuf,
    line: Vec<String>,
}

const NAMESPACE: &str = "bireme-bench";

impl Podman {
    fn set_up() -> Result<Self> {
        let folder = workspace::made("podman");
        let runc = task_oracle::programs()?.join("usr/sbin/runc");
        let _ = workspace::program("ip").args(["netns", "delete", NAMESPACE]).stderr(Stdio::null()).status();
        workspace::run(workspace::program("ip").args(["netns", "add", NAMESPACE]))?;
        let path = |name: &str| folder.join(name).display().to_string();
        let line = [
            "nsenter",
            &format!("--net=/run/netns/{NAMESPACE}"),
            "podman",
            "--root",
            &path("root"),
            "--runroot",
            &path("run"),
            "--runtime",
            &runc.display().to_string(),
            "--cgroup-manager",
            "cgroupfs",
            "--storage-driver",
            "overlay",
            "--network-config-dir",
            &path("networks"),
        ];
        let made = Self { line: line.map(str::to_owned).to_vec(), folder: folder.clone() };
        let image = workspace::made("images/busybox.tar");
        workspace::run(workspace::program("ip").args(["-n", NAMESPACE, "link", "set", "lo", "up"]))?;
        workspace::run(
            workspace::program(&made.line[0])
                .args(&made.line[1..])
                .args(["load", "-q", "-i"])
                .arg(image)
                .stdout(Stdio::null()),
        )?;
        Ok(made)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let line = &self.line;
        let _ = workspace::program(&line[0])
            .args(&line[1..])
            .args(["system", "reset", "--force"])
            .stdout(Stdio::null())
            .status();
        let _ = workspace::program("ip").args(["netns", "delete", NAMESPACE]).status();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
