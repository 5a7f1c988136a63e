//! The second fence: what a guest may cost its host, what a host may reach, and that any of them can be ended.

use std::path::Path;

use bireme_core::spec::{Mount, MountSource, Propagation, Signal};
use bireme_core::{ErrorKind, Exit, Program};
use bireme_wasm::{HOST_UID, HOST_UIDS};

use crate::common::{Deployed, LIMIT, Rig, bytes, host_peak, host_said, program, status, text, until};

/// A component whose `run` does `body`, with what it imports. `memory` is four pages of the core module.
pub(crate) fn command(imports: &str, lowered: &str, core: &str, body: &str) -> String {
    format!(
        r#"(component
            {imports}
            (core module $store (memory (export "memory") 4))
            (core instance $m (instantiate $store))
            (core module $main
                {core}
                (import "m" "memory" (memory 4))
                (data (i32.const 64) "localhost")
                (func (export "run") (result i32) (local $n i32) (local $first i32) {body}))
            (core instance $i (instantiate $main (with "m" (instance $m)) (with "i" (instance {lowered}))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $r (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $r)))"#
    )
}

/// Looks a name up until it holds as many handles as it may, then asks for one more: a pollable.
fn fills_its_table() -> String {
    let imports = r#"
        (import "wasi:sockets/network@0.2.0" (instance $network
            (export "network" (type (sub resource)))
            (type $codes (enum "unknown" "access-denied" "not-supported" "invalid-argument" "out-of-memory" "timeout"
                "concurrency-conflict" "not-in-progress" "would-block" "invalid-state" "new-socket-limit"
                "address-not-bindable" "address-in-use" "remote-unreachable" "connection-refused" "connection-reset"
                "connection-aborted" "datagram-too-large" "name-unresolvable" "temporary-resolver-failure"
                "permanent-resolver-failure"))
            (export "error-code" (type (eq $codes)))))
        (alias export $network "network" (type $net))
        (alias export $network "error-code" (type $code))
        (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:sockets/instance-network@0.2.0" (instance $own
            (alias outer 1 $net (type $n0))
            (export "network" (type $n (eq $n0)))
            (export "instance-network" (func (result (own $n))))))
        (import "wasi:sockets/ip-name-lookup@0.2.0" (instance $lookup
            (alias outer 1 $net (type $n0))
            (alias outer 1 $code (type $c0))
            (alias outer 1 $pollable (type $p0))
            (export "network" (type $n (eq $n0)))
            (export "error-code" (type $c (eq $c0)))
            (export "pollable" (type $p (eq $p0)))
            (export "resolve-address-stream" (type $stream (sub resource)))
            (export "resolve-addresses"
                (func (param "network" (borrow $n)) (param "name" string) (result (result (own $stream) (error $c)))))
            (export "[method]resolve-address-stream.subscribe"
                (func (param "self" (borrow $stream)) (result (own $p))))))"#;
    let lowered = r#"
        (export "net" (func $net_lowered)) (export "resolve" (func $resolve)) (export "subscribe" (func $subscribe))"#;
    let lower = r#"
        (core func $net_lowered (canon lower (func $own "instance-network")))
        (core func $subscribe (canon lower (func $lookup "[method]resolve-address-stream.subscribe")))"#;
    let core = r#"
        (import "i" "net" (func $net (result i32)))
        (import "i" "resolve" (func $resolve (param i32 i32 i32 i32)))
        (import "i" "subscribe" (func $subscribe (param i32) (result i32)))"#;
    let body = r#"
        (local.set $n (call $net))
        (call $resolve (local.get $n) (i32.const 64) (i32.const 9) (i32.const 0))
        (local.set $first (i32.load (i32.const 4)))
        (loop $again
            (call $resolve (local.get $n) (i32.const 64) (i32.const 9) (i32.const 0))
            (br_if $again (i32.eqz (i32.load8_u (i32.const 0)))))
        (drop (call $subscribe (local.get $first)))
        (i32.const 0)"#;
    let resolve =
        r#"(core func $resolve (canon lower (func $lookup "resolve-addresses") (memory (core memory $m "memory"))))"#;
    command(imports, lowered, core, body).replace("(core module $main", &format!("{lower}{resolve}(core module $main"))
}

/// Makes sets of HTTP fields of `size` bytes each for as long as it is let.
fn hoards_fields(size: u32) -> String {
    let imports = r#"
        (import "wasi:http/types@0.2.0" (instance $http
            (export "fields" (type $f (sub resource)))
            (type $errors (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
            (export "header-error" (type $e (eq $errors)))
            (export "[static]fields.from-list" (func (param "entries" (list (tuple string (list u8))))
                (result (result (own $f) (error $e)))))))"#;
    let make =
        r#"(core func $make (canon lower (func $http "[static]fields.from-list") (memory (core memory $m "memory"))))"#;
    let core = r#"(import "i" "make" (func $make (param i32 i32 i32)))"#;
    // One entry: its name is the "l" of "localhost", its value the letters from 1024 on.
    let body = format!(
        r#"
        (memory.fill (i32.const 1024) (i32.const 97) (i32.const {size}))
        (i32.store (i32.const 16) (i32.const 64)) (i32.store (i32.const 20) (i32.const 1))
        (i32.store (i32.const 24) (i32.const 1024)) (i32.store (i32.const 28) (i32.const {size}))
        (local.set $n (i32.const 200000))
        (loop $again
            (call $make (i32.const 16) (i32.const 1) (i32.const 0))
            (local.set $n (i32.sub (local.get $n) (i32.const 1)))
            (br_if $again (i32.and (i32.eqz (i32.load8_u (i32.const 0))) (local.get $n))))
        unreachable"#
    );
    command(imports, r#"(export "make" (func $make))"#, core, &body)
        .replace("(core module $main", &format!("{make}(core module $main"))
}

/// Asks for all keys of its store again and again and keeps what it is given: two handles each time.
fn hoards_keys() -> String {
    r#"(component
        (import "spin:key-value/key-value@3.0.0" (instance $kv
            (export "store" (type $s (sub resource)))
            (type $errors (variant (case "store-table-full") (case "no-such-store") (case "access-denied")
                (case "other" string)))
            (export "error" (type $e (eq $errors)))
            (export "[static]store.open" (func async (param "label" string) (result (result (own $s) (error $e)))))
            (type $end (result (error $e)))
            (type $keys (stream string))
            (type $ended (future $end))
            (export "[method]store.get-keys"
                (func async (param "self" (borrow $s)) (result (tuple $keys $ended))))))
        (core module $store (memory (export "memory") 4)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
        (core instance $m (instantiate $store))
        (core func $open (canon lower (func $kv "[static]store.open") (memory (core memory $m "memory")) (realloc (core func $m "realloc"))))
        (core func $keys (canon lower (func $kv "[method]store.get-keys") (memory (core memory $m "memory"))))
        (core module $main
            (import "i" "open" (func $open (param i32 i32 i32)))
            (import "i" "keys" (func $keys (param i32 i32)))
            (import "m" "memory" (memory 4))
            (data (i32.const 64) "default")
            (func (export "run") (result i32) (local $store i32)
                (call $open (i32.const 64) (i32.const 7) (i32.const 0))
                (if (i32.load8_u (i32.const 0)) (then (return (i32.const 1))))
                (local.set $store (i32.load (i32.const 4)))
                (loop $again
                    (call $keys (local.get $store) (i32.const 0))
                    (br $again))
                unreachable))
        (core instance $i (instantiate $main (with "m" (instance $m))
            (with "i" (instance (export "open" (func $open)) (export "keys" (func $keys))))))
        (func $run async (result (result)) (canon lift (core func $i "run")))
        (instance $r (export "run" (func $run)))
        (export "wasi:cli/run@0.3.0" (instance $r)))"#
        .to_owned()
}

async fn run(rig: &Rig, program: &Program, memory: Option<u64>) -> Deployed {
    let mut spec = rig.spec("attack", &[]);
    spec.resources.memory = memory;
    rig.run_on(spec, program, ([127, 0, 0, 1], 1).into(), None).await.unwrap()
}

async fn ended(deployed: &Deployed) -> Exit {
    tokio::time::timeout(LIMIT, deployed.workload.wait()).await.expect("it ends").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_table_of_handles_ends_the_guest_and_breaks_nothing() {
    let rig = Rig::new();
    for component in [fills_its_table(), hoards_keys()] {
        let deployed = run(&rig, &text(&rig, &component), None).await;
        let exit = ended(&deployed).await;
        assert_eq!(exit.code, 134, "{exit:?} {}", deployed.log());
        let (log, said) = (deployed.log(), host_said(&rig));
        assert!(log.contains("failed: ") && !log.contains("the host process failed"), "{log}");
        assert!(!said.contains("panicked"), "a guest can make the host panic: {said}");
        deployed.workload.delete().await.unwrap();
    }
}

/// The same in every interface of ours that gives out handles: the guest is told, and goes on with those that it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_table_of_handles_is_an_answer_in_every_interface_of_ours() {
    let rig = Rig::new();
    let redis = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", redis.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in redis.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                use std::io::{Read as _, Write as _};
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    // One answer for each command.
                    let commands = buffer[..length].split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"*"));
                    let _ = stream.write_all(&b"+OK\r\n".repeat(commands.count()));
                }
            });
        }
    });
    let hoard = format!("/hoard-redis?{url}");
    for (guest, path, told) in [
        ("keyvalue", "/draft/hoard?default", "true Error::Other(\""),
        ("keyvalue", "/draft2/hoard?default", "true Error::Other(\""),
        ("spin2", "/hoard", "StoreTableFull"),
        ("spin2", &hoard, "TooManyConnections"),
        ("spin3", "/hoard", "StoreTableFull"),
    ] {
        let mut spec = rig.spec(guest, &[("bireme.allow", url.as_str())]);
        spec.resources.memory = Some(32 << 20);
        let deployed = rig.run(spec, guest).await;
        let answer = deployed.get(path);
        let count = answer.body.split(' ').next().and_then(|count| count.parse::<u32>().ok());
        assert!(
            count.is_some_and(|count| (100..4096).contains(&count)),
            "{guest}{path}: {answer:?} {}",
            deployed.log()
        );
        assert!(answer.body.contains(told), "{guest}{path}: {answer:?}");
        if path.contains("draft") {
            assert!(answer.body.ends_with(" true"), "{guest}{path}: {answer:?}");
        }
        assert!(!host_said(&rig).contains("panicked"), "{guest}{path}: {}", host_said(&rig));
        assert_eq!(deployed.get("/elsewhere").body, "no /elsewhere here");
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_host_holds_for_a_guest_counts_against_its_limit() {
    let rig = Rig::new();
    // With 16 MiB a set of fields may have 16 KiB: the first are refused one by one, the second when they are too many.
    for size in [100_000, 15_000] {
        let deployed = run(&rig, &text(&rig, &hoards_fields(size)), Some(16 << 20)).await;
        ended(&deployed).await;
        assert!(host_peak(&rig) < 160, "the host of a component with 16 MiB had {} MiB", host_peak(&rig));
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reaching_the_memory_limit_says_so() {
    let rig = Rig::new();
    let greedy = text(
        &rig,
        r#"(component
            (core module $main (memory 1)
                (func (export "run") (result i32)
                    (if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then unreachable))
                    (i32.const 0)))
            (core instance $i (instantiate $main))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $r (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $r)))"#,
    );
    let deployed = run(&rig, &greedy, Some(16 << 20)).await;
    let exit = ended(&deployed).await;
    assert_eq!((exit.code, exit.oom_killed), (137, true), "{exit:?}");
    deployed.logged("it reached its memory limit: it may have 16 MiB (docker run --memory, mem_limit)");
    deployed.workload.delete().await.unwrap();
    let deployed = run(&rig, &greedy, Some(128 << 20)).await;
    let exit = ended(&deployed).await;
    assert_eq!((exit.code, exit.oom_killed), (0, false), "{exit:?}");
    deployed.workload.delete().await.unwrap();

    let mut spec = rig.spec("hog", &[]);
    spec.resources.memory = Some(16 << 20);
    let http = rig.run(spec, "probe").await;
    assert_eq!(http.get("/hog").status, 500);
    http.logged("GET /hog failed: it reached its memory limit: it may have 16 MiB");
    assert_eq!(http.get("/").status, 200, "the next instance has its own");
    http.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_a_user_processes_and_files_of_its_own() {
    let rig = Rig::new();
    let one = rig.run(rig.spec("one", &[]), "hello").await;
    let other = rig.run(rig.spec("other", &[]), "hello").await;
    let hosts = [&one, &other].map(|deployed| deployed.workload.pid().unwrap());
    let users = hosts.map(|pid| {
        let ids: Vec<u32> = status(pid, "Uid").split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(status(pid, "Gid"), status(pid, "Uid"));
        assert_eq!(status(pid, "Groups"), "");
        ids[0]
    });
    assert_ne!(users[0], users[1], "two apps have two users");
    for (pid, user) in hosts.into_iter().zip(users) {
        assert!((HOST_UIDS.0..HOST_UIDS.0 + HOST_UIDS.1).contains(&user) && user != HOST_UID, "{user}");
        assert_eq!(status(pid, "CapPrm"), "0000000000000000");
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        assert_eq!(status(pid, "Seccomp"), "2");
        assert!(status(pid, "NSpid").ends_with("\t1"), "the first of its processes: {}", status(pid, "NSpid"));
        assert_eq!(std::fs::read(format!("/proc/{pid}/environ")).unwrap(), b"", "an empty environment");
        let list = |folder: &str| {
            let mut names: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/root{folder}"))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(list("/"), ["etc", "kv", "proc"]);
        assert_eq!(list("/etc"), ["hosts", "resolv.conf"]);
        let processes: Vec<String> = list("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok()).collect();
        assert_eq!(processes, ["1"]);
        assert!(!Path::new(&format!("/proc/{pid}/root/proc/sys")).exists(), "nothing of the machine");
    }
    for deployed in [one, other] {
        assert_eq!(deployed.get("/").status, 200);
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_ends_what_its_host_does_not() {
    let rig = Rig::new();
    let deployed = rig.run(rig.spec("stuck", &[]), "hello").await;
    let pid = rustix::process::Pid::from_raw(deployed.workload.pid().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    deployed.workload.signal(Signal::KILL).await.unwrap();
    let exit = ended(&deployed).await;
    assert_eq!(exit.code, 137, "{exit:?}");
    deployed.workload.delete().await.unwrap();
    until("the host's end", || !rig.options.exec_root.join("w").read_dir().unwrap().any(|_| true));
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_kept_under_the_digest_of_what_was_compiled() {
    let rig = Rig::new();
    let (Program::Component { digest, .. }, Program::Component { path: other, .. }) =
        (program("hello"), program("command"))
    else {
        unreachable!()
    };
    let claimed = Program::Component { path: other, digest: digest.clone(), files: Vec::new() };
    use bireme_core::Executor as _;
    let refused = rig.executor.check(&rig.spec("liar", &[]), &claimed).await.expect_err("it lies");
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.message().contains(&digest) && refused.message().contains("damaged or exchanged"), "{refused}");
    // The next one gets what it says.
    let deployed = rig.run(rig.spec("honest", &[]), "hello").await;
    assert_eq!(deployed.get("/").status, 200);
    deployed.workload.delete().await.unwrap();
}

/// A module that opens `file` of its first folder to read it, and asks for it to be cut to nothing; its exit code is what
/// it is answered.
fn truncating_reader() -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let mut section = |id: u8, content: &[u8]| {
        module.extend([id, u8::try_from(content.len()).unwrap()]);
        module.extend_from_slice(content);
    };
    // (i32 ×5, i64 ×2, i32 ×2) -> i32, (i32) -> (), () -> ()
    let open = [0x60, 9, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7e, 0x7e, 0x7f, 0x7f, 1, 0x7f];
    section(1, &[&[3], &open[..], &[0x60, 1, 0x7f, 0, 0x60, 0, 0]].concat());
    let import = |name: &[u8], kind: u8| [&b"\x16wasi_snapshot_preview1"[..], &[9], name, &[0, kind]].concat();
    section(2, &[&[2], &import(b"path_open", 0)[..], &import(b"proc_exit", 1)].concat());
    section(3, &[1, 2]);
    section(5, &[1, 0, 1]);
    section(7, b"\x02\x06memory\x02\0\x06_start\0\x02");
    // path_open(3, 0, "file", TRUNC, FD_READ, 0, 0, 100), whose answer proc_exit gets.
    let body = [
        0, 0x41, 3, 0x41, 0, 0x41, 0, 0x41, 4, 0x41, 8, 0x42, 2, 0x42, 0, 0x41, 0, 0x41, 0xe4, 0, 0x10, 0, 0x10, 1,
        0x0b,
    ];
    section(10, &[&[1, u8::try_from(body.len()).unwrap()], &body[..]].concat());
    section(11, b"\x01\0\x41\0\x0b\x04file");
    module
}

/// RUSTSEC-2026-0149: cutting a file counts as writing to it, also for whoever opens it to read.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_folder_keeps_its_files_from_being_cut() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    let module = bytes(&rig, &truncating_reader());
    for (read_only, left) in [(true, "whole"), (false, "")] {
        std::fs::write(folder.join("file"), "whole").unwrap();
        let mut spec = rig.spec("cutter", &[]);
        let source = MountSource::Bind { path: folder.clone(), propagation: Propagation::Private, recursive: true };
        spec.mounts = vec![Mount { source, target: "/data".to_owned(), read_only }];
        let deployed = rig.run_on(spec, &module, ([127, 0, 0, 1], 1).into(), None).await.unwrap();
        assert_eq!(ended(&deployed).await.code == 0, !read_only);
        assert_eq!(std::fs::read_to_string(folder.join("file")).unwrap(), left);
        deployed.workload.delete().await.unwrap();
    }
}
