//! Names that Linux has for capabilities and for limits of processes, with their numbers.

/// Every capability of Linux 6 by its number, without the `CAP_` prefix.
///
/// Source: capabilities(7); `include/uapi/linux/capability.h`.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Every limit of a process by its number, in lower case and without the `RLIMIT_` prefix.
///
/// Source: getrlimit(2); `include/uapi/asm-generic/resource.h`, which holds for all architectures but Alpha, MIPS and SPARC.
pub const LIMITS: [&str; 16] = [
    "cpu",
    "fsize",
    "data",
    "stack",
    "core",
    "rss",
    "nproc",
    "nofile",
    "memlock",
    "as",
    "locks",
    "sigpending",
    "msgqueue",
    "nice",
    "rtprio",
    "rttime",
];

/// The plain name of a capability that is written in any case, with or without its prefix: `NET_ADMIN` of `cap_net_admin`.
/// It need not be one that Linux knows; `ALL` stays `ALL`.
pub fn plain_capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
}

/// The number of a capability by its plain name, as the bit of a set has it; `None` for what is no capability.
pub fn capability_number(plain: &str) -> Option<u32> {
    number(&CAPABILITIES, plain)
}

/// The number of a limit by its name in lower case without a prefix; `None` for what is no limit.
pub fn limit_number(name: &str) -> Option<u32> {
    number(&LIMITS, name)
}

/// The limits that Docker's clients may set, in the order of the alphabet: all but `as`.
///
/// Source: `ulimitNameMapping` of github.com/docker/go-units.
pub fn docker_limits() -> Vec<&'static str> {
    let mut names: Vec<&str> = LIMITS.into_iter().filter(|name| *name != "as").collect();
    names.sort_unstable();
    names
}

fn number(names: &[&str], wanted: &str) -> Option<u32> {
    names.iter().position(|name| *name == wanted).and_then(|at| u32::try_from(at).ok())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        for (name, number) in [
            ("CHOWN", Some(0)),
            ("SETPCAP", Some(8)),
            ("NET_ADMIN", Some(12)),
            ("SYS_ADMIN", Some(21)),
            ("SYS_RESOURCE", Some(24)),
            ("SYSLOG", Some(34)),
            ("CHECKPOINT_RESTORE", Some(40)),
            ("ALL", None),
            ("CAP_CHOWN", None),
            ("chown", None),
        ] {
            assert_eq!(capability_number(name), number, "{name}");
        }
        for (name, number) in
            [("cpu", Some(0)), ("nofile", Some(7)), ("as", Some(9)), ("rttime", Some(15)), ("files", None)]
        {
            assert_eq!(limit_number(name), number, "{name}");
        }
    }

    #[test]
    fn names_are_read_in_every_form() {
        for name in ["NET_ADMIN", "net_admin", "CAP_NET_ADMIN", "cap_net_admin"] {
            assert_eq!(plain_capability(name), "NET_ADMIN");
        }
        assert_eq!((&*plain_capability("all"), &*plain_capability("CAP_CAP_X")), ("ALL", "CAP_X"));
    }

    #[test]
    fn each_name_stands_once() {
        assert_eq!(BTreeSet::from(CAPABILITIES).len(), CAPABILITIES.len());
        assert_eq!(BTreeSet::from(LIMITS).len(), LIMITS.len());
        let docker = docker_limits();
        assert!(docker.is_sorted() && docker.len() == 15 && docker.contains(&"nofile") && !docker.contains(&"as"));
    }
}
