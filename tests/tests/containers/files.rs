//! Volumes, mounts, masked paths and copies.

use bireme_testing::{Engine, eventually};

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
