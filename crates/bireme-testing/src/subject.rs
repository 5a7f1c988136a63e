//! The engine that a test of compatibility runs on: a private one of ours, or Docker's own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::client::{self, Answer};
use crate::{Engine, Output, workspace};

/// Set by `./x oracle test`: the tests stand on Docker's engine, which that command has started.
const ON_DOCKER: &str = "BIREME_TEST_ON_DOCKER";
/// Set by `./x oracle test --record`: what Docker's engine answers becomes what is expected.
const RECORD: &str = "BIREME_TEST_RECORD";

/// An engine with Docker's API, whoever made it.
pub enum Subject {
    /// A private `biremed`.
    Ours(Engine),
    /// The one that `./x oracle` has started, and a folder for the test's files. Shared by all tests that run on it, so that
    /// each must keep to names of its own.
    Docker(TempDir),
}

impl Subject {
    /// A private engine of ours, unless the environment says that it is Docker's turn.
    #[track_caller]
    pub fn start() -> Self {
        if std::env::var_os(ON_DOCKER).is_some() {
            Self::Docker(tempfile::Builder::new().prefix("dk").tempdir().expect("a temporary folder can be made"))
        } else {
            Self::Ours(Engine::start())
        }
    }

    /// Whether it is Docker's engine.
    pub fn is_docker(&self) -> bool {
        matches!(self, Self::Docker(_))
    }

    /// Whether what this engine answers shall be written down as what is expected of the other.
    pub fn records(&self) -> bool {
        self.is_docker() && Self::is_recorded()
    }

    /// Whether expectations are being written, on whichever engine.
    pub fn is_recorded() -> bool {
        std::env::var_os(RECORD).is_some()
    }

    /// For the test's own files.
    pub fn folder(&self) -> &Path {
        match self {
            Self::Ours(engine) => engine.folder(),
            Self::Docker(folder) => folder.path(),
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        match self {
            Self::Ours(engine) => engine.socket(),
            Self::Docker(_) => oracle().join("docker.sock"),
        }
    }

    /// Loads a test image; Docker's engine has had them all since it was started.
    #[track_caller]
    pub fn load(&self, name: &str) {
        if let Self::Ours(engine) = self {
            engine.load(name);
        }
    }

    /// A client command with the engine's address in its environment, not yet run. Ports that the engine publishes are
    /// within its reach.
    #[track_caller]
    pub fn command(&self, program: impl AsRef<OsStr>, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        match self {
            Self::Ours(engine) => engine.command(program, args),
            Self::Docker(folder) => {
                // Docker's engine runs in a network namespace of its own.
                let pid = std::fs::read_to_string(oracle().join("pid")).expect("`./x oracle test` starts it");
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net=/proc/{}/ns/net", pid.trim()))
                    .arg(program)
                    .args(args)
                    .env("DOCKER_HOST", format!("unix://{}", self.socket().display()))
                    .env("DOCKER_CONFIG", folder.path().join("docker"))
                    .env_remove("BIREME_HOST")
                    .stdin(Stdio::null());
                command
            }
        }
    }

    /// Runs a command to its end, however that is.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, command: Command) -> Output {
        Output::of(command)
    }

    /// Runs the `docker` command line against this engine.
    #[track_caller]
    pub fn docker(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        self.run(self.command("docker", args))
    }

    /// One request by hand, without a body.
    ///
    /// # Panics
    /// When nobody answers.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str) -> Answer {
        client::unix(&self.socket(), method, path, "", b"").unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Ends an engine of ours, which must leave nothing behind; Docker's goes on.
    ///
    /// # Panics
    /// As [`Engine::finish`].
    #[track_caller]
    pub fn finish(self) {
        if let Self::Ours(engine) = self {
            engine.finish();
        }
    }
}

/// Where `./x oracle` keeps Docker's engine.
fn oracle() -> PathBuf {
    workspace().join("target/oracle")
}
