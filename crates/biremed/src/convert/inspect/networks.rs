//! `NetworkSettings` and the network mode.

use std::borrow::Cow;

use bireme_core::spec::NetworkMode;
use bireme_engine::view::WorkloadView;
use serde_json::{Value, json};

use crate::convert::{network, ports};
use crate::version::ApiVersion;

/// The network mode as Docker shows it: the default one by its name, and another workload by its ID, whatever it was asked
/// for by.
pub fn network_mode(container: &WorkloadView) -> Cow<'_, str> {
    if let NetworkMode::Workload(other) = &container.config.spec.namespaces.network {
        return format!("container:{other}").into();
    }
    Cow::Borrowed(match container.config.as_asked["HostConfig"]["NetworkMode"].as_str() {
        Some("") | None | Some("default") => match container.config.spec.namespaces.network {
            NetworkMode::None => "none",
            NetworkMode::Host => "host",
            _ => "bridge",
        },
        Some(mode) => mode,
    })
}

/// `Networks`, the two that nobody is attached to included.
pub fn networks(container: &WorkloadView, version: ApiVersion) -> Value {
    let mut networks = network::endpoints(&container.endpoints);
    let mode = network_mode(container);
    if networks.is_empty() && matches!(&*mode, "host" | "none") {
        networks.insert(&mode, network::nowhere());
    }
    if version < network::SINCE_28 {
        for endpoint in networks.values_mut().filter_map(Value::as_object_mut) {
            endpoint.remove("GwPriority");
        }
    }
    json!(networks)
}

pub(super) fn network_settings(container: &WorkloadView, version: ApiVersion) -> Value {
    let alive = container.state.status.is_alive();
    let exposed = if alive { container.config.spec.ports.as_slice() } else { &[] };
    let sandbox = if alive { container.id() } else { "" };
    let networks = networks(container, version);
    let mut wire = json!({
        "Bridge": "",
        "SandboxID": sandbox,
        "SandboxKey": "",
        "Ports": ports::inspected(exposed, &container.ports),
        "HairpinMode": false,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": null,
        "SecondaryIPv6Addresses": null,
    });
    // Deprecated, and still what scripts read: the default bridge's, beside the networks.
    let bridge = networks.get("bridge").cloned().unwrap_or_else(network::nowhere);
    for field in [
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    ] {
        wire[field] = bridge[field].clone();
    }
    wire["Networks"] = networks;
    wire
}
