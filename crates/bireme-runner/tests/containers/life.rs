//! Daemons that come and go, runners that are killed, many at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bireme_core::spec::Signal;
use bireme_core::{ErrorKind, Executor as _};
use bireme_linux::LinuxExecutor;

use crate::bench::{Bench, blocking, end, options, until};

fn parent(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_daemon_finds_it_running() {
    let bench = Bench::new();
    let mut spec = bench.sh("read word; echo got $word; exit 9");
    spec.open_stdin = true;
    let workload = bench.start(&spec).await;
    let pid = workload.pid();
    drop(workload);
    let second = LinuxExecutor::new(options(&bench.instance, bench.dir.path())).unwrap();
    let found = second.reattach(bench.known(&spec)).await.unwrap();
    assert_eq!(found.pid(), pid);
    second.sweep(&[spec.id.clone()], &[]).await;
    let stream = blocking(found.as_attach().unwrap().attach(true).await.unwrap());
    std::io::Write::write_all(&mut &stream, b"word\n").unwrap();
    assert_eq!(end(&*found).await.code, 9);
    assert_eq!(bench.log(&spec), "got word\n");
    found.delete().await.unwrap();
    assert_eq!(second.reattach(bench.known(&spec)).await.err().unwrap().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_daemon_learns_how_it_ended() {
    let bench = Bench::new();
    let spec = bench.sh("echo words; exit 9");
    let workload = bench.create(&spec).await.unwrap();
    workload.start().await.unwrap();
    drop(workload);
    until("the runner to go", || (!bench.folder(&spec).join("run/runner.sock").exists()).then_some(())).await;
    assert!(!bench.cgroup(&spec).exists());
    let second = LinuxExecutor::new(options(&bench.instance, bench.dir.path())).unwrap();
    let found = second.reattach(bench.known(&spec)).await.unwrap();
    assert_eq!(found.pid(), None);
    assert_eq!(end(&*found).await.code, 9);
    assert_eq!(bench.log(&spec), "words\n");
    found.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_ends_with_its_runner() {
    let bench = Bench::new();
    for (started, daemon) in [(true, true), (false, true), (true, false)] {
        let spec = bench.sh("sleep 1000 & wait");
        let workload = bench.create(&spec).await.unwrap();
        if started {
            workload.start().await.unwrap();
        }
        let pid = workload.pid().unwrap();
        let runner = rustix::process::Pid::from_raw(i32::try_from(parent(pid)).unwrap()).unwrap();
        let workload = if daemon { Some(workload) } else { None };
        rustix::process::kill_process(runner, rustix::process::Signal::KILL).unwrap();
        until("init to end", || (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())).await;
        let workload = match workload {
            Some(workload) => workload,
            None => bench.executor.reattach(bench.known(&spec)).await.unwrap(),
        };
        let exit = end(&*workload).await;
        assert_eq!(exit.code, 137);
        assert!(exit.error.unwrap().contains("runner"));
        workload.delete().await.unwrap();
        assert!(!bench.cgroup(&spec).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_ends_what_nobody_knows() {
    let bench = Bench::new();
    let (known, lost) = (bench.spec(&["sleep", "1000"]), bench.spec(&["sleep", "1000"]));
    let kept = bench.start(&known).await;
    let other = bench.start(&lost).await;
    bench.executor.sweep(std::slice::from_ref(&known.id), &[]).await;
    assert_eq!(end(&*other).await.code, 137);
    assert!(kept.pid().is_some() && bench.cgroup(&known).exists());
    other.delete().await.unwrap();
    kept.delete().await.unwrap();
    assert!(!bench.cgroup(&known).exists() && !bench.cgroup(&lost).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_ends_it_and_leaves_nothing() {
    let bench = Bench::new();
    for started in [true, false] {
        let spec = bench.sh("trap '' TERM; while true; do sleep 1; done");
        let workload = bench.create(&spec).await.unwrap();
        if started {
            workload.start().await.unwrap();
        }
        let pid = workload.pid().unwrap();
        workload.delete().await.unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        assert!(!bench.cgroup(&spec).exists());
        let left: Vec<_> = std::fs::read_dir(bench.folder(&spec).join("run"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["runner.log"], "{left:?}");
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(bench.folder(&spec).to_str().unwrap()));
        workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_started_again_in_the_same_folders() {
    let bench = Bench::new();
    let spec = bench.sh("echo x >> /count; wc -l < /count");
    for round in 1..=3 {
        bench.output(&spec).await;
        assert!(bench.log(&spec).ends_with(&format!("{round}\n")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn starting_twice_is_a_conflict() {
    let bench = Bench::new();
    let workload = bench.start(&bench.spec(&["sleep", "1000"])).await;
    assert_eq!(workload.start().await.unwrap_err().kind(), ErrorKind::Conflict);
    workload.signal(Signal::KILL).await.unwrap();
    end(&*workload).await;
    workload.delete().await.unwrap();
}

/// libcontainer in a process with threads fails most of these.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn many_are_created_at_once() {
    let bench = Arc::new(Bench::new());
    let tasks: Vec<_> = (0..16)
        .map(|number| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move {
                let spec = bench.sh(&format!("echo {number}; exit {number}"));
                let (exit, output) = bench.run(&spec).await;
                assert_eq!((exit.code, output), (number, format!("{number}\n")));
                assert!(!bench.cgroup(&spec).exists());
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_that_is_given_up_leaves_nothing() {
    let bench = Bench::new();
    for wait in [0, 1, 3, 6, 10, 20] {
        let spec = bench.spec(&["sleep", "1000"]);
        let given_up = tokio::time::timeout(Duration::from_millis(wait), bench.create(&spec)).await;
        if let Ok(Ok(workload)) = given_up {
            workload.delete().await.unwrap();
        }
        until("everything to go", || (!bench.cgroup(&spec).exists()).then_some(())).await;
    }
}

/// Not a limit, a figure: see the report of the run.
#[tokio::test(flavor = "multi_thread")]
async fn how_long_and_how_big() {
    let bench = Bench::new();
    let mut times = Vec::new();
    for _ in 0..20 {
        let spec = bench.spec(&["true"]);
        let work = bench.prepare(&spec);
        let began = Instant::now();
        let workload = bench.executor.create(work).await.unwrap();
        let created = began.elapsed();
        workload.start().await.unwrap();
        let started = began.elapsed();
        end(&*workload).await;
        let ended = began.elapsed();
        workload.delete().await.unwrap();
        times.push((began.elapsed(), created, started, ended));
    }
    times.sort();
    println!("total, created, started, ended: {:?}", times[times.len() / 2]);
    let workload = bench.start(&bench.spec(&["sleep", "1000"])).await;
    let runner = parent(workload.pid().unwrap());
    let status = std::fs::read_to_string(format!("/proc/{runner}/status")).unwrap();
    for line in status.lines().filter(|line| line.starts_with("Rss") || line.starts_with("VmRSS")) {
        println!("{line}");
    }
    workload.delete().await.unwrap();
}
