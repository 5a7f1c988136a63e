//! The merged tree → the project: names are final, profiles decided, references checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::discover::Found;
use super::{Env, Loader};
use crate::decode::{self, Surroundings};
use crate::error::ComposeError;
use crate::local;
use crate::model::{MountKind, Network, Project, Service};
use crate::yaml::{Map, Node};

impl Loader<'_> {
    pub(super) fn resolve(
        &self,
        root: &Node,
        name: String,
        found: &Found,
        profiles: BTreeSet<String>,
        env: &Env,
    ) -> Result<Project, ComposeError> {
        let empty = Map::new();
        let section = |key: &str| root.get(key).and_then(Node::as_map).unwrap_or(&empty);
        let lookup = |name: &str| env.get(name).cloned();
        let read = |path: &str, raw: bool| self.variables(path, raw, env);
        let around = Surroundings { read: &read, lookup: &lookup };
        let (mut services, mut disabled) = (BTreeMap::new(), BTreeMap::new());
        let mut components = BTreeMap::new();
        for (key, node) in section("services") {
            check_name(key, node, "services")?;
            let mut service = decode::service(key, node, &format!("services.{key}"), &around)?;
            if let Some(file) = self.component(&mut service, node)? {
                components.insert(key.clone(), file);
            }
            if service.networks.is_empty() && service.network_mode.is_none() {
                service.networks.insert("default".to_owned(), None);
            }
            let active =
                service.profiles.is_empty() || profiles.contains("*") || !service.profiles.is_disjoint(&profiles);
            if active { &mut services } else { &mut disabled }.insert(key.clone(), service);
        }
        let names: BTreeSet<String> = services.keys().chain(disabled.keys()).cloned().collect();
        let declared = |part: &str, key: &str| section(part).contains_key(key);
        for part in [&services, &disabled] {
            decode::check_references(part, section("services"), declared, &names)?;
        }

        let every = || services.values().chain(disabled.values());
        let used_networks: BTreeSet<&str> =
            every().flat_map(|service| service.networks.keys().map(String::as_str)).collect();
        let used_volumes: BTreeSet<&str> = every()
            .flat_map(|service| &service.volumes)
            .filter(|mount| mount.kind == MountKind::Volume)
            .filter_map(|mount| mount.source.as_deref())
            .collect();
        let mut networks = BTreeMap::new();
        for (key, node) in section("networks") {
            check_name(key, node, "networks")?;
            networks.insert(key.clone(), decode::network(key, node, &format!("networks.{key}"), &name)?);
        }
        networks
            .entry("default".to_owned())
            .or_insert_with(|| Network { name: format!("{name}_default"), ..Network::default() });
        networks.retain(|key, _| used_networks.contains(key.as_str()));
        let mut volumes = BTreeMap::new();
        for (key, node) in section("volumes") {
            check_name(key, node, "volumes")?;
            volumes.insert(key.clone(), decode::volume(key, node, &format!("volumes.{key}"), &name)?);
        }
        volumes.retain(|key, _| used_volumes.contains(key.as_str()));
        let mut secrets = BTreeMap::new();
        for (key, node) in section("secrets") {
            secrets
                .insert(key.clone(), decode::file_object(key, node, &format!("secrets.{key}"), &name, false, &lookup)?);
        }
        let mut configs = BTreeMap::new();
        for (key, node) in section("configs") {
            configs
                .insert(key.clone(), decode::file_object(key, node, &format!("configs.{key}"), &name, true, &lookup)?);
        }
        let project = Project {
            name,
            working_dir: found.folder.clone(),
            files: found.files.clone(),
            services,
            components,
            networks,
            volumes,
            secrets,
            configs,
            disabled,
            profiles,
            warnings: self
                .unset
                .borrow()
                .iter()
                .map(|name| format!("variable {name} is not set: it stands for nothing"))
                .collect(),
            extensions: root.as_map().map(crate::read::extensions).unwrap_or_default(),
        };
        check_owners(&project, section("services"))?;
        project.service_order()?;
        Ok(project)
    }

    /// The file that `service` has for an image; the service then has the image that the file is loaded as.
    fn component(&self, service: &mut Service, node: &Node) -> Result<Option<PathBuf>, ComposeError> {
        let Some(path) = service.image.as_deref().filter(|image| local::is_component_file(image)).map(PathBuf::from)
        else {
            return Ok(None);
        };
        if service.build.is_some() {
            let place = node.get("image").unwrap_or(node);
            let key = format!("services.{}.image", service.name);
            return Err(
                place.invalid(key, "is a file, and there is a build, too: keep one of them, or give the image a name")
            );
        }
        // One that is not there yet is missed when it is loaded, and by nobody who only looks or takes down.
        service.image = Some(match self.files.read(&path) {
            Ok(content) => local::component_image(&path, &content),
            Err(_) => local::absent(&path),
        });
        service.platform.get_or_insert_with(|| "wasi/wasm".to_owned());
        Ok(Some(path))
    }
}

/// What is put into a container is owned by numbers: names of users mean nothing outside it.
fn check_owners(project: &Project, nodes: &Map) -> Result<(), ComposeError> {
    for (name, service) in &project.services {
        let secrets = service.secrets.iter().map(|reference| ("secrets", reference, &project.secrets));
        let configs = service.configs.iter().map(|reference| ("configs", reference, &project.configs));
        for (key, reference, objects) in secrets.chain(configs) {
            let Some(object) = objects.get(&reference.source) else { continue };
            let injected = object.file.is_none();
            let bad_id = [&reference.uid, &reference.gid].into_iter().flatten().find(|id| id.parse::<u32>().is_err());
            let place = nodes.get(name).and_then(|node| node.get(key)).or_else(|| nodes.get(name));
            let refuse = |reason: String| match place {
                Some(node) => node.invalid(format!("services.{name}.{key}"), reason),
                None => ComposeError::invalid(format!("services.{name}.{key}"), reason),
            };
            if injected && let Some(id) = bad_id {
                return Err(refuse(format!("{id:?} is not the number of a user or group")));
            }
        }
    }
    Ok(())
}

fn check_name(key: &str, node: &Node, section: &str) -> Result<(), ComposeError> {
    let fits = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if fits {
        return Ok(());
    }
    Err(node
        .invalid(format!("{section}.{key}"), "has a name that is not made of letters, digits, ., _ and -; rename it"))
}
