//! A private `biremed`: its own folders and socket, nothing shared with another.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::house;

/// How long the daemon may take to listen, and to end.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Engine {
    daemon: Child,
    data: PathBuf,
    /// Short, since the path of a socket may have about a hundred bytes.
    exec: PathBuf,
    log: PathBuf,
}

impl Engine {
    /// Starts the daemon and waits until it listens.
    ///
    /// # Errors
    /// When it does not; then the end of its log is part of the error.
    pub(super) fn start() -> Result<Self> {
        let data = house::made("demo/data");
        let exec = std::env::temp_dir().join(format!("bireme-demo-{}", std::process::id()));
        let log = house::made("demo/biremed.log");
        for folder in [&data, &exec] {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let out = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let socket = exec.join("bireme.sock");
        let mut command = house::program(house::bin("biremed"));
        command
            .arg("--data-root")
            .arg(&data)
            .arg("--exec-root")
            .arg(&exec)
            .arg("-H")
            .arg(format!("unix://{}", socket.display()));
        command.stdin(Stdio::null()).stdout(out.try_clone().context("cannot share the log")?).stderr(out);
        let daemon = command.spawn().context("cannot start biremed")?;
        let mut engine = Self { daemon, data, exec, log };
        let patience = Instant::now() + PATIENCE;
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = engine.daemon.try_wait().context("cannot watch biremed")? {
                bail!("biremed ended with {status}:\n{}", engine.last_words());
            }
            if Instant::now() > patience {
                let _ = engine.daemon.kill();
                bail!("biremed does not listen after {PATIENCE:?}:\n{}", engine.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(engine)
    }

    pub(super) fn host(&self) -> String {
        format!("unix://{}", self.exec.join("bireme.sock").display())
    }

    pub(super) fn bireme(&self, arguments: &[&str], folder: &Path) -> Result<()> {
        self.bireme_with(arguments, folder, &[])
    }

    pub(super) fn bireme_with(&self, arguments: &[&str], folder: &Path, settings: &[(&str, &str)]) -> Result<()> {
        let mut command = house::program(house::bin("bireme"));
        command.args(arguments).current_dir(folder).env("BIREME_HOST", self.host()).envs(settings.iter().copied());
        house::run(&mut command)
    }

    /// What may explain a failure: the app's logs and the daemon's.
    pub(super) fn tell(&self) -> Result<()> {
        eprintln!("\n-- the app's logs");
        let _ = self.bireme(&["logs", "--tail", "20"], &super::app());
        eprintln!("-- the daemon's log\n{}", self.last_words());
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Ends the daemon as an operator would, and clears its folders.
    ///
    /// # Errors
    /// When it does not end in time, or badly, or its folders cannot be cleared (something is still mounted there).
    pub(super) fn stop(mut self) -> Result<()> {
        let id = self.daemon.id().to_string();
        house::run(house::program("kill").args(["-TERM", &id]))?;
        let patience = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.daemon.try_wait().context("cannot watch biremed")? {
                break status;
            }
            if Instant::now() > patience {
                let _ = self.daemon.kill();
                let _ = self.daemon.wait();
                bail!("biremed does not end {PATIENCE:?} after SIGTERM:\n{}", self.last_words());
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        if !status.success() {
            bail!("biremed ended with {status}:\n{}", self.last_words());
        }
        for folder in [&self.exec, &self.data] {
            fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
        }
        Ok(())
    }
}
