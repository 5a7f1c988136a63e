//! What is told of a container: logs, lists of processes, a removal that failed.

use std::io::BufRead as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bireme_testing::Engine;

use super::SOON;

/// The log of a container that has ended, to be written to by the test.
fn logged(engine: &Engine, name: &str) -> PathBuf {
    engine.docker(["run", "--name", name, "busybox", "echo", "own"]).stdout();
    PathBuf::from(engine.docker(["inspect", "-f", "{{.LogPath}}", name]).stdout().trim())
}

/// One process with megabytes of arguments shares them with its children, at no cost to its container.
#[test]
fn arguments_of_megabytes_are_cut_in_a_list_of_processes() {
    let engine = Engine::start();
    engine.load("busybox");
    let script = "long=$(head -c 100000 /dev/zero | tr '\\0' x); for i in $(seq 40); do sh -c 'sleep 300; true' $long $long & done; wait";
    engine.docker(["run", "-d", "--name", "many", "busybox", "sh", "-c", script]).stdout();
    let answer = bireme_testing::eventually("forty processes", || {
        let answer = engine.request("GET", "/containers/many/top?ps_args=-o%20pid,args", b"");
        (answer.json()["Processes"].as_array()?.len() > 40).then_some(answer)
    });
    assert!(answer.body.len() < 40 * 2 * 5000, "{}", answer.body.len());
    engine.finish();
}

/// What is not wanted of a log was read on the threads that answer all requests, to the end, and also for nobody.
#[test]
fn long_logs_hold_up_no_other_request() {
    let engine = Engine::start();
    engine.load("busybox");
    let path = logged(&engine, "long");
    let line =
        format!("{{\"log\":\"{}\\n\",\"stream\":\"stdout\",\"time\":\"2020-01-01T00:00:00Z\"}}\n", "x".repeat(400));
    std::fs::write(&path, line.repeat(200_000)).unwrap();
    let (mut longest, begun) = (Duration::ZERO, Instant::now());
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| engine.request("GET", "/containers/long/logs?stdout=1&since=4000000000", b"")))
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            let asked = Instant::now();
            assert_eq!(engine.request("GET", "/_ping", b"").status, 200);
            longest = longest.max(asked.elapsed());
        }
        for reader in readers {
            let answer = reader.join().unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, 0));
        }
    });
    let all = begun.elapsed();
    assert!(longest * 3 < all, "a request took {longest:?} while logs were read for {all:?}");
    engine.finish();
}

/// The log of a component lies in a folder to which its host writes: what is there may be anything.
#[test]
fn what_stands_in_place_of_a_log_is_neither_followed_nor_waited_for() {
    let engine = Engine::start();
    engine.load("busybox");
    let secret = logged(&engine, "victim");
    let path = logged(&engine, "own");
    let read = |query: &str, words: &str| {
        let begun = Instant::now();
        let answer = engine.request("GET", &format!("/containers/own/logs?stdout=1{query}"), b"").text();
        assert!(begun.elapsed() < SOON, "{words:?} took {:?}", begun.elapsed());
        assert!(answer.contains(words), "{answer:?}");
    };
    read("", "own");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&secret, &path).unwrap();
    read("", "is no log file");
    std::fs::remove_file(&path).unwrap();
    std::fs::hard_link(&secret, &path).unwrap();
    read("&tail=10", "is no log file");
    std::fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    read("", "is no log file");
    std::fs::remove_file(&path).unwrap();
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    read("", "are no records");
    read("&tail=10", "");
    let lease = "import fcntl, signal, sys, time\n\
                 signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                 log = open(sys.argv[1], 'w')\n\
                 fcntl.fcntl(log, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
                 print('held', flush=True)\n\
                 time.sleep(300)";
    let mut holder = Command::new("python3")
        .args(["-c", lease])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut said = String::new();
    std::io::BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "held\n");
    read("", "its writer has reserved it");
    holder.kill().unwrap();
    holder.wait().unwrap();
    engine.finish();
}

/// Who waits for a removal that fails was left waiting for ever, and nobody tried it again.
#[test]
fn a_removal_by_itself_that_fails_is_told_and_tried_again() {
    let engine = Engine::start();
    engine.load("busybox");
    let id =
        engine.docker(["run", "-d", "--rm", "--name", "stays", "busybox", "sleep", "1000"]).stdout().trim().to_owned();
    // Nothing is removed across a mount.
    let inside = |folder: &str| engine.data_root().join("containers").join(folder).join("mounted");
    let (at, moved) = (inside(&id), inside(&format!(".removed/{id}")));
    std::fs::create_dir(&at).unwrap();
    rustix::mount::mount("none", &at, "tmpfs", rustix::mount::MountFlags::empty(), None::<&std::ffi::CStr>).unwrap();
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| engine.request("POST", "/containers/stays/wait?condition=removed", b""));
        engine.docker(["kill", "stays"]).stdout();
        waiting.join().unwrap().json()
    });
    let place = if moved.exists() { &moved } else { &at };
    rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(answer["StatusCode"], 137, "{answer}");
    assert!(answer["Error"]["Message"].as_str().is_some_and(|why| why.contains("could not be removed")), "{answer}");
    bireme_testing::eventually("its removal", || {
        (engine.request("GET", &format!("/containers/{id}/json"), b"").status == 404).then_some(())
    });
    engine.finish();
}
