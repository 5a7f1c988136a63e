//! `/volumes`.

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use bireme_api::models::VolumeCreateRequest;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, done, ok};
use crate::app::App;
use crate::convert::volume;
use crate::error::ApiError;
use crate::extract::{Json, Query};
use crate::version::ApiVersion;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/volumes", get(list))
        .route("/volumes/create", post(create))
        .route("/volumes/prune", post(prune))
        .route("/volumes/{name}", get(inspect).delete(remove).put(update))
}

async fn list(State(app): State<App>, query: Query) -> Answer {
    let filters = query.filters(&["dangling", "driver", "label", "label!", "name"])?;
    let dangling = filters.flag("dangling")?;
    let shown: Vec<Value> = app
        .engine
        .volumes()
        .iter()
        .filter(|volume| {
            let names = filters.get("name");
            (names.is_empty() || names.iter().any(|name| volume.name.contains(name.as_str())))
                && filters.admits("driver", &volume.driver)
                && filters.labels_match(&volume.labels)
                && dangling.is_none_or(|wanted| app.engine.volume_users(&volume.name).is_empty() == wanted)
        })
        .map(volume::show)
        .collect();
    ok(&json!({ "Volumes": shown, "Warnings": null }))
}

async fn create(State(app): State<App>, Json(wire): Json<VolumeCreateRequest>) -> Answer {
    let request = volume::create(wire)?;
    let created = app.change(|engine| async move { engine.create_volume(request).await }).await?;
    Ok(super::json(StatusCode::CREATED, &volume::show(&created)))
}

async fn inspect(State(app): State<App>, Path(name): Path<String>) -> Answer {
    ok(&volume::show(&app.engine.volume(&name)?))
}

async fn remove(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let force = query.flag("force");
    app.change(|engine| async move { engine.remove_volume(&name, force).await }).await?;
    done()
}

async fn update(Path(_): Path<String>) -> ApiError {
    ApiError::new(
        bireme_core::ErrorKind::Unavailable,
        "volume update only valid for cluster volumes, but swarm is unavailable",
    )
}

async fn prune(State(app): State<App>, version: ApiVersion, query: Query) -> Answer {
    let filters = query.filters(&["all", "label", "label!"])?;
    // Since 1.42 only anonymous volumes go unless all are asked for.
    let all = filters.flag("all")?.unwrap_or(version < ApiVersion(42));
    let wanted = move |volume: &bireme_engine::view::Volume| filters.labels_match(&volume.labels);
    let (removed, freed) = app.change(|engine| async move { engine.prune_volumes(all, wanted).await }).await?;
    super::pruned(&app, "volume", freed);
    ok(&json!({ "VolumesDeleted": removed, "SpaceReclaimed": freed }))
}
