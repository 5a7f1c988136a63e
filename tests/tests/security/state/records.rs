//! Records that cannot be read, or say something else than was written: a damaged disk, and what another engine wrote.

use std::path::Path;

use bireme_testing::{Engine, client, eventually, free_port};

use super::checkpoint;

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
