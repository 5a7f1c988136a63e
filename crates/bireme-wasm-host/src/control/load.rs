//! A component is loaded: from its compiled code and what was handed over with it to a workload that can be started.

use std::collections::HashMap;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};

use bireme_core::ErrorKind;
use bireme_core::spec::Protocol;
use bireme_wasm::protocol::{DAMAGED, Facts, FdUse, Load, Refusal, Trigger};
use parking_lot::Mutex;
use wasmtime::Engine;

use super::life::not_running;
use super::{Host, Loaded, refuse};
use crate::clients;
use crate::component::{Component, Folder, NetworkIdentity, Shared};
use crate::host::tls::Trust;
use crate::linker;
use crate::log::LogHandle;
use crate::program::Program;
use crate::workload::{Phase, Workload};

impl Host {
    pub(super) fn load(self: &Arc<Self>, load: Load, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let id = load.spec.id.clone();
        if self.components.lock().contains_key(&id) {
            return Err(refuse(ErrorKind::Conflict, format!("component {} is loaded already", id.short())));
        }
        let loaded = self.make_ready(load, fds, None)?;
        self.components.lock().insert(id, Arc::new(loaded));
        clients::allow(self.brief().memory);
        Ok(())
    }

    /// Loads a component for a further run, which takes over from the one there is.
    pub(super) fn renew(self: &Arc<Self>, load: Load, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let before = self.find(&load.spec.id)?;
        let workload = &before.workload;
        if workload.component.trigger.is_alone() {
            return Err(refuse(ErrorKind::Unsupported, "a command cannot go on where another run of it was"));
        }
        if *workload.phase().borrow() != Phase::Running {
            return Err(not_running());
        }
        let loaded = Arc::new(self.make_ready(load, fds, Some(workload.component.log.clone()))?);
        if self.take_over(&before, &loaded) {
            return Ok(());
        }
        self.close_sites(&loaded);
        Err(not_running())
    }

    /// All of a workload but its place among the others. `log` is that of an earlier run.
    fn make_ready(self: &Arc<Self>, load: Load, fds: Vec<OwnedFd>, log: Option<LogHandle>) -> Result<Loaded, Refusal> {
        if fds.len() != load.fds.len() {
            return Err(refuse(ErrorKind::Internal, "descriptors were lost on the way to the host process"));
        }
        // Those that were handed over, the log that is opened, and the addresses of its own that it listens on.
        let inside = load.network.as_ref().map_or(0, |place| place.addresses.len() * load.spec.ports.len().max(1));
        let own = self.shared.descriptors.own(fds.len() + 2 + inside);
        let (mut code, mut exit, mut log_folder, mut sockets, mut folders) =
            (None, None, None, HashMap::new(), Vec::new());
        for (fd, what) in fds.into_iter().zip(load.fds) {
            match what {
                FdUse::Code => code = Some(fd),
                FdUse::Exit => exit = Some(std::fs::File::from(fd)),
                FdUse::LogFolder => log_folder = Some(fd),
                FdUse::Listener(address) => {
                    sockets.insert(address, fd);
                }
                FdUse::Folder { target, read_only } => {
                    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
                    folders.push(Folder { target, read_only, path, open: fd });
                }
            }
        }
        let code = code.ok_or_else(|| refuse(ErrorKind::Internal, "no compiled code came with the component"))?;
        let program = self.shared_program(&load.facts, &code)?;
        let engine = self.engines.of(load.facts.concurrent).clone();
        let misplaced = add_working_folder(&load.spec.cwd, &mut folders);
        let log = log.map_or_else(|| LogHandle::start(load.log, log_folder), Ok);
        let log =
            log.map_err(|error| refuse(ErrorKind::Internal, format!("cannot open the component's log: {error}")))?;
        let ports: Vec<u16> =
            load.spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.number).collect();
        let addresses = load.network.as_ref().map(|place| place.addresses.clone()).unwrap_or_default();
        let trigger = load.facts.trigger.of(&load.spec.bireme);
        let trust = Trust::read(&load.spec.env, &load.spec.cwd, &folders)
            .map_err(|text| refuse(ErrorKind::Invalid, format!("{text} ({})", load.spec.name)))?;
        if let Trust::Elsewhere(text) = &trust {
            log.note(&format!("bireme: {text}"));
        }
        if let Some(text) = misplaced {
            log.note(&format!("bireme: {text}"));
        }
        let names = self.networks.view(load.networks);
        let standing = NetworkIdentity { addresses: addresses.clone(), names, tls: trust.config() };
        let component =
            Component::new(load.spec, trigger, log, folders, standing, Shared { engine, ..self.shared.clone() });
        let workload = Arc::new(Workload::new(component, program));
        let mut loaded = Loaded {
            workload,
            site_addresses: Vec::new(),
            exit: Mutex::new(exit),
            subscription: Mutex::default(),
            follower: OnceLock::new(),
            _descriptors: own,
        };
        let opened = if trigger.name() == "http" {
            self.open_sites(&mut loaded, &load.listeners, sockets, &addresses, &ports)
        } else {
            Ok(())
        };
        if let Err(refusal) = opened {
            self.close_sites(&loaded);
            return Err(refusal);
        }
        Ok(loaded)
    }

    /// The program of `code`, which components of the same code have together.
    fn shared_program(&self, facts: &Facts, code: &OwnedFd) -> Result<Arc<Program>, Refusal> {
        let stat = rustix::fs::fstat(code)
            .map_err(|error| refuse(ErrorKind::Internal, format!("cannot look at the compiled code: {error}")))?;
        // As long as it is mapped, no other file has its number.
        let file = (stat.st_dev, stat.st_ino);
        if let Some(known) = self.programs.lock().get(&file).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let program = Arc::new(self.program(facts, code)?);
        let mut programs = self.programs.lock();
        if programs.len() > 2 * self.components.lock().len() + 16 {
            programs.retain(|_, program| program.strong_count() > 0);
        }
        programs.insert(file, Arc::downgrade(&program));
        Ok(program)
    }

    fn program(&self, facts: &Facts, code: &OwnedFd) -> Result<Program, Refusal> {
        let path = PathBuf::from(format!("/proc/self/fd/{}", code.as_raw_fd()));
        let damaged = |error: wasmtime::Error| refuse(ErrorKind::Internal, format!("{DAMAGED}: {error:#}"));
        let (trigger, engine) = (facts.trigger, self.engines.of(facts.concurrent));
        if trigger.is_module() {
            let module = deserialize_module(engine, &path).map_err(damaged)?;
            let pre = self.linker_p1.instantiate_pre(&module).map_err(damaged)?;
            return Ok(if trigger == Trigger::CommandP1 { Program::CommandP1(pre) } else { Program::Spin1(pre) });
        }
        let component = deserialize_component(engine, &path).map_err(damaged)?;
        let pre = self.linkers.of(&self.engines, facts.concurrent).and_then(|linker| linker::link(linker, &component));
        let pre = pre.map_err(damaged)?;
        Program::new(trigger, facts.concurrent, pre).map_err(damaged)
    }
}

/// Makes the working directory the folder in which relative paths begin, if it lies in a folder of the workload: most
/// guests have no other notion of one. Answers what is wrong with it.
fn add_working_folder(cwd: &str, folders: &mut Vec<Folder>) -> Option<String> {
    use rustix::fs::{Mode, OFlags, ResolveFlags};
    if cwd.is_empty() || cwd == "/" {
        return None;
    }
    let (folder, rest) = folders
        .iter()
        .filter_map(|folder| Some((folder, Path::new(cwd).strip_prefix(&folder.target).ok()?)))
        .max_by_key(|(folder, _)| folder.target.len())?;
    if folders.iter().any(|folder| folder.target == "/") {
        // Both would be the folder of paths that begin with `/`, and guests take the wrong one.
        return Some(format!("the working directory {cwd} has no effect where a folder is mounted at /"));
    }
    let path = if rest.as_os_str().is_empty() { Path::new(".") } else { rest };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Links in it are the guests' work.
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&folder.open, path, flags, Mode::empty(), resolve) {
        Ok(open) => {
            let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
            let read_only = folder.read_only;
            folders.push(Folder { target: ".".to_owned(), read_only, path, open });
            None
        }
        Err(error) => Some(format!("the working directory {cwd} cannot be used: {error}")),
    }
}

#[expect(unsafe_code, reason = "the one place where code compiled by ourselves is mapped")]
fn deserialize_component(engine: &Engine, path: &std::path::Path) -> wasmtime::Result<wasmtime::component::Component> {
    // SAFETY: the file was copied by the daemon from what `bireme-wasm-host compile` of this build had written, into a
    // folder that only the daemon can write to, and its checksum was compared by the daemon.
    unsafe { wasmtime::component::Component::deserialize_file(engine, path) }
}

#[expect(unsafe_code, reason = "the one place where code compiled by ourselves is mapped")]
fn deserialize_module(engine: &Engine, path: &std::path::Path) -> wasmtime::Result<wasmtime::Module> {
    // SAFETY: as in `deserialize_component`.
    unsafe { wasmtime::Module::deserialize_file(engine, path) }
}
