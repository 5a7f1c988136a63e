//! Refusals of a request for what it says itself.

use std::path::PathBuf;

use bireme_core::ErrorKind;
use bireme_image::Platform;

use crate::EngineError;

/// Why a request is refused before anything is done about it. `text` is what the request or the image says.
#[derive(Debug, thiserror::Error)]
pub enum RequestRefusal {
    /// What it refers to cannot be had. Not "not found": Docker's client takes that for a missing image, and pulls it.
    #[error("{0}")]
    Reference(Box<EngineError>),
    /// The platform is not of the form `os/arch[/variant]`, or of none that images are made for.
    #[error("{0}")]
    Platform(bireme_image::PlatformError),
    #[error("this engine has no executor for {platform}: it was started without one")]
    NoExecutor { platform: Platform },
    /// A build would run a command in an image of a component.
    #[error("commands are run in Linux images: RUN in a stage of one, and COPY --from it")]
    CommandInComponent,
    #[error(
        "{program} is a WebAssembly component, but its image says that it is for {platform}: build the image with --platform wasi/wasm (in a Compose file: platform: wasi/wasm)"
    )]
    ComponentInLinuxImage { program: String, platform: Platform },
    #[error("no command specified")]
    NoCommand,
    #[error("No exec command specified")]
    NoExecCommand,
    #[error("the working directory '{folder}' is invalid, it needs to be an absolute path")]
    WorkingDir { folder: String },
    #[error("the image's stop signal {text:?} is not a signal")]
    StopSignal { text: String },
    #[error("extra host {host}: there is no host-gateway without a network")]
    NoHostGateway { host: String },
    #[error("invalid IP address in add-host: {text:?}")]
    ExtraHost { text: String },
    #[error("conflicting options: port publishing and the container type network mode")]
    PublishWithoutNetwork,
    #[error("invalid mount path: destination can't be '/'")]
    MountAtRoot,
    #[error("Duplicate mount point: {target}")]
    MountTwice { target: String },
    #[error("invalid mount config for type \"bind\": invalid mount path: '{}' mount path must be absolute", path.display())]
    BindRelative { path: PathBuf },
    #[error("invalid mount config for type \"bind\": bind source path does not exist: {}", path.display())]
    BindMissing { path: PathBuf },
    #[error("invalid volume mount config: subpath must be a relative path within the volume")]
    Subpath,
    #[error("invalid mount target {target:?}: it must be an absolute path in the container")]
    TargetRelative { target: String },
    #[error("invalid mount target {target:?}: it must not contain '..'")]
    TargetAbove { target: String },
    /// There are too many of a kind: `count`, where `limit` are taken. `image` is `None` for what is the request's.
    #[error("{}", too_many(*what, image.as_deref(), *count, *limit))]
    TooMany { what: Countable, image: Option<String>, count: usize, limit: usize },
    #[error("invalid filter 'name={text}': it is no regular expression")]
    NameFilter { text: String, source: regex::Error },
    #[error("logger: no log driver named '{driver}' is registered: json-file, local and none are offered")]
    NoLogDriver { driver: String },
    /// See [`LogFault`].
    #[error("{0}")]
    LogOption(#[from] LogFault),
}

impl RequestRefusal {
    /// What kind of failure this is for whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoExecutor { .. } | Self::CommandInComponent | Self::NoLogDriver { .. } => ErrorKind::Unsupported,
            Self::Reference(_)
            | Self::Platform(_)
            | Self::ComponentInLinuxImage { .. }
            | Self::NoCommand
            | Self::NoExecCommand
            | Self::WorkingDir { .. }
            | Self::StopSignal { .. }
            | Self::NoHostGateway { .. }
            | Self::ExtraHost { .. }
            | Self::PublishWithoutNetwork
            | Self::MountAtRoot
            | Self::MountTwice { .. }
            | Self::BindRelative { .. }
            | Self::BindMissing { .. }
            | Self::Subpath
            | Self::TargetRelative { .. }
            | Self::TargetAbove { .. }
            | Self::TooMany { .. }
            | Self::NameFilter { .. }
            | Self::LogOption(_) => ErrorKind::Invalid,
        }
    }

    pub(crate) fn reference(error: EngineError) -> EngineError {
        Self::Reference(Box::new(error)).into()
    }
}

/// What a workload or an image may have a bounded number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Countable {
    /// Environment variables.
    Variables,
    /// Labels.
    Labels,
    /// Exposed ports of an image or a request.
    Exposed,
    /// Published ports.
    Published,
    /// Volumes that an image or a request declares.
    Volumes,
    /// Mounts of a request.
    Mounts,
    /// Mounts of other workloads (`--volumes-from`).
    Inherited,
    /// Mounts of image and request together.
    AllMounts,
    /// Exposed ports of image and request together.
    AllExposed,
    /// Published ports with those that `--publish-all` adds.
    AllPublished,
}

fn too_many(what: Countable, image: Option<&str>, count: usize, limit: usize) -> String {
    let whose = image.map_or_else(|| "the container".to_owned(), |image| format!("the image {image}"));
    let next = if image.is_some() { "use another image, or build it with fewer" } else { "ask for fewer" };
    let of = |name: &str| (format!("{name} of {whose} is too large: it"), next);
    let all = |name: &str, next| (format!("{name} is too large: the container"), next);
    let (subject, next) = match what {
        Countable::Variables => of("environment variables"),
        Countable::Labels => of("labels"),
        Countable::Exposed => of("exposed ports"),
        Countable::Published => of("published ports"),
        Countable::Volumes => of("volumes"),
        Countable::Mounts => of("mounts"),
        Countable::AllMounts => all("mounts", "mount fewer places, or one folder that holds them"),
        Countable::Inherited => all("mounts of other containers", "name fewer containers whose volumes it takes"),
        Countable::AllExposed => all("exposed ports", "expose those that are needed"),
        Countable::AllPublished => {
            all("ports to be published", "publish those that are needed by name (-p), and not all exposed ones (-P)")
        }
    };
    format!("the number of {subject} has {count}, and at most {limit} are taken: {next}")
}

/// What is wrong with an option of a log driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogFault {
    #[error("invalid size: '{0}'")]
    Size(String),
    #[error("max-file cannot be less than 1")]
    MaxFile,
    #[error("logging mode not supported: {0}")]
    Mode(String),
    #[error(
        "unknown log opt '{key}' for {driver} log driver: max-size, max-file, mode, max-buffer-size and compress are offered, with json-file also {}",
        crate::log_details::OPTIONS.join(", ")
    )]
    Unknown { key: String, driver: String },
    #[error("log opt '{option}': {text:?} is no regular expression")]
    Expression { option: String, text: String },
    #[error("log opt 'tag': {text:?} has a {{{{ without its }}}}")]
    TagUnclosed { text: String },
    #[error("log opt 'tag': {field:?} is not offered: .{} are", crate::log_details::FIELDS.join(", ."))]
    TagField { field: String },
}
