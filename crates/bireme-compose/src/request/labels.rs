//! The label keys that `docker compose` sets and looks for, and their values for a container.

use std::collections::HashMap;

use super::Replica;
use super::fingerprint::config_hash;
use crate::model::{Project, Service};

/// Name of the project; on everything that is made for one.
pub const PROJECT: &str = "com.docker.compose.project";
/// Key of the service in the file.
pub const SERVICE: &str = "com.docker.compose.service";
/// Which of the service's containers, from 1.
pub const NUMBER: &str = "com.docker.compose.container-number";
/// `True` when `run` made the container, else `False`.
pub const ONE_OFF: &str = "com.docker.compose.oneoff";
/// [`config_hash`] of the service when the container was made.
pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
/// Absolute path of the project folder.
pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
/// Absolute paths of the files, with commas between.
pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
/// `service:condition:restart` of each dependency, with commas between.
pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
/// Id of the image that the container was made from.
pub const IMAGE: &str = "com.docker.compose.image";
/// Version of the program that made it.
pub const VERSION: &str = "com.docker.compose.version";
/// Key of the network in the file.
pub const NETWORK: &str = "com.docker.compose.network";
/// Key of the volume in the file.
pub const VOLUME: &str = "com.docker.compose.volume";
/// Ours, on networks and volumes: Compose's own key would make Compose think that they changed.
pub const FINGERPRINT: &str = "io.bireme.compose.config-hash";
/// The id of the container that a recreated one took over from.
pub const REPLACE: &str = "com.docker.compose.replace";

pub(super) fn container_labels(project: &Project, service: &Service, replica: &Replica) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = service.labels.clone().into_iter().collect();
    let files: Vec<String> = project.files.iter().map(|file| file.display().to_string()).collect();
    // `service:condition:restart`, as docker compose reads it back when no file is at hand.
    let depends: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, on)| format!("{name}:{}:{}", on.condition.as_str(), on.restart))
        .collect();
    let ours = [
        (PROJECT, project.name.clone()),
        (SERVICE, service.name.clone()),
        (NUMBER, replica.number.to_string()),
        (ONE_OFF, if replica.one_off { "True" } else { "False" }.to_owned()),
        (CONFIG_HASH, config_hash(project, service)),
        (WORKING_DIR, project.working_dir.display().to_string()),
        (CONFIG_FILES, files.join(",")),
        (DEPENDS_ON, depends.join(",")),
        (IMAGE, replica.image_id.clone().unwrap_or_default()),
        (VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    all.extend(ours.into_iter().map(|(key, value)| (key.to_owned(), value)));
    if let Some(old) = &replica.replaces {
        all.insert(REPLACE.to_owned(), old.clone());
    }
    all
}
