//! What `docker run` is told and `docker update` changes, against what a container then is.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bireme_testing::{Engine, eventually};
use serde_json::json;

fn run(engine: &Engine, flags: &[&str], script: &str) -> String {
    let args = ["run", "--rm"].into_iter().chain(flags.iter().copied()).chain(["busybox", "sh", "-c", script]);
    engine.docker(args).stdout().to_owned()
}

#[test]
fn limits_change_while_it_runs_and_are_remembered() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "web", "-m", "64m", "busybox", "sleep", "1000"]).stdout();
    let limit = |engine: &Engine| {
        let stats = engine.docker(["stats", "--no-stream", "--format", "{{.MemUsage}}", "web"]);
        stats.stdout().trim().rsplit(" / ").next().unwrap().to_owned()
    };
    assert_eq!(limit(&engine), "64MiB");
    engine.docker(["update", "-m", "256m", "web"]).fails(
        1,
        "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
    );
    engine.docker(["update", "-m", "4m", "web"]).fails(1, "Minimum memory limit allowed is 6MB");
    engine.docker(["update", "-m", "96m", "--cpus", "0.5", "--pids-limit", "20", "web"]).stdout();
    assert_eq!(limit(&engine), "96MiB");
    engine
        .docker(["update", "--cpu-quota", "50000", "web"])
        .fails(1, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
    engine.docker(["update", "--cpus", "5000", "web"]).fails(1, "Range of CPUs is from 0.01 to");
    engine
        .docker(["update", "--cpuset-cpus", "900", "web"])
        .fails(1, "Requested CPUs are not available - requested 900");
    let forks = "for i in $(seq 40); do sleep 1 & done";
    assert!(engine.docker(["exec", "web", "sh", "-c", forks]).stderr().contains("fork"), "the number of processes");
    let format = "{{.HostConfig.Memory}} {{.HostConfig.MemorySwap}} {{.HostConfig.NanoCpus}} {{.HostConfig.PidsLimit}}";
    let shown = "100663296 134217728 500000000 20\n";
    assert_eq!(engine.docker(["inspect", "-f", format, "web"]).stdout(), shown);

    engine.crash();
    engine.come_back();
    assert_eq!(engine.docker(["inspect", "-f", format, "web"]).stdout(), shown);
    assert_eq!(limit(&engine), "96MiB");
    engine.docker(["restart", "-t", "0", "web"]).stdout();
    assert_eq!(limit(&engine), "96MiB", "they hold for the next run too");
    engine.docker(["stop", "-t", "0", "web"]).stdout();
    engine.docker(["update", "-m", "32m", "--restart", "always", "web"]).stdout();
    engine.docker(["start", "web"]).stdout();
    assert_eq!(limit(&engine), "32MiB", "one that does not run has them at its next start");
    let events = engine.docker(["events", "--since", "1h", "--until", "0s", "--filter", "event=update"]);
    assert!(events.stdout().contains("container update "), "{events}");
    engine.finish();
}

#[test]
fn a_component_takes_its_memory_limit_at_its_start() {
    let engine = Engine::start();
    engine.build_guest("hello", "hello");
    engine.docker(["run", "-d", "--name", "hello", "--platform", "wasi/wasm", "hello"]).stdout();
    engine.docker(["update", "-m", "64m", "--memory-swap", "64m", "hello"]).fails(1, "takes its limits when it starts");
    engine.docker(["update", "--restart", "always", "hello"]).stdout();
    engine.docker(["stop", "-t", "0", "hello"]).stdout();
    engine.docker(["update", "-m", "64m", "--memory-swap", "64m", "hello"]).stdout();
    engine.docker(["start", "hello"]).stdout();
    assert_eq!(engine.docker(["inspect", "-f", "{{.HostConfig.Memory}}", "hello"]).stdout(), "67108864\n");
    let warned = engine.docker(["update", "--cpus", "1", "hello"]);
    assert!(warned.stderr().contains("takes its limits when it starts"), "{warned}");
    engine.finish();
}

#[test]
fn health_is_what_it_was_after_the_daemon_died() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let probed = ["--health-cmd", "test -f /ok", "--health-interval", "200ms", "--health-retries", "1"];
    let args = ["run", "-d", "--name", "web"].into_iter().chain(probed);
    engine.docker(args.chain(["busybox", "sh", "-c", "touch /ok; sleep 1000"])).stdout();
    let health = |engine: &Engine| {
        engine.docker(["inspect", "-f", "{{.State.Health.Status}}", "web"]).stdout().trim().to_owned()
    };
    eventually("health", || (health(&engine) == "healthy").then_some(()));
    engine.crash();
    engine.come_back();
    assert_eq!(health(&engine), "healthy", "remembered before any probe");
    engine.docker(["exec", "web", "rm", "/ok"]).stdout();
    eventually("it to be found out", || (health(&engine) == "unhealthy").then_some(()));
    engine.docker(["exec", "web", "touch", "/ok"]).stdout();
    eventually("it to be well again", || (health(&engine) == "healthy").then_some(()));
    engine.docker(["stop", "-t", "0", "web"]).stdout();
    assert_eq!(health(&engine), "unhealthy", "what does not run is not well");
    engine.docker(["start", "web"]).stdout();
    eventually("health of the new run", || (health(&engine) == "healthy").then_some(()));
    engine.finish();
}

#[test]
fn who_it_is_and_where_is_as_asked() {
    let engine = Engine::start();
    engine.load("busybox");
    assert_eq!(run(&engine, &[], "test -f /.dockerenv && echo yes"), "yes\n");
    assert_eq!(run(&engine, &["-u", "1000:1001", "--group-add", "5"], "id -G"), "1001 5\n");
    assert_eq!(run(&engine, &[], "id -G"), "0 10\n", "root is in wheel too");
    let servers = ["--dns", "1.2.3.4", "--dns", "8.8.8.8", "--dns-search", "a.b", "--dns-option", "ndots:3"];
    let told = "nameserver 1.2.3.4\nnameserver 8.8.8.8\nsearch a.b\noptions ndots:3\n";
    assert_eq!(run(&engine, &servers, "cat /etc/resolv.conf"), told);
    engine.docker(["run", "-d", "--name", "base", "--hostname", "other", "busybox", "sleep", "1000"]).stdout();
    let joined = run(&engine, &["--network", "container:base"], "hostname; cat /etc/hostname; tail -1 /etc/hosts");
    assert!(joined.starts_with("other\nother\n") && joined.ends_with("\tother\n"), "{joined}");
    let absent = engine.docker(["run", "--rm", "--network", "container:nobody", "busybox", "true"]);
    absent.fails(125, "No such container: nobody");
    assert_eq!(run(&engine, &["--oom-kill-disable", "-m", "64m"], "exit 0"), "");
    assert_eq!(run(&engine, &["--annotation", "a=b", "--log-opt", "mode=non-blocking"], "echo hi"), "hi\n");
    engine.docker(["run", "--rm", "--tmpfs", "/t:odd", "busybox", "true"]).fails(125, "invalid tmpfs option \"odd\"");
    engine
        .docker(["run", "--rm", "--device-cgroup-rule", "z 1", "busybox", "true"])
        .fails(125, "invalid device cgroup format");
    assert_eq!(run(&engine, &["--device-cgroup-rule", "c 1:* rwm"], "echo ok"), "ok\n");
    let cgroups = run(&engine, &["--cgroupns", "host"], "cat /proc/self/cgroup");
    assert!(cgroups.contains("/bireme-"), "it sees where its cgroup lies: {cgroups}");
    engine.finish();
}

#[test]
fn a_linked_container_is_found_by_its_alias() {
    let engine = Engine::start();
    engine.load("busybox");
    engine
        .docker(["run", "-d", "--name", "db", "-e", "FOO=bar", "--expose", "80", "busybox", "sleep", "1000"])
        .stdout();
    let look = "ping -c 1 -w 2 store >/dev/null && echo $STORE_PORT_80_TCP_PROTO $STORE_ENV_FOO";
    assert_eq!(run(&engine, &["--link", "db:store"], look), "tcp bar\n");
    engine.docker(["run", "--rm", "--link", "nope:x", "busybox", "true"]).fails(125, "No such container: nope");
    engine.docker(["stop", "-t", "0", "db"]).stdout();
    let stopped = engine.docker(["run", "--rm", "--link", "db:x", "busybox", "true"]);
    stopped.fails(125, "Cannot link to a non running container: /db AS");
    engine.finish();
}

/// As dockerd 26.1.5 answers each of these, but for the status of a refusal that is no fault of its own.
#[test]
fn a_link_is_shown_by_the_names_of_today_and_removed_by_itself() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "db", "busybox", "sleep", "1000"]).stdout();
    engine
        .docker(["run", "-d", "--name", "web", "--link", "db:store", "--link", "db", "busybox", "sleep", "1000"])
        .stdout();
    let inspect = |engine: &Engine, name: &str| engine.request("GET", &format!("/containers/{name}/json"), b"").json();
    let links = |engine: &Engine, name: &str| inspect(engine, name)["HostConfig"]["Links"].clone();
    let names = |engine: &Engine| {
        let list = engine.request("GET", "/containers/json", b"").json();
        let of = |entry: &serde_json::Value| entry["Names"].as_array().unwrap().clone();
        list.as_array().unwrap().iter().map(of).max_by_key(Vec::len).unwrap()
    };
    assert_eq!(links(&engine, "web"), json!(["/db:/web/store", "/db:/web/db"]));
    assert_eq!(names(&engine), ["/db", "/web/store", "/web/db"]);
    assert_eq!(inspect(&engine, "web/store")["Name"], "/db");
    assert_eq!(inspect(&engine, "web%2Fstore")["Name"], "/db");
    engine.docker(["rename", "db", "data"]).stdout();
    engine.docker(["rename", "web", "site"]).stdout();
    assert_eq!(links(&engine, "site"), json!(["/data:/site/store", "/data:/site/db"]));

    let unlink = |engine: &Engine, name: &str| engine.request("DELETE", &format!("/containers/{name}?link=1"), b"");
    assert_eq!(unlink(&engine, "site").status, 400);
    let refused = engine.docker(["rm", "--link", "site"]);
    refused.fails(1, "Conflict, cannot remove the default link name of the container");
    for name in ["nope", "site/nope", "nope/store", "data/store"] {
        let answer = unlink(&engine, name);
        assert_eq!(answer.json()["message"], format!("No such container: {name}"));
        assert_eq!(answer.status, 404);
    }
    assert_eq!(engine.docker(["rm", "--link", "/site/store"]).stdout(), "/site/store\n");
    assert_eq!(unlink(&engine, "site/store").status, 404);
    engine.crash();
    engine.come_back();
    assert_eq!(links(&engine, "site"), json!(["/data:/site/db"]));
    engine.docker(["restart", "-t", "0", "site"]).stdout();
    let hosts = "grep -c store /etc/hosts; grep -c ' data$' /etc/hosts";
    assert_eq!(engine.run(engine.command("docker", ["exec", "site", "sh", "-c", hosts])).raw_stdout(), "0\n1\n");
    assert_eq!(engine.docker(["rm", "--link", "site/db"]).stdout(), "site/db\n");
    assert_eq!(links(&engine, "site"), json!(null));
    engine.finish();
}

#[test]
fn where_all_of_the_machine_is_bound_its_devices_are_there() {
    let engine = Engine::start();
    engine.load("busybox");
    let look = "echo x > /host/dev/null && head -c 4 /host/dev/urandom | wc -c";
    assert_eq!(run(&engine, &["-v", "/:/host"], look), "4\n");
    engine.finish();
}

#[test]
fn volumes_of_another_container_are_shared() {
    let engine = Engine::start();
    engine.load("busybox");
    let folder = engine.folder().join("shared");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "from the host\n").unwrap();
    let bind = format!("{}:/host", folder.display());
    let first = ["run", "--name", "first", "-v", "/data", "-v", &bind, "busybox", "sh", "-c", "echo kept > /data/a"];
    engine.docker(first).stdout();
    assert_eq!(run(&engine, &["--volumes-from", "first"], "cat /data/a /host/file"), "kept\nfrom the host\n");
    let script = "touch /data/b 2>/dev/null || echo read-only";
    assert_eq!(run(&engine, &["--volumes-from", "first:ro"], script), "read-only\n");
    let own = ["--volumes-from", "first", "--tmpfs", "/host"];
    assert_eq!(run(&engine, &own, "ls /host | wc -l"), "0\n", "what is asked for goes before what is inherited");
    engine.docker(["run", "--rm", "--volumes-from", "nope", "busybox", "true"]).fails(125, "No such container: nope");
    engine.docker(["run", "--rm", "--volumes-from", "first:odd", "busybox", "true"]).fails(125, "invalid mode: odd");
    engine.finish();
}
