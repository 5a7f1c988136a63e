//! `/_ping`, `/version`, `/info`, `/system/df`, `/auth`.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bireme_core::WorkloadKind;
use bireme_core::clock::now_nanos;
use bireme_engine::request::ContainerFilter;
use bireme_engine::view::Status;
use bireme_image::RegistryAuth;
use http::header;
use serde_json::{Value, json};

use super::{Answer, ok};
use crate::app::App;
use crate::convert::{self, time};
use crate::error::ApiError;
use crate::extract::{Credentials, Json, Query};
use crate::version::ApiVersion;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/_ping", get(ping))
        .route("/version", get(version))
        .route("/info", get(info))
        .route("/system/df", get(disk_usage))
        .route("/auth", post(auth))
}

async fn ping() -> Response {
    let headers = [
        (header::CACHE_CONTROL, "no-cache, no-store, must-revalidate"),
        (header::PRAGMA, "no-cache"),
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        // The classic builder. Clients that have BuildKit take it all the same; those of Docker 20.10, which would choose it by a
        // 2 here, speak it in a form that is not served.
        (header::HeaderName::from_static("builder-version"), "1"),
        (header::HeaderName::from_static("swarm"), "inactive"),
    ];
    (headers, "OK").into_response()
}

/// Docker's names for the processor architectures.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

async fn version(State(app): State<App>) -> Answer {
    let version = env!("CARGO_PKG_VERSION");
    ok(&json!({
        "Platform": { "Name": "Bireme" },
        "Components": [{
            "Name": "Engine",
            "Version": version,
            "Details": {
                "ApiVersion": ApiVersion::MAX.to_string(),
                "Arch": architecture(),
                "Experimental": "false",
                "KernelVersion": app.host.kernel,
                "MinAPIVersion": ApiVersion::MIN.to_string(),
                "Os": "linux",
            }
        }],
        "Version": version,
        "ApiVersion": ApiVersion::MAX.to_string(),
        "MinAPIVersion": ApiVersion::MIN.to_string(),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": app.host.kernel,
        "BuildTime": "",
    }))
}

async fn info(State(app): State<App>) -> Answer {
    let containers = app.engine.list(&ContainerFilter { all: true, ..ContainerFilter::default() })?;
    let count = |matches: &dyn Fn(Status) -> bool| containers.iter().filter(|one| matches(one.state.status)).count();
    let running = count(&|status| matches!(status, Status::Running | Status::Restarting));
    let paused = count(&|status| status == Status::Paused);
    let components = containers.iter().filter(|one| one.config.spec.kind == WorkloadKind::Component).count();
    let host = &app.host;
    let settings = &app.settings;
    let warnings: Vec<String> = settings
        .insecure_registries
        .iter()
        .map(|name| format!("WARNING: registry {name} is reached without TLS"))
        .collect();
    let driver = if settings.log.driver.is_empty() { "json-file" } else { &settings.log.driver };
    ok(&json!({
        "ID": settings.instance,
        "Containers": containers.len(),
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": containers.len() - running - paused,
        "Images": app.images.count()?,
        "Driver": "overlay2",
        "DriverStatus": [["Components", components.to_string()]],
        "CDISpecDirs": [],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": null,
            "Log": ["json-file", "local", "none"],
        },
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "KernelMemoryTCP": false,
        "IPv4Forwarding": true,
        "BridgeNfIptables": false,
        "BridgeNfIp6tables": false,
        "Debug": false,
        "NFd": std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
        "OomKillDisable": host.cgroup_version == "1",
        "NGoroutines": 0,
        "SystemTime": time::rfc3339(now_nanos()),
        "LoggingDriver": driver,
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": host.cgroup_version,
        "NEventsListener": 0,
        "KernelVersion": host.kernel,
        "OperatingSystem": host.system,
        "OSVersion": host.system_version,
        "OSType": "linux",
        "Architecture": host.machine,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "AllowNondistributableArtifactsCIDRs": null,
            "AllowNondistributableArtifactsHostnames": null,
            "InsecureRegistryCIDRs": ["127.0.0.0/8"],
            "IndexConfigs": index_configs(&settings.registry_mirrors, &settings.insecure_registries),
            "Mirrors": (!settings.registry_mirrors.is_empty()).then_some(&settings.registry_mirrors),
        },
        "NCPU": host.processors,
        "MemTotal": host.memory,
        "GenericResources": null,
        "DockerRootDir": settings.data_root,
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": host.name,
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": env!("CARGO_PKG_VERSION"),
        "Runtimes": {
            convert::inspect::RUNTIME_CONTAINER: { "path": settings.runner },
            convert::inspect::RUNTIME_COMPONENT: { "path": settings.wasm_host },
        },
        "DefaultRuntime": convert::inspect::RUNTIME_CONTAINER,
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "Warnings": (!warnings.is_empty()).then_some(warnings),
    }))
}

fn index_configs(mirrors: &[String], insecure: &[String]) -> BTreeMap<String, Value> {
    let config = |name: &str, mirrors: &[String], secure: bool, official: bool| json!({ "Name": name, "Mirrors": mirrors, "Secure": secure, "Official": official });
    let mut configs = BTreeMap::from([("docker.io".to_owned(), config("docker.io", mirrors, true, true))]);
    for name in insecure {
        configs.insert(name.clone(), config(name, &[], false, false));
    }
    configs
}

async fn disk_usage(State(app): State<App>, version: ApiVersion, query: Query) -> Answer {
    let asked: Vec<&str> = query.all("type").collect();
    if let Some(unknown) = asked.iter().find(|kind| !matches!(**kind, "container" | "image" | "volume" | "build-cache"))
    {
        return Err(ApiError::invalid(format!("unknown object type: {unknown}")));
    }
    let wants = |kind: &str| asked.is_empty() || asked.contains(&kind);
    let mut images = Vec::new();
    let (mut images_free, mut images_used) = (0, 0);
    let mut sizes = BTreeMap::new();
    let (layers_size, shared) = app.images.shared_sizes()?;
    for summary in app.images.list().await? {
        let shared = shared.get(&summary.id).copied().unwrap_or(0);
        sizes.insert(summary.id.to_string(), summary.size);
        let users = app.engine.image_users(&summary.id.to_string()).len();
        if users == 0 {
            images_free += summary.size.saturating_sub(shared);
        } else {
            images_used += 1;
        }
        images.push(convert::image::entry(&summary, &summary.references, Some(users), Some(shared), version));
    }
    let now = now_nanos();
    let listed = app.engine.list(&ContainerFilter { all: true, ..ContainerFilter::default() })?;
    let active = listed.iter().filter(|one| one.state.status.is_alive()).count();
    let (mut containers_size, mut containers_free) = (0, 0);
    let mut containers = Vec::new();
    if wants("container") {
        for container in &listed {
            let mut entry = convert::list::entry(container, &[], now, version);
            let written = app.engine.written(container.id()).await.unwrap_or_default();
            containers_size += written;
            if !container.state.status.is_alive() {
                containers_free += written;
            }
            if written > 0 {
                entry["SizeRw"] = json!(written);
            }
            if let Some(size) = sizes.get(&container.config.image_id) {
                entry["SizeRootFs"] = json!(size + written);
            }
            containers.push(entry);
        }
    }
    let mut volumes = Vec::new();
    let mut volumes_used = 0;
    let (mut volumes_size, mut volumes_free) = (0, 0);
    if wants("volume") {
        for volume in app.engine.volumes() {
            let users = app.engine.volume_users(&volume.name).len();
            let size = app.engine.volume_size(&volume).await;
            volumes_used += usize::from(users > 0);
            volumes_size += size;
            if users == 0 {
                volumes_free += size;
            }
            let mut entry = convert::volume::show(&volume);
            entry["UsageData"] = json!({ "RefCount": users, "Size": size });
            volumes.push(entry);
        }
    }
    let mut caches = Vec::new();
    let (mut caches_used, mut caches_size, mut caches_free) = (0, 0, 0);
    if wants("build-cache") {
        for record in app.images.build_cache().await? {
            caches_used += usize::from(record.in_use);
            if !record.shared {
                caches_size += record.size;
                caches_free += if record.in_use { 0 } else { record.size };
            }
            caches.push(convert::image::cache_record(&record));
        }
    }
    // What was not asked for is null, not empty.
    let of = |kind: &str, list: &[Value]| if wants(kind) { json!(list) } else { Value::Null };
    let mut wire = json!({
        "LayersSize": if wants("image") { layers_size } else { 0 },
        "Images": of("image", &images),
        "Containers": of("container", &containers),
        "Volumes": of("volume", &volumes),
        "BuildCache": of("build-cache", &caches),
        "BuilderSize": caches_size,
    });
    if version >= ApiVersion(52) {
        let usage = |total: usize, active: usize, size: u64, free: u64, items: &[Value]| {
            let items = if query.flag("verbose") { json!(items) } else { Value::Null };
            json!({ "TotalCount": total, "ActiveCount": active, "TotalSize": size, "Reclaimable": free, "Items": items })
        };
        wire["ImageUsage"] = usage(images.len(), images_used, layers_size, images_free, &images);
        wire["ContainerUsage"] = usage(containers.len(), active, containers_size, containers_free, &containers);
        wire["VolumeUsage"] = usage(volumes.len(), volumes_used, volumes_size, volumes_free, &volumes);
        wire["BuildCacheUsage"] = usage(caches.len(), caches_used, caches_size, caches_free, &caches);
    }
    ok(&wire)
}

async fn auth(State(app): State<App>, Json(wire): Json<Credentials>) -> Answer {
    let server = wire.serveraddress.clone().unwrap_or_default();
    // Who says nothing is asked for a name and a password like everybody.
    let auth = wire.auth().unwrap_or_else(|| RegistryAuth::Basic(String::new(), String::new()));
    let token = app.images.check_credentials(&server, &auth).await?;
    ok(&json!({ "Status": "Login Succeeded", "IdentityToken": token.unwrap_or_default() }))
}
