//! Commands: components of WASI 0.2 and core modules of preview 1 that run and end.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use crate::common::{Deployed, LIMIT, Rig, until};
use bireme_core::Executor as _;
use bireme_core::spec::{Mount, MountSource, Propagation, Signal};

/// Runs `guest` with `args` and answers its exit code and log.
async fn run(rig: &Rig, guest: &str, args: &[&str], env: &[&str], mounts: Vec<Mount>) -> (i32, String) {
    let mut spec = rig.spec("command", &[]);
    spec.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    spec.env = env.iter().map(|pair| (*pair).to_owned()).collect();
    spec.mounts = mounts;
    let deployed = rig.run(spec, guest).await;
    let exit = deployed.workload.wait().await.unwrap();
    let log = deployed.log();
    deployed.workload.delete().await.unwrap();
    (exit.code, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_with_their_own_code() {
    let rig = Rig::new();
    for guest in ["command", "command-p1", "command3"] {
        assert_eq!(run(&rig, guest, &["echo", "a", "b c"], &[], vec![]).await, (0, "a b c\n".to_owned()), "{guest}");
        assert_eq!(run(&rig, guest, &["env", "X"], &["X=y=z"], vec![]).await, (0, "y=z\n".to_owned()));
        assert_eq!(run(&rig, guest, &["stdin"], &[], vec![]).await, (0, "0 bytes\n".to_owned()));
        let (code, log) = run(&rig, guest, &["panic"], &[], vec![]).await;
        assert_eq!(code, 134, "{log}");
        assert!(log.contains("as asked") && log.contains("it trapped"), "{log}");
    }
    for guest in ["command", "command-p1"] {
        assert_eq!(run(&rig, guest, &["partial"], &[], vec![]).await.0, 0);
    }
    assert_eq!(run(&rig, "command3", &["exit", "7"], &[], vec![]).await.0, 7);
    assert_eq!(run(&rig, "command3", &["exit", "0"], &[], vec![]).await.0, 0);
    assert_eq!(run(&rig, "command3", &["fail"], &[], vec![]).await, (1, String::new()));
    assert_eq!(run(&rig, "command3", &["env", "X"], &[], vec![]).await, (0, "unset\n".to_owned()));
    for code in [7, 125, 126, 127, 134, 200, 255] {
        let asked = ["exit", &code.to_string()];
        assert_eq!(run(&rig, "command-p1", &asked, &[], vec![]).await.0, code, "as any process");
        assert_eq!(run(&rig, "command3", &asked, &[], vec![]).await.0, code, "as any process");
    }
    // WASI 0.2 knows only success and failure for what a program answers with.
    assert_eq!(run(&rig, "command", &["exit", "0"], &[], vec![]).await.0, 0);
    assert_ne!(run(&rig, "command", &["exit", "7"], &[], vec![]).await.0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_are_given_and_read_only_is_kept() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("volume");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("greeting"), "hello").unwrap();
    let mount = |read_only| {
        let source = MountSource::Bind { path: folder.clone(), propagation: Propagation::Private, recursive: true };
        vec![Mount { source, target: "/data".to_owned(), read_only }]
    };
    for guest in ["command", "command-p1", "command3"] {
        assert_eq!(run(&rig, guest, &["read", "/data/greeting"], &[], mount(true)).await, (0, "hello\n".to_owned()));
        let (code, log) = run(&rig, guest, &["write", "/data/new", "x"], &[], mount(true)).await;
        assert_ne!(code, 0, "{log}");
        assert!(!folder.join("new").exists());
        let (code, log) = run(&rig, guest, &["write", "/data/new", "x"], &[], mount(false)).await;
        assert_eq!(code, 0, "{log}");
        use std::os::unix::fs::MetadataExt as _;
        assert_eq!(std::fs::metadata(folder.join("new")).unwrap().uid(), 0, "stored as root's, as a container does");
        std::fs::remove_file(folder.join("new")).unwrap();
        assert_ne!(run(&rig, guest, &["read", "/data/../../etc/passwd"], &[], mount(true)).await.0, 0);
        assert_ne!(run(&rig, guest, &["read", "/etc/passwd"], &[], vec![]).await.0, 0);
    }
    let memory = Mount {
        source: MountSource::Tmpfs { size: Some(1 << 20), mode: None, options: Vec::new() },
        target: "/tmp".to_owned(),
        read_only: false,
    };
    assert_eq!(run(&rig, "command", &["write", "/tmp/x", "y"], &[], vec![memory]).await, (0, "written\n".to_owned()));
}

/// Every file below `folder` with what is in it; links with where they lead.
fn content(folder: &std::path::Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = std::fs::symlink_metadata(&path).unwrap();
        let name = path.to_string_lossy().into_owned();
        if kind.is_symlink() {
            found.push((name, std::fs::read_link(&path).unwrap().to_string_lossy().into_owned()));
        } else if kind.is_dir() {
            found.push((name, "folder".to_owned()));
            found.extend(content(&path));
        } else {
            let modified = kind.modified().unwrap();
            found.push((name, format!("{} {modified:?}", std::fs::read_to_string(&path).unwrap())));
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn no_trick_writes_to_a_read_only_folder_or_leaves_a_folder() {
    let rig = Rig::new();
    let base = rig.dir.path().join("base");
    let (kept, open) = (base.join("kept"), base.join("open"));
    for folder in [&kept.join("sub"), &open.join("sub")] {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(base.join("secret"), "outside").unwrap();
    for folder in [&kept, &open] {
        std::fs::write(folder.join("file"), "inside").unwrap();
        for (to, name) in [
            ("file", "to-file"),
            ("../secret", "out"),
            ("..", "up"),
            ("sub/../../secret", "round"),
            ("/etc/passwd", "absolute"),
            ("/proc/self/root/etc/passwd", "proc"),
            ("loop", "loop"),
        ] {
            std::os::unix::fs::symlink(to, folder.join(name)).unwrap();
        }
        std::os::unix::fs::symlink(base.join("secret"), folder.join("absolute-out")).unwrap();
        std::os::unix::fs::symlink(folder.join("file"), folder.join("absolute-in")).unwrap();
    }
    let mount = |path: &std::path::Path, target: &str, read_only| {
        let source = MountSource::Bind { path: path.into(), propagation: Propagation::Private, recursive: true };
        Mount { source, target: target.to_owned(), read_only }
    };
    // Both folders at once: a right to one must not become a right to the other.
    let mounts = || vec![mount(&kept, "/kept", true), mount(&open, "/open", false)];
    let before = content(&kept);
    for guest in ["command", "command-p1", "command3"] {
        let denied = async |words: &[&str]| {
            let (code, log) = run(&rig, guest, words, &[], mounts()).await;
            assert!(code != 0 && !log.contains("outside"), "{guest} {words:?} ended with {code}: {log}");
        };
        assert_eq!(run(&rig, guest, &["read", "/kept/to-file"], &[], mounts()).await, (0, "inside\n".to_owned()));
        for path in ["file", "new", "sub/../file", "sub/new", "to-file", "../kept/file", "../open/file", "./sub/./new"]
        {
            denied(&["write", &format!("/kept/{path}"), "x"]).await;
        }
        for link in ["new-link", "sub/new-link", "../kept/new-link"] {
            denied(&["link", "file", &format!("/kept/{link}")]).await;
        }
        if guest != "command3" {
            for words in [
                ["append", "/kept/file", "x"].as_slice(),
                &["truncate", "/kept/file"],
                &["touch", "/kept/file"],
                &["rename", "/kept/file", "/kept/moved"],
                &["rename", "/kept/file", "/open/moved"],
                &["rename", "/open/file", "/kept/moved"],
                &["hard-link", "/kept/file", "/kept/twin"],
                &["hard-link", "/open/file", "/kept/twin"],
                &["hard-link", "/kept/file", "/open/twin"],
                &["remove", "/kept/file"],
                &["remove", "/kept/to-file"],
                &["mkdir", "/kept/folder"],
                &["rmdir", "/kept/sub"],
            ] {
                denied(words).await;
            }
        }
        for folder in ["/kept", "/open"] {
            for path in [
                "out",
                "up/secret",
                "round",
                "../secret",
                "sub/../../secret",
                "absolute",
                "absolute-out",
                "proc",
                "loop",
            ] {
                denied(&["read", &format!("{folder}/{path}")]).await;
                denied(&["write", &format!("{folder}/{path}"), "overwritten"]).await;
            }
            // An absolute link means another file to a guest than to the machine.
            denied(&["read", &format!("{folder}/absolute-in")]).await;
        }
        // Links that the guest makes itself.
        let made = run(&rig, guest, &["link", "../secret", "/open/mine"], &[], mounts()).await;
        if made.0 == 0 {
            denied(&["read", "/open/mine"]).await;
            denied(&["write", "/open/mine", "overwritten"]).await;
            std::fs::remove_file(open.join("mine")).unwrap();
        }
        denied(&["link", "/etc/passwd", "/open/mine"]).await;
        denied(&["link", base.join("secret").to_str().unwrap(), "/open/mine"]).await;
        assert_eq!(run(&rig, guest, &["write", "/open/sub/../file", guest], &[], mounts()).await.0, 0);
        assert_eq!(std::fs::read_to_string(open.join("file")).unwrap(), guest);
        assert_eq!(content(&kept), before, "{guest} changed what it may only read");
        assert_eq!(std::fs::read_to_string(base.join("secret")).unwrap(), "outside", "{guest}");
        std::fs::write(open.join("file"), "inside").unwrap();
    }
    assert_eq!(std::fs::read_dir(&base).unwrap().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_command_is_stopped_and_killed() {
    let rig = Rig::new();
    for (signal, code) in [(Signal::TERM, 143), (Signal::KILL, 137)] {
        for (guest, what) in [("command", "loop"), ("command", "sleep"), ("command3", "sleep")] {
            let mut spec = rig.spec("endless", &[]);
            spec.args.push(what.to_owned());
            let deployed = rig.run(spec, guest).await;
            until("an instance", || {
                let processes = deployed.workload.processes("");
                !tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(processes))
                    .unwrap()
                    .rows
                    .is_empty()
            });
            deployed.workload.signal(signal).await.unwrap();
            assert_eq!(deployed.workload.wait().await.unwrap().code, code);
            deployed.workload.delete().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_is_written_whole_and_in_order() {
    let rig = Rig::new();
    let (code, log) = run(&rig, "command", &["spam", "20000"], &[], vec![]).await;
    assert_eq!(code, 0);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 20_000);
    assert!(lines.iter().enumerate().all(|(n, line)| line.starts_with(&format!("line {n} "))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_with_foreign_imports_is_refused_by_name() {
    let rig = Rig::new();
    let bytes = foreign_module();
    let path = rig.dir.path().join("m.wasm");
    std::fs::write(&path, &bytes).unwrap();
    let digest = format!("sha256:{:x}", <sha2::Sha256 as sha2::Digest>::digest(&bytes));
    let program = bireme_core::Program::Component { path, digest, files: Vec::new() };
    let error = rig.executor.check(&rig.spec("m", &[]), &program).await.err().unwrap();
    assert!(error.message().contains("env.launch"), "{error}");
}

/// `(module (import "env" "launch" (func)) (func (export "_start")))`
fn foreign_module() -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.extend([1, 4, 1, 0x60, 0, 0]);
    bytes.extend([2, 14, 1, 3]);
    bytes.extend(b"env");
    bytes.push(6);
    bytes.extend(b"launch");
    bytes.extend([0, 0]);
    bytes.extend([3, 2, 1, 0]);
    bytes.extend([7, 10, 1, 6]);
    bytes.extend(b"_start");
    bytes.extend([0, 1]);
    bytes.extend([10, 4, 1, 2, 0, 0x0b]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_rotated_by_size_and_number() {
    let mut rig = Rig::new();
    rig.log_limits = (Some(20_000), 3);
    let mut spec = rig.spec("talker", &[]);
    spec.args.extend(["spam".to_owned(), "2000".to_owned()]);
    let deployed = rig.run(spec, "command").await;
    assert_eq!(deployed.workload.wait().await.unwrap().code, 0);
    let folder = deployed.log.parent().unwrap();
    let file = |n: u32| if n == 0 { deployed.log.clone() } else { folder.join(format!("log.json.{n}")) };
    let mut last = 2000;
    for n in 0..3 {
        let bytes = std::fs::read(file(n)).unwrap();
        assert!(bytes.len() <= 20_000 && bytes.ends_with(b"\n"), "{} bytes in file {n}", bytes.len());
        assert!(n == 0 || bytes.len() > 19_000, "file {n} was given up early: {} bytes", bytes.len());
        let records: Vec<_> = bytes.split_inclusive(|b| *b == b'\n').map(bireme_core::log_line::decode).collect();
        for record in records.into_iter().rev() {
            let text = record.expect("whole records only").text;
            last -= 1;
            assert!(text.starts_with(&format!("line {last} ")), "{text:?} instead of line {last}");
        }
    }
    assert!(!file(3).exists(), "more files than max-file");
    deployed.workload.delete().await.unwrap();

    // One file: it begins anew.
    rig.log_limits = (Some(5_000), 1);
    let mut spec = rig.spec("short", &[]);
    spec.args.extend(["spam".to_owned(), "500".to_owned()]);
    let deployed = rig.run(spec, "command").await;
    assert_eq!(deployed.workload.wait().await.unwrap().code, 0);
    assert!(std::fs::metadata(&deployed.log).unwrap().len() <= 5_000);
    assert!(deployed.log().lines().last().unwrap().starts_with("line 499 "));
    assert!(!deployed.log.with_file_name("log.json.1").exists());
    deployed.workload.delete().await.unwrap();
}

/// A command with standard input that ends with its first client, and a client that is attached to it.
async fn with_input(rig: &Rig, guest: &str, words: &[&str]) -> (Deployed, UnixStream) {
    let mut spec = rig.spec("reader", &[]);
    spec.args.extend(words.iter().map(|word| (*word).to_owned()));
    (spec.open_stdin, spec.stdin_once) = (true, true);
    let deployed = rig.run(spec, guest).await;
    let client = deployed.workload.as_attach().unwrap().attach(true).await.unwrap();
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.set_write_timeout(Some(LIMIT)).unwrap();
    (deployed, client)
}

/// What the frames of Docker's attach protocol hold for `stream`.
fn unframed(mut frames: &[u8], stream: u8) -> Vec<u8> {
    let mut text = Vec::new();
    while let [kind, 0, 0, 0, a, b, c, d, rest @ ..] = frames {
        let (frame, later) = rest.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        if *kind == stream {
            text.extend_from_slice(frame);
        }
        frames = later;
    }
    assert!(frames.is_empty(), "half a frame");
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_reads_what_clients_send_and_they_are_told_of_its_end() {
    let rig = Rig::new();
    for guest in ["command", "command-p1", "command3"] {
        let (deployed, mut client) = with_input(&rig, guest, &["stdin"]).await;
        let output = tokio::task::spawn_blocking(move || {
            for _ in 0..20 {
                client.write_all(&[b'x'; 10_000]).unwrap();
            }
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut output = Vec::new();
            // Ends with the command: before, not even with its removal.
            client.read_to_end(&mut output).unwrap();
            output
        });
        assert_eq!(deployed.workload.wait().await.unwrap().code, 0, "{guest}: {}", deployed.log());
        assert_eq!(deployed.log(), "200000 bytes\n", "{guest}");
        assert_eq!(unframed(&output.await.unwrap(), 1), b"200000 bytes\n", "{guest}");
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_prints_leaves_at_once_and_stands_in_whole_lines_in_its_log() {
    let rig = Rig::new();
    for guest in ["command", "command-p1", "command3"] {
        let (deployed, mut client) = with_input(&rig, guest, &["cat"]).await;
        let talk = tokio::task::spawn_blocking(move || {
            // Each is answered before more is sent.
            for part in ["your name? ", "and", " again\n", "no line end"] {
                client.write_all(part.as_bytes()).unwrap();
                let mut got = Vec::new();
                while got.len() < part.len() {
                    let mut frame = [0; 8];
                    client.read_exact(&mut frame).unwrap();
                    let mut text = vec![0; usize::from(frame[7])];
                    client.read_exact(&mut text).unwrap();
                    got.extend(text);
                }
                assert_eq!(String::from_utf8(got).unwrap(), part);
            }
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        talk.await.unwrap();
        assert_eq!(deployed.workload.wait().await.unwrap().code, 0, "{guest}: {}", deployed.log());
        assert_eq!(deployed.log(), "your name? and again\nno line end", "{guest}");
        let records = std::fs::read_to_string(&deployed.log).unwrap();
        assert_eq!(records.lines().count(), 2, "{guest}: {records}");
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_echoes_much_input_gets_and_gives_all_of_it() {
    let rig = Rig::new();
    let lines: String = (0..10_000).map(|n| format!("line {n:>14}\n")).collect();
    assert_eq!(lines.len(), 200_000);
    for guest in ["command", "command-p1", "command3"] {
        let (deployed, client) = with_input(&rig, guest, &["cat"]).await;
        let (mut sender, mut receiver) = (client.try_clone().unwrap(), client);
        let sent = lines.clone();
        let sending = tokio::task::spawn_blocking(move || {
            sender.write_all(sent.as_bytes()).unwrap();
            sender.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let receiving = tokio::task::spawn_blocking(move || {
            let mut output = Vec::new();
            receiver.read_to_end(&mut output).unwrap();
            output
        });
        assert_eq!(deployed.workload.wait().await.unwrap().code, 0, "{guest}: {}", deployed.log());
        sending.await.unwrap();
        let got = String::from_utf8(unframed(&receiving.await.unwrap(), 1)).unwrap();
        assert!(got == lines, "{guest} gave {} of {} bytes", got.len(), lines.len());
        assert!(deployed.log() == lines, "{guest}: the log has {} bytes", deployed.log().len());
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn input_that_nobody_reads_holds_nobody_up() {
    let rig = Rig::new();
    for guest in ["command", "command3"] {
        let words: &[&str] = if guest == "command" { &["deaf"] } else { &["echo", "hi"] };
        let (deployed, mut client) = with_input(&rig, guest, words).await;
        let sending = tokio::task::spawn_blocking(move || {
            // More than the buffers on the way hold. The end of the command may come first.
            for _ in 0..100 {
                if client.write_all(&[b'x'; 10_000]).is_err() {
                    break;
                }
            }
        });
        let ended = tokio::time::timeout(LIMIT, deployed.workload.wait()).await.expect("it ends");
        assert_eq!(ended.unwrap().code, 0, "{guest}: {}", deployed.log());
        tokio::time::timeout(LIMIT, sending).await.expect("the client is not left hanging").unwrap();
        deployed.workload.delete().await.unwrap();
    }
    // Nobody attaches at all: it waits, as a container does, and is stopped like any other.
    let mut spec = rig.spec("waiting", &[]);
    spec.args.push("stdin".to_owned());
    spec.open_stdin = true;
    let deployed = rig.run(spec, "command3").await;
    deployed.workload.signal(Signal::TERM).await.unwrap();
    assert_eq!(deployed.workload.wait().await.unwrap().code, 143);
    deployed.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_answers_requests_has_no_standard_input() {
    let rig = Rig::new();
    let mut spec = rig.spec("reader", &[]);
    spec.open_stdin = true;
    let error = rig.executor.check(&spec, &crate::common::program("hello")).await.unwrap_err();
    assert!(error.message().contains("only a command that runs once has standard input"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn relative_paths_begin_in_the_working_directory_and_the_root_may_be_mounted() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("volume");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    std::fs::write(folder.join("greeting"), "above").unwrap();
    std::fs::write(folder.join("sub/greeting"), "hello").unwrap();
    std::fs::write(rig.dir.path().join("greeting"), "outside").unwrap();
    std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
    std::os::unix::fs::symlink(rig.dir.path(), folder.join("out")).unwrap();
    let bind = |target: &str| Mount {
        source: MountSource::Bind { path: folder.clone(), propagation: Propagation::Private, recursive: true },
        target: target.to_owned(),
        read_only: true,
    };
    for guest in ["command", "command-p1", "command3"] {
        let read = async |target: &str, cwd: &str, path: &str| {
            let mut spec = rig.spec("reader", &[]);
            spec.args.extend(["read".to_owned(), path.to_owned()]);
            spec.cwd = cwd.to_owned();
            spec.mounts = vec![bind(target)];
            let deployed = rig.run(spec, guest).await;
            let code = deployed.workload.wait().await.unwrap().code;
            let log = deployed.log();
            deployed.workload.delete().await.unwrap();
            (code, log)
        };
        // Our guest of 0.3 knows no relative paths.
        if guest != "command3" {
            assert_eq!(read("/data", "/data/sub", "greeting").await, (0, "hello\n".to_owned()), "{guest}");
            assert_eq!(read("/data", "/data", "greeting").await, (0, "above\n".to_owned()), "{guest}");
            assert_eq!(read("/data", "/data", "sub/greeting").await, (0, "hello\n".to_owned()), "{guest}");
        }
        assert_eq!(read("/data", "/data/sub", "/data/greeting").await, (0, "above\n".to_owned()), "{guest}");
        assert_eq!(read("/", "/", "/sub/greeting").await, (0, "hello\n".to_owned()), "{guest}");
        let (code, log) = read("/", "/sub", "/sub/greeting").await;
        assert!(code == 0 && log.contains("hello\n") && log.contains("has no effect"), "{guest}: {log}");
        for out in ["/data/up", "/data/out"] {
            let (code, log) = read("/data", out, "greeting").await;
            assert!(code != 0 && !log.contains("outside"), "{guest}: {log}");
            assert!(log.contains(&format!("the working directory {out} cannot be used")), "{guest}: {log}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_and_routes_of_what_answers_no_requests_are_refused() {
    let rig = Rig::new();
    let program = crate::common::program("command");
    let spec = rig.spec("command", &[]);
    let error = rig.executor.check_ports(&spec, &program).await.unwrap_err();
    assert!(error.message().contains("command cannot publish ports: it exports the command trigger"), "{error}");
    assert!(rig.executor.check_ports(&spec, &crate::common::program("hello")).await.is_ok());
    let routed = rig.spec("command", &[("bireme.http.route", "/x")]);
    let error = rig.executor.check(&routed, &program).await.unwrap_err();
    assert!(error.message().contains("label bireme.http.route does not fit"), "{error}");
}
