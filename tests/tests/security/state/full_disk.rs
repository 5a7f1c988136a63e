//! A disk that is full, of what containers write or of something else.

use std::path::{Path, PathBuf};

use bireme_testing::{Engine, eventually};

#[test]
fn a_full_disk_loses_nothing() {
    let mut engine = Engine::on_small_disk(64 << 20);
    engine.load("busybox");
    engine
        .docker(["run", "--name", "cc", "-v", "data:/d", "busybox", "sh", "-c", "echo kept > /d/file; echo own > /own"])
        .stdout();
    let filler = engine.data_root().join("filler");
    let fill = || {
        let mut bytes = vec![0_u8; 1 << 20];
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
        while !bytes.is_empty() {
            if std::io::Write::write_all(&mut file, &bytes).is_err() {
                bytes.truncate(bytes.len() / 2);
            }
        }
    };
    fill();
    for number in 0..20 {
        let made = engine.docker(["volume", "create", &format!("n{number}")]);
        let known = engine.docker(["volume", "ls", "-q"]);
        let known = known.stdout().lines().any(|name| name == format!("n{number}"));
        assert_eq!(made.raw_stdout().trim() == format!("n{number}"), known, "what is told is what is there");
    }
    engine.crash();
    fill();
    // Whether it starts or says why not, nothing goes.
    std::fs::remove_file(&filler).unwrap();
    engine.come_back();
    assert_eq!(engine.docker(["run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/file"]).stdout(), "kept\n");
    assert!(engine.docker(["cp", "cc:/own", "-"]).stdout().contains("own"));
    engine.finish();
}

#[test]
fn files_of_etc_are_on_the_disk_and_counted() {
    let engine = Engine::start();
    engine.load("busybox");
    let fill = "dd if=/dev/zero of=/etc/hosts bs=1M count=3 2>/dev/null; cat /etc/hostname; exec sleep 1000";
    engine.docker(["run", "-d", "--name", "cc", "--hostname", "h", "busybox", "sh", "-c", fill]).stdout();
    eventually("it wrote", || (engine.docker(["logs", "cc"]).stdout() == "h\n").then_some(()));
    for (field, name) in [("HostsPath", "hosts"), ("HostnamePath", "hostname"), ("ResolvConfPath", "resolv.conf")] {
        let path = engine.docker(["inspect", "-f", &format!("{{{{.{field}}}}}"), "cc"]);
        let path = PathBuf::from(path.stdout().trim());
        assert!(path.starts_with(engine.data_root().join("containers")), "{name}: {}", path.display());
    }
    let size = engine.docker(["inspect", "-s", "-f", "{{.SizeRw}}", "cc"]);
    assert!(size.stdout().trim().parse::<u64>().unwrap() >= 3 << 20, "{}", size.stdout());
    engine.docker(["restart", "-t", "0", "cc"]).stdout();
    engine.finish();
}

/// A container that takes every byte of the disk, and says so.
fn fill_from_within(engine: &Engine, name: &str, options: &[&str]) {
    let script = "while dd if=/dev/zero bs=64k count=1000 >> /fill 2>/dev/null; do :; done; \
                  while dd if=/dev/zero bs=512 count=10 >> /fill 2>/dev/null; do :; done; exec sleep 1000";
    let all = [&["run", "-d", "--name", name][..], options, &["busybox", "sh", "-c", script]].concat();
    engine.docker(all).stdout();
    eventually("the disk is full", || (free(engine) < 64 << 10).then_some(()));
}

fn free(engine: &Engine) -> u64 {
    let disk = rustix::fs::statvfs(engine.data_root()).unwrap();
    disk.f_bavail * disk.f_frsize
}

fn fill(path: &Path) {
    let mut bytes = vec![0_u8; 1 << 20];
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    while !bytes.is_empty() {
        if std::io::Write::write_all(&mut file, &bytes).is_err() {
            bytes.truncate(bytes.len() / 2);
        }
    }
}

#[test]
fn on_a_full_disk_things_end_and_are_removed() {
    let mut engine = Engine::on_small_disk(96 << 20);
    engine.load("busybox");
    engine.docker(["tag", "busybox", "second"]).stdout();
    engine.docker(["volume", "create", "vv"]).stdout();
    engine.docker(["run", "-d", "--name", "ended", "--restart", "unless-stopped", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["create", "--name", "idle", "busybox"]).stdout();
    fill_from_within(&engine, "filler", &[]);
    // What ends is remembered as ended, also by the next engine, which starts.
    engine.docker(["kill", "ended"]).stdout();
    let full = engine.data_root().join("full");
    fill(&full);
    engine.crash();
    fill(&full);
    engine.come_back();
    let status = |name: &str| engine.docker(["inspect", "-f", "{{.State.Status}}", name]).stdout().trim().to_owned();
    assert_eq!(status("ended"), "exited", "killed, it stays down");
    assert_eq!(status("filler"), "running");
    // What is removed goes, also where not one byte is left to remember it in.
    fill(&full);
    engine.docker(["volume", "rm", "vv"]).stdout();
    engine.docker(["rm", "idle"]).stdout();
    let before = free(&engine);
    engine.docker(["rm", "-f", "filler"]).stdout();
    assert!(free(&engine) > before + (8 << 20), "{before} bytes were free, and {} are", free(&engine));
    engine.docker(["rmi", "second"]).stdout();
    std::fs::remove_file(&full).unwrap();
    engine.crash();
    engine.come_back();
    assert_eq!(engine.docker(["ps", "-a", "--format", "{{.Names}}"]).stdout(), "ended\n");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "");
    assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "well again"]).stdout(), "well again\n");
    assert!(engine.data_root().join("ballast").exists(), "there is room again");
    engine.finish();
}

#[test]
fn a_removal_whose_files_went_on_a_full_disk_is_completed_at_the_next_start() {
    let mut engine = Engine::on_small_disk(64 << 20);
    engine.load("busybox");
    let id = engine.docker(["create", "--name", "going", "busybox"]).stdout().trim().to_owned();
    engine.crash();
    let data = engine.data_root();
    let aside = data.join("containers/.removed").join(&id);
    std::fs::rename(data.join("containers").join(&id), &aside).unwrap();
    for name in ["ballast", "images/ballast"] {
        std::fs::remove_file(data.join(name)).unwrap();
    }
    // Its files alone take the space.
    fill(&aside.join("file"));
    engine.come_back();
    assert_eq!(engine.docker(["ps", "-aq"]).stdout(), "");
    assert!(free(&engine) > 16 << 20);
    assert!(!aside.exists());
    engine.finish();
}
