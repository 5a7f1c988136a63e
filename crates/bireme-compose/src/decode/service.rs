//! A service, with what lies outside its mapping: files of variables and labels, and the variables it passes on.

use std::collections::BTreeMap;

use bireme_core::{LabelError, Labels};

use crate::error::ComposeError;
use crate::model::{Build, Condition, Dependency, Service};
use crate::read::value::{boolean, list, maybe_texts, one_of, string, strings, texts};
use crate::read::{Reader, Result, keyed};
use crate::yaml::{Node, Value};

/// What a service's `env_file`s and `label_file`s hold, and the variables its environment may pass on.
pub(crate) struct Surroundings<'a> {
    /// Reads the variables of a file: path, whether it is `format: raw`.
    #[allow(clippy::type_complexity, reason = "used in this one place")]
    pub(crate) read: &'a dyn Fn(&str, bool) -> std::result::Result<Option<BTreeMap<String, String>>, String>,
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
}

keyed! {
    pub(crate) struct EnvFile = "env_file" {
        path: String => required(string, "has no path; name the file"),
        required: bool => or(boolean, true),
        format: Option<String> => opt(one_of(&["raw"])),
    }
}

pub(crate) fn service(name: &str, node: &Node, path: &str, around: &Surroundings<'_>) -> Result<Service> {
    let r = Reader::new(node, &Service::KEYS, path)?;
    let mut service = Service::decode(&r)?;
    name.clone_into(&mut service.name);
    service.extensions = r.extensions();
    service.build = r.opt("build", |node, path| build(node, path, around.lookup))?;
    service.extra_hosts.sort();
    // Whoever shares the namespaces of another service comes after it and is renewed with it.
    let modes = [&service.network_mode, &service.ipc, &service.pid];
    let shared: Vec<String> =
        modes.into_iter().flatten().filter_map(|mode| mode.strip_prefix("service:")).map(str::to_owned).collect();
    for other in shared {
        service.depends_on.entry(other).or_insert(Dependency {
            condition: Condition::ServiceStarted,
            restart: true,
            required: true,
        });
    }
    // So does whoever links to it; who uses its volumes comes after it.
    let linked = service.links.iter().filter_map(|link| link.split(':').next()).map(|name| (name.to_owned(), true));
    let used = service
        .volumes_from
        .iter()
        .filter(|entry| !entry.starts_with("container:"))
        .filter_map(|entry| entry.split(':').next())
        .map(|name| (name.to_owned(), false));
    let implied: Vec<(String, bool)> = linked.chain(used).collect();
    for (other, restart) in implied {
        service.depends_on.entry(other).or_insert(Dependency {
            condition: Condition::ServiceStarted,
            restart,
            required: true,
        });
    }
    environment(&mut service, &r, around)?;
    service_labels(&mut service, &r, around)?;
    agree(&service, node, path)?;
    Ok(service)
}

fn environment(service: &mut Service, r: &Reader<'_>, around: &Surroundings<'_>) -> Result<()> {
    let files = r.or_default("env_file", |node, path| list(node, path).map(<[Node]>::to_vec))?;
    for (index, node) in files.iter().enumerate() {
        let path = format!("{}.env_file[{index}]", r.path);
        let file = EnvFile::read(node, &path)?;
        match (around.read)(&file.path, file.format.is_some()).map_err(|reason| node.invalid(&path, reason))? {
            Some(found) => service.environment.extend(found.into_iter().map(|(key, value)| (key, Some(value)))),
            None if file.required => {
                return Err(node
                    .invalid(&path, format!("file {} does not exist; create it or set `required: false`", file.path)));
            }
            None => {}
        }
    }
    for (key, value) in r.or_default("environment", maybe_texts)? {
        let value = value.or_else(|| (around.lookup)(&key));
        service.environment.insert(key, value);
    }
    Ok(())
}

fn service_labels(service: &mut Service, r: &Reader<'_>, around: &Surroundings<'_>) -> Result<()> {
    let mut labels = BTreeMap::new();
    if let Some(node) = r.map.get("label_file").filter(|node| node.value != Value::Null) {
        let path = format!("{}.label_file", r.path);
        for file in strings(node, &path)? {
            let found = (around.read)(&file, false).map_err(|reason| node.invalid(&path, reason))?;
            labels.extend(found.ok_or_else(|| node.invalid(&path, format!("file {file} does not exist; create it")))?);
        }
    }
    labels.extend(r.or_default("labels", texts)?);
    if let Err(error) = Labels::parse(&labels) {
        let key = match &error {
            LabelError::Unknown { key, .. } => key.as_str(),
            LabelError::Malformed { key, .. } => key,
        };
        let path = format!("{}.labels", r.path);
        let whole = r.map.get("labels").or_else(|| r.map.get("label_file"));
        let at = r.map.get("labels").and_then(|labels| labels.get(key)).or(whole);
        let kind = error.kind();
        let Some(node) = at else { return Err(ComposeError::invalid(path, error.to_string())) };
        return Err(match kind {
            bireme_core::ErrorKind::Unsupported => node.unsupported(path, error.to_string()),
            _ => node.invalid(path, error.to_string()),
        });
    }
    service.labels = labels;
    Ok(())
}

/// An argument without a value takes the variable of that name, or is not given at all.
fn build(node: &Node, path: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Build> {
    let r = Reader::new(node, &Build::KEYS, path)?;
    let mut build = Build::decode(&r)?;
    if build.dockerfile_inline.is_some() && build.dockerfile.is_some() {
        return Err(node.invalid(path, "has both dockerfile and dockerfile_inline; keep one of them"));
    }
    if build.dockerfile_inline.is_none() {
        build.dockerfile.get_or_insert_with(|| "Dockerfile".to_owned());
    }
    build.args = r
        .or_default("args", maybe_texts)?
        .into_iter()
        .filter_map(|(key, value)| value.or_else(|| lookup(&key)).map(|value| (key, value)))
        .collect();
    Ok(build)
}

/// What two keys say must not differ.
fn agree(service: &Service, node: &Node, path: &str) -> Result<()> {
    if service.image.is_none() && service.build.is_none() {
        return Err(node.invalid(path, "has neither an image nor a build; give it one of them"));
    }
    if service.network_mode.is_some() && !service.networks.is_empty() {
        return Err(node.invalid(path, "has both network_mode and networks; keep one of them"));
    }
    if let Some(mode) = &service.network_mode
        && (mode.starts_with("service:") || mode.starts_with("container:"))
        && !service.ports.is_empty()
    {
        return Err(node.invalid(
            path,
            format!("shares the network of another ({mode}) and cannot publish ports; publish them there"),
        ));
    }
    let Some(deploy) = &service.deploy else { return Ok(()) };
    let limits = deploy.resources.limits.clone().unwrap_or_default();
    let reservations = deploy.resources.reservations.clone().unwrap_or_default();
    let differ = |one: bool, short: &str, long: &str| match one {
        true => Err(node.invalid(path, format!("{short} and deploy.{long} say different things; keep one of them"))),
        false => Ok(()),
    };
    fn differs<T: PartialEq>(short: Option<T>, long: Option<T>) -> bool {
        short.is_some() && long.is_some() && short != long
    }
    differ(differs(service.scale, deploy.replicas), "scale", "replicas")?;
    differ(differs(service.cpus, limits.cpus), "cpus", "resources.limits.cpus")?;
    differ(differs(service.mem_limit, limits.memory), "mem_limit", "resources.limits.memory")?;
    differ(differs(service.pids_limit, limits.pids), "pids_limit", "resources.limits.pids")?;
    differ(differs(service.mem_reservation, reservations.memory), "mem_reservation", "resources.reservations.memory")
}
