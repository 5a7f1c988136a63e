//! One component, seen from the daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::error::one_line;
use bireme_core::executor::InterfaceStats;
use bireme_core::spec::Signal;
use bireme_core::{
    Attach, BoxFuture, Diagnose, ErrorKind, ExecError, Exit, InvocationStats, Invocations, NamedNetwork, ProcessTable,
    Stats, Workload, WorkloadId,
};
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;

use crate::host::{Host, ask_on};
use crate::names::Tables;
use crate::protocol::{self, Instance, Request, Usage};
use crate::roster::Roster;
use crate::state::StateFolder;

/// Longest time a host may take to answer when a workload shall end, and then to have ended it.
const END: Duration = Duration::from_secs(10);

/// The host process of a workload, and what is shared by all that it runs.
pub(crate) struct Home {
    pub host: Host,
    /// Serialises what starts and ends the host process of this sandbox.
    pub turn: Arc<Mutex<Roster>>,
    pub tables: Arc<Tables>,
    pub kv_dir: PathBuf,
}

pub(crate) struct ComponentWorkload {
    pub(crate) id: WorkloadId,
    pub(crate) host: Host,
    pid: u32,
    /// Serialises what starts and ends the host process of this sandbox.
    turn: Arc<Mutex<Roster>>,
    tables: Arc<Tables>,
    started: watch::Sender<bool>,
    exit: watch::Receiver<Option<Exit>>,
    monitor: Option<AbortHandle>,
    pub(crate) state_dir: PathBuf,
    /// Folder of the stores of its sandbox.
    kv_dir: PathBuf,
}

impl Drop for ComponentWorkload {
    fn drop(&mut self) {
        if let Some(monitor) = &self.monitor {
            monitor.abort();
        }
    }
}

impl ComponentWorkload {
    /// A workload that its host knows, of this process and not there before `since`, in nanoseconds since 1970. Watches for
    /// its end from now on.
    pub(crate) fn live(
        id: WorkloadId,
        home: Home,
        (pid, since): (u32, i64),
        started: bool,
        state_dir: PathBuf,
    ) -> Self {
        let Home { host, turn, tables, kv_dir } = home;
        let (ended, exit) = watch::channel(None);
        let watching = tokio::spawn(watch_end(id.clone(), host.clone(), state_dir.clone(), since, ended));
        let started = watch::Sender::new(started);
        Self { id, host, pid, turn, tables, started, exit, monitor: Some(watching.abort_handle()), state_dir, kv_dir }
    }

    /// A workload of which only the record of its end is left.
    pub(crate) fn ended(id: WorkloadId, home: Home, exit: Exit, state_dir: PathBuf) -> Self {
        let Home { host, turn, tables, kv_dir } = home;
        let exit = watch::channel(Some(exit)).1;
        let started = watch::Sender::new(true);
        Self { id, host, pid: 0, turn, tables, started, exit, monitor: None, state_dir, kv_dir }
    }

    fn running(&self) -> Result<(), ExecError> {
        if self.exit.borrow().is_some() {
            return Err(ExecError::new(ErrorKind::Conflict, "the component is not running"));
        }
        if !*self.started.borrow() {
            return Err(ExecError::new(ErrorKind::Conflict, "the component was not started yet"));
        }
        Ok(())
    }
}

/// Reads how a workload ended; `None` while it has not, or when the record is damaged.
pub(crate) fn read_exit(state_dir: &Path) -> Option<Exit> {
    StateFolder::open(state_dir).ok()?.read_exit().map(|exit| protocol::credible(exit, 0))
}

/// The end of a workload whose host came to its own, written down for the next daemon.
pub(crate) fn record_end(id: &WorkloadId, state_dir: &Path, why: String) -> Exit {
    let now = now_nanos();
    let exit = Exit { code: 137, oom_killed: false, finished_at: now, error: Some(why) };
    if let Err(error) = StateFolder::open(state_dir).and_then(|folder| folder.write_exit(&exit)) {
        tracing::warn!(workload.id = %id, %error, "cannot record the end of a component");
    }
    exit
}

/// Waits for the end on a connection of its own. A connection that breaks means that the host process is gone. One that says
/// so too early gains nothing: whatever has ended is deleted, and the host with the last.
async fn watch_end(id: WorkloadId, host: Host, state_dir: PathBuf, since: i64, ended: watch::Sender<Option<Exit>>) {
    let answer = host.ask::<Exit>(&Request::Wait { id: id.clone() }, &[]).await;
    let exit = answer.or_else(|error| read_exit(&state_dir).ok_or(error)).unwrap_or_else(|error| {
        tracing::warn!(workload.id = %id, %error, "the host process of a component died");
        let text = format!("its host process died (what it said is in {})", host.dir.join("host.log").display());
        record_end(&id, &state_dir, text)
    });
    let _ = ended.send(Some(protocol::credible(exit, since)));
}

impl Workload for ComponentWorkload {
    fn start(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async move {
            self.host.ask::<()>(&Request::Start { id: self.id.clone() }, &[]).await?;
            self.started.send_replace(true);
            Ok(())
        })
    }

    fn pid(&self) -> Option<u32> {
        self.running().is_ok().then_some(self.pid)
    }

    fn signal(&self, signal: Signal) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async move {
            let request = Request::Signal { id: self.id.clone(), signal: signal.0 };
            if signal != Signal::KILL {
                self.running()?;
                return self.host.ask(&request, &[]).await;
            }
            let mut exit = self.exit.clone();
            if exit.borrow().is_some() {
                return Err(ExecError::new(ErrorKind::Conflict, "the component is not running"));
            }
            // Who is busy with it has others; who has none, or is not asked for them now, is not.
            let others = self.turn.try_lock().map_or(true, |roster| roster.count() > 1);
            // A host that was taken over may refuse, say that it knows of none, or that it was never started.
            if let Err(error) = self.host.ask_for_end(&request, END, others).await {
                tracing::warn!(workload.id = %self.id, %error, "a host process refuses to end a component");
            }
            let host = self.host.clone();
            // A kill ends whatever it is sent to, and if the host cannot, with the host.
            tokio::spawn(async move {
                let ended = tokio::time::timeout(END, exit.wait_for(Option::is_some)).await.is_ok();
                if !ended {
                    tracing::warn!(sandbox = %host.sandbox, "a host process did not end a component and is killed");
                    host.kill().await;
                }
            });
            Ok(())
        })
    }

    fn wait(&self) -> BoxFuture<'_, Result<Exit, ExecError>> {
        let mut exit = self.exit.clone();
        Box::pin(async move {
            let gone = || ExecError::new(ErrorKind::Unavailable, "the component was released while it was waited for");
            let exit = exit.wait_for(Option::is_some).await.map_err(|_| gone())?;
            exit.clone().ok_or_else(gone)
        })
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, ExecError>> {
        Box::pin(async move {
            self.running()?;
            let usage: Usage = self.host.ask(&Request::Usage { id: self.id.clone() }, &[]).await?;
            let interfaces = tokio::fs::read_to_string(format!("/proc/{}/net/dev", self.pid)).await.unwrap_or_default();
            Ok(Stats {
                cpu_total: usage.cpu,
                cpu_user: usage.cpu,
                memory_usage: usage.memory,
                memory_peak: usage.memory_peak,
                memory_limit: Some(usage.memory_limit),
                pids: usage.instances,
                networks: interfaces.lines().filter_map(interface).collect(),
                ..Stats::default()
            })
        })
    }

    fn processes<'a>(&'a self, _ps_args: &'a str) -> BoxFuture<'a, Result<ProcessTable, ExecError>> {
        Box::pin(async move {
            self.running()?;
            let instances: Vec<Instance> = self.host.ask(&Request::Instances { id: self.id.clone() }, &[]).await?;
            let instances = instances.into_iter().take(protocol::MAX_INSTANCES);
            let row = |i: Instance| {
                let age = Duration::from_millis(i.age).as_secs_f64();
                let [trigger, work] = [i.trigger, i.work].map(|text| one_line(&text, protocol::MAX_WORK));
                vec![i.number.to_string(), trigger, format!("{age:.3}s"), work]
            };
            Ok(ProcessTable {
                titles: ["INSTANCE", "TRIGGER", "AGE", "WORK"].map(str::to_owned).to_vec(),
                rows: instances.map(row).collect(),
            })
        })
    }

    fn delete(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async move {
            let mut roster = self.turn.lock().await;
            release(&self.host, &self.id, &self.kv_dir, &self.tables, &mut roster).await;
            if let Ok(folder) = StateFolder::open(&self.state_dir) {
                folder.remove_exit();
                folder.take_back();
            }
            Ok(())
        })
    }

    fn networks_changed(&self, networks: Vec<NamedNetwork>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if self.exit.borrow().is_some() {
                return;
            }
            let told = async {
                self.tables.follow(&self.host, self.pid, &networks).await?;
                self.host.ask::<()>(&Request::Networks { id: self.id.clone(), networks }, &[]).await
            };
            if let Err(error) = told.await {
                tracing::warn!(workload.id = %self.id, %error, "a component was not told of changed networks");
            }
        })
    }

    fn renamed<'a>(&'a self, name: &'a str) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if self.exit.borrow().is_some() {
                return;
            }
            let request = Request::Renamed { id: self.id.clone(), name: name.to_owned() };
            if let Err(error) = self.host.ask::<()>(&request, &[]).await {
                tracing::warn!(workload.id = %self.id, %error, "a component was not told its new name");
            }
        })
    }

    fn as_attach(&self) -> Option<&dyn Attach> {
        Some(self)
    }

    fn as_invocations(&self) -> Option<&dyn Invocations> {
        Some(self)
    }

    fn as_diagnose(&self) -> Option<&dyn Diagnose> {
        Some(self)
    }
}

/// Deletes `id` in its host, and ends and clears the host away when that was the last, whatever it says. The caller holds
/// the sandbox's turn.
pub(crate) async fn release(host: &Host, id: &WorkloadId, kv_dir: &Path, tables: &Tables, roster: &mut Roster) {
    roster.remove(id);
    let others = !roster.is_empty();
    let _ = host.ask_for_end(&Request::Delete { id: id.clone() }, END, others).await;
    if others {
        host.limit_memory(roster.memory());
    } else {
        host.clear(kv_dir).await;
        tables.forget(&host.sandbox);
    }
}

impl Attach for ComponentWorkload {
    fn attach(&self, stdin: bool) -> BoxFuture<'_, Result<std::os::unix::net::UnixStream, ExecError>> {
        Box::pin(async move {
            let stream = self.host.connect().await?;
            ask_on::<()>(&stream, &Request::Attach { id: self.id.clone(), stdin }, &[]).await?;
            stream.into_std().map_err(|error| {
                ExecError::new(ErrorKind::Internal, "cannot hand over the connection to a component's output")
                    .caused_by(error)
            })
        })
    }

    fn resize(&self, _columns: u16, _rows: u16) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            Err(ExecError::new(ErrorKind::Conflict, "a component has no terminal, so there is no size to set"))
        })
    }
}

impl Invocations for ComponentWorkload {
    fn invocations(&self) -> BoxFuture<'_, Result<InvocationStats, ExecError>> {
        Box::pin(async move {
            let stats: InvocationStats = self.host.ask(&Request::Invocations { id: self.id.clone() }, &[]).await?;
            // It is shown in terminals.
            Ok(InvocationStats { trigger: one_line(&stats.trigger, protocol::MAX_WORK), ..stats })
        })
    }
}

/// One line of `/proc/PID/net/dev`; the loopback is left out, as in `docker stats`.
fn interface(line: &str) -> Option<(String, InterfaceStats)> {
    let (name, rest) = line.split_once(':')?;
    let n: Vec<u64> = rest.split_ascii_whitespace().map_while(|word| word.parse().ok()).collect();
    if name.trim() == "lo" || n.len() < 12 {
        return None;
    }
    let stats = InterfaceStats {
        rx_bytes: n[0],
        rx_packets: n[1],
        rx_errors: n[2],
        rx_dropped: n[3],
        tx_bytes: n[8],
        tx_packets: n[9],
        tx_errors: n[10],
        tx_dropped: n[11],
    };
    Some((name.trim().to_owned(), stats))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table_of_interfaces() {
        let line = "  eth0:  1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16";
        let (name, stats) = interface(line).unwrap();
        assert_eq!((name.as_str(), stats.rx_dropped, stats.tx_bytes, stats.tx_dropped), ("eth0", 4, 9, 12));
        assert!(interface("    lo: 1 2 3 4 5 6 7 8 9 10 11 12").is_none());
        assert!(interface("Inter-|   Receive").is_none());
    }

    /// A host that was taken over: it answers every request with what helps it.
    async fn lies(socket: tokio::net::UnixListener) {
        loop {
            let Ok((stream, _)) = socket.accept().await else { return };
            tokio::spawn(async move {
                while let Ok(Some((request, _))) = protocol::receive::<Request>(&stream).await {
                    let answer = match request {
                        Request::Brief => serde_json::json!({ "workloads": 7, "memory": u64::MAX }),
                        _ => serde_json::Value::Null,
                    };
                    let answer: protocol::Answer = Ok(answer);
                    let _ = protocol::send(&stream, &answer, &[]).await;
                }
            });
        }
    }

    /// A host that was taken over: it refuses whatever would end something, and says that nothing was started.
    async fn refuses(socket: tokio::net::UnixListener) {
        loop {
            let Ok((stream, _)) = socket.accept().await else { return };
            tokio::spawn(async move {
                while let Ok(Some((request, _))) = protocol::receive::<Request>(&stream).await {
                    if matches!(request, Request::Wait { .. }) {
                        return std::future::pending().await;
                    }
                    let answer: protocol::Answer = Err(protocol::Refusal::new(ErrorKind::Internal, "no, I stay"));
                    let _ = protocol::send(&stream, &answer, &[]).await;
                }
            });
        }
    }

    #[tokio::test]
    async fn a_kill_ends_a_component_whatever_its_host_answers() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let instance = format!("kill-{}", std::process::id());
        let host = Host::new(dir.path(), &instance, bireme_core::SandboxId::parse("app").unwrap());
        std::fs::create_dir_all(&host.dir).unwrap();
        let refusing = tokio::spawn(refuses(tokio::net::UnixListener::bind(host.dir.join("host.sock")).unwrap()));
        let folders = crate::cgroup::folders(&host.cgroup);
        let mut process = tokio::process::Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
        for folder in &folders {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("cgroup.procs"), process.id().unwrap().to_string()).unwrap();
        }
        let home =
            Home { host: host.clone(), turn: Arc::default(), tables: Arc::default(), kv_dir: dir.path().join("kv") };
        let id = WorkloadId::from_bytes([7; 32]);
        // As an engine finds it that was started anew.
        let workload = ComponentWorkload::live(id, home, (process.id().unwrap(), 0), false, dir.path().to_owned());
        workload.signal(Signal::KILL).await.unwrap();
        let ended = tokio::time::timeout(3 * END, process.wait()).await;
        assert!(!ended.expect("the host goes on").unwrap().success());
        drop(workload);
        for folder in &folders {
            let _ = std::fs::remove_dir(folder);
        }
        crate::cgroup::remove(&crate::host::parent_cgroup(&instance));
        refusing.abort();
    }

    #[tokio::test]
    async fn a_host_ends_with_its_last_workload_whatever_it_says() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (instance, sandbox) =
            (format!("test-{}", std::process::id()), bireme_core::SandboxId::parse("app").unwrap());
        let host = Host::new(dir.path(), &instance, sandbox);
        std::fs::create_dir_all(&host.dir).unwrap();
        let socket = tokio::net::UnixListener::bind(host.dir.join("host.sock")).unwrap();
        let lying = tokio::spawn(lies(socket));
        let folders = crate::cgroup::folders(&host.cgroup);
        let mut process = tokio::process::Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap();
        for folder in &folders {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("cgroup.procs"), process.id().unwrap().to_string()).unwrap();
        }
        let machine = crate::memory::of_machine();
        let (hard, sockets) = (crate::memory::hard(16 << 20, machine), crate::memory::sockets(16 << 20, machine));
        // What a file says, and what it must not exceed.
        let limit = || {
            let files = [("memory.limit_in_bytes", hard), ("memory.max", hard + sockets)];
            let read = |folder: &std::path::PathBuf, file| {
                std::fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok()
            };
            folders.iter().find_map(|folder| files.iter().find_map(|(file, most)| Some((read(folder, file)?, *most))))
        };
        let ids = [1, 2].map(|n| WorkloadId::from_bytes([n; 32]));
        let (mut roster, tables, kv) = (Roster::default(), Tables::default(), dir.path().join("kv"));
        for id in &ids {
            roster.add(id.clone(), 16 << 20);
        }
        release(&host, &ids[0], &kv, &tables, &mut roster).await;
        assert!(process.try_wait().unwrap().is_none(), "one workload is left");
        if let Some((limit, most)) = limit() {
            assert!(limit <= most, "{limit} is more than {most}");
        }
        release(&host, &ids[1], &kv, &tables, &mut roster).await;
        let ended = tokio::time::timeout(Duration::from_secs(10), process.wait()).await;
        assert!(!ended.expect("the host goes on").unwrap().success());
        assert!(!host.dir.exists() && folders.iter().all(|folder| !folder.exists()));
        crate::cgroup::remove(&crate::host::parent_cgroup(&instance));
        lying.abort();
    }
}
