//! Which keys there are: what we do, and what the Compose specification has and we refuse, each with its reason. The
//! tables are made where the keys are read, most of them in the model; here they have names.
//!
//! A test holds these tables against the specification's JSON schema: every key of the schema is in one of the two
//! columns, so that a key can be refused but never be ignored.

use crate::decode::EnvFile;
pub use crate::keys::Keys;
use crate::model::{
    self, BindOptions, BlkioConfig, Build, Dependency, Deploy, DeployRestart, Device, DeviceRate, FileObject,
    FileReference, Healthcheck, Ipam, IpamPool, Logging, Mount, Network, Port, Resource, Resources, Service,
    ServiceNetwork, TmpfsOptions, Volume, VolumeOptions,
};

/// The file as a whole.
pub const TOP: Keys = Keys {
    what: "a Compose file",
    done: &["version", "name", "include", "services", "networks", "volumes", "secrets", "configs"],
    refused: &[("models", "AI models are not run by this engine; run the model as a service")],
};
/// An entry of `include` in its long form.
pub const INCLUDE: Keys = Keys { what: "an include", done: &["path", "project_directory", "env_file"], refused: &[] };
/// `extends` of a service.
pub const EXTENDS: Keys = Keys { what: "extends", done: &["service", "file"], refused: &[] };
/// A member of `services`.
pub const SERVICE: Keys = Service::KEYS;
/// `blkio_config` of a service.
pub const BLKIO: Keys = BlkioConfig::KEYS;
/// An entry of `device_read_bps` and the other rates of `blkio_config`.
pub const BLKIO_LIMIT: Keys = DeviceRate::KEYS;
/// `build` of a service.
pub const BUILD: Keys = Build::KEYS;
/// A member of `depends_on`.
pub const DEPENDENCY: Keys = Dependency::KEYS;
/// `healthcheck` of a service.
pub const HEALTHCHECK: Keys = Healthcheck::KEYS;
/// `deploy` of a service.
pub const DEPLOY: Keys = Deploy::KEYS;
/// `deploy.resources`.
pub const RESOURCES: Keys = Resources::KEYS;
/// `deploy.resources.limits`.
pub const LIMITS: Keys = Resource::KEYS;
/// `deploy.resources.reservations`.
pub const RESERVATIONS: Keys = model::RESERVATIONS;
/// `deploy.restart_policy`.
pub const RESTART_POLICY: Keys = DeployRestart::KEYS;
/// An entry of `ports` in its long form.
pub const PORT: Keys = Port::KEYS;
/// An entry of a service's `volumes` in its long form.
pub const MOUNT: Keys = Mount::KEYS;
/// `bind` of a mount.
pub const BIND: Keys = BindOptions::KEYS;
/// `volume` of a mount.
pub const VOLUME_OPTIONS: Keys = VolumeOptions::KEYS;
/// `tmpfs` of a mount.
pub const TMPFS: Keys = TmpfsOptions::KEYS;
/// A member of a service's `networks`.
pub const SERVICE_NETWORK: Keys = ServiceNetwork::KEYS;
/// An entry of a service's `secrets` or `configs`.
pub const FILE_REFERENCE: Keys = FileReference::KEYS;
/// An entry of `env_file`.
pub const ENV_FILE: Keys = EnvFile::KEYS;
/// An entry of `devices`.
pub const DEVICE: Keys = Device::KEYS;
/// `logging` of a service.
pub const LOGGING: Keys = Logging::KEYS;
/// A member of `ulimits`.
pub const ULIMIT: Keys = model::ULIMIT;
/// A member of the top level's `networks`.
pub const NETWORK: Keys = Network::KEYS;
/// `ipam` of a network.
pub const IPAM: Keys = Ipam::KEYS;
/// An entry of `ipam.config`.
pub const IPAM_POOL: Keys = IpamPool::KEYS;
/// A member of the top level's `volumes`.
pub const VOLUME: Keys = Volume::KEYS;
/// A member of the top level's `secrets`.
pub const SECRET: Keys = model::SECRET;
/// A member of the top level's `configs`.
pub const CONFIG: Keys = FileObject::KEYS;
