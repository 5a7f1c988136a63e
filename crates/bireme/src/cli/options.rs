//! What `run` and `create` have in common, and flags that several commands share.

use clap::Args;

/// Everything that shapes a workload.
#[derive(Clone, Debug, Default, Args)]
pub struct ContainerOptions {
    /// Image, then the command and its arguments; a path to a .wasm file is an image of its own
    #[arg(required = true, num_args = 1.., trailing_var_arg = true, value_name = "IMAGE")]
    pub image_and_args: Vec<String>,

    // What runs
    /// Name of the workload
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Set an environment variable; without a value it is taken from here
    #[arg(short = 'e', long = "env", value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Replace the image's entrypoint; an empty one removes it
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<String>,
    /// Folder to start in
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User and group: name or number
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Further groups
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Platform, such as linux/amd64 or wasi/wasm
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// When to pull the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["always", "missing", "never"])]
    pub pull: String,
    /// Print no progress of the pull
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Write the id into a file that must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<String>,
    /// Keep standard input open
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Attach to stdin, stdout or stderr only
    #[arg(short = 'a', long, value_name = "STREAM", value_parser = ["stdin", "stdout", "stderr", "STDIN", "STDOUT", "STDERR"])]
    pub attach: Vec<String>,
    /// Remove it, with its anonymous volumes, when it ends
    #[arg(long)]
    pub rm: bool,
    /// Run an init that reaps processes and forwards signals
    #[arg(long)]
    pub init: bool,
    /// Restart policy: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY", default_value = "no")]
    pub restart: String,
    /// Signal that stops it
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds from the stop signal to the kill
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub stop_timeout: Option<i64>,
    /// Label: KEY=VALUE
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<String>,
    /// Annotation: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// OCI runtime to use
    #[arg(long, value_name = "NAME")]
    pub runtime: Option<String>,

    /// Outbound permission such as redis://redis:6379 or *.example.com (label bireme.allow)
    #[arg(long, value_name = "TARGET", help_heading = "Components")]
    pub allow: Vec<String>,
    /// Grant the outbound permissions that the image requests (label bireme.allow-requested)
    #[arg(long, help_heading = "Components")]
    pub allow_requested: bool,
    /// HTTP route served, such as /tally or /api/... (label bireme.http.route)
    #[arg(long, value_name = "ROUTE", help_heading = "Components")]
    pub route: Vec<String>,

    /// Mount a folder or volume: [SOURCE:]TARGET[:ro]
    #[arg(short = 'v', long = "volume", value_name = "MOUNT", help_heading = "Storage")]
    pub volume: Vec<String>,
    /// Mount, in long form: type=bind,source=…,target=…,readonly
    #[arg(long, value_name = "MOUNT", help_heading = "Storage")]
    pub mount: Vec<String>,
    /// Mount a folder in memory: TARGET[:options]
    #[arg(long, value_name = "TARGET", help_heading = "Storage")]
    pub tmpfs: Vec<String>,
    /// Use the volumes of other containers
    #[arg(long, value_name = "CONTAINER", help_heading = "Storage")]
    pub volumes_from: Vec<String>,
    /// Driver of new volumes
    #[arg(long, value_name = "NAME", help_heading = "Storage")]
    pub volume_driver: Option<String>,
    /// Mount the root filesystem read-only
    #[arg(long, help_heading = "Storage")]
    pub read_only: bool,
    /// Options of the storage driver
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Storage")]
    pub storage_opt: Vec<String>,

    /// Publish a port: [[IP:]HOST:]PORT[/PROTOCOL]
    #[arg(short = 'p', long = "publish", value_name = "PORT", help_heading = "Network")]
    pub publish: Vec<String>,
    /// Publish every exposed port on a free one
    #[arg(short = 'P', long, help_heading = "Network")]
    pub publish_all: bool,
    /// Expose a port without publishing it
    #[arg(long, value_name = "PORT", help_heading = "Network")]
    pub expose: Vec<String>,
    /// Network to join
    #[arg(long, visible_alias = "net", value_name = "NETWORK", help_heading = "Network")]
    pub network: Vec<String>,
    /// Further name on the network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME", help_heading = "Network")]
    pub network_alias: Vec<String>,
    /// Link to another container
    #[arg(long, value_name = "CONTAINER[:ALIAS]", help_heading = "Network")]
    pub link: Vec<String>,
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub ip6: Option<String>,
    /// MAC address
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub mac_address: Option<String>,
    /// Host name
    #[arg(short = 'h', long, value_name = "NAME", help_heading = "Network")]
    pub hostname: Option<String>,
    /// Domain name
    #[arg(long, value_name = "NAME", help_heading = "Network")]
    pub domainname: Option<String>,
    /// Line of /etc/hosts: NAME:ADDRESS
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Network")]
    pub add_host: Vec<String>,
    /// DNS server
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub dns: Vec<String>,
    /// Domain searched for short names
    #[arg(long, value_name = "DOMAIN", help_heading = "Network")]
    pub dns_search: Vec<String>,
    /// DNS option
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION", help_heading = "Network")]
    pub dns_option: Vec<String>,

    /// Memory limit; of one instance for a component
    #[arg(short = 'm', long, value_name = "BYTES", help_heading = "Limits", value_parser = bireme_core::size::parse_limit)]
    pub memory: Option<i64>,
    /// Memory and swap together; -1 for no limit of swap
    #[arg(long, value_name = "BYTES", help_heading = "Limits", value_parser = bireme_core::size::parse_limit, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Memory kept under pressure
    #[arg(long, value_name = "BYTES", help_heading = "Limits", value_parser = bireme_core::size::parse_limit)]
    pub memory_reservation: Option<i64>,
    /// Inclination to swap, 0 to 100
    #[arg(long, value_name = "N", help_heading = "Limits", allow_hyphen_values = true)]
    pub memory_swappiness: Option<i64>,
    /// Processors, such as 1.5
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub cpus: Option<f64>,
    /// Relative weight of processor time
    #[arg(short = 'c', long, value_name = "N", help_heading = "Limits")]
    pub cpu_shares: Option<i64>,
    /// Period of the processor quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Limits")]
    pub cpu_period: Option<i64>,
    /// Processor quota per period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", help_heading = "Limits", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Processors it may run on: 0-2,4
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use: 0,1
    #[arg(long, value_name = "LIST", help_heading = "Limits")]
    pub cpuset_mems: Option<String>,
    /// Relative weight of disk time
    #[arg(long, value_name = "N", help_heading = "Limits")]
    pub blkio_weight: Option<u16>,
    /// Processes at once; -1 for no limit
    #[arg(long, value_name = "N", help_heading = "Limits", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Limit of the kernel: nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Limits")]
    pub ulimit: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", help_heading = "Limits", value_parser = bireme_core::size::parse_limit)]
    pub shm_size: Option<i64>,
    /// Never kill it for want of memory
    #[arg(long, help_heading = "Limits")]
    pub oom_kill_disable: bool,
    /// How readily it is killed for want of memory, -1000 to 1000
    #[arg(long, value_name = "N", help_heading = "Limits", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i64>,

    /// Add a capability
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    pub cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAPABILITY", help_heading = "Security")]
    pub cap_drop: Vec<String>,
    /// Give it every right on the host
    #[arg(long, help_heading = "Security")]
    pub privileged: bool,
    /// Security option: no-new-privileges, seccomp=…, apparmor=…
    #[arg(long, value_name = "OPTION", help_heading = "Security")]
    pub security_opt: Vec<String>,
    /// Device of the host: HOST[:CONTAINER[:rwm]]
    #[arg(long, value_name = "DEVICE", help_heading = "Security")]
    pub device: Vec<String>,
    /// Rule of the device cgroup
    #[arg(long, value_name = "RULE", help_heading = "Security")]
    pub device_cgroup_rule: Vec<String>,
    /// Kernel parameter: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Security")]
    pub sysctl: Vec<String>,
    /// PID namespace: host or container:NAME
    #[arg(long, value_name = "MODE", help_heading = "Security")]
    pub pid: Option<String>,
    /// IPC namespace: private, shareable, host, container:NAME
    #[arg(long, value_name = "MODE", help_heading = "Security")]
    pub ipc: Option<String>,
    /// UTS namespace: host
    #[arg(long, value_name = "MODE", help_heading = "Security")]
    pub uts: Option<String>,
    /// User namespace: host
    #[arg(long, value_name = "MODE", help_heading = "Security")]
    pub userns: Option<String>,
    /// Cgroup namespace: host or private
    #[arg(long, value_name = "MODE", help_heading = "Security")]
    pub cgroupns: Option<String>,
    /// Parent of its cgroup
    #[arg(long, value_name = "PATH", help_heading = "Security")]
    pub cgroup_parent: Option<String>,

    /// Log driver
    #[arg(long, value_name = "NAME", help_heading = "Logs")]
    pub log_driver: Option<String>,
    /// Option of the log driver: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Logs")]
    pub log_opt: Vec<String>,

    /// Command that tells whether it is healthy
    #[arg(long, value_name = "COMMAND", help_heading = "Health")]
    pub health_cmd: Option<String>,
    /// Time between checks
    #[arg(long, value_name = "DURATION", help_heading = "Health", value_parser = crate::units::parse_nanos)]
    pub health_interval: Option<i64>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "N", help_heading = "Health")]
    pub health_retries: Option<i64>,
    /// Time at the start in which failures do not count
    #[arg(long, value_name = "DURATION", help_heading = "Health", value_parser = crate::units::parse_nanos)]
    pub health_start_period: Option<i64>,
    /// Time between checks in the start period
    #[arg(long, value_name = "DURATION", help_heading = "Health", value_parser = crate::units::parse_nanos)]
    pub health_start_interval: Option<i64>,
    /// Time one check may take
    #[arg(long, value_name = "DURATION", help_heading = "Health", value_parser = crate::units::parse_nanos)]
    pub health_timeout: Option<i64>,
    /// Ignore the image's health check
    #[arg(long, help_heading = "Health")]
    pub no_healthcheck: bool,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,
}

impl ContainerOptions {
    /// The image or file, as given.
    pub fn image(&self) -> &str {
        &self.image_and_args[0]
    }

    /// What follows the image.
    pub fn args(&self) -> &[String] {
        &self.image_and_args[1..]
    }
}

/// How a list is printed.
#[derive(Clone, Debug, Default, Args)]
pub struct FormatArgs {
    /// `table`, `table TEMPLATE`, `json`, or a Go template such as '{{.Names}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Narrows a list.
#[derive(Clone, Debug, Default, Args)]
pub struct FilterArgs {
    /// Narrow the list: KEY=VALUE
    #[arg(short = 'f', long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}
