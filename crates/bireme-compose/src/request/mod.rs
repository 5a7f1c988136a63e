//! From a resolved service to what the Docker API is asked for.

mod fingerprint;
mod host_config;
pub mod labels;
mod network;
mod resource;
mod storage;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard_stubs::models::{ContainerCreateBody, HealthConfig};

pub use fingerprint::config_hash;
pub use resource::{network_request, volume_request};

use crate::model::{Healthcheck, Project, Service};
use host_config::host_config;
use labels::container_labels;
use network::{networking, ports};
use storage::{file_objects, storage};

/// One `POST /containers/create`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateRequest {
    /// Query parameter `name`.
    pub name: String,
    /// Query parameter `platform`, when the service says one.
    pub platform: Option<String>,
    /// The body, as the API has it.
    pub body: ContainerCreateBody,
    /// Put these into the created container (`PUT /containers/{id}/archive?path=/`) before it is started.
    pub files: Vec<InjectedFile>,
}

/// A secret or config whose content stands in the file or in a variable, not in a file of the host.
#[derive(Clone, PartialEq, Eq)]
pub struct InjectedFile {
    /// Absolute path in the container.
    pub path: String,
    /// As it will be in the file; may be a password.
    pub content: Vec<u8>,
    /// Owner, in the container's numbers.
    pub uid: u32,
    /// Group, in the container's numbers.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl std::fmt::Debug for InjectedFile {
    /// Without the content, which may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InjectedFile")
            .field("path", &self.path)
            .field("bytes", &self.content.len())
            .finish_non_exhaustive()
    }
}

/// Which of a service's containers, and what only the engine knows about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replica {
    /// From 1.
    pub number: u32,
    /// Made by `run`, not by `up`.
    pub one_off: bool,
    /// The image's id, for the label by which a newer image is noticed.
    pub image_id: Option<String>,
    /// Ids of the first container of each service named by `network_mode`, `ipc` or `pid: service:…`.
    pub containers: BTreeMap<String, String>,
    /// Names of all containers of each service it depends on, for `links`.
    pub names: BTreeMap<String, Vec<String>>,
    /// Id of the container that this one takes the place of.
    pub replaces: Option<String>,
}

/// `container_name`, else `<project>-<service>-<number>`.
pub fn container_name(project: &Project, service: &Service, number: u32) -> String {
    service.container_name.clone().unwrap_or_else(|| format!("{}-{}-{number}", project.name, service.name))
}

/// The request for one container of `service`.
pub fn create_request(project: &Project, service: &Service, replica: &Replica) -> CreateRequest {
    let name = if replica.one_off {
        format!("{}-{}-run-{}", project.name, service.name, replica.number)
    } else {
        container_name(project, service, replica.number)
    };
    let (binds, mut mounts) = storage(project, service);
    let files = file_objects(project, service, &mut mounts);
    let (network_mode, networking) = networking(project, service, replica, &name);
    let (exposed, bindings) = ports(service);
    let body = ContainerCreateBody {
        hostname: service.hostname.clone(),
        domainname: service.domainname.clone(),
        user: service.user.clone(),
        tty: Some(service.tty),
        open_stdin: Some(service.stdin_open),
        exposed_ports: some_vec(exposed),
        // A name alone takes the variable away from what the image sets.
        env: some_vec(
            service
                .environment
                .iter()
                .map(|(key, value)| value.as_ref().map_or_else(|| key.clone(), |value| format!("{key}={value}")))
                .collect(),
        ),
        cmd: service.command.clone(),
        entrypoint: service.entrypoint.clone(),
        healthcheck: service.healthcheck.as_ref().map(health),
        image: Some(service.image_name(&project.name)),
        working_dir: service.working_dir.clone(),
        labels: Some(container_labels(project, service, replica)),
        stop_signal: service.stop_signal.clone(),
        stop_timeout: service.stop_grace_period.map(|grace| i64::try_from(grace.as_secs()).unwrap_or(i64::MAX)),
        host_config: Some(host_config(service, replica, network_mode, binds, mounts, bindings)),
        networking_config: networking,
        ..ContainerCreateBody::default()
    };
    CreateRequest { name, platform: service.platform.clone(), body, files }
}

fn health(check: &Healthcheck) -> HealthConfig {
    if check.disable {
        return HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() };
    }
    let nanos =
        |duration: Option<Duration>| duration.map(|duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: some_vec(check.test.clone()),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        retries: check.retries.map(i64::from),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
    }
}

fn some_vec<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn some_map(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}
