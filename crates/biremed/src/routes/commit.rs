//! `/commit`, and `/images/create` with `fromSrc`: images of what is there already.

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::post;
use bireme_engine::CommitRequest;
use bireme_image::{Commit, ImageConfig, ImageError, Reference};
use http::StatusCode;
use serde_json::{Value, json};

use super::image_parts::{emit, platform, reader};
use super::{Answer, json};
use crate::app::App;
use crate::convert::{image, inspect};
use crate::error::ApiError;
use crate::extract::{OptionalJson, Query};
use crate::work;

pub(super) fn router() -> Router<App> {
    Router::new().route("/commit", post(commit))
}

async fn commit(State(app): State<App>, query: Query, OptionalJson(body): OptionalJson<Value>) -> Answer {
    let Some(container) = query.get("container") else {
        return Err(ApiError::invalid("the parameter container is missing: name the container to commit"));
    };
    let view = app.engine.inspect(container)?;
    let name = name(&query)?;
    let read = |config: Value| -> Result<ImageConfig, ApiError> {
        serde_json::from_value::<Option<ImageConfig>>(config)
            .map(Option::unwrap_or_default)
            .map_err(|error| ApiError::invalid(format!("invalid JSON: {error}")))
    };
    let request = CommitRequest {
        container: view.id().to_owned(),
        pause: query.flag_or("pause", true),
        config: read(body)?,
        defaults: read(inspect::merged_config(&view))?,
        changes: changes(&query),
        author: query.get("author").map(str::to_owned),
        comment: query.get("comment").map(str::to_owned),
        name: name.clone(),
    };
    let id = app.engine.commit(request).await?;
    app.engine.prepare_image_later(&id);
    if let Some(name) = name {
        emit(&app, "tag", &id.to_string(), &name.familiar());
    }
    Ok(json(StatusCode::CREATED, &json!({ "Id": id.to_string() })))
}

/// A file tree, sent along or fetched, as an image.
pub(super) async fn import(app: App, query: Query, source: String, body: Body) -> Answer {
    let name = name(&query)?;
    let platform = platform(&query)?;
    let mut commit = if source == "-" {
        Commit::import(reader(body), changes(&query))
    } else {
        Commit::import(bireme_image::fetch(&source).await?, changes(&query))
    };
    commit.platform = platform;
    commit.name.clone_from(&name);
    commit.comment = Some(query.get("message").map_or_else(|| format!("Imported from {source}"), str::to_owned));
    let stop = app.stop.clone();
    let work = work::start(async move |report| {
        let id = app.images.commit(commit).await?;
        app.engine.prepare_image(&id, &|step| report.preparation(&step)).await;
        report.line(json!({ "status": id.to_string() }));
        emit(&app, "import", &id.to_string(), &name.map(|name| name.familiar()).unwrap_or_default());
        Ok(())
    });
    // There is one line, at the end, and those on a component's compiling before it: until then a refusal has a status of its own.
    Ok(work.answer(1, &stop).await?)
}

/// The name that `repo` and `tag` give.
fn name(query: &Query) -> Result<Option<Reference>, ApiError> {
    let Some(repository) = query.get("repo") else { return Ok(None) };
    let name = image::pull_reference(repository, query.get("tag").unwrap_or_default())?;
    match name.digest() {
        None => Ok(Some(name)),
        Some(_) => {
            Err(ImageError::BuildRequest { reason: "refusing to create a tag with a digest reference".to_owned() }
                .into())
        }
    }
}

/// Each value may be several lines.
fn changes(query: &Query) -> Vec<String> {
    query.all("changes").flat_map(str::lines).filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
}
