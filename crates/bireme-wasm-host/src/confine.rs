//! The second fence: what a host process gives up before it runs anything.

use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bireme_sys::process::{self, Fork};
use bireme_wasm::protocol::HostConfig;
use bireme_wasm::{HOST_UID, cgroup};

use crate::fence::{self, Purpose};

/// Enters the cgroup, by which whoever starts this process can end it from then on.
pub(crate) fn join(config: &HostConfig) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        enter_cgroup(&config.cgroup)?;
    }
    Ok(())
}

/// What is the same for every host: processes, session, open files. Before any thread is started.
pub(crate) fn set_apart() -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        leave_other_processes()?;
    }
    // Fails for a process that leads its group already, which then cannot be reached through a terminal either.
    let _ = rustix::process::setsid();
    // As many connections as this process may have.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, files);
    Ok(())
}

/// Before any thread is started and while the process may still do everything: threads, network. In the cgroup already.
pub(crate) fn enter(config: &HostConfig) -> anyhow::Result<()> {
    if rustix::process::geteuid().is_root() {
        limit_threads(config)?;
    }
    // Stores and logs are for nobody else.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Some(netns) = &config.netns {
        enter_network(netns)?;
    }
    Ok(())
}

/// What the runtime starts at most (512 for work that blocks, and one for each processor), and room for as many again: the
/// machine's process IDs are everybody's. They are counted by the cgroup: by the user, those of a container would be counted
/// with them that runs as the same one. Only a machine that counts none by cgroups has the limit by the user, where no other
/// host has that.
fn limit_threads(config: &HostConfig) -> anyhow::Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let most = 1024 + 2 * processors;
    if cgroup::limit_processes(&config.cgroup, most) || config.uid == HOST_UID {
        return Ok(());
    }
    let limit = rustix::process::Rlimit { current: Some(most), maximum: Some(most) };
    rustix::process::setrlimit(rustix::process::Resource::Nproc, limit).context("cannot limit the number of threads")
}

fn enter_cgroup(name: &Path) -> anyhow::Result<()> {
    for folder in cgroup::folders(name) {
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
        let procs = folder.join("cgroup.procs");
        // Whoever writes it, whatever it is called in which namespace.
        std::fs::write(&procs, "0").with_context(|| format!("cannot enter the cgroup {}", folder.display()))?;
    }
    Ok(())
}

/// Goes on as the first process of a new namespace of process IDs: what is outside it can be neither named nor signalled.
/// The process that was started ends here.
fn leave_other_processes() -> anyhow::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).context("cannot make a namespace of processes")?;
    match process::fork().context("cannot start the first process of a namespace")? {
        Fork::Child => Ok(()),
        // Nothing is written at exit that the new process would write again.
        Fork::Parent(_) => process::exit_at_once(0),
    }
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

/// Where things are for a process that was closed in.
pub(crate) struct SandboxPaths {
    /// Embedded key-value stores.
    pub kv: PathBuf,
}

/// Gives up every right and path that serving needs not. Before any thread is started.
pub(crate) fn close_in(config: &HostConfig) -> anyhow::Result<SandboxPaths> {
    let rooms = if rustix::process::geteuid().is_root() {
        enter_own_root(config)?;
        become_user(config.uid)?;
        SandboxPaths { kv: PathBuf::from("/kv") }
    } else {
        SandboxPaths { kv: config.kv_dir.clone() }
    };
    fence::close(Purpose::Serving)?;
    Ok(rooms)
}

/// A root of our own with nothing in it but the stores, the resolver's settings, and a /proc that shows this process
/// alone. Compiled code and mounts come as descriptors.
fn enter_own_root(config: &HostConfig) -> anyhow::Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let none: Option<&str> = None;
    let root = &config.dir;
    let resolver = match &config.netns {
        Some(_) => config.dns.iter().map(|server| format!("nameserver {server}\n")).collect(),
        None => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("cannot take the mount namespace apart from the machine's")?;
    // Opened in the new namespace, as what is bound must be in the one it is bound in, and before the new root, which may
    // cover its path.
    let stores = hand_over(&config.kv_dir, config.uid).context("cannot hand over the stores")?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let make =
        |folder: &Path| std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()));
    mount(Some("bireme"), root, Some("tmpfs"), plain, Some("size=1m,mode=755"))
        .context("cannot mount a root of our own")?;
    let kv = root.join("kv");
    make(&kv)?;
    let source = format!("/proc/self/fd/{}", stores.as_raw_fd());
    mount(Some(source.as_str()), &kv, none, MsFlags::MS_BIND, none).context("cannot mount /kv")?;
    mount(none, &kv, none, plain | MsFlags::MS_BIND | MsFlags::MS_REMOUNT, none).context("cannot mount /kv")?;
    let proc = root.join("proc");
    make(&proc)?;
    let mount_proc = |options| mount(Some("proc"), &proc, Some("proc"), plain | MsFlags::MS_RDONLY, options);
    // Linux before 5.8 has no such option.
    mount_proc(Some("subset=pid")).or_else(|_| mount_proc(none)).context("cannot mount /proc")?;
    make(&root.join("etc"))?;
    for (name, text) in [("resolv.conf", resolver.as_str()), ("hosts", "127.0.0.1 localhost\n::1 localhost\n")] {
        let path = root.join("etc").join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {name}"))?;
        readable(&path)?;
    }
    readable(&root.join("etc"))?;
    mount(none, root, none, plain | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)
        .context("cannot make our root read-only")?;
    let fd =
        rustix::fs::open(root, rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .context("cannot open our root")?;
    rustix::process::fchdir(&fd).context("cannot enter our root")?;
    // Both names are the new root: the old one is stacked on it and let go at once. See pivot_root(2), NOTES.
    nix::unistd::pivot_root(".", ".").context("cannot change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot let go of the machine's root")?;
    rustix::process::chdir("/").context("cannot enter our root")
}

/// Lets everyone read a file or list a folder of the new root, whatever the umask is.
fn readable(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the permissions of {}", path.display()))
}

/// Makes `folder` and the files in it those of the user `uid`, and opens it.
///
/// An earlier host, which need not have been in its senses, could write there: nothing is followed, and only files that
/// have no other name are given away.
fn hand_over(folder: &Path, uid: u32) -> anyhow::Result<std::os::fd::OwnedFd> {
    use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, fstat, openat};
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    let opened = rustix::fs::open(
        folder,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Nobody but root while it is looked through.
    fchmod(&opened, Mode::RWXU)?;
    fchown(&opened, Some(Uid::ROOT), Some(Gid::ROOT))?;
    for entry in Dir::read_from(&opened)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let file = openat(&opened, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_nlink != 1 {
            crate::complain(&format!("{} holds what is no store: {name:?}", folder.display()));
        } else if (stat.st_uid, stat.st_gid) != (uid, uid) {
            chownat(&file, "", Some(user), Some(group), AtFlags::EMPTY_PATH)?;
        }
    }
    fchown(&opened, Some(user), Some(group))?;
    Ok(opened)
}

/// Becomes the unprivileged user and group with this number, without capabilities and without a way back.
fn become_user(number: u32) -> anyhow::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(number), Gid::from_raw(number));
    setgroups(&[]).context("cannot drop the groups")?;
    setresgid(gid, gid, gid).context("cannot drop the group")?;
    // Leaving user 0 altogether clears every capability set, see capabilities(7).
    setresuid(uid, uid, uid).context("cannot drop the user")
}

/// For the process that compiles: everything but its open files, which `folder` is for, more than `memory` bytes, and more than its processor time.
///
/// What counts is what may be written to. The address space would be the wrong measure: the engine reserves terabytes of
/// it and touches none.
pub(crate) fn compiler(memory: u64, folder: &Path) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let time = bireme_wasm::MOST_PROCESSOR_TIME;
    let limits = [
        (Resource::Data, memory, memory),
        (Resource::Core, 0, 0),
        (Resource::Fsize, bireme_wasm::MAX_CODE, bireme_wasm::MAX_CODE),
        // The first tells why it ends (SIGXCPU), the other would not.
        (Resource::Cpu, time, time + 10),
    ];
    for (resource, soft, hard) in limits {
        let limit = Rlimit { current: Some(soft), maximum: Some(hard) };
        setrlimit(resource, limit).context("cannot limit what the compiler may use")?;
    }
    // A stranger's component comes behind what runs, and is what the kernel ends first. Somebody waits for it all the same:
    // the least share there is would be none on a busy machine.
    let _ = rustix::process::nice(10);
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    if rustix::process::geteuid().is_root() {
        enter_empty_root(folder)?;
        become_user(HOST_UID)?;
    }
    fence::close(Purpose::Compiling)
}

/// A root with nothing in it, mounted on `folder` for as long as it takes to enter it.
fn enter_empty_root(folder: &Path) -> anyhow::Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let none: Option<&str> = None;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot take the mount namespace apart from the machine's")?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("bireme"), folder, Some("tmpfs"), plain, Some("size=4k,mode=555"))
        .context("cannot mount an empty root")?;
    rustix::process::chdir(folder).context("cannot enter an empty root")?;
    nix::unistd::pivot_root(".", ".").context("cannot change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot let go of the machine's root")?;
    rustix::process::chdir("/").context("cannot enter an empty root")
}

/// Enters a new user namespace, says so with one byte, and stays until standard input ends: the daemon takes the
/// namespace's descriptor meanwhile.
///
/// # Errors
/// When the kernel makes no user namespace.
pub fn hold_user_namespace() -> anyhow::Result<()> {
    use std::io::{Read as _, Write as _};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).context("cannot make a user namespace")?;
    std::io::stdout().write_all(b"\n").and_then(|()| std::io::stdout().flush())?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
