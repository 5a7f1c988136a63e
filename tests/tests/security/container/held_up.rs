//! Processes that are stopped, frozen or never answer, and file systems that do not: nobody else waits for them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use bireme_testing::{Engine, Output, eventually};
use rustix::process::{Pid, Signal, kill_process};

use super::{SOON, probed};

/// `docker rm -f` ends a container whatever became of its runner.
#[test]
fn a_container_whose_runner_does_not_answer_is_removed_all_the_same() {
    let engine = Engine::start();
    engine.load("busybox");
    for verb in [&["rm", "-f", "stuck"][..], &["kill", "stuck"][..]] {
        engine.docker(["run", "-d", "--name", "stuck", "busybox", "sleep", "1000"]).stdout();
        let id = engine.docker(["inspect", "-f", "{{.Id}}", "stuck"]).stdout().trim().to_owned();
        let init = engine.docker(["inspect", "-f", "{{.State.Pid}}", "stuck"]).stdout().trim().to_owned();
        let runners = Command::new("pgrep").args(["-f", &format!("^bireme-runner {id}")]).output().unwrap();
        let runner = String::from_utf8(runners.stdout).unwrap();
        let runner: i32 = runner.lines().next().expect("the runner is found").parse().unwrap();
        let stop = Command::new("kill").args(["-STOP", &runner.to_string()]).status().unwrap();
        assert!(stop.success());
        engine.docker(verb).stdout();
        bireme_testing::eventually("the end of its processes", || {
            (!Path::new(&format!("/proc/{init}")).exists() && !Path::new(&format!("/proc/{runner}")).exists())
                .then_some(())
        });
        let _ = engine.docker(["rm", "-f", "stuck"]);
    }
    engine.finish();
}

/// Stops what is to run in a container and has not executed its program yet, as anybody may who has its user: again and
/// again, until it is dropped. The kernel does the same to a process of root that root inside stops.
struct Stopper {
    over: Arc<AtomicBool>,
    stopped: Arc<AtomicI32>,
    work: Option<std::thread::JoinHandle<()>>,
}

impl Stopper {
    fn of(engine: &Engine, id: &str) -> Self {
        let inside = format!("bireme-{}/{id}/cgroup.procs", engine.instance());
        let folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids"];
        let lists: Vec<_> = folders.iter().map(|folder| Path::new(folder).join(&inside)).collect();
        let (over, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(0)));
        let (end, seen) = (over.clone(), stopped.clone());
        let work = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let pids = lists.iter().filter_map(|list| std::fs::read_to_string(list).ok());
                for pid in pids.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()) {
                    // Until then it runs the runner's own program.
                    let unexecuted = || {
                        std::fs::read_link(format!("/proc/{pid}/exe"))
                            .is_ok_and(|program| program.to_string_lossy().contains("bireme-runner"))
                    };
                    let Some(process) = Pid::from_raw(pid).filter(|_| unexecuted()) else { continue };
                    let _ = kill_process(process, Signal::STOP);
                    if unexecuted() {
                        seen.store(pid, Ordering::Relaxed);
                    } else {
                        let _ = kill_process(process, Signal::CONT);
                    }
                }
                // Tight, and not at the cost of everybody else.
                std::thread::yield_now();
            }
        });
        Self { over, stopped, work: Some(work) }
    }

    /// The last that was stopped, where it is still there.
    fn stopped(&self) -> Option<i32> {
        let pid = self.stopped.load(Ordering::Relaxed);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(pid)
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.work.take().map(std::thread::JoinHandle::join);
    }
}

#[track_caller]
fn soon(engine: &Engine, words: &[&str]) -> Output {
    let begun = Instant::now();
    let output = engine.docker(words);
    assert!(begun.elapsed() < SOON, "{words:?} took {:?}:\n{}", begun.elapsed(), engine.daemon_log());
    output
}

/// A process that is stopped before its program is executed never answers: whoever waits for it waits for ever, and all
/// that was asked of the container after it.
#[test]
fn a_start_that_never_comes_to_an_end_is_given_up_for_a_kill() {
    let engine = Engine::start();
    engine.load("busybox");
    for words in [&["rm", "-f", "held"][..], &["stop", "-t", "1", "held"]] {
        let held = (0..20).any(|_| {
            let id = engine.docker(["create", "--name", "held", "busybox", "sleep", "1000"]).stdout().trim().to_owned();
            let stopper = Stopper::of(&engine, &id);
            let mut command = engine.command("docker", ["start", "held"]);
            let mut starting = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let stopped = bireme_testing::eventually("a process that is stopped, or a start", || {
                let over = starting.try_wait().unwrap().is_some();
                stopper.stopped().map(Some).or(over.then_some(None))
            });
            if let Some(stopped) = stopped {
                soon(&engine, words).stdout();
                let refused = starting.wait_with_output().unwrap();
                let said = String::from_utf8_lossy(&refused.stderr).into_owned();
                assert!(said.contains("what was begun with it meanwhile is given up"), "{said}");
                bireme_testing::eventually("the end of what was stopped", || {
                    (!Path::new(&format!("/proc/{stopped}")).exists()).then_some(())
                });
            }
            drop(stopper);
            let _ = engine.docker(["rm", "-f", "held"]);
            stopped.is_some()
        });
        assert!(held, "nothing was stopped in time");
    }
    // What was given up is no hindrance to the next.
    engine.docker(["run", "--rm", "--name", "held", "busybox", "true"]).stdout();
    engine.finish();
}

#[test]
fn an_exec_that_never_begins_stops_neither_probes_nor_a_pause() {
    let engine = Engine::start();
    engine.load("busybox");
    let check =
        ["--health-cmd", "true", "--health-interval", "200ms", "--health-timeout", "5s", "--health-retries", "1"];
    let run = ["run", "-d", "--name", "probed"].into_iter().chain(check).chain(["busybox", "sleep", "1000"]);
    let id = engine.docker(run).stdout().trim().to_owned();
    let healthy = |wanted: &str| {
        bireme_testing::eventually(wanted, || {
            let found =
                engine.docker(["inspect", "-f", "{{.State.Health.Status}}", "probed"]).stdout().trim().to_owned();
            (found == wanted).then_some(())
        });
    };
    healthy("healthy");
    let stopper = Stopper::of(&engine, &id);
    // Before, such a probe was waited for without end, and what was last known of it was told for ever.
    healthy("unhealthy");
    bireme_testing::eventually("an exec that is stopped", || {
        let mut command = engine.command("docker", ["exec", "probed", "true"]);
        let mut joining = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        bireme_testing::eventually("a process that is stopped, or an end", || {
            (stopper.stopped().is_some() || joining.try_wait().unwrap().is_some()).then_some(())
        });
        let held = stopper.stopped().is_some() && joining.try_wait().unwrap().is_none();
        if held {
            soon(&engine, &["pause", "probed"]).stdout();
            assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}}", "probed"]).stdout(), "paused\n");
        }
        let ended = joining.wait_with_output().unwrap();
        if held {
            // Or it came when the pause had begun; or a probe was what was stopped.
            // As Docker's engine does, the output is where it is told.
            let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
            let told = said.contains("was not executed in time and is ended") || said.contains("paused");
            assert!(told || ended.status.success(), "{said}");
        }
        held.then_some(())
    });
    drop(stopper);
    soon(&engine, &["unpause", "probed"]).stdout();
    healthy("healthy");
    engine.docker(["exec", "probed", "true"]).stdout();
    soon(&engine, &["rm", "-f", "probed"]).stdout();
    engine.finish();
}

/// A file system whose server never says a word, as long as this is there.
struct Silent {
    at: PathBuf,
    _server: std::os::fd::OwnedFd,
}

impl Silent {
    fn mount(at: &Path) -> Self {
        use std::os::fd::AsRawFd as _;
        let server = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("silent", at, "fuse", rustix::mount::MountFlags::empty(), Some(options.as_c_str()))
            .unwrap();
        Self { at: at.to_owned(), _server: server.into() }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A container may serve such a file system itself, or it lies on another machine.
#[test]
fn a_bind_source_that_does_not_answer_keeps_nobody_else_waiting() {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("this machine has no FUSE: nothing is tried");
        return;
    }
    let engine = Engine::start();
    engine.load("busybox");
    let folder = engine.folder().join("served");
    std::fs::create_dir(&folder).unwrap();
    engine.docker(["create", "--name", "resting", "-v", &format!("{}:/x", folder.display()), "busybox"]).stdout();
    let silent = Silent::mount(&folder);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|number| {
                let (engine, bind) = (&engine, format!("{}/{number}:/x", folder.display()));
                scope.spawn(move || engine.docker(["create", "-v", &bind, "busybox"]))
            })
            .collect();
        let copies: Vec<_> = (0..4).map(|_| scope.spawn(|| engine.docker(["cp", "resting:/x/file", "-"]))).collect();
        std::thread::sleep(Duration::from_secs(2));
        let begun = Instant::now();
        engine.docker(["run", "--rm", "busybox", "true"]).stdout();
        engine.docker(["ps"]).stdout();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        for refused in waiting {
            let refused = refused.join().unwrap();
            assert!(refused.code != 0 && refused.stderr().contains("does not answer within 20 s"), "{refused}");
        }
        drop(copies);
        drop(silent);
    });
    engine.docker(["rm", "resting"]).stdout();
    engine.finish();
}

/// On cgroup v1 a frozen process takes no signal, and its container's init waits for it.
#[test]
fn what_a_container_has_frozen_ends_with_it() {
    let engine = probed();
    for (name, others, end) in [
        ("killed", "0", &["kill"][..]),
        ("stopped", "0", &["stop", "-t", "0"]),
        ("removed", "0", &["rm", "-f"]),
        // More than are gone through in the time there is.
        ("many", "20000", &["rm", "-f"]),
    ] {
        let run = ["run", "-d", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined", "--name", name];
        engine.docker(run.iter().chain(&["probe", "frozen", others])).stdout();
        let pid = engine.docker(["inspect", "-f", "{{.State.Pid}}", name]).stdout().trim().to_owned();
        let below = || {
            let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let logged = || Some(engine.docker(["logs", name]).stdout().to_owned()).filter(|said| !said.is_empty());
        let said = eventually("a word of the probe", logged);
        // Where the machine has cgroup v2 alone, nothing is frozen.
        assert!(["frozen\n", "no freezer\n"].contains(&said.as_str()), "{said:?}");
        let (begin, children) = (Instant::now(), below());
        engine.docker(end.iter().chain(&[name])).stdout();
        assert!(begin.elapsed() < SOON, "{name} after {:?}", begin.elapsed());
        let left: Vec<_> = children.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
        assert!(left.is_empty(), "{name}: {left:?} of {children:?} is still there");
        let ended = || engine.docker(["ps", "-q", "--filter", &format!("name={name}")]).stdout().is_empty();
        eventually("its end", || ended().then_some(()));
    }
    engine.finish();
}

/// Who may watch the files of the machine (`CAP_SYS_ADMIN`) keeps programs from being executed; not the engine from answering,
/// nor itself from being removed.
#[test]
fn a_container_that_holds_up_runners_holds_up_nothing_else() {
    let engine = probed();
    let run = ["run", "-d", "--init", "--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE", "--name", "holder"];
    engine.docker(run.iter().chain(&["probe", "hold"])).stdout();
    let logged = || Some(engine.docker(["logs", "holder"]).stdout().to_owned()).filter(|said| !said.is_empty());
    let said = eventually("a word of the probe", logged);
    if said != "held\n" {
        eprintln!("this machine lets nobody watch: {said}");
        return engine.finish();
    }
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..4).map(|_| scope.spawn(|| engine.docker(["run", "--rm", "probe", "session"]))).collect();
        std::thread::sleep(Duration::from_secs(2));
        engine.docker(["ps", "-q"]).stdout();
        engine.docker(["version"]).stdout();
        engine.docker(["rm", "-f", "holder"]).stdout();
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        for other in waiting {
            other.join().unwrap().stdout();
        }
    });
    engine.docker(["run", "--rm", "probe", "session"]).stdout();
    engine.finish();
}

/// The threads for copies are its own: those of clients that left go on hanging.
#[test]
fn copies_that_hang_hold_nobody_else_up() {
    let engine = probed();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).stdout();
    let run = ["run", "-d", "--init", "--cap-add", "SYS_ADMIN", "--name", "holder"];
    engine.docker(run.iter().chain(&["probe", "hold", "/probe"])).stdout();
    let logged = || Some(engine.docker(["logs", "holder"]).stdout().to_owned()).filter(|said| !said.is_empty());
    let said = eventually("a word of the probe", logged);
    if said != "held\n" {
        eprintln!("this machine lets nobody watch: {said}");
        return engine.finish();
    }
    let clients: Vec<_> = (0..600)
        .map(|_| {
            let mut stream = std::os::unix::net::UnixStream::connect(engine.socket()).unwrap();
            let request = "GET /containers/holder/archive?path=/probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    drop(clients);
    let begin = Instant::now();
    assert!(engine.docker(["cp", "other:/etc/passwd", "-"]).stdout().contains("root:"));
    engine.docker(["logs", "other"]).stdout();
    engine.docker(["images"]).stdout();
    engine.docker(["run", "--rm", "busybox", "true"]).stdout();
    engine.docker(["rm", "-f", "holder"]).stdout();
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    engine.finish();
}
