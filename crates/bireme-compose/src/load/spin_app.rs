//! A service whose image is a manifest of Spin (`image: ./shop/spin.toml`): the components of the app take its place, each
//! with what the service says. See decision 25.

use std::path::Path;

use super::{Env, Loader};
use crate::error::ComposeError;
use crate::local;
use crate::merge::merge;
use crate::spin;
use crate::yaml::{Map, Node, Value};

/// Variables of an app, as with Spin: what the service says of them is for templates of the manifest.
const VARIABLE: &str = "SPIN_VARIABLE_";

impl Loader<'_> {
    /// Replaces all such services of `root`, whose files are merged, and what others say of depending on them.
    ///
    /// # Errors
    /// Those of the manifests; components that are called like another service.
    pub(super) fn spin_apps(&self, root: &mut Node, env: &Env) -> Result<(), ComposeError> {
        let Some(services) = root.get("services").and_then(Node::as_map) else { return Ok(()) };
        let is_app = |node: &Node| node.get("image").and_then(Node::as_str).is_some_and(local::is_manifest_file);
        let names: Vec<String> =
            services.iter().filter(|(_, node)| is_app(node)).map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(services) = root.as_map_mut().and_then(|root| root.get_mut("services")).and_then(Node::as_map_mut)
            else {
                return Ok(());
            };
            let Some(service) = services.remove(&name) else { continue };
            let components = self.components_of(&name, &service, env)?;
            let ids: Vec<String> = components.keys().cloned().collect();
            for (id, component) in components {
                if let Some(other) = services.get(&id) {
                    let text = format!(
                        "has a component {id}, as which the service at {}:{} is called, too: rename that",
                        other.file.display(),
                        other.line
                    );
                    return Err(service.invalid(format!("services.{name}.image"), text));
                }
                services.insert(id, component);
            }
            for other in services.values_mut() {
                let Some(on) = other.as_map_mut().and_then(|keys| keys.get_mut("depends_on")) else { continue };
                let Some(on) = on.as_map_mut() else { continue };
                if let Some(how) = on.remove(&name) {
                    on.extend(ids.iter().map(|id| (id.clone(), how.clone())));
                }
            }
        }
        Ok(())
    }

    /// The components of the app that the service `name` is, as services.
    fn components_of(&self, name: &str, service: &Node, env: &Env) -> Result<Map, ComposeError> {
        let place = |key: &str| format!("services.{name}.{key}");
        let empty = Map::new();
        let mut keys = service.as_map().unwrap_or(&empty).clone();
        let Some(image) = keys.remove("image") else { return Ok(Map::new()) };
        if let Some(build) = keys.get("build") {
            return Err(build.invalid(place("build"), "stands beside a manifest of Spin, which says how it is built"));
        }
        let path = Path::new(image.as_str().unwrap_or_default());
        let said = keys.get("environment").and_then(Node::as_map).cloned().unwrap_or_default();
        let lookup = |variable: &str| match said.get(variable) {
            Some(value) if variable.starts_with(VARIABLE) => value.scalar(),
            _ => env.get(variable).cloned(),
        };
        let bytes = self.files.read(path).map_err(|error| {
            image.invalid(place("image"), format!("names {}, which cannot be read: {error}", path.display()))
        })?;
        let mut app = spin::compose(&bytes, path, &lookup)?;
        self.complete(&mut app, path.parent().unwrap_or(Path::new("/")), env)?;
        let mut components = app.get("services").and_then(Node::as_map).unwrap_or(&empty).clone();
        if components.len() > 1
            && let Some(one) = keys.get("container_name")
        {
            return Err(one.invalid(place("container_name"), "is one name, and the app has several components"));
        }
        if let Some(environment) = keys.get_mut("environment").and_then(Node::as_map_mut) {
            environment.retain(|variable, _| !variable.starts_with(VARIABLE));
        }
        let is_public = |component: &Node| component.get("ports").is_some();
        let public = components.values().filter(|component| is_public(component)).count();
        for (id, component) in &mut components {
            let answers = is_public(component);
            let mut own = keys.clone();
            if !answers {
                own.remove("ports");
            }
            if answers && public == 1 && id != name && !own.contains_key("network_mode") {
                alias(&mut own, name, service);
            }
            if let Some(component) = component.as_map_mut() {
                // These are for an app that stands alone.
                component.remove("network_mode");
                component.remove("ports");
            }
            merge(component, service.with(Value::Map(own)), &["services", "*"]);
        }
        Ok(components)
    }
}

/// Has the service found by `name`, too, in the networks that it is in.
fn alias(keys: &mut Map, name: &str, at: &Node) {
    let networks = keys.entry("networks".to_owned()).or_insert_with(|| {
        let default = [("default".to_owned(), at.part(Value::Null))];
        at.part(Value::Map(default.into()))
    });
    for network in networks.as_map_mut().into_iter().flat_map(|networks| networks.values_mut()) {
        if network.value == Value::Null {
            network.value = Value::Map(Map::new());
        }
        let Some(network) = network.as_map_mut() else { continue };
        let aliases = network.entry("aliases".to_owned()).or_insert_with(|| at.part(Value::List(Vec::new())));
        if let Value::List(aliases) = &mut aliases.value {
            aliases.push(at.text(name));
        }
    }
}
