//! `/build`: the classic builder.

use std::collections::{BTreeMap, VecDeque};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse as _;
use axum::routing::post;
use bireme_api::models::AuthConfig;
use bireme_core::clock::now_nanos;
use bireme_engine::Preparation;
use bireme_engine::request::CreateRequest;
use bireme_image::pull::RegistryAuth;
use bireme_image::{BuildContext, BuildEvent, BuildRequest, CacheRecord, KeepContainers};
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Answer, image_parts, ok};
use crate::app::App;
use crate::convert::{self, filters, image};
use crate::error::ApiError;
use crate::extract::{Query, header_json};
use crate::work;

pub(super) fn router() -> Router<App> {
    Router::new().route("/build", post(build)).route("/build/prune", post(prune)).route("/build/cancel", post(cancel))
}

async fn build(State(app): State<App>, headers: HeaderMap, query: Query, body: Body) -> Answer {
    let request = request(&headers, &query, body)?;
    let steps = steps(&query)?;
    let quiet = query.flag("q");
    let buildkit = query.get("version") == Some("2");
    let stop = app.stop.clone();
    let (names, platforms) = (request.tags.clone(), request.platforms.clone());
    let work = work::start_build(async move |report| {
        let unsaid = Mutex::new(Unsaid::default());
        let log = |event: BuildEvent| {
            let Some(mut line) = image::build_event(&event) else { return };
            if let (BuildEvent::Built(_), true) = (&event, buildkit) {
                // Where BuildKit's clients look for it; what else it would say is only for people.
                line["id"] = json!("moby.image.id");
            }
            match event {
                // Of a base image that is pulled, which others may wait for.
                BuildEvent::Progress(_) if quiet => {}
                BuildEvent::Progress(_) => report.passing(line),
                _ if quiet => unsaid.lock().add(line),
                _ => report.line(line),
            }
        };
        let built = bireme_engine::build(&app.engine, request, steps, &log).await;
        if built.is_err() {
            let unsaid = unsaid.into_inner();
            unsaid.lines.into_iter().for_each(|line| report.line(line));
        }
        let id = built?;
        app.collect_soon();
        let mut images = vec![id.clone()];
        for platform in platforms.iter().skip(1) {
            // Its name may be another image's by now, which is no matter of this build.
            let Some(name) = names.first() else { break };
            images.extend(app.images.resolve(&name.to_string(), Some(platform)).await.ok().map(|image| image.id));
        }
        // Of a quiet build the client takes all there is to read for the image's ID.
        let tell = |step: Preparation| {
            if !quiet {
                report.preparation(&step);
            }
        };
        for image in &images {
            app.engine.prepare_image(image, &tell).await;
        }
        if quiet {
            // What `docker build -q` prints.
            report.line(json!({ "stream": format!("{id}\n") }));
        }
        Ok(())
    });
    // What is wrong with the Dockerfile is found before the first step, and has a status of its own.
    Ok(work.answer(1, &stop).await?)
}

/// What a quiet build would have said: as in Docker, it is told when the build fails. The last of it, where it is much.
#[derive(Default)]
struct Unsaid {
    lines: VecDeque<Value>,
    bytes: usize,
}

impl Unsaid {
    const MOST_BYTES: usize = 1 << 20;

    fn add(&mut self, line: Value) {
        self.bytes += Self::cost(&line);
        self.lines.push_back(line);
        while self.bytes > Self::MOST_BYTES && self.lines.len() > 1 {
            let first = self.lines.pop_front().expect("more than one");
            self.bytes -= Self::cost(&first);
        }
    }

    fn cost(line: &Value) -> usize {
        let text = line.as_object().into_iter().flat_map(Map::values).filter_map(Value::as_str).map(str::len);
        128 + text.sum::<usize>()
    }
}

fn request(headers: &HeaderMap, query: &Query, body: Body) -> Result<BuildRequest, ApiError> {
    let refuse = |what: &str, instead: &str| Err(ApiError::unsupported(format!("{what} is not offered: {instead}")));
    // A session is a server at the client's end, which BuildKit asks for files; a context in the body needs none.
    if query.get("remote") == Some("client-session") {
        return refuse("a build whose context BuildKit asks for", "set DOCKER_BUILDKIT=0 for the classic builder");
    }
    for (name, instead) in
        [("squash", "leave it out"), ("outputs", "save the image after the build"), ("isolation", "leave it out")]
    {
        let set = query.get(name).is_some_and(|value| !matches!(value, "default" | "null" | "[]"));
        if set && (name != "squash" || query.flag(name)) {
            return refuse(&format!("the build option {name}"), instead);
        }
    }
    let context = match query.get("remote") {
        Some(address) => BuildContext::Address(address.to_owned()),
        None => BuildContext::Archive(Box::new(image_parts::reader(body))),
    };
    let mut request = BuildRequest::new(context);
    // As in Docker, that of a command that failed stays unless it is forced.
    request.keep_containers = match (query.flag("forcerm"), query.flag_or("rm", true)) {
        (true, _) => KeepContainers::None,
        (false, true) => KeepContainers::Failed,
        (false, false) => KeepContainers::All,
    };
    if let Some(path) = query.get("dockerfile") {
        request.dockerfile = path.to_owned();
    }
    request.tags = image_parts::tags(query.all("t"))?;
    request.args = json_parameter(query, "buildargs")?;
    request.labels = json_parameter(query, "labels")?;
    request.platforms = image_parts::platforms(query)?;
    request.target = query.get("target").map(str::to_owned);
    request.pull = query.flag("pull");
    request.no_cache = query.flag("nocache");
    request.cache_from = json_parameter(query, "cachefrom")?;
    request.auth = registry_config(headers)?;
    Ok(request)
}

/// How the commands of the build are run: what the query says of it, read as the host configuration of a container.
fn steps(query: &Query) -> Result<CreateRequest, ApiError> {
    let mut host = Map::new();
    for (parameter, field) in
        [("networkmode", "NetworkMode"), ("cpusetcpus", "CpusetCpus"), ("cgroupparent", "CgroupParent")]
    {
        if let Some(text) = query.get(parameter) {
            host.insert(field.to_owned(), json!(text));
        }
    }
    for (parameter, field) in [
        ("memory", "Memory"),
        ("memswap", "MemorySwap"),
        ("cpushares", "CpuShares"),
        ("cpuperiod", "CpuPeriod"),
        ("cpuquota", "CpuQuota"),
        ("shmsize", "ShmSize"),
    ] {
        if let Some(number) = query.number::<i64>(parameter)?.filter(|number| *number != 0) {
            host.insert(field.to_owned(), json!(number));
        }
    }
    let hosts: Vec<&str> = query.all("extrahosts").flat_map(|hosts| hosts.split(',')).collect();
    host.insert("ExtraHosts".to_owned(), json!(hosts));
    host.insert("Ulimits".to_owned(), json_parameter::<Value>(query, "ulimits")?);
    // The image and the command are each step's own.
    Ok(convert::create::create(json!({ "Image": "", "HostConfig": host }), None, None)?)
}

fn json_parameter<T: DeserializeOwned + Default>(query: &Query, name: &str) -> Result<T, ApiError> {
    match query.get(name) {
        None => Ok(T::default()),
        Some(text) => serde_json::from_str::<Option<T>>(text)
            .map(Option::unwrap_or_default)
            .map_err(|error| ApiError::invalid(format!("invalid {name}: expected a JSON object of strings: {error}"))),
    }
}

/// `X-Registry-Config`: credentials by registry.
fn registry_config(headers: &HeaderMap) -> Result<BTreeMap<String, RegistryAuth>, ApiError> {
    let Some(value) = headers.get("x-registry-config") else { return Ok(BTreeMap::new()) };
    let wire = header_json::<Option<BTreeMap<String, AuthConfig>>>(value, "X-Registry-Config")?;
    let known = wire.flatten().unwrap_or_default().into_iter().filter_map(|(server, auth)| {
        let (name, password) = (auth.username.unwrap_or_default(), auth.password.unwrap_or_default());
        let host = server.trim_start_matches("https://").trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        let host = if host == "index.docker.io" { "docker.io" } else { host };
        (!name.is_empty()).then(|| (host.to_owned(), RegistryAuth::Basic(name, password)))
    });
    Ok(known.collect())
}

/// Layers that earlier builds made.
async fn prune(State(app): State<App>, query: Query) -> Answer {
    let filters = query.filters(PRUNED_BY)?;
    let until = filters::until(&filters.or("until", "unused-for")?, now_nanos())?.map(|nanos| nanos / 1_000_000);
    let any = |name: &str, holds: &dyn Fn(&str) -> bool| {
        let wanted = filters.get(name);
        wanted.is_empty() || wanted.iter().any(|value| holds(value))
    };
    let chosen = |layer: &CacheRecord| {
        let flag = |value: &str, is: bool| matches!(value, "1" | "true") == is;
        any("id", &|id| layer.id.starts_with(id))
            && any("type", &|kind| kind == layer.kind.word())
            && any("shared", &|value| flag(value, layer.shared))
            && any("private", &|value| flag(value, !layer.shared))
            // Nothing here has a parent.
            && any("inuse", &|value| flag(value, layer.in_use))
            && any("parent", &|_| false)
            && any("description", &|value| layer.description == value)
            // No layer has a label.
            && filters.labels_match(&BTreeMap::new())
    };
    let by_time = ["until", "unused-for"];
    let narrowed = PRUNED_BY.iter().any(|name| !by_time.contains(name) && !filters.get(name).is_empty());
    let chosen: Option<&(dyn Fn(&CacheRecord) -> bool + Sync)> = if narrowed { Some(&chosen) } else { None };
    app.build_results.forget_ended();
    let cleared = app.images.clear_build_cache(until, chosen).await?;
    let ids: Vec<String> = cleared.iter().map(|layer| layer.id.clone()).collect();
    let freed: u64 = cleared.iter().filter(|layer| !layer.shared).map(|layer| layer.size).sum();
    ok(&json!({ "CachesDeleted": (!ids.is_empty()).then_some(ids), "SpaceReclaimed": freed }))
}

/// Source: Docker Engine API, `BuildPrune`; labels come from `docker system prune --filter`, which asks everything alike.
const PRUNED_BY: &[&str] =
    &["description", "id", "inuse", "label", "label!", "parent", "private", "shared", "type", "until", "unused-for"];

/// As in Docker, where it is BuildKit's: a classic build ends with its connection.
async fn cancel(query: Query) -> Answer {
    match query.get("id") {
        Some(_) => Ok(StatusCode::OK.into_response()),
        None => Err(ApiError::invalid("build ID not provided")),
    }
}
