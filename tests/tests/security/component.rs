//! From a component: the second fence, and what a guest may ask of the host.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bireme_testing::{Engine, client, eventually, free_port, guest};
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

/// The kernel counts processes by the user, over all containers.
#[test]
fn a_container_with_the_user_of_a_host_takes_nothing_from_it() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("probe", "probe");
    let port = serve(&engine, "web", &[], "probe");
    let id = user(host(&engine, "web")).to_string();
    let script = "i=0; while [ $i -lt 1200 ]; do sleep 1000 & i=$((i+1)); done; echo there; wait";
    let run = ["run", "-d", "--name", "many", "--cap-drop", "ALL", "--user", &id, "busybox", "sh", "-c", script];
    engine.docker(run).stdout();
    eventually("its processes", || (engine.docker(["logs", "many"]).stdout() == "there\n").then_some(()));
    // A host has threads to start for this, and a new one all of them.
    engine.docker(["restart", "web"]).stdout();
    eventually("an answer", || client::tcp(port, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200));
    engine.docker(["exec", "many", "true"]).stdout();
    engine.docker(["rm", "-f", "many"]).stdout();
    engine.finish();
}

/// Whoever has taken a host over may have it say nothing: that concerns its own line of the list.
#[test]
fn a_silent_host_holds_up_no_list_of_workloads() {
    let engine = Engine::start();
    engine.build_guest("probe", "probe");
    serve(&engine, "silent", &[], "probe");
    serve(&engine, "other", &[], "probe");
    let silent = host(&engine, "silent").to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &silent]).status().unwrap().success());
    signal("-STOP");
    let asked = Instant::now();
    let list = engine.request("GET", "/bireme/v1/workloads", b"").json();
    let took = asked.elapsed();
    signal("-CONT");
    assert!(took < Duration::from_secs(10), "{took:?}");
    let about = |name: &str| list.as_array().and_then(|list| list.iter().find(|one| one["Name"] == name)).expect(name);
    assert_eq!(about("silent")["Invocations"], serde_json::Value::Null, "{list}");
    assert_ne!(about("other")["Invocations"], serde_json::Value::Null, "{list}");
    assert!(about("other")["MemoryUsage"].as_u64().unwrap() > 0, "{list}");
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
    eventually("its end", || {
        let state = engine.request("GET", "/containers/probe/json", b"").json()["State"].clone();
        (state["Running"] == false).then_some(())
    });
    engine.docker(["start", "probe"]).stdout();
    assert_ne!(host(&engine, "probe"), pid);
    engine.finish();
}

/// A host may be busy, or taken over. Neither is a reason to end it, or others, or to keep the engine from everybody.
#[test]
fn hosts_that_do_not_answer_do_not_keep_the_engine_from_starting() {
    let mut engine = Engine::start();
    engine.build_guest("probe", "probe");
    // More than are asked for lists at once, and one with many components.
    let names: Vec<String> = (0..9).map(|number| format!("silent{number}")).collect();
    let ports: Vec<u16> = names.iter().map(|name| serve(&engine, name, &["--restart", "always"], "probe")).collect();
    for number in 0..6 {
        let name = format!("part{number}");
        let app = ["--label", "com.docker.compose.project=many", "--platform", "wasi/wasm", "probe"];
        engine.docker(["run", "-d", "--name", &name].iter().chain(&app)).stdout();
    }
    let answering = serve(&engine, "answering", &[], "probe");
    let state = |engine: &Engine, name: &str| {
        engine.request("GET", &format!("/containers/{name}/json"), b"").json()["State"].clone()
    };
    let hosts: Vec<u32> = names.iter().map(String::as_str).chain(["part0"]).map(|name| host(&engine, name)).collect();
    let kept = host(&engine, "answering");
    let signal = |pid: u32, signal| kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
    engine.crash();
    hosts.iter().for_each(|pid| signal(*pid, Signal::STOP));
    let begun = Instant::now();
    engine.come_back();
    // Some seconds for all of them together, on a machine under load.
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    for (name, pid) in names.iter().map(String::as_str).chain(["part0"]).zip(&hosts) {
        let state = state(&engine, name);
        assert_eq!((&state["Running"], &state["Pid"]), (&true.into(), &(*pid).into()), "{name}: {state}");
    }
    assert!((0..6).all(|number| state(&engine, &format!("part{number}"))["Running"] == true));
    assert_eq!(client::tcp(answering, "GET", "/", "", b"").unwrap().status, 200);
    assert_eq!(host(&engine, "answering"), kept);
    // Whoever wants an end of one gets it.
    engine.docker(["rm", "-f", &names[0]]).stdout();
    ended(hosts[0]);
    hosts[1..].iter().for_each(|pid| signal(*pid, Signal::CONT));
    for port in &ports[1..] {
        eventually("an answer", || client::tcp(*port, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200));
    }
    engine.docker(["stop", "-t", "5", &names[1], "part3"]).stdout();
    assert_eq!(state(&engine, &names[1])["ExitCode"], 0);
    assert_eq!(state(&engine, "part3")["ExitCode"], 0);
    assert_eq!(state(&engine, "part4")["Running"], true);
    engine.finish();
}

/// A published port is a socket of the machine's network, in a process that is in another: whoever takes that over gets
/// nowhere by it.
#[test]
fn the_socket_of_a_published_port_leads_nowhere() {
    use std::os::fd::{AsFd as _, OwnedFd};

    use rustix::net::{Shutdown, SocketAddrAny, getsockname, shutdown};
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

    let engine = Engine::start();
    engine.build_guest("hello", "hello");
    let port = serve(&engine, "hello", &[], "hello");
    let pid = Pid::from_raw(i32::try_from(host(&engine, "hello")).unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    // The sockets themselves, as the process has them.
    let sockets: Vec<OwnedFd> = (3..200)
        .filter_map(|number| pidfd_getfd(process.as_fd(), number, PidfdGetfdFlags::empty()).ok())
        .filter(|fd| {
            let address =
                getsockname(fd).ok().and_then(|address: SocketAddrAny| std::net::SocketAddr::try_from(address).ok());
            address.is_some_and(|address| address.port() == port)
        })
        .collect();
    assert!(!sockets.is_empty());
    let secret = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = secret.local_addr().unwrap();
    for socket in sockets {
        let v6 =
            matches!(getsockname(&socket).map(std::net::SocketAddr::try_from), Ok(Ok(address)) if address.is_ipv6());
        // Of one that was accepted, its client may be gone.
        let _ = shutdown(&socket, Shutdown::Read);
        let stream = std::net::TcpStream::from(socket);
        stream.set_nonblocking(true).unwrap();
        let target = if v6 { "[::1]:1".parse().unwrap() } else { address };
        let _ = rustix::net::connect(&stream, &target);
        std::thread::sleep(Duration::from_secs(1));
        assert!(stream.peer_addr().is_err(), "it is connected");
    }
    secret.set_nonblocking(true).unwrap();
    assert!(secret.accept().is_err());
    engine.docker(["rm", "-f", "hello"]).stdout();
    engine.finish();
}

/// Compilers that work for an engine.
fn compilers(engine: &Engine) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.path().join("cmdline").into());
    let of_this = |path: &std::path::PathBuf| {
        let words = std::fs::read(path).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|byte| *byte == 0).collect();
        let folder = engine.data_root();
        words.get(1) == Some(&b"compile".as_slice())
            && words.get(2).is_some_and(|out| out.starts_with(folder.as_os_str().as_encoded_bytes()))
    };
    processes.filter(of_this).count()
}

/// Slow compilations keep nobody waiting for long, and end with whoever wanted them.
#[test]
fn slow_compilations_let_others_through_and_end_with_their_clients() {
    let engine = Engine::start();
    // What branches often is what a compiler takes long for.
    let branch = "(if (local.get 0) (then (local.set 0 (i32.mul (local.get 0) (i32.const 7)))) \
                  (else (local.set 1 (i32.add (local.get 1) (i32.const 1)))))";
    let function = format!("(func (param i32 i32) {})", branch.repeat(20_000));
    let mut clients: Vec<_> = (0..2)
        .map(|number| {
            let name = format!("slow{number}");
            let text = format!("(component (core module {}))", function.repeat(20 + number));
            let path = engine.folder().join(format!("{name}.wasm"));
            std::fs::write(&path, wat::parse_str(text).unwrap()).unwrap();
            let words = ["create", "--name", &name, path.to_str().unwrap()];
            engine.command(bireme_testing::binaries().join("bireme"), words).spawn().unwrap()
        })
        .collect();
    eventually("two compilations", || (compilers(&engine) == 2).then_some(()));
    // One of them goes to the place for long ones, so that others are compiled meanwhile.
    let hello = guest("hello");
    engine.bireme(["create", "--name", "early", hello.to_str().unwrap()]).stdout();
    assert_eq!(compilers(&engine), 2, "they are not slow");
    engine.docker(["rm", "early"]).stdout();
    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    eventually("no compilation", || (compilers(&engine) == 0).then_some(()));
    eventually("no workload", || (engine.docker(["ps", "-aq"]).stdout() == "").then_some(()));
    engine.finish();
}

/// As with containers, which `network` tells of.
#[test]
fn a_component_is_published_where_its_networks_let_it_be() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("probe", "probe");
    let binding = "com.docker.network.bridge.host_binding_ipv4";
    let bound = format!("{binding}=127.0.0.1");
    engine.docker(["network", "create", "-o", &bound, "bound"]).stdout();
    engine.docker(["network", "create", "--internal", "inside"]).stdout();
    let misspelt = format!("{binding}=127.0.0.l");
    engine
        .docker(["network", "create", "-o", &misspelt, "misspelt"])
        .fails(1, "host_binding_ipv4 \"127.0.0.l\" is not an address of this host such as 127.0.0.1");
    let unread = "com.docker.network.bridge.enable_icc=off";
    engine.docker(["network", "create", "-o", unread, "open"]).fails(1, "\"off\" is neither true nor false");

    let port = serve(&engine, "home", &["--network", "bound"], "probe");
    assert_eq!(engine.docker(["port", "home"]).stdout().trim(), format!("80/tcp -> 127.0.0.1:{port}"));
    let elsewhere = std::net::TcpStream::connect(("127.0.0.2", port));
    assert!(elsewhere.is_err(), "on an address that was not asked for");
    engine.docker(["network", "disconnect", "bound", "home"]).fails(1, "stop home first");
    assert_eq!(client::tcp(port, "GET", "/", "", b"").unwrap().status, 200);

    // As of containers: what no network leads to stays closed, and is no reason not to run.
    for image in [&["--platform", "wasi/wasm", "--name", "closed", "probe"][..], &["busybox", "sleep", "1000"]] {
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:80");
        let run = [&["run", "-d", "--network", "inside", "-p", &publish][..], image].concat();
        let name = engine.docker(run).stdout().trim().to_owned();
        assert_eq!(engine.docker(["port", &name]).stdout(), "");
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "by way of an internal network");
    }

    // One that is published everywhere is reached from everywhere but internal networks.
    let open = serve(&engine, "open", &[], "probe");
    for (name, network) in [("in", "inside"), ("out", "bridge")] {
        engine.docker(["run", "-d", "--name", name, "--network", network, "busybox", "sleep", "1000"]).stdout();
    }
    let reach = |engine: &Engine, name: &str| {
        let address = ["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", name];
        let address: std::net::Ipv4Addr = engine.docker(address).stdout().trim().parse().unwrap();
        let [a, b, c, _] = address.octets();
        let request = "printf 'GET / HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n'";
        let ask = format!("{request} | nc -w 2 {a}.{b}.{c}.1 {open}");
        engine.docker(["exec", name, "sh", "-c", &ask]).raw_stdout().starts_with("HTTP/1.1 200")
    };
    for restarted in [false, true] {
        eventually("an answer to a network that is not internal", || reach(&engine, "out").then_some(()));
        assert!(!reach(&engine, "in"), "restarted: {restarted}");
        if !restarted {
            engine.crash();
            engine.come_back();
            eventually("an answer", || client::tcp(open, "GET", "/", "", b"").ok());
        }
    }
    engine.finish();
}

/// Of two components that share their network, the one that leaves does not take the other's way out along.
#[test]
fn components_that_stay_keep_their_way_out() {
    let engine = Engine::start();
    engine.build_guest("probe", "probe");
    for network in ["n1", "n2"] {
        engine.docker(["network", "create", network]).stdout();
    }
    let app = ["--label", "com.docker.compose.project=shared"];
    let with = |network: &'static str| [&["--network", network][..], &app].concat();
    serve(&engine, "first", &with("n1"), "probe");
    serve(&engine, "second", &with("n2"), "probe");
    let namespace = format!("/proc/{}/ns/net", host(&engine, "second"));
    let has_way_out = || {
        bireme_sys::netns::run_in_netns(std::path::Path::new(&namespace), || {
            // Lines of routes: interface, destination, gateway; all of it zero is everywhere.
            let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
            routes.lines().any(|line| line.split_whitespace().nth(1) == Some("00000000"))
        })
        .unwrap()
    };
    assert!(has_way_out());
    engine.docker(["rm", "-f", "first"]).stdout();
    assert!(has_way_out());
    engine.finish();
}
