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
fn a_part_of_a_volume_is_mounted_and_never_what_lies_outside() {
    let engine = Engine::start();
    engine.load("busybox");
    let fill = "mkdir -p /d/a/b && echo deep >/d/a/b/file && echo top >/d/file && ln -s a/b /d/inside && \
                ln -s /etc /d/out && ln -s ../.. /d/up";
    engine.docker(["run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", fill]).stdout();
    let read = |subpath: &str, path: &str| {
        let mount = format!("type=volume,src=data,dst=/x,volume-subpath={subpath}");
        engine.docker(["run", "--rm", "--mount", &mount, "busybox", "cat", path])
    };
    assert_eq!(read("a/b", "/x/file").stdout(), "deep\n");
    assert_eq!(read("a/b/file", "/x").stdout(), "deep\n", "a single file");
    assert_eq!(read("inside", "/x/file").stdout(), "deep\n", "a link that stays inside");
    read("none", "/x").fails(125, "cannot access path");
    read("out", "/x/passwd").fails(125, "escapes the base directory");
    read("up", "/x").fails(125, "escapes the base directory");
    read("../data", "/x").fails(125, "subpath must be a relative path within the volume");
    read("/etc", "/x").fails(125, "subpath must be a relative path within the volume");
    // What the image has at the place is not copied into the volume.
    engine
        .docker(["run", "--rm", "--mount", "type=volume,src=data,dst=/usr,volume-subpath=a", "busybox", "true"])
        .stdout();
    assert_eq!(engine.docker(["run", "--rm", "-v", "data:/d", "busybox", "ls", "/d/a"]).stdout(), "b\n");
    engine.finish();
}

#[test]
fn paths_that_are_asked_for_are_masked_or_read_only() {
    let engine = Engine::start();
    engine.load("busybox");
    let script = "cat /etc/passwd | wc -c; ls -A /home | wc -l; touch /usr/x 2>&1; touch /bin/x 2>&1; /bin/ls / >/dev/null && echo runs; touch /proc/sys/x 2>&1; cat /proc/kcore | head -c1 | wc -c";
    let run = |host: &str| {
        let body = format!(r#"{{"Image":"busybox","Cmd":["sh","-c","{script}"],"HostConfig":{host}}}"#);
        let made = engine.request("POST", "/containers/create", body.as_bytes());
        assert_eq!(made.status, 201, "{}", made.text());
        let id = made.json()["Id"].as_str().unwrap().to_owned();
        engine.docker(["start", &id]).stdout();
        engine.docker(["wait", &id]).stdout();
        engine.docker(["logs", &id]).stdout().to_owned()
    };
    let told = run(r#"{"MaskedPaths":["/etc/passwd","/home","/none"],"ReadonlyPaths":["/usr","/none","/etc/../bin"]}"#);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..2], ["0", "0"], "{told}");
    for path in ["/usr/x", "/bin/x"] {
        assert!(told.contains(&format!("touch: {path}: Read-only file system")), "{told}");
    }
    assert!(told.contains("runs\n"), "programs there can be executed: {told}");
    engine.finish();
}

#[test]
fn mounts_of_a_shared_bind_go_both_ways_and_those_of_others_do_not() {
    let engine = Engine::start();
    engine.load("busybox");
    let folder = engine.folder().join("shared");
    std::fs::create_dir(&folder).unwrap();
    let path = folder.to_str().unwrap().to_owned();
    let mount = |arguments: &[&str]| {
        assert!(std::process::Command::new(arguments[0]).args(&arguments[1..]).status().unwrap().success())
    };
    mount(&["mount", "-t", "tmpfs", "none", &path]);
    mount(&["mount", "--make-private", &path]);
    let bind = |word: &str| format!("type=bind,src={path},dst=/x,bind-propagation={word}");
    let refused = |word: &str| {
        let words = format!(
            "path {path} is mounted on {path} but it is not a {} mount",
            if word == "rshared" { "shared" } else { "shared or slave" }
        );
        engine.docker(["run", "--rm", "--mount", &bind(word), "busybox", "true"]).fails(125, &words);
    };
    refused("rshared");
    refused("rslave");
    mount(&["mount", "--make-shared", &path]);
    for word in ["rshared", "rslave", "rprivate"] {
        let inside = format!(
            "mkdir -p /x/{word} && mount -t tmpfs none /x/{word} && echo here >/x/{word}/file && touch /x/{word}.ready && sleep 300"
        );
        engine
            .docker([
                "run",
                "-d",
                "--name",
                word,
                "--privileged",
                "--mount",
                &bind(word),
                "busybox",
                "sh",
                "-c",
                &inside,
            ])
            .stdout();
        eventually("the mount inside", || folder.join(format!("{word}.ready")).exists().then_some(()));
        assert_eq!(
            folder.join(word).join("file").exists(),
            word == "rshared",
            "{word}: from the container to the host"
        );
        let from_host = folder.join(format!("host-{word}"));
        std::fs::create_dir(&from_host).unwrap();
        mount(&["mount", "-t", "tmpfs", "none", from_host.to_str().unwrap()]);
        std::fs::write(from_host.join("file"), "x").unwrap();
        let seen = engine.docker(["exec", word, "ls", &format!("/x/host-{word}")]).stdout().to_owned();
        assert_eq!(seen.trim() == "file", word != "rprivate", "{word}: from the host to the container");
        engine.docker(["rm", "-f", word]).stdout();
    }
    mount(&["umount", "-R", &path]);
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

/// As `docker cp` names what it copies: the root has no name, `..` is resolved by its words, and the kernel's own files are
/// not there.
#[test]
fn the_root_is_copied_without_the_kernels_files() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "runs", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["create", "--name", "rests", "busybox"]).stdout();
    for container in ["runs", "rests"] {
        for (path, name, inside) in
            [("/", "all", "bin/busybox"), ("/etc/..", "up", "etc/passwd"), ("/bin/../etc", "etc", "passwd")]
        {
            let out = engine.folder().join(format!("{container}-{name}"));
            engine.docker(["cp", "-q", &format!("{container}:{path}"), out.to_str().unwrap()]).stdout();
            assert!(out.join(inside).exists(), "{container} {path}");
        }
        let all = engine.folder().join(format!("{container}-all"));
        for kernels in ["proc", "sys"] {
            assert_eq!(std::fs::read_dir(all.join(kernels)).unwrap().count(), 0, "{container} {kernels}");
        }
        let ours = engine.folder().join(format!("{container}-ours"));
        engine.bireme(["cp", &format!("{container}:/"), ours.to_str().unwrap()]).stdout();
        assert!(ours.join("bin/busybox").exists());
    }
    engine.docker(["cp", "runs:/proc/version", "-"]).fails(1, "Could not find the file /proc/version in container");
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

#[test]
fn a_range_of_ports_leaves_those_that_are_named() {
    let engine = Engine::start();
    engine.load("busybox");
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = std::iter::repeat_with(free_port).find(|first| is_free(first + 1)).unwrap();
    let (range, named) = (format!("127.0.0.1:{first}-{}:90", first + 1), format!("127.0.0.1:{first}:91"));
    engine.docker(["run", "-d", "--name", "ranged", "-p", &range, "-p", &named, "busybox", "sleep", "1000"]).stdout();
    assert_eq!(engine.docker(["port", "ranged", "91"]).stdout(), format!("127.0.0.1:{first}\n"));
    assert_eq!(engine.docker(["port", "ranged", "90"]).stdout(), format!("127.0.0.1:{}\n", first + 1));
    engine.docker(["rm", "-f", "ranged"]).stdout();
    engine.finish();
}
