//! From a resolved service to what the Docker API is asked for.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigCgroupnsModeEnum, HostConfigLogConfig, Ipam as WireIpam, IpamConfig, Mount as WireMount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions, MountType, MountVolumeOptions,
    NetworkCreateRequest, NetworkingConfig, PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
    ThrottleDevice, VolumeCreateRequest,
};
use sha2::{Digest, Sha256};

use crate::model::{DeviceRate, MountKind, Project, Service, ServiceNetwork, Ulimit};

/// The label keys that `docker compose` sets and looks for.
pub mod labels {
    pub const PROJECT: &str = "com.docker.compose.project";
    pub const SERVICE: &str = "com.docker.compose.service";
    pub const NUMBER: &str = "com.docker.compose.container-number";
    pub const ONE_OFF: &str = "com.docker.compose.oneoff";
    pub const CONFIG_HASH: &str = "com.docker.compose.config-hash";
    pub const WORKING_DIR: &str = "com.docker.compose.project.working_dir";
    pub const CONFIG_FILES: &str = "com.docker.compose.project.config_files";
    pub const DEPENDS_ON: &str = "com.docker.compose.depends_on";
    pub const IMAGE: &str = "com.docker.compose.image";
    pub const VERSION: &str = "com.docker.compose.version";
    pub const NETWORK: &str = "com.docker.compose.network";
    pub const VOLUME: &str = "com.docker.compose.volume";
    /// Ours, on networks and volumes: Compose's own key would make Compose think that they changed.
    pub const FINGERPRINT: &str = "io.bireme.compose.config-hash";
    /// The id of the container that a recreated one took over from.
    pub const REPLACE: &str = "com.docker.compose.replace";
}

/// One `POST /containers/create`.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateRequest {
    /// Query parameter `name`.
    pub name: String,
    /// Query parameter `platform`, when the service says one.
    pub platform: Option<String>,
    pub body: ContainerCreateBody,
    /// Put these into the created container (`PUT /containers/{id}/archive?path=/`) before it is started.
    pub files: Vec<InjectedFile>,
}

/// A secret or config whose content stands in the file or in a variable, not in a file of the host.
#[derive(Clone, PartialEq, Eq)]
pub struct InjectedFile {
    /// Absolute path in the container.
    pub path: String,
    pub content: Vec<u8>,
    pub uid: u32,
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

/// The stable fingerprint of what a service asks for, as the label `com.docker.compose.config-hash` has it: equal
/// fingerprints mean that a container need not be made anew. Scale, build, dependencies, pull policy and profiles do
/// not take part, since a change in them changes no container; what is put into the container (inline configs, secrets
/// from variables) does.
pub fn config_hash(project: &Project, service: &Service) -> String {
    let mut lasting = service.clone();
    lasting.build = None;
    lasting.scale = None;
    lasting.depends_on = BTreeMap::new();
    lasting.pull_policy = None;
    lasting.profiles.clear();
    lasting.attach = None;
    lasting.extensions.clear();
    if let Some(deploy) = &mut lasting.deploy {
        deploy.replicas = None;
        deploy.mode = None;
        deploy.labels.clear();
    }
    if lasting.deploy == Some(crate::model::Deploy::default()) {
        lasting.deploy = None;
    }
    let value = serde_json::to_value(&lasting).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(canonical_json(&value));
    let secrets = service.secrets.iter().filter_map(|reference| project.secrets.get(&reference.source));
    let configs = service.configs.iter().filter_map(|reference| project.configs.get(&reference.source));
    for object in secrets.chain(configs) {
        hash.update([0]);
        hash.update(object.file.as_ref().map(|file| file.display().to_string()).unwrap_or_default());
        hash.update(
            object.content.as_ref().or(object.environment_value.as_ref()).map(String::as_str).unwrap_or_default(),
        );
    }
    hex::encode(hash.finalize())
}

/// The same for a network or volume, so that a change in the file is noticed.
fn fingerprint(declared: &impl serde::Serialize) -> String {
    let mut value = serde_json::to_value(declared).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.retain(|key, _| !key.starts_with("x-"));
    }
    hex::encode(Sha256::digest(canonical_json(&value)))
}

/// JSON with sorted keys, whether or not the JSON library keeps an order.
fn canonical_json(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let members: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical_json(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical_json).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

/// `container_name`, else `<project>-<service>-<number>`.
pub fn container_name(project: &Project, service: &Service, number: u32) -> String {
    service.container_name.clone().unwrap_or_else(|| format!("{}-{}-{number}", project.name, service.name))
}

/// What creates a network of the project.
pub fn network_request(project: &Project, key: &str) -> Option<NetworkCreateRequest> {
    let network = project.networks.get(key).filter(|network| !network.external)?;
    let mut all = network.labels.clone();
    all.insert(labels::PROJECT.to_owned(), project.name.clone());
    all.insert(labels::NETWORK.to_owned(), key.to_owned());
    all.insert(labels::FINGERPRINT.to_owned(), fingerprint(network));
    all.insert(labels::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let pools: Vec<IpamConfig> = network
        .ipam
        .config
        .iter()
        .map(|pool| IpamConfig {
            subnet: pool.subnet.clone(),
            ip_range: pool.ip_range.clone(),
            gateway: pool.gateway.clone(),
            auxiliary_addresses: some_map(&pool.aux_addresses),
        })
        .collect();
    let has_ipam = network.ipam != crate::model::Ipam::default();
    Some(NetworkCreateRequest {
        name: network.name.clone(),
        driver: network.driver.clone().or_else(|| Some("bridge".to_owned())),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        enable_ipv4: network.enable_ipv4,
        enable_ipv6: network.enable_ipv6,
        options: some_map(&network.driver_opts),
        ipam: has_ipam.then(|| WireIpam {
            driver: network.ipam.driver.clone(),
            config: some_vec(pools),
            options: some_map(&network.ipam.options),
        }),
        labels: Some(all.into_iter().collect()),
        ..NetworkCreateRequest::default()
    })
}

/// What creates a volume of the project.
pub fn volume_request(project: &Project, key: &str) -> Option<VolumeCreateRequest> {
    let volume = project.volumes.get(key).filter(|volume| !volume.external)?;
    let mut all = volume.labels.clone();
    all.insert(labels::PROJECT.to_owned(), project.name.clone());
    all.insert(labels::VOLUME.to_owned(), key.to_owned());
    all.insert(labels::FINGERPRINT.to_owned(), fingerprint(volume));
    all.insert(labels::VERSION.to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Some(VolumeCreateRequest {
        name: Some(volume.name.clone()),
        driver: volume.driver.clone(),
        driver_opts: some_map(&volume.driver_opts),
        labels: Some(all.into_iter().collect()),
        ..VolumeCreateRequest::default()
    })
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

fn container_labels(project: &Project, service: &Service, replica: &Replica) -> HashMap<String, String> {
    let mut all: HashMap<String, String> = service.labels.clone().into_iter().collect();
    let files: Vec<String> = project.files.iter().map(|file| file.display().to_string()).collect();
    // `service:condition:restart`, as docker compose reads it back when no file is at hand.
    let depends: Vec<String> = service
        .depends_on
        .iter()
        .map(|(name, on)| format!("{name}:{}:{}", on.condition.as_str(), on.restart))
        .collect();
    let ours = [
        (labels::PROJECT, project.name.clone()),
        (labels::SERVICE, service.name.clone()),
        (labels::NUMBER, replica.number.to_string()),
        (labels::ONE_OFF, if replica.one_off { "True" } else { "False" }.to_owned()),
        (labels::CONFIG_HASH, config_hash(project, service)),
        (labels::WORKING_DIR, project.working_dir.display().to_string()),
        (labels::CONFIG_FILES, files.join(",")),
        (labels::DEPENDS_ON, depends.join(",")),
        (labels::IMAGE, replica.image_id.clone().unwrap_or_default()),
        (labels::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    all.extend(ours.into_iter().map(|(key, value)| (key.to_owned(), value)));
    if let Some(old) = &replica.replaces {
        all.insert(labels::REPLACE.to_owned(), old.clone());
    }
    all
}

/// Binds and mounts. A bind that may create its folder, and a named volume without options, go the old way
/// (`Binds`), since the API's `Mounts` never creates a folder; the rest are `Mounts`.
fn storage(project: &Project, service: &Service) -> (Vec<String>, Vec<WireMount>) {
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    for mount in &service.volumes {
        match (mount.kind, &mount.source) {
            (MountKind::Bind, Some(source)) => {
                let options = mount.bind.clone().unwrap_or_default();
                // Without `bind` at all the folder is made too, as Compose does.
                let creates = mount.bind.is_none() || options.create_host_path;
                if creates && options.recursive.is_none() && mount.consistency.is_none() {
                    let mut flags = vec![if mount.read_only { "ro" } else { "rw" }];
                    flags.extend(options.selinux.as_deref());
                    flags.extend(options.propagation.as_deref());
                    binds.push(format!("{source}:{}:{}", mount.target, flags.join(",")));
                } else {
                    mounts.push(WireMount {
                        typ: Some(MountType::BIND),
                        source: Some(source.clone()),
                        target: Some(mount.target.clone()),
                        read_only: Some(mount.read_only),
                        consistency: mount.consistency.clone(),
                        bind_options: bind_options(&options),
                        ..WireMount::default()
                    });
                }
            }
            (MountKind::Volume, source) => {
                let name = source.as_ref().and_then(|key| project.volumes.get(key)).map(|volume| volume.name.clone());
                let options = mount.volume.clone().unwrap_or_default();
                let plain = options.labels.is_empty() && options.subpath.is_none() && !options.nocopy;
                match name {
                    Some(name) if plain => {
                        binds.push(format!("{name}:{}:{}", mount.target, if mount.read_only { "ro" } else { "rw" }));
                    }
                    name => mounts.push(WireMount {
                        typ: Some(MountType::VOLUME),
                        source: name,
                        target: Some(mount.target.clone()),
                        read_only: Some(mount.read_only),
                        volume_options: Some(MountVolumeOptions {
                            no_copy: Some(options.nocopy),
                            labels: some_map(&options.labels),
                            subpath: options.subpath,
                            ..MountVolumeOptions::default()
                        }),
                        ..WireMount::default()
                    }),
                }
            }
            (MountKind::Tmpfs, _) | (MountKind::Bind, None) => {
                let options = mount.tmpfs.clone().unwrap_or_default();
                mounts.push(WireMount {
                    typ: Some(MountType::TMPFS),
                    target: Some(mount.target.clone()),
                    read_only: Some(mount.read_only),
                    tmpfs_options: Some(MountTmpfsOptions {
                        size_bytes: options.size,
                        mode: options.mode.map(i64::from),
                        ..MountTmpfsOptions::default()
                    }),
                    ..WireMount::default()
                });
            }
        }
    }
    (binds, mounts)
}

fn bind_options(options: &crate::model::BindOptions) -> Option<MountBindOptions> {
    let propagation = options.propagation.as_deref().and_then(|word| match word {
        "private" => Some(MountBindOptionsPropagationEnum::PRIVATE),
        "rprivate" => Some(MountBindOptionsPropagationEnum::RPRIVATE),
        "shared" => Some(MountBindOptionsPropagationEnum::SHARED),
        "rshared" => Some(MountBindOptionsPropagationEnum::RSHARED),
        "slave" => Some(MountBindOptionsPropagationEnum::SLAVE),
        "rslave" => Some(MountBindOptionsPropagationEnum::RSLAVE),
        _ => None,
    });
    let recursive = options.recursive.as_deref();
    if propagation.is_none() && recursive.is_none() && !options.create_host_path {
        return None;
    }
    Some(MountBindOptions {
        propagation,
        non_recursive: (recursive == Some("disabled")).then_some(true),
        create_mountpoint: options.create_host_path.then_some(true),
        read_only_non_recursive: (recursive == Some("writable")).then_some(true),
        read_only_force_recursive: (recursive == Some("readonly")).then_some(true),
    })
}

/// Secrets and configs: those in files are read-only binds, the others are put into the container once it is created.
fn file_objects(project: &Project, service: &Service, mounts: &mut Vec<WireMount>) -> Vec<InjectedFile> {
    let mut files = Vec::new();
    let secrets = service.secrets.iter().map(|reference| (reference, &project.secrets, "/run/secrets/"));
    let configs = service.configs.iter().map(|reference| (reference, &project.configs, "/"));
    for (reference, objects, folder) in secrets.chain(configs) {
        let Some(object) = objects.get(&reference.source) else { continue };
        let target = match reference.target.as_deref() {
            Some(target) if target.starts_with('/') => target.to_owned(),
            Some(target) => format!("{folder}{target}"),
            None => format!("{folder}{}", reference.source),
        };
        let content = object.content.as_ref().or(object.environment_value.as_ref());
        if let Some(file) = &object.file {
            // As a mount, not a bind: a missing file is an error, never an empty folder in its place.
            mounts.push(WireMount {
                typ: Some(MountType::BIND),
                source: Some(file.display().to_string()),
                target: Some(target),
                read_only: Some(true),
                ..WireMount::default()
            });
        } else if let Some(content) = content {
            let id = |id: &Option<String>| id.as_ref().and_then(|id| id.parse().ok()).unwrap_or(0);
            files.push(InjectedFile {
                path: target,
                content: content.clone().into_bytes(),
                uid: id(&reference.uid),
                gid: id(&reference.gid),
                mode: reference.mode.unwrap_or(0o444),
            });
        }
    }
    files
}

fn networking(
    project: &Project,
    service: &Service,
    replica: &Replica,
    name: &str,
) -> (Option<String>, Option<NetworkingConfig>) {
    if let Some(mode) = &service.network_mode {
        return (Some(namespace(mode, replica)), None);
    }
    let mut by_priority: Vec<(&String, &Option<ServiceNetwork>)> = service.networks.iter().collect();
    by_priority.sort_by_key(|(_, at)| std::cmp::Reverse(at.as_ref().and_then(|at| at.priority).unwrap_or(0)));
    let links = links(project, service, replica);
    let mut endpoints = HashMap::new();
    let mut mode = None;
    for (key, at) in by_priority {
        let Some(network) = project.networks.get(key) else { continue };
        let at = at.clone().unwrap_or_default();
        let mut aliases = vec![name.to_owned()];
        if !replica.one_off {
            aliases.push(service.name.clone());
        }
        aliases.extend(at.aliases.iter().cloned());
        let addressed = at.ipv4_address.is_some() || at.ipv6_address.is_some() || !at.link_local_ips.is_empty();
        let first = mode.is_none();
        endpoints.insert(
            network.name.clone(),
            EndpointSettings {
                aliases: Some(aliases),
                links: some_vec(links.clone()),
                ipam_config: addressed.then(|| EndpointIpamConfig {
                    ipv4_address: at.ipv4_address.clone(),
                    ipv6_address: at.ipv6_address.clone(),
                    link_local_ips: some_vec(at.link_local_ips.clone()),
                }),
                driver_opts: some_map(&at.driver_opts),
                gw_priority: at.gw_priority,
                mac_address: at.mac_address.clone().or_else(|| service.mac_address.clone().filter(|_| first)),
                ..EndpointSettings::default()
            },
        );
        mode.get_or_insert_with(|| network.name.clone());
    }
    let mode = mode.or_else(|| Some("none".to_owned()));
    let config = (!endpoints.is_empty()).then_some(NetworkingConfig { endpoints_config: Some(endpoints) });
    (mode, config)
}

/// `CONTAINER:ALIAS` for everything that the service links to. Source: Compose's `getLinks`.
fn links(project: &Project, service: &Service, replica: &Replica) -> Vec<String> {
    let mut all = Vec::new();
    for link in &service.links {
        let (linked, alias) = link.split_once(':').unwrap_or((link, link));
        for name in replica.names.get(linked).into_iter().flatten() {
            all.push(format!("{name}:{alias}"));
            all.push(format!("{name}:{linked}-{}", replica.number));
            all.push(format!("{name}:{}-{linked}-{}", project.name, replica.number));
        }
    }
    for link in &service.external_links {
        let (name, alias) = link.split_once(':').unwrap_or((link, link));
        all.push(format!("{name}:{alias}"));
    }
    all
}

/// Whose volumes the container uses too, as the API has it.
fn volumes_from(service: &Service, replica: &Replica) -> Vec<String> {
    let container = |entry: &String| match entry.strip_prefix("container:") {
        Some(rest) => rest.to_owned(),
        None => {
            let (name, mode) = entry.split_once(':').unwrap_or((entry, "rw"));
            let id = replica.containers.get(name).map_or(name, String::as_str);
            format!("{id}:{mode}")
        }
    };
    service.volumes_from.iter().map(container).collect()
}

fn rates(limits: Option<&Vec<DeviceRate>>) -> Option<Vec<ThrottleDevice>> {
    some_vec(
        limits
            .into_iter()
            .flatten()
            .map(|limit| ThrottleDevice { path: Some(limit.path.clone()), rate: limit.rate })
            .collect(),
    )
}

/// `service:NAME` becomes `container:ID`; everything else is the API's word already.
fn namespace(mode: &str, replica: &Replica) -> String {
    match mode.strip_prefix("service:").and_then(|service| replica.containers.get(service)) {
        Some(id) => format!("container:{id}"),
        None => mode.to_owned(),
    }
}

#[allow(clippy::type_complexity, reason = "the wire's own types")]
fn ports(service: &Service) -> (Vec<String>, HashMap<String, Option<Vec<PortBinding>>>) {
    let mut exposed: Vec<String> = Vec::new();
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &service.expose {
        let (range, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        // Decoding has seen to it that these are ports.
        if let (Ok(first), Ok(last)) = (first.parse::<u16>(), last.parse::<u16>()) {
            exposed.extend((first..=last).map(|port| format!("{port}/{protocol}")));
        }
    }
    for port in &service.ports {
        let key = format!("{}/{}", port.target, port.protocol);
        exposed.push(key.clone());
        bindings.entry(key).or_insert_with(|| Some(Vec::new())).get_or_insert_default().push(PortBinding {
            host_ip: Some(port.host_ip.clone().unwrap_or_default()),
            host_port: Some(port.published.clone().unwrap_or_default()),
        });
    }
    exposed.sort();
    exposed.dedup();
    (exposed, bindings)
}

fn health(check: &crate::model::Healthcheck) -> HealthConfig {
    if check.disable {
        return HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() };
    }
    let nanos = |duration: Option<std::time::Duration>| {
        duration.map(|duration| i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
    };
    HealthConfig {
        test: some_vec(check.test.clone()),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        retries: check.retries.map(i64::from),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
    }
}

fn restart_policy(service: &Service) -> Option<RestartPolicy> {
    if let Some(word) = &service.restart {
        let (name, count) =
            word.split_once(':').map_or((word.as_str(), None), |(name, count)| (name, count.parse().ok()));
        let name = match name {
            "always" => RestartPolicyNameEnum::ALWAYS,
            "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
            "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
            _ => RestartPolicyNameEnum::NO,
        };
        return Some(RestartPolicy { name: Some(name), maximum_retry_count: count });
    }
    let policy = service.deploy.as_ref()?.restart_policy.as_ref()?;
    let name = match policy.condition.as_deref() {
        Some("none") => RestartPolicyNameEnum::NO,
        Some("on-failure") => RestartPolicyNameEnum::ON_FAILURE,
        _ => RestartPolicyNameEnum::ALWAYS,
    };
    let count = policy.max_attempts.filter(|_| name == RestartPolicyNameEnum::ON_FAILURE).map(i64::from);
    Some(RestartPolicy { name: Some(name), maximum_retry_count: count })
}

fn host_config(
    service: &Service,
    replica: &Replica,
    network_mode: Option<String>,
    binds: Vec<String>,
    mounts: Vec<WireMount>,
    bindings: HashMap<String, Option<Vec<PortBinding>>>,
) -> HostConfig {
    let resources = service.deploy.as_ref().map(|deploy| deploy.resources.clone()).unwrap_or_default();
    let limits = resources.limits.unwrap_or_default();
    let reservations = resources.reservations.unwrap_or_default();
    #[expect(clippy::cast_possible_truncation, reason = "decode bounds the number of processors")]
    let nano_cpus = limits.cpus.or(service.cpus).map(|cpus| (cpus * 1e9).round() as i64);
    let blkio = service.blkio_config.as_ref();
    HostConfig {
        blkio_weight: blkio.and_then(|blkio| blkio.weight),
        blkio_device_read_bps: rates(blkio.map(|blkio| &blkio.device_read_bps)),
        blkio_device_read_iops: rates(blkio.map(|blkio| &blkio.device_read_iops)),
        blkio_device_write_bps: rates(blkio.map(|blkio| &blkio.device_write_bps)),
        blkio_device_write_iops: rates(blkio.map(|blkio| &blkio.device_write_iops)),
        volumes_from: some_vec(volumes_from(service, replica)),
        annotations: some_map(&service.annotations),
        binds: some_vec(binds),
        mounts: some_vec(mounts),
        cap_add: some_vec(service.cap_add.clone()),
        cap_drop: some_vec(service.cap_drop.clone()),
        cgroup_parent: service.cgroup_parent.clone(),
        cgroupns_mode: service.cgroup.as_deref().map(|mode| match mode {
            "host" => HostConfigCgroupnsModeEnum::HOST,
            _ => HostConfigCgroupnsModeEnum::PRIVATE,
        }),
        cpu_period: service.cpu_period,
        cpu_quota: service.cpu_quota,
        cpu_shares: service.cpu_shares,
        cpuset_cpus: service.cpuset.clone(),
        nano_cpus,
        memory: limits.memory.or(service.mem_limit),
        memory_reservation: reservations.memory.or(service.mem_reservation),
        memory_swap: service.memswap_limit,
        memory_swappiness: service.mem_swappiness,
        pids_limit: limits.pids.or(service.pids_limit),
        oom_kill_disable: service.oom_kill_disable.then_some(true),
        oom_score_adj: service.oom_score_adj,
        shm_size: service.shm_size,
        ulimits: some_vec(
            service
                .ulimits
                .iter()
                .map(|(name, limit)| {
                    let (soft, hard) = match limit {
                        Ulimit::Single(both) => (*both, *both),
                        Ulimit::Pair { soft, hard } => (*soft, *hard),
                    };
                    ResourcesUlimits { name: Some(name.clone()), soft: Some(soft), hard: Some(hard) }
                })
                .collect(),
        ),
        devices: some_vec(
            service
                .devices
                .iter()
                .map(|device| DeviceMapping {
                    path_on_host: Some(device.source.clone()),
                    path_in_container: Some(device.target.clone()),
                    cgroup_permissions: Some(device.permissions.clone()),
                })
                .collect(),
        ),
        device_cgroup_rules: some_vec(service.device_cgroup_rules.clone()),
        dns: some_vec(service.dns.clone()),
        dns_options: some_vec(service.dns_opt.clone()),
        dns_search: some_vec(service.dns_search.clone()),
        extra_hosts: some_vec(service.extra_hosts.iter().map(|pair| pair.replacen('=', ":", 1)).collect()),
        group_add: some_vec(service.group_add.clone()),
        init: service.init,
        ipc_mode: service.ipc.as_ref().map(|mode| namespace(mode, replica)),
        pid_mode: service.pid.as_ref().map(|mode| namespace(mode, replica)),
        log_config: service
            .logging
            .as_ref()
            .map(|logging| HostConfigLogConfig { typ: logging.driver.clone(), config: some_map(&logging.options) }),
        network_mode,
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        privileged: Some(service.privileged),
        readonly_rootfs: Some(service.read_only),
        restart_policy: restart_policy(service),
        runtime: service.runtime.clone(),
        security_opt: some_vec(service.security_opt.clone()),
        sysctls: some_map(&service.sysctls),
        tmpfs: (!service.tmpfs.is_empty()).then(|| {
            service
                .tmpfs
                .iter()
                .map(|entry| entry.split_once(':').unwrap_or((entry, "")))
                .map(|(path, options)| (path.to_owned(), options.to_owned()))
                .collect()
        }),
        userns_mode: service.userns_mode.clone(),
        uts_mode: service.uts.clone(),
        ..HostConfig::default()
    }
}

fn some_vec<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

fn some_map(map: &BTreeMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then(|| map.clone().into_iter().collect())
}
