//! Logs and health checks.

use bireme_testing::{Engine, eventually};

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

/// A probe that is given up goes with all it started: others would pile up beside the next ones.
#[test]
fn a_health_probe_that_takes_too_long_is_killed_and_its_output_kept() {
    let engine = Engine::start();
    engine.load("busybox");
    let probe = "echo begun; sleep 4321 & sleep 4321";
    let check =
        ["--health-interval", "1s", "--health-timeout", "1s", "--health-retries", "2", "busybox", "sleep", "300"];
    engine.docker(["run", "-d", "--name", "sick", "--health-cmd", probe].into_iter().chain(check)).stdout();
    let inspect = |what: &str| engine.docker(["inspect", "-f", what, "sick"]).stdout().trim().to_owned();
    eventually("ill", || (inspect("{{.State.Health.Status}}") == "unhealthy").then_some(()));
    let told = inspect("{{range .State.Health.Log}}{{.ExitCode}} {{.Output}}{{end}}");
    assert!(told.contains("-1 Health check exceeded timeout (1s): begun"), "{told}");
    eventually("three probes, each gone with its children", || {
        let left = engine.docker(["top", "sick"]).stdout().matches("sleep 4321").count();
        assert!(left <= 4, "{left} processes of probes");
        let events = engine
            .docker(["events", "--since", "1h", "--until", "0s", "--filter", "event=exec_die"])
            .stdout()
            .to_owned();
        (events.lines().count() >= 3).then_some(())
    });
    engine.finish();
}
