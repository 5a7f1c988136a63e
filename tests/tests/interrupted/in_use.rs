//! Pruning, while others pull, build and run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bireme_testing::Registry;

use super::story::{Story, said};

/// Whoever prunes all the time takes nothing from those who pull, build and run meanwhile.
#[test]
fn nothing_that_is_in_use_is_pruned() {
    let registry = Registry::start();
    let story = Story::begin("in use", &format!("{}/app:1", registry.host()));
    story.engine.docker(["push", "-q", &story.name]).stdout();
    let held = format!("{}/held:1", registry.host());
    story.engine.docker(["tag", &story.name, &held]).stdout();
    story.engine.docker(["run", "-d", "--name", "holder", &held, "sleep", "1000"]).stdout();
    let ended = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_secs(said("BIREME_SECONDS", 12));
    let busy = || Instant::now() < until;
    let (engine, name, printed) = (&story.engine, &story.name, &story.printed);
    let filters = "%7B%22dangling%22%3A%5B%22false%22%5D%7D";
    // By either endpoint.
    let build = |buildkit: bool| {
        let mut built = 0;
        let context = tempfile::tempdir().unwrap();
        while busy() {
            std::fs::write(context.path().join("new"), format!("{built}\n")).unwrap();
            // Its base has a container that holds it; what is between has nobody but the build.
            let dockerfile = format!(
                "FROM {held}\nCOPY new /new\nRUN cat /new > /run1\nRUN cat /run1 > /run2 && sleep 0.2\nRUN cat /new /run2 && \
                 ls /data/many | wc -l\n"
            );
            std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
            let args = ["build", "--no-cache", "--progress=plain", "."];
            let mut build = if buildkit {
                engine.buildx(args)
            } else {
                let mut classic = engine.command("docker", args.iter().filter(|word| !word.contains("progress")));
                classic.env("DOCKER_BUILDKIT", "0");
                classic
            };
            build.current_dir(&context);
            let log = engine.run(build);
            assert_eq!(log.code, 0, "{log}");
            // What the last command prints; BuildKit's clients put a number and a time before it.
            let text = format!("{}{}", log.stdout(), log.stderr());
            let printed: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next_back()).collect();
            let built_now = built.to_string();
            assert!(printed.windows(3).any(|lines| lines == [&built_now, &built_now, "400"]), "{log}");
            built += 1;
        }
        built
    };
    let done = std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            let mut turns = 0;
            while !ended.load(Ordering::Relaxed) {
                assert_eq!(engine.request("POST", &format!("/images/prune?filters={filters}"), b"").status, 200);
                assert_eq!(engine.request("POST", "/build/prune?all=1", b"").status, 200);
                turns += 1;
            }
            turns
        });
        let puller = scope.spawn(|| {
            let mut pulled = 0;
            while busy() {
                engine.docker(["pull", "-q", name]).stdout();
                // By the time it is asked for it may be pruned again: then that is what is said.
                let run = engine.docker(["run", "--rm", "--pull", "never", name]);
                match run.code {
                    0 => assert_eq!(run.stdout(), printed),
                    _ => assert!(run.stderr().contains("No such image"), "{run}"),
                }
                pulled += 1;
            }
            pulled
        });
        let (classic, buildkit) = (scope.spawn(|| build(false)), scope.spawn(|| build(true)));
        let reader = scope.spawn(|| {
            let mut read = 0;
            while busy() {
                let script = "cat $(find /data -type f | sort) | md5sum";
                assert_eq!(&engine.docker(["exec", "holder", "sh", "-c", script]).stdout(), printed);
                read += 1;
            }
            read
        });
        let done = [puller.join(), classic.join(), buildkit.join(), reader.join()].map(|all| all.unwrap_or_default());
        ended.store(true, Ordering::Relaxed);
        [&done[..], &[pruner.join().unwrap_or_default()]].concat()
    });
    assert!(done.iter().all(|turns| *turns > 0), "each did its work: {done:?}");
    story.engine.docker(["rm", "-f", "holder"]).stdout();
    story.is_well("at the end");
    story.end();
}
