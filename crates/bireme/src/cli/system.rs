//! Commands on the engine itself.

use clap::{Args, Subcommand};

use super::{BuildArgs, FilterArgs, FormatArgs};

/// Run the engine in the foreground; arguments go to biremed
#[derive(Clone, Debug, Args)]
#[command(disable_help_flag = true)]
pub struct DaemonArgs {
    #[arg(num_args = 0.., trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    pub args: Vec<String>,
}

/// Show what happens, as it happens
#[derive(Clone, Debug, Args)]
pub struct EventsArgs {
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub format: FormatArgs,
    /// Only after this time, or this long ago
    #[arg(long, value_name = "TIME", value_parser = crate::units::parse_moment)]
    pub since: Option<String>,
    /// Only before this time, or this long ago
    #[arg(long, value_name = "TIME", value_parser = crate::units::parse_moment)]
    pub until: Option<String>,
}

/// Show the engine and what it can run
#[derive(Clone, Debug, Args)]
pub struct InfoArgs {
    /// Go template, or json
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Show the versions of this program and of the engine
#[derive(Clone, Debug, Args)]
pub struct VersionArgs {
    /// Go template, or json
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Print a completion script
#[derive(Clone, Debug, Args)]
pub struct CompletionArgs {
    /// Shell to write it for
    pub shell: clap_complete::Shell,
}

/// Work with the engine
#[derive(Debug, Subcommand)]
pub enum SystemCommand {
    Df(DfArgs),
    Events(EventsArgs),
    Info(InfoArgs),
    Prune(SystemPruneArgs),
    Verify(VerifyArgs),
}

/// Hash everything in the image store and name what is damaged; nothing is removed
#[derive(Clone, Debug, Args)]
pub struct VerifyArgs {
    /// Fetch what is damaged again, from the registry that it came from, without credentials
    #[arg(long)]
    pub refetch: bool,
}

/// Show what images, containers, volumes and build caches take on the disk
#[derive(Clone, Debug, Args)]
pub struct DfArgs {
    /// Show every single one
    #[arg(short = 'v', long)]
    pub verbose: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Remove stopped containers, unused networks, images without a name and build caches
#[derive(Clone, Debug, Args)]
pub struct SystemPruneArgs {
    /// Remove every image without a container, not only those without a name
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Remove unused anonymous volumes too
    #[arg(long)]
    pub volumes: bool,
    /// Do not ask
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Narrow what is removed: KEY=VALUE
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

/// Work with what builds keep
#[derive(Debug, Subcommand)]
pub enum BuilderCommand {
    Build(Box<BuildArgs>),
    Prune(BuilderPruneArgs),
}

/// Remove build caches
#[derive(Clone, Debug, Args)]
pub struct BuilderPruneArgs {
    /// Remove all of them, not only those that no image uses
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Do not ask
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Narrow what is removed: KEY=VALUE
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Keep so much of them
    #[arg(long, value_name = "BYTES", value_parser = bireme_core::size::parse_limit)]
    pub keep_storage: Option<i64>,
}

/// Log in to a registry
#[derive(Clone, Debug, Args)]
pub struct LoginArgs {
    /// User; asked for when absent
    #[arg(short = 'u', long, value_name = "NAME")]
    pub username: Option<String>,
    /// Password or token; better on standard input, where no list of processes shows it
    #[arg(short = 'p', long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
}

/// Log out of a registry
#[derive(Clone, Debug, Args)]
pub struct LogoutArgs {
    /// Registry [default: docker.io]
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
}
