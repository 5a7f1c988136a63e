//! From a local account, and from a lost or broken database: what is stored is closed to others and kept.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bireme_testing::{Engine, eventually};

fn remove_database(data_root: &Path) {
    for entry in std::fs::read_dir(data_root).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("engine.db") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// The sweep at the start of an engine took each folder that the database did not know, also across mounts: a lost database
/// cost all volumes, and files of the host behind a volume that is a mount.
#[test]
fn a_lost_database_costs_no_volume_no_container_and_no_file_of_the_host() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let host = engine.folder().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("precious"), "kept").unwrap();
    engine.docker(["volume", "create", "--label", "of=someone", "named"]).stdout();
    let device = format!("device={}", host.display());
    engine.docker(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"]).stdout();
    engine.docker(["network", "create", "--label", "of=someone", "inner"]).stdout();
    let script = "echo written > /named/file; echo own > /own; sleep 100000";
    let flags = ["run", "-d", "--name", "busy", "--network", "inner", "-v", "named:/named", "-v", "bound:/bound"];
    let id = engine.docker(flags.iter().chain(&["busybox", "sh", "-c", script])).stdout().trim().to_owned();
    engine.docker(["create", "--name", "idle", "busybox", "true"]).stdout();
    eventually("the file", || engine.data_root().join("volumes/named/_data/file").exists().then_some(()));
    for empty in [false, true] {
        engine.crash();
        remove_database(&engine.data_root());
        if empty {
            std::fs::write(engine.data_root().join("engine.db"), b"").unwrap();
        }
        engine.come_back();
        assert_eq!(std::fs::read_to_string(host.join("precious")).unwrap(), "kept");
        assert_eq!(engine.docker(["volume", "inspect", "-f", "{{.Labels.of}}", "named"]).stdout().trim(), "someone");
        assert_eq!(engine.docker(["network", "inspect", "-f", "{{.Labels.of}}", "inner"]).stdout().trim(), "someone");
        let state = engine.docker(["inspect", "-f", "{{.Id}} {{.State.Status}}", "busy"]);
        assert_eq!(state.stdout().trim(), format!("{id} running"));
        let read = ["exec", "busy", "cat", "/named/file", "/bound/precious", "/own"];
        assert_eq!(engine.docker(read).stdout(), "written\nkeptown\n");
        assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}}", "idle"]).stdout().trim(), "created");
        assert!(engine.daemon_log().contains("volume named was not in the database"), "{}", engine.daemon_log());
    }
    engine.docker(["rm", "-f", "busy", "idle"]).stdout();
    engine.docker(["volume", "rm", "bound"]).stdout();
    assert_eq!(std::fs::read_to_string(host.join("precious")).unwrap(), "kept");
    engine.docker(["volume", "rm", "named"]).stdout();
    engine.finish();
}

/// A volume's folder whose record is gone too is a volume of that name; a damaged database is kept aside.
#[test]
fn a_damaged_database_is_kept_aside_and_unknown_volumes_are_adopted() {
    let mut engine = Engine::start();
    engine.docker(["volume", "create", "data"]).stdout();
    let volume = engine.data_root().join("volumes/data");
    std::fs::write(volume.join("_data/file"), "kept").unwrap();
    engine.crash();
    remove_database(&engine.data_root());
    std::fs::write(engine.data_root().join("engine.db"), vec![0x5a; 50_000]).unwrap();
    std::fs::remove_file(volume.join("volume.json")).unwrap();
    engine.come_back();
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout().trim(), "data");
    assert_eq!(std::fs::read_to_string(volume.join("_data/file")).unwrap(), "kept");
    let aside = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("engine.db.damaged-");
    assert!(std::fs::read_dir(engine.data_root()).unwrap().flatten().any(|entry| aside(&entry)));
    engine.finish();
}

/// CVE-2021-41091: a setuid program in a volume or a layer, and the secrets in the state, are out of reach of other users.
#[test]
fn nothing_stored_is_open_to_other_users() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let script = "cp /bin/busybox /v/root; chmod 4755 /v/root /bin/busybox; echo done; sleep 100000";
    engine.docker(["run", "-d", "--name", "secret", "-e", "SECRET=x", "-v", "vol:/v", "busybox", "sh", "-c", script]).stdout();
    eventually("the log", || engine.docker(["logs", "secret"]).raw_stdout().contains("done").then_some(()));
    // What an older engine left open is closed at the next start.
    engine.crash();
    let root = engine.data_root();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(root.join("engine.db"), std::fs::Permissions::from_mode(0o644)).unwrap();
    engine.come_back();
    let reached = find_open(&root);
    assert!(reached.is_empty(), "other users reach {reached:?}");
    for name in ["engine.db", "engine.db-wal", "images/images.db"] {
        let mode = std::fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
    engine.finish();
}

/// Files below `root` that a user without any right of his own comes to, path by path.
fn find_open(root: &Path) -> Vec<String> {
    let mode = std::fs::metadata(root).unwrap().permissions().mode();
    if mode & 0o001 == 0 {
        return Vec::new();
    }
    let mut found = vec![format!("{} ({mode:o})", root.display())];
    for entry in std::fs::read_dir(root).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            found.extend(find_open(&entry.path()));
        }
    }
    found
}
