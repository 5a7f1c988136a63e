//! Commands on the engine itself.

use clap::Args;

use super::{FilterArgs, FormatArgs};

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
