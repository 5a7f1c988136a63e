//! `GET /containers/{id}/json`: a workload in full.
//!
//! Docker echoes the client's own host configuration with every default filled in, and the configuration as merged with
//! the image's. The former is the request laid over the defaults of dockerd; the latter comes from the specification.

mod config;
mod host_config;
mod mounts;
mod networks;

use std::path::PathBuf;

use bireme_core::WorkloadKind;
use bireme_engine::view::{Health, State, Status, WorkloadView};
use serde_json::{Value, json};

pub use self::config::merged_config;
use self::host_config::host_config;
pub use self::mounts::mounts;
use self::networks::network_settings;
pub use self::networks::{network_mode, networks};
use super::time;
use crate::version::ApiVersion;

/// The runtimes under whose names our two kinds of workload are known to Docker's clients.
pub const RUNTIME_CONTAINER: &str = "runc";
/// See [`RUNTIME_CONTAINER`].
pub const RUNTIME_COMPONENT: &str = "io.containerd.wasmtime.v1";

/// The whole answer. `etc` is where the files for names and hosts lie, `links` the names and aliases of what it is linked
/// to.
pub fn inspect(
    container: &WorkloadView,
    etc: Option<&[PathBuf; 3]>,
    links: &[(String, String)],
    version: ApiVersion,
) -> Value {
    let config = &container.config;
    let spec = &config.spec;
    let etc = |at: usize| etc.map(|files| files[at].display().to_string()).unwrap_or_default();
    let (path, args) = spec.args.split_first().map_or(("", &[][..]), |(path, args)| (path.as_str(), args));
    let mut wire = json!({
        "Id": container.id(),
        "Created": time::rfc3339(config.created),
        "Path": path,
        "Args": args,
        "State": state(&container.state, container.health.as_ref()),
        "Image": config.image_id,
        "ResolvConfPath": etc(1),
        "HostnamePath": etc(2),
        "HostsPath": etc(0),
        // Docker has no word for where its driver `local` writes.
        "LogPath": config.log_path.as_ref().filter(|_| config.log.driver != "local").map(|path| path.display().to_string()).unwrap_or_default(),
        "Name": format!("/{}", container.name),
        "RestartCount": container.restart_count,
        "Driver": "overlay2",
        "Platform": config.platform.split('/').next().unwrap_or_default(),
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": (!container.execs.is_empty()).then_some(&container.execs),
        "HostConfig": host_config(container, links),
        "GraphDriver": { "Data": {}, "Name": "overlay2" },
        "Mounts": mounts(container),
        "Config": merged_config(container),
        "NetworkSettings": network_settings(container, version),
    });
    if spec.kind == WorkloadKind::Component {
        // Docker has no word for it: where it may connect to, and what its image asks for that nobody granted.
        let allowed = spec.bireme.allow.iter().flat_map(|list| &list.0).map(ToString::to_string).collect::<Vec<_>>();
        wire["Bireme"] = json!({ "Allow": allowed, "Requested": spec.bireme.requested });
    }
    wire
}

fn state(state: &State, health: Option<&Health>) -> Value {
    let mut wire = json!({
        "Status": state.status.as_str(),
        // Docker counts a workload between two runs as running.
        "Running": state.status.is_alive() || state.status == Status::Restarting,
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == Status::Dead,
        "Pid": state.pid.unwrap_or_default(),
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time::rfc3339_or_never(state.started_at),
        "FinishedAt": time::rfc3339_or_never(state.finished_at),
    });
    if let Some(health) = health {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|probe| {
                json!({
                    "Start": time::rfc3339(probe.start),
                    "End": time::rfc3339(probe.end),
                    "ExitCode": probe.exit_code,
                    "Output": probe.output,
                })
            })
            .collect();
        wire["Health"] = json!({ "Status": health.status, "FailingStreak": health.failing_streak, "Log": log });
    }
    wire
}

#[cfg(test)]
mod tests {
    use bireme_api::models::ContainerInspectResponse;

    use super::super::list::tests::container;
    use super::*;

    #[test]
    fn an_inspection_has_dockers_shape() {
        let wire = inspect(&container(), None, &[("db".to_owned(), "data".to_owned())], ApiVersion::MAX);
        serde_json::from_value::<ContainerInspectResponse>(wire.clone()).unwrap();
        insta::assert_json_snapshot!(wire);
    }
}
