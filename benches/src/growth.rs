//! How times grow with the number of things: 10, 100 and 1,000 of each. What is near linear takes about ten times as long
//! from column to column; what a client asks for once takes no longer.

use std::fmt::Write as _;
use std::time::Instant;

use bireme_testing::{Engine, free_port};
use serde_json::{Value, json};

use crate::sample::{figure, print_table};

/// One row: what was timed, in seconds, by column.
#[derive(Default)]
struct Rows(Vec<(&'static str, Vec<f64>)>);

impl Rows {
    fn time<T>(&mut self, what: &'static str, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let took = began.elapsed().as_secs_f64();
        match self.0.iter_mut().find(|(name, _)| *name == what) {
            Some((_, times)) => times.push(took),
            None => self.0.push((what, vec![took])),
        }
        done
    }
}

pub(crate) fn run(sizes: &[usize]) {
    let mut rows = Rows::default();
    for size in sizes {
        components(&mut rows, *size);
        containers(&mut rows, *size);
        records(&mut rows, *size);
    }
    let columns: Vec<String> =
        std::iter::once("seconds for".to_owned()).chain(sizes.iter().map(ToString::to_string)).collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let rows: Vec<Vec<String>> = rows
        .0
        .iter()
        .map(|(what, times)| std::iter::once((*what).to_owned()).chain(times.iter().map(|t| figure(*t))).collect())
        .collect();
    print_table("Growth", &columns, &rows);
}

/// A Compose file of `size` services, each with a route of its own on `port`. `image` is what stands behind that key.
pub(crate) fn app(size: usize, port: u16, image: impl Fn(usize) -> String) -> String {
    let mut file = "services:\n".to_owned();
    for number in 0..size {
        let image = image(number);
        let _ = write!(
            file,
            "  s{number}:\n    image: {image}\n    ports: [\"{port}:80\"]\n    labels:\n      bireme.http.route: /s{number}\n"
        );
    }
    file
}

/// One app of components, all of one image, compiled before.
fn components(rows: &mut Rows, size: usize) {
    let mut engine = Engine::start();
    engine.build_guest("hello", "hello");
    engine.bireme(["run", "-d", "--name", "compiled", "hello"]).stdout();
    let port = free_port();
    let file = app(size, port, |_| "hello\n    platform: wasi/wasm".to_owned());
    let path = engine.folder().join("compose.yaml");
    std::fs::write(&path, file).expect("the file can be written");
    let path = path.to_str().expect("plain paths");
    rows.time("`bireme up -d` of N components in one app", || {
        engine.bireme(["up", "-f", path, "-d"]).stdout();
    });
    rows.time("`up` again, with nothing to do", || {
        engine.bireme(["up", "-f", path, "-d"]).stdout();
    });
    rows.time("the list of N components", || list(&engine));
    engine.crash();
    rows.time("a daemon killed and started again, N components running", || engine.come_back());
    rows.time("`bireme down` of N components", || {
        engine.bireme(["down", "-f", path]).stdout();
    });
    engine.finish();
}

/// Containers with names and published ports on one network.
fn containers(rows: &mut Rows, size: usize) {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "growth"]).stdout();
    let ids: Vec<String> = rows.time("create of N containers, one after the other", || {
        (0..size)
            .map(|number| {
                let body = json!({
                    "Image": "busybox", "Cmd": ["sleep", "100000"], "StopSignal": "SIGKILL",
                    "ExposedPorts": { "80/tcp": {} },
                    "HostConfig": {
                        "NetworkMode": "growth", "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "0" }] },
                    },
                });
                post(&engine, &format!("/containers/create?name=c{number}"), &body)["Id"].as_str().map(str::to_owned)
            })
            .map(|id| id.expect("a created container has an ID"))
            .collect()
    });
    rows.time("start of N containers with a name and a published port", || {
        for id in &ids {
            post(&engine, &format!("/containers/{id}/start"), &Value::Null);
        }
    });
    rows.time("the list of N containers", || list(&engine));
    rows.time("inspect of each of N", || {
        for id in &ids {
            get(&engine, &format!("/containers/{id}/json"));
        }
    });
    rows.time("inspect of a network with N members", || get(&engine, "/networks/growth"));
    let last = format!("c{}", size - 1);
    rows.time("one name asked for from inside, among N", || {
        engine.docker(["exec", "c0", "nslookup", last.as_str()]);
    });
    engine.crash();
    rows.time("a daemon killed and started again, N containers running", || engine.come_back());
    rows.time("kill of N containers", || {
        for id in &ids {
            post(&engine, &format!("/containers/{id}/kill"), &Value::Null);
        }
    });
    rows.time("`container prune` of N", || post(&engine, "/containers/prune", &Value::Null));
    engine.finish();
}

/// What is only remembered: volumes, networks, events.
fn records(rows: &mut Rows, size: usize) {
    let engine = Engine::start();
    rows.time("create of N volumes", || {
        for number in 0..size {
            post(&engine, "/volumes/create", &json!({ "Name": format!("v{number}") }));
        }
    });
    rows.time("the list of N volumes", || get(&engine, "/volumes"));
    rows.time("`volume prune` of N", || {
        post(&engine, "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", &Value::Null)
    });
    rows.time("the events of that", || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        engine.request("GET", &format!("/events?since=0&until={now}"), b"")
    });
    engine.finish();
}

fn list(engine: &Engine) -> Value {
    get(engine, "/containers/json?all=1")
}

fn get(engine: &Engine, path: &str) -> Value {
    let answer = engine.request("GET", path, b"");
    assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
    answer.json()
}

fn post(engine: &Engine, path: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = engine.request("POST", path, body.as_bytes());
    assert!(answer.status < 300, "POST {path}: {} {}", answer.status, answer.text());
    if answer.text().is_empty() { Value::Null } else { answer.json() }
}
