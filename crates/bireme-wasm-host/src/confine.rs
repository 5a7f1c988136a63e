//! The second fence: what a host process gives up before it runs anything.

use std::path::Path;

use anyhow::Context as _;
use bireme_wasm::cgroup;
use bireme_wasm::protocol::HostConfig;

/// Before any thread is started and while the process may still do everything: session, cgroup, network.
pub(crate) fn enter(config: &HostConfig) -> anyhow::Result<()> {
    // Fails for a process that leads its group already, which then cannot be reached through a terminal either.
    let _ = rustix::process::setsid();
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit {
            current: rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum,
            ..rustix::process::getrlimit(rustix::process::Resource::Nofile)
        },
    );
    if rustix::process::geteuid().is_root() {
        enter_cgroup(&config.cgroup)?;
    }
    if let Some(netns) = &config.netns {
        enter_network(netns)?;
    }
    Ok(())
}

fn enter_cgroup(name: &Path) -> anyhow::Result<()> {
    let pid = std::process::id().to_string();
    for folder in cgroup::folders(name) {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        let procs = folder.join("cgroup.procs");
        std::fs::write(&procs, &pid).with_context(|| format!("cannot enter the cgroup {}", folder.display()))?;
    }
    Ok(())
}

fn enter_network(netns: &Path) -> anyhow::Result<()> {
    let attempt = || format!("cannot join the network namespace {}", netns.display());
    let file = std::fs::File::open(netns).with_context(attempt)?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).with_context(attempt)?;
    // Components listen on port 80 of their own addresses, and this process will be nobody.
    std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        .context("cannot open the low ports of the network namespace")?;
    Ok(())
}

/// For the process that compiles: everything but its open files.
pub(crate) fn compiler() -> anyhow::Result<()> {
    Ok(())
}

/// Gives up every right and path that serving needs not. Answers where the compiled code is to be found from now on.
pub(crate) fn close_in(config: &HostConfig) -> anyhow::Result<std::path::PathBuf> {
    Ok(config.cache_dir.clone())
}

/// Lets whoever started this process know that nothing more comes on standard output.
pub(crate) fn close_stdout() {
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}
