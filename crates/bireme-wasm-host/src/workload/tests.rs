use std::collections::BTreeMap;
use std::net::SocketAddr;

use bireme_core::spec::{Dns, Namespaces, Resources, Security, Signal};
use bireme_core::{Labels, WorkloadId, WorkloadKind, WorkloadSpec};
use bireme_wasm::protocol::{Log, Trigger};

use super::*;
use crate::budget::Budget;
use crate::component::{NetworkIdentity, Shared};
use crate::embedded::Embedded;
use crate::engine::{Engines, Size};
use crate::host::tls::Trust;
use crate::linker;
use crate::log::LogHandle;
use crate::names::View;
use crate::neighbours::{Neighbour, Neighbours};
use crate::stock::Stock;

struct Alone;

impl Neighbours for Alone {
    fn inside(&self, _address: SocketAddr) -> Option<Arc<dyn Neighbour>> {
        None
    }

    fn named(&self, _: &str) -> Option<Arc<dyn Neighbour>> {
        None
    }

    fn beside(&self, _: &WorkloadId) -> Option<Arc<dyn Neighbour>> {
        None
    }
}

fn spec() -> WorkloadSpec {
    WorkloadSpec {
        id: WorkloadId::from_bytes([7; 32]),
        name: "test".to_owned(),
        kind: WorkloadKind::Component,
        app: None,
        service: None,
        image: "test".to_owned(),
        args: vec!["test".to_owned()],
        env: Vec::new(),
        cwd: "/".to_owned(),
        user: String::new(),
        hostname: String::new(),
        domainname: String::new(),
        tty: false,
        console_size: None,
        open_stdin: false,
        stdin_once: false,
        mounts: Vec::new(),
        resources: Resources::default(),
        security: Security::default(),
        namespaces: Namespaces::default(),
        extra_hosts: Vec::new(),
        dns: Dns::default(),
        shm_size: 0,
        init: false,
        stop_signal: Signal::TERM,
        stop_timeout: Duration::from_secs(10),
        ports: Vec::new(),
        bireme: Labels::default(),
        labels: BTreeMap::new(),
    }
}

/// A workload that is loaded, of a program that does nothing. To be called within a runtime.
fn workload() -> Arc<Workload> {
    let engine = Engines::new(Size::Compiling).unwrap().sequential;
    let module = wasmtime::Module::new(&engine, b"\0asm\x01\0\0\0").unwrap();
    let program = Program::CommandP1(linker::new_p1(&engine).unwrap().instantiate_pre(&module).unwrap());
    let (descriptors, threads) = (Stock::new(64), Stock::new(64));
    let shared = Shared {
        engine,
        embedded: Arc::new(Embedded::new("/nonexistent".into(), &descriptors)),
        neighbours: Arc::new(Alone),
        budget: Arc::new(Budget::new(1 << 30)),
        descriptors,
        threads,
        lookups: Arc::new(Semaphore::new(1)),
    };
    let log = LogHandle::start(Log { file: None, max_size: None, max_files: 1 }, None).unwrap();
    let identity = NetworkIdentity { addresses: Vec::new(), names: View::default(), tls: Trust::Public.config() };
    let component = Component::new(spec(), Trigger::CommandP1, log, Vec::new(), identity, shared);
    Arc::new(Workload::new(component, Arc::new(program)))
}

/// What was counted: started, alive, and ended in any way.
fn counts(workload: &Workload) -> (u64, u64, u64) {
    let metrics = &workload.component.metrics;
    let of = |count: &AtomicU64| count.load(Relaxed);
    let ended = of(&metrics.succeeded) + of(&metrics.failed) + of(&metrics.timed_out);
    (of(&metrics.started), of(&metrics.alive), ended)
}

#[tokio::test]
async fn what_is_refused_while_stopping_counts_as_nothing() {
    let workload = workload();
    // As one that waited for its place until just after the stop.
    let permit = Arc::clone(&workload.slots).try_acquire_owned().unwrap();
    workload.refuse_more();
    assert_eq!(workload.begin(permit, "late".into()).err(), Some(Refused::Stopping));
    assert_eq!(counts(&workload), (0, 0, 0));
    assert!(workload.instances().is_empty());
}

#[tokio::test]
async fn a_stop_waits_for_what_was_let_in_and_for_nothing_else() {
    let workload = workload();
    let invocation = workload.admit("early".into()).await.unwrap();
    let draining = Arc::clone(&workload);
    let drained = tokio::spawn(async move { draining.drain().await });
    workload.stopped().cancelled().await;
    assert_eq!(workload.admit("late".into()).await.err(), Some(Refused::Stopping));
    assert_eq!(workload.admit_waiting("late".into()).await.err(), Some(Refused::Stopping));
    assert_eq!(counts(&workload), (1, 1, 0));
    assert!(!drained.is_finished());
    drop(invocation);
    drained.await.unwrap();
    assert_eq!(counts(&workload), (1, 0, 1));
}
