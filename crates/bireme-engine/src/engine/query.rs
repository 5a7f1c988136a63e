//! What there is and how it is, for clients that look. No workload is changed here, so any future may be dropped.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bireme_core::spec::Port;
use bireme_core::{CoreDump, InvocationStats, Power, ProcessTable, Profile, Stats, StoreFolder, Workload};
use futures::stream::Stream;

use super::Engine;
use crate::container::Handle;
use crate::event::{Event, EventQuery};
use crate::log::{self, LogStream};
use crate::refusal::{ContainerRefusal, RequestRefusal};
use crate::request::{ContainerFilter, LogQuery};
use crate::view::{Link, Status, WorkloadView};
use crate::{EngineError, log_details, size};

impl Engine {
    /// A workload as it is at this moment, by name, ID, or the beginning of an ID.
    ///
    /// # Errors
    /// `NotFound` in Docker's words; `Invalid` when several match; `Conflict` when its record cannot be read.
    ///
    /// Source: Docker Engine API, `ContainerInspect`.
    pub fn inspect(&self, name: &str) -> Result<WorkloadView, EngineError> {
        self.registry().find(name).map(|handle| WorkloadView::clone(&handle.view()))
    }

    /// Workloads that `filter` lets through, the newest first.
    ///
    /// # Errors
    /// `NotFound` for what `before` and `since` name; `Invalid` for a name that is no regular expression.
    ///
    /// Source: Docker Engine API, `ContainerList`.
    pub fn list(&self, filter: &ContainerFilter) -> Result<Vec<WorkloadView>, EngineError> {
        let created =
            |name: &Option<String>| name.as_ref().map(|name| self.inspect(name).map(|c| c.config.created)).transpose();
        let (before, since) = (created(&filter.before)?, created(&filter.since)?);
        let mut names = Vec::new();
        for text in &filter.names {
            // Docker's names begin with a slash, and its expressions may say so or not.
            let text = text.replacen("^/", "^", 1);
            let text = text.strip_prefix('/').map_or(text.clone(), |rest| format!("^{rest}"));
            names.push(regex::Regex::new(&text).map_err(|source| RequestRefusal::NameFilter { text, source })?);
        }
        let ancestors: HashSet<String> = filter.ancestors.iter().cloned().collect();
        let mut found: Vec<WorkloadView> = self
            .registry()
            .handles()
            .iter()
            .map(|handle| handle.view())
            .filter(|view| {
                before.is_none_or(|at| view.config.created < at) && since.is_none_or(|at| view.config.created > at)
            })
            .filter(|view| names.is_empty() || names.iter().any(|name| name.is_match(&view.name)))
            .filter(|view| matches(filter, &ancestors, view))
            .map(|view| WorkloadView::clone(&view))
            .collect();
        found.sort_by(|a, b| b.config.created.cmp(&a.config.created).then_with(|| a.id().cmp(b.id())));
        if let Some(limit) = filter.limit {
            found.truncate(limit);
        }
        Ok(found)
    }

    /// Records of a workload's log. Reading ends when the stream is dropped.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` when its log driver keeps nothing.
    ///
    /// Source: Docker Engine API, `ContainerLogs`.
    pub async fn logs(&self, name: &str, query: LogQuery) -> Result<LogStream, EngineError> {
        let handle = self.registry().find(name)?;
        let Some(path) = handle.config.log_path.clone() else {
            return Err(ContainerRefusal::NoLog { name: name.to_owned() }.into());
        };
        Ok(log::read(path, query, handle.watch()))
    }

    /// What stands before each line of its log where details are wanted: empty, or `key=value,key=value`.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for options that cannot be read.
    pub fn log_details(&self, name: &str) -> Result<String, EngineError> {
        log_details::of(&self.registry().find(name)?.view())
    }

    /// What a workload that runs uses now.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run; what its executor answers.
    ///
    /// Source: Docker Engine API, `ContainerStats`.
    pub async fn stats(&self, name: &str) -> Result<Stats, EngineError> {
        let handle = self.registry().find(name)?;
        Ok(self.running(&handle)?.stats().await?)
    }

    /// The processes of a workload that runs, as `ps` shows them with the options `ps_args`.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run; what its executor answers.
    ///
    /// Source: Docker Engine API, `ContainerTop`.
    pub async fn processes(&self, name: &str, ps_args: &str) -> Result<ProcessTable, EngineError> {
        let handle = self.registry().find(name)?;
        let table = self.running(&handle)?.processes(ps_args).await?;
        handle.emit(&self.services().events, "top", []);
        Ok(table)
    }

    /// What the instances of a component that runs have done; `None` for kinds that start no instances.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run; what its executor answers.
    pub async fn invocations(&self, name: &str) -> Result<Option<InvocationStats>, EngineError> {
        let handle = self.registry().find(name)?;
        let workload = self.running(&handle)?;
        match workload.as_invocations() {
            Some(invocations) => Ok(Some(invocations.invocations().await?)),
            None => Ok(None),
        }
    }

    /// What the instances of a component spend processor time in during `time`.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it does not run, or another does the same; `Unsupported` for kinds that cannot be looked
    /// into.
    /// # Cancel safety
    /// As [`Diagnose::profile`](bireme_core::Diagnose::profile).
    pub async fn profile(&self, name: &str, time: Duration) -> Result<Profile, EngineError> {
        let handle = self.registry().find(name)?;
        let workload = self.running(&handle)?;
        let diagnose = workload.as_diagnose().ok_or_else(|| handle.lacks(Power::Diagnose))?;
        Ok(diagnose.profile(time).await?)
    }

    /// The state of the next instance of a component that traps within `time`; `None` where none does.
    ///
    /// # Errors
    /// As [`Self::profile`].
    /// # Cancel safety
    /// As [`Diagnose::core_dump`](bireme_core::Diagnose::core_dump).
    pub async fn core_dump(&self, name: &str, time: Duration) -> Result<Option<(CoreDump, File)>, EngineError> {
        let handle = self.registry().find(name)?;
        let workload = self.running(&handle)?;
        let diagnose = workload.as_diagnose().ok_or_else(|| handle.lacks(Power::Diagnose))?;
        Ok(diagnose.core_dump(time).await?)
    }

    pub(super) fn running(&self, handle: &Arc<Handle>) -> Result<Arc<dyn Workload>, EngineError> {
        let alive = handle.view().state.status.is_alive();
        let running = handle.workload().filter(|_| alive);
        running.ok_or_else(|| ContainerRefusal::not_running(&handle.config.spec.id).into())
    }

    /// Where `/etc/hosts`, `/etc/resolv.conf` and `/etc/hostname` of a container lie on the host; `None` before its first
    /// start, and for components. The runner puts them there in the order in which it is handed them.
    pub fn etc_files(&self, container: &WorkloadView) -> Option<[PathBuf; 3]> {
        container.state.started_at?;
        let folder = self.services().etc_folder(&container.config.spec.id);
        container.config.program.layers().map(|_| ["0", "1", "2"].map(|name| folder.join(name)))
    }

    /// IDs of the workloads made from an image, or being made.
    pub fn image_users(&self, image_id: &str) -> Vec<String> {
        let mut users = self.services().claims.of_image(image_id);
        let handles = self.registry().handles();
        users.extend(handles.iter().filter(|one| one.config.image_id == image_id).map(|one| one.id().to_owned()));
        users.extend(self.registry().unreadable().mentioning(image_id));
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Key-value stores that components wrote beside their volumes, and that outlive them.
    pub async fn stores(&self) -> Vec<StoreFolder> {
        let mut found = Vec::new();
        for executor in &self.services().options.executors {
            found.extend(executor.stores(&self.services().sandboxes_of(executor)).await);
        }
        found
    }

    /// Tells whoever listens of something that happened outside the engine, such as a pull.
    pub fn emit(&self, event: Event) {
        self.services().events.emit(event);
    }

    /// Events kept since `since`, then live ones until `until`. A listener that is too slow misses some.
    ///
    /// Source: Docker Engine API, `SystemEvents`.
    pub fn events(&self, query: EventQuery) -> impl Stream<Item = Event> + Send + Unpin + 'static {
        self.services().events.listen(query)
    }

    /// What `container` is linked to: the other's name as it is now, and the alias. A link to what is gone is left out.
    pub fn link_names(&self, container: &WorkloadView) -> Vec<(String, String)> {
        let name =
            |link: &Link| Some((self.registry().with_id(&link.to).ok()?.view().name.clone(), link.alias.clone()));
        container.links.iter().filter_map(name).collect()
    }

    /// The names `PARENT/ALIAS` that links give, by the ID of the workload they stand for.
    pub fn names_by_link(&self) -> HashMap<String, Vec<String>> {
        let mut names: HashMap<String, Vec<String>> = HashMap::new();
        for view in self.registry().handles().iter().map(|handle| handle.view()) {
            for link in &view.links {
                names.entry(link.to.as_str().to_owned()).or_default().push(format!("{}/{}", view.name, link.alias));
            }
        }
        names
    }

    /// Bytes that a workload has written over its image; of a component, none.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn written(&self, name: &str) -> Result<u64, EngineError> {
        let handle = self.registry().find(name)?;
        let Some(layers) = handle.config.program.layers() else { return Ok(0) };
        let etc = self.services().etc_folder(&handle.config.spec.id);
        Ok(size::of(layers.upper).await + size::beside(&etc).await)
    }
}

fn matches(filter: &ContainerFilter, ancestors: &HashSet<String>, view: &WorkloadView) -> bool {
    let any =
        |values: &[String], holds: &dyn Fn(&str) -> bool| values.is_empty() || values.iter().any(|value| holds(value));
    let spec = &view.config.spec;
    let status = view.state.status;
    // A filter that speaks of states looks at all of them.
    let shown = filter.all
        || filter.limit.is_some()
        || !filter.status.is_empty()
        || !filter.exited.is_empty()
        || status.is_alive()
        || status == Status::Restarting;
    shown
        && any(&filter.ids, &|id| view.id().starts_with(id))
        && filter.labels.iter().all(|label| has_label(&spec.labels, label))
        && any(&filter.status, &|wanted| wanted == status.as_str())
        && (filter.exited.is_empty()
            || (matches!(status, Status::Exited | Status::Dead) && filter.exited.contains(&view.state.exit_code)))
        && (ancestors.is_empty() || is_ancestor(ancestors, view))
        && any(&filter.networks, &|wanted| {
            view.endpoints.iter().any(|e| e.network_name == wanted || e.network.starts_with(wanted))
        })
        && any(&filter.volumes, &|wanted| view.config.mounts.iter().any(|m| m.name == wanted || m.target == wanted))
        && !filter.tasks
        && any(&filter.health, &|wanted| view.health.as_ref().map_or("none", |health| &health.status) == wanted)
        && (filter.publish.is_empty()
            || view.ports.iter().any(|port| {
                filter.publish.contains(&Port { number: port.host.port(), protocol: port.container.protocol })
            }))
        && (filter.expose.is_empty() || spec.ports.iter().any(|port| filter.expose.contains(port)))
}

fn is_ancestor(ancestors: &HashSet<String>, view: &WorkloadView) -> bool {
    let id = &view.config.image_id;
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    let image = &view.config.spec.image;
    let tagged = if image.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        image.clone()
    } else {
        format!("{image}:latest")
    };
    ancestors.iter().any(|wanted| {
        wanted == id || wanted == image || *wanted == tagged || (wanted.len() >= 4 && hex.starts_with(wanted.as_str()))
    })
}

/// Whether `labels` fulfil one value of a label filter: `key` or `key=value`.
fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    }
}
