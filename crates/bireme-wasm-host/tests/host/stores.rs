//! Key-value stores, Redis and variables as Spin's SDKs speak them, against a real Redis server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::common::{LIMIT, Rig, get, until};

/// A Redis server on a port of its own.
pub(crate) struct Redis {
    port: u16,
    process: Child,
}

impl Redis {
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self { port, process: Self::spawn(port) }
    }

    fn spawn(port: u16) -> Child {
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        until("redis-server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        process
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends one command and answers the first line that comes back.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut text = format!("*{}\r\n", words.len());
        for word in words {
            text.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(text.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next().unwrap().unwrap();
        if first.starts_with('$') && first != "$-1" { lines.next().unwrap().unwrap() } else { first }
    }

    pub(crate) fn restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = Self::spawn(self.port);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_keep_their_values_and_are_named_by_labels() {
    let rig = Rig::new();
    let redis = Redis::start();
    let stores = format!("default,shared={}", redis.url());
    for guest in ["spin2", "spin3"] {
        let labels = [("bireme.kv", stores.as_str())];
        let deployed = rig.run(rig.spec(guest, &labels), guest).await;
        assert_eq!(deployed.get("/count").body, "1 of [\"count\"]");
        assert_eq!(deployed.get("/count").body, "2 of [\"count\"]");
        assert_eq!(deployed.get("/count?shared").body, "1 of [\"count\"]");
        assert_eq!(redis.command(&["GET", "count"]), "1");
        redis.command(&["DEL", "count"]);
        let unknown = deployed.get("/count?other");
        assert!(unknown.status == 500 || unknown.body.contains("AccessDenied"), "{unknown:?}");
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_are_the_environment() {
    let rig = Rig::new();
    for guest in ["spin2", "spin3"] {
        let mut spec = rig.spec(guest, &[]);
        spec.env = vec!["GREETING=hi".to_owned()];
        let deployed = rig.run(spec, guest).await;
        assert_eq!(deployed.get("/variable?greeting").body, "hi");
        let missing = deployed.get("/variable?other");
        assert!(missing.status == 500 || missing.body.contains("Undefined"), "{missing:?}");
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_redis_client_reaches_only_what_is_permitted() {
    let rig = Rig::new();
    let redis = Redis::start();
    let url = redis.url();
    let denied = rig.run(rig.spec("denied", &[]), "spin2").await;
    assert_eq!(denied.get(&format!("/redis?{url}")).status, 500);
    denied.logged("is not permitted; add it to bireme.allow");
    denied.workload.delete().await.unwrap();
    let labels = [("bireme.allow", url.as_str())];
    let two = rig.run(rig.spec("two", &labels), "spin2").await;
    let answer = two.get(&format!("/redis?{url}"));
    assert_eq!(answer.body, "Some(5) 1 2 [RedisResult::Binary([104, 105])]", "{answer:?}");
    two.workload.delete().await.unwrap();
    let three = rig.run(rig.spec("three", &labels), "spin3").await;
    assert_eq!(three.get(&format!("/redis?{url}")).body, "Some(5) 1");
    three.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_start_instances_and_survive_a_restart_of_the_server() {
    let rig = Rig::new();
    let mut redis = Redis::start();
    let url = redis.url();
    let subscribe = format!("{url}/orders");
    let labels = [("bireme.redis.subscribe", subscribe.as_str()), ("bireme.allow", url.as_str())];
    for (guest, key, seen) in [("inbound-redis2", "got", "LLEN"), ("inbound-redis3", "seen3", "GET")] {
        let mut spec = rig.spec(guest, &labels);
        spec.env = vec![format!("REDIS={url}")];
        let deployed = rig.run(spec, guest).await;
        until("a subscriber", || redis.command(&["PUBLISH", "orders", "one"]) == ":1");
        until("the effect of the message", || !["$-1", ":0"].contains(&redis.command(&[seen, key]).as_str()));
        deployed.logged("got one\n");
        redis.command(&["PUBLISH", "orders", "trap"]);
        // Seen before the server goes: what a channel held then is lost, as Redis has it.
        deployed.logged(if guest == "inbound-redis2" { "failed: it trapped" } else { "got trap\n" });
        redis.restart();
        until("a subscriber after the restart", || redis.command(&["PUBLISH", "orders", "two"]) == ":1");
        deployed.logged("got two\n");
        until("the effect of the second message", || !["$-1", ":0"].contains(&redis.command(&[seen, key]).as_str()));
        let stats = deployed.workload.as_invocations().unwrap().invocations().await.unwrap();
        assert_eq!(stats.trigger, "redis");
        assert!(stats.started >= 3, "{stats:?}");
        deployed.workload.signal(bireme_core::spec::Signal::TERM).await.unwrap();
        assert_eq!(deployed.workload.wait().await.unwrap().code, 0);
        deployed.workload.delete().await.unwrap();
    }
}

/// What each step of the guest's tour of a store says, in both drafts.
const TOUR: &str = r#"empty: Ok(([], true))
set: Ok(())
get: "1"
absent: none
exists: Some(true) Some(false)
overwrite: Ok(()) "40"
increment: Ok(42)
from nothing: Ok(7) "7"
bytes: Ok(()) Some([0, 255, 10, 0])
nothing: Ok(()) Some([])
no number: true
set many: Ok(()) Ok(())
get many: MANY
keys: ["a", "n", "raw\nä", "void", "x", "y"]
delete many: Ok(()) Ok(()) Some(false)
delete: Ok(()) Some(false)
again: Ok(())
cursor: true
"#;

const SWAPS: &str = r#"below zero: Ok(-3)
too far: true
cas of nothing: none
swap: true
too late: "first"
once more: true
swapped: "third"
deleted meanwhile: true"#;

#[tokio::test(flavor = "multi_thread")]
async fn every_function_of_wasi_keyvalue_works_on_both_backends() {
    let rig = Rig::new();
    let redis = Redis::start();
    let stores = format!("one,two,shared={}", redis.url());
    let deployed = rig.run(rig.spec("tour", &[("bireme.kv", &stores)]), "keyvalue").await;
    let many1 = r#"Some([Some(("y", [119, 104, 121])), None, Some(("x", [101, 120]))]) Some([])"#;
    let many2 = r#"Some([("y", Some([119, 104, 121])), ("none", None), ("x", Some([101, 120]))]) Some([])"#;
    let tour1 = TOUR.replace("MANY", many1) + "too far: true";
    let tour2 = TOUR.replace("MANY", many2) + SWAPS;
    for (draft, store, expected) in
        [("draft", "one", &tour1), ("draft", "shared", &tour1), ("draft2", "two", &tour2), ("draft2", "shared", &tour2)]
    {
        redis.command(&["FLUSHALL"]);
        let answer = deployed.get(&format!("/{draft}/tour?{store}"));
        assert_eq!(&answer.body, expected, "{draft} on {store}: {}", deployed.log());
    }
    assert_eq!(redis.command(&["GET", "n"]), "7", "what a guest stores is in the server under its own key");
    redis.command(&["SET", "theirs", "seen"]);
    assert_eq!(deployed.get("/draft2/get?shared/theirs").body, "\"seen\"");
    redis.command(&["LPUSH", "list", "x"]);
    let foreign = deployed.get("/draft2/get?shared/list").body;
    assert!(foreign.contains("WRONGTYPE"), "{foreign}");
    deployed.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_at_once_lose_no_count_and_no_swap() {
    let rig = Rig::new();
    let redis = Redis::start();
    let stores = format!("embedded,shared={}", redis.url());
    let deployed = rig.run(rig.spec("race", &[("bireme.kv", &stores)]), "keyvalue").await;
    for store in ["embedded", "shared"] {
        let address = deployed.address;
        let runners: Vec<_> =
            (0..4).map(|_| std::thread::spawn(move || get(address, &format!("/draft2/race?{store}")).body)).collect();
        for runner in runners {
            assert_eq!(runner.join().unwrap(), "done", "{}", deployed.log());
        }
        for key in ["counted", "swapped"] {
            assert_eq!(deployed.get(&format!("/draft2/get?{store}/{key}")).body, "\"400\"", "{key} in {store}");
        }
    }
    deployed.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_stores_that_a_label_names_are_opened() {
    let rig = Rig::new();
    let redis = Redis::start();
    let plain = rig.run(rig.spec("plain", &[]), "keyvalue").await;
    // Neither another name nor the address of a server is a way round the label.
    for store in ["other", &redis.url(), "../default", "DEFAULT"] {
        for draft in ["draft", "draft2"] {
            assert_eq!(plain.get(&format!("/{draft}/tour?{store}")).body, "open: Error::AccessDenied", "{store}");
        }
    }
    assert_eq!(redis.command(&["DBSIZE"]), ":0");
    assert_eq!(plain.get("/draft2/set?/k/v").body, "Ok(())", "no name is the default store");
    assert_eq!(plain.get("/draft/get?default/k").body, "\"v\"");
    plain.workload.delete().await.unwrap();

    let none = rig.run(rig.spec("none", &[("bireme.kv", "mine")]), "keyvalue").await;
    assert_eq!(none.get("/draft2/set?default/k/v").body, "open: Error::AccessDenied");
    assert_eq!(none.get("/draft2/set?mine/k/v").body, "Ok(())");
    none.workload.delete().await.unwrap();

    // A server that is not there: told at the use, and found again without a restart of the component.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let label = format!("shared=redis://127.0.0.1:{port}");
    let away = rig.run(rig.spec("away", &[("bireme.kv", &label)]), "keyvalue").await;
    let said = away.get("/draft2/get?shared/k").body;
    assert!(
        said.starts_with("open: Error::Other(") && said.contains("127.0.0.1") && said.contains("refused"),
        "{said}"
    );
    let back = Redis { port, process: Redis::spawn(port) };
    assert_eq!(away.get("/draft2/set?shared/k/v").body, "Ok(())");
    drop(back);
    until("the end of the connection", || away.get("/draft2/get?shared/k").body.contains("rror"));
    let _again = Redis { port, process: Redis::spawn(port) };
    until("a new connection", || away.get("/draft2/set?shared/k/w").body == "Ok(())");
    away.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_stores_outlive_their_host_and_belong_to_their_app() {
    let rig = Rig::new();
    let spec = |app: &str, name: &str| {
        let mut spec = rig.spec(name, &[]);
        spec.app = Some(app.to_owned());
        spec
    };
    let first = rig.run(spec("kept", "first"), "keyvalue").await;
    assert_eq!(first.get("/draft2/set?default/k/stored").body, "Ok(())");
    let pid = rustix::process::Pid::from_raw(first.workload.pid().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    assert_eq!(first.workload.wait().await.unwrap().code, 137);
    first.workload.delete().await.unwrap();

    let second = rig.run(spec("kept", "second"), "keyvalue").await;
    assert_ne!(second.workload.pid(), Some(pid.as_raw_nonzero().get() as u32));
    assert_eq!(second.get("/draft2/get?default/k").body, "\"stored\"", "{}", second.log());
    let other = rig.run(spec("another", "other"), "keyvalue").await;
    assert_eq!(other.get("/draft2/get?default/k").body, "none", "another app's store");
    second.workload.delete().await.unwrap();
    other.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn wasi_config_is_the_environment_in_both_versions() {
    let rig = Rig::new();
    let mut spec = rig.spec("config", &[]);
    spec.env = vec!["GREETING=hi=there".to_owned(), "EMPTY=".to_owned()];
    let deployed = rig.run(spec, "keyvalue").await;
    let all = r#"Ok([("GREETING", "hi=there"), ("EMPTY", "")])"#;
    for version in ["rc", "draft"] {
        let get = |name: &str| deployed.get(&format!("/{version}/config?{name}")).body;
        assert_eq!(get("GREETING"), format!("Ok(Some(\"hi=there\")) of {all}"));
        assert_eq!(get("EMPTY"), format!("Ok(Some(\"\")) of {all}"));
        assert_eq!(get("greeting"), format!("Ok(None) of {all}"), "names are told apart by case");
    }
    deployed.workload.delete().await.unwrap();
}
