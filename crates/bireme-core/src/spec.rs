//! One workload as it shall run, with every default already applied.
//!
//! These are inner types: they are made from Docker's wire types in one place (`biremed`), stored by the engine, and
//! handed to executors. They never reach a client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Labels, WorkloadId};

/// What kind of workload an image makes. Decided once, at create, and stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkloadKind {
    /// A Linux container: a root filesystem and a process tree.
    Container,
    /// A WebAssembly component (or core module with WASI preview 1): instances in a host process.
    Component,
}

/// One workload as it shall run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkloadSpec {
    /// Its ID, for as long as it exists.
    pub id: WorkloadId,
    /// Unique in the engine, without a leading slash.
    pub name: String,
    /// Which executor runs it.
    pub kind: WorkloadKind,
    /// The Compose project it belongs to; workloads of one app share a host process and reach each other directly.
    pub app: Option<String>,
    /// The service of the app, for display.
    pub service: Option<String>,
    /// The image reference as the user gave it, for display and spans.
    pub image: String,

    /// Entrypoint and command, joined; the first is the program.
    pub args: Vec<String>,
    /// `NAME=value`, image defaults first, already merged so that each name stands once.
    pub env: Vec<String>,
    /// Absolute path inside the workload.
    pub cwd: String,
    /// `user[:group]` by name or number; empty is root.
    pub user: String,
    /// Its own name for the machine it runs on, as `uname` tells it.
    pub hostname: String,
    /// The domain of that name, as `domainname` tells it; often empty.
    pub domainname: String,
    /// Whether it has a terminal, which then is all its standard streams.
    pub tty: bool,
    /// Columns and rows of the terminal when the workload begins.
    #[serde(default)]
    pub console_size: Option<(u16, u16)>,
    /// Keep standard input open for attaching clients; otherwise the workload reads end of file.
    pub open_stdin: bool,
    /// Close standard input when the first attached client leaves.
    pub stdin_once: bool,

    /// What of the outside stands at paths inside.
    pub mounts: Vec<Mount>,
    /// Of memory, processors, processes and devices.
    pub resources: Resources,
    /// What it may do beyond running.
    pub security: Security,
    /// What of the kernel it has for itself, and what it shares.
    pub namespaces: Namespaces,
    /// Extra `/etc/hosts` lines: name, address.
    pub extra_hosts: Vec<(String, IpAddr)>,
    /// How it resolves names.
    pub dns: Dns,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: u64,
    /// Run a small init as process 1 that forwards signals and reaps orphans.
    pub init: bool,
    /// Sent first when it is to stop.
    pub stop_signal: Signal,
    /// Time between the stop signal and SIGKILL.
    pub stop_timeout: Duration,

    /// Ports that are exposed or published, in the workload.
    pub ports: Vec<Port>,
    /// All labels: the image's, overlaid by the workload's own.
    pub labels: BTreeMap<String, String>,
    /// The `bireme.*` labels, parsed.
    pub bireme: Labels,
}

/// Something of the outside put at a path inside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// What of the outside it is.
    pub source: MountSource,
    /// Absolute path inside the workload.
    pub target: String,
    /// Whether writing to it is refused.
    pub read_only: bool,
}

/// What stands behind a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MountSource {
    /// A file or folder of the host (also a named volume's folder, already resolved).
    Bind {
        /// Absolute path on the machine.
        path: PathBuf,
        /// Which later mounts are seen on the other side.
        propagation: Propagation,
        /// Whether what is mounted below the path comes with it.
        recursive: bool,
    },
    /// What stands at `subpath` in a volume's folder: a file or folder, looked up when it is mounted, since whoever else has
    /// the volume may have put a link there meanwhile. Links that lead out of the folder are refused.
    Subpath {
        /// The folder of the volume, absolute.
        volume: PathBuf,
        /// Below that folder, without a leading slash.
        subpath: PathBuf,
    },
    /// What stands at `subpath` in the layers of an image, seen as one tree. Nothing that is written there reaches the layers.
    Layers {
        /// The folders of the layers, lowest first, absolute; at least one.
        lower: Vec<PathBuf>,
        /// Where what is written goes: a folder of this workload, made when it is not there.
        scratch: PathBuf,
        /// Below the root of the tree, without a leading slash; empty is all of it. Links lead no further than its root.
        subpath: PathBuf,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; `None` for half of the machine's memory.
        size: Option<u64>,
        /// Permissions of the folder, such as `0o1777`.
        mode: Option<u32>,
        /// Further options, as mount(8) spells them.
        options: Vec<String>,
    },
}

/// Which mounts that come later on one side are seen on the other. Source: mount_namespaces(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    /// None.
    #[default]
    Private,
    /// The machine's, inside.
    Slave,
    /// Each side sees those of the other.
    Shared,
}

/// Limits. `None` means not limited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Bytes. For a component: the linear memory of one instance.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together; `Some(-1)` is unlimited swap.
    pub memory_swap: Option<i64>,
    /// Bytes that it is brought back to when memory runs short.
    pub memory_reservation: Option<u64>,
    /// Billionths of a processor: `1_500_000_000` is one and a half.
    pub nano_cpus: Option<u64>,
    /// Microseconds per period; with `cpu_period`, the other spelling of `nano_cpus`.
    pub cpu_quota: Option<i64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    /// Relative to others', 1024 being usual.
    pub cpu_shares: Option<u64>,
    /// Processors, such as `0-2,4`.
    pub cpuset: Option<String>,
    /// Memory nodes, such as `0,1`.
    pub cpuset_mems: Option<String>,
    /// The most processes and threads.
    pub pids: Option<i64>,
    /// How readily memory is swapped out, 0 to 100.
    pub memory_swappiness: Option<u64>,
    /// Of block devices.
    pub blkio: Blkio,
    /// Whether nothing of it is killed when its memory runs out. Not offered by cgroup v2.
    pub oom_kill_disable: bool,
    /// How readily it is killed when memory runs out, -1000 to 1000; `None` is as the engine.
    pub oom_score_adj: Option<i32>,
    /// Limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// Parent cgroup; `None` is the engine's own.
    pub cgroup_parent: Option<String>,
}

/// Shares and limits of block devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blkio {
    /// 10 to 1000, relative to others'.
    pub weight: Option<u16>,
    /// Bytes and operations a second; each a device's path and its rate.
    pub read_bps: Vec<(String, u64)>,
    /// As `read_bps`.
    pub write_bps: Vec<(String, u64)>,
    /// As `read_bps`, counting operations.
    pub read_iops: Vec<(String, u64)>,
    /// As `read_iops`.
    pub write_iops: Vec<(String, u64)>,
}

/// `name` without the `RLIMIT_` prefix and in lower case, such as `nofile`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// As in [`crate::linux_names::LIMITS`].
    pub name: String,
    /// What holds until the process raises it; all bits set is unlimited.
    pub soft: u64,
    /// What it may be raised to; all bits set is unlimited.
    pub hard: u64,
}

/// What a container may do beyond running.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Security {
    /// Every capability, every device, and nothing hidden.
    pub privileged: bool,
    /// Without the `CAP_` prefix, upper case; `ALL` stands for every one.
    pub cap_add: Vec<String>,
    /// As `cap_add`; what is named in both is had.
    pub cap_drop: Vec<String>,
    /// Whether setuid programs give nothing. Source: `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Whether its root filesystem cannot be written to.
    pub read_only_root: bool,
    /// Further groups of its first process, by name or number.
    pub group_add: Vec<String>,
    /// Paths to hide and paths to make read-only; `None` is Docker's list.
    pub masked_paths: Option<Vec<String>>,
    /// As `masked_paths`.
    pub readonly_paths: Option<Vec<String>>,
    /// Devices of the machine that it has.
    pub devices: Vec<Device>,
    /// Further rules of the cgroup, such as `c 1:3 mr`.
    pub device_rules: Vec<String>,
    /// Kernel parameters of its own namespaces, such as `net.ipv4.ip_forward`.
    pub sysctls: BTreeMap<String, String>,
}

/// Which system calls a container may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// Docker's default profile.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// A profile in Docker's JSON form.
    Profile(String),
}

/// A device of the machine in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Absolute path on the machine; of a folder, all devices in it.
    pub host: String,
    /// Absolute path inside.
    pub target: String,
    /// Of `r`, `w`, `m`.
    pub permissions: String,
}

/// What of the kernel a container has for itself. Source: namespaces(7).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespaces {
    /// Interfaces, addresses, ports.
    pub network: NetworkMode,
    /// Processes.
    pub pid: NamespaceMode,
    /// Shared memory, semaphores, message queues.
    pub ipc: NamespaceMode,
    /// Host name and domain.
    pub uts: NamespaceMode,
    /// Where its cgroup seems to be.
    pub cgroup: NamespaceMode,
}

/// Whose network a workload is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// On the networks the engine attaches it to.
    #[default]
    Attached,
    /// A namespace with nothing but the loopback.
    None,
    /// The machine's own.
    Host,
    /// The namespace of another workload.
    Workload(WorkloadId),
}

/// Whose namespace a container is in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NamespaceMode {
    /// Its own.
    #[default]
    Private,
    /// The machine's.
    Host,
    /// Another workload's.
    Workload(WorkloadId),
}

/// How names are resolved, as `/etc/resolv.conf` has it; empty lists are the defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Upstream resolvers for names that no network here has; empty: the machine's.
    pub servers: Vec<IpAddr>,
    /// Domains that are tried behind names without a dot.
    pub search: Vec<String>,
    /// Such as `ndots:2`.
    pub options: Vec<String>,
}

/// A port of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// As the workload listens on it.
    pub number: u16,
    /// What is spoken there.
    pub protocol: Protocol,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
    /// Messages in streams.
    Sctp,
}

impl Protocol {
    /// `tcp`, `udp` or `sctp`, as Docker spells them.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A signal by its number on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signal(pub i32);

impl Signal {
    /// What ctrl-c sends.
    pub const INT: Self = Self(2);
    /// Ends a process without asking it.
    pub const KILL: Self = Self(9);
    /// Asks a process to end.
    pub const TERM: Self = Self(15);

    /// Reads `15`, `TERM` or `SIGTERM`, in any case; also `RTMIN+3` and `RTMAX-2`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse::<i32>() {
            return (1..=64).contains(&number).then_some(Self(number));
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(at) = NAMES.iter().position(|known| *known == name) {
            return Some(Self(at as i32 + 1));
        }
        let number = match name {
            "IOT" => 6,
            "CLD" => 17,
            "POLL" => 29,
            "UNUSED" => 31,
            _ => {
                let (base, rest, sign) = if let Some(rest) = name.strip_prefix("RTMIN") {
                    (34, rest, "+")
                } else {
                    (64, name.strip_prefix("RTMAX")?, "-")
                };
                let offset: i32 = if rest.is_empty() { 0 } else { rest.strip_prefix(sign)?.parse().ok()? };
                let number = if sign == "+" { base + offset } else { base - offset };
                return (offset >= 0 && (34..=64).contains(&number)).then_some(Self(number));
            }
        };
        Some(Self(number))
    }

    /// The name with its `SIG` prefix, or `None` for a real-time signal.
    pub fn name(self) -> Option<String> {
        let at = usize::try_from(self.0).ok()?.checked_sub(1)?;
        NAMES.get(at).map(|name| format!("SIG{name}"))
    }
}

/// Signals 1 to 31 of Linux on x86 and Arm, in order. Source: signal(7).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// How a workload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// The exit status; 128 plus the number of the signal that ended it.
    pub code: i32,
    /// The kernel ended it because its memory limit was reached.
    pub oom_killed: bool,
    /// Nanoseconds since the Unix epoch.
    pub finished_at: i64,
    /// What went wrong, when it did not end by itself (for example: its host process died).
    pub error: Option<String>,
}
