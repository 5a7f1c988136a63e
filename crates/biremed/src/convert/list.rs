//! `GET /containers/json`: a workload in one line.

use bireme_core::duration;
use bireme_engine::view::{State, Status, WorkloadView};
use serde_json::{Value, json};

use super::{inspect, ports, time};
use crate::version::ApiVersion;

/// One entry. `further` are the names links give it; `now` is the time that "Up 2 hours" counts to.
pub fn entry(container: &WorkloadView, further: &[String], now: i64, version: ApiVersion) -> Value {
    let config = &container.config;
    let mut networks = inspect::networks(container, version);
    for endpoint in networks.as_object_mut().into_iter().flat_map(|networks| networks.values_mut()) {
        // Lists are made of less than inspections.
        endpoint["Aliases"] = Value::Null;
        endpoint["DNSNames"] = Value::Null;
    }
    let exposed = if container.state.status.is_alive() { config.spec.ports.as_slice() } else { &[] };
    json!({
        "Id": container.id(),
        "Names": std::iter::once(&container.name).chain(further).map(|name| format!("/{name}")).collect::<Vec<_>>(),
        "Image": config.spec.image,
        "ImageID": config.image_id,
        "Command": command(&config.spec.args),
        "Created": time::seconds(config.created),
        "Ports": ports::listed(exposed, &container.ports),
        "Labels": config.spec.labels,
        "State": container.state.status.as_str(),
        "Status": status(container, now),
        "HostConfig": { "NetworkMode": inspect::network_mode(container) },
        "NetworkSettings": { "Networks": networks },
        "Mounts": inspect::mounts(container),
    })
}

/// The words of a command, those with a blank in quotes.
fn command(args: &[String]) -> String {
    let Some((path, rest)) = args.split_first() else { return String::new() };
    let mut text = path.clone();
    for word in rest {
        text.push(' ');
        if word.contains(' ') {
            text.push_str(&format!("'{word}'"));
        } else {
            text.push_str(word);
        }
    }
    text
}

/// Source: `State.String` of moby.
fn status(container: &WorkloadView, now: i64) -> String {
    let state: &State = &container.state;
    let since = |time: Option<i64>| duration::human(now.saturating_sub(time.unwrap_or(now)) / 1_000_000_000);
    match state.status {
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Running => {
            let up = format!("Up {}", since(state.started_at));
            match container.health.as_ref().map(|health| health.status.as_str()) {
                None | Some("" | "none") => up,
                Some("starting") => format!("{up} (health: starting)"),
                Some(health) => format!("{up} ({health})"),
            }
        }
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Dead => "Dead".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Exited if state.finished_at.is_none() => String::new(),
        Status::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_at)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use bireme_api::models::ContainerSummary;
    use bireme_core::spec::{Port, Protocol, Signal, WorkloadKind, WorkloadSpec};
    use bireme_core::{Labels, WorkloadId};
    use bireme_engine::request::{EndpointRequest, HealthCheck, LogRequest, RestartPolicy};
    use bireme_engine::view::{Config, Endpoint, Health, HealthProbe, MountKind, MountPoint, PublishedPort};

    use super::*;

    const CREATED: i64 = 1_700_000_000_000_000_000;

    /// A container with something of everything.
    pub(crate) fn container() -> WorkloadView {
        let port = |number, protocol| Port { number, protocol };
        let spec = WorkloadSpec {
            id: WorkloadId::from_bytes([7; 32]),
            name: "web".to_owned(),
            kind: WorkloadKind::Container,
            app: None,
            service: None,
            image: "busybox".to_owned(),
            args: ["sh", "-c", "sleep 10000"].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: "070707070707".to_owned(),
            domainname: String::new(),
            tty: false,
            console_size: None,
            open_stdin: false,
            stdin_once: false,
            mounts: Vec::new(),
            resources: Default::default(),
            security: Default::default(),
            namespaces: Default::default(),
            extra_hosts: Vec::new(),
            dns: Default::default(),
            shm_size: 67_108_864,
            init: false,
            stop_signal: Signal::TERM,
            stop_timeout: std::time::Duration::from_secs(10),
            ports: vec![port(80, Protocol::Tcp), port(81, Protocol::Udp)],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            bireme: Labels::default(),
        };
        let mount = |kind, name: &str, source: &str, target: &str, read_only, propagation: &str| MountPoint {
            kind,
            name: name.to_owned(),
            anonymous: false,
            declared: false,
            inherited: false,
            source: source.into(),
            target: target.to_owned(),
            read_only,
            propagation: propagation.to_owned(),
        };
        let config = Config {
            links: Vec::new(),
            spec,
            program: bireme_core::Program::Component {
                path: "/x.wasm".into(),
                digest: String::new(),
                files: Vec::new(),
            },
            image_id: format!("sha256:{}", "a".repeat(64)),
            platform: "linux/amd64".to_owned(),
            created: CREATED,
            auto_remove: false,
            of_build: false,
            mounts: vec![
                mount(MountKind::Bind, "", "/tmp", "/t", true, "rprivate"),
                mount(MountKind::Volume, "data", "/volumes/data/_data", "/v", false, ""),
                mount(MountKind::Tmpfs, "", "", "/q", false, ""),
            ],
            publish: Vec::new(),
            publish_all: false,
            health: Some(HealthCheck {
                test: vec!["CMD-SHELL".to_owned(), "true".to_owned()],
                interval: std::time::Duration::from_secs(1),
                ..HealthCheck::default()
            }),
            log: LogRequest::default(),
            log_path: Some("/logs/x-json.log".into()),
            as_asked: json!({ "HostConfig": { "NetworkMode": "front", "Binds": ["/tmp:/t:ro", "data:/v"], "Tmpfs": { "/q": "" } } }),
            entrypoint: Vec::new(),
            command: ["sh", "-c", "sleep 10000"].map(str::to_owned).to_vec(),
        };
        WorkloadView {
            config: Arc::new(config),
            name: "web".to_owned(),
            state: State {
                status: Status::Running,
                pid: Some(42),
                exit_code: 0,
                error: String::new(),
                oom_killed: false,
                started_at: Some(CREATED + 1_000_000_000),
                finished_at: None,
            },
            restart: RestartPolicy::No,
            restart_count: 0,
            resources: None,
            endpoints: vec![Endpoint {
                network: "b".repeat(64),
                network_name: "front".to_owned(),
                endpoint_id: "c".repeat(64),
                request: EndpointRequest { aliases: ["web".to_owned()].into(), ..EndpointRequest::default() },
                preferred: Vec::new(),
                ipv4: Some(("172.18.0.2".parse().unwrap(), 16)),
                gateway: Some("172.18.0.1".parse().unwrap()),
                ipv6: None,
                ipv6_gateway: None,
                mac: Some("02:42:ac:12:00:02".to_owned()),
                names: vec!["web".to_owned(), "070707070707".to_owned()],
            }],
            ports: vec![PublishedPort { container: port(80, Protocol::Tcp), host: "127.0.0.1:32768".parse().unwrap() }],
            health: Some(Health {
                status: "healthy".to_owned(),
                failing_streak: 0,
                log: vec![HealthProbe {
                    start: CREATED + 2_000_000_000,
                    end: CREATED + 2_100_000_000,
                    exit_code: 0,
                    output: String::new(),
                }],
            }),
            links: Vec::new(),
            execs: Vec::new(),
        }
    }

    #[test]
    fn an_entry_has_dockers_shape() {
        let wire = entry(&container(), &["site/data".to_owned()], CREATED + 3_000_000_000, ApiVersion::MAX);
        serde_json::from_value::<ContainerSummary>(wire.clone()).unwrap();
        insta::assert_json_snapshot!(wire);
    }

    #[test]
    fn states_are_told_as_docker_tells_them() {
        let mut container = container();
        let now = CREATED + 7_201_000_000_000;
        let mut told = Vec::new();
        for (status, health, finished) in [
            (Status::Created, None, None),
            (Status::Running, None, None),
            (Status::Running, Some("starting"), None),
            (Status::Running, Some("unhealthy"), None),
            (Status::Paused, None, None),
            (Status::Restarting, None, Some(now - 5_000_000_000)),
            (Status::Exited, None, Some(now - 60_000_000_000)),
            (Status::Removing, None, None),
            (Status::Dead, None, None),
        ] {
            container.state.status = status;
            container.state.exit_code = 3;
            container.state.finished_at = finished;
            container.health = health.map(|status: &str| Health { status: status.to_owned(), ..Health::default() });
            told.push(super::status(&container, now));
        }
        insta::assert_snapshot!(told.join("\n"), @r"
        Created
        Up 2 hours
        Up 2 hours (health: starting)
        Up 2 hours (unhealthy)
        Up 2 hours (Paused)
        Restarting (3) 5 seconds ago
        Exited (3) About a minute ago
        Removal In Progress
        Dead
        ");
    }
}
