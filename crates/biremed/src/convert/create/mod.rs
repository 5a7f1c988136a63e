//! `POST /containers/create`: from Docker's body to [`CreateRequest`].
//!
//! The order follows `daemon/create.go` of moby: first the configuration, then the host configuration, then networks.

mod health;
mod namespaces;
mod networks;
mod resources;
mod restart;
mod security;
mod unsupported;
mod volumes;

use std::time::Duration;

use bireme_api::models::{ContainerCreateBody, HostConfigCgroupnsModeEnum, HostConfigLogConfig};
use bireme_core::spec::Signal;
use bireme_engine::request::{CreateRequest, LogRequest};
use serde_json::Value;

use self::health::health;
use self::namespaces::{check_modes, ipc_mode, pid_mode, uts_mode};
use self::networks::{dns, extra_hosts, links, networks, of_own_network};
use self::security::security;
use self::unsupported::{check_words, refuse_unoffered};
use self::volumes::{all_mounts, declared, volumes_from};
use super::inspect::RUNTIME_COMPONENT;
use super::{Refusal, ports};

pub(super) use self::resources::{For, resources};
pub(super) use self::restart::{check_restart_name, restart};

/// A time to stop that never runs out, for Docker's negative timeouts.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads a body as it came in. `name` and `platform` are query parameters.
///
/// # Errors
/// `Invalid` for what contradicts itself, `Unsupported` for each field that is known and not offered.
pub fn create(mut body: Value, name: Option<&str>, platform: Option<&str>) -> Result<CreateRequest, Refusal> {
    if body.as_object().is_none_or(serde_json::Map::is_empty) {
        return Err(Refusal::invalid("config cannot be empty in order to create a container"));
    }
    for field in ["Cmd", "Entrypoint"] {
        // Docker takes one word in place of a list.
        if let Some(word) = body.get(field).and_then(Value::as_str).map(str::to_owned) {
            body[field] = Value::from(vec![word]);
        }
    }
    check_words(&body)?;
    let wire: ContainerCreateBody =
        serde_json::from_value(body.clone()).map_err(|error| Refusal::invalid(format!("invalid JSON: {error}")))?;
    let host = wire.host_config.clone().unwrap_or_default();
    refuse_unoffered(&body, &wire, &host)?;

    let mut create = CreateRequest {
        name: name.map(|name| name.trim_start_matches('/').to_owned()).filter(|name| !name.is_empty()),
        image: wire.image.clone().unwrap_or_default(),
        // Docker's own way to ask for a component, from before images said it themselves.
        platform: platform
            .or((host.runtime.as_deref() == Some(RUNTIME_COMPONENT)).then_some("wasi/wasm"))
            .map(str::to_owned),
        entrypoint: wire.entrypoint.clone(),
        command: wire.cmd.clone(),
        env: environment(wire.env.clone().unwrap_or_default())?,
        user: text(wire.user.clone()),
        working_dir: text(wire.working_dir.clone()),
        hostname: text(wire.hostname.clone()),
        domainname: text(wire.domainname.clone()),
        tty: wire.tty == Some(true),
        console_size: console_size(host.console_size.as_deref())?,
        open_stdin: wire.open_stdin == Some(true),
        stdin_once: wire.stdin_once == Some(true),
        labels: wire.labels.clone().unwrap_or_default().into_iter().collect(),
        stop_signal: match text(wire.stop_signal.clone()) {
            None => None,
            Some(text) => {
                Some(Signal::parse(&text).ok_or_else(|| Refusal::invalid(format!("invalid signal: {text}")))?)
            }
        },
        stop_timeout: wire.stop_timeout.map(|seconds| u64::try_from(seconds).map_or(FOR_EVER, Duration::from_secs)),
        health: wire.healthcheck.clone().map(health).transpose()?,
        resources: resources(&host, For::Create)?,
        security: security(&host)?,
        pid_mode: pid_mode(host.pid_mode.as_deref())?,
        ipc_mode: ipc_mode(host.ipc_mode.as_deref())?,
        uts_mode: uts_mode(host.uts_mode.as_deref())?,
        cgroup_host: host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::HOST),
        extra_hosts: extra_hosts(host.extra_hosts.clone().unwrap_or_default())?,
        dns: dns(&host)?,
        shm_size: match host.shm_size {
            None | Some(0) => None,
            Some(size) => Some(u64::try_from(size).map_err(|_| Refusal::invalid("SHM size can not be less than 0"))?),
        },
        init: host.init == Some(true),
        auto_remove: host.auto_remove == Some(true),
        restart: restart(host.restart_policy.clone().unwrap_or_default(), host.auto_remove == Some(true))?,
        publish: ports::bindings(&host.port_bindings.clone().unwrap_or_default())?,
        publish_all: host.publish_all_ports == Some(true),
        log: log(host.log_config.clone().unwrap_or_default()),
        as_asked: body,
        ..CreateRequest::default()
    };
    create.exposed = ports::parse_all(wire.exposed_ports.iter().flatten())?.into_iter().collect();
    create.mounts = all_mounts(&host)?;
    if !of_own_network(host.network_mode.as_deref().unwrap_or_default()) {
        create.links = links(host.links.as_deref())?;
    }
    create.volumes_from = volumes_from(host.volumes_from.as_deref())?;
    create.volumes = declared(wire.volumes.clone().unwrap_or_default(), &create.mounts)?;
    networks(&mut create, &wire, &host)?;
    check_modes(&create)?;
    Ok(create)
}

fn text(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Columns and rows of Docker's `[height, width]`; zeros are none, as is what is missing. What follows is passed over.
pub fn console_size(wire: Option<&[usize]>) -> Result<Option<(u16, u16)>, Refusal> {
    let Some([rows @ 1..=usize::MAX, columns @ 1..=usize::MAX, ..]) = wire else { return Ok(None) };
    match (u16::try_from(*columns), u16::try_from(*rows)) {
        (Ok(columns), Ok(rows)) => Ok(Some((columns, rows))),
        _ => Err(Refusal::invalid(format!("invalid ConsoleSize [{rows}, {columns}]: at most 65535 each"))),
    }
}

fn environment(env: Vec<String>) -> Result<Vec<String>, Refusal> {
    match env.iter().find(|entry| entry.is_empty() || entry.starts_with('=')) {
        Some(bad) => Err(Refusal::invalid(format!("invalid environment variable: {bad}"))),
        None => Ok(env),
    }
}

fn log(wire: HostConfigLogConfig) -> LogRequest {
    LogRequest { driver: wire.typ.unwrap_or_default(), options: wire.config.unwrap_or_default().into_iter().collect() }
}

#[cfg(test)]
mod tests;
