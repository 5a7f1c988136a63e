//! SQLite as Spin's SDKs speak it.

use crate::common::{Deployed, Rig, send};

fn ask(deployed: &Deployed, database: &str, statements: &str) -> Vec<String> {
    let length = statements.len();
    let request = format!(
        "POST /sql?{database} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{statements}"
    );
    let answer = send(deployed.address, &request).unwrap();
    assert_eq!(answer.status, 200, "{} {}", answer.body, deployed.log());
    answer.body.lines().map(|line| line.replace("Value::", "").replace("Error::", "")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_keeps_what_is_written() {
    let rig = Rig::new();
    let labels = [("bireme.sqlite", "default,other")];
    let deployed = rig.run(rig.spec("spin2", &labels), "spin2").await;
    let said = ask(
        &deployed,
        "default",
        "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)\n\
         INSERT INTO t (name) VALUES (?) | a name\n\
         INSERT INTO t (name) VALUES (NULL), ('two')\n\
         SELECT id, name, 1.5 AS half, x'00ff' AS bytes FROM t ORDER BY id\n\
         SELECT * FROM nowhere\n\
         SELECT ?, ?\n",
    );
    assert_eq!(said[0], "[] []");
    assert_eq!(
        said[3],
        "[\"id\", \"name\", \"half\", \"bytes\"] [[Integer(1), Text(\"a name\"), Real(1.5), Blob([0, 255])], [Integer(2), Null, \
         Real(1.5), Blob([0, 255])], [Integer(3), Text(\"two\"), Real(1.5), Blob([0, 255])]]"
    );
    assert!(said[4].contains("Io(\"no such table: nowhere"), "{}", said[4]);
    assert!(said[5].contains("Io(\""), "{}", said[5]);
    assert_eq!(said[6], "2 3");
    // Of another instance, and of another database.
    assert_eq!(ask(&deployed, "default", "SELECT count(*) FROM t")[0], "[\"count(*)\"] [[Integer(3)]]");
    assert!(ask(&deployed, "other", "SELECT count(*) FROM t")[0].contains("no such table"));
    assert_eq!(ask(&deployed, "third", "SELECT 1"), ["AccessDenied"]);
    deployed.logged("the database third is not permitted; add it to bireme.sqlite");
    // What is not committed is not kept.
    ask(&deployed, "default", "BEGIN\nDELETE FROM t");
    assert_eq!(ask(&deployed, "default", "SELECT count(*) FROM t")[0], "[\"count(*)\"] [[Integer(3)]]");

    let third = rig.run(rig.spec("spin3", &labels), "spin3").await;
    assert_eq!(third.get("/sql?default").body, "[\"n\", \"t\"] 3 1");
    assert!(third.get("/sql?none").body.contains("AccessDenied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_reach_nothing_else_and_end() {
    let rig = Rig::new();
    let mut spec = rig.spec("spin2", &[("bireme.sqlite", "default"), ("bireme.timeout", "2s")]);
    spec.resources.memory = Some(32 << 20);
    let deployed = rig.run(spec, "spin2").await;
    for statement in [
        "ATTACH DATABASE '/kv/default.sqlite' AS other",
        "ATTACH DATABASE ':memory:' AS other",
        "VACUUM INTO '/kv/copy.db'",
        "PRAGMA max_page_count = 1000000000",
        "PRAGMA journal_mode = OFF",
        "PRAGMA hard_heap_limit = 0",
        "PRAGMA temp_store_directory = '/kv'",
        "PRAGMA writable_schema = 1",
        "SELECT load_extension('/kv/x.so')",
        "CREATE VIRTUAL TABLE v USING fts5(a)",
    ] {
        let said = ask(&deployed, "default", statement);
        assert!(said[0].contains("Io("), "{statement}: {}", said[0]);
    }
    assert!(ask(&deployed, "default", "PRAGMA user_version")[0].contains("[[Integer(0)]]"));
    // More than its memory, by whoever makes it.
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let many = format!("{endless} SELECT hex(zeroblob(1000)) FROM n LIMIT 1000000");
    assert!(ask(&deployed, "default", &many)[0].contains("it may have 32 MiB"));
    let large = ask(&deployed, "default", "SELECT length(zeroblob(1000000000))");
    assert!(large[0].contains("too big"), "{}", large[0]);
    // For ever: ended with its request, and the next finds a database and a thread.
    let forever = format!("{endless} SELECT count(*) FROM n");
    let request = format!(
        "POST /sql?default HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{forever}",
        forever.len()
    );
    let asked = std::time::Instant::now();
    assert_eq!(send(deployed.address, &request).unwrap().status, 504);
    assert!(asked.elapsed() < std::time::Duration::from_secs(10));
    for _ in 0..8 {
        assert!(ask(&deployed, "default", "SELECT 1")[0].contains("[[Integer(1)]]"));
    }
    // No thread of the process is at it any more.
    let pid = deployed.workload.pid().unwrap();
    let spent = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    crate::common::until("an idle process", || {
        let before = spent();
        std::thread::sleep(std::time::Duration::from_millis(500));
        spent() - before < 10
    });
    // What would take a call within a call for each statement, and the product of two lengths.
    let said = ask(&deployed, "default", &"END;".repeat(100_000));
    assert!(said[0].contains("there are several statements"), "{}", said[0]);
    let text = "hex(zeroblob(4000000))";
    let said =
        ask(&deployed, "default", &format!("SELECT instr({text}, {text} || 'x'), length(replace({text}, '00', 'a'))"));
    assert!(said[0].contains("[[Integer(0), Integer(4000000)]]"), "{}", said[0]);
    let said = ask(
        &deployed,
        "default",
        "SELECT instr('höhe', 'h'), instr('höhe', 'he'), instr(NULL, 'x'), replace('aXbX', 'X', 1.5)",
    );
    assert!(said[0].contains("[[Integer(1), Integer(3), Null, Text(\"a1.5b1.5\")]]"), "{}", said[0]);
    let pattern = "%a".repeat(2000);
    assert!(ask(&deployed, "default", &format!("SELECT 'b' LIKE '{pattern}'"))[0].contains("too complex"));
}
