//! Further processes inside a workload: Docker's exec sessions. They live as long as the engine remembers them in memory.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bireme_core::detach_keys::DetachKeys;
use bireme_core::executor::Power;
use bireme_core::{BoxFuture, ExecSpec};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::container::Handle;
use crate::lifecycle::Operation;
use crate::refusal::{ContainerRefusal, RequestRefusal};
use crate::services::Services;
use crate::view::Status;
use crate::{EngineError, names};

/// Which streams the client asked for at create, echoed by inspect, and the keys by which it leaves a terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecAttach {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Of a session with a terminal.
    pub detach_keys: DetachKeys,
}

/// One session, for inspect.
///
/// Source: Docker Engine API, `ExecInspect`.
#[derive(Clone, Debug)]
pub struct ExecView {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Whole ID of the workload.
    pub container_id: String,
    /// It was started and has not ended.
    pub running: bool,
    /// `None` until it ended.
    pub exit_code: Option<i32>,
    /// On the host; `None` until it started.
    pub pid: Option<u32>,
    /// What it runs.
    pub spec: ExecSpec,
    /// As asked for at create.
    pub attach: ExecAttach,
}

/// A session that was just started.
pub struct ExecSession {
    /// The stream is raw bytes; otherwise Docker's frames.
    pub tty: bool,
    /// Reading gives output, writing is standard input, shutting down the write half ends it. `None` when started detached.
    pub stream: Option<UnixStream>,
}

/// How many ended sessions of one workload are remembered, the newest.
const KEPT: usize = 64;

/// Sessions of one workload that wait for their start, and bytes of their commands and environments: of more, the oldest
/// are forgotten, as whoever made them has not come back.
const MOST_WAITING: usize = 256;
const MOST_WAITING_BYTES: usize = 8 << 20;

/// How long a change of the terminal's size waits for a session that is about to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(3);

struct Entry {
    /// Rises with each session and with each end: their ages.
    age: u64,
    view: ExecView,
    handle: Arc<Handle>,
    /// Also true when it could not begin.
    begun: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

static AGES: AtomicU64 = AtomicU64::new(0);

fn newest() -> u64 {
    AGES.fetch_add(1, Ordering::Relaxed)
}

/// What a session that waits costs, in bytes.
fn weight(spec: &ExecSpec) -> usize {
    let texts = spec.args.iter().chain(&spec.env).chain(&spec.cwd).chain(&spec.user);
    texts.map(|text| text.len() + size_of::<String>()).sum::<usize>() + size_of::<Entry>()
}

/// Which of one workload's sessions are forgotten: the oldest beyond the bounds. Each has its ID, age, whether it has ended,
/// and its weight; those that run are not among them.
fn forgotten(mut sessions: Vec<(&str, u64, bool, usize)>) -> Vec<&str> {
    sessions.sort_by_key(|(_, age, ..)| std::cmp::Reverse(*age));
    let (mut ended, mut waiting, mut bytes) = (0, 0, 0);
    let over = sessions.into_iter().filter(|(_, _, over, weight)| match over {
        true => {
            ended += 1;
            ended > KEPT
        }
        false => {
            waiting += 1;
            bytes += weight;
            waiting > 1 && (waiting > MOST_WAITING || bytes > MOST_WAITING_BYTES)
        }
    });
    over.map(|(id, ..)| id).collect()
}

impl Entry {
    fn ready(&self) -> Result<ExecView, EngineError> {
        if self.view.running || self.view.exit_code.is_some() {
            let id = &self.view.id;
            return Err(ContainerRefusal::ExecHasRun { exec: id.to_owned() }.into());
        }
        self.handle.require(Operation::Use)?;
        Ok(self.view.clone())
    }
}

/// The sessions of all workloads.
pub(crate) struct Execs {
    services: Arc<Services>,
    sessions: Mutex<HashMap<String, Entry>>,
}

impl Execs {
    pub(crate) fn new(services: Arc<Services>) -> Self {
        Self { services, sessions: Mutex::default() }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.sessions.lock()
    }

    /// Prepares a session; nothing runs yet.
    ///
    /// # Errors
    /// `Conflict` when the workload does not run, `Unsupported` when its kind has no processes to join.
    pub(crate) async fn create(&self, name: &str, spec: ExecSpec, attach: ExecAttach) -> Result<String, EngineError> {
        let handle = self.services.registry.find(name)?;
        if handle.view().state.status == Status::Paused {
            return Err(ContainerRefusal::ExecWhilePaused { asked: name.to_owned() }.into());
        }
        handle.require(Operation::Use)?;
        let workload = handle.workload().ok_or_else(|| not_running(&handle))?;
        if workload.as_exec().is_none() {
            return Err(no_exec(&handle));
        }
        if spec.args.is_empty() {
            return Err(RequestRefusal::NoExecCommand.into());
        }
        let id = names::random_hex();
        handle.emit(&self.services.events, &format!("exec_create: {}", spec.args.join(" ")), [("execID", id.as_str())]);
        let view = ExecView {
            id: id.clone(),
            container_id: handle.id().to_owned(),
            running: false,
            exit_code: None,
            pid: None,
            spec,
            attach,
        };
        let mut execs = self.sessions();
        execs.insert(
            id.clone(),
            Entry {
                age: newest(),
                view,
                handle: handle.clone(),
                begun: watch::Sender::new(false),
                ended: watch::Sender::new(false),
            },
        );
        let own = execs.iter().filter(|(_, entry)| entry.view.container_id == handle.id() && !entry.view.running);
        let own =
            own.map(|(id, entry)| (id.as_str(), entry.age, entry.view.exit_code.is_some(), weight(&entry.view.spec)));
        let old: Vec<String> = forgotten(own.collect()).into_iter().map(str::to_owned).collect();
        for old in &old {
            execs.remove(old);
        }
        handle.execs_changed(|known| {
            known.retain(|id| !old.contains(id));
            known.push(id.clone());
        });
        Ok(id)
    }

    /// The session, when it may be started now.
    ///
    /// # Errors
    /// `NotFound` for an unknown session; `Conflict` when it was started before or its workload does not run.
    pub(crate) fn ready(&self, exec_id: &str) -> Result<ExecView, EngineError> {
        let execs = self.sessions();
        execs.get(exec_id).ok_or_else(|| no_such(exec_id))?.ready()
    }

    /// Starts a session once.
    ///
    /// # Errors
    /// `Conflict` when it was started before or its workload does not run; what the executor answers otherwise, with exit
    /// code 126 recorded.
    pub(crate) async fn start(
        self: &Arc<Self>,
        exec_id: &str,
        detach: bool,
        size: Option<(u16, u16)>,
    ) -> Result<ExecSession, EngineError> {
        let (handle, mut spec) = {
            let mut execs = self.sessions();
            let entry = execs.get_mut(exec_id).ok_or_else(|| no_such(exec_id))?;
            entry.ready()?;
            entry.view.running = true;
            (entry.handle.clone(), entry.view.spec.clone())
        };
        spec.size = size.or(spec.size);
        spec.stdin &= !detach;
        let tty = spec.tty;
        let command = spec.args.join(" ");
        let started = async {
            let workload = handle.workload().ok_or_else(|| not_running(&handle))?;
            let exec = workload.as_exec().ok_or_else(|| no_exec(&handle))?;
            exec.exec(exec_id, spec).await.map_err(EngineError::from)
        };
        match started.await {
            Ok(started) => {
                if let Some(entry) = self.sessions().get_mut(exec_id) {
                    entry.view.pid = Some(started.pid);
                    entry.begun.send_replace(true);
                }
                handle.emit(&self.services.events, &format!("exec_start: {command}"), [("execID", exec_id)]);
                self.watch(handle, exec_id.to_owned());
                Ok(ExecSession { tty, stream: (!detach).then_some(started.stream) })
            }
            Err(error) => {
                // Docker's engine tells one that is not there from one that cannot be run at `run` alone.
                self.end(exec_id, 126);
                handle.execs_changed(|known| known.retain(|id| id != exec_id));
                Err(error)
            }
        }
    }

    fn watch(self: &Arc<Self>, handle: Arc<Handle>, exec_id: String) {
        let execs = Arc::clone(self);
        self.services.tasks.spawn(async move {
            let code = match handle.workload() {
                Some(workload) => match workload.as_exec() {
                    Some(exec) => exec.exec_wait(&exec_id).await.unwrap_or(137),
                    None => 137,
                },
                None => 137,
            };
            execs.end(&exec_id, code);
            handle.execs_changed(|running| running.retain(|id| *id != exec_id));
            handle.emit(
                &execs.services.events,
                "exec_die",
                [("execID", exec_id.as_str()), ("exitCode", &code.to_string())],
            );
        });
    }

    fn end(&self, exec_id: &str, code: i32) {
        if let Some(entry) = self.sessions().get_mut(exec_id) {
            entry.age = newest();
            entry.view.running = false;
            entry.view.exit_code = Some(code);
            entry.begun.send_replace(true);
            entry.ended.send_replace(true);
        }
    }

    /// # Errors
    /// `NotFound` for an unknown or forgotten session.
    pub(crate) fn inspect(&self, exec_id: &str) -> Result<ExecView, EngineError> {
        self.sessions().get(exec_id).map(|entry| entry.view.clone()).ok_or_else(|| no_such(exec_id))
    }

    /// Waits until the session's end is recorded, so that whoever inspects it then sees the exit code.
    /// Answers at once for a session that is unknown or could not be started, and when one is forgotten.
    pub(crate) fn recorded(&self, exec_id: &str) -> BoxFuture<'static, ()> {
        let mut ended = match self.sessions().get(exec_id) {
            Some(entry) => entry.ended.subscribe(),
            None => return Box::pin(async {}),
        };
        Box::pin(async move {
            // An error means that the session was forgotten with its workload.
            let _ = ended.wait_for(|ended| *ended).await;
        })
    }

    /// Sets the terminal size of a running session, in characters.
    pub(crate) async fn resize(&self, exec_id: &str, columns: u16, rows: u16) -> Result<(), EngineError> {
        let (handle, mut begun) = {
            let execs = self.sessions();
            let entry = execs.get(exec_id).ok_or_else(|| no_such(exec_id))?;
            (entry.handle.clone(), entry.begun.subscribe())
        };
        // Its client asks as soon as it has the head of the answer, which comes before the session begins.
        let _ = tokio::time::timeout(BEGINS_WITHIN, begun.wait_for(|begun| *begun)).await;
        let workload = handle.workload().ok_or_else(|| not_running(&handle))?;
        let exec = workload.as_exec().ok_or_else(|| no_exec(&handle))?;
        Ok(exec.exec_resize(exec_id, columns, rows).await?)
    }

    /// Forgets the sessions of a workload that is gone.
    pub(crate) fn forget(&self, container_id: &str) {
        self.sessions().retain(|_, entry| entry.view.container_id != container_id);
    }
}

fn no_such(exec_id: &str) -> EngineError {
    EngineError::NoSuch { what: "exec instance", name: exec_id.to_owned() }
}

fn not_running(handle: &Handle) -> EngineError {
    ContainerRefusal::not_running(&handle.config.spec.id).into()
}

fn no_exec(handle: &Handle) -> EngineError {
    handle.lacks(Power::Exec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ended_sessions_are_forgotten_first() {
        // IDs are random: their order says nothing of age.
        let ids: Vec<String> =
            (0..100_u64).map(|n| format!("{:016x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        let sessions = ids.iter().zip(0..).map(|(id, age)| (id.as_str(), age, true, 1)).collect();
        let mut old = forgotten(sessions);
        old.sort_by_key(|old| ids.iter().position(|id| id == old));
        assert_eq!(old, ids[..100 - KEPT].iter().map(String::as_str).collect::<Vec<_>>());
    }

    #[test]
    fn sessions_that_are_never_started_are_bounded_in_number_and_bytes() {
        let ids: Vec<String> = (0..2000).map(|n| n.to_string()).collect();
        let kept = |weight: usize| {
            let sessions = ids.iter().zip(0..).map(|(id, age)| (id.as_str(), age, false, weight)).collect();
            let old = forgotten(sessions);
            assert!(!old.contains(&"1999"), "the newest stays, whatever it weighs");
            2000 - old.len()
        };
        assert_eq!(kept(100), MOST_WAITING);
        assert_eq!(kept(1 << 20), 8);
        assert_eq!(kept(64 << 20), 1);
    }
}
