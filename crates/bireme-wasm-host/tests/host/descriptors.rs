//! What guests open counts against the descriptors of their host, which keeps some for itself.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use bireme_core::WorkloadSpec;
use bireme_core::spec::{Mount, MountSource, Propagation};
use bireme_wasm::WasmExecutor;

use crate::common::{Deployed, LIMIT, Rig, program, until};

/// A rig whose host processes may have `most` descriptors each.
fn frugal(most: u32) -> Rig {
    let mut rig = Rig::new();
    let script = rig.dir.path().join("host.sh");
    let text = format!("#!/bin/sh\nulimit -n {most}\nexec {} \"$@\"\n", rig.options.host.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    rig.options.host = script;
    rig.executor = WasmExecutor::new(rig.options.clone());
    rig
}

/// A folder with a file, mounted at `/data`.
fn with_folder(rig: &Rig, mut spec: WorkloadSpec) -> WorkloadSpec {
    let folder = rig.dir.path().join("data");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["file", "one", "two", "three", "four", "five"] {
        std::fs::write(folder.join(name), "content").unwrap();
    }
    let source = MountSource::Bind { path: folder, propagation: Propagation::Private, recursive: true };
    spec.mounts = vec![Mount { source, target: "/data".to_owned(), read_only: true }];
    spec
}

/// Accepts on a port of its own, and says nothing.
fn silent() -> String {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in server.incoming().map_while(Result::ok) {
            held.push(stream);
        }
    });
    address.to_string()
}

/// Has an instance open as many of `kind` as it may and keep them for `millis`: how many, and why no more.
async fn hoard(deployed: &Deployed, kind: &str, millis: u64, place: &str) -> (usize, String) {
    // Requests are refused one by one, when each is to be sent.
    let count = if kind == "http" { 400 } else { 5000 };
    let (address, path) = (deployed.address, format!("/{}/hoard?{kind},{count},{millis},{place}", deployed.spec.name));
    let answer = tokio::task::spawn_blocking(move || crate::common::get(address, &path)).await.unwrap();
    if answer.status == 500 {
        // Not even its folder could be opened.
        deployed.logged("its folders cannot be opened");
        return (0, String::new());
    }
    assert_eq!(answer.status, 200, "{kind}: {answer:?} {}", deployed.log());
    let (count, why) = answer.body.split_once(' ').unwrap();
    (count.parse().unwrap(), why.to_owned())
}

fn open_now(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

const KINDS: [(&str, &str, &str); 11] = [
    ("probe", "tcp", "newsocketlimit"),
    ("probe", "udp", "newsocketlimit"),
    ("probe", "file", "insufficientmemory"),
    ("probe", "stream", "insufficientmemory"),
    ("probe", "http", "connectionlimitreached"),
    ("probe3", "tcp", "outofmemory"),
    ("probe3", "udp", "outofmemory"),
    ("probe3", "file", "insufficientmemory"),
    ("probe3", "stream", "insufficientmemory"),
    ("probe3", "receive", "outofmemory"),
    ("probe3", "folder", "insufficientmemory"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_opens_all_it_can_leaves_its_host_what_it_needs() {
    let rig = frugal(512);
    let server = silent();
    let allow = format!("http://{server},tcp://{server}");
    for (guest, kind, why) in KINDS {
        let spec = with_folder(&rig, rig.spec("greedy", &[("bireme.allow", &allow), ("bireme.timeout", "60s")]));
        let deployed = rig.run(spec, guest).await;
        let pid = deployed.workload.pid().unwrap();
        let before = open_now(pid);
        let place = if ["http", "receive"].contains(&kind) { server.as_str() } else { "" };
        let (count, told) = hoard(&deployed, kind, 40_000, place).await;
        // Bindings of both generations write names in their own way.
        assert!(told.replace('-', "").to_lowercase().contains(why), "{guest} {kind}: {told}");
        assert!((16..200).contains(&count), "{guest} {kind}: {count}");
        assert!(open_now(pid) >= before + count, "{guest} {kind}: {count} of {before} and {}", open_now(pid));
        // Another instance has a share of its own, while the first still has all of its.
        let (more, _) = hoard(&deployed, kind, 0, place).await;
        assert!(more >= 8, "{guest} {kind}: {more} after {count}");
        // Whoever connects is accepted, and the daemon is answered.
        for _ in 0..40 {
            assert_eq!(deployed.get("/").status, 200, "{guest} {kind}");
        }
        let asked = deployed.workload.as_invocations().unwrap().invocations();
        tokio::time::timeout(LIMIT, asked).await.unwrap().unwrap();
        deployed.logged("descriptors");
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_opens_all_it_can_leaves_the_others_of_its_app_their_share() {
    let rig = frugal(512);
    let app = |name: &str, route: &str| {
        let mut spec = with_folder(&rig, rig.spec(name, &[("bireme.http.route", route), ("bireme.timeout", "60s")]));
        spec.app = Some("shared".to_owned());
        spec
    };
    for guest in ["probe", "probe3"] {
        let greedy = rig.run(app("greedy", "/greedy/..."), guest).await;
        let modest = rig.run_on(app("modest", "/modest/..."), &program(guest), greedy.address, None).await.unwrap();
        assert_eq!(greedy.workload.pid(), modest.workload.pid(), "one process serves the app");
        let mut all = 0;
        for _ in 0..12 {
            all += hoard(&greedy, "file", 40_000, "").await.0;
        }
        let mut left = 0;
        for _ in 0..12 {
            left += hoard(&modest, "tcp", 40_000, "").await.0;
        }
        assert!(all < 128 && left > 32, "{guest}: the one has {all}, the other {left}");
        // What ends gives back what it had.
        greedy.workload.delete().await.unwrap();
        modest.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_closed_or_ends_is_given_back() {
    let rig = frugal(512);
    let server = silent();
    let allow = format!("http://{server},tcp://{server}");
    for guest in ["probe", "probe3"] {
        let spec = with_folder(&rig, rig.spec("busy", &[("bireme.allow", &allow), ("bireme.timeout", "60s")]));
        let deployed = rig.run(spec, guest).await;
        let answer = deployed.get(&format!("/churn?300,{server}"));
        assert_eq!(answer.status, 200, "{guest}: {}", deployed.log());
        let pid = deployed.workload.pid().unwrap();
        for (_, kind, _) in KINDS.iter().filter(|(of, ..)| *of == guest) {
            let place = if ["http", "receive"].contains(kind) { server.as_str() } else { "" };
            let (first, _) = hoard(&deployed, kind, 0, place).await;
            for _ in 0..10 {
                until("they are closed", || open_now(pid) < 100);
                // The count may be back a moment later than the descriptor.
                tokio::time::sleep(Duration::from_millis(20)).await;
                let (again, _) = hoard(&deployed, kind, 0, place).await;
                assert_eq!(again, first, "{guest} {kind}");
            }
        }
        deployed.workload.delete().await.unwrap();
    }
}

async fn command(rig: &Rig, guest: &str, words: &[&str]) -> (i32, String) {
    let mut spec = with_folder(rig, rig.spec(guest, &[]));
    spec.args.extend(words.iter().map(|word| (*word).to_owned()));
    let deployed = rig.run_on(spec, &program(guest), ([127, 0, 0, 1], 1).into(), None).await.unwrap();
    let exit = tokio::time::timeout(LIMIT, deployed.workload.wait()).await.expect("it ends").unwrap();
    let log = deployed.log();
    deployed.workload.delete().await.unwrap();
    (exit.code, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_told_when_it_may_open_no_more() {
    let rig = frugal(512);
    let file = Path::new("/data/file").to_str().unwrap();
    for (guest, why) in [("command", "Out of memory"), ("command-p1", "No file descriptors available")] {
        let (code, said) = command(&rig, guest, &["hoard", file, "5000"]).await;
        let count: usize = said.lines().find_map(|line| line.split(' ').next()?.parse().ok()).unwrap_or_default();
        assert!(code == 0 && (16..200).contains(&count) && said.contains(why), "{guest}: {code} {said}");
        let (code, said) = command(&rig, guest, &["churn", file, "3000"]).await;
        assert!(code == 0 && said.contains("done"), "{guest}: {code} {said}");
    }
}
