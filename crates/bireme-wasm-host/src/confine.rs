//! The second fence: what a host process gives up before it runs anything.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bireme_wasm::protocol::HostConfig;
use bireme_wasm::{HOST_UID, cgroup};

/// Before any thread is started and while the process may still do everything: session, cgroup, network.
pub(crate) fn enter(config: &HostConfig) -> anyhow::Result<()> {
    // Fails for a process that leads its group already, which then cannot be reached through a terminal either.
    let _ = rustix::process::setsid();
    // As many connections as this process may have.
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let files = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, files);
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

/// Where things are for a process that was closed in.
pub(crate) struct Rooms {
    /// Compiled code.
    pub cache: PathBuf,
    /// Embedded key-value stores.
    pub kv: PathBuf,
}

/// Gives up every right and path that serving needs not. Before any thread is started.
pub(crate) fn close_in(config: &HostConfig) -> anyhow::Result<Rooms> {
    let rooms = if rustix::process::geteuid().is_root() {
        enter_own_root(config)?;
        become_nobody()?;
        Rooms { cache: PathBuf::from("/cache"), kv: PathBuf::from("/kv") }
    } else {
        Rooms { cache: config.cache_dir.clone(), kv: config.kv_dir.clone() }
    };
    forbid_system_calls()?;
    Ok(rooms)
}

/// A root of our own with nothing in it but the compiled code, the stores, /proc and the resolver's settings.
fn enter_own_root(config: &HostConfig) -> anyhow::Result<()> {
    use nix::mount::{MntFlags, MsFlags, mount, umount2};
    let none: Option<&str> = None;
    let root = &config.dir;
    let resolver = match &config.netns {
        Some(_) => config.dns.iter().map(|server| format!("nameserver {server}\n")).collect(),
        None => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    };
    open_to_us(&config.kv_dir, 0o700)?;
    std::os::unix::fs::chown(&config.kv_dir, Some(HOST_UID), Some(HOST_UID)).context("cannot hand over the stores")?;
    std::fs::create_dir_all(&config.cache_dir).context("cannot make the cache folder")?;
    open_to_us(&config.cache_dir, 0o755)?;

    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(none, "/", none, private, none).context("cannot take the mount namespace apart from the machine's")?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let make =
        |folder: &Path| std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()));
    // The folders to be bound are opened first: the new root may cover them.
    let sources = [
        ("cache", config.cache_dir.as_path(), true),
        ("kv", &config.kv_dir, false),
        ("proc", Path::new("/proc"), true),
    ]
    .map(|(name, path, read_only)| std::fs::File::open(path).map(|file| (name, file, read_only)));
    mount(Some("bireme"), root, Some("tmpfs"), plain | MsFlags::MS_NOEXEC, Some("size=1m,mode=755"))
        .context("cannot mount a root of our own")?;
    for source in sources {
        let (name, file, read_only) = source.context("cannot open a folder of our own")?;
        let target = root.join(name);
        make(&target)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let attempt = || format!("cannot mount /{name}");
        mount(Some(path.as_str()), &target, none, MsFlags::MS_BIND, none).with_context(attempt)?;
        let mut flags = plain | MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
        flags.set(MsFlags::MS_RDONLY, read_only);
        // Compiled code is mapped executable.
        flags.set(MsFlags::MS_NOEXEC, name != "cache");
        mount(none, &target, none, flags, none).with_context(attempt)?;
    }
    make(&root.join("etc"))?;
    std::fs::write(root.join("etc/resolv.conf"), resolver).context("cannot write resolv.conf")?;
    std::fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n::1 localhost\n").context("cannot write hosts")?;
    let flags = plain | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC;
    mount(none, root, none, flags, none).context("cannot make our root read-only")?;
    let fd =
        rustix::fs::open(root, rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
            .context("cannot open our root")?;
    rustix::process::fchdir(&fd).context("cannot enter our root")?;
    // Both names are the new root: the old one is stacked on it and let go at once. See pivot_root(2), NOTES.
    nix::unistd::pivot_root(".", ".").context("cannot change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot let go of the machine's root")?;
    rustix::process::chdir("/").context("cannot enter our root")
}

fn open_to_us(folder: &Path, mode: u32) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the permissions of {}", folder.display()))
}

/// Becomes the unprivileged user of all hosts, without capabilities and without a way back.
fn become_nobody() -> anyhow::Result<()> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (uid, gid) = (Uid::from_raw(HOST_UID), Gid::from_raw(HOST_UID));
    setgroups(&[]).context("cannot drop the groups")?;
    setresgid(gid, gid, gid).context("cannot drop the group")?;
    // Leaving user 0 altogether clears every capability set, see capabilities(7).
    setresuid(uid, uid, uid).context("cannot drop the user")
}

/// System calls that a host process has no use for and an escape would want.
const FORBIDDEN: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Forbids [`FORBIDDEN`], new user namespaces, and gaining rights by executing a file; for good.
fn forbid_system_calls() -> anyhow::Result<()> {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };
    rustix::thread::set_no_new_privs(true).context("cannot give up gaining rights")?;
    let install = |rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32| -> anyhow::Result<()> {
        let arch = std::env::consts::ARCH.try_into().context("no system call filter is known for this processor")?;
        let action = SeccompAction::Errno(errno.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch)?;
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program).context("cannot install the system call filter")
    };
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let any = [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID]
        .map(|flag| u64::from(flag.unsigned_abs()))
        .into_iter()
        .map(|flag| {
            let condition = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
            SeccompRule::new(vec![condition])
        })
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, any);
    install(rules, libc::EPERM)?;
    // The flags of clone3 cannot be looked at; without it the C library falls back to clone.
    install(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

/// For the process that compiles: everything but its open files, and more than `memory` bytes.
///
/// What counts is what may be written to. The address space would be the wrong measure: the engine reserves terabytes of
/// it and touches none.
pub(crate) fn compiler(memory: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    for (resource, most) in [(Resource::Data, memory), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).context("cannot limit the memory of the compiler")?;
    }
    if rustix::process::geteuid().is_root() {
        become_nobody()?;
    }
    forbid_system_calls()
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
