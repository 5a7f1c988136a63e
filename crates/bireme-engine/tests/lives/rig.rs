//! A machine, the folders of an engine, and one engine after the other on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bireme_core::spec::{Port, Protocol, Signal};
use bireme_core::{Executor, WorkloadId};
use bireme_engine::request::{
    ContainerFilter, CreateNetwork, CreateRequest, EndpointRequest, LogRequest, NetworkModeRequest, PoolRequest,
    Publish, RemoveRequest, StopRequest, Unfinished, Update, WaitCondition,
};
use bireme_engine::view::WorkloadView;
use bireme_engine::{Engine, EngineError, EngineOptions};
use bireme_image::{Image, ImageConfig, ImageStore, RegistrySettings};
use bireme_testing::fake::{FakeExecutor, FakeNet, Machine};
use tokio::runtime::{Builder, Runtime};

use crate::check;
use crate::script::{Fate, Form, NETWORKS, Network, Op, SLOTS, Step};

/// Longer than any back-off and any patience of the engine after one fault.
pub(crate) const SETTLED: Duration = Duration::from_secs(600);
/// What a network has for workloads.
const ADDRESSES: usize = 5;
/// No operation takes so long, not even one that waits for what does not end.
const ENDLESS: Duration = Duration::from_secs(300);

pub(crate) struct Rig {
    pub(crate) machine: Machine,
    pub(crate) listens: bool,
    root: tempfile::TempDir,
    /// A fault was planned for a call that never came.
    pub(crate) unreached: bool,
    /// All was taken down, by the engine that had done the last step.
    is_down: bool,
}

/// In memory where there is such a folder: each change is synced.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

pub(crate) fn network(number: usize) -> String {
    format!("n{number}")
}

impl Rig {
    pub(crate) fn new(listens: bool) -> Self {
        let rig = Self { machine: Machine::default(), listens, root: folder(), unreached: false, is_down: false };
        std::fs::create_dir(rig.layer()).unwrap();
        runtime().block_on(async {
            let engine = rig.open().await;
            for number in 0..NETWORKS {
                let subnet = format!("10.9.{number}.0/29");
                let pools = vec![PoolRequest { subnet: Some(subnet), ..PoolRequest::default() }];
                let request = CreateNetwork { name: network(number), pools, ..CreateNetwork::default() };
                engine.create_network(request).await.unwrap();
            }
        });
        rig
    }

    async fn open(&self) -> Engine {
        let root = self.root.path();
        let images = ImageStore::open(&root.join("images"), RegistrySettings::default()).await.unwrap();
        let executor: Arc<dyn Executor> = Arc::new(FakeExecutor::new(&self.machine, self.listens));
        let options = EngineOptions {
            data_root: root.join("data"),
            exec_root: root.join("exec"),
            instance: "0123abcd".to_owned(),
            images,
            net: Arc::new(FakeNet::new(&self.machine)),
            executors: vec![executor],
            log: LogRequest::default(),
        };
        Engine::open(options).await.unwrap()
    }

    /// The one layer of the image, in which nothing is.
    fn layer(&self) -> PathBuf {
        self.root.path().join("layer")
    }

    pub(crate) fn data_root(&self) -> PathBuf {
        self.root.path().join("data")
    }

    pub(crate) fn exec_root(&self) -> PathBuf {
        self.root.path().join("exec")
    }

    /// One engine, from its start to its death or to the end of `steps`. Answers how many steps it took, the one over
    /// which it died included.
    pub(crate) fn live(&mut self, steps: &[Step]) -> usize {
        self.machine.revive();
        let runtime = runtime();
        runtime.block_on(async {
            let engine = self.open().await;
            self.machine.forgive();
            let known: Vec<String> = views(&engine).iter().map(|view| view.id().to_owned()).collect();
            for (number, step) in steps.iter().enumerate() {
                if let Fate::Fault(calls, fault) = step.fate {
                    self.machine.plan(calls, fault);
                }
                let done = async {
                    let told = tokio::time::timeout(ENDLESS, self.perform(&engine, &step.op)).await;
                    let result = told.unwrap_or_else(|_| panic!("{:?} does not come to an end", step.op));
                    if step.must {
                        result.unwrap_or_else(|error| panic!("{:?}: {error}", step.op));
                    }
                };
                // Whatever follows from it is part of the step.
                let follows = || tokio::time::sleep(Duration::from_millis(10));
                let died = tokio::select! {
                    biased;
                    () = self.machine.death() => true,
                    () = async {
                        // Whoever asked leaves, and what was asked is dropped.
                        tokio::select! {
                            biased;
                            () = self.machine.departure() => {}
                            () = done => {}
                        }
                        follows().await;
                    } => false,
                };
                self.unreached |= self.machine.unplan();
                if died || matches!(step.op, Op::Close) {
                    return number + 1;
                }
            }
            tokio::time::sleep(SETTLED).await;
            check::events(&engine, &known);
            // What a failed call should have given back, the next engine does.
            if self.machine.world().unreleased.is_empty() {
                self.take_down(&engine).await;
                self.is_down = true;
            }
            steps.len()
        })
    }

    /// A last engine, which finds nothing left, and takes down what an earlier one could not.
    pub(crate) fn end(&mut self) {
        self.machine.revive();
        runtime().block_on(async {
            let engine = self.open().await;
            if !self.is_down {
                tokio::time::sleep(SETTLED).await;
                self.take_down(&engine).await;
            }
            engine.close().await;
            let world = self.machine.world();
            assert!(world.networks.is_empty(), "networks stay on the machine");
            assert_eq!(world.breaches, Vec::<String>::new());
        });
    }

    /// What there is is what the engine says; once all is removed, nothing is left of it, and nothing is taken.
    async fn take_down(&self, engine: &Engine) {
        check::machine(self, engine);
        remove_all(engine).await;
        // What is left of names and addresses is all there was: a network has five, and the sixth is refused.
        let all = Form { network: Network::All, ..Form::default() };
        for slot in 0..=ADDRESSES {
            self.create(engine, slot, &all).await.unwrap();
            let started = engine.start(&format!("c{slot}")).await;
            assert_eq!(started.is_ok(), slot < ADDRESSES, "{slot}: {started:?}");
        }
        remove_all(engine).await;
        check::nothing_left(self, engine).await;
    }

    /// Does what is asked, of a workload that is there.
    async fn perform(&self, engine: &Engine, op: &Op) -> Result<(), EngineError> {
        let find = |slot: &usize| id_of(engine, *slot);
        match op {
            Op::Create { slot, form } => match find(slot) {
                Some(_) => Ok(()),
                None => self.create(engine, *slot, form).await,
            },
            Op::Sleep { secs } => {
                tokio::time::sleep(Duration::from_secs(*secs)).await;
                Ok(())
            }
            Op::Close => {
                engine.close().await;
                Ok(())
            }
            Op::Start { slot }
            | Op::Stop { slot }
            | Op::Kill { slot }
            | Op::Restart { slot }
            | Op::Pause { slot }
            | Op::Unpause { slot }
            | Op::Rename { slot, .. }
            | Op::Connect { slot, .. }
            | Op::Disconnect { slot, .. }
            | Op::Policy { slot, .. }
            | Op::Remove { slot, .. }
            | Op::Exit { slot, .. } => match find(slot) {
                Some(id) => self.with(engine, &id, op).await,
                None => Ok(()),
            },
        }
    }

    async fn with(&self, engine: &Engine, id: &WorkloadId, op: &Op) -> Result<(), EngineError> {
        let name = id.as_str();
        match op {
            Op::Start { .. } => engine.start(name).await,
            Op::Stop { .. } => engine.stop(name, StopRequest::default()).await,
            Op::Kill { .. } => engine.kill(name, Signal::KILL).await,
            Op::Restart { .. } => engine.restart(name, StopRequest::default()).await,
            Op::Pause { .. } => engine.pause(name).await,
            Op::Unpause { .. } => engine.unpause(name).await,
            Op::Rename { to, .. } => engine.rename(name, &format!("c{to}")).await,
            Op::Connect { network: number, .. } => {
                engine.connect(&network(*number), name, EndpointRequest::default()).await
            }
            Op::Disconnect { network: number, .. } => engine.disconnect(&network(*number), name, false).await,
            Op::Policy { restart, .. } => {
                let change = Update { restart: Some(*restart), ..Update::default() };
                engine.update(name, change).await.map(drop)
            }
            Op::Remove { force, .. } => engine.remove(name, RemoveRequest { force: *force, volumes: true }).await,
            Op::Exit { code, .. } => {
                let told = engine.wait(name, WaitCondition::NextExit)?;
                if self.machine.exit(id, *code) {
                    let ended = told.await?;
                    assert_eq!(ended.code, *code, "another end was told than the one it had");
                }
                Ok(())
            }
            Op::Create { .. } | Op::Sleep { .. } | Op::Close => Ok(()),
        }
    }

    async fn create(&self, engine: &Engine, slot: usize, form: &Form) -> Result<(), EngineError> {
        let mut request = CreateRequest {
            name: Some(format!("c{slot}")),
            image: "fake".to_owned(),
            unfinished: Some(Unfinished { image: image(), layers: vec![self.layer()], keep: true }),
            command: Some(vec!["run".to_owned()]),
            labels: BTreeMap::from([
                ("slot".to_owned(), slot.to_string()),
                ("com.docker.compose.project".to_owned(), "app".to_owned()),
            ]),
            restart: form.restart,
            auto_remove: form.auto_remove,
            stop_timeout: Some(Duration::from_secs(2)),
            ..CreateRequest::default()
        };
        let one = |number: usize| (network(number), EndpointRequest::default());
        match &form.network {
            Network::Bridge => {}
            Network::None => request.network_mode = NetworkModeRequest::None,
            Network::One(number) => request.networks = BTreeMap::from([one(*number)]),
            Network::All => request.networks = (0..NETWORKS).map(one).collect(),
            Network::Of(other) => match id_of(engine, *other) {
                Some(id) => request.network_mode = NetworkModeRequest::Workload(id.to_string()),
                None => return Ok(()),
            },
        }
        if form.publish && matches!(form.network, Network::Bridge | Network::One(_) | Network::All) {
            let container = Port { number: 80, protocol: Protocol::Tcp };
            request.publish = vec![Publish { container, host_ip: Some([127, 0, 0, 1].into()), host_ports: None }];
        }
        if form.volume {
            request.volumes = vec!["/data".to_owned()];
        }
        let made = Box::pin(engine.create(request)).await?;
        if form.stubborn {
            self.machine.world().stubborn.insert(made.id);
        }
        Ok(())
    }
}

fn image() -> Image {
    Image {
        id: format!("sha256:{}", "0".repeat(64)).parse().unwrap(),
        references: vec!["fake:latest".to_owned()],
        repo_digests: Vec::new(),
        created: None,
        size: 0,
        platform: "linux/amd64".parse().unwrap(),
        config: ImageConfig::default(),
        author: None,
        comment: None,
        history: Vec::new(),
        layer_sizes: Vec::new(),
        diff_ids: Vec::new(),
        artifact_type: None,
        last_tagged: None,
    }
}

async fn remove_all(engine: &Engine) {
    for view in views(engine) {
        engine.remove(view.id(), RemoveRequest { force: true, volumes: true }).await.unwrap();
    }
}

/// All workloads there are.
pub(crate) fn views(engine: &Engine) -> Vec<WorkloadView> {
    engine.list(&ContainerFilter { all: true, ..ContainerFilter::default() }).unwrap()
}

/// The workload that was made for a slot.
fn id_of(engine: &Engine, slot: usize) -> Option<WorkloadId> {
    assert!(slot < SLOTS);
    let of_slot = |view: &WorkloadView| view.config.spec.labels["slot"] == slot.to_string();
    views(engine).into_iter().find(of_slot).map(|view| view.config.spec.id.clone())
}
