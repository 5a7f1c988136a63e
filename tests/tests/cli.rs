//! `bireme` beside `docker`, on the same engine: what it prints, copies and answers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bireme_testing::{Engine, Output, binaries, eventually};

fn engine() -> Engine {
    let engine = Engine::start();
    engine.load("busybox");
    engine
}

/// Runs `program` in `folder`.
fn within(engine: &Engine, folder: &Path, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Output {
    let mut command = engine.command(program, args);
    command.current_dir(folder);
    engine.run(command)
}

fn bireme() -> PathBuf {
    binaries().join("bireme")
}

/// A folder with a Compose file.
fn app(engine: &Engine, name: &str, file: &str) -> PathBuf {
    let folder = engine.folder().join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("compose.yaml"), file).unwrap();
    folder
}

/// Files, folders and links of every sort.
fn seed(base: &Path) {
    for folder in ["dir/sub", "empty", "full/dir", "clash/file"] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    for (path, text) in [
        ("dir/a", "a"),
        ("dir/sub/b", "b"),
        ("file", "file"),
        ("full/file", "old"),
        ("full/dir/a", "olda"),
        ("clash/dir", "a file"),
    ] {
        fs::write(base.join(path), text).unwrap();
    }
    fs::hard_link(base.join("dir/a"), base.join("dir/hard")).unwrap();
    for (target, link) in
        [("a", "dir/la"), ("/nope", "dir/dangling"), ("file", "lfile"), ("dir", "ldir"), ("gone", "lgone")]
    {
        symlink(target, base.join(link)).unwrap();
    }
    fs::set_permissions(base.join("dir/sub"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(base.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
}

/// Everything below a folder: path, kind, mode, names and content.
fn tree(folder: &Path, below: &str, out: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder.join(below)).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = if below.is_empty() {
            entry.file_name().into_string().unwrap()
        } else {
            format!("{below}/{}", entry.file_name().to_str().unwrap())
        };
        let found = entry.path().symlink_metadata().unwrap();
        if found.is_symlink() {
            out.push(format!("{path} -> {}", fs::read_link(entry.path()).unwrap().display()));
        } else if found.is_dir() {
            out.push(format!("{path}/ {:o}", found.mode() & 0o7777));
            tree(folder, &path, out);
        } else {
            let text = fs::read_to_string(entry.path()).unwrap();
            out.push(format!("{path} {:o} {} {text:?}", found.mode() & 0o7777, found.nlink()));
        }
    }
}

/// What a copy by `program` leaves behind: whether it succeeded, and the tree that it wrote into.
fn copied(engine: &Engine, program: &Path, at: usize, into: bool, args: &[&str]) -> (bool, Vec<String>) {
    let base = engine.folder().join(format!("cp-{at}-{}", program.file_name().unwrap().to_str().unwrap()));
    let (here, there, after) = (base.join("here"), base.join("there"), base.join("after"));
    for folder in [&here, &there, &after] {
        fs::create_dir_all(folder).unwrap();
    }
    seed(&here);
    seed(&there);
    let id = engine.docker(["create", "busybox", "true"]).stdout().trim().to_owned();
    let sent = format!("tar -C {} -c . | docker cp - {id}:/mnt", there.display());
    let sent = within(engine, &base, "sh", &["-c", &sent]);
    assert_eq!(sent.code, 0, "{sent}");
    let args: Vec<String> = args.iter().map(|arg| arg.replace("C:", &format!("{id}:/mnt/"))).collect();
    let mut line = vec!["cp"];
    line.extend(args.iter().map(String::as_str));
    let done = within(engine, &here, program, &line);
    let mut found = Vec::new();
    if into {
        let fetched = format!("docker cp {id}:/mnt - | tar -C {} -x", after.display());
        assert_eq!(within(engine, &base, "sh", &["-c", &fetched]).code, 0);
        tree(&after, "", &mut found);
    } else {
        tree(&here, "", &mut found);
    }
    engine.docker(["rm", "-f", &id]);
    (done.code == 0, found)
}

#[test]
fn cp_does_with_links_slashes_and_clashes_what_docker_does() {
    let cases: &[&[&str]] = &[
        // A folder never takes the place of a file.
        &["dir", "C:file"],
        &["dir/.", "C:file"],
        &["C:dir", "file"],
        &["dir", "C:clash"],
        &["C:dir", "clash"],
        &["file", "C:clash"],
        // New names, folders that are there, slashes.
        &["file", "C:full"],
        &["file", "C:full/file"],
        &["file", "C:empty/new"],
        &["file", "C:empty/new/"],
        &["dir", "C:empty/new/"],
        &["dir", "C:full"],
        &["dir/.", "C:full"],
        &["dir/", "C:empty"],
        &["C:dir", "full"],
        &["C:dir/", "empty/new/"],
        &["C:file", "empty/new/"],
        &["C:file", "full/file/"],
        &["C:file", "nowhere/x"],
        &["C:nope", "empty"],
        // Links as sources, followed or not.
        &["lfile", "C:empty"],
        &["ldir", "C:empty"],
        &["ldir/", "C:empty"],
        &["ldir/.", "C:empty"],
        &["-L", "lfile", "C:empty"],
        &["-L", "ldir", "C:empty"],
        &["C:lfile", "empty"],
        &["C:ldir", "empty"],
        &["-L", "C:lfile", "empty"],
        &["-L", "C:ldir", "empty/new"],
        // Links as targets.
        &["file", "C:lfile"],
        &["file", "C:lgone"],
        &["file", "C:ldir"],
        &["dir", "C:ldir/x"],
        &["C:file", "lgone"],
        &["C:file", "ldir"],
    ];
    let engine = engine();
    let (docker, bireme) = (PathBuf::from("docker"), bireme());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { break };
                    let into = case.last().unwrap().starts_with("C:");
                    let theirs = copied(&engine, &docker, at, into, case);
                    let ours = copied(&engine, &bireme, at, into, case);
                    if theirs != ours {
                        wrong.lock().unwrap().push(format!("{case:?}\n docker: {theirs:?}\n bireme: {ours:?}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    engine.finish();
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

#[test]
fn templates_print_what_dockers_client_prints() {
    let engine = engine();
    engine.docker([
        "run",
        "-d",
        "--name",
        "it",
        "--init",
        "-l",
        "a=1",
        "-l",
        "b.c=two words",
        "busybox",
        "sleep",
        "600",
    ]);
    let inspected = [
        "{{.Name}} {{.Config.Image}}",
        "{{.Config.Labels.missing}}",
        "{{index .Config.Labels \"missing\"}}|",
        "{{index .Config.Labels \"b.c\"}}",
        "{{index .Config.Cmd 0}} {{len .Config.Cmd}}",
        "{{index .Config.Cmd 9}}",
        "{{.Nope}}",
        "{{printf \"%T\" .Name}} {{printf \"%q %5s|%-5s|\" .Config.Image \"a\" \"b\"}}",
        "{{printf \"%d|%05d|%x\" .RestartCount 42 255}}",
        "{{printf \"%d %s\" .Name 7}}",
        "{{range .Config.Cmd}}<{{.}}>{{end}}",
        "{{range $i, $e := .Config.Cmd}}{{if $i}},{{end}}{{$e}}{{end}}",
        "{{range .Mounts}}x{{else}}none{{end}}",
        "{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}",
        "{{with .State}}{{.Status}} {{$.Name}}{{end}}{{with .Mounts}}x{{else}}y{{end}}",
        "{{if eq .State.Status \"exited\"}}a{{else if .State.Running}}b{{else}}c{{end}}",
        "{{.Config.Cmd | json}} {{json .Config.Labels}}",
        "{{.Name | upper | printf \"%s!\"}}",
        "{{join .Config.Cmd \" \"}} {{title \"two words\"}} {{lower \"X\"}} {{split \"a:b\" \":\"}}",
        "{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}",
        "{{range .Config.Cmd}}{{if eq . \"600\"}}{{break}}{{end}}{{.}}{{end}}",
        "{{if and .State.Running (not .State.Paused)}}up{{end}} {{or \"\" \"b\"}}",
        "{{- .Name -}}   x",
        "{{print 1 2 \"a\" 3}} {{println \"x\"}}",
        "{{if .Name}",
        "{{end}}",
        "{{nope .Name}}",
    ];
    let listed = [
        "{{.Names}}\t{{.Label \"a\"}}|{{.Label \"zz\"}}",
        "table {{.Names}}\t{{.State}}",
        "{{.Nope}}",
        "{{upper .Names}}",
    ];
    let inspections = inspected.iter().map(|template| ["inspect", "-f", template, "it"].to_vec());
    let lists = listed.iter().map(|template| ["ps", "--format", template].to_vec());
    let mut wrong = Vec::new();
    for args in inspections.chain(lists) {
        let (theirs, ours) = (engine.docker(&args), engine.bireme(&args));
        // What each says of a mistake is its own; that it is one is not.
        let same =
            (theirs.code == 0) == (ours.code == 0) && (theirs.code != 0 || theirs.raw_stdout() == ours.raw_stdout());
        if !same {
            wrong.push(format!("{args:?}\n docker: {theirs}\n bireme: {ours}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    engine.docker(["rm", "-f", "it"]);
    engine.finish();
}

#[test]
fn what_is_on_the_disk_is_told_and_freed_as_docker_does() {
    let engine = engine();
    engine.docker(["create", "--name", "gone", "busybox", "true"]);
    engine.docker(["volume", "create", "kept"]);
    engine.docker(["run", "-d", "--name", "up", "--init", "busybox", "sleep", "600"]);
    let summary = || (engine.docker(["system", "df"]), engine.bireme(["system", "df"]));
    let (theirs, ours) = summary();
    assert_eq!(theirs.raw_stdout(), ours.raw_stdout());
    let json = engine.bireme(["system", "df", "--format", "{{.Type}}={{.TotalCount}}"]);
    assert_eq!(json.stdout(), "Images=1\nContainers=2\nLocal Volumes=1\nBuild Cache=0\n");
    assert!(engine.bireme(["system", "df", "-v"]).stdout().contains("kept"));
    engine.bireme(["system", "prune"]).fails(1, "--force");
    let pruned = engine.bireme(["system", "prune", "-f"]);
    assert_eq!(pruned.code, 0, "{pruned}");
    assert!(pruned.stdout().contains("Deleted Containers:") && pruned.stdout().contains("Total reclaimed space:"));
    assert_eq!(engine.docker(["ps", "-a", "--format", "{{.Names}}"]).stdout(), "up\n");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "kept\n");
    assert_eq!(engine.bireme(["builder", "prune", "-af"]).code, 0);

    let updated = engine.bireme(["update", "--memory", "64m", "--memory-swap", "128m", "up"]);
    assert_eq!((updated.code, updated.stdout()), (0, "up\n"), "{updated}");
    assert_eq!(engine.docker(["inspect", "-f", "{{.HostConfig.Memory}}", "up"]).stdout(), "67108864\n");
    engine.bireme(["update", "up"]).fails(1, "you must provide one or more flags");
    engine.docker(["rm", "-f", "up"]);
    eventually("no container", || engine.docker(["ps", "-aq"]).stdout().is_empty().then_some(()));
    engine.finish();
}

#[test]
fn copying_into_a_component_tells_the_engines_reason() {
    let engine = Engine::start();
    engine.build_guest("hello", "hello");
    engine.docker(["create", "--name", "part", "--platform", "wasi/wasm", "hello"]);
    let file = engine.folder().join("f");
    fs::write(&file, "x").unwrap();
    let copied = engine.bireme(["cp", file.to_str().unwrap(), "part:/f"]);
    assert_eq!(copied.code, 1, "{copied}");
    assert!(!copied.stderr().contains("501"), "{copied}");
    assert!(copied.stderr().contains("component"), "{copied}");
    engine.docker(["rm", "-f", "part"]);
    engine.finish();
}

#[test]
fn a_dockerfile_alone_is_built_from_standard_input() {
    let engine = engine();
    let build = |text: &str| {
        let mut command = engine.command(bireme(), ["build", "-q", "-t", "piped", "-"]);
        let path = engine.folder().join("input");
        fs::write(&path, text).unwrap();
        command.stdin(fs::File::open(path).unwrap());
        engine.run(command)
    };
    build("FROM busybox\nLABEL made=alone\n").stdout();
    assert_eq!(engine.docker(["inspect", "-f", "{{.Config.Labels.made}}", "piped"]).stdout(), "alone\n");
    build("NONSENSE\n").fails(1, "NONSENSE");
    let context = engine.folder().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), "FROM busybox\n").unwrap();
    let (file, context) = (engine.folder().join("id"), context.to_str().unwrap().to_owned());
    let named = |path: &str| engine.bireme(["build", "-q", "--iidfile", path, context.as_str()]);
    let id = named(file.to_str().unwrap()).stdout().trim().to_owned();
    assert_eq!(fs::read_to_string(&file).unwrap(), id);
    named("/dev/null").fails(1, "it is a device");
    engine.finish();
}

/// Whoever is root would exchange /dev/null for a file, and write through what others have put into a folder that is
/// everybody's.
#[test]
fn archives_are_written_to_files_alone() {
    use std::os::unix::fs::FileTypeExt as _;
    let engine = engine();
    let folder = engine.folder().join("out");
    fs::create_dir(&folder).unwrap();
    let (pipe, link, file) = (folder.join("pipe"), folder.join("link"), folder.join("file"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    engine.docker(["create", "--name", "made", "busybox"]).stdout();
    for command in [["save", "busybox", "-o"], ["export", "made", "-o"]] {
        let to = |path: &Path| engine.bireme(command.iter().copied().chain([path.to_str().unwrap()]));
        to(&pipe).fails(1, "it is a named pipe");
        to(&link).fails(1, "it is a symbolic link");
        to(&folder).fails(1, "it is a folder");
        to(Path::new("/dev/null")).fails(1, "it is a device");
        assert_eq!(fs::read(&file).unwrap(), b"old");
        to(&file).stdout();
        let about = fs::metadata(&file).unwrap();
        assert!(about.len() > 1 << 20 && about.permissions().mode() & 0o777 == 0o600, "{about:?}");
        fs::write(&file, "old").unwrap();
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "nothing half written is left");
    engine.bireme(["cp", "made:/etc/passwd", pipe.to_str().unwrap()]).fails(1, "it is neither a file nor a folder");
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    engine.docker(["rm", "made"]).stdout();
    engine.finish();
}
