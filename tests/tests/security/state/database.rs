//! A lost, broken or older database: what was stored is found again, from its copies and from the records.

use std::os::unix::fs::FileExt as _;
use std::path::Path;

use bireme_testing::{Engine, eventually};

use super::{checkpoint, lose};

fn empty(data_root: &Path) {
    lose(data_root);
    std::fs::write(data_root.join("engine.db"), "").unwrap();
}

fn truncate(data_root: &Path) {
    let path = data_root.join("engine.db");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(4096 + 100).unwrap();
    let _ = std::fs::remove_file(data_root.join("engine.db-wal"));
}

fn garble(data_root: &Path) {
    lose(data_root);
    std::fs::write(data_root.join("engine.db"), [0x5a; 20_000]).unwrap();
}

fn overwrite(data_root: &Path) {
    let path = data_root.join("engine.db");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0xff; 2000], 4096).unwrap();
    let _ = std::fs::remove_file(data_root.join("engine.db-wal"));
}

fn halve(data_root: &Path) {
    let path = data_root.join("engine.db");
    checkpoint(&path);
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
}

/// What no check of the database looks at.
fn spoil(data_root: &Path) {
    let database = rusqlite::Connection::open(data_root.join("engine.db")).unwrap();
    database.execute("update workloads set moving = cast(x'7bff' as text) where name = 'ended'", []).unwrap();
    drop(database);
    checkpoint(&data_root.join("engine.db"));
}

fn lose_copies_too(data_root: &Path) {
    lose(data_root);
    std::fs::remove_dir_all(data_root.join("backup")).unwrap();
}

#[test]
fn a_lost_or_broken_database_loses_no_volume_and_no_container() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let host = engine.folder().join("of the host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("kept"), "on the host").unwrap();
    engine.docker(["network", "create", "--label", "a=b", "mine"]).stdout();
    engine.docker(["volume", "create", "--label", "for=test", "data"]).stdout();
    let device = format!("device={}", host.display());
    engine.docker(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "mounted"]).stdout();
    let run = |name: &str, options: &[&str], command: &str| {
        let all = [&["run", "-d", "--name", name][..], options, &["busybox", "sh", "-c", command]].concat();
        engine.docker(all).stdout().trim().to_owned()
    };
    let running = run(
        "running",
        &["--network", "mine", "-v", "data:/data", "-v", "mounted:/host"],
        "echo in the volume > /data/file; echo of its own > /own; echo ready; exec sleep 1000",
    );
    run("ended", &[], "echo of its own > /own; echo said; exit 3");
    eventually("both are where they should be", || {
        let ended = engine.docker(["inspect", "-f", "{{.State.Status}}", "ended"]).stdout() == "exited\n";
        (ended && engine.docker(["logs", "running"]).stdout() == "ready\n").then_some(())
    });
    let address = |engine: &Engine| {
        engine
            .docker(["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "running"])
            .stdout()
            .to_owned()
    };
    let at = address(&engine);
    type Harm = (&'static str, fn(&Path));
    let harms: [Harm; 8] = [
        ("lost", lose),
        ("empty", empty),
        ("garbage", garble),
        ("truncated", truncate),
        ("overwritten", overwrite),
        ("cut in the middle", halve),
        ("with a name that is no text", spoil),
        ("lost with its copies", lose_copies_too),
    ];
    for (what, harm) in harms {
        engine.crash();
        harm(&engine.data_root());
        engine.come_back();
        let say = |args: &[&str]| engine.docker(args).stdout().trim().to_owned();
        assert_eq!(std::fs::read_to_string(host.join("kept")).unwrap(), "on the host", "{what}");
        assert_eq!(
            say(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]),
            format!("{running} running"),
            "{what}"
        );
        assert_eq!(
            say(&["exec", "running", "cat", "/data/file", "/own", "/host/kept"]),
            "in the volume\nof its own\non the host",
            "{what}"
        );
        assert_eq!(address(&engine), at, "{what}");
        assert_eq!(say(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "ended"]), "exited 3", "{what}");
        assert_eq!(say(&["logs", "ended"]), "said", "{what}");
        assert!(say(&["cp", "ended:/own", "-"]).contains("of its own"), "{what}");
        assert_eq!(say(&["volume", "inspect", "-f", "{{.Labels.for}}", "data"]), "test", "{what}");
        assert_eq!(say(&["volume", "inspect", "-f", "{{.Options.o}}", "mounted"]), "bind", "{what}");
        assert_eq!(say(&["network", "inspect", "-f", "{{.Labels.a}}", "mine"]), "b", "{what}");
    }
    assert!(engine.data_root().join("broken").read_dir().unwrap().next().is_some(), "the broken ones are kept");
    engine.docker(["rm", "-f", "running"]).stdout();
    engine.docker(["volume", "rm", "mounted", "data"]).stdout();
    assert_eq!(std::fs::read_to_string(host.join("kept")).unwrap(), "on the host");
    assert!(!engine.data_root().join("volumes/data").exists());
    engine.finish();
}

#[test]
fn with_every_record_lost_what_was_stored_is_still_there() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let host = engine.folder().join("of the host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("kept"), "on the host").unwrap();
    let device = format!("device={}", host.display());
    engine.docker(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "mounted"]).stdout();
    let script = "echo in the volume > /data/file; echo of its own > /own; echo ready; exec sleep 1000";
    let args = ["run", "-d", "--name", "cc", "-v", "data:/data", "-v", "mounted:/host", "busybox", "sh", "-c", script];
    let id = engine.docker(args).stdout().trim().to_owned();
    eventually("it is ready", || (engine.docker(["logs", "cc"]).stdout() == "ready\n").then_some(()));
    engine.crash();
    let data = engine.data_root();
    lose_copies_too(&data);
    std::fs::remove_dir_all(data.join("records")).unwrap();
    std::fs::create_dir_all(data.join("containers").join("f".repeat(64)).join("diff")).unwrap();
    engine.come_back();
    assert_eq!(std::fs::read_to_string(host.join("kept")).unwrap(), "on the host");
    let own = data.join("containers").join(&id).join("diff/own");
    assert_eq!(std::fs::read_to_string(own).unwrap(), "of its own\n");
    // In the background.
    let empty = data.join("containers").join("f".repeat(64));
    eventually("what holds nothing is cleared away", || (!empty.exists()).then_some(()));
    let names = engine.docker(["volume", "ls", "-q"]);
    assert_eq!(names.stdout().lines().collect::<Vec<_>>(), ["data", "mounted"]);
    assert_eq!(
        engine.docker(["run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/file"]).stdout(),
        "in the volume\n"
    );
    assert!(engine.docker(["volume", "prune", "-f"]).stdout().contains("0B"), "they are not taken for anonymous ones");
    // What is mounted there stays mounted, and the volume stays with it.
    engine.docker(["volume", "rm", "mounted"]).fails(1, "unmount it first");
    assert_eq!(std::fs::read_to_string(host.join("kept")).unwrap(), "on the host");
    let at = data.join("volumes/mounted/_data");
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
    engine.docker(["volume", "rm", "mounted"]).stdout();
    assert!(engine.daemon_log().contains("is kept: what it wrote is in it"));
    drop(engine);
}

#[test]
fn an_older_database_loses_nothing_that_was_made_since() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["volume", "create", "before"]).stdout();
    engine.docker(["network", "create", "before"]).stdout();
    engine.docker(["create", "--name", "idle", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["create", "--name", "gone", "--restart", "always", "busybox", "sleep", "1000"]).stdout();
    engine.crash();
    let data = engine.data_root();
    let old = engine.folder().join("old");
    std::fs::create_dir(&old).unwrap();
    for name in ["engine.db", "engine.db-wal"] {
        let _ = std::fs::copy(data.join(name), old.join(name));
    }
    engine.come_back();
    engine.docker(["start", "idle"]).stdout();
    engine.docker(["rename", "idle", "busy"]).stdout();
    engine.docker(["network", "create", "since"]).stdout();
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "since",
            "-v",
            "since:/s",
            "busybox",
            "sh",
            "-c",
            "echo x > /s/x; exec sleep 1000",
        ])
        .stdout();
    engine.docker(["volume", "rm", "before"]).stdout();
    engine.docker(["network", "rm", "before"]).stdout();
    engine.docker(["rm", "gone"]).stdout();
    engine.crash();
    lose(&data);
    for name in ["engine.db", "engine.db-wal"] {
        let _ = std::fs::copy(old.join(name), data.join(name));
    }
    engine.come_back();
    let names = engine.docker(["ps", "--format", "{{.Names}}"]);
    let mut names: Vec<&str> = names.stdout().lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["busy", "since"], "what runs is found again, with the name it has");
    assert_eq!(engine.docker(["exec", "since", "cat", "/s/x"]).stdout(), "x\n");
    let networks = engine.docker(["network", "ls", "--format", "{{.Name}}"]);
    assert!(networks.stdout().lines().any(|name| name == "since"));
    // Nor does what was removed come back, and take the place of what is there.
    assert!(!networks.stdout().lines().any(|name| name == "before"), "{networks}");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "since\n");
    assert_eq!(engine.docker(["ps", "-aq", "--filter", "name=gone"]).stdout(), "");
    engine.finish();
}

#[test]
fn a_container_goes_on_when_the_engine_was_killed_over_its_commit() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let script =
        "dd if=/dev/urandom of=/big bs=1M count=200 2>/dev/null; while :; do date +%s%N >> /ticks; usleep 50000; done";
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sh", "-c", script]).stdout();
    engine.docker(["run", "-d", "--name", "meant", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["pause", "meant"]).stdout();
    eventually("its file", || (engine.docker(["exec", "cc", "cat", "/ticks"]).code == 0).then_some(()));
    let socket = engine.socket();
    let asked = std::thread::spawn(move || {
        // Its answer never comes.
        let _ = bireme_testing::client::unix(&socket, "POST", "/commit?container=cc&repo=made", "", b"");
    });
    let status = |engine: &Engine, name: &str| {
        engine.docker(["inspect", "-f", "{{.State.Status}}", name]).stdout().trim().to_owned()
    };
    eventually("the commit", || (status(&engine, "cc") == "paused").then_some(()));
    engine.crash();
    asked.join().unwrap();
    engine.come_back();
    eventually("it goes on", || (status(&engine, "cc") == "running").then_some(()));
    assert_eq!(status(&engine, "meant"), "paused", "whom the user paused");
    let ticks = || engine.docker(["exec", "cc", "wc", "-l", "/ticks"]).stdout().to_owned();
    let before = ticks();
    eventually("it works", || (ticks() != before).then_some(()));
    engine.docker(["unpause", "meant"]).stdout();
    engine.finish();
}

#[test]
fn a_lost_image_database_takes_no_layer_from_a_container() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).stdout();
    let images = engine.data_root().join("images");
    let lose = |with_copies: bool| {
        for name in ["images.db", "images.db-wal", "images.db-shm"] {
            let _ = std::fs::remove_file(images.join(name));
        }
        if with_copies {
            let _ = std::fs::remove_dir_all(images.join("backup"));
        }
    };
    engine.crash();
    // So that there is a copy that knows the image.
    engine.come_back();
    for with_copies in [false, true] {
        engine.crash();
        lose(with_copies);
        engine.come_back();
        assert_eq!(engine.docker(["images", "-q"]).stdout().is_empty(), with_copies);
        engine.docker(["restart", "-t", "0", "cc"]).stdout();
        assert_eq!(engine.docker(["exec", "cc", "echo", "works"]).stdout(), "works\n");
        // Also at the start after the next.
        engine.crash();
        engine.come_back();
        engine.load("busybox");
        assert_eq!(engine.docker(["exec", "cc", "echo", "works"]).stdout(), "works\n");
        assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "new"]).stdout(), "new\n");
    }
    engine.crash();
    lose(true);
    std::fs::write(images.join("images.db"), [0x5a; 9000]).unwrap();
    engine.come_back();
    engine.docker(["restart", "-t", "0", "cc"]).stdout();
    engine.finish();
}
