//! The engine itself: what it is, what it has on disk, what happens in it.

use std::collections::BTreeMap;

use super::answers;
use super::container::ContainerSummary;
use super::image::ImageSummary;
use super::volume::Volume;

answers! {
    /// What the engine and its machine are.
    ///
    /// Source: Docker Engine API, `SystemInfo`.
    #[serde(rename_all = "PascalCase")]
    pub struct Info {
        /// Of the machine.
        name: Option<String>,
        /// Of the engine.
        server_version: Option<String>,
        /// In any state.
        containers: Option<i64>,
        /// Of these, those that run.
        containers_running: Option<i64>,
        /// Of these, those that are paused.
        containers_paused: Option<i64>,
        /// Of these, all others.
        containers_stopped: Option<i64>,
        /// How many there are.
        images: Option<i64>,
        /// What keeps images and file trees.
        driver: Option<String>,
        /// `cgroupfs`, `systemd` or `none`.
        cgroup_driver: Option<String>,
        /// `1` or `2`.
        cgroup_version: Option<String>,
        /// Where the engine keeps its state.
        docker_root_dir: Option<String>,
        /// Its release.
        kernel_version: Option<String>,
        /// The distribution.
        operating_system: Option<String>,
        /// As `uname -m` says it.
        architecture: Option<String>,
        /// Processors.
        #[serde(rename = "NCPU")]
        ncpu: Option<i64>,
        /// Bytes of memory.
        mem_total: u64,
        /// Sentences about what the machine cannot do.
        warnings: Vec<String>,
    }

    /// Which engine it is.
    ///
    /// Source: Docker Engine API, `SystemVersion`.
    #[serde(rename_all = "PascalCase")]
    pub struct Version {
        /// What it calls itself.
        platform: Platform,
        /// Its own.
        version: Option<String>,
        /// The newest version of the API that it speaks.
        api_version: Option<String>,
        /// The oldest.
        #[serde(rename = "MinAPIVersion")]
        min_api_version: Option<String>,
        /// As Go names it: `linux`.
        os: Option<String>,
        /// As Go names it: `amd64`.
        arch: Option<String>,
        /// Its release.
        kernel_version: Option<String>,
    }

    /// What an engine calls itself.
    #[serde(rename_all = "PascalCase")]
    pub struct Platform {
        /// Product and edition; may be empty.
        name: String,
    }

    /// What became of a login.
    ///
    /// Source: Docker Engine API, `SystemAuth`.
    #[serde(rename_all = "PascalCase")]
    pub struct Authenticated {
        /// A sentence.
        status: Option<String>,
        /// What the registry gave in exchange for the password.
        identity_token: String,
    }

    /// What lies on disk.
    ///
    /// Source: Docker Engine API, `SystemDataUsage`.
    #[serde(rename_all = "PascalCase")]
    pub struct DiskUsage {
        /// Bytes of all layers, each counted once.
        layers_size: i64,
        /// With [`ImageSummary::shared_size`] and [`ImageSummary::containers`].
        images: Vec<ImageSummary>,
        /// With sizes.
        containers: Vec<ContainerSummary>,
        /// With [`Volume::usage_data`].
        volumes: Vec<Volume>,
        /// Steps of builds.
        build_cache: Vec<BuildCache>,
    }

    /// One step in the cache of builds.
    #[serde(rename_all = "PascalCase")]
    pub struct BuildCache {
        /// Names it to `prune`.
        #[serde(rename = "ID")]
        id: String,
        /// `regular`, `source.local` or another.
        #[serde(rename = "Type")]
        kind: String,
        /// A build uses it right now.
        in_use: bool,
        /// Its bytes are an image's too.
        shared: bool,
        /// Bytes.
        size: i64,
        /// How many builds took it.
        usage_count: i64,
    }

    /// Something that happened.
    ///
    /// Source: Docker Engine API, `SystemEvents`; moby's `events.Message`, whose older fields are in small letters.
    #[serde(rename_all = "camelCase")]
    pub struct Event {
        /// As [`Event::action`], from older engines and about containers and images.
        status: String,
        /// As [`Actor::id`], likewise.
        id: String,
        /// The image of a container, likewise.
        from: String,
        /// `container`, `image`, `network`, `volume` or another.
        #[serde(rename = "Type")]
        kind: String,
        /// What was done: `start`, `die` and so on.
        #[serde(rename = "Action")]
        action: String,
        /// What it was done to.
        #[serde(rename = "Actor")]
        actor: Actor,
        /// `local` for this machine's.
        scope: String,
        /// Seconds since 1970.
        time: i64,
        /// Nanoseconds since 1970.
        time_nano: i64,
    }

    /// What an event is about.
    #[serde(rename_all = "PascalCase")]
    pub struct Actor {
        /// An id, or a volume's name.
        #[serde(rename = "ID")]
        id: String,
        /// Labels, and what else there is to say of it.
        attributes: BTreeMap<String, String>,
    }
}
