//! Containers and components, listed and inspected, and the sessions of `exec`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::answers;

/// A container or a session that was made.
///
/// Source: Docker Engine API, `ContainerCreate`, `ContainerExec`, `ImageCommit`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Created {
    /// What it is called from now on; an answer without it is malformed, since nothing can follow.
    #[serde(alias = "ID")]
    pub id: String,
    /// Sentences about what was asked for and not done.
    #[serde(default, deserialize_with = "super::lenient")]
    pub warnings: Vec<String>,
}

answers! {
    /// One entry of the list of containers.
    ///
    /// Source: Docker Engine API, `ContainerList`.
    #[serde(rename_all = "PascalCase")]
    pub struct ContainerSummary {
        /// 64 hexadecimal digits.
        id: String,
        /// Each with a slash before it; that of a link has a second one.
        names: Vec<String>,
        /// As it was named at create, or `sha256:…` where that name means another image now.
        image: String,
        /// Program and arguments in one line.
        command: String,
        /// Seconds since 1970.
        created: i64,
        /// Exposed and published ports, an entry for each address.
        ports: Vec<Port>,
        /// Bytes of its changes to the file tree; zero where sizes were not asked for.
        size_rw: i64,
        /// Bytes of its whole file tree; zero where sizes were not asked for.
        size_root_fs: i64,
        /// Those of the image included.
        labels: BTreeMap<String, String>,
        /// One word: `created`, `running`, `paused`, `restarting`, `exited`, `dead`, or another engine's own.
        state: String,
        /// The state for people, `Exited (3) 2 minutes ago`: not to be taken apart.
        status: String,
        /// Which networks it is on.
        network_settings: SummaryNetworks,
        /// What is mounted into it.
        mounts: Vec<MountPoint>,
    }

    /// The networks of a listed container.
    #[serde(rename_all = "PascalCase")]
    pub struct SummaryNetworks {
        /// By name; addresses are not read.
        networks: BTreeMap<String, IgnoredAny>,
    }

    /// A port of a listed container.
    #[serde(rename_all = "PascalCase")]
    pub struct Port {
        /// The machine's address, when it is published.
        #[serde(rename = "IP")]
        ip: String,
        /// Inside.
        private_port: u16,
        /// On the machine; zero when it is exposed and not published.
        public_port: u16,
        /// `tcp`, `udp` or `sctp`; `None` where the engine does not say, which means TCP.
        #[serde(rename = "Type")]
        protocol: Option<String>,
    }

    /// Something mounted into a container.
    #[serde(rename_all = "PascalCase")]
    pub struct MountPoint {
        /// `bind`, `volume`, `tmpfs` or another.
        #[serde(rename = "Type")]
        kind: String,
        /// Of a volume.
        name: Option<String>,
        /// The path on the machine.
        source: Option<String>,
        /// The path inside.
        destination: String,
        /// Of a volume: `local` when it lies on this machine.
        driver: String,
    }

    /// A container in full.
    ///
    /// Source: Docker Engine API, `ContainerInspect`.
    #[serde(rename_all = "PascalCase")]
    pub struct Container {
        /// 64 hexadecimal digits; `None` where the engine does not say, and the name asked for has to do.
        id: Option<String>,
        /// With a slash before it.
        name: Option<String>,
        /// How often its restart policy started it again.
        restart_count: i64,
        /// What it is doing.
        state: State,
        /// What was fixed at create.
        config: Config,
        /// What of the machine it was given.
        host_config: HostConfig,
        /// Its ports.
        network_settings: NetworkSettings,
        /// What is mounted into it.
        mounts: Vec<MountPoint>,
    }

    /// What a container is doing.
    #[serde(rename_all = "PascalCase")]
    pub struct State {
        /// As [`ContainerSummary::state`].
        status: String,
        /// Also while it is paused.
        running: bool,
        /// Its processes are stopped until it is unpaused.
        paused: bool,
        /// Of the last run that ended; zero while the first one lasts.
        exit_code: Option<i64>,
        /// When its newest run began, after RFC 3339; the year 1 before the first.
        started_at: String,
        /// When its last run ended, after RFC 3339; the year 1 before that.
        finished_at: String,
        /// What its health check found; `None` without one.
        health: Option<Health>,
    }

    /// What a health check found.
    #[serde(rename_all = "PascalCase")]
    pub struct Health {
        /// `starting`, `healthy`, `unhealthy`, or `none`.
        status: String,
    }

    /// What of a container is fixed at create.
    #[serde(rename_all = "PascalCase")]
    pub struct Config {
        /// It has a terminal: its output is one stream, not framed.
        tty: bool,
        /// Its standard input can be written to.
        open_stdin: bool,
        /// Those of the image included.
        labels: BTreeMap<String, String>,
    }

    /// What of the machine a container was given.
    #[serde(rename_all = "PascalCase")]
    pub struct HostConfig {
        /// The engine removes it as soon as it ends.
        auto_remove: bool,
        /// `container:ID` where it joined another's namespace, as in the next two.
        network_mode: String,
        /// Of System V IPC and POSIX message queues.
        ipc_mode: String,
        /// Of processes.
        pid_mode: String,
    }

    /// Where a container can be reached.
    #[serde(rename_all = "PascalCase")]
    pub struct NetworkSettings {
        /// By `PORT/PROTOCOL`; `None` or no entry when the port is exposed and not published.
        ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    }

    /// Where on the machine a port is published.
    #[serde(rename_all = "PascalCase")]
    pub struct PortBinding {
        /// An address of the machine, or `0.0.0.0` or `::` for all of them.
        host_ip: String,
        /// A number.
        host_port: String,
    }

    /// The processes in a container, as `ps` prints them.
    ///
    /// Source: Docker Engine API, `ContainerTop`.
    #[serde(rename_all = "PascalCase")]
    pub struct Processes {
        /// Headings of columns.
        titles: Vec<String>,
        /// A row for each process.
        processes: Vec<Vec<String>>,
    }

    /// What became of an update.
    ///
    /// Source: Docker Engine API, `ContainerUpdate`.
    #[serde(rename_all = "PascalCase")]
    pub struct Updated {
        /// Sentences about what was asked for and not done.
        warnings: Vec<String>,
    }

    /// A path that differs from the image.
    ///
    /// Source: Docker Engine API, `ContainerChanges`.
    #[serde(rename_all = "PascalCase")]
    pub struct Change {
        /// Absolute, inside the container.
        path: String,
        /// 0 changed, 1 added, 2 removed.
        kind: i64,
    }

    /// What lies at a path in a container.
    ///
    /// Source: Docker Engine API, `ContainerArchiveInfo`, header `X-Docker-Container-Path-Stat`.
    #[serde(rename_all = "camelCase")]
    pub struct PathStat {
        /// Bits of Go's `os.FileMode`, which are not those of `st_mode`.
        mode: Option<u64>,
        /// Where it leads, when it is a symbolic link.
        link_target: String,
    }

    /// A session of `exec`, running or ended.
    ///
    /// Source: Docker Engine API, `ExecInspect`.
    #[serde(rename_all = "PascalCase")]
    pub struct ExecSession {
        /// `None` where the engine does not say.
        running: Option<bool>,
        /// `None` until it has ended.
        exit_code: Option<i64>,
    }
}

impl ContainerSummary {
    /// Its names without the slash before them; those of links too.
    pub fn bare_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| name.trim_start_matches('/'))
    }
}

impl Container {
    /// Its name without the slash before it; empty where the engine gave none.
    pub fn bare_name(&self) -> &str {
        self.name.as_deref().unwrap_or_default().trim_start_matches('/')
    }
}
