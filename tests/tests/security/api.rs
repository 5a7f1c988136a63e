//! From a client of the API: what is never started, never read, and never ends.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bireme_testing::{Engine, eventually};
use serde_json::json;

fn exec(engine: &Engine, container: &str, config: serde_json::Value) -> String {
    let answer = engine.request("POST", &format!("/containers/{container}/exec"), config.to_string().as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["Id"].as_str().unwrap().to_owned()
}

#[test]
fn sessions_that_are_never_started_are_forgotten_by_age() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).stdout();
    let long = "x".repeat(64 << 10);
    let ids: Vec<String> =
        (0..300).map(|_| exec(&engine, "cc", json!({ "Cmd": ["true"], "Env": [format!("A={long}")] }))).collect();
    let status = |id: &str| engine.request("GET", &format!("/exec/{id}/json"), &[]).status;
    assert_eq!(status(&ids[0]), 404, "the oldest are forgotten");
    assert_eq!(status(ids.last().unwrap()), 200, "the newest is there");
    let known = engine.request("GET", "/containers/cc/json", &[]).json()["ExecIDs"].as_array().unwrap().len();
    assert!(known < 256, "{known}");
    let last = ids.last().unwrap();
    assert_eq!(engine.request("POST", &format!("/exec/{last}/start"), b"{\"Detach\":true}").status, 200);
    engine.finish();
}

#[test]
fn the_start_of_a_session_decides_the_form_of_its_output() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).stdout();
    let run = |own: bool, asked: bool| {
        let id = exec(
            &engine,
            "cc",
            json!({ "Cmd": ["echo", "hi"], "Tty": own, "AttachStdout": true, "AttachStderr": true }),
        );
        let start = json!({ "Tty": asked }).to_string();
        engine.request("POST", &format!("/exec/{id}/start"), start.as_bytes())
    };
    let framed = run(true, false);
    assert_eq!(framed.header("content-type"), Some("application/vnd.docker.multiplexed-stream"));
    assert_eq!(framed.body[..8], [1, 0, 0, 0, 0, 0, 0, 4], "{:?}", framed.body);
    assert_eq!(&framed.body[8..], b"hi\r\n");
    let raw = run(false, true);
    assert_eq!(raw.header("content-type"), Some("application/vnd.docker.raw-stream"));
    assert_eq!(raw.body, b"hi\n");
    assert_eq!(run(true, true).body, b"hi\r\n");
    assert_eq!(run(false, false).body, b"\x01\0\0\0\0\0\0\x03hi\n");
    engine.finish();
}

#[test]
fn a_container_that_ends_in_that_moment_is_committed_all_the_same() {
    let engine = Engine::start();
    engine.load("busybox");
    for round in 0..12 {
        let name = format!("c{round}");
        engine
            .docker(["run", "-d", "--name", &name, "busybox", "sh", "-c", &format!("usleep {}", round * 7000)])
            .stdout();
        let answer = engine.request("POST", &format!("/commit?container={name}&repo=made&tag={name}"), &[]);
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
    engine.finish();
}

#[test]
fn bodies_that_are_no_json_are_refused_in_dockers_words() {
    let engine = Engine::start();
    for path in [
        "/commit",
        "/containers/create",
        "/containers/foobar/exec",
        "/containers/foobar/update",
        "/exec/foobar/start",
        "/networks/create",
        "/volumes/create",
    ] {
        for (body, words) in [
            ("{invalid json", "invalid character 'i' looking for beginning of object key string"),
            ("{} trailing content", "unexpected content after JSON"),
            ("[{\"trailing\"", "unexpected EOF"),
        ] {
            let answer = engine.request("POST", path, body.as_bytes());
            assert_eq!(answer.status, 400, "{path} {body}: {}", answer.text());
            assert!(answer.text().contains(words), "{path} {body}: {}", answer.text());
        }
    }
    engine.finish();
}

/// Two answer two questions at once to whoever stands in front; RFC 9112 section 3.2 has both refused.
#[test]
fn a_request_has_one_host() {
    let engine = Engine::start();
    for (head, status) in [
        ("GET /_ping HTTP/1.1\r\nHost: x\r\n", "200"),
        ("GET /_ping HTTP/1.1\r\nHost:\r\n", "200"),
        ("GET /_ping HTTP/1.0\r\n", "200"),
        ("GET /_ping HTTP/1.1\r\n", "400"),
        ("GET /_ping HTTP/1.1\r\nHost: x\r\nHost: x\r\n", "400"),
        ("POST /containers/prune HTTP/1.1\r\nHost: x\r\nhost: y\r\n", "400"),
    ] {
        let mut socket = UnixStream::connect(engine.socket()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(socket, "{head}Connection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.split(' ').nth(1), Some(status), "{head}: {answer}");
    }
    engine.finish();
}

/// Labels of megabytes in every event, and a listener that reads none of them.
#[test]
fn a_listener_that_does_not_read_leaves_the_daemons_memory_flat() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).stdout();
    let mut deaf = UnixStream::connect(engine.socket()).unwrap();
    deaf.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let resident = || {
        let text = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let before = resident();
    // The text of the command stands in the event.
    let long = "x".repeat(2 << 20);
    for _ in 0..60 {
        exec(&engine, "cc", json!({ "Cmd": ["true", long] }));
    }
    eventually("memory given back", || (resident() < before + (100 << 10)).then_some(()));
    drop(deaf);
    engine.finish();
}

#[test]
fn a_web_socket_carries_what_is_typed_and_said() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "-i", "--name", "cc", "busybox", "cat"]).stdout();
    let mut socket = UnixStream::connect(engine.socket()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    socket
        .write_all(
            b"GET /containers/cc/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    // "hi\n" with a mask of zeros.
    socket.write_all(&[0x82, 0x83, 0, 0, 0, 0, b'h', b'i', b'\n']).unwrap();
    let mut said = [0; 5];
    socket.read_exact(&mut said).unwrap();
    assert_eq!(said, [0x82, 3, b'h', b'i', b'\n']);
    engine.docker(["kill", "cc"]).stdout();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xe8], "the end is told");
    let plain = engine.request("GET", "/containers/cc/attach/ws", &[]);
    assert_eq!(plain.status, 400, "{}", plain.text());
    engine.finish();
}

/// Each upload takes a thread for as long as its client likes, out of those that start and stop containers.
#[test]
fn uploads_that_do_not_end_keep_no_container_from_its_start_or_end() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).stdout();
    let slow: Vec<UnixStream> = (0..400)
        .map(|_| {
            let mut stream = eventually("a connection", || UnixStream::connect(engine.socket()).ok());
            let head = "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nxx";
            stream.write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    // Until as many as may are at work.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "hi"]).stdout(), "hi\n");
    engine.docker(["rm", "-f", "cc"]).stdout();
    drop(slow);
    // Their places are given back.
    engine.load("busybox");
    engine.finish();
}

/// As many variables as a request or the configuration of an image holds: compared each with each, they took minutes, in
/// which nobody was answered, and no container's questions for names either.
#[test]
fn a_request_full_of_small_things_holds_nobody_up() {
    let engine = Engine::start();
    engine.load("busybox");
    let many: Vec<String> = (0..300_000).map(|n| format!("V{n}=")).collect();
    let create = |body: serde_json::Value| {
        let begin = std::time::Instant::now();
        let answer = engine.request("POST", "/containers/create", body.to_string().as_bytes());
        assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
        answer
    };
    let refused = |body: serde_json::Value, words: &str| {
        let answer = create(body);
        assert!(answer.status == 400 && answer.text().contains(words), "{}: {}", answer.status, answer.text());
    };
    refused(json!({ "Image": "busybox", "Env": many }), "at most 10000 are taken");
    let map = |count: usize, key: &dyn Fn(usize) -> String| -> serde_json::Value {
        (0..count).map(|n| (key(n), json!({}))).collect::<serde_json::Map<_, _>>().into()
    };
    refused(json!({ "Image": "busybox", "Volumes": map(129, &|n| format!("/v{n}")) }), "at most 128 are taken");
    let labels = (0..10_001).map(|n| (format!("l{n}"), json!(""))).collect::<serde_json::Map<_, _>>();
    refused(json!({ "Image": "busybox", "Labels": labels }), "at most 10000 are taken");
    // A range is short, and large.
    let ranges = map(60_000, &|n| format!("1-{}/tcp", n + 1));
    refused(json!({ "Image": "busybox", "ExposedPorts": ranges }), "at most 50000 are taken");
    let published = json!({ "1-1025/tcp": [{ "HostPort": "20001-21025" }] });
    refused(json!({ "Image": "busybox", "HostConfig": { "PortBindings": published } }), "at most 1024 are taken");
    let all = json!({ "1-1025/udp": {} });
    refused(
        json!({ "Image": "busybox", "ExposedPorts": all, "HostConfig": { "PublishAllPorts": true } }),
        "at most 1024 are taken",
    );
    let mounts: Vec<String> = (0..1_025).map(|n| format!("data:/v{n}")).collect();
    refused(json!({ "Image": "busybox", "HostConfig": { "Binds": mounts } }), "at most 1024 are taken");
    // Of an image: what would make one is refused, and what is made of one that asks for much.
    let made = create(json!({ "Image": "busybox", "Cmd": ["true"] }));
    let id = made.json()["Id"].as_str().unwrap().to_owned();
    let begin = std::time::Instant::now();
    let commit = |config: serde_json::Value| {
        let path = format!("/commit?container={id}&repo=many");
        engine.request("POST", &path, config.to_string().as_bytes())
    };
    let answer = commit(json!({ "Env": many }));
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("no image may have more than 10000"), "{}", answer.text());
    let answer = commit(json!({ "Volumes": map(200, &|n| format!("/v{n}")) }));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
    refused(json!({ "Image": "many" }), "of the image many is too large");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "", "nothing was made");
    engine.finish();
}
