//! From what was asked and what the image says to one complete specification. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use bireme_core::spec::{Mount, MountSource, Namespaces, Port, Propagation, Protocol, Signal, WorkloadSpec};
use bireme_core::{Executor, WorkloadId};
use bireme_image::{Image, ImageConfig};

use crate::refusal::{ContainerRefusal, Countable, RequestRefusal};
use crate::request::{CreateRequest, HealthCheck, MountRequestSource};
use crate::view::{MountKind, MountPoint};
use crate::{EngineError, bounds};

/// A volume that a workload needs, by name; `None` for one of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VolumeNeed {
    pub(crate) name: Option<String>,
    /// Whether it is the workload's own; it gets a name all the same before it is made.
    pub(crate) own: bool,
    /// A path in the volume; empty for all of it.
    pub(crate) subpath: PathBuf,
    pub(crate) target: String,
    pub(crate) declared: bool,
    pub(crate) read_only: bool,
    pub(crate) no_copy: bool,
    pub(crate) driver: String,
    pub(crate) options: BTreeMap<String, String>,
    pub(crate) labels: BTreeMap<String, String>,
}

impl VolumeNeed {
    /// The name of one of its own, chosen where it has none yet.
    pub(crate) fn own_name(&mut self) -> String {
        self.name.get_or_insert_with(crate::names::random_hex).clone()
    }
}

/// A mount of another workload, and how `inspect` shows it.
pub(crate) type Inherited = (Mount, MountPoint);

/// The mounts of a workload, before its volumes exist.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    pub(crate) binds: Vec<(PathBuf, bool)>,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) points: Vec<MountPoint>,
    pub(crate) volumes: Vec<VolumeNeed>,
}

/// Docker's rule for names of containers.
pub(crate) fn check_name(name: &str) -> Result<(), EngineError> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let valid = name.len() > 1 && name.as_bytes()[0].is_ascii_alphanumeric() && name.bytes().all(inner);
    if valid {
        return Ok(());
    }
    Err(ContainerRefusal::NameInvalid { name: name.to_owned() }.into())
}

/// Environment of the request, then what the image has beside it; each name once, in order of first appearance.
pub(crate) fn merge_env(image: &[String], request: &[String]) -> Vec<String> {
    fn name(entry: &str) -> &str {
        entry.split('=').next().unwrap_or(entry)
    }
    let mut merged: Vec<String> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for entry in request {
        match places.get(name(entry)) {
            Some(at) => merged[*at] = entry.clone(),
            None => {
                places.insert(name(entry), merged.len());
                merged.push(entry.clone());
            }
        }
    }
    merged.extend(image.iter().filter(|entry| !places.contains_key(name(entry))).cloned());
    // A name alone removes the image's.
    merged.retain(|entry| entry.contains('='));
    merged
}

/// Entrypoint and command after Docker's rule: an entrypoint given replaces the image's command too.
pub(crate) fn merge_command(request: &CreateRequest, image: &ImageConfig) -> (Vec<String>, Vec<String>) {
    // An empty list is no entrypoint given; a list of one empty word clears the image's.
    let asked = request.entrypoint.clone().filter(|e| !e.is_empty());
    let cleared = asked.is_some();
    let given = asked.filter(|e| e.len() != 1 || !e[0].is_empty());
    let entrypoint = if cleared { given.unwrap_or_default() } else { image.entrypoint.clone().unwrap_or_default() };
    let command = match (&request.command, cleared) {
        (Some(command), _) if !command.is_empty() => command.clone(),
        (_, true) => Vec::new(),
        (_, false) => image.cmd.clone().unwrap_or_default(),
    };
    (entrypoint, command)
}

/// Reads `80`, `80/udp`.
fn parse_port(text: &str) -> Option<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    Some(Port { number: number.parse().ok()?, protocol })
}

fn ports(request: &CreateRequest, image: &ImageConfig) -> Vec<Port> {
    let mut ports: BTreeSet<Port> = image.exposed_ports.keys().filter_map(|text| parse_port(text)).collect();
    ports.extend(&request.exposed);
    ports.extend(request.publish.iter().map(|publish| publish.container));
    ports.into_iter().collect()
}

/// The health check after merging: what the request leaves open is the image's.
pub(crate) fn merge_health(request: Option<&HealthCheck>, image: &ImageConfig) -> Option<HealthCheck> {
    let nanos = |value: i64| Duration::from_nanos(value.max(0) as u64);
    let of_image = image.healthcheck.as_ref().map(|check| HealthCheck {
        test: check.test.clone(),
        interval: nanos(check.interval),
        timeout: nanos(check.timeout),
        start_period: nanos(check.start_period),
        start_interval: nanos(check.start_interval),
        retries: check.retries.clamp(0, i64::from(u32::MAX)) as u32,
    });
    let Some(request) = request else { return of_image };
    let base = of_image.unwrap_or_default();
    let or = |given: Duration, base: Duration| if given.is_zero() { base } else { given };
    Some(HealthCheck {
        test: if request.test.is_empty() { base.test } else { request.test.clone() },
        interval: or(request.interval, base.interval),
        timeout: or(request.timeout, base.timeout),
        start_period: or(request.start_period, base.start_period),
        start_interval: or(request.start_interval, base.start_interval),
        retries: if request.retries == 0 { base.retries } else { request.retries },
    })
}

/// Sorts the wanted mounts by what they need. A path named twice is refused; what is inherited gives way to what was asked
/// for, a volume of the image to any.
/// `root` is whether a mount may be the root.
pub(crate) fn mounts(
    request: &CreateRequest,
    image: &ImageConfig,
    inherited: Vec<Inherited>,
    root: bool,
) -> Result<Mounts, EngineError> {
    let clean_target = |target: &str| match clean_target(target)? {
        target if target == "/" && !root => Err(EngineError::from(RequestRefusal::MountAtRoot)),
        target => Ok(target),
    };
    let mut resolved = Mounts::default();
    let mut targets = BTreeSet::new();
    for mount in &request.mounts {
        let target = clean_target(&mount.target)?;
        if !targets.insert(target.clone()) {
            return Err(RequestRefusal::MountTwice { target }.into());
        }
        let point = |kind, source: PathBuf, propagation: &str| MountPoint {
            kind,
            name: String::new(),
            anonymous: false,
            declared: image.volumes.contains_key(&mount.target),
            inherited: false,
            source,
            target: target.clone(),
            read_only: mount.read_only,
            propagation: propagation.to_owned(),
        };
        match &mount.source {
            MountRequestSource::Bind { path, create, propagation, recursive } => {
                if !path.is_absolute() {
                    return Err(RequestRefusal::BindRelative { path: path.clone() }.into());
                }
                let word = match propagation {
                    Propagation::Private => "rprivate",
                    Propagation::Slave => "rslave",
                    Propagation::Shared => "rshared",
                };
                resolved.binds.push((path.clone(), *create));
                resolved.points.push(point(MountKind::Bind, path.clone(), word));
                let source = MountSource::Bind { path: path.clone(), propagation: *propagation, recursive: *recursive };
                resolved.mounts.push(Mount { source, target, read_only: mount.read_only });
            }
            MountRequestSource::Layers { lower, subpath } => {
                // Where it is written is known with the workload's folders.
                let (lower, scratch, subpath) = (lower.clone(), PathBuf::new(), subpath.clone());
                let source = MountSource::Layers { lower, scratch, subpath };
                resolved.mounts.push(Mount { source, target, read_only: mount.read_only });
            }
            MountRequestSource::Tmpfs { size, mode, options } => {
                resolved.points.push(point(MountKind::Tmpfs, PathBuf::new(), ""));
                let source = MountSource::Tmpfs { size: *size, mode: *mode, options: options.clone() };
                resolved.mounts.push(Mount { source, target, read_only: mount.read_only });
            }
            MountRequestSource::Volume { name, subpath, no_copy, driver, options, labels } => {
                // As Docker: clean names only, so that nothing of it is for the kernel to judge.
                let plain = subpath.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
                if !plain {
                    return Err(RequestRefusal::Subpath.into());
                }
                resolved.volumes.push(VolumeNeed {
                    name: name.clone(),
                    own: name.is_none(),
                    subpath: subpath.clone(),
                    declared: image.volumes.contains_key(&target),
                    target,
                    read_only: mount.read_only,
                    no_copy: *no_copy,
                    driver: driver.clone().unwrap_or_default(),
                    options: options.clone(),
                    labels: labels.clone(),
                })
            }
        }
    }
    for (mount, point) in inherited {
        if targets.insert(mount.target.clone()) {
            resolved.mounts.push(mount);
            resolved.points.push(point);
        }
    }
    for target in image.volumes.keys().chain(&request.volumes) {
        let target = clean_target(target)?;
        if targets.insert(target.clone()) {
            resolved.volumes.push(VolumeNeed {
                name: None,
                own: true,
                subpath: PathBuf::new(),
                target,
                declared: true,
                read_only: false,
                no_copy: false,
                driver: String::new(),
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
            });
        }
    }
    bounds::within(Countable::AllMounts, None, targets.len(), bounds::MOUNTS)?;
    Ok(resolved)
}

/// An absolute path without `.`, `..` or doubled slashes.
fn clean_target(target: &str) -> Result<String, EngineError> {
    if !target.starts_with('/') {
        return Err(RequestRefusal::TargetRelative { target: target.to_owned() }.into());
    }
    let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") || target.contains('\0') {
        return Err(RequestRefusal::TargetAbove { target: target.to_owned() }.into());
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Everything of the specification that needs no I/O; mounts of volumes are still to be added.
pub(crate) struct Resolved {
    pub(crate) spec: WorkloadSpec,
    pub(crate) mounts: Mounts,
    pub(crate) health: Option<HealthCheck>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
}

/// What a new workload is known by.
pub(crate) struct Identity<'a> {
    pub(crate) id: WorkloadId,
    pub(crate) name: &'a str,
}

/// `host_gateway` is the host as seen from the workload, for `--add-host NAME:host-gateway`.
pub(crate) fn resolve(
    request: &CreateRequest,
    image: &Image,
    executor: &dyn Executor,
    Identity { id, name }: Identity<'_>,
    namespaces: Namespaces,
    host_gateway: Option<IpAddr>,
    inherited: Vec<Inherited>,
) -> Result<Resolved, EngineError> {
    let config = &image.config;
    bounds::check(request, config)?;
    let mut labels = config.labels.clone();
    labels.extend(request.labels.clone());
    let bireme = executor.labels(&config.labels, &request.labels)?;
    let (entrypoint, command) = merge_command(request, config);
    let args: Vec<String> = entrypoint.iter().chain(&command).cloned().collect();
    if args.is_empty() && executor.needs_command() {
        return Err(RequestRefusal::NoCommand.into());
    }
    let cwd = request.working_dir.clone().filter(|d| !d.is_empty()).unwrap_or_else(|| config.working_dir.clone());
    let cwd = if cwd.is_empty() { "/".to_owned() } else { cwd };
    if !cwd.starts_with('/') {
        return Err(RequestRefusal::WorkingDir { folder: cwd }.into());
    }
    let stop_signal = match (request.stop_signal, &config.stop_signal) {
        (Some(signal), _) => signal,
        (None, Some(text)) => Signal::parse(text).ok_or_else(|| RequestRefusal::StopSignal { text: text.clone() })?,
        (None, None) => Signal::TERM,
    };
    let mut extra_hosts = Vec::new();
    for (host, address) in &request.extra_hosts {
        let address = match (address.as_str(), host_gateway) {
            ("host-gateway", Some(gateway)) => gateway,
            ("host-gateway", None) => {
                return Err(RequestRefusal::NoHostGateway { host: host.clone() }.into());
            }
            (text, _) => text
                .trim_matches(['[', ']'])
                .parse()
                .map_err(|_| RequestRefusal::ExtraHost { text: text.to_owned() })?,
        };
        extra_hosts.push((host.clone(), address));
    }
    // From whoever runs it and never from the image: workloads of an app share a host process and its stores.
    let app = request.labels.get("com.docker.compose.project").filter(|app| !app.is_empty()).cloned();
    let service = request.labels.get("com.docker.compose.service").cloned();
    let ports = ports(request, config);
    bounds::within(Countable::AllExposed, None, ports.len(), bounds::EXPOSED)?;
    if request.publish_all {
        bounds::all_published(&ports, request.publish.iter().map(|publish| publish.container))?;
    }
    let spec = WorkloadSpec {
        hostname: request.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| id.short().to_owned()),
        id,
        name: name.to_owned(),
        kind: executor.kind(),
        app,
        service,
        image: request.image.clone(),
        args,
        env: merge_env(&config.env, &request.env),
        cwd,
        user: request.user.clone().filter(|user| !user.is_empty()).unwrap_or_else(|| config.user.clone()),
        domainname: request.domainname.clone().unwrap_or_default(),
        tty: request.tty,
        console_size: request.console_size,
        open_stdin: request.open_stdin,
        stdin_once: request.stdin_once,
        mounts: Vec::new(),
        resources: request.resources.clone(),
        security: request.security.clone(),
        namespaces,
        extra_hosts,
        dns: request.dns.clone(),
        shm_size: request.shm_size.unwrap_or(64 << 20),
        init: request.init,
        stop_signal,
        stop_timeout: request.stop_timeout.unwrap_or(Duration::from_secs(10)),
        ports,
        labels,
        bireme,
    };
    let health = merge_health(request.health.as_ref(), config);
    Ok(Resolved {
        spec,
        mounts: mounts(request, config, inherited, executor.mounts_at_root())?,
        health,
        entrypoint,
        command,
    })
}

/// Makes the sources of bind mounts that may be made, and refuses those that are missing or do not answer.
pub(crate) async fn check_binds(binds: Vec<(PathBuf, bool)>) -> Result<(), EngineError> {
    for bind in binds {
        let what = format!("the source {} of a bind mount", bind.0.display());
        crate::patience::ask(&what, move || check_bind(&bind.0, bind.1)).await?;
    }
    Ok(())
}

fn check_bind(path: &Path, create: bool) -> Result<(), EngineError> {
    let file = |source| EngineError::File { path: path.to_owned(), source };
    match std::fs::metadata(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && create => {
            std::fs::create_dir_all(path).map_err(file)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing(path)),
        Err(source) => Err(file(source)),
    }
}

fn missing(path: &Path) -> EngineError {
    RequestRefusal::BindMissing { path: path.to_owned() }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_overlaid_by_name() {
        let check = |image: &[&str], request: &[&str], expected: &[&str]| {
            let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
            assert_eq!(merge_env(&own(image), &own(request)), own(expected));
        };
        check(&["A=1", "B=2"], &["C=4", "A=3"], &["C=4", "A=3", "B=2"]);
        check(&["A=1", "B=2"], &["A"], &["B=2"]);
        check(&[], &["A="], &["A="]);
        check(&["A=1", "A=2"], &["B=1", "B=2"], &["B=2", "A=1", "A=2"]);
        // As many as a request or an image may hold: each against each, that took minutes.
        let many: Vec<String> = (0..300_000).map(|n| format!("V{n}=x")).collect();
        assert_eq!(merge_env(&many, &many), many);
    }

    #[test]
    fn an_entrypoint_given_drops_the_images_command() {
        let own = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        let image = ImageConfig { entrypoint: own(&["/e"]), cmd: own(&["c"]), ..ImageConfig::default() };
        let check = |entrypoint: Option<Vec<String>>, command: Option<Vec<String>>, expected: &[&str]| {
            let (e, c) = merge_command(&CreateRequest { entrypoint, command, ..CreateRequest::default() }, &image);
            assert_eq!(e.into_iter().chain(c).collect::<Vec<_>>(), expected);
        };
        check(None, None, &["/e", "c"]);
        check(None, own(&["d"]), &["/e", "d"]);
        check(own(&["/f"]), None, &["/f"]);
        check(own(&["/f"]), own(&["d"]), &["/f", "d"]);
        check(own(&[""]), own(&["d"]), &["d"]);
        check(own(&[]), None, &["/e", "c"]);
    }

    #[test]
    fn names_and_targets_that_docker_refuses_are_refused() {
        for bad in ["", "a", "-ab", "a b", "a/b", "ü1"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("a1_.-").is_ok());
        for bad in ["data", "/../etc", "/a/../../b"] {
            assert!(clean_target(bad).is_err(), "{bad}");
        }
        for target in ["/", "//"] {
            let source = MountRequestSource::Bind {
                path: "/tmp".into(),
                create: false,
                propagation: Propagation::Private,
                recursive: true,
            };
            let mount = crate::request::MountRequest { source, target: target.to_owned(), read_only: false };
            let request = CreateRequest { mounts: vec![mount], ..CreateRequest::default() };
            assert!(mounts(&request, &ImageConfig::default(), Vec::new(), false).is_err(), "{target} of a container");
            let given = mounts(&request, &ImageConfig::default(), Vec::new(), true).unwrap();
            assert_eq!(given.mounts[0].target, "/", "a component's root");
        }
        assert_eq!(clean_target("/a//b/./c/").unwrap(), "/a/b/c");
    }
}
