//! Signals that reach the command line while it starts a workload.

use std::process::Stdio;
use std::time::Duration;

use bireme_testing::eventually;
use rustix::process::{Pid, Signal, kill_process};

use super::{bireme, engine};

/// Whenever it is interrupted, nothing runs on that nobody looks after.
#[test]
fn an_interrupted_run_leaves_nothing_running() {
    let engine = engine();
    engine.build_guest("hello", "hello");
    // From before it has asked for anything until long after the start.
    for pause in [5, 10, 15, 20, 25, 30, 40, 60, 100, 300] {
        let mut command = engine.command(bireme(), ["run", "--rm", "hello"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(pause));
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        eventually("the end of the command", || child.try_wait().unwrap());
        eventually(&format!("nothing that runs, interrupted after {pause} ms"), || {
            engine.docker(["ps", "-q"]).stdout().is_empty().then_some(())
        });
    }
    engine.docker(["container", "prune", "-f"]);
    engine.finish();
}
