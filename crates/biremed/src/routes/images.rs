//! `/images`, `/auth` and `/distribution`.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bireme_core::ErrorKind;
use bireme_core::clock::now_nanos;
use bireme_core::error::chain;
use bireme_engine::{Preparation, PreparationStep};
use bireme_image::{
    ImageError, ImageId, ImageStore, ImageSummary, Packing, Progress, PushRequest, Pushed, Reference, Removed,
};
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::io::ReaderStream;

use super::image_parts::{emit, platform, reader};
use super::{Answer, bireme, commit, ok};
use crate::app::App;
use crate::convert::{Filters, component, filters, image};
use crate::error::ApiError;
use crate::extract::{Query, registry_auth};
use crate::stream;
use crate::version::ApiVersion;
use crate::work;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/images/json", get(list))
        .route("/images/search", get(search))
        .route("/images/get", get(save_many))
        .route("/images/create", post(create))
        .route("/images/load", post(load))
        .route("/images/prune", post(prune))
        // Names have slashes in them, so what follows a name is found by hand.
        .route("/images/{*rest}", get(of_one).post(change_one).delete(remove))
        .route("/distribution/{*rest}", get(distribution))
        .route("/bireme/v1/manifests/{*name}", get(manifest))
        .route("/bireme/v1/referrers/{*name}", get(referrers))
}

/// A manifest or index as its registry has it.
async fn manifest(State(app): State<App>, Path(name): Path<String>, headers: HeaderMap) -> Answer {
    let reference = Reference::parse(&name).map_err(ImageError::from)?;
    let found = app.images.manifest(&reference, registry_auth(&headers)?).await?;
    let own =
        [(http::header::CONTENT_TYPE.as_str(), found.media_type), ("docker-content-digest", found.digest.to_string())];
    Ok((own, found.bytes).into_response())
}

/// What refers to a manifest.
async fn referrers(State(app): State<App>, Path(name): Path<String>, headers: HeaderMap, query: Query) -> Answer {
    let reference = Reference::parse(&name).map_err(ImageError::from)?;
    let found = app.images.referrers(&reference, query.get("artifactType"), registry_auth(&headers)?).await?;
    ok(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": found,
    }))
}

async fn distribution(State(app): State<App>, Path(rest): Path<String>, headers: HeaderMap) -> Answer {
    let name = rest.strip_suffix("/json").ok_or_else(ApiError::no_such_page)?;
    let reference = Reference::parse(name).map_err(ImageError::from)?;
    let found = app.images.look_up(&reference, registry_auth(&headers)?).await?;
    ok(&json!({
        "Descriptor": { "mediaType": found.media_type, "digest": found.digest.to_string(), "size": found.size },
        "Platforms": found.platforms,
    }))
}

async fn list(State(app): State<App>, version: ApiVersion, query: Query) -> Answer {
    let filters = query.filters(image::FILTERS)?;
    let dangling = filters.flag("dangling")?;
    let until = filters::until(&filters, now_nanos())?;
    let before = bound(&app, &filters, "before").await?;
    let since = bound(&app, &filters, "since").await?;
    let shared = query.flag("shared-size").then(|| app.images.shared_sizes()).transpose()?.map(|(_, shared)| shared);
    let mut shown = Vec::new();
    for summary in app.images.list().await? {
        let created = summary.created.and_then(|created| created.timestamp_nanos_opt()).unwrap_or_default();
        let passes = dangling.is_none_or(|wanted| summary.references.is_empty() == wanted)
            && filters.labels_match(&summary.labels)
            && until.is_none_or(|until| created <= until)
            && before.is_none_or(|before| created < before)
            && since.is_none_or(|since| created > since);
        if !passes {
            continue;
        }
        if let Some(references) = image::references_left(&summary, &filters) {
            let shared = shared.as_ref().map(|shared| shared.get(&summary.id).copied().unwrap_or(0));
            shown.push(image::entry(&summary, &references, None, shared, version));
        }
    }
    ok(&Value::Array(shown))
}

/// When the image that a filter names was made.
async fn bound(app: &App, filters: &Filters, name: &str) -> Result<Option<i64>, ApiError> {
    match filters.get(name) {
        [] => Ok(None),
        [image, ..] => {
            let image = app.images.resolve(image, None).await?;
            Ok(image.created.and_then(|created| created.timestamp_nanos_opt()))
        }
    }
}

/// What an index finds. The index knows nothing of most filters: they narrow what it found.
async fn search(State(app): State<App>, headers: HeaderMap, query: Query) -> Answer {
    let filters = query.filters(&["is-automated", "is-official", "stars"])?;
    let limit: i64 = query.number("limit")?.filter(|limit| *limit != 0).unwrap_or(25);
    let limit = match usize::try_from(limit) {
        Ok(limit @ 1..=100) => limit,
        _ => return Err(ApiError::invalid(format!("limit {limit} is outside the range of [1, 100]"))),
    };
    let official = filters.flag("is-official")?;
    let automated = filters.flag("is-automated")?;
    let mut stars = 0;
    for text in filters.get("stars") {
        stars = stars.max(text.parse().map_err(|_| ApiError::invalid(format!("invalid filter 'stars={text}'")))?);
    }
    let auth = registry_auth(&headers)?;
    let found = app.images.search(query.get("term").unwrap_or_default(), limit, auth).await?;
    let passes = |one: &bireme_image::FoundImage| {
        official.is_none_or(|wanted| one.is_official == wanted)
            && automated.is_none_or(|wanted| one.is_automated == wanted)
            && one.star_count >= stars
    };
    let shown = found.into_iter().filter(passes).map(|one| {
        json!({
            "star_count": one.star_count,
            "is_official": one.is_official,
            "name": one.name,
            "is_automated": one.is_automated,
            "description": one.description,
        })
    });
    ok(&shown.collect())
}

/// Pulls, or imports. Refusals that come before the first layer have a status of their own; later ones stand in the
/// stream.
async fn create(State(app): State<App>, headers: HeaderMap, query: Query, body: Body) -> Answer {
    if let Some(source) = query.get("fromSrc").map(str::to_owned) {
        return commit::import(app, query, source, body).await;
    }
    let Some(name) = query.get("fromImage") else {
        return Err(ApiError::invalid("the parameter fromImage is missing: name the image to pull"));
    };
    if query.all("changes").next().is_some() {
        return Err(ApiError::unsupported("the parameter changes is not offered: build an image from this one"));
    }
    let tag = query.get("tag").unwrap_or_default();
    let reference = image::pull_reference(name, tag)?;
    let platform = platform(&query)?;
    let auth = registry_auth(&headers)?;
    let work = {
        let app = app.clone();
        work::start(async move |report| {
            // What became of the pull is its last word, after that on compiling.
            let result = Mutex::new(Vec::new());
            let progress = |line: Progress| match line.id {
                Some(_) => report.progress(&line),
                None => result.lock().push(line),
            };
            let pulled = app.images.pull(&reference, platform.as_ref(), auth, &progress).await?;
            let familiar = reference.familiar();
            emit(&app, "pull", &familiar, &familiar);
            app.engine.prepare_image(&pulled.id, &|step| report.preparation(&step)).await;
            result.into_inner().iter().for_each(|line| report.progress(line));
            Ok(())
        })
    };
    // The first line only names what is asked for. With the second one the registry has answered.
    Ok(work.answer(2, &app.stop).await?)
}

async fn load(State(app): State<App>, query: Query, body: Body) -> Answer {
    if query.get("platform").is_some() {
        return Err(ApiError::unsupported(
            "loading one platform only is not offered: leave the parameter out to load all",
        ));
    }
    let archive = reader(body);
    let quiet = query.flag("quiet");
    let stop = app.stop.clone();
    let work = work::start(async move |report| {
        let progress = |line: Progress| match &line {
            // What is loaded is told in Docker's words for it, which the CLI prints as they are.
            Progress { id: None, status, .. } => report.line(json!({ "stream": format!("{status}\n") })),
            _ if quiet => {}
            line => report.progress(line),
        };
        let loaded = app.images.load(archive, &progress).await?;
        for image in &loaded {
            let id = image.id.to_string();
            emit(&app, "load", &id, &id);
        }
        let tell = |step: Preparation| {
            if !quiet || matches!(step.step, PreparationStep::Refused(_)) {
                report.preparation(&step);
            }
        };
        let preparing = loaded.iter().map(|image| app.engine.prepare_image(&image.id, &tell));
        futures::future::join_all(preparing).await;
        Ok(())
    });
    Ok(stream::json_lines(work.into_lines(), &stop))
}

async fn save_many(State(app): State<App>, query: Query) -> Answer {
    let names: Vec<String> = query.all("names").map(str::to_owned).collect();
    if names.is_empty() {
        return Err(ApiError::invalid("the parameter names is missing: name the images to save"));
    }
    save(&app, names).await
}

async fn save(app: &App, names: Vec<String>) -> Answer {
    let mut all = Vec::new();
    for name in names {
        all.extend(app.images.to_save(&name)?);
    }
    let names = all;
    // Found first, so that a missing one has its status.
    let mut ids = Vec::new();
    for name in &names {
        ids.push(app.images.resolve(name, None).await?.id.to_string());
    }
    for id in ids {
        emit(app, "save", &id, &id);
    }
    let (reader, writer) = tokio::io::duplex(256 * 1024);
    let images: ImageStore = app.images.clone();
    let place = work::place(work::Way::Out).await;
    let saving = async move {
        let _place = place;
        images.save(&names, writer).await
    };
    let pieces = futures::stream::once(saving).filter_map(async |ended| {
        let error = ended.err()?;
        tracing::warn!(error = %chain(&error), "save failed");
        // Breaks the answer off, so that nobody takes half an archive for a whole one.
        Some(Err(std::io::Error::other(error)))
    });
    let pieces = futures::stream::select(ReaderStream::with_capacity(reader, 64 * 1024), pieces);
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/x-tar"));
    Ok(response)
}

async fn of_one(State(app): State<App>, Path(rest): Path<String>, version: ApiVersion, query: Query) -> Answer {
    if let Some(name) = rest.strip_suffix("/json") {
        let found = app.images.resolve(name, platform(&query)?.as_ref()).await?;
        let mut told = image::inspect(&found, version);
        if let Some(component) = bireme::component_of(&app, &found).await {
            told[component::KEY] = json!(component);
        }
        return ok(&told);
    }
    if let Some(name) = rest.strip_suffix("/history") {
        let found = app.images.resolve(name, platform(&query)?.as_ref()).await?;
        return ok(&image::history(&found));
    }
    if let Some(name) = rest.strip_suffix("/get") {
        return save(&app, vec![name.to_owned()]).await;
    }
    Err(ApiError::no_such_page())
}

/// Pushes. As with Docker, everything but a malformed name is told in the stream.
fn push(app: App, name: &str, headers: &HeaderMap, query: &Query) -> Answer {
    let tag = query.get("tag");
    let reference = image::pull_reference(name, tag.unwrap_or_default())?;
    let level = query.number::<i32>("compression-level")?;
    let packing = match (query.get("compression"), level) {
        (Some(word), level) => Packing::of(word, level).map_err(ApiError::invalid)?,
        (None, None) => Packing::default(),
        (None, Some(_)) => return Err(ApiError::invalid("compression-level without compression: name one")),
    };
    let request = PushRequest {
        all_tags: tag.is_none(),
        platform: platform(query)?,
        packing,
        artifact: query.flag("artifact"),
        auth: registry_auth(headers)?,
        ..PushRequest::new(reference)
    };
    let stop = app.stop.clone();
    let work = work::start(async move |report| {
        let progress = |line: Progress| report.progress(&line);
        let done = |pushed: &Pushed| {
            let (tag, digest, size) = (&pushed.tag, pushed.digest.to_string(), pushed.size);
            report.line(json!({ "status": format!("{tag}: digest: {digest} size: {size}") }));
            report.line(json!({ "progressDetail": {}, "aux": { "Tag": tag, "Digest": digest, "Size": size } }));
            let name = request.name.with_tag(tag).familiar();
            emit(&app, "push", &name, &name);
        };
        app.images.push(&request, &progress, &done).await
    });
    Ok(stream::json_lines(work.into_lines(), &stop))
}

async fn change_one(State(app): State<App>, Path(rest): Path<String>, headers: HeaderMap, query: Query) -> Answer {
    if let Some(name) = rest.strip_suffix("/push") {
        return push(app, name, &headers, &query);
    }
    let Some(name) = rest.strip_suffix("/tag") else { return Err(ApiError::no_such_page()) };
    let Some(repository) = query.get("repo") else {
        return Err(ApiError::invalid("the parameter repo is missing: name the repository"));
    };
    let reference = image::pull_reference(repository, query.get("tag").unwrap_or_default())?;
    app.images.tag(name, &reference).await?;
    let id = app.images.resolve(name, None).await?.id;
    emit(&app, "tag", &id.to_string(), &reference.familiar());
    Ok(StatusCode::CREATED.into_response())
}

async fn remove(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let removed = remove_image(&app, &name, query.flag("force")).await?;
    ok(&tell(&removed))
}

/// Removes and tells everybody.
async fn remove_image(app: &App, name: &str, force: bool) -> Result<Vec<Removed>, ImageError> {
    let engine = app.engine.clone();
    let user = move |id: &ImageId| {
        let users = engine.image_users(&id.to_string());
        users.first().map(|user| format!("container {}", user.get(..12).unwrap_or(user)))
    };
    let id = app.images.resolve(name, None).await?.id;
    let removed = app.images.remove(name, force, &user).await?;
    if removed.iter().any(|one| matches!(one, Removed::Deleted(_))) {
        // The builds that made it keep its layers otherwise.
        app.build_results.forget_ended();
    }
    for one in &removed {
        match one {
            Removed::Untagged(_) => emit(app, "untag", &id.to_string(), &id.to_string()),
            Removed::Deleted(id) => emit(app, "delete", id, id),
        }
    }
    if removed.iter().any(|one| matches!(one, Removed::Deleted(_))) {
        app.collect_soon();
    }
    Ok(removed)
}

fn tell(removed: &[Removed]) -> Value {
    removed
        .iter()
        .map(|one| match one {
            Removed::Untagged(name) => json!({ "Untagged": name }),
            Removed::Deleted(id) => json!({ "Deleted": id }),
        })
        .collect()
}

async fn prune(State(app): State<App>, query: Query) -> Answer {
    let filters = query.filters(&["dangling", "label", "label!", "until"])?;
    let only_dangling = filters.flag("dangling")?.unwrap_or(true);
    let until = filters::until(&filters, now_nanos())?;
    let doomed = |summary: &ImageSummary| {
        let created = summary.created.and_then(|created| created.timestamp_nanos_opt()).unwrap_or_default();
        (!only_dangling || summary.references.is_empty())
            && filters.labels_match(&summary.labels)
            && until.is_none_or(|until| created <= until)
            && app.engine.image_users(&summary.id.to_string()).is_empty()
    };
    let mut removed = Vec::new();
    let mut failed = None;
    let mut freed = 0;
    for summary in app.images.list().await?.into_iter().filter(doomed) {
        let mut names = summary.references.clone();
        if names.is_empty() {
            names.push(summary.id.to_string());
        }
        for name in names {
            match remove_image(&app, &name, false).await {
                Ok(gone) => {
                    if gone.iter().any(|one| matches!(one, Removed::Deleted(_))) {
                        freed += summary.size;
                    }
                    removed.extend(gone);
                }
                // Taken by a workload meanwhile.
                Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {}
                // One that cannot go keeps no other; it is told at the end.
                Err(error) => failed = failed.or(Some(error)),
            }
        }
    }
    super::pruned(&app, "image", freed);
    if let Some(error) = failed {
        return Err(error.into());
    }
    ok(&json!({ "ImagesDeleted": (!removed.is_empty()).then(|| tell(&removed)), "SpaceReclaimed": freed }))
}
