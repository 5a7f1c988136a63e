//! The engine that builds: a private one of ours, or the newest of Docker's, which `./x oracle builds` has started.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use bireme_testing::{Engine, free_port, workspace};
use tempfile::TempDir;

use crate::case::Case;
use crate::client::Client;

/// Set by `./x oracle builds`.
const ON_DOCKER: &str = "BIREME_TEST_ON_DOCKER";
/// Set by `./x oracle builds --record`.
const RECORD: &str = "BIREME_TEST_RECORD";

/// For a server of a case's own.
static PORT: OnceLock<u16> = OnceLock::new();

pub(crate) enum Side {
    Ours(Engine),
    Docker(TempDir),
}

/// Bytes of an image from which on its engine is on the disk.
const IN_MEMORY: u64 = 150 << 20;

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

pub(crate) fn on_docker() -> bool {
    std::env::var_os(ON_DOCKER).is_some()
}

/// Whether what is made becomes what is expected: Docker's word alone counts.
pub(crate) fn records() -> bool {
    on_docker() && std::env::var_os(RECORD).is_some()
}

impl Side {
    pub(crate) fn start(case: &Case) -> Self {
        if on_docker() {
            let side =
                Self::Docker(tempfile::Builder::new().prefix("dk").tempdir().expect("a temporary folder can be made"));
            // What another case left in the cache must decide nothing in this one.
            side.plain("docker", &["builder", "prune", "--all", "--force"]);
            return side;
        }
        let large =
            |image: &String| std::fs::metadata(bireme_testing::image(image)).is_ok_and(|tar| tar.len() > IN_MEMORY);
        let engine = if case.images.iter().any(large) { Engine::start() } else { Engine::in_memory() };
        case.images.iter().for_each(|image| engine.load(image));
        Self::Ours(engine)
    }

    pub(crate) fn is_docker(&self) -> bool {
        matches!(self, Self::Docker(_))
    }

    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Ours(engine) => engine.folder(),
            Self::Docker(folder) => folder.path(),
        }
    }

    /// A command as someone beside the engine types it: what listens on 127.0.0.1 for one listens for the other.
    fn command(&self, program: &str, args: &[&str]) -> Command {
        match self {
            Self::Ours(engine) => engine.command(program, args),
            Self::Docker(folder) => {
                let pid = std::fs::read_to_string(oracle().join("pid")).expect("`./x oracle builds` starts it");
                let mut command = Command::new("nsenter");
                command
                    .arg(format!("--net=/proc/{}/ns/net", pid.trim()))
                    .arg(program)
                    .args(args)
                    .env("DOCKER_HOST", format!("unix://{}", oracle().join("docker.sock").display()))
                    .env("DOCKER_CONFIG", folder.path().join("docker"))
                    .stdin(Stdio::null());
                command
            }
        }
    }

    /// Runs the command line without any plugin.
    pub(crate) fn plain(&self, program: &str, args: &[&str]) -> Ended {
        ended(self.command(program, args))
    }

    /// Runs one line of shell in `folder`, in which `build` is the client's own, `$TAG` what it shall call the
    /// image, and `$PORT` a free one.
    pub(crate) fn shell(&self, client: Client, folder: &Path, tag: &str, line: &str) -> Ended {
        let config = self.folder().join("config");
        let words = self.folder().join("words");
        if !words.exists() {
            std::fs::create_dir_all(&config).expect("a folder can be made");
            std::fs::create_dir(&words).expect("a folder can be made");
            let plugins = workspace().join("target/setup").join(client.config()).join("cli-plugins");
            assert!(plugins.is_dir(), "{} is missing: run `./x setup`", plugins.display());
            symlink(plugins, config.join("cli-plugins")).expect("a link can be made");
            let word = words.join("build");
            let text = client.build();
            let text = match text.strip_prefix("DOCKER_BUILDKIT=0 ") {
                Some(text) => format!("#!/bin/sh\nDOCKER_BUILDKIT=0 exec {text} \"$@\"\n"),
                None => format!("#!/bin/sh\nexec {text} \"$@\"\n"),
            };
            std::fs::write(&word, text).expect("a file can be written");
            std::fs::set_permissions(&word, std::fs::Permissions::from_mode(0o755)).expect("a mode can be set");
        }
        let mut command = self.command("timeout", &["100", "sh", "-c", line]);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["BUILDX_", "BUILDKIT_", "COMPOSE_", "DOCKER_", "SOURCE_DATE", "SSH_", "GIT_"]
                .iter()
                .any(|prefix| name.starts_with(prefix) && name != "DOCKER_HOST")
            {
                command.env_remove(&*name);
            }
        }
        if let Self::Ours(engine) = self {
            command.env("DOCKER_HOST", engine.host());
        }
        command
            .current_dir(folder)
            .env("DOCKER_CONFIG", &config)
            .env("HOME", self.folder())
            .env("PATH", format!("{}:{}", words.display(), std::env::var("PATH").unwrap_or_default()))
            .env("TAG", tag)
            .env("PORT", PORT.get_or_init(free_port).to_string());
        ended(command)
    }

    /// Ends an engine of ours, which must leave nothing behind; on Docker's, removes what was made.
    pub(crate) fn finish(self, tag: &str) {
        match self {
            Self::Ours(engine) => engine.finish(),
            Self::Docker(_) => {
                let all = self.plain("docker", &["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"]);
                let text = String::from_utf8_lossy(&all.out).into_owned();
                for image in text.lines().filter(|image| image.starts_with(tag)) {
                    self.plain("docker", &["image", "rm", "--force", image]);
                }
            }
        }
    }
}

fn ended(mut command: Command) -> Ended {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
    Ended {
        code: output.status.code().unwrap_or(255),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Where `./x oracle` keeps that engine.
fn oracle() -> PathBuf {
    workspace().join("target/oracle-builds")
}
