//! `bireme ps`.

use std::collections::BTreeMap;

use bireme_api::answers::container::{ContainerSummary, Port};
use bireme_core::size;

use crate::app;
use crate::cli::PsArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::listing::{self, Listing, Row};
use crate::units;

const LISTING: Listing<'static> = Listing {
    columns: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("State", "STATE"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Size", "SIZE"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("LocalVolumes", "LOCAL VOLUMES"),
        ("Networks", "NETWORKS"),
    ],
    shown: &["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"],
    key: "ID",
};

pub(super) async fn ps(context: &Context, args: &PsArgs) -> Outcome {
    let wants_size = args.size || args.format.format.as_deref().is_some_and(|format| format.contains(".Size"));
    let mut call = context.client.get("/containers/json").query_some("filters", listing::filters(&args.filter.filter)?);
    if args.all {
        call = call.query("all", 1);
    }
    if let Some(last) = if args.latest { Some(1) } else { args.last.filter(|last| *last > 0) } {
        call = call.query("limit", last);
    }
    if wants_size {
        call = call.query("size", 1);
    }
    let mut containers: Vec<ContainerSummary> = call.read().await?;
    if !args.names.is_empty() {
        let names = app::resolve_all(context, &args.names).await?;
        for name in &names {
            // As any other command: a name that nothing has is a mistake, not an empty list.
            context.client.get(format!("/containers/{name}/json")).done().await?;
        }
        containers.retain(|container| names.iter().any(|name| is_named(container, name)));
    } else if context.app.names_one() {
        let project = app::load(&context.app)?;
        let ours =
            |container: &ContainerSummary| container.labels.get(bireme_compose::labels::PROJECT) == Some(&project.name);
        containers.retain(ours);
    }
    let rows: Vec<Row> = containers.iter().map(|container| row(container, args.no_trunc)).collect();
    let mut shown = LISTING.shown.to_vec();
    if args.size {
        shown.push("Size");
    }
    Listing { shown: &shown, ..LISTING }.print(&context.printer, &rows, args.format.format.as_deref(), args.quiet)?;
    Ok(0)
}

/// Whether a listed container has this name, or an id that begins so.
fn is_named(container: &ContainerSummary, name: &str) -> bool {
    let name = name.trim_start_matches('/');
    container.bare_names().any(|known| known == name) || container.id.starts_with(name)
}

fn row(container: &ContainerSummary, no_trunc: bool) -> Row {
    let id = &container.id;
    // A link's name has a slash; the container's own has none.
    let names: Vec<&str> = container.bare_names().filter(|name| no_trunc || !name.contains('/')).collect();
    let image = match &container.image {
        image if image.starts_with("sha256:") && !no_trunc => units::short_id(image),
        image => image.clone(),
    };
    let command = if no_trunc { container.command.clone() } else { units::ellipsis(&container.command, 20) };
    let mounts: Vec<&str> = container
        .mounts
        .iter()
        .filter_map(|mount| mount.name.as_deref().filter(|name| !name.is_empty()).or(mount.source.as_deref()))
        .collect();
    let local = container.mounts.iter().filter(|mount| mount.driver == "local").count();
    let networks: Vec<&str> = container.network_settings.networks.keys().map(String::as_str).collect();
    let written = size::decimal_short(container.size_rw as f64);
    let size = match container.size_root_fs {
        0 => written,
        whole => format!("{written} (virtual {})", size::decimal_short(whole as f64)),
    };
    Row::default()
        .with("ID", if no_trunc { id.clone() } else { units::short_id(id) })
        .with("Image", image)
        .with("Command", format!("\"{command}\""))
        .with("CreatedAt", units::local_time(container.created))
        .with("RunningFor", units::ago(container.created))
        .with("Status", container.status.as_str())
        .with("State", container.state.as_str())
        .with("Ports", ports(&container.ports))
        .with("Names", names.join(","))
        .with("Size", size)
        .with_labels(&container.labels)
        .with("Mounts", mounts.join(","))
        .with("LocalVolumes", local.to_string())
        .with("Networks", networks.join(","))
}

/// Published ports first by address, neighbours joined: `0.0.0.0:8080-8081->80-81/tcp, 90/tcp`.
/// Source: `formatter.DisplayablePorts`.
fn ports(ports: &[Port]) -> String {
    // (address, protocol) to its pairs of (private, public).
    let mut published: BTreeMap<(String, String), Vec<(u64, u64)>> = BTreeMap::new();
    let mut exposed: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
    for port in ports {
        let protocol = port.protocol.as_deref().unwrap_or("tcp").to_owned();
        let private = port.private_port.into();
        match port.public_port {
            0 => exposed.entry(protocol).or_default().push((private, 0)),
            public => {
                let address = match &port.ip {
                    address if address.contains(':') => format!("[{address}]"),
                    address => address.clone(),
                };
                published.entry((address, protocol)).or_default().push((private, public.into()));
            }
        }
    }
    let mut texts: Vec<(u64, String)> = Vec::new();
    for ((address, protocol), pairs) in published {
        for (first, last, public, public_last) in runs(pairs) {
            let hosts = span(public, public_last);
            texts.push((first, format!("{address}:{hosts}->{}/{protocol}", span(first, last))));
        }
    }
    for (protocol, pairs) in exposed {
        for (first, last, ..) in runs(pairs) {
            texts.push((first, format!("{}/{protocol}", span(first, last))));
        }
    }
    texts.sort_by_key(|(first, _)| *first);
    texts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(", ")
}

fn span(first: u64, last: u64) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

/// Runs of neighbours: (first, last, first public, last public).
fn runs(mut pairs: Vec<(u64, u64)>) -> Vec<(u64, u64, u64, u64)> {
    pairs.sort_unstable();
    pairs.dedup();
    let mut runs: Vec<(u64, u64, u64, u64)> = Vec::new();
    for (private, public) in pairs {
        match runs.last_mut() {
            Some((_, last, _, public_last))
                if *last + 1 == private && (public == 0 && *public_last == 0 || *public_last + 1 == public) =>
            {
                *last = private;
                *public_last = public;
            }
            _ => runs.push((private, private, public, public)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(list: Value, expected: &str) {
        let list: Vec<Port> = serde_json::from_value(list).unwrap();
        assert_eq!(ports(&list), expected);
    }

    #[test]
    fn ports_print_as_dockers() {
        check(json!([{"PrivatePort": 80, "Type": "tcp"}]), "80/tcp");
        check(
            json!([
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
            ]),
            "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp",
        );
        check(
            json!([
                {"IP": "0.0.0.0", "PrivatePort": 81, "PublicPort": 8081, "Type": "tcp"},
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"PrivatePort": 90, "Type": "udp"}, {"PrivatePort": 91, "Type": "udp"},
            ]),
            "0.0.0.0:8080-8081->80-81/tcp, 90-91/udp",
        );
    }
}
