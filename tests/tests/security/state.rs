//! From a local account, and from a lost or broken database: what is stored is closed to others and kept.

use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bireme_testing::{Engine, client, eventually, free_port};

/// What may happen to files of a database while no engine runs.
fn lose(data_root: &Path) {
    for name in ["engine.db", "engine.db-wal", "engine.db-shm"] {
        let _ = std::fs::remove_file(data_root.join(name));
    }
}

fn empty(data_root: &Path) {
    lose(data_root);
    std::fs::write(data_root.join("engine.db"), "").unwrap();
}

fn garble(data_root: &Path) {
    lose(data_root);
    std::fs::write(data_root.join("engine.db"), [0x5a; 20_000]).unwrap();
}

fn truncate(data_root: &Path) {
    let path = data_root.join("engine.db");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(4096 + 100).unwrap();
    let _ = std::fs::remove_file(data_root.join("engine.db-wal"));
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

/// Brings what was written ahead into the database itself.
fn checkpoint(path: &Path) {
    let database = rusqlite::Connection::open(path).unwrap();
    database.query_row("pragma wal_checkpoint(truncate)", [], |_| Ok(())).unwrap();
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

/// Without the sums by which a record is known to be as it was written: what another engine wrote.
fn without_sums(mut text: String) -> String {
    const FIELD: &str = ",\"sum\":\"";
    while let Some(at) = text.find(FIELD) {
        text.replace_range(at..at + FIELD.len() + 17, "");
    }
    text
}

/// Changes what stands in the database alone, as a damaged disk does; or in the records beside it too, as another engine does
/// that writes other words.
fn exchange(data: &Path, from: &str, to: &str, records: bool) {
    let database = rusqlite::Connection::open(data.join("engine.db")).unwrap();
    let columns = [
        ("workloads", "id", "fixed"),
        ("workloads", "id", "moving"),
        ("networks", "id", "record"),
        ("volumes", "name", "record"),
    ];
    let changed = |text: String| if records { without_sums(text).replace(from, to) } else { text.replace(from, to) };
    for (table, key, column) in columns {
        let mut query = database.prepare(&format!("select {key}, {column} from {table}")).unwrap();
        let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).unwrap();
        for (of, text) in rows.collect::<Result<Vec<_>, _>>().unwrap() {
            let update = format!("update {table} set {column} = ?2 where {key} = ?1");
            database.execute(&update, [of, changed(text)]).unwrap();
        }
    }
    drop(database);
    checkpoint(&data.join("engine.db"));
    let folders = ["workloads", "networks", "volumes"].map(|kind| data.join("records").join(kind));
    for file in folders.iter().flat_map(|folder| folder.read_dir().unwrap()).filter(|_| records) {
        let path = file.unwrap().path();
        std::fs::write(&path, changed(std::fs::read_to_string(&path).unwrap())).unwrap();
    }
}

/// What is left of it is a record all the same: of another workload, another network, another volume or image.
#[test]
fn a_flipped_bit_of_a_record_that_still_parses_is_noticed() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let port = free_port();
    let publish = format!("{port}:80");
    let script = "echo kept > /d/x; httpd -p 80 -h /d; exec sleep 1000";
    let run = ["run", "-d", "--name", "cc", "--restart", "always", "-p", &publish, "-v", "data:/d", "-v", "/own"];
    engine.docker([&run[..], &["busybox", "sh", "-c", script]].concat()).stdout();
    let about = |engine: &Engine, what: &str| engine.docker(["inspect", "-f", what, "cc"]).stdout().trim().to_owned();
    let (id, image) = (about(&engine, "{{.Id}}"), about(&engine, "{{.Image}}"));
    let started = about(&engine, "{{.State.StartedAt}}");
    let flipped = |text: &str| {
        let last = text.chars().last().unwrap();
        format!("{}{}", &text[..text.len() - 1], if last == '1' { '0' } else { '1' })
    };
    let volumes = engine.docker(["volume", "ls", "-q"]).stdout().to_owned();
    let own = volumes.lines().find(|name| name.len() == 64).unwrap();
    // What an engine without sums wrote has them after one start.
    engine.crash();
    exchange(&engine.data_root(), "nothing of this kind", "", true);
    engine.come_back();
    engine.crash();
    let database = rusqlite::Connection::open(engine.data_root().join("engine.db")).unwrap();
    let without =
        "select count(*) from workloads where fixed not like '%,\"sum\":\"%' or moving not like '%,\"sum\":\"%'";
    assert_eq!(database.query_row(without, [], |row| row.get::<_, i64>(0)).unwrap(), 0);
    drop(database);
    // A copy that is damaged is made anew, and a byte that is no text costs its row alone.
    let copy = engine.data_root().join("records/workloads").join(format!("{id}.fixed"));
    let whole = std::fs::read(&copy).unwrap();
    std::fs::write(&copy, &whole[..whole.len() / 2]).unwrap();
    engine.come_back();
    assert_eq!(std::fs::read(&copy).unwrap(), whole);
    engine.crash();
    let database = rusqlite::Connection::open(engine.data_root().join("engine.db")).unwrap();
    let mut bytes = whole.clone();
    bytes[30] = 0xff;
    database.execute("update workloads set fixed = cast(?1 as text)", [bytes]).unwrap();
    drop(database);
    checkpoint(&engine.data_root().join("engine.db"));
    engine.come_back();
    assert_eq!(std::fs::read_dir(engine.data_root().join("broken")).map_or(0, |all| all.count()), 0);
    assert_eq!(about(&engine, "{{.State.StartedAt}}"), started, "{}", engine.daemon_log());
    for (from, to) in [
        (id.as_str(), flipped(&id)),
        (image.as_str(), flipped(&image)),
        (own, flipped(own)),
        ("\"name\":\"data\"", "\"name\":\"date\"".to_owned()),
        ("\"name\":\"bridge\"", "\"name\":\"rridge\"".to_owned()),
        ("\"name\":\"host\"", "\"name\":\"hosd\"".to_owned()),
    ] {
        engine.crash();
        exchange(&engine.data_root(), from, &to, false);
        engine.come_back();
        assert_eq!(engine.docker(["ps", "-aq", "--no-trunc"]).stdout().trim(), id, "{from}");
        assert_eq!(about(&engine, "{{.State.StartedAt}}"), started, "{from}: {}", engine.daemon_log());
        for kind in ["volume", "image"] {
            engine.docker([kind, "prune", "-af"]).stdout();
        }
        assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), volumes, "{from}");
        assert_eq!(engine.docker(["exec", "cc", "cat", "/d/x"]).stdout(), "kept\n", "{from}");
        eventually("an answer", || client::tcp(port, "GET", "/x", "", b"").ok().filter(|answer| answer.status == 200));
    }
    engine.docker(["rm", "-f", "cc"]).stdout();
    engine.crash();
    engine.come_back();
    assert_eq!(engine.docker(["ps", "-aq"]).stdout(), "");
    engine.finish();
}

/// As after a downgrade: the engine makes these networks by itself, and what is on them stays on them.
#[test]
fn the_default_networks_that_cannot_be_read_are_as_they_were() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let port = free_port();
    let publish = format!("{port}:80");
    let script = "echo kept > /x; httpd -p 80 -h /; exec sleep 1000";
    engine.docker(["run", "-d", "--name", "cc", "-p", &publish, "busybox", "sh", "-c", script]).stdout();
    engine.docker(["create", "--name", "later", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["run", "-d", "--name", "hosted", "--network", "host", "busybox", "sleep", "1000"]).stdout();
    let ids = |engine: &Engine| engine.docker(["network", "ls", "-q", "--no-trunc"]).stdout().to_owned();
    let known = ids(&engine);
    let address = |engine: &Engine, name: &str| {
        let what = "{{.NetworkSettings.Networks.bridge.IPAddress}}";
        engine.docker(["inspect", "-f", what, name]).stdout().trim().to_owned()
    };
    let mut had = address(&engine, "cc");
    let serves = |engine: &Engine, had: &str| {
        assert_eq!(ids(engine).lines().collect::<std::collections::BTreeSet<_>>(), known.lines().collect());
        assert_eq!(address(engine, "cc"), had);
        eventually("an answer", || client::tcp(port, "GET", "/x", "", b"").ok().filter(|answer| answer.status == 200));
        engine.docker(["run", "--rm", "busybox", "ping", "-c", "1", "-W", "5", had]).stdout();
    };
    // Their addresses can be read, or those of who is on them alone.
    for harm in [("\"attachable\":", "\"attachablf\":"), ("\"pools\":", "\"poolz\":")] {
        engine.crash();
        exchange(&engine.data_root(), harm.0, harm.1, true);
        engine.come_back();
        serves(&engine, &had);
        for name in ["cc", "hosted"] {
            engine.docker(["restart", "-t", "0", name]).stdout();
        }
        had = address(&engine, "cc");
        engine.docker(["start", "later"]).stdout();
        engine.docker(["stop", "-t", "0", "later"]).stdout();
        engine.crash();
        exchange(&engine.data_root(), harm.1, harm.0, true);
        engine.come_back();
        serves(&engine, &had);
    }
    engine.docker(["restart", "-t", "0", "cc", "hosted"]).stdout();
    serves(&engine, &address(&engine, "cc"));
    engine.finish();
}

#[test]
fn a_row_that_cannot_be_read_is_taken_from_its_record() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "--label", "a=b", "mine"]).stdout();
    engine.docker(["volume", "create", "--label", "a=b", "data"]).stdout();
    let run = ["run", "-d", "--name", "cc", "--restart", "always", "--network", "mine", "-v", "data:/d", "busybox"];
    engine.docker([&run[..], &["sleep", "1000"]].concat()).stdout();
    let started = engine.docker(["inspect", "-f", "{{.State.StartedAt}}", "cc"]).stdout().to_owned();
    for (from, to) in
        [("\"restart\"", "\"sestart\""), ("\"internal\":false", "\"internal\":falsd"), ("\"created\"", "\"creatde\"")]
    {
        engine.crash();
        exchange(&engine.data_root(), from, to, false);
        engine.come_back();
        assert_eq!(engine.docker(["inspect", "-f", "{{.State.StartedAt}}", "cc"]).stdout(), started, "{from}");
        assert_eq!(engine.docker(["network", "inspect", "-f", "{{.Labels.a}}", "mine"]).stdout(), "b\n", "{from}");
        assert_eq!(engine.docker(["volume", "inspect", "-f", "{{.Labels.a}}", "data"]).stdout(), "b\n", "{from}");
        engine.docker(["exec", "cc", "ping", "-c", "1", "-W", "5", "cc"]).stdout();
    }
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

/// As after a downgrade: the newer engine wrote words that this one does not know, of what changes or of what is fixed.
#[test]
fn what_cannot_be_read_anywhere_runs_on_and_keeps_what_it_uses() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("probe", "probe");
    engine.docker(["network", "create", "mine"]).stdout();
    let (port, files) = (free_port(), free_port());
    let of_db = format!("{files}:80");
    let run = ["run", "-d", "--name", "db", "--restart", "always", "--network", "mine", "-v", "data:/d", "-v", "/own"];
    let script = "echo kept > /d/x; httpd -p 80 -h /d; exec sleep 1000";
    engine.docker([&run[..], &["-p", &of_db, "busybox", "sh", "-c", script]].concat()).stdout();
    let publish = format!("{port}:80");
    let run = ["run", "-d", "--name", "web", "--platform", "wasi/wasm", "--restart", "always", "-p", &publish, "probe"];
    engine.docker(run).stdout();
    engine.docker(["run", "-d", "--name", "other", "--network", "mine", "busybox", "sleep", "1000"]).stdout();
    let pids = |engine: &Engine| {
        ["db", "web"].map(|name| engine.docker(["inspect", "-f", "{{.State.Pid}}", name]).stdout().trim().to_owned())
    };
    let first = pids(&engine);
    let alive = || first.iter().all(|pid| Path::new("/proc").join(pid).exists());
    let volumes = engine.docker(["volume", "ls", "-q"]).stdout().to_owned();
    assert_eq!(volumes.lines().count(), 2, "{volumes}");
    let kept = |engine: &Engine| {
        assert!(alive(), "{}", engine.daemon_log());
        for name in ["db", "web"] {
            engine.docker(["start", name]).fails(1, "cannot be read");
            engine.docker(["rename", name, "renamed"]).fails(1, "start the engine that wrote the record");
            engine.docker(["create", "--name", name, "busybox", "true"]).fails(1, "already in use");
        }
        engine.docker(["volume", "prune", "-af"]).stdout();
        engine.docker(["volume", "rm", "data"]).fails(1, "volume is in use");
        engine.docker(["network", "prune", "-f"]).stdout();
        engine.docker(["network", "rm", "mine"]).fails(1, "has active endpoints");
        engine.docker(["image", "prune", "-af"]).stdout();
        assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), volumes);
        // What it publishes leads to it, and is nobody else's.
        eventually("an answer", || client::tcp(files, "GET", "/x", "", b"").ok().filter(|answer| answer.status == 200));
        eventually("an answer", || client::tcp(port, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200));
        engine.docker(["run", "--rm", "-p", &of_db, "busybox", "true"]).fails(125, "port is already allocated");
        assert_eq!(engine.docker(["images", "--format", "{{.Repository}}"]).stdout().lines().count(), 2);
    };
    let whole = |engine: &Engine| {
        assert_eq!(pids(engine), first, "{}", engine.daemon_log());
        assert_eq!(engine.docker(["exec", "db", "cat", "/d/x"]).stdout(), "kept\n");
        engine.docker(["exec", "other", "ping", "-c", "1", "-W", "5", "db"]).stdout();
        eventually("an answer", || client::tcp(port, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200));
    };
    // Of what changes: looked at, it is as any other.
    let newer = ("\"always\"", "\"sometimes\"");
    engine.crash();
    exchange(&engine.data_root(), newer.0, newer.1, true);
    engine.come_back();
    kept(&engine);
    engine.docker(["stop", "-t", "1", "db"]).fails(1, "cannot be read");
    engine.docker(["rm", "db"]).fails(1, "");
    whole(&engine);
    engine.crash();
    engine.come_back();
    whole(&engine);
    engine.crash();
    exchange(&engine.data_root(), newer.1, newer.0, true);
    engine.come_back();
    whole(&engine);
    engine.docker(["restart", "-t", "0", "other"]).stdout();
    // Of what is fixed: nothing is known but what they are called.
    let fixed = ("\"publish_all\"", "\"publish_some\"");
    engine.crash();
    exchange(&engine.data_root(), fixed.0, fixed.1, true);
    engine.come_back();
    assert_eq!(engine.docker(["ps", "-a", "--format", "{{.Names}}"]).stdout(), "");
    kept(&engine);
    engine.docker(["rm", "db"]).fails(1, "start the engine that wrote the record");
    // What is new does not get what they have.
    engine.docker(["run", "-d", "--name", "new", "--network", "mine", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["rm", "-f", "new"]).stdout();
    engine.crash();
    exchange(&engine.data_root(), fixed.1, fixed.0, true);
    engine.come_back();
    whole(&engine);
    // Whoever wants to be rid of it may.
    for (name, pid, harm) in [("db", &first[0], newer), ("web", &first[1], fixed)] {
        engine.crash();
        exchange(&engine.data_root(), harm.0, harm.1, true);
        engine.come_back();
        engine.docker(["rm", "-f", name]).stdout();
        eventually("its end", || (!Path::new("/proc").join(pid).exists()).then_some(()));
        engine.docker(["rm", name]).fails(1, "No such container");
        engine.docker(["create", "--name", name, "busybox", "true"]).stdout();
        engine.docker(["rm", "-f", name, "other"]).stdout();
        engine.docker(["run", "-d", "--name", "other", "--network", "mine", "busybox", "sleep", "1000"]).stdout();
    }
    engine.docker(["volume", "rm", "data"]).stdout();
    engine.finish();
}

#[test]
fn networks_and_volumes_that_cannot_be_read_stay_what_they_are() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let disk = engine.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    std::fs::write(disk.join("kept"), "on the disk\n").unwrap();
    let device = format!("device={}", disk.display());
    engine.docker(["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "disk"]).stdout();
    engine.docker(["network", "create", "--label", "of=test", "mine"]).stdout();
    let port = free_port();
    let publish = format!("{port}:80");
    let run = ["run", "-d", "--network", "mine", "--name"];
    for options in [&["cc", "-v", "disk:/d", "-p", &publish][..], &["peer"]] {
        let script = "httpd -p 80 -h /etc; exec sleep 1000";
        engine.docker([&run[..], options, &["busybox", "sh", "-c", script]].concat()).stdout();
    }
    let ping = |engine: &Engine| {
        engine.docker(["exec", "peer", "ping", "-c", "1", "-W", "5", "cc"]).stdout();
    };
    ping(&engine);
    let harms = [
        // A network; one place of a workload; a volume.
        ("\"of\":\"test\"", "\"of\":7"),
        ("\"network_name\":\"mine\"", "\"network_name\":{\"new\":1}"),
        ("\"driver\":\"local\"", "\"driver\":{\"new\":1}"),
    ];
    for (harm, (from, to)) in harms.into_iter().enumerate() {
        engine.crash();
        exchange(&engine.data_root(), from, to, true);
        engine.come_back();
        assert_eq!(engine.docker(["ps", "--format", "{{.Names}}"]).stdout().lines().count(), 2, "{from}");
        let links = engine.docker(["exec", "cc", "ls", "/sys/class/net"]);
        assert!(links.stdout().contains("eth0"), "{from}: {links}");
        engine.docker(["network", "rm", "mine"]).fails(1, "has active endpoints");
        if harm == 0 {
            engine.docker(["network", "create", "mine"]).fails(1, "already exists");
            // Its members are on it as before, and can be put there again.
            let answers = || client::tcp(port, "GET", "/hostname", "", b"").ok().filter(|answer| answer.status == 200);
            eventually("an answer", answers);
            engine.docker(["run", "--rm", "-p", &publish, "busybox", "true"]).fails(125, "port is already allocated");
            ping(&engine);
            engine.docker(["restart", "-t", "0", "cc", "peer"]).stdout();
            eventually("an answer", answers);
            ping(&engine);
            engine.docker(["network", "prune", "-f"]).stdout();
        }
        if harm == 2 {
            engine.docker(["volume", "rm", "disk"]).fails(1, "cannot be read");
            engine.docker(["create", "-v", "disk:/x", "busybox"]).fails(1, "cannot be read");
            engine.docker(["restart", "-t", "0", "cc"]).fails(1, "cannot be read");
        }
        engine.crash();
        exchange(&engine.data_root(), to, from, true);
        engine.come_back();
        if harm == 2 {
            engine.docker(["start", "cc"]).stdout();
        }
        ping(&engine);
        assert_eq!(engine.docker(["exec", "cc", "cat", "/d/kept"]).stdout(), "on the disk\n", "{from}");
    }
    // Whoever wants to be rid of them may: what is mounted there is not removed with it.
    engine.docker(["rm", "-f", "cc", "peer"]).stdout();
    engine.crash();
    for (from, to) in harms {
        exchange(&engine.data_root(), from, to, true);
    }
    engine.come_back();
    engine.docker(["network", "rm", "mine"]).stdout();
    engine.docker(["volume", "rm", "-f", "disk"]).stdout();
    engine.docker(["network", "create", "mine"]).stdout();
    engine.docker(["volume", "create", "disk"]).stdout();
    assert_eq!(std::fs::read_to_string(disk.join("kept")).unwrap(), "on the disk\n");
    engine.finish();
}

#[test]
fn removals_that_were_cut_short_are_carried_out() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["volume", "create", "going"]).stdout();
    engine.docker(["volume", "create", "staying"]).stdout();
    let id = engine.docker(["create", "--name", "going", "busybox"]).stdout().trim().to_owned();
    engine.crash();
    let data = engine.data_root();
    for (folder, name) in [("volumes", "going"), ("containers", id.as_str())] {
        let folder = data.join(folder);
        std::fs::write(folder.join(name).join("file"), "x").unwrap();
        std::fs::rename(folder.join(name), folder.join(".removed").join(name)).unwrap();
    }
    engine.come_back();
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "staying\n");
    assert_eq!(engine.docker(["ps", "-aq"]).stdout(), "");
    for folder in ["volumes", "containers"] {
        assert!(data.join(folder).join(".removed").read_dir().unwrap().next().is_none());
    }
    engine.docker(["create", "--name", "going", "busybox"]).stdout();
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

#[test]
fn a_volume_with_something_mounted_in_it_is_not_removed() {
    let engine = Engine::start();
    let host = engine.folder().join("of the host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("kept"), "x").unwrap();
    engine.docker(["volume", "create", "vv"]).stdout();
    let inside = engine.data_root().join("volumes/vv/_data/inside");
    std::fs::create_dir(&inside).unwrap();
    rustix::mount::mount_bind(&host, &inside).unwrap();
    let told = "something is mounted at";
    engine.docker(["volume", "rm", "vv"]).fails(1, told);
    engine.docker(["volume", "rm", "-f", "vv"]).fails(1, told);
    engine.docker(["volume", "prune", "-af"]).fails(1, told);
    assert!(host.join("kept").exists());
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "vv\n");
    rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::DETACH).unwrap();
    engine.docker(["volume", "rm", "vv"]).stdout();
    assert!(host.join("kept").exists());
    engine.finish();
}

#[test]
fn a_create_that_is_refused_takes_no_folder_that_was_there() {
    let engine = Engine::start();
    engine.load("busybox");
    let folder = engine.data_root().join("volumes/by-hand/_data");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("kept"), "x").unwrap();
    engine.docker(["volume", "create", "ours"]).stdout();
    let mounts = [
        "type=volume,src=by-hand,dst=/v",
        "type=volume,src=ours,dst=/o",
        "type=volume,src=new,dst=/n",
        "type=volume,src=bad,dst=/b,volume-driver=nope",
    ];
    let options = mounts.iter().flat_map(|mount| ["--mount", mount]);
    engine
        .docker(["run", "--pull", "never", "--name", "cc"].into_iter().chain(options).chain(["busybox", "true"]))
        .fails(125, "nope");
    assert!(folder.join("kept").exists());
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "by-hand\nours\n", "only what the create made is gone");
    assert_eq!(engine.docker(["run", "--rm", "-v", "by-hand:/v", "busybox", "ls", "/v"]).stdout(), "kept\n");
    engine.finish();
}

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

/// Everything below `folder` but what containers see of it, which has modes of its own.
fn stored(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        all.push(path.clone());
        let theirs = ["_data", "diff", "work", "layers", "etc", "kv"].iter().any(|name| entry.file_name() == *name);
        if !theirs && entry.file_type().unwrap().is_dir() {
            stored(&path, all);
        }
    }
}

#[test]
fn another_account_of_the_machine_reads_and_runs_nothing_that_is_stored() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("hello", "hello");
    let script = "cp /bin/busybox /v/sh; chmod 4755 /v/sh; echo x > /own; echo said; exec sleep 1000";
    engine
        .docker(["run", "-d", "--name", "cc", "-e", "SECRET=hunter2", "-v", "vv:/v", "busybox", "sh", "-c", script])
        .stdout();
    engine.docker(["run", "-d", "--name", "ww", "--platform", "wasi/wasm", "-p", "80", "hello"]).stdout();
    eventually("it is ready", || (engine.docker(["logs", "cc"]).stdout() == "said\n").then_some(()));
    let data = engine.data_root();
    // Up to the engine's own folders the way is open to all.
    std::fs::set_permissions(engine.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let as_another = |path: &Path, program: &str| {
        let mut command = Command::new(program);
        command.arg(path).uid(65_533).gid(65_533).output().unwrap()
    };
    let look = |engine: &Engine| {
        let planted = data.join("volumes/vv/_data/sh");
        assert_eq!(std::fs::metadata(&planted).unwrap().mode() & 0o7777, 0o4755);
        for (program, path) in [
            ("ls", data.clone()),
            ("ls", data.join("volumes")),
            ("cat", data.join("engine.db")),
            ("cat", data.join("images/images.db")),
            ("stat", planted),
            ("ls", engine.exec_root().join("c")),
        ] {
            let tried = as_another(&path, program);
            assert!(!tried.status.success(), "{program} {}", path.display());
            assert!(
                String::from_utf8_lossy(&tried.stderr).contains("Permission denied"),
                "{program} {}",
                path.display()
            );
        }
        // The first fence apart, each file is closed by itself.
        let mut all = vec![data.clone(), data.join("wasm"), data.join("images")];
        stored(&data, &mut all);
        for path in all {
            let about = path.symlink_metadata().unwrap();
            // What lies in the folder of a workload is its runner's or host's to write, behind a folder that is closed.
            let within = |folder: &str, depth| {
                path.strip_prefix(data.join(folder)).is_ok_and(|rest| rest.components().count() > depth)
            };
            let seen = within("containers", 1) || within("wasm", 0) || path.ends_with("_data");
            let beyond = if within("containers", 0) { 0o007 } else { 0o077 };
            if !about.is_symlink() && !seen {
                assert_eq!(about.mode() & beyond, 0, "{} is open: {:o}", path.display(), about.mode());
            }
        }
    };
    look(&engine);
    // What an older version left open is mended.
    engine.crash();
    for path in ["", "volumes", "containers", "images", "images/blobs", "images/blobs/sha256", "wasm"] {
        std::fs::set_permissions(data.join(path), std::fs::Permissions::from_mode(0o711)).unwrap();
    }
    let blobs = data.join("images/blobs/sha256").read_dir().unwrap().flatten().map(|entry| entry.path());
    for path in blobs.chain(["engine.db", "engine.db-wal", "images/images.db"].map(|name| data.join(name))) {
        if path.exists() {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
    engine.come_back();
    look(&engine);
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

fn copy_folder(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_start_that_an_engine_was_killed_over_runs_once_below_a_parent_of_its_own() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let parent = format!("/bmparent-{}", std::process::id());
    let args =
        ["create", "--name", "cc", "--cgroup-parent", &parent, "busybox", "sh", "-c", "echo up; exec sleep 1000"];
    let id = engine.docker(args).stdout().trim().to_owned();
    // As if the engine had been killed before it remembered the start: it knows what it knew before.
    engine.crash();
    let (data, old) = (engine.data_root(), engine.folder().join("old"));
    std::fs::create_dir(&old).unwrap();
    let saved = ["engine.db", "engine.db-wal", "records"];
    for name in saved {
        if data.join(name).exists() {
            copy_folder(&data.join(name), &old.join(name));
        }
    }
    engine.come_back();
    engine.docker(["start", "cc"]).stdout();
    let sleeping = || {
        let all = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| std::fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|text| text.contains(&id)));
        all.count()
    };
    eventually("it runs", || (engine.docker(["logs", "cc"]).stdout() == "up\n" && sleeping() == 1).then_some(()));
    engine.crash();
    lose(&data);
    std::fs::remove_dir_all(data.join("records")).unwrap();
    for name in saved {
        if old.join(name).exists() {
            copy_folder(&old.join(name), &data.join(name));
        }
    }
    engine.come_back();
    assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}}", "cc"]).stdout(), "created\n");
    eventually("the stranger is ended", || (sleeping() == 0).then_some(()));
    engine.docker(["start", "cc"]).stdout();
    assert_eq!(sleeping(), 1, "it runs once");
    engine.docker(["rm", "-f", "cc"]).stdout();
    engine.finish();
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(entry.path().join(parent.trim_start_matches('/')));
    }
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(parent.trim_start_matches('/')));
}

#[test]
fn nothing_goes_from_under_a_container_that_is_being_created() {
    let engine = Engine::start();
    engine.load("busybox");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                engine.request("POST", "/volumes/prune", &[]);
            }
        });
        for round in 0..25 {
            let name = format!("c{round}");
            let mounts = ["-v", "/a", "-v", "/b", "-v", "/c", "-v", "/d"];
            let all = [&["create", "--name", &name][..], &mounts, &["busybox"]].concat();
            engine.docker(all).stdout();
            let format = "{{range .Mounts}}{{.Name}} {{end}}";
            let names = engine.docker(["inspect", "-f", format, &name]).stdout().to_owned();
            for volume in names.split_whitespace() {
                let there = engine.data_root().join("volumes").join(volume).join("_data").is_dir();
                assert!(there, "round {round}: {volume} was pruned while its container was created");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        pruner.join().unwrap();
    });
    engine.finish();
}

#[test]
fn what_a_create_that_was_cut_short_made_for_itself_goes() {
    let mut engine = Engine::start();
    let made = |engine: &Engine| engine.docker(["volume", "create"]).stdout().trim().to_owned();
    let (own, others) = (made(&engine), made(&engine));
    engine.docker(["volume", "create", "named"]).stdout();
    engine.crash();
    let note = engine.data_root().join("creating").join("e".repeat(64));
    std::fs::write(&note, format!("{own}\nnamed\n../../escape\n")).unwrap();
    engine.come_back();
    let mut left = [others, "named".to_owned()];
    left.sort_unstable();
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout().lines().collect::<Vec<_>>(), left);
    assert!(!note.exists());
    engine.finish();
}

#[test]
fn one_volume_that_cannot_go_keeps_no_other() {
    let engine = Engine::start();
    let host = engine.folder().join("of the host");
    std::fs::create_dir(&host).unwrap();
    for name in ["aa", "bb", "cc"] {
        engine.docker(["volume", "create", name]).stdout();
    }
    let inside = engine.data_root().join("volumes/bb/_data/inside");
    std::fs::create_dir(&inside).unwrap();
    rustix::mount::mount_bind(&host, &inside).unwrap();
    engine.docker(["volume", "prune", "-af"]).fails(1, "2 volumes were removed, 1 stay: remove bb");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "bb\n");
    rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::DETACH).unwrap();
    engine.docker(["volume", "prune", "-af"]).stdout();
    engine.finish();
}

#[test]
fn a_network_that_cannot_be_made_costs_no_other() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let bridge = format!("bx{}", engine.instance());
    let peer = format!("by{}", engine.instance());
    let option = format!("com.docker.network.bridge.name={bridge}");
    engine.docker(["network", "create", "-o", &option, "taken"]).stdout();
    engine.docker(["create", "--name", "cc", "--network", "taken", "busybox", "true"]).stdout();
    engine.docker(["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).stdout();
    engine.crash();
    let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success(), "{args:?}");
    ip(&["link", "del", &bridge]);
    ip(&["link", "add", &bridge, "type", "veth", "peer", "name", &peer]);
    engine.come_back();
    assert!(engine.daemon_log().contains("a network cannot be made and is left out"));
    assert_eq!(engine.docker(["exec", "other", "echo", "on"]).stdout(), "on\n");
    engine.docker(["start", "cc"]).fails(1, "network taken could not be made and is left out");
    ip(&["link", "del", &bridge]);
    engine.docker(["start", "cc"]).stdout();
    engine.docker(["rm", "-f", "cc"]).stdout();
    engine.crash();
    ip(&["link", "del", &bridge]);
    ip(&["link", "add", &bridge, "type", "veth", "peer", "name", &peer]);
    engine.come_back();
    engine.docker(["network", "rm", "taken"]).stdout();
    ip(&["link", "del", &bridge]);
    engine.finish();
}

#[test]
fn an_exec_root_has_one_engine() {
    let engine = Engine::start();
    let other = engine.folder().join("other data");
    let socket = format!("unix://{}", engine.folder().join("other").display());
    let mut second = Command::new(bireme_testing::binaries().join("biremed"));
    second.arg("--data-root").arg(&other).arg("--exec-root").arg(engine.exec_root()).args(["-H", &socket]);
    let refused = second.output().unwrap();
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("another engine (process") && told.contains("a --exec-root of its own"), "{told}");
    engine.finish();
}

#[test]
fn what_a_shell_left_open_does_not_go_on_to_runners() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).stdout();
    let holds = |pid: u32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.flat_map(|fd| std::fs::read_link(fd.path())).any(|target| target == secret.path())
    };
    assert!(holds(engine.pid()), "the engine was started with it");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let started = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        name.starts_with("bireme-runner") || name.contains("bireme-wasm-host")
    });
    let started: Vec<u32> = started.collect();
    assert!(!started.is_empty());
    for pid in started {
        assert!(!holds(pid), "process {pid} has it");
    }
    engine.finish();
}

/// Where paths were remembered, an engine on a copy would write into the volumes and containers of the other, and one whose
/// folder was moved would find nothing.
#[test]
fn a_data_root_that_was_copied_or_moved_is_its_own() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let run = ["run", "--name", "cc", "-v", "vv:/d", "-v", "/anonymous", "busybox", "sh", "-c"];
    engine.docker(run.iter().chain(&["echo precious > /d/f; echo own > /own; echo said"])).stdout();
    engine.crash();
    let (here, copy) = (engine.data_root(), engine.folder().join("copy"));
    assert!(Command::new("cp").arg("-a").args([&here, &copy]).status().unwrap().success());
    let moved = engine.folder().join("moved");
    std::fs::rename(&here, &moved).unwrap();
    // The copy is called as the original was, which is still there.
    std::fs::rename(&copy, &here).unwrap();
    let other = Engine::on(&moved);
    let mountpoint = other.docker(["volume", "inspect", "-f", "{{.Mountpoint}}", "vv"]).stdout().trim().to_owned();
    assert_eq!(std::fs::canonicalize(&mountpoint).unwrap(), moved.join("volumes/vv/_data").canonicalize().unwrap());
    assert_eq!(other.docker(["logs", "cc"]).stdout(), "said\n");
    other.docker(["run", "--rm", "-v", "vv:/d", "busybox", "sh", "-c", "rm /d/*; echo gone > /d/f"]).stdout();
    other.docker(["start", "-a", "cc"]).stdout();
    other.docker(["cp", other.data_root().join("engine.db").to_str().unwrap(), "cc:/planted"]).stdout();
    assert_eq!(std::fs::read_to_string(here.join("volumes/vv/_data/f")).unwrap(), "precious\n");
    let planted = |root: &Path| {
        let containers = std::fs::read_dir(root.join("containers")).unwrap().flatten();
        containers.filter(|one| one.path().join("diff/planted").exists()).count()
    };
    assert_eq!((planted(&here), planted(&moved)), (0, 1));
    other.docker(["commit", "cc", "kept"]).stdout();
    other.docker(["rm", "-v", "cc"]).stdout();
    other.finish();
    engine.come_back();
    assert_eq!(engine.docker(["run", "--rm", "-v", "vv:/d", "busybox", "cat", "/d/f"]).stdout(), "precious\n");
    engine.docker(["rm", "-v", "cc"]).stdout();
    engine.finish();
}
