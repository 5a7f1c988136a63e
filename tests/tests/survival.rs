//! The daemon is killed; what it runs goes on.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bireme_testing::{Engine, client, eventually, free_port};

#[test]
fn containers_and_components_outlive_the_daemon() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("hello", "hello");
    let (web, component) = (free_port(), free_port());
    let serve = "mkdir /www; echo still here > /www/index.html; exec httpd -f -h /www";
    engine.docker(["run", "-d", "--name", "web", "-p", &format!("{web}:80"), "busybox", "sh", "-c", serve]).stdout();
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "ticker",
            "busybox",
            "sh",
            "-c",
            "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done",
        ])
        .stdout();
    engine.docker(["run", "-d", "--name", "short", "busybox", "sh", "-c", "sleep 1; echo last words; exit 7"]).stdout();
    engine
        .docker(["run", "-d", "--name", "hello", "--platform", "wasi/wasm", "-p", &format!("{component}:80"), "hello"])
        .stdout();
    let answers = |port| client::tcp(port, "GET", "/", "", b"").ok().filter(|a| a.status == 200);
    eventually("the container answers", || answers(web));
    eventually("the component answers", || answers(component));

    engine.crash();
    for _ in 0..20 {
        assert!(answers(web).is_some(), "the container went on answering");
        assert!(answers(component).is_some(), "the component went on answering");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    engine.come_back();

    assert!(answers(web).is_some() && answers(component).is_some());
    let names = engine.docker(["ps", "--format", "{{.Names}}"]);
    let mut names: Vec<&str> = names.stdout().lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["hello", "ticker", "web"]);
    assert_eq!(
        engine.docker(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "short"]).stdout(),
        "exited 7\n"
    );
    assert_eq!(engine.docker(["logs", "short"]).stdout(), "last words\n");
    let ticks = engine.docker(["logs", "ticker"]);
    let numbers: Vec<u32> =
        ticks.stdout().lines().filter_map(|line| line.strip_prefix("tick ")?.parse().ok()).collect();
    assert!(
        numbers.len() > 20 && numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "no tick was lost: {numbers:?}"
    );
    assert_eq!(engine.docker(["exec", "web", "echo", "inside"]).stdout(), "inside\n");
    engine.docker(["stop", "-t", "1", "web", "ticker", "hello"]).stdout();
    engine.finish();
}

#[test]
fn a_restart_policy_holds_across_daemons() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "always", "--restart", "always", "busybox", "sleep", "300"]).stdout();
    engine.docker(["run", "-d", "--name", "unless", "--restart", "unless-stopped", "busybox", "sleep", "300"]).stdout();
    engine.docker(["stop", "-t", "0", "always", "unless"]).stdout();
    engine.crash();
    engine.come_back();
    eventually("the one that is always to run", || {
        (engine.docker(["ps", "--format", "{{.Names}}"]).stdout() == "always\n").then_some(())
    });
    engine.finish();
}

#[test]
fn engines_that_start_in_the_same_moment_choose_different_subnets() {
    let start = std::sync::Barrier::new(6);
    let engines: Vec<Engine> = std::thread::scope(|scope| {
        let one = || {
            start.wait();
            Engine::start()
        };
        let starting: Vec<_> = (0..6).map(|_| scope.spawn(one)).collect();
        starting.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let subnet = |engine: &Engine| {
        engine.docker(["network", "inspect", "-f", "{{json .IPAM.Config}}", "bridge"]).stdout().to_owned()
    };
    let different: std::collections::BTreeSet<String> = engines.iter().map(subnet).collect();
    assert_eq!(different.len(), engines.len(), "{different:?}");
    engines.into_iter().for_each(Engine::finish);
}

#[test]
fn two_engines_share_a_machine_and_nothing_else() {
    let (one, two) = (Engine::start(), Engine::start());
    for engine in [&one, &two] {
        engine.load("busybox");
        engine.docker(["network", "create", "same"]).stdout();
        engine.docker(["run", "-d", "--name", "same", "--network", "same", "busybox", "sleep", "300"]).stdout();
    }
    one.docker(["rm", "-f", "same"]).stdout();
    one.docker(["network", "rm", "same"]).stdout();
    assert_eq!(two.docker(["exec", "same", "echo", "untouched"]).stdout(), "untouched\n");
    one.finish();
    assert_eq!(two.docker(["exec", "same", "echo", "untouched"]).stdout(), "untouched\n");
    two.finish();
}
