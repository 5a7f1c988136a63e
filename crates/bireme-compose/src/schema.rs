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

pub const TOP: Keys = Keys {
    what: "a Compose file",
    done: &["version", "name", "include", "services", "networks", "volumes", "secrets", "configs"],
    refused: &[("models", "AI models are not run by this engine; run the model as a service")],
};
pub const INCLUDE: Keys = Keys { what: "an include", done: &["path", "project_directory", "env_file"], refused: &[] };
pub const EXTENDS: Keys = Keys { what: "extends", done: &["service", "file"], refused: &[] };
pub const SERVICE: Keys = Service::KEYS;
pub const BLKIO: Keys = BlkioConfig::KEYS;
pub const BLKIO_LIMIT: Keys = DeviceRate::KEYS;
pub const BUILD: Keys = Build::KEYS;
pub const DEPENDENCY: Keys = Dependency::KEYS;
pub const HEALTHCHECK: Keys = Healthcheck::KEYS;
pub const DEPLOY: Keys = Deploy::KEYS;
pub const RESOURCES: Keys = Resources::KEYS;
pub const LIMITS: Keys = Resource::KEYS;
pub const RESERVATIONS: Keys = model::RESERVATIONS;
pub const RESTART_POLICY: Keys = DeployRestart::KEYS;
pub const PORT: Keys = Port::KEYS;
pub const MOUNT: Keys = Mount::KEYS;
pub const BIND: Keys = BindOptions::KEYS;
pub const VOLUME_OPTIONS: Keys = VolumeOptions::KEYS;
pub const TMPFS: Keys = TmpfsOptions::KEYS;
pub const SERVICE_NETWORK: Keys = ServiceNetwork::KEYS;
pub const FILE_REFERENCE: Keys = FileReference::KEYS;
pub const ENV_FILE: Keys = EnvFile::KEYS;
pub const DEVICE: Keys = Device::KEYS;
pub const LOGGING: Keys = Logging::KEYS;
pub const ULIMIT: Keys = model::ULIMIT;
pub const NETWORK: Keys = Network::KEYS;
pub const IPAM: Keys = Ipam::KEYS;
pub const IPAM_POOL: Keys = IpamPool::KEYS;
pub const VOLUME: Keys = Volume::KEYS;
pub const SECRET: Keys = model::SECRET;
pub const CONFIG: Keys = FileObject::KEYS;
