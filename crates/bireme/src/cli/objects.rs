//! Commands on networks, volumes and key-value stores.

use clap::{Args, Subcommand};

use super::{FilterArgs, FormatArgs, PruneArgs};

/// Work with networks
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    Create(Box<NetworkCreateArgs>),
    #[command(visible_alias = "list")]
    Ls(NetworkLsArgs),
    Inspect(ObjectInspectArgs),
    #[command(visible_alias = "remove")]
    Rm(ObjectRmArgs),
    Connect(NetworkConnectArgs),
    Disconnect(NetworkDisconnectArgs),
    /// Remove every unused network
    Prune(PruneArgs),
}

/// Create a network
#[derive(Clone, Debug, Args)]
pub struct NetworkCreateArgs {
    /// Driver
    #[arg(short = 'd', long, value_name = "NAME", default_value = "bridge")]
    pub driver: String,
    /// Subnet: 10.5.0.0/24
    #[arg(long, value_name = "CIDR")]
    pub subnet: Vec<String>,
    /// Addresses given out: a part of the subnet
    #[arg(long, value_name = "CIDR")]
    pub ip_range: Vec<String>,
    /// Gateway of the subnet
    #[arg(long, value_name = "ADDRESS")]
    pub gateway: Vec<String>,
    /// Driver of the address management
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub ipam_driver: String,
    /// No way out of the network
    #[arg(long)]
    pub internal: bool,
    /// Let containers join by hand
    #[arg(long)]
    pub attachable: bool,
    /// Give out IPv6 addresses
    #[arg(long)]
    pub ipv6: bool,
    /// Label: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Option of the driver: KEY=VALUE
    #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    #[arg(value_name = "NETWORK")]
    pub name: String,
}

/// List networks
#[derive(Clone, Debug, Args)]
pub struct NetworkLsArgs {
    /// Show ids only
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Show everything known about it
#[derive(Clone, Debug, Args)]
pub struct ObjectInspectArgs {
    /// Go template, or json
    #[arg(short = 'f', long, value_name = "FORMAT")]
    pub format: Option<String>,
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Remove it
#[derive(Clone, Debug, Args)]
pub struct ObjectRmArgs {
    /// Do not fail when it does not exist
    #[arg(short = 'f', long)]
    pub force: bool,
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
}

/// Let a workload join a network
#[derive(Clone, Debug, Args)]
pub struct NetworkConnectArgs {
    /// IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// IPv6 address
    #[arg(long, value_name = "ADDRESS")]
    pub ip6: Option<String>,
    /// Further name on the network
    #[arg(long, value_name = "NAME")]
    pub alias: Vec<String>,
    #[arg(value_name = "NETWORK")]
    pub network: String,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Take a workload off a network
#[derive(Clone, Debug, Args)]
pub struct NetworkDisconnectArgs {
    /// Even when it does not answer
    #[arg(short = 'f', long)]
    pub force: bool,
    #[arg(value_name = "NETWORK")]
    pub network: String,
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// Work with volumes
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    Create(VolumeCreateArgs),
    #[command(visible_alias = "list")]
    Ls(VolumeLsArgs),
    Inspect(ObjectInspectArgs),
    #[command(visible_alias = "remove")]
    Rm(ObjectRmArgs),
    /// Remove unused anonymous volumes
    Prune(VolumePruneArgs),
}

/// Create a volume
#[derive(Clone, Debug, Args)]
pub struct VolumeCreateArgs {
    /// Driver
    #[arg(short = 'd', long, value_name = "NAME", default_value = "local")]
    pub driver: String,
    /// Label: KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Option of the driver: KEY=VALUE
    #[arg(short = 'o', long = "opt", value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    #[arg(value_name = "VOLUME")]
    pub name: Option<String>,
}

/// List volumes
#[derive(Clone, Debug, Args)]
pub struct VolumeLsArgs {
    /// Show names only
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Remove unused volumes
#[derive(Clone, Debug, Args)]
pub struct VolumePruneArgs {
    /// Remove named ones too
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Do not ask
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Narrow what is removed: KEY=VALUE
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

/// Work with the key-value stores of components
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    #[command(visible_alias = "list")]
    Ls(StoreLsArgs),
    /// Remove the stores of apps and lone components that are gone, by name
    #[command(visible_alias = "remove")]
    Rm(StoreRmArgs),
    Prune(StorePruneArgs),
}

/// List the folders of key-value stores: one for each app or lone component
#[derive(Clone, Debug, Args)]
pub struct StoreLsArgs {
    /// Show names only
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[command(flatten)]
    pub format: FormatArgs,
}

/// Remove the stores of apps and lone components that are gone, by name
#[derive(Clone, Debug, Args)]
pub struct StoreRmArgs {
    #[arg(value_name = "STORE", required = true)]
    pub names: Vec<String>,
}

/// Remove the stores of all apps and lone components that are gone
#[derive(Clone, Debug, Args)]
pub struct StorePruneArgs {
    /// Do not ask
    #[arg(short = 'f', long)]
    pub force: bool,
}
