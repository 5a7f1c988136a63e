//! What the engine has of a project, in the form that plans compare with the file.

use std::collections::{BTreeMap, BTreeSet};

use crate::request::labels;

/// What the engine has of this project: everything labelled `com.docker.compose.project=<name>`, and by name the
/// networks, volumes and images that the project speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// The project's, and others that it names.
    pub networks: Vec<ObservedNetwork>,
    /// The project's, and others that it names.
    pub volumes: Vec<ObservedVolume>,
    /// The project's, one-off ones of `run` included.
    pub containers: Vec<ObservedContainer>,
    /// Image name as the project has it → image id. What is not in it is not in the store.
    pub images: BTreeMap<String, String>,
    /// The same of the platforms that services ask for, by image name and platform, see [`platforms`](super::platforms()).
    pub by_platform: BTreeMap<(String, String), String>,
}

/// A network that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNetwork {
    /// The engine's.
    pub id: String,
    /// The engine's name for it, not the key in the file.
    pub name: String,
    /// All of them: they say whose it is and from what it was made.
    pub labels: BTreeMap<String, String>,
}

/// A volume that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedVolume {
    /// The engine's name for it, not the key in the file.
    pub name: String,
    /// All of them: they say whose it is and from what it was made.
    pub labels: BTreeMap<String, String>,
}

/// A container of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedContainer {
    /// Full.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// The key of its service in the file it was made from.
    pub service: String,
    /// From 1; 0 when the label is missing.
    pub number: u32,
    /// What [`config_hash`](crate::config_hash) answered when it was made; empty when the label is missing.
    pub config_hash: String,
    /// The image it was made from.
    pub image_id: String,
    /// Its status as the engine tells it.
    pub state: ContainerState,
    /// Made by `run`.
    pub one_off: bool,
    /// Names of the networks it is on.
    pub networks: BTreeSet<String>,
    /// When it was started last, in nanoseconds since 1970; only where namespaces are shared.
    pub started_at: Option<i64>,
    /// Ids or names of the containers whose namespaces it shares.
    pub joined: BTreeSet<String>,
}

impl ObservedContainer {
    /// Reads the labels of a container as `GET /containers/json` gives them; `None` when it belongs to no project.
    pub fn from_labels(id: &str, name: &str, labels: &BTreeMap<String, String>) -> Option<Self> {
        labels.get(labels::PROJECT)?;
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        Some(Self {
            id: id.to_owned(),
            name: name.trim_start_matches('/').to_owned(),
            service: text(labels::SERVICE),
            number: text(labels::NUMBER).parse().unwrap_or(0),
            config_hash: text(labels::CONFIG_HASH),
            image_id: text(labels::IMAGE),
            one_off: text(labels::ONE_OFF).eq_ignore_ascii_case("true"),
            ..Self::default()
        })
    }
}

/// A container's status, in Docker's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    /// Never started.
    #[default]
    Created,
    /// Started and not ended.
    Running,
    /// Its processes are frozen.
    Paused,
    /// Ended, and about to be started again by its restart policy.
    Restarting,
    /// On its way out: as good as gone.
    Removing,
    /// Ended.
    Exited,
    /// Its removal has failed, or its status is unknown to us.
    Dead,
}

impl ContainerState {
    /// Docker's word; an unknown one is [`Self::Dead`], which is never mistaken for a running container.
    pub fn from_word(word: &str) -> Self {
        match word {
            "created" => Self::Created,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "removing" => Self::Removing,
            "exited" => Self::Exited,
            _ => Self::Dead,
        }
    }

    pub(super) fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Restarting)
    }
}
