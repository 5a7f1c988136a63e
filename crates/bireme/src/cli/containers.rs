//! Commands on workloads.

use std::path::PathBuf;

use clap::Args;

use super::{ContainerOptions, FilterArgs, FormatArgs, ProjectArgs};

/// Create a workload from an image or a .wasm file and run it
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, override_usage = "bireme run [OPTIONS] IMAGE|FILE.wasm [COMMAND] [ARG...]")]
pub struct RunArgs {
    /// Run in the background and print the id
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// Keys that detach from it
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Forward signals to it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub sig_proxy: bool,
    #[command(flatten)]
    pub options: ContainerOptions,
}

/// Create a workload without starting it
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true, override_usage = "bireme create [OPTIONS] IMAGE|FILE.wasm [COMMAND] [ARG...]")]
pub struct CreateArgs {
    #[command(flatten)]
    pub options: ContainerOptions,
}

/// Start stopped workloads; without names, those of the app here
#[derive(Clone, Debug, Args)]
pub struct StartArgs {
    /// Attach to its output and forward signals
    #[arg(short = 'a', long)]
    pub attach: bool,
    /// Attach standard input
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Keys that detach from it
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub project: ProjectArgs,
}

/// Stop running workloads; without names, those of the app here
#[derive(Clone, Debug, Args)]
pub struct StopArgs {
    /// Signal to send
    #[arg(short = 's', long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// Seconds to wait before killing it
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    pub timeout: Option<i64>,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub project: ProjectArgs,
}

/// Restart workloads; without names, those of the app here
#[derive(Clone, Debug, Args)]
pub struct RestartArgs {
    /// Signal to send
    #[arg(short = 's', long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// Seconds to wait before killing it
    #[arg(short = 't', long, visible_alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    pub timeout: Option<i64>,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub project: ProjectArgs,
}

/// Kill running workloads
#[derive(Clone, Debug, Args)]
pub struct KillArgs {
    /// Signal to send
    #[arg(short = 's', long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    #[arg(value_name = "CONTAINER", required = true)]
    pub names: Vec<String>,
}

/// Remove workloads
#[derive(Clone, Debug, Args)]
pub struct RmArgs {
    /// Remove it even when it runs, by killing it
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Remove its anonymous volumes too
    #[arg(short = 'v', long)]
    pub volumes: bool,
    /// Remove the link, not the container
    #[arg(short = 'l', long)]
    pub link: bool,
    #[arg(value_name = "CONTAINER", required = true)]
    pub names: Vec<String>,
}

/// List workloads
#[derive(Clone, Debug, Args)]
pub struct PsArgs {
    /// Show stopped ones too
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Show ids only
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Show the N created last, in any state
    #[arg(short = 'n', long, value_name = "N", allow_hyphen_values = true)]
    pub last: Option<i64>,
    /// Show the one created last, in any state
    #[arg(short = 'l', long)]
    pub latest: bool,
    /// Show how much each has written
    #[arg(short = 's', long)]
    pub size: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub format: FormatArgs,
    /// Only these, by their own names or those of services of the app here
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// Show what workloads have written; without names, those of the app here
#[derive(Clone, Debug, Args)]
pub struct LogsArgs {
    /// Go on as more is written
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Lines from the end, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all", allow_hyphen_values = true)]
    pub tail: String,
    /// Only after this time, or this long ago
    #[arg(long, value_name = "TIME", value_parser = crate::units::parse_moment)]
    pub since: Option<String>,
    /// Only before this time, or this long ago
    #[arg(long, value_name = "TIME", value_parser = crate::units::parse_moment)]
    pub until: Option<String>,
    /// Show when each line was written
    #[arg(short = 't', long)]
    pub timestamps: bool,
    /// Show what the log driver knows besides
    #[arg(long)]
    pub details: bool,
    /// Print no prefix before the lines of several workloads
    #[arg(long)]
    pub no_log_prefix: bool,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub project: ProjectArgs,
}

/// Run a command in a running container
#[derive(Clone, Debug, Args)]
#[command(override_usage = "bireme exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
pub struct ExecArgs {
    /// Run in the background
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// Keys that detach from it
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Keep standard input open
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Give it no terminal, as scripts written for Compose ask for it
    #[arg(short = 'T', long = "no-tty", overrides_with = "tty")]
    pub no_tty: bool,
    /// Set an environment variable
    #[arg(short = 'e', long = "env", value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Folder to start in
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User and group: name or number
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Give it every capability
    #[arg(long)]
    pub privileged: bool,
    /// Container, then the command and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND")]
    pub name_and_command: Vec<String>,
}

/// Attach to a running workload
#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    /// Do not attach standard input
    #[arg(long)]
    pub no_stdin: bool,
    /// Keys that detach from it
    #[arg(long, value_name = "KEYS")]
    pub detach_keys: Option<String>,
    /// Forward signals to it
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub sig_proxy: bool,
    #[arg(value_name = "CONTAINER")]
    pub name: String,
}

/// Show everything known about workloads, images, networks or volumes
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// Go template, or json
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Look only among container, image, network or volume
    #[arg(long = "type", value_name = "KIND", value_parser = ["container", "image", "network", "volume"])]
    pub kind: Option<String>,
    /// Show how much a container has written
    #[arg(short = 's', long)]
    pub size: bool,
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Show everything known about workloads, images, networks or volumes
#[derive(Clone, Debug, Args)]
pub struct InspectWorldArgs {
    #[command(flatten)]
    pub inspect: InspectArgs,
    /// Show what the component in an image exports, imports and may ask for
    #[arg(long, conflicts_with_all = ["format", "size"])]
    pub world: bool,
}

/// Show what workloads use, live
#[derive(Clone, Debug, Args)]
pub struct StatsArgs {
    /// Show stopped ones too
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Show one sample and end
    #[arg(long)]
    pub no_stream: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub format: FormatArgs,
    #[arg(value_name = "CONTAINER")]
    pub names: Vec<String>,
}

/// Show every module and container live; with a name, its processes or instances
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Show one sample and end
    #[arg(long)]
    pub no_stream: bool,
    /// Seconds between samples
    #[arg(short = 'd', long, value_name = "SECONDS", default_value_t = 1.0)]
    pub interval: f64,
    /// Narrow the list: label=KEY=VALUE or name=…
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// table or json
    #[arg(long, value_name = "FORMAT", value_parser = ["table", "json"])]
    pub format: Option<String>,
    /// Container, then arguments of ps
    #[arg(num_args = 0.., trailing_var_arg = true, value_name = "CONTAINER [PS ARGS]")]
    pub name_and_args: Vec<String>,
}

/// Draw what a component spends processor time in, as a flame graph
#[derive(Clone, Debug, Args)]
pub struct ProfileArgs {
    /// How long is looked, while requests come in
    #[arg(short = 's', long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// A picture (.svg), or lines of "function;function samples" (any other name, or - for the terminal) [default: NAME.svg]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[arg(value_name = "COMPONENT")]
    pub name: String,
}

/// Save the state of the next instance of a component that traps
#[derive(Clone, Debug, Args)]
pub struct CoreArgs {
    /// How long is waited for one
    #[arg(short = 's', long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// [default: NAME.core]
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[arg(value_name = "COMPONENT")]
    pub name: String,
}

/// Wait until workloads end and print their exit codes
#[derive(Clone, Debug, Args)]
pub struct WaitArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    pub names: Vec<String>,
}

/// Show published ports
#[derive(Clone, Debug, Args)]
pub struct PortArgs {
    #[arg(value_name = "CONTAINER")]
    pub name: String,
    /// Only this port
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub port: Option<String>,
}

/// Rename a workload
#[derive(Clone, Debug, Args)]
pub struct RenameArgs {
    #[arg(value_name = "CONTAINER")]
    pub name: String,
    #[arg(value_name = "NEW NAME")]
    pub new_name: String,
}

/// Pause every process of containers
#[derive(Clone, Debug, Args)]
pub struct PauseArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    pub names: Vec<String>,
}

/// Let paused containers go on
#[derive(Clone, Debug, Args)]
pub struct UnpauseArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    pub names: Vec<String>,
}

/// Copy files out of or into a container: CONTAINER:PATH on one side, a path or - on the other
#[derive(Clone, Debug, Args)]
pub struct CpArgs {
    /// Keep user and group
    #[arg(short = 'a', long)]
    pub archive: bool,
    /// Follow symbolic links of the source
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Say nothing
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[arg(value_name = "SOURCE")]
    pub source: String,
    #[arg(value_name = "TARGET")]
    pub target: String,
}

/// Remove what is not used
#[derive(Clone, Debug, Args)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Narrow what is removed: KEY=VALUE
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

/// Make an image of a container's changes
#[derive(Clone, Debug, Args)]
pub struct CommitArgs {
    /// Author of the image
    #[arg(short = 'a', long, value_name = "NAME")]
    pub author: Option<String>,
    /// Instruction as in a Dockerfile: CMD, ENV and others that change the configuration alone
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Comment of the image
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Pause the container meanwhile
    #[arg(short = 'p', long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub pause: bool,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

/// Show what a container changed of its image's files: A added, C changed, D deleted
#[derive(Clone, Debug, Args)]
pub struct DiffArgs {
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Write all files of a container into an archive
#[derive(Clone, Debug, Args)]
pub struct ExportArgs {
    /// File to write, instead of standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<String>,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Change the limits of workloads
#[derive(Clone, Debug, Args)]
pub struct UpdateArgs {
    /// Memory limit
    #[arg(short = 'm', long, value_name = "BYTES", value_parser = bireme_core::size::parse_limit)]
    pub memory: Option<i64>,
    /// Memory and swap together; -1 for no limit of swap
    #[arg(long, value_name = "BYTES", value_parser = bireme_core::size::parse_limit, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Memory kept under pressure
    #[arg(long, value_name = "BYTES", value_parser = bireme_core::size::parse_limit)]
    pub memory_reservation: Option<i64>,
    /// Processors, such as 1.5
    #[arg(long, value_name = "N")]
    pub cpus: Option<f64>,
    /// Relative weight of processor time
    #[arg(short = 'c', long, value_name = "N")]
    pub cpu_shares: Option<i64>,
    /// Period of the processor quota, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<i64>,
    /// Processor quota per period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Processors it may run on: 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use: 0,1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Relative weight of disk time
    #[arg(long, value_name = "N")]
    pub blkio_weight: Option<u16>,
    /// Processes at once; -1 for no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Restart policy: no, on-failure[:N], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    #[arg(value_name = "CONTAINER", required = true)]
    pub names: Vec<String>,
}
