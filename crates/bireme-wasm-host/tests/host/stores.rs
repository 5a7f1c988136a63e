//! Key-value stores, Redis and variables as Spin's SDKs speak them, against a real Redis server.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::common::{LIMIT, Rig, until};

/// A Redis server on a port of its own.
struct Redis {
    port: u16,
    process: Child,
}

impl Redis {
    fn start() -> Self {
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

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends one command and answers the first line that comes back.
    fn command(&self, words: &[&str]) -> String {
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

    fn restart(&mut self) {
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
        assert!(unknown.status == 500 || unknown.body.contains("NoSuchStore"), "{unknown:?}");
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
