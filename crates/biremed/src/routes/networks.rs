//! `/networks`.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use bireme_api::models::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use bireme_core::clock::now_nanos;
use bireme_engine::view::Network;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, done, ok};
use crate::app::App;
use crate::convert::{Filters, filters, network};
use crate::error::ApiError;
use crate::extract::{Json, Query};
use crate::version::ApiVersion;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/networks", get(list))
        .route("/networks/create", post(create))
        .route("/networks/prune", post(prune))
        .route("/networks/{name}", get(inspect).delete(remove))
        .route("/networks/{name}/connect", post(connect))
        .route("/networks/{name}/disconnect", post(disconnect))
}

const FILTERS: &[&str] = &["dangling", "driver", "id", "label", "label!", "name", "scope", "type"];
/// The networks that are always there.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

async fn list(State(app): State<App>, version: ApiVersion, query: Query) -> Answer {
    let filters = query.filters(FILTERS)?;
    let mut shown = Vec::new();
    for network in app.engine.networks() {
        if passes(&app, &network, &filters)? {
            shown.push(network::show(&network, None, version));
        }
    }
    ok(&Value::Array(shown))
}

fn passes(app: &App, network: &Network, filters: &Filters) -> Result<bool, ApiError> {
    let any = |filter: &str, matches: &dyn Fn(&str) -> bool| {
        let values = filters.get(filter);
        values.is_empty() || values.iter().any(|value| matches(value))
    };
    let builtin = PREDEFINED.contains(&network.name.as_str());
    if let Some(unknown) = filters.get("type").iter().find(|kind| !matches!(kind.as_str(), "builtin" | "custom")) {
        return Err(ApiError::invalid(format!("invalid filter: 'type'='{unknown}'")));
    }
    let dangling = match filters.flag("dangling")? {
        None => true,
        Some(wanted) => (!builtin && app.engine.network_members(&network.id).is_empty()) == wanted,
    };
    Ok(dangling
        && any("name", &|value| network.name.contains(value))
        && any("id", &|value| network.id.contains(value))
        && filters.admits("driver", &network.driver)
        && filters.admits("scope", "local")
        && any("type", &|value| (value == "builtin") == builtin)
        && filters.labels_match(&network.labels))
}

async fn create(State(app): State<App>, Json(wire): Json<NetworkCreateRequest>) -> Answer {
    let request = network::create(wire)?;
    let created = app.change(|engine| async move { engine.create_network(request).await }).await?;
    Ok(super::json(StatusCode::CREATED, &json!({ "Id": created.id, "Warning": "" })))
}

async fn inspect(State(app): State<App>, Path(name): Path<String>, version: ApiVersion, query: Query) -> Answer {
    if query.get("scope").is_some_and(|scope| scope != "local") {
        return Err(ApiError::new(bireme_core::ErrorKind::NotFound, format!("network {name} not found")));
    }
    let network = app.engine.network(&name)?;
    let members = app.engine.network_members(&network.id);
    ok(&network::show(&network, Some(&members), version))
}

async fn remove(State(app): State<App>, Path(name): Path<String>) -> Answer {
    app.change(|engine| async move { engine.remove_network(&name).await }).await?;
    done()
}

async fn connect(State(app): State<App>, Path(name): Path<String>, Json(wire): Json<NetworkConnectRequest>) -> Answer {
    let endpoint = network::endpoint(&name, wire.endpoint_config.unwrap_or_default())?;
    app.change(|engine| async move { engine.connect(&name, &wire.container, endpoint).await }).await?;
    Ok(Response::new(Body::empty()))
}

async fn disconnect(
    State(app): State<App>,
    Path(name): Path<String>,
    Json(wire): Json<NetworkDisconnectRequest>,
) -> Answer {
    let force = wire.force == Some(true);
    app.change(|engine| async move { engine.disconnect(&name, &wire.container, force).await }).await?;
    Ok(Response::new(Body::empty()))
}

async fn prune(State(app): State<App>, query: Query) -> Answer {
    let filters = query.filters(&["label", "label!", "until"])?;
    let until = filters::until(&filters, now_nanos())?;
    let wanted = move |network: &Network| {
        filters.labels_match(&network.labels) && until.is_none_or(|until| network.created <= until)
    };
    let removed = app.change(|engine| async move { engine.prune_networks(wanted).await }).await?;
    super::pruned(&app, "network", 0);
    ok(&json!({ "NetworksDeleted": (!removed.is_empty()).then_some(removed) }))
}
