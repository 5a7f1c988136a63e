//! Finding `biremed`, and starting it when no socket answers.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bireme_api::{Client, ClientError, Host};

use crate::error::Failure;
use crate::printer::Printer;

/// How long a daemon may take until it answers.
const PATIENCE: Duration = Duration::from_secs(20);

/// `biremed` beside this program, else on the path.
pub fn find() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program's own file")?;
    let beside = own.parent().map(|folder| folder.join("biremed"));
    let on_path = std::env::var_os("PATH")
        .into_iter()
        .flat_map(|path| std::env::split_paths(&path).map(|folder| folder.join("biremed")).collect::<Vec<_>>());
    beside.into_iter().chain(on_path).find(|candidate| candidate.is_file()).ok_or_else(|| {
        Failure::new("cannot find biremed, neither beside this program nor on PATH")
            .hint("install biremed beside bireme, or name a running engine with --host")
            .into()
    })
}

/// Starts the daemon with its default folders unless its socket answers already, and waits until it does.
pub async fn ensure(client: &Client, printer: &Printer) -> anyhow::Result<()> {
    let Host::Unix(socket) = client.host() else { return Ok(()) };
    match tokio::net::UnixStream::connect(socket).await {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(ClientError::Connect { host: client.host().clone(), source: error }.into());
        }
        Err(_) => {}
    }
    let program = find()?;
    let log_folder = socket.parent().map(PathBuf::from).unwrap_or_else(|| PathBuf::from("/tmp"));
    std::fs::create_dir_all(&log_folder).with_context(|| format!("cannot make {}", log_folder.display()))?;
    let log_path = log_folder.join("biremed.log");
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .with_context(|| format!("cannot open {}", log_path.display()))?;
    printer.note(format!("starting the engine ({}), log in {}", program.display(), log_path.display()))?;
    let mut command = Command::new(&program);
    // A process group of its own: Ctrl-C at our terminal must not reach it.
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/").process_group(0);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if client.ping().await.is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read_to_string(&log_path).unwrap_or_default();
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned();
            return Err(Failure::new(format!("the engine ended at once ({status}): {last}"))
                .hint(format!("read {}, or run `bireme daemon` to see what it says", log_path.display()))
                .code(125)
                .into());
        }
        if Instant::now() > deadline {
            return Err(Failure::new(format!("the engine does not answer after {} seconds", PATIENCE.as_secs()))
                .hint(format!("read {}", log_path.display()))
                .code(125)
                .into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
