//! `bireme network`.

use bireme_api::answers::network::{Network, NetworkCreated};
use bireme_api::models::{
    EndpointIpamConfig, EndpointSettings, Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest,
    NetworkDisconnectRequest,
};

use super::each::each;
use crate::cli::{NetworkCommand, NetworkConnectArgs, NetworkCreateArgs, NetworkLsArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::listing::{self, Listing, Row};
use crate::request;
use crate::units;

const LISTING: Listing<'static> = Listing {
    columns: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("Labels", "LABELS"),
        ("CreatedAt", "CREATED AT"),
    ],
    shown: &["ID", "Name", "Driver", "Scope"],
    key: "ID",
};

pub(super) async fn network(context: &Context, command: NetworkCommand) -> Outcome {
    match command {
        NetworkCommand::Create(args) => create(context, &args).await,
        NetworkCommand::Ls(args) => ls(context, &args).await,
        NetworkCommand::Inspect(args) => {
            super::inspect::of_kind(context, Some("network"), &args.names, args.format.as_deref(), false).await
        }
        NetworkCommand::Rm(args) => {
            let force = args.force;
            each(context, &args.names, |name| async move {
                match context.client.delete(format!("/networks/{name}")).done().await {
                    Err(error) if force && error.is_not_found() => Ok(()),
                    answer => answer,
                }
            })
            .await
        }
        NetworkCommand::Connect(args) => connect(context, &args).await,
        NetworkCommand::Disconnect(args) => {
            let container = crate::app::resolve(context, &args.container).await?;
            let request = NetworkDisconnectRequest { container, force: Some(args.force) };
            context.client.post(format!("/networks/{}/disconnect", args.network)).json(&request).done().await?;
            Ok(0)
        }
        NetworkCommand::Prune(args) => super::prune::networks(context, &args).await,
    }
}

async fn create(context: &Context, args: &NetworkCreateArgs) -> Outcome {
    if args.subnet.is_empty() && !(args.gateway.is_empty() && args.ip_range.is_empty()) {
        return Err(Failure::new("--gateway and --ip-range need --subnet").into());
    }
    let pools: Vec<IpamConfig> = args
        .subnet
        .iter()
        .enumerate()
        .map(|(at, subnet)| IpamConfig {
            subnet: Some(subnet.clone()),
            gateway: args.gateway.get(at).cloned(),
            ip_range: args.ip_range.get(at).cloned(),
            ..IpamConfig::default()
        })
        .collect();
    let request = NetworkCreateRequest {
        name: args.name.clone(),
        driver: Some(args.driver.clone()),
        internal: Some(args.internal),
        attachable: Some(args.attachable),
        enable_ipv6: Some(args.ipv6),
        ipam: Some(Ipam {
            driver: Some(args.ipam_driver.clone()),
            config: (!pools.is_empty()).then_some(pools),
            ..Ipam::default()
        }),
        options: Some(request::pairs("--opt", &args.opt)?),
        labels: Some(request::pairs("--label", &args.label)?),
        ..NetworkCreateRequest::default()
    };
    let created: NetworkCreated = context.client.post("/networks/create").json(&request).read().await?;
    if !created.warning.is_empty() {
        context.printer.note(format!("WARNING: {}", created.warning))?;
    }
    context.printer.line(created.id.as_deref().unwrap_or(&args.name))?;
    Ok(0)
}

async fn ls(context: &Context, args: &NetworkLsArgs) -> Outcome {
    let call = context.client.get("/networks").query_some("filters", listing::filters(&args.filter.filter)?);
    let mut networks: Vec<Network> = call.read().await?;
    networks.sort_by(|left, right| left.name.cmp(&right.name));
    let rows: Vec<Row> = networks
        .into_iter()
        .map(|network| {
            let id = if args.no_trunc { network.id } else { units::short_id(&network.id) };
            Row::default()
                .with("ID", id)
                .with("Name", network.name)
                .with("Driver", network.driver)
                .with("Scope", network.scope)
                .with("IPv6", network.enable_ipv6.to_string())
                .with("Internal", network.internal.to_string())
                .with("CreatedAt", network.created)
                .with_labels(&network.labels)
        })
        .collect();
    LISTING.print(&context.printer, &rows, args.format.format.as_deref(), args.quiet)?;
    Ok(0)
}

async fn connect(context: &Context, args: &NetworkConnectArgs) -> Outcome {
    let addressed = args.ip.is_some() || args.ip6.is_some();
    let request = NetworkConnectRequest {
        container: crate::app::resolve(context, &args.container).await?,
        endpoint_config: Some(EndpointSettings {
            aliases: (!args.alias.is_empty()).then(|| args.alias.clone()),
            ipam_config: addressed.then(|| EndpointIpamConfig {
                ipv4_address: args.ip.clone(),
                ipv6_address: args.ip6.clone(),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        }),
    };
    context.client.post(format!("/networks/{}/connect", args.network)).json(&request).done().await?;
    Ok(0)
}
