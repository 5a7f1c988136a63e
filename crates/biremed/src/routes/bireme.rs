//! `/bireme/v1`: what Docker has no word for.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use bireme_api::v1;
use bireme_core::error::chain;
use bireme_core::{ErrorKind, InvocationStats, StoreFolder, WorkloadKind, labels};
use bireme_engine::EngineError;
use bireme_engine::request::ContainerFilter;
use bireme_engine::view::WorkloadView;
use bireme_image::{Damaged, Image};
use serde_json::json;

use super::image_parts::platform;
use super::{Answer, ok};
use crate::app::App;
use crate::convert::{component, filters, time};
use crate::error::ApiError;
use crate::extract::Query;
use crate::{stream, work};

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/bireme/v1/workloads", get(workloads))
        .route("/bireme/v1/capabilities", get(capabilities))
        .route("/bireme/v1/images/prepare", post(prepare))
        .route("/bireme/v1/images/verify", post(verify))
        .route("/bireme/v1/stores", get(stores))
        .route("/bireme/v1/stores/prune", post(prune_stores))
        .route("/bireme/v1/stores/{name}", delete(remove_store))
}

/// The shortest time between two lines of a stream.
const SHORTEST: u64 = 100;

async fn workloads(State(app): State<App>, query: Query) -> Answer {
    let filters = query.filters(filters::CONTAINERS)?;
    let filter = filters::containers(&filters, query.flag_or("all", true), None)?;
    let interval = query.number::<u64>("interval")?.unwrap_or(1000);
    if !query.flag("stream") {
        let list = read(&app, &filter).await?;
        return ok(&json!(list));
    }
    if interval < SHORTEST {
        return Err(ApiError::invalid(format!("interval is {interval}: at least {SHORTEST} milliseconds")));
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(interval));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let stop = app.stop.clone();
    let lines = futures::stream::unfold((app, filter, ticks), |(app, filter, mut ticks)| async move {
        ticks.tick().await;
        match read(&app, &filter).await {
            Ok(list) => Some((json!(list), (app, filter, ticks))),
            Err(error) => {
                tracing::debug!(error = error.message(), "the list of workloads ended");
                None
            }
        }
    });
    Ok(stream::json_lines(lines, &stop))
}

/// How long is waited for the counters of one workload: its runner or host may be stopped, or lie.
const PATIENCE: Duration = Duration::from_secs(2);

/// All workloads with their counters, read side by side: each costs a round trip to its runner or host. One that does not
/// answer is in the list without them.
async fn read(app: &App, filter: &ContainerFilter) -> Result<Vec<v1::Workload>, ApiError> {
    let containers = app.engine.list(filter)?;
    Ok(futures::future::join_all(containers.into_iter().map(|container| workload(app, container))).await)
}

async fn workload(app: &App, container: WorkloadView) -> v1::Workload {
    let spec = &container.config.spec;
    let (mut stats, mut invocations) = (None, None);
    if container.state.status.is_alive() {
        // One that ends meanwhile has no counters any more.
        let (read, counted) = futures::join!(
            in_time(&container, app.engine.stats(container.id())),
            in_time(&container, app.engine.invocations(container.id()))
        );
        stats = read;
        invocations = counted.flatten();
    }
    let stats = stats.unwrap_or_default();
    v1::Workload {
        id: container.id().to_owned(),
        name: container.name.clone(),
        kind: kind(spec.kind).to_owned(),
        app: spec.app.clone(),
        service: spec.service.clone(),
        image: spec.image.clone(),
        state: container.state.status.as_str().to_owned(),
        cpu_total: stats.cpu_total,
        memory_usage: stats.memory_usage.saturating_sub(stats.memory_inactive_file),
        memory_limit: stats.memory_limit,
        restarts: container.restart_count,
        invocations: invocations.map(counters),
    }
}

/// What is read of a workload, unless that fails or takes too long.
async fn in_time<T>(container: &WorkloadView, read: impl Future<Output = Result<T, EngineError>>) -> Option<T> {
    match tokio::time::timeout(PATIENCE, read).await {
        Ok(Ok(counters)) => Some(counters),
        Ok(Err(error)) if error.kind() == ErrorKind::Internal => {
            tracing::warn!(workload.id = container.id(), error = %chain(&error), "cannot read the counters of a workload");
            None
        }
        Ok(Err(_)) => None,
        Err(_) => {
            tracing::debug!(workload.id = container.id(), "the counters of a workload do not come");
            None
        }
    }
}

fn kind(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Container => "container",
        WorkloadKind::Component => "component",
    }
}

fn counters(stats: InvocationStats) -> v1::Invocations {
    let InvocationStats {
        trigger,
        started,
        alive,
        queued,
        succeeded,
        failed,
        timed_out,
        rejected,
        latency,
        memory_peak,
    } = stats;
    v1::Invocations { trigger, started, alive, queued, succeeded, failed, timed_out, rejected, latency, memory_peak }
}

/// What the component in an image offers and asks for; `None` for an image of a container. One that cannot be read is told
/// as such: the rest of the image can be inspected all the same.
pub(super) async fn component_of(app: &App, image: &Image) -> Option<v1::Component> {
    match app.engine.interface(image).await {
        Ok(interface) => interface.map(|interface| component::component(interface, &image.config.labels)),
        Err(error) => Some(v1::Component { refused: Some(chain(&error)), ..v1::Component::default() }),
    }
}

/// Compiles the component of an image, where that was not done when the image came in: another version of the engine may
/// have been there then.
async fn prepare(State(app): State<App>, query: Query) -> Answer {
    let Some(name) = query.get("image") else {
        return Err(ApiError::invalid("the parameter image is missing: name the image to prepare"));
    };
    let image = app.images.resolve(name, platform(&query)?.as_ref()).await?.id;
    let stop = app.stop.clone();
    let work = work::start(async move |report| {
        app.engine.prepare_image(&image, &|step| report.preparation(&step)).await;
        Ok(())
    });
    Ok(stream::json_lines(work.into_lines(), &stop))
}

/// Looks through the image store, which changes nothing; with `refetch`, what is damaged is fetched anew.
async fn verify(State(app): State<App>, query: Query) -> Answer {
    let stop = app.stop.clone();
    let refetch = query.flag("refetch");
    let work = work::start(async move |report| {
        let line = |damaged: &Damaged, message: String| {
            report.line(json!(v1::Damaged {
                message,
                kind: damaged.kind.to_owned(),
                digest: damaged.digest.to_string(),
                images: damaged.images.clone(),
            }));
        };
        let found = parking_lot::Mutex::new(Vec::new());
        let tell = |damaged: Damaged| {
            tracing::warn!(digest = %damaged.digest, kind = damaged.kind, problem = damaged.problem, "damaged image store");
            if refetch {
                found.lock().push(damaged);
            } else {
                line(&damaged, damaged.to_string());
            }
        };
        let verified = app.images.verify(&tell).await?;
        let (checked, size, mut damaged_count) = (verified.checked, verified.size, verified.damaged);
        for damaged in found.into_inner() {
            let Damaged { kind, digest, problem, .. } = &damaged;
            let message = match app.images.refetch(&damaged).await {
                Ok(()) => {
                    damaged_count = damaged_count.saturating_sub(1);
                    format!("{kind} {digest} {problem}: it was fetched again")
                }
                Err(error) => format!("{damaged}. It could not be fetched again: {}", chain(&error)),
            };
            line(&damaged, message);
        }
        report.line(json!(v1::Verified { checked, size, damaged_count }));
        Ok(())
    });
    Ok(stream::json_lines(work.into_lines(), &stop))
}

async fn stores(State(app): State<App>) -> Answer {
    let list: Vec<v1::Store> = app.engine.stores().await.into_iter().map(store).collect();
    ok(&json!(list))
}

async fn prune_stores(State(app): State<App>) -> Answer {
    ok(&json!(pruned(app.engine.prune_stores(None).await?)))
}

async fn remove_store(State(app): State<App>, Path(name): Path<String>) -> Answer {
    ok(&json!(pruned(app.engine.prune_stores(Some(&name)).await?)))
}

fn pruned(removed: Vec<StoreFolder>) -> v1::PrunedStores {
    let space_reclaimed = removed.iter().map(|store| store.size).sum();
    v1::PrunedStores { stores_deleted: removed.into_iter().map(|store| store.name).collect(), space_reclaimed }
}

fn store(folder: StoreFolder) -> v1::Store {
    let StoreFolder { name, size, changed, in_use } = folder;
    v1::Store { name, size, changed: time::rfc3339(changed), in_use }
}

async fn capabilities(State(app): State<App>) -> Answer {
    ok(&json!(v1::Capabilities {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: app.engine.instance().to_owned(),
        kinds: [WorkloadKind::Container, WorkloadKind::Component].map(kind).map(str::to_owned).to_vec(),
        labels: labels::KEYS.iter().map(|(key, ..)| (*key).to_owned()).collect(),
    }))
}
