//! The system calls that a host process may make: those it needs, by name; everything else is refused.
//!
//! The list is what the Rust standard library, tokio, SQLite, the allocator, the resolver of the C library and wasmtime
//! use once the process serves. Where a call reaches much more than is needed, its arguments are looked at. Calls by
//! another convention (x32, 32 bits) have other numbers or another architecture, and are refused with the rest.

use std::collections::BTreeMap;

use anyhow::Context as _;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// What a process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Runs components: files, and the network.
    Serving,
    /// Compiles one: files that are open already.
    Compiling,
}

/// Allowed whatever the arguments, for both purposes.
const COMMON: &[i64] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_memfd_create,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_sigaltstack,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Allowed whatever the arguments where components are run.
const SERVING: &[i64] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_fallocate,
    libc::SYS_fchmod,
    libc::SYS_flock,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_linkat,
    libc::SYS_listen,
    libc::SYS_mkdirat,
    libc::SYS_pipe2,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_umask,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
];

/// What processors have that had system calls before the calls with `at`.
#[cfg(target_arch = "x86_64")]
const OLD_COMMON: &[i64] = &[
    libc::SYS_access,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_stat,
    libc::SYS_time,
];
#[cfg(target_arch = "x86_64")]
const OLD_SERVING: &[i64] = &[
    libc::SYS_dup2,
    libc::SYS_epoll_wait,
    libc::SYS_mkdir,
    libc::SYS_pipe,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD_COMMON: &[i64] = &[];
#[cfg(not(target_arch = "x86_64"))]
const OLD_SERVING: &[i64] = &[];

/// A condition on the argument with this number, counted from 0: its lower 32 bits, which is what the kernel takes of an
/// `int`, are this.
fn is(argument: u8, value: u32) -> anyhow::Result<SeccompCondition> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())?)
}

/// The same, where only the bits of `mask` count.
fn masked(argument: u8, mask: u64, value: u64) -> anyhow::Result<SeccompCondition> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(mask), value)?)
}

fn any(conditions: impl IntoIterator<Item = anyhow::Result<SeccompCondition>>) -> anyhow::Result<Vec<SeccompRule>> {
    conditions.into_iter().map(|condition| Ok(SeccompRule::new(vec![condition?])?)).collect()
}

/// Namespaces: all bits of clone(2) that make one.
const NAMESPACES: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | NEWTIME;
/// `CLONE_NEWTIME`, which libc does not name everywhere.
const NEWTIME: i32 = 0x80;

/// `PAGEMAP_SCAN`, `_IOWR('f', 16, struct pm_scan_arg)`: how the engine learns which pages an instance wrote to.
const PAGEMAP_SCAN: u32 = 0xc060_6610;
/// `PR_SET_VMA`: names a mapping.
const PR_SET_VMA: u32 = 0x5356_4d41;

fn rules(purpose: Purpose) -> anyhow::Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let unsigned = i32::cast_unsigned;
    let mut lists = vec![COMMON, OLD_COMMON];
    if purpose == Purpose::Serving {
        lists.extend([SERVING, OLD_SERVING]);
    }
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        lists.into_iter().flatten().map(|call| (*call, Vec::new())).collect();
    // Threads and no processes: these bits are what tells them apart; and no namespaces.
    let thread = u64::from(unsigned(libc::CLONE_VM | libc::CLONE_THREAD));
    rules.insert(libc::SYS_clone, any([masked(0, thread | u64::from(unsigned(NAMESPACES)), thread)])?);
    let names = [unsigned(libc::PR_SET_NAME), unsigned(libc::PR_GET_NAME), PR_SET_VMA];
    rules.insert(libc::SYS_prctl, any(names.map(|what| is(0, what)))?);
    // How a process aborts itself.
    rules.insert(libc::SYS_tgkill, any([is(0, std::process::id())])?);
    // Limits of this process.
    rules.insert(libc::SYS_prlimit64, any([is(0, 0)])?);
    let ioctls = [libc::FIONREAD, libc::FIONBIO, libc::TCGETS, libc::TIOCOUTQ].map(|call| is(1, call as u32));
    rules.insert(libc::SYS_ioctl, any(ioctls.into_iter().chain([is(1, PAGEMAP_SCAN)]))?);
    if purpose == Purpose::Serving {
        let mut sockets = Vec::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            for (kind, protocols) in
                [(libc::SOCK_STREAM, [0, libc::IPPROTO_TCP]), (libc::SOCK_DGRAM, [0, libc::IPPROTO_UDP])]
            {
                for protocol in protocols {
                    // The flags of socket(2) are above the kind.
                    let conditions = vec![
                        is(0, unsigned(family))?,
                        masked(1, 0xf, unsigned(kind).into())?,
                        is(2, unsigned(protocol))?,
                    ];
                    sockets.push(SeccompRule::new(conditions)?);
                }
            }
        }
        rules.insert(libc::SYS_socket, sockets);
        // Connected for good: one of datagrams sends to any address.
        let pair =
            vec![is(0, unsigned(libc::AF_UNIX))?, masked(1, 0xf, unsigned(libc::SOCK_STREAM).into())?, is(2, 0)?];
        rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(pair)?]);
    }
    Ok(rules)
}

fn install(rules: BTreeMap<i64, Vec<SeccompRule>>, others: SeccompAction, these: SeccompAction) -> anyhow::Result<()> {
    let arch = std::env::consts::ARCH.try_into().context("no system call filter is known for this processor")?;
    let filter = SeccompFilter::new(rules, others, these, arch)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program).context("cannot install the system call filter")
}

/// Forbids this thread and those it starts every system call that `purpose` has no use for, and gaining rights by
/// executing a file; for good.
///
/// # Errors
/// When the kernel takes no filters.
pub(crate) fn close(purpose: Purpose) -> anyhow::Result<()> {
    let errno = |error: i32| SeccompAction::Errno(error.unsigned_abs());
    rustix::thread::set_no_new_privs(true).context("cannot give up gaining rights")?;
    // The flags of clone3 cannot be looked at; where it is not there the C library uses clone. Of two filters the
    // stricter answer counts.
    install(BTreeMap::from([(libc::SYS_clone3, Vec::new())]), SeccompAction::Allow, errno(libc::ENOSYS))?;
    install(rules(purpose)?, errno(libc::EPERM), SeccompAction::Allow)
}

#[cfg(test)]
#[expect(unsafe_code, reason = "system calls are tried by their numbers")]
mod tests {
    use super::*;

    /// Runs `work` in a thread behind the fence: a filter is a thread's own.
    fn behind<T: Send + 'static>(purpose: Purpose, work: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(move || {
            close(purpose).unwrap();
            work()
        })
        .join()
        .unwrap()
    }

    /// What the kernel answers to system call `number` with the first arguments `a`, `b` and `c`.
    fn answer(number: i64, a: u64, b: u64, c: u64) -> Result<i64, i32> {
        // SAFETY: the arguments of the calls tried here are no pointers that the kernel would follow: null, or small.
        let result = unsafe { libc::syscall(number, a, b, c, 0, 0, 0) };
        if result < 0 { Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(result) }
    }

    #[test]
    fn a_call_that_is_not_on_the_list_is_refused() {
        for purpose in [Purpose::Serving, Purpose::Compiling] {
            let allowed: Vec<i64> = rules(purpose).unwrap().into_keys().collect();
            // Beyond the newest call that there is: what later kernels bring is refused as well.
            // Except the two that kernels since 6.14 and 6.18 let through every filter
            // (`seccomp_uprobe_exception` in kernel/seccomp.c): called from anywhere but the
            // trampoline of a probe, `uretprobe` ends the process with SIGILL.
            let unfiltered = [335, 336];
            let refused = (0..600).filter(move |number| !allowed.contains(number) && !unfiltered.contains(number));
            let wrong: Vec<(i64, Result<i64, i32>)> = behind(purpose, move || {
                refused
                    .map(|number| (number, answer(number, 0, 0, 0)))
                    .filter(|(_, a)| *a != Err(libc::EPERM))
                    .collect()
            });
            assert_eq!(wrong, [], "{purpose:?}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn calls_of_the_x32_convention_are_refused() {
        const X32: i64 = 0x4000_0000;
        let wrong: Vec<(i64, Result<i64, i32>)> = behind(Purpose::Serving, || {
            (0..600).map(|n| (n, answer(X32 | n, 0, 0, 0))).filter(|(_, a)| *a != Err(libc::EPERM)).collect()
        });
        assert_eq!(wrong, []);
    }

    #[test]
    fn no_namespace_and_no_process_is_made() {
        for (name, flag) in [
            ("NEWNS", libc::CLONE_NEWNS),
            ("NEWCGROUP", libc::CLONE_NEWCGROUP),
            ("NEWUTS", libc::CLONE_NEWUTS),
            ("NEWIPC", libc::CLONE_NEWIPC),
            ("NEWUSER", libc::CLONE_NEWUSER),
            ("NEWPID", libc::CLONE_NEWPID),
            ("NEWNET", libc::CLONE_NEWNET),
            ("NEWTIME", NEWTIME),
            ("no flag, which forks", libc::SIGCHLD),
        ] {
            let flags = u64::from(flag.cast_unsigned());
            let threads = u64::from((libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND).cast_unsigned());
            let namespace = flag != libc::SIGCHLD;
            let tried = behind(Purpose::Serving, move || {
                let with_thread =
                    if namespace { answer(libc::SYS_clone, flags | threads, 0, 0) } else { Err(libc::EPERM) };
                (answer(libc::SYS_clone, flags, 0, 0), with_thread, answer(libc::SYS_unshare, flags, 0, 0))
            });
            assert_eq!(tried, (Err(libc::EPERM), Err(libc::EPERM), Err(libc::EPERM)), "{name}");
        }
        assert_eq!(behind(Purpose::Serving, || answer(libc::SYS_clone3, 0, 0, 0)), Err(libc::ENOSYS));
        // Threads are.
        assert!(behind(Purpose::Serving, || std::thread::spawn(|| 7).join().unwrap()) == 7);
    }

    #[test]
    fn only_sockets_of_tcp_and_udp_are_made() {
        let made = |family: i32, kind: i32, protocol: i32| {
            let number = |value: i32| u64::from(value.cast_unsigned());
            behind(Purpose::Serving, move || answer(libc::SYS_socket, number(family), number(kind), number(protocol)))
        };
        for family in [libc::AF_INET, libc::AF_INET6] {
            assert!(made(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0).is_ok());
            assert!(made(family, libc::SOCK_DGRAM, libc::IPPROTO_UDP).is_ok());
            for (kind, protocol) in [
                (libc::SOCK_RAW, libc::IPPROTO_TCP),
                (libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
                (libc::SOCK_STREAM, libc::IPPROTO_SCTP),
                (libc::SOCK_SEQPACKET, 0),
            ] {
                assert_eq!(made(family, kind, protocol), Err(libc::EPERM), "{kind} {protocol}");
            }
        }
        for family in [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK, libc::AF_KEY] {
            assert_eq!(made(family, libc::SOCK_DGRAM, 0), Err(libc::EPERM), "family {family}");
        }
        // The pair that the kernel would put into memory that is not there.
        let pair = |kind: i32, protocol: u64| {
            let family = u64::from(libc::AF_UNIX.cast_unsigned());
            behind(Purpose::Serving, move || {
                answer(libc::SYS_socketpair, family, u64::from(kind.cast_unsigned()), protocol)
            })
        };
        assert_eq!(pair(libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0), Err(libc::EFAULT));
        for (kind, protocol) in [(libc::SOCK_DGRAM, 0), (libc::SOCK_SEQPACKET, 0), (libc::SOCK_STREAM, 1)] {
            assert_eq!(pair(kind, protocol), Err(libc::EPERM), "{kind} {protocol}");
        }
        let compiling = behind(Purpose::Compiling, || answer(libc::SYS_socket, 2, 1, 0));
        assert_eq!(compiling, Err(libc::EPERM), "a compiler has no network");
    }

    #[test]
    fn other_processes_cannot_be_limited_and_terminals_not_typed_into() {
        let (limits, own, type_in) = behind(Purpose::Serving, || {
            const TIOCSTI: u64 = 0x5412;
            (
                answer(libc::SYS_prlimit64, 1, 0, 0),
                answer(libc::SYS_prlimit64, 0, 0, 0),
                answer(libc::SYS_ioctl, 0, TIOCSTI, 0),
            )
        });
        assert_eq!((limits, type_in), (Err(libc::EPERM), Err(libc::EPERM)));
        assert_eq!(own, Ok(0));
    }
}
