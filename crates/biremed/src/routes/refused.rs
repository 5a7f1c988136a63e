//! What Docker serves and this engine does not: each answered as a client can understand it.

use axum::Router;
use axum::extract::Path;
use axum::routing::{any, get, post};
use bireme_core::ErrorKind;
use serde_json::json;

use super::{Answer, ok};
use crate::app::App;
use crate::error::ApiError;

pub(super) fn router() -> Router<App> {
    let mut router = Router::new()
        .route("/plugins", get(plugins))
        .route("/plugins/privileges", get(no_plugins))
        .route("/plugins/pull", post(no_plugins))
        .route("/plugins/create", post(no_plugins))
        .route("/plugins/{*rest}", any(no_such_plugin))
        .route("/containers/{name}/checkpoints", any(checkpoints))
        .route("/containers/{name}/checkpoints/{*rest}", any(checkpoints))
        .route("/swarm", any(no_swarm))
        .route("/swarm/init", post(no_swarm_here))
        .route("/swarm/join", post(no_swarm_here))
        .route("/swarm/leave", post(no_part))
        .route("/swarm/{*rest}", any(no_swarm));
    for resource in ["services", "nodes", "tasks", "secrets", "configs"] {
        router = router
            .route(&format!("/{resource}"), any(no_swarm))
            .route(&format!("/{resource}/{{*rest}}"), any(no_swarm));
    }
    router
}

/// In Docker's words, which its clients know: they take it for an engine outside any swarm.
async fn no_swarm() -> ApiError {
    ApiError::new(
        ErrorKind::Unavailable,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.",
    )
}

/// To whoever would make it one: there "docker swarm init" is no help.
async fn no_swarm_here() -> ApiError {
    ApiError::unsupported(
        "swarms are not offered: this engine runs what is on this machine; use Compose for several services",
    )
}

async fn no_part() -> ApiError {
    ApiError::new(ErrorKind::Unavailable, "This node is not part of a swarm")
}

async fn plugins() -> Answer {
    ok(&json!([]))
}

/// `docker inspect` looks here last: what is not found anywhere must be not found here.
async fn no_such_plugin(Path(rest): Path<String>) -> ApiError {
    let name = rest.rsplit_once('/').map_or(rest.as_str(), |(name, _)| name);
    ApiError::new(ErrorKind::NotFound, format!("plugin \"{name}\" not found"))
}

async fn no_plugins() -> ApiError {
    ApiError::unsupported("plugins are not offered: the drivers local, bridge and json-file are built in")
}

async fn checkpoints() -> ApiError {
    ApiError::unsupported(
        "This experimental feature is disabled by default. Checkpoints are not offered: stop and start the container",
    )
}
