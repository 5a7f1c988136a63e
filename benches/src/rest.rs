//! What the engine costs while nothing happens.

use std::time::Duration;

use bireme_testing::Engine;

use crate::http::{host_of, processor_time};
use crate::sample::{figure, print_table};

pub(crate) fn run() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("hello", "hello");
    let fresh = resident(engine.pid());
    for number in 0..10 {
        let name = format!("c{number}");
        engine.docker(["run", "-d", "--name", &name, "busybox", "sleep", "1000"]).stdout();
    }
    engine.bireme(["run", "-d", "--name", "hello", "hello"]).stdout();
    std::thread::sleep(Duration::from_secs(2));
    let before = processor_time(engine.pid());
    std::thread::sleep(Duration::from_secs(10));
    let seconds = processor_time(engine.pid()) - before;
    let average = |pids: &[u32]| {
        let all: Vec<(f64, f64)> = pids.iter().map(|pid| resident(*pid)).collect();
        let count = all.len().max(1) as f64;
        (all.iter().map(|one| one.0).sum::<f64>() / count, all.iter().map(|one| one.1).sum::<f64>() / count)
    };
    let runners = average(&children(engine.pid(), "bireme-runner"));
    // No child of the daemon: it is the first process of a namespace of its own.
    let host = resident(host_of());
    let now = resident(engine.pid());
    let row = |name: &str, of: (f64, f64)| vec![name.to_owned(), figure(of.0), figure(of.1)];
    print_table(
        "Memory at rest",
        &["process", "resident, MiB", "of that written to, its own, MiB"],
        &[
            row("`biremed`, started", fresh),
            row("`biremed` with ten containers and a component", now),
            row("a runner (mean of ten)", runners),
            row("a host with one component", host),
        ],
    );
    print_table(
        "Processor time of `biremed` at rest, ten containers and a component running, 10 s",
        &["what", "% of a core"],
        &[vec!["`biremed`".to_owned(), figure(seconds * 10.0)]],
    );
    engine.finish();
}

/// Mebibytes: what is resident, and what of it was written to, so that no other process could share it.
fn resident(pid: u32) -> (f64, f64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = |name: &str| -> f64 {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|word| word.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    (field("Rss:"), field("Private_Dirty:"))
}

/// The processes below `pid` whose command line names `program`.
fn children(pid: u32, program: &str) -> Vec<u32> {
    let path = format!("/proc/{pid}/task");
    let tasks = std::fs::read_dir(path).into_iter().flatten().flatten();
    let below = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    below
        .flat_map(|text| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u32>>())
        .filter(|child| {
            std::fs::read(format!("/proc/{child}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(program))
        })
        .collect()
}
