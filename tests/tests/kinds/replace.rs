//! A component that is made anew, or restarted, while clients ask it: none of them notices.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bireme_testing::{Engine, eventually, free_port, workspace};

use super::{answer, both};

const FILE: &str = r#"
name: anew
services:
  web:
    image: both
    ports: ["127.0.0.1:${PORT}:80"]
    environment:
      NUMBER: ${NUMBER}
    labels:
      bireme.class: wasm
"#;

/// One answer from `stream`; what went wrong otherwise.
fn ask(stream: &mut TcpStream) -> Result<(), String> {
    let failed = |what: &str, error: std::io::Error| format!("{what}: {error}");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").map_err(|error| failed("sending", error))?;
    let mut read = Vec::new();
    let mut part = [0; 4096];
    // The answers of this guest have a length, or end with an empty chunk.
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            if length.map_or_else(|| body.ends_with("0\r\n\r\n"), |length| body.len() >= length) {
                return if head.starts_with("http/1.1 200") { Ok(()) } else { Err(text) };
            }
        }
        match stream.read(&mut part).map_err(|error| failed("reading", error))? {
            0 => return Err(format!("cut after {text:?}")),
            count => read.extend_from_slice(&part[..count]),
        }
    }
}

fn connect(port: u16) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("connecting: {error}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    Ok(stream)
}

/// Asks until told to end; answers how often, and what went wrong.
fn client(port: u16, keeps_alive: bool, ends: &AtomicBool) -> (usize, Vec<String>) {
    let (mut asked, mut failures, mut kept) = (0, Vec::new(), None);
    while !ends.load(Ordering::Relaxed) {
        asked += 1;
        let stream = kept.take().map_or_else(|| connect(port), Ok);
        let done = stream.and_then(|mut stream| ask(&mut stream).map(|()| stream));
        match done {
            Ok(stream) => kept = Some(stream).filter(|_| keeps_alive),
            Err(failure) => failures.push(failure),
        }
    }
    (asked, failures)
}

#[test]
fn a_component_is_made_anew_without_a_request_that_fails() {
    let engine = Engine::start();
    both(&engine, &[]);
    let file = engine.folder().join("compose.yaml");
    std::fs::write(&file, FILE).unwrap();
    let port = free_port();
    let plugin = workspace().join("target/setup/docker/cli-plugins/docker-compose");
    for program in [bireme_testing::binaries().join("bireme"), plugin] {
        let compose = |number: usize, args: &[&str]| {
            let mut command = engine.command(&program, args);
            command.current_dir(file.parent().unwrap()).env("PORT", port.to_string()).env("NUMBER", number.to_string());
            engine.run(command).stdout().to_owned()
        };
        let id = || engine.docker(["ps", "-q", "--no-trunc", "--filter", "name=^/anew-web-1$"]).stdout().to_owned();
        compose(0, &["up", "-d"]);
        eventually("the component", || answer(port));
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let clients = [true, false].map(|keeps_alive| {
                scope.spawn({
                    let ends = &ends;
                    move || client(port, keeps_alive, ends)
                })
            });
            let mut seen = vec![id()];
            for number in 1..=4 {
                compose(number, &["up", "-d"]);
                seen.push(id());
            }
            for _ in 0..3 {
                compose(4, &["restart"]);
                engine.docker(["restart", "anew-web-1"]).stdout();
            }
            std::thread::sleep(Duration::from_millis(200));
            ends.store(true, Ordering::Relaxed);
            for client in clients {
                let (asked, failures) = client.join().unwrap();
                assert!(failures.is_empty(), "{} of {asked} with {program:?}: {failures:?}", failures.len());
                assert!(asked > 100, "{asked}");
            }
            let count = seen.len();
            seen.dedup();
            assert!(seen.len() == count && seen.iter().all(|id| id.trim().len() == 64), "each time another: {seen:?}");
        });
        // Only the last one is there, by its name.
        assert_eq!(engine.docker(["ps", "-a", "--format", "{{.Names}}"]).stdout().trim(), "anew-web-1");
        compose(4, &["down", "-t", "0"]);
    }
    engine.finish();
}
