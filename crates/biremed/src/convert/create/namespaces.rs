//! The modes of namespaces: of its own, the machine's, or another workload's.

use bireme_engine::request::{CreateRequest, ModeRequest, NetworkModeRequest};

use crate::convert::Refusal;

pub(super) fn of_workload(mode: &str, kind: &str) -> Result<Option<String>, Refusal> {
    match mode.strip_prefix("container:") {
        Some("") => Err(Refusal::invalid(format!("invalid {kind} mode: {mode}: name a container"))),
        name => Ok(name.map(str::to_owned)),
    }
}

pub(super) fn pid_mode(mode: Option<&str>) -> Result<ModeRequest, Refusal> {
    match mode.unwrap_or_default() {
        "" | "private" => Ok(ModeRequest::Private),
        "host" => Ok(ModeRequest::Host),
        mode => match of_workload(mode, "PID")? {
            Some(name) => Ok(ModeRequest::Workload(name)),
            None => Err(Refusal::invalid(format!("invalid PID mode: {mode}"))),
        },
    }
}

pub(super) fn ipc_mode(mode: Option<&str>) -> Result<ModeRequest, Refusal> {
    match mode.unwrap_or_default() {
        // Any workload's IPC namespace may be shared by another that names it.
        "" | "private" | "shareable" => Ok(ModeRequest::Private),
        "host" => Ok(ModeRequest::Host),
        mode => match of_workload(mode, "IPC")? {
            Some(name) => Ok(ModeRequest::Workload(name)),
            None => Err(Refusal::invalid(format!("invalid IPC mode: {mode}"))),
        },
    }
}

pub(super) fn uts_mode(mode: Option<&str>) -> Result<ModeRequest, Refusal> {
    match mode.unwrap_or_default() {
        "" => Ok(ModeRequest::Private),
        "host" => Ok(ModeRequest::Host),
        mode => Err(Refusal::invalid(format!("invalid UTS mode: {mode}"))),
    }
}

/// What cannot be had together with a namespace of someone else.
///
/// Source: `validateNetMode` of moby for the words.
pub(super) fn check_modes(create: &CreateRequest) -> Result<(), Refusal> {
    let refuse = |what: &str| Err(Refusal::invalid(format!("conflicting options: {what}")));
    if create.uts_mode == ModeRequest::Host && create.hostname.is_some() {
        return refuse("hostname and the UTS mode");
    }
    if let NetworkModeRequest::Workload(_) = create.network_mode {
        if create.hostname.is_some() {
            return refuse("hostname and the network mode");
        }
        if !create.dns.servers.is_empty() {
            return refuse("dns and the network mode");
        }
        if !create.extra_hosts.is_empty() {
            return refuse("custom host-to-IP mapping and the network mode");
        }
        if !create.publish.is_empty() || create.publish_all {
            return refuse("port publishing and the container type network mode");
        }
        if !create.exposed.is_empty() {
            return refuse("port exposing and the container type network mode");
        }
    }
    Ok(())
}
