//! The daemon's side: starts runners, finds them again, and clears up after those that were killed.

mod client;
mod create;
mod ending;
mod options;
mod orphans;
mod reattach;
mod top;
mod workload;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use bireme_core::executor::Known;
use bireme_core::spec::{NetworkMode, WorkloadKind};
use bireme_core::{
    BoxFuture, ErrorKind, ExecError, Executor, LabelError, Labels, Prepared, Program, SandboxId, Workload, WorkloadId,
    WorkloadSpec,
};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use self::options::LinuxOptions;
pub use self::orphans::runs;

use self::create::GivenUp;
use self::workload::Shared;
use crate::cgroup::Cgroup;

/// How many runners are started at once.
const SPAWNING: usize = 32;

/// Runs Linux containers, each by a `bireme-runner` of its own. To be used inside a tokio runtime.
pub struct LinuxExecutor {
    options: LinuxOptions,
    /// A copy of the runner that nobody can write to any more: a container sees the binary that made it as
    /// `/proc/self/exe` for a moment, and must not be able to change what starts the next one (CVE-2019-5736).
    program: Arc<OwnedFd>,
    /// Places for the threads that start runners.
    spawning: Arc<Semaphore>,
    /// Those alive, for namespaces that one shares with another.
    workloads: Mutex<HashMap<WorkloadId, Weak<Shared>>>,
    /// Attempts that were given up and are being cleared away.
    given_up: GivenUp,
}

impl LinuxExecutor {
    /// Reads the runner's binary once; one that is replaced later is used by the next executor.
    ///
    /// # Errors
    /// `Invalid` for a bad instance name; `Unavailable` when the binary cannot be read.
    pub fn new(options: LinuxOptions) -> Result<Self, ExecError> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if options.instance.is_empty() || options.instance.len() > 32 || !options.instance.bytes().all(plain) {
            let message = format!("instance name {:?} must be 1 to 32 letters, digits and '-'", options.instance);
            return Err(ExecError::new(ErrorKind::Invalid, message));
        }
        let program = bireme_sys::program::read_only_copy(&options.runner, "bireme-runner").map_err(|error| {
            let message = format!(
                "cannot load the container runner {}; set BIREME_LIBEXEC to its folder",
                options.runner.display()
            );
            ExecError::new(ErrorKind::Unavailable, message).caused_by(error)
        })?;
        let (program, spawning) = (Arc::new(program), Arc::new(Semaphore::new(SPAWNING)));
        Ok(Self { options, program, spawning, workloads: Mutex::default(), given_up: GivenUp::default() })
    }

    /// The cgroup below which all of this engine's are, unless a workload names another parent.
    fn parent_cgroup(&self) -> String {
        format!("/bireme-{}", self.options.instance)
    }

    fn cgroup_path(&self, spec: &WorkloadSpec) -> String {
        match spec.resources.cgroup_parent.as_deref().map(|parent| parent.trim_matches('/')) {
            None | Some("") => format!("{}/{}", self.parent_cgroup(), spec.id),
            Some(parent) => format!("/{parent}/{}", spec.id),
        }
    }

    fn remember(&self, shared: &Arc<Shared>) {
        let mut workloads = self.workloads.lock();
        workloads.retain(|_, known| known.strong_count() > 0);
        workloads.insert(shared.id().clone(), Arc::downgrade(shared));
    }
}

impl Executor for LinuxExecutor {
    fn kind(&self) -> WorkloadKind {
        WorkloadKind::Container
    }

    fn check<'a>(&'a self, spec: &'a WorkloadSpec, _program: &'a Program) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            if spec.bireme.allow.is_some() {
                // Accepted and not enforced, it would be a permission that is silently absent.
                return Err(ExecError::new(
                    ErrorKind::Unsupported,
                    format!(
                        "label bireme.allow is not offered for containers yet: put {} on an internal network instead",
                        spec.name
                    ),
                ));
            }
            Ok(crate::spec::check(spec)?)
        })
    }

    fn warnings(&self, spec: &WorkloadSpec) -> Vec<String> {
        crate::spec::warnings(spec)
    }

    fn sandbox(&self, spec: &WorkloadSpec) -> SandboxId {
        match &spec.namespaces.network {
            NetworkMode::Workload(other) => SandboxId::from(other),
            _ => SandboxId::from(&spec.id),
        }
    }

    fn takes_listeners(&self) -> bool {
        false
    }

    fn offers_exec(&self) -> bool {
        true
    }

    fn needs_command(&self) -> bool {
        true
    }

    fn mounts_at_root(&self) -> bool {
        false
    }

    fn completes_create(&self) -> bool {
        false
    }

    fn labels(
        &self,
        image: &BTreeMap<String, String>,
        request: &BTreeMap<String, String>,
    ) -> Result<Labels, LabelError> {
        let mut all = image.clone();
        all.extend(request.clone());
        Labels::parse(&all)
    }

    fn prewarm(&self) {
        // Not waited for: a start that fails in between has lost nothing.
        drop(tokio::task::spawn_blocking(crate::cgroup::warm));
    }

    fn close(&self) {
        Cgroup::new(&self.parent_cgroup()).remove_empty();
    }

    fn create(&self, work: Prepared) -> BoxFuture<'_, Result<Box<dyn Workload>, ExecError>> {
        Box::pin(self.create_now(work))
    }

    fn reattach<'a>(&'a self, known: Known<'a>) -> BoxFuture<'a, Result<Box<dyn Workload>, ExecError>> {
        Box::pin(self.reattach_now(known))
    }

    fn sweep<'a>(&'a self, known: &'a [WorkloadId], resting: &'a [&'a WorkloadSpec]) -> BoxFuture<'a, ()> {
        Box::pin(self.sweep_now(known, resting))
    }

    fn end<'a>(&'a self, id: &'a WorkloadId) -> BoxFuture<'a, Result<(), ExecError>> {
        let (own, name) = (format!("{}/{id}", self.parent_cgroup()), id.to_string());
        let instance = self.options.instance.clone();
        let ended = tokio::task::spawn_blocking(move || orphans::end_all_of(&name, own, &instance));
        Box::pin(async move {
            let ended = ended.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            ended.map_err(|error| ExecError::new(ErrorKind::Internal, format!("cannot end what runs of {id}: {error}")))
        })
    }
}
