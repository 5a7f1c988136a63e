//! The real binary: start, the API's manners, refusals, stop.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A daemon of its own, ended when dropped.
struct Daemon {
    child: Child,
    root: tempfile::TempDir,
}

fn start_in(root: tempfile::TempDir) -> Daemon {
    let child = command(root.path()).spawn().unwrap();
    let daemon = Daemon { child, root };
    let limit = Instant::now() + Duration::from_secs(30);
    while UnixStream::connect(daemon.socket()).is_err() {
        assert!(Instant::now() < limit, "the daemon does not listen: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    daemon
}

fn command(root: &Path) -> Command {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(root.join("log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_biremed"));
    command
        .arg("--data-root")
        .arg(root.join("data"))
        .arg("--exec-root")
        .arg(root.join("run"))
        .arg("--config-file")
        .arg(root.join("daemon.json"))
        .env("BIREME_LIBEXEC", helpers(root))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    std::fs::write(root.join("daemon.json"), "{}").unwrap();
    command
}

/// These tests run no workload: any file passes for a helper.
fn helpers(root: &Path) -> PathBuf {
    let folder = root.join("libexec");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["bireme-runner", "bireme-wasm-host"] {
        std::fs::write(folder.join(name), "").unwrap();
    }
    folder
}

fn start() -> Daemon {
    start_in(tempfile::Builder::new().prefix("bd").tempdir().unwrap())
}

impl Daemon {
    fn socket(&self) -> PathBuf {
        self.root.path().join("run/bireme.sock")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.root.path().join("log")).unwrap_or_default()
    }

    /// Sends raw bytes and reads until the daemon closes.
    fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // A request that is too large is refused before it is read to its end.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn ask(&self, method: &str, path: &str, body: Option<&str>) -> (u16, String) {
        let body = match body {
            None => "\r\n".to_owned(),
            Some(body) => format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()),
        };
        let answer = self.raw(&format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{body}"));
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, None);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn check_refusal(&self, method: &str, path: &str, body: Option<&str>, status: u16, message: &str) {
        let (got, body) = self.ask(method, path, body);
        let wire: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {body}"));
        let told = wire["message"].as_str().unwrap();
        assert!(
            got == status && told.contains(message),
            "{method} {path}: {got} {told:?}, expected {status} {message:?}"
        );
    }

    /// Asks it to end and waits until it has.
    fn stop(mut self) -> (std::process::ExitStatus, tempfile::TempDir) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let limit = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < limit, "the daemon does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        };
        let root = std::mem::replace(&mut self.root, tempfile::tempdir().unwrap());
        (status, root)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        if let Ok(None) = self.child.try_wait() {
            // Lets it clear away its networks.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.child.wait();
        }
    }
}

#[test]
fn ping_and_version_tell_what_clients_negotiate_by() {
    let daemon = start();
    let answer = daemon.raw("HEAD /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    for header in [
        "HTTP/1.1 200 OK",
        "Api-Version: 1.53",
        "Docker-Experimental: false",
        "Ostype: linux",
        "Builder-Version: 1",
        "Cache-Control: no-cache, no-store, must-revalidate",
        "Server: Bireme/",
    ] {
        assert!(answer.contains(header), "{header} in {answer}");
    }
    assert_eq!(daemon.ask("GET", "/v1.40/_ping", None), (200, "OK".to_owned()));
    let version = daemon.get("/v1.50/version");
    assert_eq!(version["ApiVersion"], "1.53");
    assert_eq!(version["MinAPIVersion"], "1.24");
    let info = daemon.get("/info");
    assert_eq!(info["Containers"], 0);
    assert_eq!(info["OSType"], "linux");
    let capabilities = daemon.get("/bireme/v1/capabilities");
    assert_eq!(capabilities["Kinds"], serde_json::json!(["container", "component"]));
}

#[test]
fn empty_lists_have_dockers_shapes() {
    let daemon = start();
    for (path, expected) in [
        ("/containers/json?all=1", "[]\n"),
        ("/images/json", "[]\n"),
        ("/plugins", "[]\n"),
        ("/volumes", "{\"Volumes\":[],\"Warnings\":null}\n"),
        ("/bireme/v1/workloads", "[]\n"),
    ] {
        assert_eq!(daemon.ask("GET", path, None), (200, expected.to_owned()), "{path}");
    }
    let names: Vec<String> =
        daemon.get("/networks").as_array().unwrap().iter().map(|n| n["Name"].as_str().unwrap().to_owned()).collect();
    for name in ["bridge", "host", "none"] {
        assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
    }
}

#[test]
fn refusals_are_dockers() {
    let daemon = start();
    let check = |method: &str, path: &str, body: Option<&str>, status: u16, message: &str| {
        daemon.check_refusal(method, path, body, status, message);
    };
    check("GET", "/nope", None, 404, "page not found");
    check("PUT", "/containers/json", None, 404, "page not found");
    check("GET", "/v1.99/info", None, 400, "client version 1.99 is too new. Maximum supported API version is 1.53");
    check("GET", "/v1.10/info", None, 400, "client version 1.10 is too old. Minimum supported API version is 1.24");
    check("GET", "/containers/nope/json", None, 404, "No such container: nope");
    check("GET", "/exec/nope/json", None, 404, "No such exec instance: nope");
    check("GET", "/networks/nope", None, 404, "nope");
    check("GET", "/volumes/nope", None, 404, "nope");
    check("GET", "/images/nope/json", None, 404, "nope");
    check("GET", "/images/a/b/c/json", None, 404, "a/b/c");
    check("GET", "/containers/json?filters=bad", None, 400, "invalid filters");
    check("GET", "/containers/json?filters=%7B%22foo%22:%5B%22x%22%5D%7D", None, 400, "invalid filter 'foo'");
    check("POST", "/containers/create", None, 400, "EOF");
    check("POST", "/containers/create", Some("{bad"), 400, "invalid JSON");
    check("POST", "/containers/create", Some("{}"), 400, "config cannot be empty");
    check("POST", "/containers/create", Some(r#"{"Image":"busybox"}"#), 404, "busybox");
    check(
        "POST",
        "/containers/create",
        Some(r#"{"Image":"x","HostConfig":{"StorageOpt":{"size":"1G"}}}"#),
        501,
        "StorageOpt is not offered",
    );
    check("POST", "/containers/nope/kill?signal=foo", None, 400, "invalid signal: foo");
    check("POST", "/containers/nope/wait?condition=foo", None, 400, "invalid condition: \"foo\"");
    check("GET", "/containers/nope/logs", None, 400, "you must choose at least one stream");
    check("GET", "/services", None, 503, "This node is not a swarm manager");
    check("POST", "/session", None, 400, "ask to upgrade to h2c");
    check("POST", "/grpc", None, 400, "ask to upgrade to h2c");
    check("POST", "/build?version=2&remote=client-session", None, 501, "DOCKER_BUILDKIT=0");
    check(
        "GET",
        "/images/search?term=127.0.0.1:1/x",
        None,
        400,
        "invalid registry endpoint \"http://127.0.0.1:1/v1/\"",
    );
    check("POST", "/images/create?fromImage=Bad%20Name", None, 400, "invalid reference format");
    let huge = "x".repeat(5 << 20);
    check("POST", "/networks/create", Some(&huge), 400, "request body too large");
    let unlike = daemon.raw(
        "POST /networks/create HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert!(unlike.contains("must be 'application/json'"), "{unlike}");
}

#[test]
fn volumes_and_networks_come_and_go() {
    let daemon = start();
    let (status, body) = daemon.ask("POST", "/volumes/create", Some(r#"{"Name":"data","Labels":{"a":"b"}}"#));
    assert_eq!(status, 201, "{body}");
    assert_eq!(daemon.get("/volumes/data")["Labels"]["a"], "b");
    assert_eq!(daemon.get("/volumes?filters=%7B%22label%22:%5B%22a=c%22%5D%7D")["Volumes"], serde_json::json!([]));
    assert_eq!(daemon.ask("DELETE", "/volumes/data", None).0, 204);
    let (status, body) = daemon.ask(
        "POST",
        "/networks/create",
        Some(r#"{"Name":"n","IPAM":{"Config":[{"Subnet":"10.213.77.0/24"}]},"Labels":{"a":"b"}}"#),
    );
    assert_eq!(status, 201, "{body}");
    let network = daemon.get("/networks/n");
    assert_eq!(network["IPAM"]["Config"][0]["Subnet"], "10.213.77.0/24");
    assert_eq!(network["Containers"], serde_json::json!({}));
    assert_eq!(daemon.ask("DELETE", "/networks/n", None).0, 204);
    daemon.check_refusal("DELETE", "/networks/n", None, 404, "n");
}

#[test]
fn a_second_engine_is_kept_out_and_a_stop_is_clean() {
    let daemon = start();
    let second = command(daemon.root.path()).stderr(Stdio::piped()).output().unwrap();
    assert!(!second.status.success());
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(told.contains("another engine (process"), "{told}");
    // A client that follows events is not waited for.
    let mut follower = UnixStream::connect(daemon.socket()).unwrap();
    follower.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut head = [0; 12];
    follower.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let socket = daemon.socket();
    let (status, root) = daemon.stop();
    assert!(status.success());
    assert!(!socket.exists());
    // A socket left behind by one that was killed is no obstacle.
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let again = start_in(root);
    assert_eq!(again.ask("GET", "/_ping", None).0, 200);
}

#[test]
fn settings_are_told_with_their_origins_and_refused_in_sentences() {
    let root = tempfile::tempdir().unwrap();
    let told =
        command(root.path()).arg("--print-config").env_remove("BIREME_LOG").stdout(Stdio::piped()).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.contains(&format!("data-root = {}  (flag)", root.path().join("data").display())), "{told}");
    assert!(told.contains("log-driver = json-file  (default)"), "{told}");
    assert!(!root.path().join("data").exists());
    let refused = |arguments: &[&str]| {
        let output = command(root.path()).args(arguments).stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&["-H", "tcp://127.0.0.1:2375"]).contains("TLS with client certificates is not offered yet"));
    assert!(refused(&["--log-driver", "syslog"]).contains("log driver \"syslog\" is not offered"));
    assert!(refused(&["--log-level", "loud"]).contains("unknown log level"));
    std::fs::remove_dir_all(root.path().join("libexec")).unwrap();
    let missing = Command::new(env!("CARGO_BIN_EXE_biremed"))
        .arg("--print-config")
        .env("BIREME_LIBEXEC", "/nowhere")
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    // Beside the built binary the real ones may stand.
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(missing.status.success() || said.contains("cannot find bireme-"), "{said}");
}
