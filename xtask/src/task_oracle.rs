//! `oracle`: Docker's own engine, from Debian's packages, as the reference that tests and benchmarks are held against.
//!
//! It is unpacked into a folder and installed nowhere, and runs in mount and network namespaces of its own: ports that its
//! containers publish are in there, and nothing of it is left on the machine when it stops.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::debian::Suite;
use crate::workspace;

/// One release of Docker's engine, with a folder of its own.
struct Edition {
    folder: &'static str,
    /// Suites of Debian, and what is taken of each. runc comes from the suite whose C library is the older one.
    packages: [(&'static str, &'static [&'static str]); 2],
    /// Of `dockerd`.
    flags: &'static str,
}

/// Docker 26.1.5, its containerd and the init of `--init`: what the API is held against, and timings.
const STABLE: Edition = Edition {
    folder: "oracle",
    packages: [("trixie", &["docker.io", "containerd", "tini"]), ("bookworm", &["runc"])],
    flags: "",
};

/// Docker 28.5.2 or newer, which images are built on: its BuildKit knows the Dockerfiles of today, and with the image store
/// of containerd it has every kind of output.
const NEWEST: Edition = Edition {
    folder: "oracle-builds",
    packages: [("sid", &["docker.io", "containerd", "tini-static"]), ("bookworm", &["runc"])],
    flags: "--feature containerd-snapshotter=true",
};

const STARTS_WITHIN: Duration = Duration::from_secs(60);
const STOPS_WITHIN: Duration = Duration::from_secs(30);

#[derive(Parser)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Fetch it when it is not there, start it, load the images that tests use, and print its socket
    Start,
    /// Stop it and clear away what it stored
    Stop,
    /// Start it and run on it the tests that stand on either engine
    Test {
        /// Keep what it answers as what is expected of ours
        #[arg(long)]
        record: bool,
        /// Of their names, as the test runner takes them
        filters: Vec<String>,
    },
    /// Start the newest one and build on it the corpus of `tests/builds`
    Builds {
        /// Keep what it makes as what is expected of ours
        #[arg(long)]
        record: bool,
        /// Of the names `CASE::CLIENT`, as the test runner takes them
        filters: Vec<String>,
    },
}

/// The tests that stand on either engine.
const ON_EITHER: &str = "package(bireme-tests) and (binary(stacks) or binary(clients))";
/// The corpus of builds, which needs nothing of ours to be compiled.
pub(crate) const BUILDS: &str = "builds";

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.action {
        Action::Start => {
            start()?;
            println!("unix://{}", socket().display());
            Ok(())
        }
        Action::Stop => {
            STABLE.stop()?;
            NEWEST.stop()
        }
        Action::Test { record, filters } => {
            start()?;
            test(&["-E", ON_EITHER], *record, filters)
        }
        Action::Builds { record, filters } => {
            start_newest()?;
            build_corpus(*record, filters)
        }
    }
}

/// Builds the corpus on the newest one, which runs.
pub(crate) fn build_corpus(record: bool, filters: &[String]) -> Result<()> {
    test(&["--test", BUILDS], record, filters)
}

fn test(which: &[&str], record: bool, filters: &[String]) -> Result<()> {
    // One after the other: all share the one engine and its images.
    let mut command = workspace::cargo(&["nextest", "run", "--locked", "--workspace", "--no-fail-fast", "-j", "1"]);
    command.args(which).args(filters).env("BIREME_TEST_ON_DOCKER", "1");
    if record {
        command.env("BIREME_TEST_RECORD", "1");
    }
    workspace::run(&mut command)
}

/// Starts the one that the API and timings are held against, and waits until it answers; does nothing where it runs
/// already.
pub(crate) fn start() -> Result<()> {
    STABLE.start()
}

/// Starts the one that images are built on, likewise.
pub(crate) fn start_newest() -> Result<()> {
    NEWEST.start()
}

/// Stops the first when it runs, and removes what it stored; its programs stay.
pub(crate) fn stop() -> Result<()> {
    STABLE.stop()
}

/// Where the first listens.
pub(crate) fn socket() -> PathBuf {
    STABLE.socket()
}

/// The folder with its programs, laid out as a root folder.
pub(crate) fn programs() -> Result<PathBuf> {
    STABLE.programs()
}

impl Edition {
    fn folder(&self) -> PathBuf {
        workspace::made(self.folder)
    }

    /// Where it listens.
    fn socket(&self) -> PathBuf {
        self.folder().join("docker.sock")
    }

    /// The folder with its programs, laid out as a root folder.
    fn programs(&self) -> Result<PathBuf> {
        let root = self.folder().join("root");
        let key = format!("{:?}", self.packages);
        let name = format!("Docker's engine, of Debian {}", self.packages[0].0);
        workspace::once(&name, &key, &root.join("usr/sbin/dockerd"), || {
            for (suite, packages) in self.packages {
                let suite = Suite::open(suite, self.folder().join("apt"))?;
                suite.unpack(packages, &root)?;
                suite.close()?;
            }
            Ok(())
        })?;
        Ok(root)
    }

    fn answers(&self) -> bool {
        workspace::program("docker")
            .arg("-H")
            .arg(format!("unix://{}", self.socket().display()))
            .args(["version", "--format", "{{.Server.Version}}"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    fn start(&self) -> Result<()> {
        if self.answers() {
            return Ok(());
        }
        if !workspace::is_root() {
            bail!("Docker's engine needs root for its namespaces");
        }
        let root = self.programs()?;
        self.stop()?;
        let folder = self.folder();
        let log = fs::File::create(folder.join("log")).context("cannot create the log of Docker's engine")?;
        // Its own /run, so that no socket of it and none of the machine's meet; its own session, so that it outlives this.
        let script = format!(
            "ip link set lo up && mount -t tmpfs tmpfs /run && exec dockerd {} --data-root \"$0/data\" \
             --exec-root /run/oracle --pidfile \"$0/pid\" -H \"unix://$0/docker.sock\"",
            self.flags
        );
        let path = format!("{0}/usr/sbin:{0}/usr/bin:{1}", root.display(), std::env::var("PATH").unwrap_or_default());
        workspace::program("setsid")
            .args(["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", &script])
            .arg(&folder)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log of Docker's engine")?)
            .stderr(log)
            .spawn()
            .context("cannot start Docker's engine")?;
        wait(STARTS_WITHIN, || self.answers())
            .with_context(|| format!("Docker's engine does not answer; see {}", folder.join("log").display()))?;
        for image in fs::read_dir(workspace::made("images")).context("no images; run ./x images")? {
            let image = image.context("cannot list the images")?.path();
            if image.extension().is_some_and(|extension| extension == "tar") {
                let socket = format!("unix://{}", self.socket().display());
                workspace::run(
                    workspace::program("docker")
                        .args(["-H", &socket, "load", "--quiet", "-i"])
                        .arg(&image)
                        .stdout(Stdio::null()),
                )?;
            }
        }
        Ok(())
    }

    /// Stops it when it runs, and removes what it stored; its programs stay.
    fn stop(&self) -> Result<()> {
        let folder = self.folder();
        let pid = fs::read_to_string(folder.join("pid")).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if let Some(pid) = pid {
            let own = || fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"dockerd"));
            if own() {
                workspace::run(workspace::program("kill").args(["-TERM", &pid.to_string()]))?;
                wait(STOPS_WITHIN, || !own()).context("Docker's engine does not stop")?;
            }
        }
        for part in ["data", "pid", "docker.sock"] {
            let part = folder.join(part);
            let removed = if part.is_dir() { fs::remove_dir_all(&part) } else { fs::remove_file(&part) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", part.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn wait(limit: Duration, done: impl Fn() -> bool) -> Result<()> {
    let since = Instant::now();
    while !done() {
        if since.elapsed() > limit {
            bail!("not within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
