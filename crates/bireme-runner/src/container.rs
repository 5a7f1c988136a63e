//! The container itself: everything that libcontainer is called for.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;

use bireme_core::ErrorKind;
use bireme_core::error::chain;
use bireme_core::linux_names::{capability_number, limit_number};
use bireme_core::spec::{NamespaceMode, NetworkMode};
use bireme_linux::cgroup::Cgroup;
use bireme_linux::protocol::{Failure, RunnerConfig};
use bireme_linux::spec::{self, Found};
use bireme_linux::users::{self, User};
use libcontainer::container::Container as Inner;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sys::resource::{Resource, getrlimit};
use rustix::pipe::PipeFlags;
use rustix::process::PidfdFlags;

use crate::devices;
use crate::filter::{self, Filter};
use crate::payload::Payload;
use crate::streams::{self, Streams};
use crate::{network, rootfs};

/// A container whose init waits to be let go.
pub(crate) struct Container {
    inner: Inner,
    pub(crate) pid: nix::unistd::Pid,
    pub(crate) streams: Streams,
    /// Where the payload says that it could not be executed; ends when it was.
    pub(crate) status: OwnedFd,
    pub(crate) capabilities: u64,
    /// What its processes are bound to, those too that join later.
    pub(crate) filter: Option<Rc<Filter>>,
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Internal, format!("{what}: {error}"))
}

/// Makes the container up to where init waits.
pub(crate) fn create(config: &RunnerConfig) -> Result<Container, Failure> {
    // Held until init has joined it.
    let mut fresh = None;
    let network = match (&config.network, config.joins.network, &config.spec.namespaces.network) {
        (Some(place), _, _) => Some(place.netns.to_string_lossy().into_owned()),
        (None, Some(pid), _) => Some(format!("/proc/{pid}/ns/net")),
        (None, None, NetworkMode::Host) => None,
        // Whoever was given no place gets none: never the host's by mistake.
        (None, None, _) => {
            let fresh = fresh.insert(network::fresh()?);
            Some(format!("/proc/{}/fd/{}", std::process::id(), fresh.as_raw_fd()))
        }
    };
    let rootfs = rootfs::prepare(config)?;
    let user = users::resolve(&rootfs.fd, &config.spec.user, &config.spec.security.group_add)?;
    let capabilities = own_capabilities();
    let found = Found { user: &user, root: &rootfs.path, network, capabilities };
    let spec = spec::oci(config, &found)?;
    check_limits(config)?;
    let filter = Filter::of(&spec["linux"]["seccomp"], &config.filters)?.map(Rc::new);
    // For libcontainer the filter is none of its business, and what loading it takes is the container's for that long.
    let mut told = spec.clone();
    if let Some(linux) = told["linux"].as_object_mut() {
        linux.remove("seccomp");
    }
    let privileged = filter.is_some() && !config.spec.security.no_new_privileges;
    let lent = privileged.then(|| filter::lend(&mut told["process"]));
    let written = serde_json::to_vec(&told).map_err(|error| failed("cannot write the specification", error))?;
    fs::write(config.run_dir.join("config.json"), written)
        .map_err(|error| failed("cannot write the specification", error))?;
    // Closed before there is an init: a folder that init has open is one that a working directory may lead to.
    drop(rootfs.fd);
    let container = build(config, &user, capabilities, (filter, lent))?;
    // Init stands in its cgroup and has executed nothing of the container's.
    let cgroup = Cgroup::new(&config.cgroup);
    devices::confine(&cgroup, &spec["linux"]["resources"]["devices"])?;
    if config.spec.resources.oom_kill_disable {
        cgroup.disable_oom_killer().map_err(|error| failed("cannot disable the OOM killer", error))?;
    }
    Ok(container)
}

fn build(
    config: &RunnerConfig,
    user: &User,
    capabilities: u64,
    (filter, lent): (Option<Rc<Filter>>, Option<filter::TemporaryCaps>),
) -> Result<Container, Failure> {
    let id = config.spec.id.as_str();
    let (status, status_end) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed("cannot make a pipe", error))?;
    let runner = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .map_err(|error| failed("cannot watch myself", error))?;
    let payload = Payload {
        args: config.spec.args.clone(),
        env: spec::environment(&config.spec, user, config.spec.tty, &[]),
        status: Rc::new(status_end),
        runner: Some(Rc::new(runner)),
        filter: filter.clone().map(|filter| (filter, lent)),
        init: config.spec.init,
    };
    let state = config.run_dir.join("oci");
    let _ = fs::remove_dir_all(&state);
    fs::create_dir_all(&state).map_err(|error| failed("cannot make a folder", error))?;
    let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::Linux)
        .with_executor(payload)
        .with_root_path(&state)
        .map_err(|error| failed("cannot use the state folder", error))?;
    let mut console = None;
    let mut streams = Streams::default();
    if config.spec.tty {
        let path = config.run_dir.join("console.sock");
        let _ = fs::remove_file(&path);
        // A short name: the full one may be too long for a socket's address.
        console =
            Some(UnixListener::bind("console.sock").map_err(|error| failed("cannot listen for the terminal", error))?);
        builder = builder.with_console_socket(Some(path));
    } else {
        let (ours, ends) =
            streams::pipes(user.uid, config.spec.open_stdin).map_err(|error| failed("cannot make pipes", error))?;
        streams = ours;
        builder = builder.with_stdin(ends.stdin).with_stdout(ends.stdout).with_stderr(ends.stderr);
    }
    let inner =
        builder.as_init(&config.run_dir).with_systemd(false).build().map_err(|error| explain(config, &error))?;
    let pid = inner.pid().ok_or_else(|| Failure::new(ErrorKind::Internal, "libcontainer made no process"))?;
    let pid = nix::unistd::Pid::from_raw(pid.as_raw());
    if let Some(console) = console {
        let master = console
            .accept()
            .and_then(|(socket, _)| streams::receive(&socket))
            .map_err(|error| failed("cannot get the terminal", error))?;
        let _ = fs::remove_file("console.sock");
        if let Some((columns, rows)) = config.spec.console_size {
            streams::resize(&master, columns, rows).map_err(|error| failed("cannot set the terminal's size", error))?;
        }
        streams::own_terminal(&master, user.uid).map_err(|error| failed("cannot set up the terminal", error))?;
        streams.terminal = Some(master);
    }
    if let Some(score) = config.spec.resources.oom_score_adj {
        fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).map_err(|error| {
            let message =
                format!("cannot set the OOM score adjustment to {score}: {error}; lowering it needs CAP_SYS_RESOURCE");
            Failure::new(ErrorKind::Denied, message)
        })?;
    }
    if config.spec.resources.oom_score_adj.is_none() {
        // The daemon's own is none of its business.
        let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), "0");
    }
    rustix::io::ioctl_fionbio(&status, true).map_err(|error| failed("cannot set up a pipe", error))?;
    Ok(Container { inner, pid, streams, status, capabilities, filter })
}

impl Container {
    /// Lets init execute the payload.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        self.inner.start().map_err(|error| failed("cannot start the container", error))
    }
}

/// libcontainer's errors name the step, not the cause; what the processes it made had to say was logged by them.
fn explain(config: &RunnerConfig, error: &dyn std::error::Error) -> Failure {
    let mut text = chain(error);
    let logged = fs::read_to_string(bireme_linux::protocol::log_file(&config.run_dir)).unwrap_or_default();
    if let Some(first) = logged.lines().find(|line| line.starts_with("error ")) {
        text.push_str(": ");
        text.push_str(first.trim_start_matches("error "));
    }
    // The working directory is the one of these that a user has a hand in.
    let kind = if text.contains("chdir") || text.contains("cwd") { ErrorKind::Invalid } else { ErrorKind::Internal };
    Failure::new(kind, format!("cannot create the container: {text}"))
}

/// The limits that only a power this process may lack could raise.
fn check_limits(config: &RunnerConfig) -> Result<(), Failure> {
    let raises = capability_number("SYS_RESOURCE").is_some_and(|number| own_capabilities() >> number & 1 == 1);
    if raises {
        return Ok(());
    }
    for limit in &config.spec.resources.ulimits {
        let Some(kind) = resource(&limit.name) else { continue };
        let (_, hard) = getrlimit(kind).map_err(|error| failed("cannot read limits", error))?;
        if limit.hard > hard {
            let message = format!(
                "ulimit {}={} is above this engine's own hard limit {hard}; raising it needs CAP_SYS_RESOURCE",
                limit.name, limit.hard
            );
            return Err(Failure::new(ErrorKind::Denied, message));
        }
    }
    Ok(())
}

/// The limit of a name, in the library's words.
pub(crate) fn resource(name: &str) -> Option<Resource> {
    /// In the order of [`bireme_core::linux_names::LIMITS`].
    const RESOURCES: [Resource; 16] = [
        Resource::RLIMIT_CPU,
        Resource::RLIMIT_FSIZE,
        Resource::RLIMIT_DATA,
        Resource::RLIMIT_STACK,
        Resource::RLIMIT_CORE,
        Resource::RLIMIT_RSS,
        Resource::RLIMIT_NPROC,
        Resource::RLIMIT_NOFILE,
        Resource::RLIMIT_MEMLOCK,
        Resource::RLIMIT_AS,
        Resource::RLIMIT_LOCKS,
        Resource::RLIMIT_SIGPENDING,
        Resource::RLIMIT_MSGQUEUE,
        Resource::RLIMIT_NICE,
        Resource::RLIMIT_RTPRIO,
        Resource::RLIMIT_RTTIME,
    ];
    limit_number(name).and_then(|number| RESOURCES.get(number as usize).copied())
}

/// The permitted set of this process.
fn own_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
}

/// Whether the end of init is not the end of all its processes.
pub(crate) fn shares_processes(config: &RunnerConfig) -> bool {
    !matches!(config.spec.namespaces.pid, NamespaceMode::Private)
}

/// Ends and removes what a failed create left.
pub(crate) fn clear_up(config: &RunnerConfig) {
    let cgroup = Cgroup::new(&config.cgroup);
    if let Err(error) = cgroup.kill(std::time::Duration::from_secs(5)).and_then(|()| cgroup.remove()) {
        crate::journal::note(format_args!("cannot clear up: {error}"));
    }
    remove_files(&config.run_dir);
}

/// Removes what was made in the run folder. Folders with mounts on them are only removed when empty: the mounts are in our
/// namespace alone, and must never be emptied.
pub(crate) fn remove_files(run_dir: &Path) {
    for folder in ["oci", "empty", "layers"] {
        let _ = fs::remove_dir_all(run_dir.join(folder));
    }
    for file in ["config.json", "console.sock", "runner.json"] {
        let _ = fs::remove_file(run_dir.join(file));
    }
    for mounted in [run_dir.join("rootfs"), spec::shared_memory(run_dir)] {
        let _ = rustix::mount::unmount(&mounted, rustix::mount::UnmountFlags::DETACH);
        let _ = fs::remove_dir(&mounted);
    }
}

#[cfg(test)]
mod tests {
    use bireme_core::linux_names::LIMITS;

    use super::*;

    #[test]
    fn each_limit_is_the_kernels_of_its_name() {
        for name in LIMITS {
            let found = resource(name).unwrap();
            assert_eq!(format!("{found:?}"), format!("RLIMIT_{}", name.to_ascii_uppercase()));
        }
        assert_eq!(resource("files"), None);
    }
}
