//! An engine of canned answers on a unix socket, to see what the program does with them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

/// One request as it was received: `METHOD /path?query`, and its body.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Engine {
    folder: tempfile::TempDir,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Engine {
    /// Answers each request with the first entry whose beginning matches `METHOD /path?query`; 404 otherwise.
    pub(crate) fn start(answers: Vec<(&'static str, Vec<u8>)>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("engine.sock")).unwrap();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let seen = requests.clone();
        let answers = Arc::new(answers);
        // Ends with the test process: it owns nothing outside.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answers, seen) = (answers.clone(), seen.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &answers, &seen));
            }
        });
        Self { folder, requests }
    }

    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("engine.sock")
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = bireme(args);
        command.env("BIREME_HOST", self.host()).current_dir(self.folder.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }
}

pub(crate) fn bireme(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bireme"));
    command.args(args).env_remove("DOCKER_HOST").env_remove("BIREME_HOST").env("NO_COLOR", "1");
    command
}

fn serve(mut stream: UnixStream, answers: &[(&'static str, Vec<u8>)], seen: &Mutex<Vec<Request>>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if let Some(length) = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()) {
        body = vec![0; length.trim().parse().unwrap()];
        stream.read_exact(&mut body).unwrap();
    } else if lower.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(1) => body.push(byte[0]),
                _ => break,
            }
        }
    }
    seen.lock().unwrap().push(Request { line: line.clone(), body });
    let missing = json(404, r#"{"message":"No such container: it"}"#);
    let answer = answers.iter().find(|(start, _)| line.starts_with(start)).map_or(&missing, |(_, answer)| answer);
    // The program may have gone already, as with a broken pipe.
    let _ = stream.write_all(answer);
    if answer.starts_with(b"HTTP/1.1 101") {
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

pub(crate) fn json(status: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

pub(crate) fn empty() -> Vec<u8> {
    b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
}

/// A hijacked answer with framed output.
pub(crate) fn attached(frames: &[(u8, &str)]) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n".to_vec();
    for (stream, text) in frames {
        answer.extend([*stream, 0, 0, 0]);
        answer.extend((text.len() as u32).to_be_bytes());
        answer.extend(text.as_bytes());
    }
    answer
}
