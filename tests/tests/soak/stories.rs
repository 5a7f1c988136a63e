//! What people do with an engine, each from its beginning until nothing of it is left.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bireme_testing::{Engine, client, eventually};
use serde_json::json;

use crate::lives;

/// A story, told under a name that nothing else of the engine has at that moment.
type Story = fn(&Engine, &str);

/// Each with the name under which its failure is told.
pub(crate) const ALL: [(&str, Story); 19] = [
    ("a container ends by itself", |engine, name| {
        lives::one_life(&engine.socket(), name, 0);
    }),
    ("a container is removed", |engine, name| {
        lives::one_life(&engine.socket(), name, 1);
    }),
    ("a container removes itself", |engine, name| {
        lives::one_life(&engine.socket(), name, 2);
    }),
    ("a container is removed while it ends", |engine, name| {
        lives::one_life(&engine.socket(), name, 3);
    }),
    ("commands in a container", commands),
    ("a health probe that hangs", probe),
    ("files in, out and into an image", files),
    ("a network and its names", network),
    ("a volume", volume),
    ("a build", build),
    ("images saved, loaded, imported", images),
    ("an HTTP component", component),
    ("a command component", command),
    ("a key-value store", store),
    ("who watches and goes away", watchers),
    ("an app of both kinds", app),
    ("refusals", refusals),
    ("restarts and signals", restarts),
    ("terminals", terminal),
];

/// The image that every story with a container takes.
const IMAGE: &str = "busybox";

fn commands(engine: &Engine, name: &str) {
    engine.docker(["run", "-d", "--name", name, IMAGE, "sleep", "1000"]).stdout();
    assert_eq!(engine.docker(["exec", name, "echo", "hi"]).stdout(), "hi\n");
    engine.docker(["exec", name, "sh", "-c", "exit 9"]).fails(9, "");
    engine.docker(["exec", "-d", name, "sleep", "1000"]).stdout();
    for _ in 0..3 {
        let session = json!({ "Cmd": ["true"] }).to_string();
        let path = format!("/containers/{name}/exec");
        assert_eq!(engine.request("POST", &path, session.as_bytes()).status, 201, "never started");
    }
    assert!(engine.docker(["top", name]).stdout().contains("sleep 1000"));
    engine.docker(["rm", "-f", name]).stdout();
}

fn probe(engine: &Engine, name: &str) {
    let check = ["--health-interval", "1s", "--health-timeout", "1s", "--health-retries", "1"];
    let run = ["run", "-d", "--name", name, "--health-cmd", "sleep 100"].into_iter().chain(check);
    engine.docker(run.chain([IMAGE, "sleep", "1000"])).stdout();
    let health = || engine.docker(["inspect", "-f", "{{.State.Health.Status}}", name]).stdout().trim().to_owned();
    eventually("ill", || {
        std::thread::sleep(Duration::from_millis(500));
        (health() == "unhealthy").then_some(())
    });
    engine.docker(["rm", "-f", name]).stdout();
}

fn files(engine: &Engine, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (here, back) = (folder.path().join("here"), folder.path().join("back"));
    std::fs::write(&here, name).unwrap();
    engine.docker(["create", "--name", name, IMAGE, "sh", "-c", "cat /here > /there; rm /bin/ash"]).stdout();
    engine.docker(["cp", "-q", text(&here), &format!("{name}:/here")]).stdout();
    engine.docker(["start", "-a", name]).stdout();
    engine.docker(["cp", "-q", &format!("{name}:/there"), text(&back)]).stdout();
    assert_eq!(std::fs::read_to_string(&back).unwrap(), name);
    assert!(engine.docker(["diff", name]).stdout().contains("A /there"));
    engine.docker(["export", "-o", text(&folder.path().join("all.tar")), name]).stdout();
    engine.docker(["commit", name, name]).stdout();
    assert_eq!(engine.docker(["run", "--rm", name, "cat", "/there"]).stdout(), name);
    engine.docker(["rm", name]).stdout();
    engine.docker(["rmi", name]).stdout();
}

fn network(engine: &Engine, name: &str) {
    let (near, far) = (format!("{name}-near"), format!("{name}-far"));
    engine.docker(["network", "create", name]).stdout();
    engine
        .docker(["run", "-d", "--name", &far, "--network", name, "--network-alias", "db", IMAGE, "sleep", "1000"])
        .stdout();
    let ping = ["ping", "-c", "1", "-W", "20", "db"];
    engine.docker(["run", "--rm", "--network", name, IMAGE].into_iter().chain(ping)).stdout();
    engine.docker(["run", "-d", "--name", &near, "-p", "0:80/tcp", "-p", "0:53/udp", IMAGE, "sleep", "1000"]).stdout();
    engine.docker(["network", "connect", name, &near]).stdout();
    engine.docker(["exec", &near].into_iter().chain(ping)).stdout();
    engine.docker(["network", "disconnect", name, &near]).stdout();
    engine.docker(["rm", "-f", &near, &far]).stdout();
    engine.docker(["network", "rm", name]).stdout();
}

fn volume(engine: &Engine, name: &str) {
    engine.docker(["volume", "create", name]).stdout();
    let mount = format!("{name}:/data");
    engine
        .docker(["run", "--rm", "-v", &mount, IMAGE, "sh", "-c", "mkdir /data/part; echo kept > /data/part/f"])
        .stdout();
    let part = format!("type=volume,src={name},dst=/part,volume-subpath=part");
    assert_eq!(engine.docker(["run", "--rm", "--mount", &part, IMAGE, "cat", "/part/f"]).stdout(), "kept\n");
    // One without a name goes with its container.
    engine.docker(["run", "--rm", "-v", "/nameless", IMAGE, "touch", "/nameless/f"]).stdout();
    engine.docker(["volume", "rm", name]).stdout();
}

fn build(engine: &Engine, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text"), name).unwrap();
    let file = format!("FROM {IMAGE}\nCOPY text /text\nRUN cat /text > /again\nCMD [\"cat\", \"/again\"]\n");
    std::fs::write(folder.path().join("Dockerfile"), file).unwrap();
    let mut docker = engine.command("docker", ["build", "-q", "-t", name, text(folder.path())]);
    docker.env("DOCKER_BUILDKIT", "0");
    engine.run(docker).stdout();
    assert_eq!(engine.docker(["run", "--rm", name]).stdout(), name);
    engine.docker(["rmi", name]).stdout();
    // The cache of builds goes while others build.
    engine.request("POST", "/build/prune?all=1", b"");
}

fn images(engine: &Engine, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("image.tar");
    engine.docker(["tag", IMAGE, name]).stdout();
    engine.docker(["save", "-o", text(&archive), name]).stdout();
    engine.docker(["rmi", name]).stdout();
    engine.docker(["load", "-q", "-i", text(&archive)]).stdout();
    engine.docker(["rmi", name]).stdout();
    let plain = folder.path().join("plain.tar");
    std::fs::write(folder.path().join("only"), name).unwrap();
    let packed = Command::new("tar").args(["-C", text(folder.path()), "-cf", text(&plain), "only"]).status().unwrap();
    assert!(packed.success());
    engine.docker(["import", text(&plain), name]).stdout();
    engine.docker(["rmi", name]).stdout();
}

fn component(engine: &Engine, name: &str) {
    let project = format!("com.docker.compose.project={name}");
    let words = ["run", "-d", "--name", name, "--label", &project, "--platform", "wasi/wasm", "-p", "0:80", "hello"];
    engine.docker(words).stdout();
    let port = port(engine, name);
    for _ in 0..20 {
        eventually("an answer", || client::tcp(port, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200));
    }
    engine.docker(["stats", "--no-stream", name]).stdout();
    engine.docker(["restart", name]).stdout();
    engine.docker(["rm", "-f", name]).stdout();
}

fn command(engine: &Engine, name: &str) {
    let words = ["run", "-i", "--rm", "--name", name, "--platform", "wasi/wasm", "command", "stdin"];
    let mut docker = engine.command("docker", words);
    let mut child = docker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&[b'x'; 10_000]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "10000 bytes\n");
    engine.docker(["run", "--rm", "--platform", "wasi/wasm", "command", "exit", "7"]).fails(1, "");
}

fn store(engine: &Engine, name: &str) {
    engine.docker(["run", "-d", "--name", name, "--platform", "wasi/wasm", "-p", "0:80", "keyvalue"]).stdout();
    let port = port(engine, name);
    let ask = |path: &str| client::tcp(port, "GET", path, "", b"").ok().map(|answer| answer.text());
    assert_eq!(ask("/draft2/set?default/k/v").as_deref(), Some("Ok(())"));
    assert_eq!(ask("/draft2/get?default/k").as_deref(), Some("\"v\""));
    engine.docker(["rm", "-f", name]).stdout();
    engine.bireme(["store", "prune", "-f"]).stdout();
}

/// Opens each stream there is and reads none to its end.
fn watchers(engine: &Engine, name: &str) {
    engine.docker(["run", "-d", "--name", name, IMAGE, "sh", "-c", "while true; do echo x; done"]).stdout();
    for path in [
        format!("GET /containers/{name}/logs?follow=1&stdout=1"),
        format!("GET /containers/{name}/stats"),
        format!("POST /containers/{name}/attach?stream=1&stdout=1"),
        format!("GET /containers/{name}/export"),
        "GET /events".to_owned(),
        format!("POST /containers/{name}/wait"),
        format!("GET /containers/{name}/archive?path=/bin"),
        "GET /images/busybox/get".to_owned(),
    ] {
        let mut stream = UnixStream::connect(engine.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        stream.write_all(format!("{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
        let mut some = [0; 512];
        let _ = stream.read(&mut some);
    }
    engine.docker(["rm", "-f", name]).stdout();
}

fn app(engine: &Engine, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    let services = "services:\n  \
                    web:\n    image: hello\n    platform: wasi/wasm\n    ports: [\"0:80\"]\n    depends_on: [db]\n  \
                    db:\n    image: busybox\n    command: sleep 1000\n    volumes: [data:/data]\nvolumes:\n  data:\n";
    std::fs::write(&file, services).unwrap();
    let compose =
        |words: &[&str]| engine.bireme(["-f", text(&file), "-p", name].iter().chain(words)).stdout().to_owned();
    compose(&["up", "-d"]);
    let port = port(engine, &format!("{name}-web-1"));
    eventually("an answer", || client::tcp(port, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200));
    compose(&["restart"]);
    compose(&["down", "-v"]);
}

fn refusals(engine: &Engine, name: &str) {
    engine.docker(["run", "--pull", "never", "--name", name, "no-such-image"]).fails(125, "No such image");
    engine.docker(["run", "--name", name, IMAGE, "/no/such/program"]).fails(127, "no such file");
    engine.docker(["rm", name]).stdout();
    engine.docker(["create", "-v", "/:/proc", "--name", name, IMAGE]).fails(1, "mount target /proc");
    assert_eq!(engine.request("POST", "/containers/create", b"{\"Image\":").status, 400);
    assert_eq!(engine.request("GET", "/containers/none/json", b"").status, 404);
    // Half a request, and half a body.
    for half in
        ["POST /images/load HTTP/1.1\r\nHost:", "POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\nxxx"]
    {
        UnixStream::connect(engine.socket()).unwrap().write_all(half.as_bytes()).unwrap();
    }
}

fn restarts(engine: &Engine, name: &str) {
    engine.docker(["run", "-d", "--name", name, "--restart", "on-failure:2", IMAGE, "false"]).stdout();
    let inspect = |what: &str| engine.docker(["inspect", "-f", what, name]).stdout().trim().to_owned();
    eventually("the last restart", || (inspect("{{.RestartCount}} {{.State.Status}}") == "2 exited").then_some(()));
    engine.docker(["rm", name]).stdout();
    engine.docker(["run", "-d", "--init", "--name", name, IMAGE, "sleep", "1000"]).stdout();
    engine.docker(["pause", name]).stdout();
    engine.docker(["unpause", name]).stdout();
    engine.docker(["update", "--memory", "64m", "--memory-swap", "64m", name]).stdout();
    engine.docker(["rename", name, &format!("{name}-two")]).stdout();
    engine.docker(["stop", "-t", "5", &format!("{name}-two")]).stdout();
    engine.docker(["rm", &format!("{name}-two")]).stdout();
}

fn terminal(engine: &Engine, name: &str) {
    let config = json!({ "Image": IMAGE, "Tty": true, "OpenStdin": true, "Cmd": ["sh"],
        "HostConfig": { "ConsoleSize": [20, 80] } });
    let path = format!("/containers/create?name={name}");
    assert_eq!(engine.request("POST", &path, config.to_string().as_bytes()).status, 201);
    let mut socket = UnixStream::connect(engine.socket()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let path = format!("/containers/{name}/attach?stream=1&stdin=1&stdout=1");
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n");
    socket.write_all(head.as_bytes()).unwrap();
    assert_eq!(engine.request("POST", &format!("/containers/{name}/start"), b"").status, 204);
    assert_eq!(engine.request("POST", &format!("/containers/{name}/resize?h=41&w=137"), b"").status, 200);
    socket.write_all(b"stty size; exit\n").unwrap();
    let mut said = String::new();
    socket.read_to_string(&mut said).unwrap();
    assert!(said.contains("41 137"), "{said}");
    engine.docker(["rm", "-f", name]).stdout();
}

fn port(engine: &Engine, name: &str) -> u16 {
    let told = engine.docker(["port", name, "80/tcp"]);
    told.stdout().lines().next().and_then(|line| line.rsplit(':').next()).and_then(|port| port.parse().ok()).unwrap()
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("plain paths")
}
