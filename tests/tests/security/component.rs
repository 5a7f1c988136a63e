//! From a component: the second fence, and what a guest may ask of the host.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bireme_testing::{Engine, client, eventually, free_port};
use rustix::process::{Pid, Signal, kill_process};

/// The host process of a component that runs.
fn host(engine: &Engine, name: &str) -> u32 {
    let pid = engine.request("GET", &format!("/containers/{name}/json"), b"").json()["State"]["Pid"].as_u64();
    u32::try_from(pid.unwrap()).unwrap()
}

fn serve(engine: &Engine, name: &str, flags: &[&str], image: &str) -> u16 {
    let port = free_port();
    let publish = format!("{port}:80");
    let mut words = vec!["run", "-d", "--name", name, "--platform", "wasi/wasm", "-p", publish.as_str()];
    words.extend(flags);
    words.push(image);
    engine.docker(words).stdout();
    eventually("an answer", || client::tcp(port, "GET", "/", "", b"").ok().filter(|answer| answer.status != 503));
    port
}

/// The user of a process.
fn user(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_host_of_one_app_does_nothing_to_that_of_another() {
    let engine = Engine::start();
    engine.build_guest("probe", "probe");
    let (_, port) = (serve(&engine, "one", &[], "probe"), serve(&engine, "other", &[], "probe"));
    let (one, other) = (host(&engine, "one"), host(&engine, "other"));
    let attacker = user(one);
    assert!(attacker != 0 && attacker != user(other));
    // What someone could do who has taken the one host over: its user, its processes, nothing else.
    let does = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).uid(attacker).gid(attacker).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(does("kill", &["-0", &one.to_string()]), "to itself it may do what it likes");
    let victim = other.to_string();
    for signal in ["-0", "-TERM", "-STOP", "-KILL"] {
        assert!(!does("kill", &[signal, &victim]), "{signal} reached the other host");
    }
    for (program, secret) in [("cat", "environ"), ("cat", "mem"), ("cat", "maps"), ("ls", "root/kv/"), ("ls", "fd/")] {
        assert!(!does(program, &[&format!("/proc/{other}/{secret}")]), "/proc/{other}/{secret} can be read");
    }
    // In its own view of the machine there is no other process at all.
    let inside = Command::new("nsenter")
        .args(["--target", &one.to_string(), "--pid", "kill", "-0", &victim])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!inside.success(), "the other host is seen from inside");
    assert_eq!(client::tcp(port, "GET", "/", "", b"").unwrap().status, 200, "the other serves on");
    engine.docker(["rm", "-f", "one"]).stdout();
    assert_eq!(client::tcp(port, "GET", "/", "", b"").unwrap().status, 200, "and when the one is gone");
    engine.finish();
}

#[test]
fn reaching_the_memory_limit_is_told_as_a_container_tells_it() {
    let engine = Engine::start();
    engine.build_guest("command", "command");
    engine.build_guest("probe", "probe");
    let run = ["run", "--name", "greedy", "-m", "16m", "--platform", "wasi/wasm", "command", "flood", "/x", "67108864"];
    engine.docker(run).fails(137, "it reached its memory limit: it may have 16 MiB (docker run --memory, mem_limit)");
    let state = engine.request("GET", "/containers/greedy/json", b"").json()["State"].clone();
    assert_eq!((&state["OOMKilled"], &state["ExitCode"]), (&true.into(), &137.into()), "{state}");
    // One that answers requests loses the request and not itself.
    let port = serve(&engine, "server", &["-m", "16m"], "probe");
    let answer = client::tcp(port, "GET", "/hog", "", b"").unwrap();
    assert_eq!(answer.status, 500, "{}", answer.text());
    eventually("the limit in the log", || {
        let log = engine.docker(["logs", "server"]).stderr().to_owned();
        log.contains("GET /hog failed: it reached its memory limit: it may have 16 MiB").then_some(())
    });
    assert_eq!(client::tcp(port, "GET", "/", "", b"").unwrap().status, 200);
    engine.finish();
}

#[test]
fn rm_f_ends_anything() {
    let engine = Engine::start();
    engine.build_guest("command", "command");
    engine.build_guest("probe", "probe");
    let remove = |name: &str| {
        let begun = Instant::now();
        engine.docker(["rm", "-f", name]).stdout();
        assert!(begun.elapsed() < Duration::from_secs(30), "{name} took {:?}", begun.elapsed());
        assert_eq!(engine.request("GET", &format!("/containers/{name}/json"), b"").status, 404);
    };
    let signal = |pid: u32, signal| kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();

    engine.docker(["run", "-d", "--name", "spins", "--platform", "wasi/wasm", "command", "loop"]).stdout();
    remove("spins");

    // Requests that never end, as many as there are threads and more.
    let port = serve(&engine, "busy", &["--label", "bireme.timeout=1h"], "probe");
    let clients: Vec<_> =
        (0..8).map(|_| std::thread::spawn(move || drop(client::tcp(port, "GET", "/loop", "", b"")))).collect();
    eventually("instances at work", || {
        let shown = engine.docker(["top", "busy"]).stdout().lines().count();
        (shown > 4).then_some(())
    });
    remove("busy");
    for client in clients {
        client.join().unwrap();
    }

    serve(&engine, "stopped", &[], "probe");
    let stopped = host(&engine, "stopped");
    signal(stopped, Signal::STOP);
    remove("stopped");
    eventually("the end of its host process", || (!std::fs::exists(format!("/proc/{stopped}")).unwrap()).then_some(()));

    serve(&engine, "killed", &[], "probe");
    signal(host(&engine, "killed"), Signal::KILL);
    remove("killed");

    engine.docker(["run", "-d", "--name", "command", "--platform", "wasi/wasm", "command", "sleep"]).stdout();
    signal(host(&engine, "command"), Signal::STOP);
    remove("command");
    engine.finish();
}

/// Each lone component has a process of its own, and a port belongs to one process: sharing it is for those of one app.
#[test]
fn lone_components_share_no_port_and_those_of_an_app_do() {
    let engine = Engine::start();
    engine.build_guest("probe", "probe");
    engine.build_guest("hello", "hello");
    let port = free_port();
    let publish = format!("{port}:80");
    let run = |name: &str, image: &str, route: &str, project: Option<&str>| {
        let (route, label) =
            (format!("bireme.http.route={route}"), project.map(|p| format!("com.docker.compose.project={p}")));
        let mut words = vec!["run", "-d", "--name", name, "--platform", "wasi/wasm", "-p", &publish, "--label", &route];
        if let Some(label) = &label {
            words.extend(["--label", label]);
        }
        words.push(image);
        engine.docker(words)
    };
    run("one", "probe", "/one/...", None).stdout();
    let refused = run("two", "hello", "/two/...", None);
    refused.fails(125, "port is already allocated to a component of another app");
    refused.fails(125, "give both the same label com.docker.compose.project");
    engine.docker(["rm", "-f", "one", "two"]).stdout();
    run("one", "probe", "/one/...", Some("shared")).stdout();
    run("two", "hello", "/two/...", Some("shared")).stdout();
    for (path, body) in [("/one/x", "probe"), ("/two/x", "hello\n")] {
        let answer =
            eventually("an answer", || client::tcp(port, "GET", path, "", b"").ok().filter(|a| a.status == 200));
        assert_eq!(answer.text(), body);
    }
    assert_eq!(client::tcp(port, "GET", "/three", "", b"").unwrap().status, 404);
    engine.finish();
}

/// A container is held by its own device rules, and makes nodes all the same: whoever else has the volume opens none.
#[test]
fn no_device_node_in_a_shared_volume_is_opened() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("command", "command");
    // The kernel's memory of zeros, which nobody's rules allow a host, and one that they do.
    let make = "mkdir /v/part; for at in /v /v/part; do mknod -m 666 $at/zero c 1 5; mknod -m 666 $at/null c 1 3; done";
    engine.docker(["run", "--rm", "-v", "shared:/v", "busybox", "sh", "-c", make]).stdout();
    for mount in ["type=volume,src=shared,dst=/v", "type=volume,src=shared,dst=/v,volume-subpath=part"] {
        let run = |words: &[&str]| {
            let before = ["run", "--rm", "--platform", "wasi/wasm", "--mount", mount, "command"];
            engine.docker(before.iter().chain(words))
        };
        run(&["write", "/v/file", "text"]).stdout();
        for node in ["/v/zero", "/v/null"] {
            run(&["append", node, "text"]).fails(1, "Permission denied");
        }
    }
    // And the host's own cgroup has no device either, whatever it comes to see.
    serve_probe(&engine);
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", host(&engine, "probe"))).unwrap();
    if let Some(own) = cgroups.lines().find_map(|line| line.split_once(":devices:")) {
        let allowed = std::fs::read_to_string(format!("/sys/fs/cgroup/devices{}/devices.list", own.1)).unwrap();
        assert_eq!(allowed, "c 1:3 rw\nc 1:9 rw\n");
    }
    engine.finish();
}

/// Waits until a process is over, though perhaps not waited for by its parent.
fn ended(pid: u32) {
    eventually("the end of a host process", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        status.map_or(true, |text| text.contains("State:\tZ")).then_some(())
    });
}

fn serve_probe(engine: &Engine) {
    engine.build_guest("probe", "probe");
    serve(engine, "probe", &[], "probe");
}

/// With the engine's run folder emptied nothing of a host is left to ask: it is found by its cgroup.
#[test]
fn a_host_that_nobody_knows_of_does_not_outlive_the_next_start() {
    let mut engine = Engine::start();
    serve_probe(&engine);
    let pid = host(&engine, "probe");
    engine.crash();
    std::fs::remove_dir_all(engine.exec_root().join("w")).unwrap();
    engine.come_back();
    ended(pid);
    let state = engine.request("GET", "/containers/probe/json", b"").json()["State"].clone();
    assert_eq!(state["Running"], false, "{state}");
    engine.docker(["start", "probe"]).stdout();
    assert_ne!(host(&engine, "probe"), pid);
    engine.finish();
}

#[test]
fn hosts_that_do_not_answer_do_not_keep_the_engine_from_starting() {
    let mut engine = Engine::start();
    engine.build_guest("probe", "probe");
    let names = ["one", "two", "three", "four"];
    let ports = names.map(|name| serve(&engine, name, &[], "probe"));
    let restarted = serve(&engine, "restarted", &["--restart", "always"], "probe");
    let answering = serve(&engine, "answering", &[], "probe");
    let silent: Vec<u32> = names.iter().chain(&["restarted"]).map(|name| host(&engine, name)).collect();
    let kept = host(&engine, "answering");
    engine.crash();
    for pid in &silent {
        kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), Signal::STOP).unwrap();
    }
    let begun = Instant::now();
    engine.come_back();
    // Some seconds for all of them together, on a machine under load.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    for pid in &silent {
        ended(*pid);
    }
    for (name, port) in names.iter().zip(ports) {
        let state = eventually("its end", || {
            let state = engine.request("GET", &format!("/containers/{name}/json"), b"").json()["State"].clone();
            (state["Running"] == false).then_some(state)
        });
        assert_eq!(
            state["Error"], "its host process did not answer when the engine started, and was killed",
            "{state}"
        );
        assert!(client::tcp(port, "GET", "/", "", b"").is_err(), "{name} answers");
    }
    eventually("the one with a policy", || {
        client::tcp(restarted, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200)
    });
    assert_eq!(client::tcp(answering, "GET", "/", "", b"").unwrap().status, 200);
    assert_eq!(host(&engine, "answering"), kept);
    engine.finish();
}
