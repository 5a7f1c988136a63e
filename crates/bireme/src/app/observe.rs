//! What the engine has of an app.

use std::collections::BTreeMap;

use bireme_compose::Project;
use bireme_compose::plan::{ContainerState, Health, Observed, ObservedContainer, ObservedNetwork, ObservedVolume};
use serde_json::Value;

use crate::context::Context;

/// Everything a plan is made from.
pub async fn observe(context: &Context, project: &Project) -> anyhow::Result<Observed> {
    let services = || project.services.values().chain(project.disabled.values());
    let mut images = BTreeMap::new();
    for service in services() {
        let image = service.image_name(&project.name);
        if images.contains_key(&image) {
            continue;
        }
        match context.client.get(format!("/images/{image}/json")).read::<Value>().await {
            Ok(found) => {
                images.insert(image, found["Id"].as_str().unwrap_or_default().to_owned());
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let ours = |labels: &BTreeMap<String, String>| {
        labels.get(bireme_compose::labels::PROJECT).is_some_and(|owner| *owner == project.name)
    };
    let networks: Vec<Value> = context.client.get("/networks").read().await?;
    let networks = networks
        .iter()
        .map(|network| ObservedNetwork {
            id: text(network, "Id"),
            name: text(network, "Name"),
            labels: labels(&network["Labels"]),
        })
        .filter(|network| ours(&network.labels) || project.networks.values().any(|wanted| wanted.name == network.name))
        .collect();
    let volumes: Value = context.client.get("/volumes").read().await?;
    let volumes = volumes["Volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|volume| ObservedVolume { name: text(volume, "Name"), labels: labels(&volume["Labels"]) })
        .filter(|volume| ours(&volume.labels) || project.volumes.values().any(|wanted| wanted.name == volume.name))
        .collect();
    let mut containers = containers(context, &project.name).await?;
    joined(context, project, &mut containers).await?;
    Ok(Observed { networks, volumes, containers, images })
}

/// Looks closer at the containers that share namespaces: which they joined, and who was started after whom.
async fn joined(context: &Context, project: &Project, containers: &mut [ObservedContainer]) -> anyhow::Result<()> {
    let mut services = std::collections::BTreeSet::new();
    for service in project.services.values() {
        for mode in [&service.network_mode, &service.ipc, &service.pid].into_iter().flatten() {
            if let Some(other) = mode.strip_prefix("service:") {
                services.extend([service.name.as_str(), other]);
            }
        }
    }
    for container in containers.iter_mut().filter(|container| services.contains(container.service.as_str())) {
        let found: Value = match context.client.get(format!("/containers/{}/json", container.id)).read().await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        container.started_at = found["State"]["StartedAt"]
            .as_str()
            .and_then(|time| chrono::DateTime::parse_from_rfc3339(time).ok())
            .and_then(|time| time.timestamp_nanos_opt())
            .filter(|nanos| *nanos > 0);
        for mode in ["NetworkMode", "IpcMode", "PidMode"] {
            let mode = found["HostConfig"][mode].as_str().unwrap_or_default();
            container.joined.extend(mode.strip_prefix("container:").map(str::to_owned));
        }
    }
    Ok(())
}

/// The containers of an app, in any state.
pub async fn containers(context: &Context, project: &str) -> anyhow::Result<Vec<ObservedContainer>> {
    let list: Vec<Value> = context
        .client
        .get("/containers/json")
        .query("all", 1)
        .query("filters", super::of_project(project))
        .read()
        .await?;
    Ok(list.iter().filter_map(container).collect())
}

fn container(listed: &Value) -> Option<ObservedContainer> {
    let name = listed["Names"].as_array()?.iter().filter_map(Value::as_str).find(|name| !name[1..].contains('/'))?;
    let mut container = ObservedContainer::from_labels(&text(listed, "Id"), name, &labels(&listed["Labels"]))?;
    let status = text(listed, "Status");
    container.state = ContainerState::from_word(&text(listed, "State"));
    container.health = match () {
        () if status.contains("(healthy)") => Health::Healthy,
        () if status.contains("(unhealthy)") => Health::Unhealthy,
        () if status.contains("(health: starting)") => Health::Starting,
        () => Health::None,
    };
    container.exit_code =
        status.strip_prefix("Exited (").and_then(|rest| rest.split(')').next()).and_then(|code| code.parse().ok());
    container.networks =
        listed["NetworkSettings"]["Networks"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    Some(container)
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

fn labels(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_listed_container_is_understood() {
        let listed = json!({
            "Id": "abc", "Names": ["/app-web-2"], "State": "exited", "Status": "Exited (3) 2 minutes ago",
            "Labels": {"com.docker.compose.project": "app", "com.docker.compose.service": "web",
                       "com.docker.compose.container-number": "2", "com.docker.compose.config-hash": "h"},
            "NetworkSettings": {"Networks": {"app_default": {}}},
        });
        let container = container(&listed).unwrap();
        assert_eq!((container.name.as_str(), container.number, container.exit_code), ("app-web-2", 2, Some(3)));
        assert_eq!(container.state, ContainerState::Exited);
        assert!(container.networks.contains("app_default"));
    }
}
