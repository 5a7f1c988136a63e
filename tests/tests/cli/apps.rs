//! `up` and the verbs that know the services of an app.

use std::fs;
use std::path::{Path, PathBuf};

use bireme_testing::Engine;

use super::{bireme, engine, within};

/// A folder with a Compose file.
fn app(engine: &Engine, name: &str, file: &str) -> PathBuf {
    let folder = engine.folder().join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("compose.yaml"), file).unwrap();
    folder
}

#[test]
fn up_wait_fails_with_the_exit_code_of_what_crashed_at_once() {
    let engine = engine();
    let crashing = "services:\n  good: {image: busybox, command: sleep 600, init: true}\n  bad: {image: busybox, init: true, command: sh -c 'sleep 0.1; exit 7'}\n";
    let folder = app(&engine, "crash", crashing);
    let up = within(&engine, &folder, bireme(), &["up", "-d", "--wait"]);
    up.fails(1, "container crash-bad-1 exited (7)");
    // One that its policy starts again and again is not up either.
    let looping = crashing.replace("init: true, command: sh", "init: true, restart: always, command: sh");
    fs::write(folder.join("compose.yaml"), looping).unwrap();
    within(&engine, &folder, bireme(), &["up", "-d", "--wait"]).fails(1, "container crash-bad-1 exited (7)");
    let healthy = "services:\n  good: {image: busybox, command: sleep 600, init: true}\n";
    fs::write(folder.join("compose.yaml"), healthy).unwrap();
    let up = within(&engine, &folder, bireme(), &["up", "-d", "--wait", "--remove-orphans"]);
    assert_eq!(up.code, 0, "{up}");
    within(&engine, &folder, bireme(), &["down", "-t", "0"]);
    engine.finish();
}

const SHARED: &str = r#"
services:
  p: {image: busybox, command: sleep 600, init: true}
  q: {image: busybox, command: sleep 600, init: true, network_mode: "service:p"}
  r: {image: busybox, command: sleep 600, init: true, depends_on: {p: {condition: service_started, restart: true}}}
  s: {image: busybox, command: sleep 600, pid: "service:p"}
"#;

#[test]
fn who_shares_a_network_is_restarted_with_its_owner_and_healed_by_up() {
    let engine = engine();
    let folder = app(&engine, "shared", SHARED);
    let run = |args: &[&str]| {
        let output = within(&engine, &folder, bireme(), args);
        assert_eq!(output.code, 0, "{output}");
        output
    };
    let connected = || run(&["exec", "q", "cat", "/sys/class/net/eth0/operstate"]).stdout().trim() == "up";
    run(&["up", "-d"]);
    assert!(connected());
    let restarted = run(&["restart", "-t", "0", "p"]);
    let mut names: Vec<&str> = restarted.stdout().lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["shared-p-1", "shared-q-1", "shared-r-1", "shared-s-1"]);
    assert!(connected());
    // Its processes ended with the first of the namespace.
    assert_eq!(run(&["exec", "s", "echo", "here"]).stdout(), "here\n");
    // Restarted behind our back, and even made anew: up sees that q stands on a network that is gone.
    engine.docker(["restart", "-t", "0", "shared-p-1"]);
    run(&["up", "-d", "-t", "0"]);
    assert!(connected());
    engine.docker(["rm", "-f", "shared-p-1"]);
    run(&["up", "-d", "-t", "0"]);
    assert!(connected());
    // One of the same name, and another.
    run(&["up", "-d", "-t", "0", "--force-recreate", "p"]);
    run(&["up", "-d", "-t", "0"]);
    assert!(connected());
    let before = run(&["ps", "-q", "q"]).stdout().to_owned();
    run(&["up", "-d"]);
    assert_eq!(run(&["ps", "-q", "q"]).stdout(), before, "what is well is left alone");
    run(&["down", "-t", "0"]);
    engine.finish();
}

#[test]
fn up_hands_on_what_is_written_byte_for_byte() {
    let engine = engine();
    let file = "services:\n  bytes: {image: busybox, command: \"sh -c 'printf \\\"\\\\\\\\377\\\\\\\\000\\\\\\\\200x\\\\\\\\n\\\"'\"}\n";
    let folder = app(&engine, "bytes", file);
    let mut command = engine.command(bireme(), ["up", "--no-log-prefix"]);
    command.current_dir(&folder);
    let output = command.output().unwrap();
    assert_eq!(output.stdout, b"\xff\0\x80x\n", "{}", String::from_utf8_lossy(&output.stderr));
    within(&engine, &folder, bireme(), &["down", "-t", "0"]);
    engine.finish();
}

#[test]
fn every_verb_knows_the_services_of_the_app_here() {
    let engine = engine();
    let port = bireme_testing::free_port();
    let file = format!(
        "services:\n  web: {{image: busybox, command: httpd -f -p 80, init: true, ports: [\"127.0.0.1:{port}:80\"]}}\n"
    );
    let folder = app(&engine, "verbs", &file);
    let up = within(&engine, &folder, bireme(), &["up", "-d"]);
    assert_eq!(up.code, 0, "{up}");
    let says = |args: &[&str], words: &str| {
        let output = within(&engine, &folder, bireme(), args);
        assert_eq!(output.code, 0, "{args:?}: {output}");
        assert!(output.stdout().contains(words), "{args:?}: {output}");
    };
    says(&["exec", "web", "echo", "hello"], "hello");
    says(&["top", "web"], "httpd -f -p 80");
    says(&["port", "web", "80"], &format!("127.0.0.1:{port}"));
    says(&["inspect", "-f", "{{.Name}}", "web"], "/verbs-web-1");
    says(&["ps", "web"], "verbs-web-1");
    says(&["stats", "--no-stream", "web"], "verbs-web-1");
    says(&["diff", "web"], "");
    says(&["cp", "web:/etc/passwd", "passwd"], "");
    says(&["network", "create", "verbs-aside"], "");
    says(&["network", "connect", "--alias", "aside", "verbs-aside", "web"], "");
    says(&["inspect", "-f", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", "web"], "verbs-aside");
    says(&["network", "disconnect", "verbs-aside", "web"], "");
    says(&["network", "rm", "verbs-aside"], "verbs-aside");
    says(&["pause", "web"], "verbs-web-1");
    says(&["unpause", "web"], "verbs-web-1");
    says(&["kill", "web"], "verbs-web-1");
    says(&["wait", "web"], "137");
    // Before the command, as with Compose; and from anywhere.
    let named = folder.join("compose.yaml");
    let up = within(&engine, Path::new("/"), bireme(), &["-f", named.to_str().unwrap(), "up", "-d"]);
    assert_eq!(up.code, 0, "{up}");
    let listed =
        within(&engine, Path::new("/"), bireme(), &["-f", named.to_str().unwrap(), "ps", "--format", "{{.Names}}"]);
    assert_eq!(listed.stdout(), "verbs-web-1\n");
    says(&["rm", "-f", "web"], "verbs-web-1");
    within(&engine, &folder, bireme(), &["ps", "nobody"]).fails(1, "No such container: nobody");
    within(&engine, &folder, bireme(), &["down", "-t", "0"]);
    engine.finish();
}

#[test]
fn links_volumes_and_limits_of_compose_reach_the_container() {
    let engine = engine();
    let mut disks = fs::read_dir("/sys/block").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let disk = disks.find(|name| !name.starts_with("loop") && Path::new("/dev").join(name).exists());
    let limit = disk.as_ref().map_or(String::new(), |disk| {
        format!("    blkio_config: {{device_read_bps: [{{path: /dev/{disk}, rate: 1mb}}]}}\n")
    });
    let file = r#"
services:
  db: {image: busybox, command: sleep 600, init: true, volumes: ["/data"]}
  web:
    image: busybox
    command: sleep 600
    init: true
    links: ["db:store"]
    volumes_from: ["db:ro"]
"#;
    let folder = app(&engine, "parts", &format!("{file}{limit}"));
    let up = within(&engine, &folder, bireme(), &["up", "-d"]);
    assert_eq!(up.code, 0, "{up}");
    let ping = within(&engine, &folder, bireme(), &["exec", "web", "ping", "-c", "1", "store"]);
    assert_eq!(ping.code, 0, "{ping}");
    let touch = within(&engine, &folder, bireme(), &["exec", "web", "touch", "/data/x"]);
    assert_ne!(touch.code, 0, "the volume of the other is there, and read-only");
    assert_eq!(within(&engine, &folder, bireme(), &["exec", "web", "ls", "-d", "/data"]).code, 0);
    if disk.is_some() {
        let rate = engine.docker(["inspect", "-f", "{{(index .HostConfig.BlkioDeviceReadBps 0).Rate}}", "parts-web-1"]);
        assert_eq!(rate.stdout(), "1048576\n");
    }
    within(&engine, &folder, bireme(), &["down", "-v", "-t", "0"]);
    engine.finish();
}
