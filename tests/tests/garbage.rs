//! Clients that send nonsense, hang or leave halfway: they harm nobody.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bireme_testing::Engine;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// Sends bytes as they are, says that no more follow, and reads what comes.
fn raw(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    exchange(socket, bytes, true)
}

/// Sends a whole request and reads the beginning of the answer.
fn ask(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    exchange(socket, bytes, false)
}

fn exchange(socket: &Path, bytes: &[u8], no_more: bool) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    // It may be told off and cut before all is said.
    let _ = stream.write_all(bytes);
    if no_more {
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let mut answer = Vec::new();
    if no_more {
        let _ = stream.read_to_end(&mut answer);
    } else {
        // Some answers have no end.
        answer.resize(4096, 0);
        let read = stream.read(&mut answer).unwrap_or_default();
        answer.truncate(read);
    }
    answer
}

fn status(answer: &[u8]) -> Option<u16> {
    let head = std::str::from_utf8(answer.get(..12)?).ok()?;
    head.strip_prefix("HTTP/1.1 ").or_else(|| head.strip_prefix("HTTP/1.0 "))?.parse().ok()
}

/// Whether a client was told something sensible: a refusal or an answer, and never that the engine failed.
fn is_civil(answer: &[u8]) -> bool {
    status(answer).is_none_or(|status| status < 500 || matches!(status, 501 | 503))
}

fn is_well(socket: &Path) -> bool {
    status(&ask(socket, b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == Some(200)
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, max_shrink_iters: 64, ..Config::default() })
}

/// Anything that JSON can say.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        prop_oneof![Just("/"), Just("../.."), Just("-1"), Just("container:x"), Just("host"), Just("\u{0}")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[A-Za-z/:0-9]{0,8}", inner, 0..4).prop_map(Value::from_iter),
        ]
    })
}

/// A body that every part of is right.
fn good_create() -> Value {
    json!({
        "Image": "busybox", "Cmd": ["true"], "Env": ["A=b"], "Labels": { "a": "b" }, "User": "0", "WorkingDir": "/",
        "StopSignal": "TERM", "StopTimeout": 1, "ExposedPorts": { "80/tcp": {} }, "Volumes": { "/v": {} }, "Tty": false,
        "Healthcheck": { "Test": ["CMD", "true"], "Interval": 1000000000, "Retries": 2 }, "Hostname": "h",
        "HostConfig": {
            "Binds": ["data:/d:ro"], "Tmpfs": { "/t": "size=1m" }, "Memory": 67108864, "NanoCpus": 500000000,
            "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "" }] }, "NetworkMode": "default",
            "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "CapAdd": ["NET_ADMIN"], "Dns": ["1.1.1.1"],
            "ExtraHosts": ["a:10.0.0.1"], "Ulimits": [{ "Name": "nofile", "Soft": 10, "Hard": 20 }], "PidsLimit": 5,
            "LogConfig": { "Type": "json-file", "Config": { "max-size": "1m" } }, "Sysctls": { "net.core.somaxconn": "9" },
            "Devices": [{ "PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r" }],
            "Mounts": [{ "Type": "tmpfs", "Target": "/m" }], "SecurityOpt": ["no-new-privileges"], "CpusetCpus": "0",
            "BlkioDeviceReadBps": [], "DeviceCgroupRules": ["c 1:3 r"], "VolumesFrom": null, "OomScoreAdj": 5
        },
        "NetworkingConfig": { "EndpointsConfig": { "bridge": { "Aliases": ["x"], "IPAMConfig": { "IPv4Address": "" } } } }
    })
}

/// The paths of all values in `value`, as JSON pointers.
fn pointers(value: &Value, so_far: &str, all: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let path = format!("{so_far}/{}", escaped(key));
                pointers(inner, &path, all);
                all.push(path);
            }
        }
        Value::Array(list) => {
            for (at, inner) in list.iter().enumerate() {
                let path = format!("{so_far}/{at}");
                pointers(inner, &path, all);
                all.push(path);
            }
        }
        _ => {}
    }
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    let engine = Engine::start();
    let socket = engine.socket();
    let head = "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let chunked = |body: &str| format!("{head}Transfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
    let deep = [vec![b'['; 200_000], vec![b']'; 200_000]].concat();
    let deep_object = "{\"a\":".repeat(50_000);
    let refused = [
        ("no chunk size", chunked("ZZ\r\n{}\r\n0\r\n\r\n")),
        ("a chunk size beyond all numbers", chunked("FFFFFFFFFFFFFFFFFFFF\r\n{}")),
        ("a negative chunk size", chunked("-1\r\n{}\r\n0\r\n\r\n")),
        ("two lengths", format!("{head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}").into_bytes()),
        ("a negative length", format!("{head}Content-Length: -1\r\n\r\n").into_bytes()),
        ("a header beyond all measure", format!("{head}X: {}\r\n\r\n", "a".repeat(4 << 20)).into_bytes()),
        ("more headers than anyone needs", format!("{head}{}\r\n", "X: y\r\n".repeat(20_000)).into_bytes()),
        ("a path beyond all measure", format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)).into_bytes()),
        ("deep JSON", post("/containers/create", &deep)),
        ("deep JSON without an end", post("/containers/create", deep_object.as_bytes())),
        ("half of a JSON", post("/containers/create", b"{\"Image\": \"busy")),
        ("text that is no UTF-8", post("/containers/create", b"{\"Image\": \"\xff\xfe\"}")),
        ("no object", post("/containers/create", b"[1,2]")),
        ("a name that is no UTF-8", post("/containers/create?name=%ff%fe", b"{\"Image\":\"busybox\"}")),
        ("filters that are no JSON", b"GET /containers/json?filters=%7Bx HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("a path that is no UTF-8", b"GET /containers/%ff%00/json HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("another protocol", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec()),
        ("HTTP 2 without saying so", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in refused {
        let answer = raw(&socket, &bytes);
        let told = status(&answer);
        assert!(told.is_none_or(|status| (400..500).contains(&status)), "{what}: {told:?}");
        assert!(is_well(&socket), "after {what}");
    }
    let noise = prop::collection::vec(any::<u8>(), 0..600);
    runner(300)
        .run(&noise, |bytes| {
            let answer = raw(&socket, &bytes);
            prop_assert!(status(&answer).is_none_or(|status| (400..500).contains(&status)));
            Ok(())
        })
        .unwrap();
    assert!(is_well(&socket));
    engine.finish();
}

#[test]
fn queries_and_bodies_of_any_kind_are_answered_civilly() {
    let engine = Engine::start();
    engine.load("busybox");
    let socket = engine.socket();
    engine.docker(["create", "--name", "web", "busybox", "true"]).stdout();
    let get = [
        "/containers/json",
        "/containers/web/json",
        "/containers/web/logs",
        "/containers/web/top",
        "/containers/web/archive",
        "/containers/web/changes",
        "/images/json",
        "/images/busybox/json",
        "/images/get",
        "/networks",
        "/networks/bridge",
        "/volumes",
        "/info",
        "/version",
        "/system/df",
    ];
    let names =
        ["filters", "all", "limit", "size", "path", "since", "until", "tail", "stdout", "stream", "ps_args", "names"];
    let text = prop_oneof!["\\PC{0,20}", "[0-9]{1,25}", Just("-1".to_owned()), Just("{\"a\":[\"b\"]}".to_owned())];
    let query = prop::collection::vec((prop::sample::select(names.to_vec()), text, any::<bool>()), 0..4);
    runner(250)
        .run(&(prop::sample::select(get.to_vec()), query), |(path, query)| {
            let mut line = format!("GET {path}?");
            for (name, value, broken) in query {
                let coded: String = value.bytes().map(|byte| format!("%{byte:02x}")).collect();
                line.push_str(&format!("{name}={coded}{}&", if broken { "%f" } else { "" }));
            }
            let answer = ask(&socket, format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
            prop_assert!(is_civil(&answer), "{}", String::from_utf8_lossy(&answer));
            Ok(())
        })
        .unwrap();
    let posts = [
        "/containers/create",
        "/containers/web/update",
        "/containers/web/exec",
        "/networks/create",
        "/volumes/create",
        "/networks/bridge/connect",
        "/networks/bridge/disconnect",
        "/exec/nope/start",
        "/containers/web/rename",
    ];
    runner(200)
        .run(&(prop::sample::select(posts.to_vec()), any_json()), |(path, body)| {
            let answer = ask(&socket, &post(path, body.to_string().as_bytes()));
            prop_assert!(is_civil(&answer), "{path}: {}", String::from_utf8_lossy(&answer));
            Ok(())
        })
        .unwrap();
    // One value of a good body replaced by another: closer to what a broken client sends.
    let good = good_create();
    let mut all = Vec::new();
    pointers(&good, "", &mut all);
    let first = ask(&socket, &post("/containers/create", good.to_string().as_bytes()));
    assert_eq!(status(&first), Some(201), "{}", String::from_utf8_lossy(&first));
    runner(300)
        .run(&(prop::sample::select(all), any_json()), |(pointer, value)| {
            let mut body = good.clone();
            *body.pointer_mut(&pointer).expect("it is one of its paths") = value;
            let answer = ask(&socket, &post("/containers/create", body.to_string().as_bytes()));
            prop_assert!(is_civil(&answer), "{pointer}: {}", String::from_utf8_lossy(&answer));
            Ok(())
        })
        .unwrap();
    assert!(is_well(&socket));
    engine.finish();
}

#[test]
fn clients_that_leave_halfway_harm_nobody() {
    let engine = Engine::start();
    engine.load("busybox");
    let socket = engine.socket();
    engine.docker(["run", "-d", "-i", "--name", "web", "busybox", "sh", "-c", "cat; sleep 1000"]).stdout();
    let started = json!({ "AttachStdout": true, "Cmd": ["sh", "-c", "yes"] }).to_string();
    let answer = engine.request("POST", "/containers/web/exec", started.as_bytes());
    let exec = answer.json()["Id"].as_str().unwrap().to_owned();
    let upload = |method: &str, path: &str, kind: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 1000000000\r\n\r\nhalf of"
        )
    };
    let upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\n";
    let begun = [
        upload("POST", "/containers/create", "application/json"),
        upload("POST", "/build", "application/x-tar"),
        upload("POST", "/images/load", "application/x-tar"),
        upload("PUT", "/containers/web/archive?path=/tmp", "application/x-tar"),
        "POST /images/create?fromImage=localhost:1/nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_owned(),
        format!(
            "POST /containers/web/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Length: 0\r\n\r\n"
        ),
        format!("POST /exec/{exec}/start HTTP/1.1\r\nHost: x\r\n{upgrade}Content-Length: 2\r\n\r\n{{}}"),
        "GET /containers/web/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /containers/web/stats HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "POST /containers/web/wait HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "GET /containers/web/export HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /images/busybox/get HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /cont".to_owned(),
    ];
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", engine.pid())).unwrap().count();
    let before = descriptors();
    let mut hanging = Vec::new();
    for _ in 0..8 {
        for text in &begun {
            let mut stream = UnixStream::connect(&socket).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            hanging.push(stream);
        }
    }
    // While they all hang, others are served.
    assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "served"]).stdout(), "served\n");
    for (at, stream) in hanging.into_iter().enumerate() {
        // Some say goodbye, others are just gone.
        if at % 2 == 0 {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
    assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "served"]).stdout(), "served\n");
    engine.docker(["rm", "-f", "web"]).stdout();
    assert_eq!(engine.docker(["ps", "-aq"]).stdout(), "", "nothing came of what was half said");
    bireme_testing::eventually("closed connections", || (descriptors() <= before + 8).then_some(()));
    engine.finish();
}

#[test]
fn a_body_without_end_fills_no_memory() {
    let engine = Engine::start();
    let socket = engine.socket();
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    assert!(is_well(&socket));
    let before = resident();
    let mut stream = UnixStream::connect(&socket).unwrap();
    let head = "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = [b"10000\r\n".to_vec(), vec![b' '; 0x10000], b"\r\n".to_vec()].concat();
    let sent = (0..2048).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(
        sent < 2048 || status(&answer).is_some_and(|status| (400..500).contains(&status)),
        "{sent} chunks were taken"
    );
    assert!(resident() < before + (64 << 10), "{before} -> {} KiB", resident());
    assert!(is_well(&socket));
    engine.finish();
}
