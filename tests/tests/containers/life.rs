//! Start, exit codes, signals, terminals and restarts.

use std::io::Write as _;
use std::process::Stdio;

use bireme_testing::{Engine, eventually};

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
fn a_terminal_has_its_size_from_the_first_instruction() {
    let engine = Engine::start();
    engine.load("busybox");
    let body = r#"{"Image":"busybox","Cmd":["stty","size"],"Tty":true,"HostConfig":{"ConsoleSize":[41,137]}}"#;
    for round in 0..5 {
        let name = format!("wide{round}");
        let made = engine.request("POST", &format!("/containers/create?name={name}"), body.as_bytes());
        assert_eq!(made.status, 201, "{}", made.text());
        engine.docker(["start", &name]).stdout();
        engine.docker(["wait", &name]).stdout();
        assert_eq!(engine.docker(["logs", &name]).stdout().trim(), "41 137");
    }
    let shown = engine.docker(["inspect", "-f", "{{.HostConfig.ConsoleSize}}", "wide0"]).stdout().to_owned();
    assert_eq!(shown.trim(), "[41 137]");
    // As Go reads arrays: what is missing is zero, and none.
    let half = engine.request("POST", "/containers/create", body.replace("[41,137]", "[41]").as_bytes());
    assert_eq!(half.status, 201, "{}", half.text());
    for bad in ["[41,70000]", "[-1,5]", "7"] {
        let refused = engine.request("POST", "/containers/create", body.replace("[41,137]", bad).as_bytes());
        assert_eq!(refused.status, 400, "{}", refused.text());
    }
    engine.docker(["container", "prune", "-f"]).stdout();
    engine.finish();
}

#[test]
fn a_name_without_a_value_takes_a_variable_away() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "cc", "-e", "KEPT=v", "busybox", "sleep", "1000"]).stdout();
    let exec = |flags: &[&str]| {
        let words = ["exec"].iter().chain(flags).chain(&["cc", "sh", "-c", "echo [$KEPT]"]);
        engine.docker(words).stdout().to_owned()
    };
    assert_eq!(exec(&[]), "[v]\n");
    assert_eq!(exec(&["-e", "KEPT=w"]), "[w]\n");
    assert_eq!(exec(&["-e", "KEPT"]), "[]\n");
    engine.finish();
}

/// Docker sends the signal and lets it go on: whoever stops a database that is paused loses nothing.
#[test]
fn a_paused_container_ends_as_gracefully_as_another() {
    let engine = Engine::start();
    engine.load("busybox");
    let script = "trap 'echo term; exit 5' TERM; while :; do sleep 0.1; done";
    let ends: [(&str, &[&str]); 3] =
        [("stopped", &["stop", "-t", "60"]), ("killed", &["kill", "-s", "TERM"]), ("again", &["restart", "-t", "60"])];
    for (name, end) in ends {
        engine.docker(["run", "-d", "--name", name, "busybox", "sh", "-c", script]).stdout();
        eventually("a process that sleeps", || {
            engine.docker(["top", name]).stdout().contains("sleep 0.1").then_some(())
        });
        engine.docker(["pause", name]).stdout();
        engine.docker(end.iter().chain([&name])).stdout();
        eventually("its last word", || (engine.docker(["logs", name]).stdout() == "term\n").then_some(()));
        if name != "again" {
            eventually("its end", || {
                let state = engine.docker(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name]);
                (state.stdout() == "exited 5\n").then_some(())
            });
        }
    }
    engine.docker(["rm", "-f", "stopped", "killed", "again"]).stdout();
    engine.finish();
}
