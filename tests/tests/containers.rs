//! Linux containers through the `docker` command line, as a newcomer would try them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write as _;
use std::process::Stdio;

use bireme_testing::{Engine, client, eventually, free_port};

#[test]
fn a_container_runs_prints_and_is_gone() {
    let engine = Engine::start();
    engine.load("busybox");
    assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "hi"]).stdout(), "hi\n");
    engine.docker(["run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"]).fails(3, "err");
    assert_eq!(engine.docker(["ps", "-aq"]).stdout(), "");
    engine.finish();
}

#[test]
fn exit_codes_tell_whose_fault_it_was() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "--rm", "busybox", "nope"]).fails(127, "executable file not found in $PATH");
    engine.docker(["run", "--rm", "busybox", "/etc/passwd"]).fails(126, "permission denied");
    engine.docker(["run", "--rm", "--pull", "never", "nosuchimage"]).fails(125, "No such image: nosuchimage:latest");
    engine.docker(["run", "--rm", "busybox", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]).fails(137, "");
    engine.docker(["run", "--rm", "--memory", "16m", "busybox", "sh", "-c", "tail /dev/zero"]).fails(137, "");
    engine.finish();
}

#[test]
fn standard_input_is_piped_through() {
    let engine = Engine::start();
    engine.load("busybox");
    let mut command = engine.command("docker", ["run", "--rm", "-i", "busybox", "wc", "-c"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let payload = vec![b'x'; 300_000];
    child.stdin.take().unwrap().write_all(&payload).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "300000");
    engine.finish();
}

#[test]
fn a_running_container_is_looked_into() {
    let engine = Engine::start();
    engine.load("busybox");
    engine
        .docker(["run", "-d", "--name", "web", "-e", "COLOUR=blue", "busybox", "sh", "-c", "echo begun; sleep 300"])
        .stdout();
    eventually("the first line of the log", || (engine.docker(["logs", "web"]).stdout() == "begun\n").then_some(()));
    assert_eq!(engine.docker(["exec", "web", "sh", "-c", "echo $COLOUR; exit 4"]).raw_stdout(), "blue\n");
    engine.docker(["exec", "web", "sh", "-c", "exit 4"]).fails(4, "");
    engine.docker(["exec", "web", "nope"]).fails(126, "executable file not found in $PATH");
    assert!(engine.docker(["ps", "--format", "{{.Names}} {{.Status}}"]).stdout().starts_with("web Up"));
    assert!(engine.docker(["top", "web"]).stdout().contains("sleep 300"));
    assert_eq!(
        engine.docker(["inspect", "-f", "{{.State.Status}} {{.Config.Hostname}}", "web"]).stdout().split(' ').next(),
        Some("running")
    );
    let stats = engine.docker(["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "web"]);
    assert!(stats.stdout().starts_with("web "), "{stats}");
    assert_eq!(engine.docker(["stop", "-t", "1", "web"]).stdout(), "web\n");
    assert_eq!(
        engine.docker(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "web"]).stdout(),
        "exited 137\n"
    );
    engine.docker(["start", "web"]).stdout();
    engine.docker(["rm", "web"]).fails(1, "is running: stop the container before removing or force remove");
    engine.docker(["rm", "-f", "web"]).stdout();
    engine.finish();
}

#[test]
fn published_ports_answer_on_the_loopback_and_are_given_back() {
    let engine = Engine::start();
    engine.load("busybox");
    let port = free_port();
    let publish = format!("{port}:80");
    let serve = [
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        publish.as_str(),
        "busybox",
        "sh",
        "-c",
        "mkdir /www; echo hello > /www/index.html; exec httpd -f -h /www",
    ];
    engine.docker(serve).stdout();
    let body = eventually("an answer on the published port", || {
        client::tcp(port, "GET", "/", "", b"").ok().filter(|a| a.status == 200)
    });
    assert_eq!(body.text(), "hello\n");
    assert!(engine.docker(["port", "web"]).stdout().contains(&format!("80/tcp -> 0.0.0.0:{port}")));
    let again = engine.docker(["run", "--rm", "-p", publish.as_str(), "busybox", "true"]);
    again.fails(125, "port is already allocated");
    engine.docker(["rm", "-f", "web"]).stdout();
    std::net::TcpListener::bind(("0.0.0.0", port)).expect("the port is free again");
    engine.finish();
}

#[test]
fn names_resolve_on_a_network_and_networks_are_apart() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "front"]).stdout();
    engine.docker(["network", "create", "back"]).stdout();
    let serve = "mkdir /www; echo here > /www/index.html; exec httpd -f -h /www";
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "front",
            "--network-alias",
            "shop",
            "busybox",
            "sh",
            "-c",
            serve,
        ])
        .stdout();
    for name in ["web", "shop"] {
        let url = format!("http://{name}/");
        let fetch = || {
            let output =
                engine.docker(["run", "--rm", "--network", "front", "busybox", "wget", "-q", "-O", "-", url.as_str()]);
            (output.raw_stdout() == "here\n").then_some(())
        };
        eventually("an answer by name", fetch);
    }
    let address = engine
        .docker(["inspect", "-f", "{{.NetworkSettings.Networks.front.IPAddress}}", "web"])
        .stdout()
        .trim()
        .to_owned();
    let script = format!("nc -w 2 {address} 80 </dev/null && echo reached || echo apart");
    assert_eq!(
        engine.docker(["run", "--rm", "--network", "back", "busybox", "sh", "-c", script.as_str()]).raw_stdout(),
        "apart\n"
    );
    engine.docker(["network", "rm", "front"]).fails(1, "has active endpoints");
    engine.docker(["rm", "-f", "web"]).stdout();
    engine.docker(["network", "rm", "front", "back"]).stdout();
    engine.finish();
}

#[test]
fn volumes_keep_what_containers_leave_in_them() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["volume", "create", "keep"]).stdout();
    engine.docker(["run", "--rm", "-v", "keep:/data", "busybox", "sh", "-c", "echo kept > /data/file"]).stdout();
    assert_eq!(
        engine.docker(["run", "--rm", "-v", "keep:/data:ro", "busybox", "cat", "/data/file"]).stdout(),
        "kept\n"
    );
    engine
        .docker(["run", "--rm", "-v", "keep:/data:ro", "busybox", "touch", "/data/x"])
        .fails(1, "Read-only file system");
    // A new volume begins with what the image has at its place.
    let listed = engine.docker(["run", "--rm", "-v", "etc:/etc", "busybox", "cat", "/etc/passwd"]);
    assert!(listed.stdout().contains("root:"));
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("note"), "from the host").unwrap();
    let bind = format!("{}:/host:ro", folder.path().display());
    assert_eq!(
        engine.docker(["run", "--rm", "-v", bind.as_str(), "busybox", "cat", "/host/note"]).stdout(),
        "from the host"
    );
    assert_eq!(
        engine
            .docker([
                "run",
                "--rm",
                "--tmpfs",
                "/scratch",
                "busybox",
                "sh",
                "-c",
                "echo x > /scratch/y && cat /scratch/y"
            ])
            .stdout(),
        "x\n"
    );
    engine.docker(["volume", "rm", "keep", "etc"]).stdout();
    engine.docker(["volume", "inspect", "keep"]).fails(1, "no such volume");
    engine.finish();
}

#[test]
fn restart_policies_bring_it_back() {
    let engine = Engine::start();
    engine.load("busybox");
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "stubborn",
            "--restart",
            "on-failure:2",
            "busybox",
            "sh",
            "-c",
            "echo turn; exit 5",
        ])
        .stdout();
    eventually("two restarts and an end", || {
        let state =
            engine.docker(["inspect", "-f", "{{.State.Status}} {{.RestartCount}} {{.State.ExitCode}}", "stubborn"]);
        (state.stdout() == "exited 2 5\n").then_some(())
    });
    assert_eq!(engine.docker(["logs", "stubborn"]).stdout(), "turn\nturn\nturn\n");
    engine.finish();
}

#[test]
fn health_is_probed_and_told() {
    let engine = Engine::start();
    engine.load("busybox");
    let check = [
        "run",
        "-d",
        "--name",
        "patient",
        "--health-cmd",
        "test -f /tmp/well",
        "--health-interval",
        "200ms",
        "--health-retries",
        "2",
        "busybox",
        "sleep",
        "300",
    ];
    engine.docker(check).stdout();
    let health = || engine.docker(["inspect", "-f", "{{.State.Health.Status}}", "patient"]).stdout().trim().to_owned();
    eventually("ill", || (health() == "unhealthy").then_some(()));
    engine.docker(["exec", "patient", "touch", "/tmp/well"]).stdout();
    eventually("well", || (health() == "healthy").then_some(()));
    engine.finish();
}

#[test]
fn logs_follow_from_where_they_are_asked() {
    let engine = Engine::start();
    engine.load("busybox");
    engine
        .docker([
            "run",
            "--name",
            "talker",
            "busybox",
            "sh",
            "-c",
            "for i in 1 2 3 4 5; do echo line $i; done; echo aside >&2",
        ])
        .stdout();
    assert_eq!(engine.docker(["logs", "--tail", "2", "talker"]).raw_stdout(), "line 5\n");
    assert_eq!(engine.docker(["logs", "talker"]).stderr(), "aside\n");
    assert!(engine.docker(["logs", "-t", "--tail", "1", "talker"]).stderr().contains("Z aside"));
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "clock",
            "busybox",
            "sh",
            "-c",
            "for i in 1 2 3; do echo tick $i; sleep 0.2; done",
        ])
        .stdout();
    assert_eq!(engine.docker(["logs", "-f", "clock"]).stdout(), "tick 1\ntick 2\ntick 3\n");
    engine.finish();
}

#[test]
fn changed_files_are_told_exported_and_taken_packed() {
    let engine = Engine::start();
    engine.load("busybox");
    let script =
        "echo new > /added; echo other >> /etc/passwd; rm /bin/busybox.gone 2>/dev/null; mkdir -p /a/b; touch /a/b/c";
    engine
        .docker(["run", "--name", "changed", "-v", "/data", "busybox", "sh", "-c", &format!("{script}; touch /data/x")])
        .raw_stdout();
    let diff = engine.docker(["diff", "changed"]);
    let lines: Vec<&str> = diff.stdout().lines().collect();
    for expected in ["A /added", "C /etc", "C /etc/passwd", "A /a", "A /a/b", "A /a/b/c"] {
        assert!(lines.contains(&expected), "{expected} in {lines:?}");
    }
    assert!(
        !lines.iter().any(|line| line.contains("/data/") || line.contains("hosts") || line.contains("/proc")),
        "{lines:?}"
    );
    // Nothing changed, nothing told.
    engine.docker(["create", "--name", "same", "busybox", "true"]).stdout();
    assert_eq!(engine.docker(["diff", "same"]).stdout(), "");

    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("files.tar");
    engine.docker(["export", "-o", archive.to_str().unwrap(), "changed"]).stdout();
    let list = |flags: &str| {
        let output = std::process::Command::new("tar").args([flags, archive.to_str().unwrap()]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let names = list("-tf");
    for expected in ["added", "a/b/c", "bin/busybox", "etc/passwd"] {
        assert!(names.lines().any(|name| name == expected), "{expected} in {names}");
    }
    assert!(!names.contains("data/x"), "volumes are not part of it: {names}");

    // A packed archive is unpacked, as Docker does it.
    std::fs::write(folder.path().join("note"), "packed").unwrap();
    let packed = std::process::Command::new("tar")
        .args(["-C", folder.path().to_str().unwrap(), "-cz", "note"])
        .output()
        .unwrap();
    let answer = engine.request("PUT", "/containers/same/archive?path=/etc", &packed.stdout);
    assert_eq!(answer.status, 200, "{}", answer.text());
    engine.docker(["cp", "same:/etc/note", folder.path().join("back").to_str().unwrap()]).stdout();
    assert_eq!(std::fs::read_to_string(folder.path().join("back")).unwrap(), "packed");

    // Volumes with a label stay, the others go.
    engine.docker(["volume", "create", "--label", "keep=yes", "one"]).stdout();
    engine.docker(["volume", "create", "two"]).stdout();
    let pruned = engine.docker(["volume", "prune", "-af", "--filter", "label!=keep=yes"]);
    assert!(pruned.stdout().contains("two") && !pruned.stdout().contains("one\n"), "{pruned}");
    // What has no terminal has no size, and that is no error.
    engine.docker(["run", "-d", "--name", "sleeps", "busybox", "sleep", "1000"]).stdout();
    assert_eq!(engine.request("POST", "/containers/sleeps/resize?h=10&w=10", b"").status, 200);
    engine.docker(["exec", "-u", "nobody-here", "sleeps", "true"]).fails(126, "nobody-here");
    engine.bireme(["exec", "-u", "nobody-here", "sleeps", "true"]).fails(126, "nobody-here");
    engine.finish();
}
