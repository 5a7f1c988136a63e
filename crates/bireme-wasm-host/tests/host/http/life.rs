//! From the check of a component to the end of its host.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use bireme_core::ErrorKind;
use bireme_core::Executor as _;
use bireme_core::spec::{Mount, MountSource, Propagation, Signal};

use crate::common::{Rig, futures_now, get, program, text, until};

#[tokio::test(flavor = "multi_thread")]
async fn serving_goes_on_while_daemons_come_and_go() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("steady", &[]), "probe").await;
    let (going, served) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let client = std::thread::spawn({
        let (going, served, address) = (Arc::clone(&going), Arc::clone(&served), probe.address);
        move || {
            while going.load(Ordering::Relaxed) {
                assert_eq!(get(address, "/").status, 200);
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let pid = probe.workload.pid();
    let known = probe.known();
    for _ in 0..3 {
        let before = served.load(Ordering::Relaxed);
        let executor = rig.second_executor();
        let again = executor.reattach(probe.known()).await.unwrap();
        assert_eq!(again.pid(), pid);
        executor.sweep(std::slice::from_ref(&probe.spec.id), &[]).await;
        drop((again, executor));
        until("more requests", || served.load(Ordering::Relaxed) > before + 5);
    }
    going.store(false, Ordering::Relaxed);
    client.join().unwrap();

    // Ended while no daemon looked: the next one finds how.
    let executor = rig.second_executor();
    let again = executor.reattach(known).await.unwrap();
    again.signal(Signal::TERM).await.unwrap();
    assert_eq!(again.wait().await.unwrap().code, 0);
    let third = rig.second_executor().reattach(probe.known()).await.unwrap();
    assert_eq!(third.wait().await.unwrap().code, 0);
    executor.sweep(&[], &[]).await;
    let record = rig.second_executor().reattach(probe.known()).await.err();
    assert!(record.is_none() || record.unwrap().kind() == ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_is_under_way() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("polite", &[]), "probe").await;
    let address = probe.address;
    let under_way = std::thread::spawn(move || get(address, "/sleep?500").status);
    until("an instance at work", || !futures_now(probe.workload.processes("")).rows.is_empty());
    probe.workload.signal(Signal::TERM).await.unwrap();
    let exit = probe.workload.wait().await.unwrap();
    assert_eq!((exit.code, under_way.join().unwrap()), (0, 200));
    assert_eq!(probe.get("/").status, 503);
    assert_eq!(probe.workload.signal(Signal::TERM).await.err().unwrap().kind(), ErrorKind::Conflict);
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_component_is_cut_off() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("cut", &[]), "probe").await;
    let address = probe.address;
    let under_way = std::thread::spawn(move || get(address, "/sleep").status);
    until("an instance at work", || !futures_now(probe.workload.processes("")).rows.is_empty());
    probe.workload.signal(Signal::KILL).await.unwrap();
    assert_eq!(probe.workload.wait().await.unwrap().code, 137);
    assert_eq!(under_way.join().unwrap(), 503);
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_host_is_the_end_of_its_components() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("orphan", &[]), "probe").await;
    let pid = rustix::process::Pid::from_raw(probe.workload.pid().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let exit = probe.workload.wait().await.unwrap();
    assert_eq!(exit.code, 137);
    assert!(exit.error.unwrap().contains("host process died"));
    assert!(probe.workload.pid().is_none());
    let found = rig.second_executor().reattach(probe.known()).await.unwrap();
    assert_eq!(found.wait().await.unwrap().code, 137, "the next daemon finds the same end");
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_no_rights() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("fenced", &[]), "probe").await;
    let pid = probe.workload.pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let user: u32 = line("Uid:").split('\t').next().unwrap().parse().unwrap();
    let users = bireme_wasm::HOST_UIDS;
    assert!((users.0..users.0 + users.1).contains(&user), "{user}");
    assert_eq!(line("CapEff:"), "0000000000000000");
    assert_eq!(line("CapPrm:"), "0000000000000000");
    assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"));
    let mut root: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/root"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    root.sort();
    assert_eq!(root, ["etc", "kv", "proc"]);
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_refused_at_check_by_name() {
    let rig = Rig::new();
    let spec = rig.spec("refused", &[]);
    let check = async |program: bireme_core::Program| rig.executor.check(&spec, &program).await.err().unwrap();
    let unknown = r#"(component
        (import "acme:rockets/launch@1.0.0" (instance (export "go" (func))))
        (import "wasi:http/types@0.4.0" (instance)))"#;
    let error = check(text(&rig, unknown)).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("acme:rockets/launch@1.0.0"), "{error}");
    assert!(
        error.message().contains("wasi:http/types@0.4.0 (version 0.4.0 is not offered; 0.2.x and 0.3.x is)"),
        "{error}"
    );
    let nothing = check(text(&rig, "(component)")).await;
    assert!(nothing.message().contains("exports none of"), "{nothing}");
    let garbage = check(text(&rig, "\0\0\0\0nonsense")).await;
    assert_eq!(garbage.kind(), ErrorKind::Invalid, "{garbage}");
    let module = check(text(&rig, r#"(component (core module (func (export "x"))))"#)).await;
    assert_eq!(module.kind(), ErrorKind::Unsupported);

    let mut spec = rig.spec("pty", &[]);
    spec.tty = true;
    let error = rig.executor.check(&spec, &program("hello")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let spec = rig.spec("subscriber", &[("bireme.redis.subscribe", "redis://x/c")]);
    let error = rig.executor.check(&spec, &program("hello")).await.err().unwrap();
    assert!(error.message().contains("bireme.redis.subscribe"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_compiled_once_and_again_when_damaged() {
    let rig = Rig::new();
    let hello = program("hello");
    rig.executor.check(&rig.spec("a", &[]), &hello).await.unwrap();
    let cache = rig.options.data_root.join("wasm/cache");
    let code = std::fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .unwrap();
    let made = std::fs::metadata(&code).unwrap().modified().unwrap();
    rig.second_executor().check(&rig.spec("b", &[]), &hello).await.unwrap();
    assert_eq!(std::fs::metadata(&code).unwrap().modified().unwrap(), made, "it was compiled twice");

    // Seen by the next daemon.
    std::fs::write(&code, b"rubbish").unwrap();
    rig.second_executor().check(&rig.spec("c", &[]), &hello).await.unwrap();
    assert!(std::fs::metadata(&code).unwrap().len() > 1000);
    // Seen by the host, of a daemon that believes it sound.
    std::fs::write(&code, b"rubbish").unwrap();
    let run = rig.run(rig.spec("d", &[]), "hello").await;
    assert_eq!(run.get("/").status, 200);
    run.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_folder_leaves_nothing_behind() {
    let rig = Rig::new();
    let mut spec = rig.spec("homeless", &[]);
    let source =
        MountSource::Bind { path: "/does/not/exist".into(), propagation: Propagation::Private, recursive: true };
    spec.mounts = vec![Mount { source, target: "/data".to_owned(), read_only: false }];
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let error = rig.run_on(spec, &program("hello"), address, Some(socket)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(std::fs::read_dir(rig.options.exec_root.join("w")).unwrap().count(), 0);
}
