//! WebAssembly components through the same clients as containers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bireme_testing::{Engine, client, eventually, free_port, guest};

fn answers(port: u16, path: &str) -> Option<client::Answer> {
    client::tcp(port, "GET", path, "", b"").ok()
}

#[test]
fn a_component_answers_http_and_is_a_container_to_every_client() {
    let engine = Engine::start();
    engine.build_guest("hello", "hello");
    let port = free_port();
    engine
        .docker(["run", "-d", "--name", "hello", "--platform", "wasi/wasm", "-p", &format!("{port}:80"), "hello"])
        .stdout();
    let answer = eventually("an answer", || answers(port, "/").filter(|a| a.status == 200));
    assert!(!answer.text().is_empty());
    assert!(engine.docker(["ps", "--format", "{{.Names}} {{.Ports}}"]).stdout().contains(&format!("{port}->80/tcp")));
    engine
        .docker(["exec", "hello", "sh"])
        .fails(1, "is a WebAssembly component and has no processes or shell to exec into");
    engine.docker(["top", "hello"]).stdout();
    engine.docker(["stop", "hello"]).stdout();
    assert!(answers(port, "/").is_none(), "a stopped component answers nobody");
    engine.docker(["start", "hello"]).stdout();
    eventually("an answer after another start", || answers(port, "/").filter(|a| a.status == 200));
    engine.docker(["rm", "-f", "hello"]).stdout();
    engine.finish();
}

#[test]
fn services_share_a_host_port_by_their_routes() {
    let engine = Engine::start();
    engine.build_guest("hello", "hello");
    let port = free_port();
    let publish = format!("{port}:80");
    let run = |name: &str, route: &str| {
        let label = format!("bireme.http.route={route}");
        let app = ["--label", "com.docker.compose.project=shop", "--label", label.as_str()];
        engine.docker(
            ["run", "-d", "--name", name, "--platform", "wasi/wasm", "-p", publish.as_str()]
                .into_iter()
                .chain(app)
                .chain(["hello"]),
        )
    };
    run("api", "/a/...").stdout();
    run("bay", "/b").stdout();
    run("cay", "/a/...").fails(125, "clashes with /a/... of api");
    eventually("the first route", || answers(port, "/a/x").filter(|a| a.status == 200));
    eventually("the second route", || answers(port, "/b").filter(|a| a.status == 200));
    assert_eq!(answers(port, "/c").map(|a| a.status), Some(404));
    engine.docker(["rm", "-f", "api"]).stdout();
    eventually("the second alone", || answers(port, "/b").filter(|a| a.status == 200));
    assert_eq!(answers(port, "/a/x").map(|a| a.status), Some(404));
    engine.docker(["rm", "-f", "bay"]).stdout();
    engine.finish();
}

#[test]
fn a_local_file_runs_without_an_image() {
    let engine = Engine::start();
    let port = free_port();
    let publish = format!("{port}:80");
    let hello = guest("hello");
    engine.bireme(["run", "-d", "--name", "local", "-p", publish.as_str(), hello.to_str().unwrap()]).stdout();
    eventually("an answer", || answers(port, "/").filter(|a| a.status == 200));
    engine.bireme(["rm", "-f", "local"]).stdout();
    engine.finish();
}

/// What a command prints reaches whoever is attached, however much it is and however slowly it is read.
#[test]
fn a_command_loses_no_line_and_keeps_its_time() {
    let engine = Engine::start();
    let command = guest("command");
    let command = command.to_str().expect("plain paths");
    let output = engine.bireme(["run", "--rm", command, "spam", "20000"]);
    assert_eq!(output.stdout().lines().count(), 20_000);

    let began = std::time::Instant::now();
    let limited = ["run", "--rm", "--label", "bireme.timeout=1s", command, "loop"];
    engine.bireme(limited).fails(124, "took longer than bireme.timeout=1s and was ended");
    assert!(began.elapsed() < std::time::Duration::from_secs(20));
    engine.finish();
}

/// As a program in a container: standard input, the working directory, the root as a mount, and what is refused.
#[test]
fn a_command_is_given_input_a_working_directory_and_no_ports() {
    use std::io::Write as _;
    let engine = Engine::start();
    engine.build_guest("command", "command");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("greeting"), "hello").unwrap();
    let path = folder.path().to_str().unwrap();

    let mut command = engine.command("docker", ["run", "-i", "--rm", "--platform", "wasi/wasm", "command", "stdin"]);
    let piped = command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut client = piped.spawn().unwrap();
    client.stdin.take().unwrap().write_all(&[b'x'; 100_000]).unwrap();
    let output = client.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "100000 bytes\n");
    assert!(output.status.success());

    let run = |flags: &[&str], words: &[&str]| {
        let mut all = vec!["run", "--rm", "--platform", "wasi/wasm"];
        all.extend(flags);
        all.push("command");
        all.extend(words);
        engine.docker(all)
    };
    let (data, root) = (format!("{path}:/data:ro"), format!("{path}:/:ro"));
    assert_eq!(run(&["-v", &data, "-w", "/data"], &["read", "greeting"]).stdout(), "hello\n");
    assert_eq!(run(&["-v", &root], &["read", "/greeting"]).stdout(), "hello\n");
    run(&["-p", "0:80"], &["echo"]).fails(125, "cannot publish ports: it exports the command trigger");
    run(&["--label", "bireme.http.route=/x"], &["echo"]).fails(125, "label bireme.http.route does not fit");
    engine.finish();
}

/// What a component is called by, it is called by in its log and its answers too.
#[test]
fn a_component_that_is_renamed_is_told_by_its_new_name() {
    let engine = Engine::start();
    engine.build_guest("probe", "probe");
    let port = free_port();
    let publish = format!("{port}:80");
    engine.docker(["run", "-d", "--name", "before", "--platform", "wasi/wasm", "-p", &publish, "probe"]).stdout();
    eventually("an answer", || answers(port, "/").filter(|a| a.status != 503));
    engine.docker(["rename", "before", "after"]).stdout();
    let answer = answers(port, "/trap").unwrap();
    assert!(answer.text().contains("after failed to answer; see its log (docker logs after)"), "{}", answer.text());
    engine.docker(["restart", "after"]).stdout();
    eventually("an answer again", || answers(port, "/").filter(|a| a.status == 200));
    let answer = answers(port, "/trap").unwrap();
    assert!(answer.text().contains("after failed to answer; see its log (docker logs after)"), "{}", answer.text());
    engine.docker(["rm", "-f", "after"]).stdout();
    engine.finish();
}
