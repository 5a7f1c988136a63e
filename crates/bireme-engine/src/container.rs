//! What the engine holds of one workload, shared between its actor and whoever looks at it.
//!
//! Only the actor (`actor/`) changes anything of consequence; everyone else reads snapshots and sends commands.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::spec::Resources;
use bireme_core::{BoxFuture, Executor, Power, Workload};
use bireme_image::Hidden;
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedMutexGuard, Semaphore, mpsc, oneshot, watch};

use crate::attach::Pending;
use crate::command::Command;
use crate::event::{Event, Events};
use crate::lifecycle::{self, Operation, Verdict};
use crate::refusal::ContainerRefusal;
use crate::request::RestartPolicy;
use crate::view::{Config, Ended, Endpoint, Health, PublishedPort, State, Status, WorkloadView};
use crate::{EngineError, unreadable};

/// How long a start, or another copy, waits for a copy into a workload that rests.
const COPYING: Duration = Duration::from_secs(30);

/// The part of a workload that changes and is remembered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MutableState {
    pub(crate) state: State,
    pub(crate) restart: RestartPolicy,
    pub(crate) restart_count: u64,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) ports: Vec<PublishedPort>,
    /// Somebody asked for its end; `unless-stopped` leaves it alone then.
    pub(crate) stopped: bool,
    /// The limits, where they were changed since create.
    #[serde(default)]
    pub(crate) resources: Option<Resources>,
    /// Of what runs; the next engine goes on from here.
    #[serde(default)]
    pub(crate) health: Option<Health>,
    /// Aliases of links of `Config::links` that were removed since create.
    #[serde(default)]
    pub(crate) unlinked: std::collections::BTreeSet<String>,
    /// The engine paused it for a moment, as for a commit: it goes on when that is over, or when the engine is there again.
    #[serde(default)]
    pub(crate) held: bool,
    /// When this was remembered; of two records the newer one holds.
    #[serde(default)]
    pub(crate) written: i64,
}

impl MutableState {
    /// What can be read of a record that cannot be read as a whole. What cannot is taken for what has the least done to it.
    pub(crate) fn as_far_as_it_goes(text: &str) -> Self {
        let value = unreadable::parse(text);
        fn field<T: serde::de::DeserializeOwned>(value: &serde_json::Value, name: &str) -> Option<T> {
            serde_json::from_value(value.get(name)?.clone()).ok()
        }
        Self {
            // It may run; where it does not, that is found out.
            state: field(&value, "state").unwrap_or_else(|| State::new(Status::Running)),
            // Nothing is begun of it.
            restart: RestartPolicy::No,
            restart_count: field(&value, "restart_count").unwrap_or_default(),
            endpoints: unreadable::list(&value, "endpoints"),
            ports: unreadable::list(&value, "ports"),
            stopped: true,
            resources: field(&value, "resources").flatten(),
            health: None,
            unlinked: field(&value, "unlinked").unwrap_or_default(),
            held: false,
            written: 0,
        }
    }
}

/// How often it ended, how the last time, and whether it is gone for good.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) count: u64,
    pub(crate) last: Option<Ended>,
    pub(crate) gone: bool,
    /// Why its last removal failed.
    pub(crate) stays: Option<String>,
}

/// One workload, from create to removal.
pub(crate) struct Handle {
    pub(crate) config: Arc<Config>,
    pub(crate) executor: Arc<dyn Executor>,
    /// What cannot be read in its record: it is only looked at, and removed by force.
    pub(crate) unreadable: Option<String>,
    view: watch::Sender<Arc<WorkloadView>>,
    ends: watch::Sender<Ends>,
    streams: Mutex<Streams>,
    commands: mpsc::Sender<Command>,
    /// How many wait for its owner to give up what it is busy with.
    hurried: watch::Sender<usize>,
    /// Held by whoever mounts its file tree to write to it: the owner as it starts, and a copy into it while it rests. A
    /// second mount takes the working folder away from the first.
    tree: Arc<tokio::sync::Mutex<()>>,
    /// For copies from and to it.
    copies: Arc<Semaphore>,
    /// See [`crate::request::CreateRequest::secret_env`].
    secret_env: OnceLock<Hidden<Vec<String>>>,
}

/// Copies from and to one workload at once, those that hang among them.
const COPIES: usize = 8;

/// As long as this is there, the owner of a workload starts and pauses nothing, and gives up what it began of that.
pub(crate) struct Hurry(Arc<Handle>);

impl Drop for Hurry {
    fn drop(&mut self) {
        self.0.hurried.send_modify(|count| *count -= 1);
    }
}

/// The running workload and the clients that wait for one, under one lock so that no client falls between.
#[derive(Default)]
struct Streams {
    workload: Option<Arc<dyn Workload>>,
    pending: Vec<Pending>,
}

impl Handle {
    pub(crate) fn new(
        config: Arc<Config>,
        name: &str,
        mutable: &MutableState,
        executor: Arc<dyn Executor>,
        unreadable: Option<String>,
    ) -> (Arc<Self>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(64);
        let view = snapshot(&config, name, mutable, Vec::new());
        let handle = Self {
            config,
            executor,
            unreadable,
            view: watch::Sender::new(Arc::new(view)),
            ends: watch::Sender::new(Ends::default()),
            streams: Mutex::default(),
            commands,
            hurried: watch::Sender::new(0),
            tree: Arc::default(),
            copies: Arc::new(Semaphore::new(COPIES)),
            secret_env: OnceLock::new(),
        };
        (Arc::new(handle), receiver)
    }

    /// Gives it variables that are remembered nowhere. Once, before it is started.
    pub(crate) fn set_secret_env(&self, env: Hidden<Vec<String>>) {
        let _ = self.secret_env.set(env);
    }

    /// Variables that are remembered nowhere.
    pub(crate) fn secret_env(&self) -> Vec<String> {
        self.secret_env.get().map(|env| env.0.clone()).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> &str {
        self.config.spec.id.as_str()
    }

    /// Why it lacks a power, and what to do instead.
    pub(crate) fn lacks(&self, power: Power) -> EngineError {
        self.executor.lacks(&self.view().name, power).into()
    }

    /// Whether it is removed when it ends.
    pub(crate) fn removes_itself(&self) -> bool {
        self.config.auto_remove && self.unreadable.is_none()
    }

    pub(crate) fn view(&self) -> Arc<WorkloadView> {
        self.view.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Arc<WorkloadView>> {
        self.view.subscribe()
    }

    pub(crate) fn ends(&self) -> watch::Receiver<Ends> {
        self.ends.subscribe()
    }

    /// # Errors
    /// `Conflict` in Docker's words when `ask` may not be done now.
    pub(crate) fn require(&self, ask: Operation) -> Result<(), EngineError> {
        match lifecycle::may(self.view().state.status, ask) {
            Verdict::Go | Verdict::Already => Ok(()),
            Verdict::Refused(because) => Err(ContainerRefusal::State { id: self.id().to_owned(), because }.into()),
        }
    }

    pub(crate) fn workload(&self) -> Option<Arc<dyn Workload>> {
        self.streams().workload.clone()
    }

    fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock()
    }

    /// Sets or clears what runs.
    pub(crate) fn set_workload(&self, workload: Option<Arc<dyn Workload>>) {
        self.streams().workload = workload;
    }

    /// Puts `workload` in place and connects every client that waited for it. Called between create and start, so that
    /// they miss nothing.
    pub(crate) async fn connect_pending(&self, workload: Arc<dyn Workload>) {
        let pending = {
            let mut streams = self.streams();
            streams.workload = Some(workload.clone());
            std::mem::take(&mut streams.pending)
        };
        for client in pending {
            let answer = open_streams(&*workload, client.stdin, || self.lacks(Power::Attach)).await;
            // A client that left in the meantime is no error.
            let _ = client.answer.send(answer);
        }
    }

    /// The streams of what runs, or of what will run next.
    pub(crate) fn streams_when_running(
        self: &Arc<Self>,
        stdin: bool,
    ) -> BoxFuture<'static, Result<Option<UnixStream>, EngineError>> {
        let mut streams = self.streams();
        if let Some(workload) = streams.workload.clone() {
            drop(streams);
            let handle = Arc::clone(self);
            return Box::pin(
                async move { open_streams(&*workload, stdin, || handle.lacks(Power::Attach)).await.map(Some) },
            );
        }
        let (answer, streams_come) = oneshot::channel();
        streams.pending.retain(|client| !client.answer.is_closed());
        streams.pending.push(Pending { stdin, answer });
        Box::pin(async move {
            match streams_come.await {
                Ok(answer) => answer.map(Some),
                Err(_) => Ok(None),
            }
        })
    }

    /// Whoever is about to end it by force does not wait behind a start or a pause that may never come to an end.
    pub(crate) fn hurry(self: &Arc<Self>) -> Hurry {
        self.hurried.send_modify(|count| *count += 1);
        Hurry(self.clone())
    }

    /// Does `work`, unless somebody is in a hurry, or comes to be: it is dropped then.
    pub(crate) async fn unless_hurried<T>(&self, work: impl Future<Output = T>) -> Result<T, EngineError> {
        let mut hurried = self.hurried.subscribe();
        tokio::select! {
            biased;
            _ = hurried.wait_for(|count| *count > 0) => Err(ContainerRefusal::Hurried { id: self.id().to_owned() }.into()),
            done = work => Ok(done),
        }
    }

    /// Waits until nobody else mounts its file tree to write to it.
    ///
    /// # Errors
    /// `Conflict` when somebody does for long.
    pub(crate) async fn tree(&self) -> Result<OwnedMutexGuard<()>, EngineError> {
        tokio::time::timeout(COPYING, self.tree.clone().lock_owned())
            .await
            .map_err(|_| ContainerRefusal::CopiedInto { id: self.id().to_owned(), after: COPYING }.into())
    }

    /// Does `work`, which reads or writes files of this workload, on a thread of its own: a container may have an open of its
    /// own files hang, and the threads of the runtime are everybody's.
    ///
    /// # Errors
    /// Those of `work`; `Unavailable` when too many hang.
    /// # Cancel safety
    /// Once begun, the work goes on when nobody waits any more.
    pub(crate) async fn copying<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, EngineError> {
        let Ok(place) = tokio::time::timeout(COPYING, self.copies.clone().acquire_owned()).await else {
            return Err(ContainerRefusal::CopiesHang { id: self.id().to_owned(), copies: COPIES }.into());
        };
        let place = place.map_err(|_| EngineError::Stopping)?;
        let (done, answer) = oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let thread = std::thread::Builder::new().name("copy".to_owned()).spawn(move || {
            let (_place, _runtime) = (place, runtime.enter());
            let _ = done.send(work());
        });
        thread.map_err(|source| EngineError::File { path: self.id().into(), source })?;
        answer.await.map_err(|_| EngineError::Stopping)?
    }

    /// Tells the owner that somebody wants it to end, and answers whether it runs. What the owner is busy with has
    /// `patience`; `None` as long as it takes.
    pub(crate) async fn ending(self: &Arc<Self>, patience: Option<Duration>) -> Result<bool, EngineError> {
        let told = self.command(Command::Ending);
        let Some(patience) = patience else { return told.await };
        tokio::pin!(told);
        if let Ok(answer) = tokio::time::timeout(patience, &mut told).await {
            return answer;
        }
        let _hurry = self.hurry();
        told.await
    }

    pub(crate) async fn command<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, EngineError>>) -> Command,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.map_err(|_| EngineError::no_container(self.id()))?;
        // An owner that ended with its workload leaves what still queued unanswered.
        answer.await.map_err(|_| match self.ends.borrow().gone {
            true => EngineError::no_container(self.id()),
            false => EngineError::Stopping,
        })?
    }

    /// Sends a command that has no answer; false when the owner is gone.
    pub(crate) async fn tell(&self, command: Command) -> bool {
        self.commands.send(command).await.is_ok()
    }

    pub(crate) fn publish(&self, name: &str, mutable: &MutableState) {
        self.view.send_modify(|view| {
            let execs = if mutable.state.status.is_alive() { view.execs.clone() } else { Vec::new() };
            *view = Arc::new(snapshot(&self.config, name, mutable, execs));
        });
    }

    pub(crate) fn execs_changed(&self, change: impl FnOnce(&mut Vec<String>)) {
        self.view.send_modify(|view| change(&mut Arc::make_mut(view).execs));
    }

    /// Records an end for those who wait.
    pub(crate) fn ended(&self, ended: Ended) {
        self.ends.send_modify(|ends| {
            ends.count += 1;
            ends.last = Some(ended);
        });
    }

    /// Tells everyone that it is gone: waiting clients, log readers, pending attaches.
    pub(crate) fn gone(&self) {
        self.streams().pending.clear();
        self.ends.send_modify(|ends| ends.gone = true);
    }

    /// Tells whoever waits for its removal that it failed.
    pub(crate) fn stays(&self, why: &str) {
        self.ends.send_modify(|ends| ends.stays = Some(why.to_owned()));
    }

    /// Emits an event of this workload with Docker's attributes: image, name, its labels, and `extra`.
    pub(crate) fn emit<'a>(&self, events: &Events, action: &str, extra: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let spec = &self.config.spec;
        let mut attributes: BTreeMap<String, String> = spec.labels.clone();
        attributes.insert("image".to_owned(), spec.image.clone());
        attributes.insert("name".to_owned(), self.view().name.clone());
        attributes.extend(extra.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
        events.emit(Event {
            kind: "container",
            action: action.to_owned(),
            id: self.id().to_owned(),
            attributes,
            time: now_nanos(),
        });
    }
}

async fn open_streams(
    workload: &dyn Workload,
    stdin: bool,
    lacks: impl FnOnce() -> EngineError,
) -> Result<UnixStream, EngineError> {
    match workload.as_attach() {
        Some(attach) => Ok(attach.attach(stdin).await?),
        None => Err(lacks()),
    }
}

fn snapshot(config: &Arc<Config>, name: &str, mutable: &MutableState, execs: Vec<String>) -> WorkloadView {
    WorkloadView {
        config: config.clone(),
        name: name.to_owned(),
        state: mutable.state.clone(),
        restart: mutable.restart,
        restart_count: mutable.restart_count,
        endpoints: mutable.endpoints.clone(),
        ports: mutable.ports.clone(),
        health: mutable.health.clone(),
        resources: mutable.resources.clone(),
        links: config.links.iter().filter(|link| !mutable.unlinked.contains(&link.alias)).cloned().collect(),
        execs,
    }
}
