//! Hosts that are started before anybody knows what they are for.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use bireme_core::Executor as _;
use bireme_wasm::WasmExecutor;

use crate::common::{Rig, program, until};

/// The processes that wait as spare hosts, and run this very file.
fn spares(file: &Path) -> Vec<u32> {
    let inode = std::fs::metadata(file).unwrap().ino();
    let of = |pid: u32| {
        let folder = Path::new("/proc").join(pid.to_string());
        let same = std::fs::metadata(folder.join("exe")).is_ok_and(|exe| exe.ino() == inode);
        let words = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        // The process that was started leaves its place to one in a namespace of its own, which has another number there.
        let status = std::fs::read_to_string(folder.join("status")).unwrap_or_default();
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        let within = numbers.split_whitespace().count() > 1;
        same && within && words.split(|byte| *byte == 0).any(|word| word == b"spare")
    };
    let names = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).filter(|pid| of(*pid)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_host_is_taken_by_the_next_start_and_missed_by_none() {
    let mut rig = Rig::new();
    // A file of its own, by which other tests' are told apart.
    let file = rig.dir.path().join("host");
    std::fs::copy(&rig.options.host, &file).unwrap();
    rig.options.host = file.clone();
    rig.executor = WasmExecutor::new(rig.options.clone());

    // Compiled before, so that the start takes no time.
    rig.executor.check(&rig.spec("one", &[]), &program("hello")).await.unwrap();
    rig.executor.prewarm();
    rig.executor.prewarm();
    until("one spare host", || spares(&file).len() == 1);
    let spare = spares(&file)[0];
    let one = rig.run(rig.spec("one", &[]), "hello").await;
    assert_eq!(one.get("/").status, 200);
    assert_eq!(one.workload.pid(), Some(spare), "it became the host");

    // One that dies meanwhile is as none.
    rig.executor.prewarm();
    until("another", || spares(&file).iter().any(|pid| *pid != spare));
    let other = spares(&file).into_iter().find(|pid| *pid != spare).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(other.try_into().unwrap()), nix::sys::signal::SIGKILL).unwrap();
    until("its end", || !spares(&file).contains(&other));
    let two = rig.run(rig.spec("two", &[]), "hello").await;
    assert_eq!(two.get("/").status, 200);

    // Nobody asks for the next.
    rig.executor.prewarm();
    until("a third", || spares(&file).iter().any(|pid| *pid != spare));
    two.workload.delete().await.unwrap();
    one.workload.delete().await.unwrap();
    let closed = Instant::now();
    rig.executor.close();
    until("no host is left", || spares(&file).is_empty());
    assert!(closed.elapsed() < Duration::from_secs(5), "it went by itself");
}
