//! `/containers`: the life cycle, lists and inspections.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use bireme_core::clock::now_nanos;
use bireme_core::error::chain;
use bireme_core::spec::Signal;
use bireme_engine::request::{ContainerFilter, RemoveRequest, StopRequest, WaitCondition};
use bireme_engine::view::WorkloadView;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, done, ok};
use crate::app::App;
use crate::convert::{self, filters};
use crate::error::ApiError;
use crate::extract::{Json, Query};
use crate::stream;
use crate::version::ApiVersion;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/containers/json", get(list))
        .route("/containers/create", post(create))
        .route("/containers/prune", post(prune))
        .route("/containers/{name}/json", get(inspect))
        .route("/containers/{name}/start", post(start))
        .route("/containers/{name}/stop", post(stop))
        .route("/containers/{name}/restart", post(restart))
        .route("/containers/{name}/kill", post(kill))
        .route("/containers/{name}/pause", post(pause))
        .route("/containers/{name}/unpause", post(unpause))
        .route("/containers/{name}/rename", post(rename))
        .route("/containers/{name}/wait", post(wait))
        .route("/containers/{name}/top", get(top))
        .route("/containers/{name}/resize", post(resize))
        .route("/containers/{name}/update", post(update))
        .route("/containers/{name}", delete(remove))
        .route("/containers/{name}/{alias}", delete(remove_link))
}

async fn list(State(app): State<App>, version: ApiVersion, query: Query) -> Answer {
    let wire = query.filters(filters::CONTAINERS)?;
    // Docker's clients send -1 for "no limit".
    let limit = query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let mut filter = filters::containers(&wire, query.flag("all"), limit)?;
    for at in 0..filter.ancestors.len() {
        // By any name of the image, not only the one it was created from.
        if let Ok(image) = app.images.resolve(&filter.ancestors[at], None).await {
            filter.ancestors.push(image.id.to_string());
        }
    }
    let now = now_nanos();
    let mut entries = Vec::new();
    let links = app.engine.names_by_link();
    for container in app.engine.list(&filter)? {
        let further = links.get(container.id()).map(Vec::as_slice).unwrap_or_default();
        let mut entry = convert::list::entry(&container, further, now, version);
        if query.flag("size") {
            add_sizes(&app, &container, &mut entry).await;
        }
        entries.push(entry);
    }
    ok(&Value::Array(entries))
}

/// `SizeRw` and `SizeRootFs`. Docker leaves out of lists what is zero.
async fn add_sizes(app: &App, container: &WorkloadView, wire: &mut Value) {
    let written = app.engine.written(container.id()).await.unwrap_or_default();
    if written > 0 {
        wire["SizeRw"] = json!(written);
    }
    if let Ok(image) = app.images.resolve(&container.config.image_id, None).await {
        wire["SizeRootFs"] = json!(image.size + written);
    }
}

async fn create(State(app): State<App>, query: Query, Json(body): Json<Value>) -> Answer {
    let request = convert::create::create(body, query.get("name"), query.get("platform"))?;
    let _client_is_there = request.given_up.clone().drop_guard();
    let created = app.change(|engine| async move { engine.create(request).await }).await?;
    Ok(super::json(StatusCode::CREATED, &json!({ "Id": created.id.as_str(), "Warnings": created.warnings })))
}

async fn inspect(State(app): State<App>, Path(name): Path<String>, version: ApiVersion, query: Query) -> Answer {
    let container = app.engine.inspect(&name)?;
    let etc = app.engine.etc_files(&container);
    let mut wire = convert::inspect::inspect(&container, etc.as_ref(), &app.engine.link_names(&container), version);
    if query.flag("size") {
        wire["SizeRw"] = json!(0);
        add_sizes(&app, &container, &mut wire).await;
    }
    ok(&wire)
}

async fn start(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    if query.get("checkpoint").is_some() {
        return Err(ApiError::unsupported("checkpoints are not offered: start the container without one"));
    }
    app.change(|engine| async move { engine.start(&name).await }).await?;
    done()
}

fn signal(query: &Query) -> Result<Option<Signal>, ApiError> {
    match query.get("signal") {
        None => Ok(None),
        Some(text) => match Signal::parse(text) {
            Some(signal) => Ok(Some(signal)),
            None => Err(ApiError::invalid(format!("invalid signal: {text}"))),
        },
    }
}

fn how_to_stop(query: &Query) -> Result<StopRequest, ApiError> {
    Ok(StopRequest { signal: signal(query)?, timeout_secs: query.number("t")? })
}

async fn stop(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let how = how_to_stop(&query)?;
    app.change(|engine| async move { engine.stop(&name, how).await }).await?;
    done()
}

async fn restart(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let how = how_to_stop(&query)?;
    app.change(|engine| async move { engine.restart(&name, how).await }).await?;
    done()
}

async fn kill(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let signal = signal(&query)?.unwrap_or(Signal::KILL);
    app.change(|engine| async move { engine.kill(&name, signal).await }).await?;
    done()
}

async fn pause(State(app): State<App>, Path(name): Path<String>) -> Answer {
    app.change(|engine| async move { engine.pause(&name).await }).await?;
    done()
}

async fn unpause(State(app): State<App>, Path(name): Path<String>) -> Answer {
    app.change(|engine| async move { engine.unpause(&name).await }).await?;
    done()
}

async fn rename(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let Some(to) = query.get("name") else {
        return Err(ApiError::invalid("Neither old nor new names may be empty"));
    };
    let to = to.trim_start_matches('/').to_owned();
    app.change(|engine| async move { engine.rename(&name, &to).await }).await?;
    done()
}

async fn remove(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    if query.flag("link") {
        app.change(|engine| async move { engine.unlink(&name).await }).await?;
        return done();
    }
    let how = RemoveRequest { force: query.flag("force"), volumes: query.flag("v") };
    app.change(|engine| async move { engine.remove(&name, how).await }).await?;
    done()
}

/// The name of a link has two parts.
async fn remove_link(app: State<App>, Path((parent, alias)): Path<(String, String)>, query: Query) -> Answer {
    remove(app, Path(format!("{parent}/{alias}")), query).await
}

async fn prune(State(app): State<App>, query: Query) -> Answer {
    let wire = query.filters(&["label", "label!", "until"])?;
    let until = filters::until(&wire, now_nanos())?;
    let ended = ["created", "exited", "dead"].map(str::to_owned).to_vec();
    let mut removed = Vec::new();
    let mut freed = 0;
    for container in app.engine.list(&ContainerFilter { status: ended, ..ContainerFilter::default() })? {
        let id = container.id();
        if !wire.labels_match(&container.config.spec.labels)
            || until.is_some_and(|until| container.config.created > until)
        {
            continue;
        }
        let written = app.engine.written(id).await.unwrap_or_default();
        // One that was started or removed meanwhile stays or is gone: neither is an error of a prune.
        if app.engine.remove(id, RemoveRequest::default()).await.is_ok() {
            removed.push(id.to_owned());
            freed += written;
        }
    }
    super::pruned(&app, "container", freed);
    ok(&json!({ "ContainersDeleted": (!removed.is_empty()).then_some(removed), "SpaceReclaimed": freed }))
}

/// The head goes out at once, the body when the workload ended: `docker run` waits before it starts.
async fn wait(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let condition = match query.get("condition") {
        None | Some("not-running") => WaitCondition::NotRunning,
        Some("next-exit") => WaitCondition::NextExit,
        Some("removed") => WaitCondition::Removed,
        Some(other) => return Err(ApiError::invalid(format!("invalid condition: \"{other}\""))),
    };
    let ended = app.engine.wait(&name, condition)?;
    let line = futures::stream::once(async move {
        let answer = match ended.await {
            Ok(ended) => match ended.error {
                None => json!({ "StatusCode": ended.code }),
                Some(message) => json!({ "StatusCode": ended.code, "Error": { "Message": message } }),
            },
            Err(error) => json!({ "StatusCode": -1, "Error": { "Message": chain(&error) } }),
        };
        Bytes::from(format!("{answer}\n"))
    });
    Ok(stream::bytes("application/json", line, &app.stop))
}

async fn top(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let table = app.engine.processes(&name, query.get("ps_args").unwrap_or("-ef")).await?;
    ok(&json!({ "Titles": table.titles, "Processes": table.rows }))
}

/// Columns and rows of `?w=…&h=…`.
pub(super) fn terminal_size(query: &Query) -> Result<(u16, u16), ApiError> {
    let side = |name: &str| match query.number::<u16>(name)? {
        Some(side) => Ok(side),
        None => Err(ApiError::invalid(format!("invalid resize: the parameter {name} is missing"))),
    };
    Ok((side("w")?, side("h")?))
}

async fn resize(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let (columns, rows) = terminal_size(&query)?;
    app.engine.resize(&name, columns, rows).await?;
    Ok(Response::new(Body::empty()))
}

async fn update(State(app): State<App>, Path(name): Path<String>, Json(body): Json<Value>) -> Answer {
    let change = convert::update::update(&body)?;
    let warnings = app.change(|engine| async move { engine.update(&name, change).await }).await?;
    ok(&json!({ "Warnings": (!warnings.is_empty()).then_some(warnings) }))
}
