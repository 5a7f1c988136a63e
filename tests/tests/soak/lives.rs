//! The life of one container by requests by hand, each timed: create, listen to its events, start, end in one of four ways.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bireme_testing::eventually;
use serde_json::{Value, json};

/// A request that takes longer is stuck. Hundreds of clients share two processors, and each start is some work.
const STUCK: Duration = Duration::from_secs(90);

struct Answer {
    status: u16,
    body: Value,
}

fn connect(socket: &Path) -> UnixStream {
    // A listener's queue may be full for a moment.
    let stream = eventually("a connection", || UnixStream::connect(socket).ok());
    stream.set_read_timeout(Some(STUCK)).unwrap();
    stream
}

/// One request on a connection of its own, and how long it took.
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (Answer, Duration) {
    let began = Instant::now();
    let mut stream = connect(socket);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap_or_else(|error| panic!("{method} {path} is stuck: {error}"));
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let json = text.find('{').zip(text.rfind('}')).and_then(|(from, to)| serde_json::from_str(&text[from..=to]).ok());
    (Answer { status, body: json.unwrap_or_default() }, began.elapsed())
}

/// A connection on which events of one container come.
fn listen(socket: &Path, id: &str) -> BufReader<UnixStream> {
    let mut stream = connect(socket);
    let path = format!("/events?filters=%7B%22container%22%3A%5B%22{id}%22%5D%7D");
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap() > 2 {
        line.clear();
    }
    reader
}

/// Reads events until the container is gone; answers what happened.
fn actions(mut events: BufReader<UnixStream>) -> Vec<String> {
    let mut all = Vec::new();
    let mut line = String::new();
    while all.last().is_none_or(|last| last != "destroy") {
        line.clear();
        let read =
            events.read_line(&mut line).unwrap_or_else(|error| panic!("events are stuck after {all:?}: {error}"));
        assert!(read > 0, "the stream of events ended after {all:?}");
        if let Ok(event) = serde_json::from_str::<Value>(&line)
            && let Some(action) = event["Action"].as_str()
        {
            all.push(action.to_owned());
        }
    }
    all
}

/// From create to removal; answers the longest that one request took.
pub(crate) fn one_life(socket: &Path, name: &str, kind: usize) -> Duration {
    let mut longest = Duration::ZERO;
    let mut done = |method: &str, path: &str, body: &str, expected: &[u16]| {
        let (answer, took) = ask(socket, method, path, body);
        assert!(expected.contains(&answer.status), "{method} {path}: {} {}", answer.status, answer.body);
        longest = longest.max(took);
        answer.body
    };
    let kind = kind % 4;
    let long = kind == 1 || kind == 2;
    let command = if long { vec!["sleep", "1000"] } else { vec!["sh", "-c", "echo $0; exit 3"] };
    let body = json!({ "Image": "busybox", "Cmd": command, "HostConfig": { "AutoRemove": kind == 2 } });
    let created = done("POST", &format!("/containers/create?name={name}"), &body.to_string(), &[201]);
    let id = created["Id"].as_str().unwrap().to_owned();
    let events = listen(socket, &id);
    done("POST", &format!("/containers/{id}/start"), "", &[204]);
    match kind {
        0 => {
            let ended = done("POST", &format!("/containers/{id}/wait"), "", &[200]);
            assert_eq!(ended["StatusCode"], 3, "{ended}");
            done("DELETE", &format!("/containers/{id}"), "", &[204]);
        }
        1 => {
            done("GET", "/containers/json?all=1", "", &[200]);
            done("DELETE", &format!("/containers/{id}?force=1"), "", &[204]);
        }
        // It is removed while it ends by itself.
        3 => drop(done("DELETE", &format!("/containers/{id}?force=1"), "", &[204])),
        // It removes itself.
        _ => drop(done("POST", &format!("/containers/{id}/kill"), "", &[204])),
    }
    let seen = actions(events);
    let seen: Vec<&str> = seen.iter().map(String::as_str).filter(|a| ["start", "die", "destroy"].contains(a)).collect();
    assert_eq!(seen, ["start", "die", "destroy"], "{name}");
    longest
}
