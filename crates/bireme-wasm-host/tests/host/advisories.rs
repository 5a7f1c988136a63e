//! What wasmtime was found to let guests do to their host since version 38, tried on ours. SECURITY.md has the list.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use bireme_core::Program;
use bireme_core::spec::{Mount, MountSource, Propagation};

use crate::common::{Deployed, LIMIT, Rig, host_peak, host_said, peak, program, text};
use crate::fence::command;

pub(crate) fn bind(path: &Path, target: &str, read_only: bool) -> Mount {
    let source = MountSource::Bind { path: path.into(), propagation: Propagation::Private, recursive: true };
    Mount { source, target: target.to_owned(), read_only }
}

async fn start(rig: &Rig, program: &Program, words: &[&str], mounts: Vec<Mount>, memory: Option<u64>) -> Deployed {
    let mut spec = rig.spec("attack", &[]);
    spec.args.extend(words.iter().map(|word| (*word).to_owned()));
    spec.mounts = mounts;
    spec.resources.memory = memory;
    rig.run_on(spec, program, ([127, 0, 0, 1], 1).into(), None).await.unwrap()
}

/// Runs a guest to its end: its exit code and its log.
async fn run(rig: &Rig, guest: &str, words: &[&str], mounts: Vec<Mount>) -> (i32, String) {
    let deployed = start(rig, &program(guest), words, mounts, None).await;
    let exit = tokio::time::timeout(LIMIT, deployed.workload.wait()).await.expect("it ends").unwrap();
    let log = deployed.log();
    deployed.workload.delete().await.unwrap();
    (exit.code, log)
}

fn unharmed(rig: &Rig, deployed: &Deployed) {
    assert!(!host_said(rig).contains("panicked"), "a guest made the host panic: {}", host_said(rig));
    assert!(!deployed.log().contains("the host process failed"), "{}", deployed.log());
}

/// RUSTSEC-2026-0020 (GHSA-852m-cvvp-9p4w): handles without end, buffers as large as the guest says.
#[tokio::test(flavor = "multi_thread")]
async fn rustsec_2026_0020_no_call_takes_what_the_guest_says_from_the_host() {
    let rig = Rig::new();
    let mut spec = rig.spec("greedy", &[]);
    spec.resources.memory = Some(32 << 20);
    let probe = rig.run(spec, "probe").await;
    let pid = probe.workload.pid().unwrap();
    assert_eq!(probe.get("/random?1000").body, "1000");
    for path in ["/random?100000000000", "/random?18446744073709551615", "/random?30000000", "/pollables"] {
        assert_eq!(probe.get(path).status, 500, "{path}");
    }
    assert!(peak(pid) < 200, "the host had {} MiB", peak(pid));
    unharmed(&rig, &probe);
    assert_eq!(probe.get("/").status, 200);
    probe.workload.delete().await.unwrap();
}

/// RUSTSEC-2026-0021 (GHSA-243v-98vx-264h): more fields than a set can have made the host panic.
#[tokio::test(flavor = "multi_thread")]
async fn rustsec_2026_0021_a_set_of_fields_is_full_at_its_limit() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("fields", &[]), "probe").await;
    for prefix in ["x", "some-longer-name-"] {
        assert_eq!(probe.get(&format!("/fields?{prefix}")).status, 500, "{}", probe.log());
    }
    probe.logged("GET /fields failed: ");
    assert_eq!(probe.get("/").status, 200);
    unharmed(&rig, &probe);
    probe.workload.delete().await.unwrap();
}

/// RUSTSEC-2026-0182 (GHSA-3p27-qvp9-27qf): descriptors that a guest of preview 1 put in the place of others stayed open.
#[tokio::test(flavor = "multi_thread")]
async fn rustsec_2026_0182_descriptors_that_are_replaced_are_closed() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "x").unwrap();
    let words = ["renumber", "/data/file", "20000"];
    let mounts = vec![bind(&folder, "/data", false)];
    let deployed = start(&rig, &program("command-p1"), &words, mounts, None).await;
    deployed.logged("done\n");
    let pid = deployed.workload.pid().unwrap();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert!(open < 200, "{open} descriptors are open");
    deployed.workload.delete().await.unwrap();
}

/// RUSTSEC-2026-0188 (GHSA-4ch3-9j33-3pmj): links and renames into a folder that may only be read.
#[tokio::test(flavor = "multi_thread")]
async fn rustsec_2026_0188_nothing_is_linked_or_renamed_into_what_may_only_be_read() {
    let rig = Rig::new();
    let base = rig.dir.path().join("base");
    for folder in ["kept", "open"] {
        std::fs::create_dir_all(base.join(folder)).unwrap();
        std::fs::write(base.join(folder).join("file"), folder).unwrap();
    }
    let mounts = || vec![bind(&base.join("kept"), "/kept", true), bind(&base.join("open"), "/open", false)];
    for guest in ["command", "command-p1"] {
        for words in [
            ["hard-link", "/open/file", "/kept/twin"],
            ["hard-link", "/open/file", "/kept/file"],
            ["rename", "/open/file", "/kept/file"],
            ["rename", "/open/file", "/kept/new"],
            ["hard-link", "/kept/file", "/open/twin"],
        ] {
            let (code, log) = run(&rig, guest, &words, mounts()).await;
            assert_ne!(code, 0, "{guest} {words:?}: {log}");
        }
        assert_eq!(std::fs::read_dir(base.join("kept")).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(base.join("kept/file")).unwrap(), "kept");
        assert_eq!(std::fs::read_to_string(base.join("open/file")).unwrap(), "open");
    }
}

/// RUSTSEC-2026-0223 (GHSA-2hw9-mc66-jc2q): what is interrupted within one large operation is not gone on with.
#[tokio::test(flavor = "multi_thread")]
async fn rustsec_2026_0223_what_is_cut_in_the_middle_of_an_operation_is_thrown_away() {
    let rig = Rig::new();
    let body = r#"
        (local.set $n (i32.const 0))
        (loop $again
            (drop (memory.grow (i32.const 8)))
            (memory.copy (i32.const 4096) (i32.const 0) (i32.const 200000))
            (memory.fill (i32.const 4096) (i32.const 7) (i32.const 200000))
            (br $again))
        (i32.const 0)"#;
    let endless = text(&rig, &command("", "", "", body).replace(r#"(with "i" (instance ))"#, ""));
    let spec = |name: &str, labels: &[(&str, &str)]| {
        let mut spec = rig.spec(name, labels);
        spec.app = Some("bulk".to_owned());
        spec.args.extend(["echo".to_owned(), "whole".to_owned()]);
        spec
    };
    for _ in 0..3 {
        let cut = spec("cut", &[("bireme.timeout", "200ms")]);
        let cut = rig.run_on(cut, &endless, ([127, 0, 0, 1], 1).into(), None).await.unwrap();
        assert_eq!(cut.workload.wait().await.unwrap().code, 124, "{}", cut.log());
        // The next of the same process takes its place.
        let next = rig.run(spec("next", &[]), "command").await;
        assert_eq!(next.workload.wait().await.unwrap().code, 0);
        assert_eq!(next.log(), "whole\n");
        unharmed(&rig, &cut);
        next.workload.delete().await.unwrap();
        cut.workload.delete().await.unwrap();
    }
}

/// RUSTSEC-2026-0268 and -0269, one half (GHSA-x84v-gj2h-g759): one write to a stream of WASI 0.3 had the host allocate
/// as much as the guest said.
#[tokio::test(flavor = "multi_thread")]
async fn rustsec_2026_0268_a_large_write_is_taken_in_parts() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    for guest in ["command", "command-p1", "command3"] {
        // The guest itself has this in its memory.
        let words = ["flood", "/data/file", "67108864"];
        let deployed = start(&rig, &program(guest), &words, vec![bind(&folder, "/data", false)], None).await;
        let exit = tokio::time::timeout(LIMIT, deployed.workload.wait()).await.expect("it ends").unwrap();
        assert_eq!(exit.code, 0, "{guest}: {}", deployed.log());
        assert!(host_peak(&rig) < 64 + 64 + 60, "{guest}: the host had {} MiB", host_peak(&rig));
        assert_eq!(std::fs::metadata(folder.join("file")).unwrap().len(), 64 << 20);
        deployed.workload.delete().await.unwrap();
    }
}

/// RUSTSEC-2026-0268 and -0269, the other half (GHSA-vqjp-4c8c-hfgg), and GHSA-m9f7-9w4p-gv38: a slash at the end of a
/// path, or of what a link says, led out of the folder.
#[tokio::test(flavor = "multi_thread")]
async fn rustsec_2026_0269_a_slash_at_the_end_leads_nowhere_else() {
    let rig = Rig::new();
    let base = rig.dir.path().join("base");
    std::fs::create_dir_all(base.join("open/sub")).unwrap();
    std::fs::create_dir_all(base.join("outside/inner")).unwrap();
    std::fs::write(base.join("outside/secret"), "not to be read").unwrap();
    let outside = base.join("outside");
    let links = [
        ("up", ".."),
        ("up-slash", "../"),
        ("far", "../outside"),
        ("far-slash", "../outside/"),
        ("absolute", outside.to_str().unwrap()),
        ("chain", "far-slash/"),
        ("file-slash", "../outside/secret/"),
        ("round", "sub/../../outside/"),
    ];
    let reset = || {
        for (name, to) in links {
            let _ = std::fs::remove_file(base.join("open").join(name));
            std::os::unix::fs::symlink(to, base.join("open").join(name)).unwrap();
        }
    };
    let names = |folder: &Path| {
        let mut names: Vec<String> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for guest in ["command", "command-p1", "command3"] {
        let attempt = async |words: &[&str]| {
            let (_, log) = run(&rig, guest, words, vec![bind(&base.join("open"), "/open", false)]).await;
            for told in ["not to be read", "secret", "inner", "a folder"] {
                assert!(!log.contains(told), "{guest} {words:?} saw the outside: {log}");
            }
            assert_eq!(names(&base), ["open", "outside"], "{guest} {words:?}");
            assert_eq!(names(&outside), ["inner", "secret"], "{guest} {words:?}");
            assert_eq!(std::fs::read_to_string(outside.join("secret")).unwrap(), "not to be read", "{guest} {words:?}");
        };
        reset();
        // One instance costs little, a process more: the worst of each kind.
        for name in ["up-slash", "far", "far-slash", "absolute", "chain", "round"] {
            let path = format!("/open/{name}/");
            attempt(&["stat", &path]).await;
            attempt(&["read", &format!("{path}secret")]).await;
            attempt(&["write", &format!("{path}secret"), "overwritten"]).await;
            if guest != "command3" {
                attempt(&["list", &path]).await;
                attempt(&["mkdir", &format!("{path}new/")]).await;
                attempt(&["rmdir", &format!("{path}inner/")]).await;
                attempt(&["rename", &format!("{path}secret"), "/open/stolen"]).await;
            }
        }
        for path in ["/open/file-slash", "/open/file-slash/", "/open/up/outside/secret/"] {
            attempt(&["read", path]).await;
            attempt(&["write", path, "overwritten"]).await;
        }
        if guest != "command3" {
            for (from, to) in [
                ("/open/far/", "/open/moved"),
                ("/open/far-slash/", "/open/moved/"),
                ("/open/sub/", "/open/far-slash/"),
                ("/open/sub/", "/open/up-slash/brought/"),
                ("/open/sub", "/open/far/inner/"),
                ("/open/up/outside/", "/open/taken/"),
            ] {
                attempt(&["rename", from, to]).await;
                reset();
                let _ = std::fs::create_dir(base.join("open/sub"));
            }
        }
    }
}

/// GHSA-5qpp-g3j2-8frx: a path that is an address of its own went to the server that is allowed, as if it were a proxy.
#[tokio::test(flavor = "multi_thread")]
async fn ghsa_5qpp_a_request_names_no_other_server_than_the_allowed() {
    let rig = Rig::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let (lines, seen) = mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in server.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap_or(0);
            let _ = lines.send(String::from_utf8_lossy(&head[..length]).into_owned());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let allow = format!("http://{address}");
    let probe = rig.run(rig.spec("sender", &[("bireme.allow", allow.as_str())]), "probe").await;
    assert_eq!(probe.get(&format!("/target?{address},/plain")).body, "ok");
    assert!(seen.recv_timeout(LIMIT).unwrap().starts_with("GET /plain HTTP/1.1\r\n"));
    for path in ["http://other.example/x", "//other.example/x", "other.example/x", "@other.example/", "http:/x", "*"] {
        let answer = probe.get(&format!("/target?{address},{path}"));
        if answer.status == 200 {
            let head = seen.recv_timeout(LIMIT).unwrap();
            let line = head.lines().next().unwrap_or_default();
            assert!(line.starts_with("GET /") || line == "GET * HTTP/1.1", "{path} became {line:?}");
            assert!(head.to_lowercase().contains(&format!("host: {address}")), "{path}: {head}");
        }
    }
    unharmed(&rig, &probe);
    probe.workload.delete().await.unwrap();
}

/// GHSA-w4qr-p94g-mjhv: a timeout of zero made the host panic.
#[tokio::test(flavor = "multi_thread")]
async fn ghsa_w4qr_no_time_at_all_is_an_error_of_the_guest() {
    let rig = Rig::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let allow = format!("http://{address}");
    let probe = rig.run(rig.spec("hasty", &[("bireme.allow", allow.as_str())]), "probe").await;
    for _ in 0..5 {
        let answer = probe.get(&format!("/hasty?{address}"));
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.body.contains("Timeout"), "{answer:?}");
    }
    unharmed(&rig, &probe);
    drop(server);
    probe.workload.delete().await.unwrap();
}

/// GHSA-mr2v-56j5-cmfc: a file from before 1970 made the host panic when a guest asked for its times.
#[tokio::test(flavor = "multi_thread")]
async fn ghsa_mr2v_files_may_be_older_than_the_clock() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("old"), "old").unwrap();
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(86_400 * 365);
    let times = std::fs::FileTimes::new().set_modified(before).set_accessed(before);
    std::fs::File::options().write(true).open(folder.join("old")).unwrap().set_times(times).unwrap();
    for guest in ["command", "command-p1", "command3"] {
        let deployed =
            start(&rig, &program(guest), &["stat", "/data/old"], vec![bind(&folder, "/data", true)], None).await;
        tokio::time::timeout(LIMIT, deployed.workload.wait()).await.expect("it ends").unwrap();
        unharmed(&rig, &deployed);
        deployed.workload.delete().await.unwrap();
    }
}

/// GHSA-r8xh-cgf7-392j: an answer with two lengths lets whoever is in between take a part of it for another answer.
#[tokio::test(flavor = "multi_thread")]
async fn ghsa_r8xh_an_answer_has_one_length() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("lengths", &[]), "probe").await;
    let (got, _) = crate::common::raw(probe.address, "GET /lengths HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(got.to_lowercase().matches("content-length").count() <= 1, "{got}");
    probe.workload.delete().await.unwrap();
}

/// GHSA-5m8g-xhq4-4h93 and GHSA-f8mm-ggr3-89wh: nothing, written often, filled the host's memory.
#[tokio::test(flavor = "multi_thread")]
async fn ghsa_5m8g_writing_nothing_costs_nothing() {
    let rig = Rig::new();
    for guest in ["probe", "probe3"] {
        let mut spec = rig.spec("idle", &[("bireme.timeout", "10s")]);
        spec.resources.memory = Some(32 << 20);
        let probe = rig.run(spec, guest).await;
        let pid = probe.workload.pid().unwrap();
        let mut client = std::net::TcpStream::connect(probe.address).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        client.write_all(b"GET /nothings?30000000 HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        // Until its limit ends it.
        let _ = client.read_to_end(&mut Vec::new());
        assert!(peak(pid) < 100, "{guest}: the host had {} MiB", peak(pid));
        unharmed(&rig, &probe);
        probe.workload.delete().await.unwrap();
    }
}

/// GHSA-q554-3cjc-rx7p: a component's own handles were charged to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn ghsa_q554_a_components_own_handles_have_a_limit() {
    let rig = Rig::new();
    let hoard = text(
        &rig,
        r#"(component
            (type $r (resource (rep i32)))
            (core func $new (canon resource.new $r))
            (core module $main
                (import "i" "new" (func $new (param i32) (result i32)))
                (func (export "run") (result i32)
                    (loop $again (drop (call $new (i32.const 1))) (br $again))
                    (i32.const 0)))
            (core instance $i (instantiate $main (with "i" (instance (export "new" (func $new))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $r2 (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $r2)))"#,
    );
    let deployed = start(&rig, &hoard, &[], Vec::new(), Some(16 << 20)).await;
    let exit = tokio::time::timeout(LIMIT, deployed.workload.wait()).await.expect("it ends").unwrap();
    assert_eq!(exit.code, 134, "{exit:?} {}", deployed.log());
    assert!(host_peak(&rig) < 160, "the host had {} MiB", host_peak(&rig));
    unharmed(&rig, &deployed);
    deployed.workload.delete().await.unwrap();
}
