//! Commands on images.

use clap::{Args, Subcommand};

use super::{FilterArgs, FormatArgs};

/// List images
#[derive(Clone, Debug, Args)]
pub struct ImagesArgs {
    /// Show those that only other images use too
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Show ids only
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    /// Show digests
    #[arg(long)]
    pub digests: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub format: FormatArgs,
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

/// Fetch an image from a registry
#[derive(Clone, Debug, Args)]
pub struct PullArgs {
    /// Fetch every tag
    #[arg(short = 'a', long)]
    pub all_tags: bool,
    /// Platform, such as linux/arm64 or wasi/wasm
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Print no progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// Bring an image to its registry
#[derive(Clone, Debug, Args)]
pub struct PushArgs {
    /// Push every tag of the repository
    #[arg(short = 'a', long)]
    pub all_tags: bool,
    /// Push a component as a Wasm artifact, not as an image
    #[arg(long)]
    pub artifact: bool,
    /// Pack every layer with gzip or zstd
    #[arg(long, value_name = "NAME")]
    pub compression: Option<String>,
    /// Level of zstd, from 1 to 19 [default: 3]
    #[arg(long, value_name = "N", requires = "compression")]
    pub compression_level: Option<i32>,
    /// Push this platform only
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// Print no progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[arg(value_name = "NAME[:TAG]")]
    pub image: String,
}

/// Make an image of a file tree in an archive
#[derive(Clone, Debug, Args)]
pub struct ImportArgs {
    /// Instruction as in a Dockerfile: CMD, ENV and others that change the configuration alone
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// Comment of the image
    #[arg(short = 'm', long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Platform, such as linux/amd64
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Option<String>,
    /// File, address, or - for standard input
    #[arg(value_name = "ARCHIVE")]
    pub source: String,
    #[arg(value_name = "NAME[:TAG]")]
    pub name: Option<String>,
}

/// Show how an image was made, the newest step first
#[derive(Clone, Debug, Args)]
pub struct HistoryArgs {
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    /// Show ids only
    #[arg(short = 'q', long)]
    pub quiet: bool,
    #[command(flatten)]
    pub format: FormatArgs,
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// Build an image from a Dockerfile
#[derive(Clone, Debug, Args)]
pub struct BuildArgs {
    /// Dockerfile [default: Dockerfile in the context]
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<String>,
    /// Name of the image
    #[arg(short = 't', long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// Platform, such as linux/amd64 or wasi/wasm; one name stands for several with commas
    #[arg(long, value_name = "OS/ARCH[,...]")]
    pub platform: Option<String>,
    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Set a build argument; without a value it is taken from here
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub build_arg: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Line of /etc/hosts in the build: NAME:ADDRESS
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Network of RUN
    #[arg(long, value_name = "NETWORK")]
    pub network: Option<String>,
    /// Do not use the cache
    #[arg(long)]
    pub no_cache: bool,
    /// Always fetch the base image
    #[arg(long)]
    pub pull: bool,
    /// Keep no containers of the steps
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true", action = clap::ArgAction::Set, hide = true)]
    pub rm: bool,
    /// Print the id only
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Write the image's id into a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<String>,
    /// Folder to build from, or - for an archive or a Dockerfile on standard input
    #[arg(value_name = "CONTEXT")]
    pub context: String,
}

/// Give an image a further name
#[derive(Clone, Debug, Args)]
pub struct TagArgs {
    #[arg(value_name = "SOURCE[:TAG]")]
    pub source: String,
    #[arg(value_name = "TARGET[:TAG]")]
    pub target: String,
}

/// Remove images
#[derive(Clone, Debug, Args)]
pub struct RmiArgs {
    /// Remove it even when it is used
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Keep parents without a name
    #[arg(long)]
    pub no_prune: bool,
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// Write images into an archive
#[derive(Clone, Debug, Args)]
pub struct SaveArgs {
    /// File to write, instead of standard output
    #[arg(short = 'o', long, value_name = "FILE")]
    pub output: Option<String>,
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// Read images from an archive
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// File to read, instead of standard input
    #[arg(short = 'i', long, value_name = "FILE")]
    pub input: Option<String>,
    /// Print no progress
    #[arg(short = 'q', long)]
    pub quiet: bool,
}

/// Remove unused images
#[derive(Clone, Debug, Args)]
pub struct ImagePruneArgs {
    /// Remove every image without a container, not only those without a name
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Do not ask
    #[arg(short = 'f', long)]
    pub force: bool,
    /// Narrow what is removed: KEY=VALUE
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
}

/// Look at manifests in their registry, without pulling
#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    Inspect(ManifestInspectArgs),
    Referrers(ManifestReferrersArgs),
}

/// Print a manifest or index as its registry has it
#[derive(Clone, Debug, Args)]
pub struct ManifestInspectArgs {
    /// Print its digest, media type and size too
    #[arg(short = 'v', long)]
    pub verbose: bool,
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// List what refers to a manifest: signatures, inventories and other artifacts
#[derive(Clone, Debug, Args)]
pub struct ManifestReferrersArgs {
    /// Artifacts of this type only
    #[arg(long, value_name = "TYPE")]
    pub artifact_type: Option<String>,
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

/// Search a registry for images
#[derive(Clone, Debug, Args)]
pub struct SearchArgs {
    /// Most answers
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Do not shorten
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub filter: FilterArgs,
    #[command(flatten)]
    pub format: FormatArgs,
    #[arg(value_name = "TERM")]
    pub term: String,
}
