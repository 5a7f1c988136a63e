//! Commands: components of WASI 0.2 and core modules of preview 1 that run and end.

use crate::common::{Rig, until};
use bireme_core::Executor as _;
use bireme_core::spec::{Mount, MountSource, Propagation, Signal};

/// Runs `guest` with `args` and answers its exit code and log.
async fn run(rig: &Rig, guest: &str, args: &[&str], env: &[&str], mounts: Vec<Mount>) -> (i32, String) {
    let mut spec = rig.spec("command", &[]);
    spec.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    spec.env = env.iter().map(|pair| (*pair).to_owned()).collect();
    spec.mounts = mounts;
    let deployed = rig.run(spec, guest).await;
    let exit = deployed.workload.wait().await.unwrap();
    let log = deployed.log();
    deployed.workload.delete().await.unwrap();
    (exit.code, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_with_their_own_code() {
    let rig = Rig::new();
    for guest in ["command", "command-p1"] {
        assert_eq!(run(&rig, guest, &["echo", "a", "b c"], &[], vec![]).await, (0, "a b c\n".to_owned()), "{guest}");
        assert_eq!(run(&rig, guest, &["env", "X"], &["X=y=z"], vec![]).await, (0, "y=z\n".to_owned()));
        assert_eq!(run(&rig, guest, &["stdin"], &[], vec![]).await, (0, "0 bytes\n".to_owned()));
        let (code, log) = run(&rig, guest, &["panic"], &[], vec![]).await;
        assert_eq!(code, 134, "{log}");
        assert!(log.contains("as asked") && log.contains("it trapped"), "{log}");
        assert_eq!(run(&rig, guest, &["partial"], &[], vec![]).await.0, 0);
    }
    assert_eq!(run(&rig, "command-p1", &["exit", "7"], &[], vec![]).await.0, 7);
    // WASI 0.2 knows only success and failure for what a program answers with.
    assert_eq!(run(&rig, "command", &["exit", "0"], &[], vec![]).await.0, 0);
    assert_ne!(run(&rig, "command", &["exit", "7"], &[], vec![]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_given_and_read_only_is_kept() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("volume");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("greeting"), "hello").unwrap();
    let mount = |read_only| {
        let source = MountSource::Bind { path: folder.clone(), propagation: Propagation::Private, recursive: true };
        vec![Mount { source, target: "/data".to_owned(), read_only }]
    };
    for guest in ["command", "command-p1"] {
        assert_eq!(run(&rig, guest, &["read", "/data/greeting"], &[], mount(true)).await, (0, "hello\n".to_owned()));
        let (code, log) = run(&rig, guest, &["write", "/data/new", "x"], &[], mount(true)).await;
        assert_ne!(code, 0, "{log}");
        assert!(!folder.join("new").exists());
        let (code, log) = run(&rig, guest, &["write", "/data/new", "x"], &[], mount(false)).await;
        assert_eq!(code, 0, "{log}");
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(std::fs::metadata(folder.join("new")).unwrap().uid(), 0, "stored as root's, as a container does");
        std::fs::remove_file(folder.join("new")).unwrap();
        assert_ne!(run(&rig, guest, &["read", "/data/../../etc/passwd"], &[], mount(true)).await.0, 0);
        assert_ne!(run(&rig, guest, &["read", "/etc/passwd"], &[], vec![]).await.0, 0);
    }
    let memory = Mount {
        source: MountSource::Tmpfs { size: Some(1 << 20), mode: None, options: Vec::new() },
        target: "/tmp".to_owned(),
        read_only: false,
    };
    assert_eq!(run(&rig, "command", &["write", "/tmp/x", "y"], &[], vec![memory]).await, (0, "written\n".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_command_is_stopped_and_killed() {
    let rig = Rig::new();
    for (signal, code) in [(Signal::TERM, 143), (Signal::KILL, 137)] {
        for what in ["loop", "sleep"] {
            let mut spec = rig.spec("endless", &[]);
            spec.args.push(what.to_owned());
            let deployed = rig.run(spec, "command").await;
            until("an instance", || {
                let processes = deployed.workload.processes("");
                !tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(processes))
                    .unwrap()
                    .rows
                    .is_empty()
            });
            deployed.workload.signal(signal).await.unwrap();
            assert_eq!(deployed.workload.wait().await.unwrap().code, code);
            deployed.workload.delete().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_is_written_whole_and_in_order() {
    let rig = Rig::new();
    let (code, log) = run(&rig, "command", &["spam", "20000"], &[], vec![]).await;
    assert_eq!(code, 0);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 20_000);
    assert!(lines.iter().enumerate().all(|(n, line)| line.starts_with(&format!("line {n} "))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_with_foreign_imports_is_refused_by_name() {
    let rig = Rig::new();
    let bytes = foreign_module();
    let path = rig.dir.path().join("m.wasm");
    std::fs::write(&path, &bytes).unwrap();
    let digest = format!("sha256:{:x}", <sha2::Sha256 as sha2::Digest>::digest(&bytes));
    let program = bireme_core::Program::Component { path, digest };
    let error = rig.executor.check(&rig.spec("m", &[]), &program).await.err().unwrap();
    assert!(error.message().contains("env.launch"), "{error}");
}

/// `(module (import "env" "launch" (func)) (func (export "_start")))`
fn foreign_module() -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.extend([1, 4, 1, 0x60, 0, 0]);
    bytes.extend([2, 14, 1, 3]);
    bytes.extend(b"env");
    bytes.push(6);
    bytes.extend(b"launch");
    bytes.extend([0, 0]);
    bytes.extend([3, 2, 1, 0]);
    bytes.extend([7, 10, 1, 6]);
    bytes.extend(b"_start");
    bytes.extend([0, 1]);
    bytes.extend([10, 4, 1, 2, 0, 0x0b]);
    bytes
}
