//! Hands a component over to its host, with all that it may use.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_core::spec::{NetworkMode, Protocol};
use bireme_core::{ErrorKind, ExecError, Prepared, Program, WorkloadSpec};
use serde::de::IgnoredAny;

use super::{MEMORY, WasmExecutor};
use crate::compile::Compiled;
use crate::host::Host;
use crate::protocol::{FdUse, Load, Log, MAX_FDS, Request};
use crate::roster::Roster;
use crate::state::StateFolder;
use crate::workload::release;
use crate::{image_files, memory, mounts, user};

/// Most user namespaces that are kept for the next workload with the same owners.
const NAMESPACES: usize = 64;

/// Whether a component is loaded for its first run, or for another that takes over from the one there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    First,
    Further,
}

impl WasmExecutor {
    pub(super) async fn create_in_turn(
        &self,
        work: &Prepared,
        host: &Host,
        compiled: &Compiled,
        roster: &mut Roster,
    ) -> Result<u32, ExecError> {
        let id = &work.spec.id;
        if let Err(error) =
            host.ensure(&self.options.host, &self.spares, &self.config(host, work), !roster.is_empty()).await
        {
            if roster.is_empty() {
                // What it wrote of itself is in the error.
                host.clear(&self.kv_dir(host)).await;
            }
            return Err(error);
        }
        let memory = memory::of_spec(&work.spec, compiled.facts.trigger.of(&work.spec.bireme).is_alone());
        let loaded = async {
            let pid = host.pid().await?;
            self.tables.follow(host, pid, &work.networks).await?;
            host.limit_memory(roster.memory().saturating_add(memory));
            self.load(work, host, compiled, (pid, Run::First)).await?;
            Ok(pid)
        };
        let loaded = loaded.await;
        if loaded.is_ok() {
            roster.add(id.clone(), memory);
            // Without it the next daemon takes the most that the specification allows.
            let _ = std::fs::write(work.run_dir.join(MEMORY), memory.to_string());
        } else if !roster.has(id) {
            // It may be loaded all the same.
            release(host, id, &self.kv_dir(host), &self.tables, roster).await;
        }
        loaded
    }

    /// The namespace that makes the files of the workload's user the host's; `None` where there is nothing to map, or
    /// the machine cannot.
    async fn namespace_of(&self, spec: &WorkloadSpec, host: u32) -> Option<Arc<OwnedFd>> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let owner = mounts::owner(&spec.user);
        let key = (owner.0, owner.1, host);
        let mut known = self.namespaces.lock().await;
        if let Some(namespace) = known.get(&key) {
            return Some(Arc::clone(namespace));
        }
        match mounts::user_namespace(&self.options.host, owner, host).await {
            Ok(namespace) => {
                let namespace = Arc::new(namespace);
                if known.len() >= NAMESPACES {
                    known.clear();
                }
                known.insert(key, Arc::clone(&namespace));
                Some(namespace)
            }
            Err(error) => {
                tracing::warn!(%error, "components can write only to folders that everyone may write to");
                None
            }
        }
    }

    /// Hands a component over to its host, the process `pid`. What the host holds of an earlier run is not handed over again.
    pub(super) async fn load(
        &self,
        work: &Prepared,
        host: &Host,
        compiled: &Compiled,
        (pid, run): (u32, Run),
    ) -> Result<(), ExecError> {
        // An earlier daemon may have started it, with another secret.
        let uid = user::of_process(pid).unwrap_or_else(|| self.uid_of(host));
        let mut uses = Vec::new();
        let mut owned: Vec<OwnedFd> = Vec::new();
        let mut add = |fd: OwnedFd, what: FdUse| {
            uses.push(what);
            owned.push(fd);
        };
        let failed = |what: &str, path: &Path, error: std::io::Error| {
            ExecError::new(ErrorKind::Internal, format!("cannot {what} {}", path.display())).caused_by(error)
        };
        add(
            self.cache.open(compiled).map_err(|error| failed("open the compiled code in", self.cache.dir(), error))?,
            FdUse::Code,
        );
        if run == Run::First {
            let exit = StateFolder::open(&work.state_dir).and_then(|folder| folder.new_exit());
            add(exit.map_err(|error| failed("record an end in", &work.state_dir, error))?.into(), FdUse::Exit);
        }
        let mut log = Log { file: None, max_size: work.log.max_size, max_files: work.log.max_files };
        if let Some(path) = work.log.path.as_ref().filter(|_| run == Run::First) {
            let folder = lend_log(path, work.log.max_files, uid);
            let folder = folder.map_err(|error| failed("open the log", path, error))?;
            add(folder, FdUse::LogFolder);
            log.file = path.file_name().map(|name| name.to_string_lossy().into_owned());
        }
        let files = files_of(&work.program);
        let namespace = match work.spec.mounts.is_empty() && files.is_empty() {
            true => None,
            false => self.namespace_of(&work.spec, uid).await,
        };
        // What is mounted over all of it leaves nothing to see.
        if !files.is_empty() && !work.spec.mounts.iter().any(|mount| mount.target == "/") {
            let opened = image_files::open(files, namespace.as_ref().map(|fd| fd.as_fd()), &work.spec.cwd)?;
            for (folder, target) in opened {
                add(folder, FdUse::Folder { target, read_only: true });
            }
        }
        for mount in &work.spec.mounts {
            let what = FdUse::Folder { target: mount.target.clone(), read_only: mount.read_only };
            let namespace = namespace.as_ref().map(|fd| fd.as_fd());
            add(mounts::open(mount, namespace, uid, memory::of_instance(&work.spec))?, what);
        }
        let tcp = || work.listeners.iter().filter(|listener| listener.protocol() == Protocol::Tcp);
        for listener in tcp() {
            if let Some(socket) = &listener.socket {
                let copy = socket.try_clone().map_err(|error| failed("share the socket of", Path::new(""), error))?;
                add(copy, FdUse::Listener(listener.host));
            }
        }
        let mut listeners: Vec<SocketAddr> = tcp().map(|listener| listener.host).collect();
        if work.spec.namespaces.network == NetworkMode::Host && listeners.is_empty() {
            // On the machine's own network the ports of the component are the machine's; the host may not bind low ones.
            for port in work.spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp) {
                let address = SocketAddr::from(([0, 0, 0, 0], port.number));
                listeners.push(address);
                if run == Run::Further {
                    continue;
                }
                let socket = std::net::TcpListener::bind(address).map_err(|error| {
                    let text = format!("cannot listen on port {} of the machine", port.number);
                    ExecError::new(ErrorKind::Conflict, text).caused_by(error)
                })?;
                add(socket.into(), FdUse::Listener(address));
            }
        }
        let load = Load {
            spec: work.spec.clone(),
            facts: compiled.facts.clone(),
            network: work.network.clone(),
            listeners,
            networks: work.networks.clone(),
            log,
            fds: uses,
        };
        let fds: Vec<_> = owned.iter().map(|fd| fd.as_fd()).collect();
        if fds.len() > MAX_FDS {
            let text = format!("a component can have at most {} mounts and ports together", MAX_FDS - 3);
            return Err(ExecError::new(ErrorKind::Invalid, text));
        }
        let request = match run {
            Run::First => Request::Load(Box::new(load)),
            Run::Further => Request::Renew(Box::new(load)),
        };
        host.ask::<IgnoredAny>(&request, &fds).await.map(|_| ())
    }
}

/// What the image holds beside the component.
fn files_of(program: &Program) -> &[PathBuf] {
    match program {
        Program::Component { files, .. } => files,
        Program::Layers { .. } => &[],
    }
}

/// Opens the folder of a log file and lets the user `uid` write, rotate and remove the log files in it, and nothing else.
fn lend_log(path: &Path, files: u32, uid: u32) -> std::io::Result<OwnedFd> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::NotFound.into());
    };
    StateFolder::open(folder)?.lend(name, files, uid)
}
