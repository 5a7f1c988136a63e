//! A disk that becomes full in the middle of work on images.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use bireme_testing::{Engine, Registry, eventually};

use super::story::{Random, all_goes, is_well, said, write_context};

/// Bytes that are free.
fn free(engine: &Engine) -> u64 {
    let disk = rustix::fs::statvfs(engine.data_root()).unwrap();
    disk.f_bavail * disk.f_frsize
}

/// Fills the disk but for so many bytes.
fn fill_but(engine: &Engine, bytes: u64) -> PathBuf {
    let path = engine.data_root().join("filler");
    let file = std::fs::File::create(&path).unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, free(engine).saturating_sub(bytes).max(1))
        .unwrap();
    path
}

#[test]
fn a_disk_that_becomes_full_costs_nothing_that_is_stored() {
    let registry = Registry::start();
    let name = format!("{}/app:1", registry.host());
    let context = tempfile::tempdir().unwrap();
    let mut random = Random::new("full");
    write_context(context.path(), &mut random);
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("app.tar");
    let archive = archive.to_str().unwrap();
    let printed = {
        let engine = Engine::start();
        engine.load("busybox");
        let mut build = engine.command("docker", ["build", "-q", "-t", &name]);
        build.arg(context.path()).env("DOCKER_BUILDKIT", "0");
        engine.run(build).stdout();
        engine.docker(["save", "-o", archive, &name]).stdout();
        engine.docker(["push", "-q", &name]).stdout();
        let printed = engine.docker(["run", "--rm", &name]).stdout().to_owned();
        engine.finish();
        printed
    };
    let mut engine = Engine::on_small_disk(128 << 20);
    engine.load("busybox");
    let build = || {
        let mut build = engine.command("docker", ["build", "-q", "-t", &name]);
        build.arg(context.path()).env("DOCKER_BUILDKIT", "0");
        build
    };
    let buildx = || {
        let mut build = engine.buildx(["build", "-q", "-t", &name]);
        build.arg(context.path());
        build
    };
    let works: [&dyn Fn() -> Command; 4] = [
        &|| engine.command("docker", ["pull", "-q", &name]),
        &|| engine.command("docker", ["load", "-q", "-i", archive]),
        &build,
        &buildx,
    ];
    let mut refused = 0;
    for (at, work) in works.into_iter().enumerate() {
        // The whole takes some twelve megabytes.
        for _ in 0..said("BIREME_MOMENTS", 6) {
            let room = random.below(12 << 20);
            let about = format!("work {at} with {room} bytes of room");
            let filler = fill_but(&engine, room);
            let before = free(&engine);
            let answer = engine.run(work());
            if answer.code != 0 {
                refused += 1;
                let text = answer.stderr();
                assert!(text.contains("space") || text.contains("full"), "{about}: {answer}");
                is_well(&engine, &about);
                // Of what failed nothing is kept, but what the cache of builds has whole.
                engine.docker(["builder", "prune", "-af"]);
                eventually("the room is there again", || (free(&engine) + (1 << 20) > before).then_some(()));
            }
            std::fs::remove_file(filler).unwrap();
            is_well(&engine, &about);
            assert_eq!(engine.run(work()).code, 0, "{about}");
            assert_eq!(engine.docker(["run", "--rm", &name]).stdout(), printed, "{about}");
            engine.docker(["rmi", "-f", &name]).stdout();
            engine.docker(["builder", "prune", "-af"]).stdout();
        }
    }
    assert!(refused > 0, "the disk was never full");
    // And the daemon dies while the disk is full.
    let filler = fill_but(&engine, 3 << 20);
    let mut client = engine.command("docker", ["pull", "-q", &name]).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(random.below(200)));
    engine.crash();
    let _ = client.wait();
    engine.come_back();
    is_well(&engine, "killed on a full disk");
    std::fs::remove_file(filler).unwrap();
    assert_eq!(engine.docker(["run", "--rm", &name]).stdout(), printed);
    all_goes(&engine);
    engine.finish();
}
