//! The parent of one Linux container: makes it with libcontainer, holds its streams, writes its log, records its end.
//!
//! `biremed` starts one per container, in the container's run folder, and talks to it through a socket there
//! ([`bireme_linux::protocol`]). It goes on without `biremed`; without it, the container ends.
//!
//! **One thread, no runtime.** libcontainer clones and changes process-wide state; in a process with threads that is
//! unsound.

mod container;
mod devices;
mod exec;
mod failure;
mod filter;
mod journal;
mod libraries;
mod network;
mod output;
mod payload;
mod raw;
mod rootfs;
mod serve;
mod stat;
mod streams;
mod tracer;
mod trim_memory;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use bireme_linux::protocol::{Failure, Reply, RunnerConfig};

fn main() -> ExitCode {
    journal::open();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            journal::note(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    libraries::from_read_only_mounts()?;
    detach().context("cannot leave the daemon's session")?;
    tracer::install();
    // Its working directory is its run folder. The configuration holds the container's secrets: gone once read.
    let text = std::fs::read("runner.json").context("cannot read runner.json: bireme-runner is started by biremed")?;
    let config: RunnerConfig = serde_json::from_slice(&text).context("cannot understand runner.json")?;
    drop(text);
    let _ = std::fs::remove_file("runner.json");

    let made = container::create(&config).and_then(|container| serve::Server::new(&config, container));
    match made {
        Ok(mut server) => {
            tell(&Reply::State(server.state()))?;
            server.run()
        }
        Err(failure) => {
            container::clear_up(&config);
            refuse(failure)
        }
    }
}

fn refuse(failure: Failure) -> anyhow::Result<()> {
    journal::note(&failure);
    tell(&Reply::Failed(failure))
}

/// Answers the one question there is before the socket: did it work?
fn tell(reply: &Reply) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    // Nobody may be there any more to read it.
    let _ = std::io::stdout().write_all(&line);
    let _ = std::io::stdout().flush();
    rustix::stdio::dup2_stdout(streams::null()?)?;
    Ok(())
}

/// A session of our own, and nothing of the daemon's that a container could inherit.
fn detach() -> anyhow::Result<()> {
    // As part of the daemon's it would be sent SIGHUP at the daemon's end, where it is stopped.
    rustix::process::setsid()?;
    // Whoever started the daemon may keep keys in theirs, and each container would share it with all others.
    bireme_sys::keyring::join_new_session()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // libcontainer leaves them as they are where the container's user has none.
    nix::unistd::setgroups(&[])?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let _ = rustix::thread::set_name(c"bireme-runner");
    Ok(())
}
