//! What the engine has of an app.

use std::collections::{BTreeMap, BTreeSet};

use bireme_api::answers::container::{Container, ContainerSummary};
use bireme_api::answers::image::Image;
use bireme_api::answers::network::Network;
use bireme_api::answers::volume::Volumes;
use bireme_compose::Project;
use bireme_compose::plan::{ContainerState, Observed, ObservedContainer, ObservedNetwork, ObservedVolume, platforms};

use crate::context::Context;

/// Everything a plan is made from.
pub async fn observe(context: &Context, project: &Project) -> anyhow::Result<Observed> {
    let services = || project.services.values().chain(project.disabled.values());
    let mut wanted = BTreeSet::new();
    for service in services() {
        let image = service.image_name(&project.name);
        wanted.extend(platforms(service).into_iter().map(|platform| (image.clone(), platform)));
        wanted.insert((image, None));
    }
    let (mut images, mut by_platform) = (BTreeMap::new(), BTreeMap::new());
    for (image, platform) in wanted {
        let call = context.client.get(format!("/images/{image}/json")).query_some("platform", platform.as_deref());
        match (call.read::<Image>().await, platform) {
            (Ok(found), None) => drop(images.insert(image, found.id)),
            (Ok(found), Some(platform)) => drop(by_platform.insert((image, platform), found.id)),
            (Err(error), _) if error.is_not_found() => {}
            (Err(error), _) => return Err(error.into()),
        }
    }
    let ours = |labels: &BTreeMap<String, String>| {
        labels.get(bireme_compose::labels::PROJECT).is_some_and(|owner| *owner == project.name)
    };
    let networks: Vec<Network> = context.client.get("/networks").read().await?;
    let networks = networks
        .into_iter()
        .map(|Network { id, name, labels, .. }| ObservedNetwork { id, name, labels })
        .filter(|network| ours(&network.labels) || project.networks.values().any(|wanted| wanted.name == network.name))
        .collect();
    let Volumes { volumes } = context.client.get("/volumes").read().await?;
    let volumes = volumes
        .into_iter()
        .map(|volume| ObservedVolume { name: volume.name, labels: volume.labels })
        .filter(|volume| ours(&volume.labels) || project.volumes.values().any(|wanted| wanted.name == volume.name))
        .collect();
    let mut containers = containers(context, &project.name).await?;
    joined(context, project, &mut containers).await?;
    Ok(Observed { networks, volumes, containers, images, by_platform })
}

/// Looks closer at the containers that share namespaces: which they joined, and who was started after whom.
async fn joined(context: &Context, project: &Project, containers: &mut [ObservedContainer]) -> anyhow::Result<()> {
    let mut services = BTreeSet::new();
    for service in project.services.values() {
        for mode in [&service.network_mode, &service.ipc, &service.pid].into_iter().flatten() {
            if let Some(other) = mode.strip_prefix("service:") {
                services.extend([service.name.as_str(), other]);
            }
        }
    }
    for container in containers.iter_mut().filter(|container| services.contains(container.service.as_str())) {
        let found: Container = match context.client.get(format!("/containers/{}/json", container.id)).read().await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        container.started_at = chrono::DateTime::parse_from_rfc3339(&found.state.started_at)
            .ok()
            .and_then(|time| time.timestamp_nanos_opt())
            .filter(|nanos| *nanos > 0);
        let host = &found.host_config;
        for mode in [&host.network_mode, &host.ipc_mode, &host.pid_mode] {
            container.joined.extend(mode.strip_prefix("container:").map(str::to_owned));
        }
    }
    Ok(())
}

/// The containers of an app, in any state.
pub async fn containers(context: &Context, project: &str) -> anyhow::Result<Vec<ObservedContainer>> {
    let list: Vec<ContainerSummary> = context
        .client
        .get("/containers/json")
        .query("all", 1)
        .query("filters", super::of_project(project))
        .read()
        .await?;
    Ok(list.iter().filter_map(container).collect())
}

fn container(listed: &ContainerSummary) -> Option<ObservedContainer> {
    // A link's name has a slash inside; the container's own has none.
    let name = listed.bare_names().find(|name| !name.is_empty() && !name.contains('/'))?;
    let mut container = ObservedContainer::from_labels(&listed.id, name, &listed.labels)?;
    container.state = ContainerState::from_word(&listed.state);
    container.networks = listed.network_settings.networks.keys().cloned().collect();
    Some(container)
}

/// The exit code of the first container of a service that has ended; `None` when none has, or its engine gives none.
pub async fn exit_code(context: &Context, project: &str, service: &str) -> anyhow::Result<Option<i64>> {
    let ended = containers(context, project)
        .await?
        .into_iter()
        .find(|container| container.service == service && container.state == ContainerState::Exited);
    let Some(ended) = ended else { return Ok(None) };
    match context.client.get(format!("/containers/{}/json", ended.id)).read::<Container>().await {
        Ok(found) => Ok(found.state.exit_code),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
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
        let listed: ContainerSummary = serde_json::from_value(listed).unwrap();
        let container = container(&listed).unwrap();
        assert_eq!((container.name.as_str(), container.number), ("app-web-2", 2));
        assert_eq!(container.state, ContainerState::Exited);
        assert!(container.networks.contains("app_default"));
    }

    #[test]
    fn a_container_without_a_name_of_its_own_is_left_out() {
        let labels = BTreeMap::from([("com.docker.compose.project".to_owned(), "app".to_owned())]);
        let named = |name: &str| ContainerSummary {
            names: vec![name.to_owned()],
            labels: labels.clone(),
            ..ContainerSummary::default()
        };
        for (name, expected) in [("", None), ("/", None), ("/app-web-1/link", None), ("/app-web-1", Some("app-web-1"))]
        {
            assert_eq!(container(&named(name)).map(|found| found.name).as_deref(), expected, "{name:?}");
        }
    }
}
