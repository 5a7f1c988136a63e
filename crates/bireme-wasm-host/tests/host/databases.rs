//! PostgreSQL, MySQL and MQTT as Spin's SDKs speak them, against real servers.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::advisories::bind;
use crate::common::{Answer, Deployed, Rig, send, until};
use crate::servers::{Server, mariadb, mosquitto, postgres};

fn post(deployed: &Deployed, path: &str, body: &str) -> Answer {
    let length = body.len();
    let request =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    send(deployed.address, &request).unwrap()
}

/// What the guest says to each line of `body`, without the paths of Rust's names.
fn ask(deployed: &Deployed, path: &str, body: &str) -> Vec<String> {
    let answer = post(deployed, path, body);
    assert_eq!(answer.status, 200, "{} {}", answer.body, deployed.log());
    answer.body.lines().map(|line| line.replace("DbValue::", "").replace("DbDataType::", "")).collect()
}

/// A guest whose environment names the certificate of `server`.
async fn trusting(rig: &Rig, server: &Server, allow: &str) -> Deployed {
    let mut spec = rig.spec("trusting", &[("bireme.allow", allow)]);
    let folder = rig.dir.path().join("authority");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(server.folder.path().join("server.crt"), folder.join("ca.pem")).unwrap();
    spec.mounts = vec![bind(&folder, "/authority", true)];
    spec.env = vec!["SSL_CERT_FILE=/authority/ca.pem".to_owned()];
    rig.run(spec, "spin2").await
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_what_is_written_and_tells_types() {
    let (rig, server) = (Rig::new(), postgres());
    let port = server.port;
    let labels = [("bireme.allow", &*format!("postgres://127.0.0.1:{port},postgresql://localhost:{port}"))];
    let deployed = rig.run(rig.spec("spin2", &labels), "spin2").await;
    // Its certificate is nobody's: as with a server that has none.
    let path = format!("/postgres?postgres://me:p%40ss@127.0.0.1:{port}/postgres");
    let said = ask(
        &deployed,
        &path,
        "CREATE TABLE t (id SERIAL PRIMARY KEY, name VARCHAR(20), at DATE, price NUMERIC(10,2), id2 UUID, j JSONB, tags TEXT[])\n\
         INSERT INTO t (name, at, price, id2, j, tags) VALUES ($1, $2, $3, $4, $5, $6) | text:a name | date:2026 | decimal:-12.50 | uuid:00000000-0000-0000-0000-00000000002a | json:{\"a\": 1} | texts:x,y\n\
         INSERT INTO t (name) VALUES ($1), ('two') | null\n\
         SELECT id, name, at, price, id2, j, tags FROM t WHERE id = $1 | int:1\n\
         SELECT name, true AS yes, 1.5::float8 AS half, '\\x00ff'::bytea AS bytes, 'a'::\"char\" AS c, '10.0.0.1'::inet AS net FROM t WHERE id = 2\n\
         SELECT '2026-01-02 03:04:05.006+02'::timestamptz AS at, int4range(1, 5) AS r, '1 mon 2 days 3 seconds'::interval AS i, '{1,NULL}'::bigint[] AS n\n\
         SELECT * FROM nowhere\n\
         SELECT $1::int | text\n\
         SELECT $1::int\n\
         UPDATE t SET name = 'x'",
    );
    assert_eq!(said[..3], ["Ok(0)", "Ok(1)", "Ok(2)"]);
    for part in [
        "name: \"price\", data-type: Decimal",
        "[Int32(1), Str(\"a name\"), Date((2026, 2, 28)), Decimal(\"-12.50\"), \
         Uuid(\"00000000-0000-0000-0000-00000000002a\"), Jsonb([123, 34, 97, 34, 58, 32, 49, 125]), ",
        "ArrayStr([Some(\"x\"), Some(\"y\")])",
    ] {
        assert!(said[3].contains(part), "{part}: {}", said[3]);
    }
    for part in
        ["[DbNull, Boolean(true), Floating64(1.5), Binary([0, 255]), Int8(97), Unsupported([", "Other(\"inet\")"]
    {
        assert!(said[4].contains(part), "{part}: {}", said[4]);
    }
    for part in [
        "Datetime((2026, 1, 2, 1, 4, 5, 6000000))",
        "RangeInt32((Some((1, RangeBoundKind::Inclusive)), Some((5, RangeBoundKind::Exclusive))))",
        "Interval { micros: 3000000, days: 2, months: 1 }",
        "ArrayInt64([Some(1), None])",
    ] {
        assert!(said[5].contains(part), "{part}: {}", said[5]);
    }
    for part in ["QueryFailed", "code: \"42P01\"", "relation \\\"nowhere\\\" does not exist"] {
        assert!(said[6].contains(part), "{part}: {}", said[6]);
    }
    assert!(said[7].contains("BadParameter(\"parameter 1: a text is no value for the type int4"), "{}", said[7]);
    assert!(said[8].contains("BadParameter(\"the statement takes 1 parameters, and 0 were given"), "{}", said[8]);
    assert_eq!(said[9], "Ok(3)");
    // The interface of before, with fewer types.
    let path = format!("/postgres2?postgresql://me:p%40ss@localhost:{port}/postgres?sslmode=disable");
    let said = ask(&deployed, &path, "SELECT id, name, at FROM t WHERE id = $1 | int:1\nSELECT $1::int | unsigned:1");
    assert!(said[0].contains("[[Int32(1), Str(\"x\"), Unsupported]]"), "{}", said[0]);
    assert!(said[1].contains("BadParameter(\"PostgreSQL has no unsigned integers"), "{}", said[1]);

    let third = rig.run(rig.spec("spin3", &labels), "spin3").await;
    let answer = third.get(&format!("/postgres?postgres://me:p%40ss@127.0.0.1:{port}/postgres"));
    assert_eq!(answer.body, "3 [\"n\", \"t\"] 3 Some(3)", "{}", third.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_with_postgres_are_kept_but_nothing_of_their_guests_is() {
    let (rig, server) = (Rig::new(), postgres());
    let port = server.port;
    let allow = format!("postgres://127.0.0.1:{port},postgres://localhost:{port}");
    let mut spec = rig.spec("spin2", &[("bireme.allow", &allow), ("bireme.timeout", "2s")]);
    spec.resources.memory = Some(32 << 20);
    let deployed = rig.run(spec, "spin2").await;
    let path = format!("/postgres?postgres://me:p%40ss@127.0.0.1:{port}/postgres");
    ask(
        &deployed,
        &path,
        "SELECT pg_backend_pid()\nCREATE TABLE t (n int)\nBEGIN\nINSERT INTO t VALUES (1)\nSET search_path = nowhere\n\
         CREATE TEMPORARY TABLE gone (n int)\nSELECT pg_advisory_lock(1)",
    );
    // The next instances find the same session, and nothing in it.
    let mut before = String::new();
    until("the session of the one before", || {
        let statements =
            "SELECT pg_backend_pid()\nSELECT count(*)::int FROM t\nSELECT * FROM gone\nSELECT pg_try_advisory_lock(1)";
        let said = ask(&deployed, &path, statements);
        assert!(said[1].contains("[[Int32(0)]]"), "what was not committed is gone: {}", said[1]);
        assert!(said[2].contains("does not exist"), "{}", said[2]);
        // The lock of the last may be held for as long as its session is being made as new.
        let is_same = said[0] == before && said[3].contains("Boolean(true)");
        before.clone_from(&said[0]);
        is_same
    });
    // A statement without end is ended with its request, also at the server.
    let asked = Instant::now();
    assert_eq!(post(&deployed, &path, "SELECT pg_sleep(600)").status, 504);
    assert!(asked.elapsed() < Duration::from_secs(10));
    until("a server that is done", || {
        let sleeping = "SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
        ask(&deployed, &path, sleeping)[0].contains("[[Int32(0)]]")
    });
    // More than its memory, as many rows and as one.
    let many = ask(&deployed, &path, "SELECT repeat('x', 1000) FROM generate_series(1, 100000)");
    assert!(many[0].contains("it may have 32 MiB"), "{}", many[0]);
    let large = ask(&deployed, &path, "SELECT repeat('x', 100000000)");
    assert!(large[0].contains("a message of more than 8 MiB"), "{}", large[0]);
    assert!(ask(&deployed, &path, "SELECT 1")[0].contains("[[Int32(1)]]"));
    // A server that was away.
    let answer = ask(
        &deployed,
        &path,
        "SELECT count(pg_terminate_backend(pid))::int FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
    );
    assert!(answer[0].contains("Int32("), "{}", answer[0]);
    for _ in 0..3 {
        assert!(ask(&deployed, &path, "SELECT 2")[0].contains("[[Int32(2)]]"));
    }
    // By TLS or not at all, and with a password that is none.
    let refused = |query: &str| ask(&deployed, &format!("/postgres?postgres://{query}"), "SELECT 1").join(" ");
    let text = refused(&format!("me:p%40ss@localhost:{port}/postgres?sslmode=require"));
    assert!(text.contains("ConnectionFailed(\"localhost cannot be trusted"), "{text}");
    let text = refused(&format!("me:wrong@127.0.0.1:{port}/postgres"));
    assert!(text.contains("password authentication failed"), "{text}");
    let text = refused("me:p%40ss@127.0.0.1:1/postgres");
    assert!(
        text.contains("ConnectionFailed(\"postgres://127.0.0.1:1 is not permitted; add it to bireme.allow\")"),
        "{text}"
    );
    deployed.logged("postgres://127.0.0.1:1 is not permitted");
    assert!(!deployed.log().contains("p%40ss"), "no password is in the log");
    assert!(refused("127.0.0.1/postgres").contains("the address names no user"));

    // Whom the certificate of the server certifies, the guest may say itself, and its environment.
    let trusting = trusting(&rig, &server, &allow).await;
    let path = format!("/postgres?postgres://me:p%40ss@localhost:{port}/postgres?sslmode=require");
    let said = ask(&trusting, &path, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    assert!(said[0].contains("[[Boolean(true)]]"), "{}", said[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_keeps_what_is_written_and_nothing_of_its_guests_sessions() {
    let (rig, server) = (Rig::new(), mariadb());
    let port = server.port;
    let allow = format!("mysql://127.0.0.1:{port},mysql://localhost:{port}");
    let mut spec = rig.spec("spin2", &[("bireme.allow", &allow), ("bireme.timeout", "2s")]);
    spec.resources.memory = Some(32 << 20);
    let deployed = rig.run(spec, "spin2").await;
    let path = format!("/mysql?mysql://me:p%40ss@127.0.0.1:{port}/base");
    // What the server does at its first start may take a moment longer than listening.
    until("the user and the database", || ask(&deployed, &path, "SELECT 1")[0].contains("Int32(1)"));
    let said = ask(
        &deployed,
        &path,
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20), big BIGINT UNSIGNED, small TINYINT, bytes BLOB, ratio DOUBLE, at DATE, price DECIMAL(10,2))\n\
         INSERT INTO t (name, big, small, bytes, ratio, at, price) VALUES (?, ?, ?, ?, ?, '2026-01-02', 1.50) | text:a näme | unsigned:18446744073709551615 | int:-1 | bytes:xy | float:0.5\n\
         INSERT INTO t (name) VALUES (?) | null\n\
         SELECT id, name, big, small, bytes, ratio, at, price FROM t ORDER BY id\n\
         SELECT * FROM nowhere\n\
         SELECT ?\n\
         SELECT 1 FROM t WHERE name = ? | text:no such",
    );
    assert_eq!(said[..3], ["Ok(())", "Ok(())", "Ok(())"]);
    for part in [
        "Column { name: \"big\", data-type: Uint64 }, Column { name: \"small\", data-type: Int8 }, \
         Column { name: \"bytes\", data-type: Binary }",
        "[Int32(1), Str(\"a näme\"), Uint64(18446744073709551615), Int8(-1), Binary([120, 121]), Floating64(0.5), \
         Unsupported, Unsupported]",
        "[Int32(2), DbNull, DbNull, DbNull, DbNull, DbNull, DbNull, DbNull]",
    ] {
        assert!(said[3].contains(part), "{part}: {}", said[3]);
    }
    assert!(said[4].contains("QueryFailed(\"ERROR 1146 (42S02): Table 'base.nowhere' doesn't exist"), "{}", said[4]);
    assert!(said[5].contains("BadParameter(\"the statement takes 1 parameters, and 0 were given"), "{}", said[5]);
    assert!(said[6].ends_with("[]"), "{}", said[6]);
    // Several answers at once, of which the first counts; statements that cannot be prepared.
    let said = ask(
        &deployed,
        &path,
        "CREATE PROCEDURE two() BEGIN SELECT 1 AS a; SELECT 2 AS b; END\nSHOW DATABASES\nCALL two()\nSELECT 3",
    );
    assert!(said[1].contains("Str(\"base\")"), "{}", said[1]);
    assert_eq!((said[0].as_str(), said[2].as_str()), ("Ok(())", "Ok(())"));
    assert!(said[3].contains("[[Int32(3)]]"), "{}", said[3]);
    // The next instances find the same session, and nothing in it.
    ask(&deployed, &path, "START TRANSACTION\nDELETE FROM t\nCREATE TEMPORARY TABLE gone (n INT)\nSET @mine = 1");
    let mut before = String::new();
    until("the session of the one before", || {
        let said =
            ask(&deployed, &path, "SELECT CONNECTION_ID()\nSELECT COUNT(*) FROM t\nSELECT * FROM gone\nSELECT @mine");
        assert!(said[1].contains("[[Int64(2)]]"), "what was not committed is gone: {}", said[1]);
        assert!(said[2].contains("1146"), "{}", said[2]);
        assert!(said[3].contains("[[DbNull]]"), "{}", said[3]);
        let is_same = said[0] == before;
        before.clone_from(&said[0]);
        is_same
    });
    // Ended with its request, also at the server.
    assert_eq!(post(&deployed, &path, "SELECT SLEEP(600)").status, 504);
    until("a server that is done", || {
        let sleeping = "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'";
        ask(&deployed, &path, sleeping)[0].contains("[[Int64(0)]]")
    });
    let many = ask(&deployed, &path, "SELECT REPEAT('x', 1000) FROM seq_1_to_100000");
    assert!(many[0].contains("it may have 32 MiB"), "{}", many[0]);
    let large = ask(&deployed, &path, "SELECT REPEAT('x', 10000000)");
    assert!(large[0].contains("a packet of more than 8 MiB"), "{}", large[0]);
    let file = ask(&deployed, &path, "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t");
    assert!(file[0].contains("Err("), "{}", file[0]);
    assert!(ask(&deployed, &path, "SELECT 1")[0].contains("[[Int32(1)]]"));

    let refused = |query: &str| ask(&deployed, &format!("/mysql?{query}"), "SELECT 1").join(" ");
    assert!(refused(&format!("mysql://me:no@127.0.0.1:{port}/base")).contains("ERROR 1045"));
    assert!(refused("mysql://me:no@127.0.0.1:1/base").contains("mysql://127.0.0.1:1 is not permitted"));
    assert!(refused("nonsense").contains("the address is not mysql://"));
    let text = refused(&format!("mysql://me:p%40ss@localhost:{port}/base?ssl-mode=REQUIRED"));
    assert!(text.contains("localhost cannot be trusted"), "{text}");

    let trusting = trusting(&rig, &server, &allow).await;
    let path = format!("/mysql?mysql://me:p%40ss@localhost:{port}/base?ssl-mode=REQUIRED");
    let said = ask(&trusting, &path, "SHOW STATUS LIKE 'Ssl_version'");
    assert!(said[0].contains("TLSv1."), "{}", said[0]);

    let third = rig.run(rig.spec("spin3", &[("bireme.allow", &allow)]), "spin3").await;
    let answer = third.get(&format!("/mysql?mysql://me:p%40ss@127.0.0.1:{port}/base"));
    assert_eq!(answer.body, "[\"n\", \"t\"] 3 Some(3)", "{}", third.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_reach_a_broker_as_surely_as_they_ask() {
    let (rig, server, open) = (Rig::new(), mosquitto(true), mosquitto(false));
    let port = server.port;
    let mut subscriber = Command::new("stdbuf")
        .args([
            "-oL",
            "mosquitto_sub",
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-u",
            "me",
            "-P",
            "p@ss",
            "-t",
            "news/#",
            "-q",
            "2",
        ])
        .args(["-F", "%t %q %p", "-d"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines().map_while(Result::ok);
    lines.find(|line| line.contains("Subscribed")).unwrap();
    let allow = format!("mqtt://127.0.0.1:{port},mqtt://127.0.0.1:{}", open.port);
    let deployed = rig.run(rig.spec("spin2", &[("bireme.allow", &allow)]), "spin2").await;
    let body = "news/a 0 at most\nnews/b 1 at least\nnews/c 2 exactly\nnews/# 1 nowhere";
    let said = ask(&deployed, &format!("/mqtt?mqtt://127.0.0.1:{port}?client_id=me,me:p@ss"), body);
    assert_eq!(said[..3], ["Ok(())", "Ok(())", "Ok(())"]);
    assert!(said[3].contains("cannot be published"), "{}", said[3]);
    let mut heard: Vec<String> = Vec::new();
    while heard.len() < 3 {
        heard.extend(lines.next().filter(|line| line.starts_with("news/")));
    }
    assert_eq!(heard, ["news/a 0 at most", "news/b 1 at least", "news/c 2 exactly"]);
    subscriber.kill().unwrap();
    subscriber.wait().unwrap();

    let refused = |query: &str| ask(&deployed, &format!("/mqtt?{query}"), "a 0 b").join(" ");
    assert!(refused(&format!("mqtt://127.0.0.1:{port},me:wrong")).contains("refuses the connection"));
    assert!(
        refused("mqtt://127.0.0.1:1").contains("ConnectionFailed(\"address mqtt://127.0.0.1:1 is not permitted\")")
    );
    assert!(refused("http://127.0.0.1").contains("InvalidAddress"));
    let third = rig.run(rig.spec("spin3", &[("bireme.allow", &allow)]), "spin3").await;
    assert_eq!(third.get(&format!("/mqtt?mqtt://127.0.0.1:{}", open.port)).body, "published", "{}", third.log());
}

/// Answers everything with `bytes`, without end.
fn flood(bytes: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 64]);
                while stream.write_all(bytes).is_ok() {}
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_lie_are_left() {
    let rig = Rig::new();
    let deployed = rig.run(rig.spec("spin2", &[("bireme.allow", "127.0.0.1:*")]), "spin2").await;
    let floods: [&[u8]; 4] = [b"S", b"R\0\0\0\x08\0\0\0\0", b"\xff\xff\xff\xff", &[0x20, 0x02, 0, 0]];
    std::thread::scope(|scope| {
        for port in floods.map(flood) {
            for address in [
                format!("/postgres?postgres://me:x@127.0.0.1:{port}/postgres"),
                format!("/postgres?postgres://me:x@127.0.0.1:{port}/postgres?sslmode=disable"),
                format!("/mysql?mysql://me:x@127.0.0.1:{port}/base"),
                format!("/mqtt?mqtt://127.0.0.1:{port}"),
            ] {
                let deployed = &deployed;
                scope.spawn(move || {
                    let answer = post(deployed, &address, "a 1 b");
                    assert!(matches!(answer.status, 200 | 500), "{address}: {answer:?}");
                });
            }
        }
    });
    assert!(crate::common::host_peak(&rig) < 400, "{} MiB", crate::common::host_peak(&rig));
    assert!(deployed.get("/nothing").body.contains("no /nothing here"));
}
