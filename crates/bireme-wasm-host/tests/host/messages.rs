//! Messages that are neither lost nor handled twice, and commands that run at certain times.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bireme_core::spec::Signal;
use bireme_core::{Executor as _, WorkloadSpec};

use crate::common::{Deployed, Rig, futures_now, program, until};
use crate::stores::Redis;

/// How many entries of the stream `orders` are not acknowledged.
fn pending(redis: &Redis) -> String {
    redis.command(&["EVAL", "return redis.call('XPENDING', 'orders', 'billing')[1]", "0"])
}

fn add(redis: &Redis, message: &str) -> String {
    redis.command(&["XADD", "orders", "*", "payload", message])
}

fn spec(rig: &Rig, redis: &Redis, subscribe: &str) -> WorkloadSpec {
    let url = redis.url();
    let subscribe = format!("{url}{subscribe}");
    let labels = [("bireme.redis.subscribe", subscribe.as_str()), ("bireme.allow", url.as_str())];
    let mut spec = rig.spec("orders", &labels);
    spec.env = vec![format!("REDIS={url}")];
    spec
}

async fn ended(deployed: &Deployed) {
    deployed.workload.signal(Signal::TERM).await.unwrap();
    assert_eq!(deployed.workload.wait().await.unwrap().code, 0);
    deployed.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_of_a_stream_is_handled_and_acknowledged() {
    let rig = Rig::new();
    let mut redis = Redis::start();
    for message in ["one", "two", "three"] {
        add(&redis, message);
    }
    // Left by an earlier run of the same name, and by a consumer that is gone.
    redis.command(&["XGROUP", "CREATE", "orders", "billing", "0"]);
    let consumer = format!("orders@{}", rustix::system::uname().nodename().to_str().unwrap());
    redis.command(&["XREADGROUP", "GROUP", "billing", &consumer, "COUNT", "1", "STREAMS", "orders", ">"]);
    redis.command(&["XREADGROUP", "GROUP", "billing", "gone", "COUNT", "1", "STREAMS", "orders", ">"]);
    let aged = "local gone = redis.call('XPENDING', 'orders', 'billing', '-', '+', 1, 'gone')[1][1] \
                return redis.call('XCLAIM', 'orders', 'billing', 'gone', 0, gone, 'IDLE', 600000, 'RETRYCOUNT', 1)[1][1]";
    redis.command(&["EVAL", aged, "0"]);
    let spec = spec(&rig, &redis, "?stream=orders&group=billing&attempts=2");
    let deployed = rig.run(spec, "inbound-redis2").await;
    until("all three", || redis.command(&["LLEN", "got"]) == ":3");
    until("their acknowledgement", || pending(&redis) == ":0");
    // One that fails is tried again, put aside after the last attempt, and holds up no other.
    add(&redis, "trap");
    add(&redis, "four");
    until("the one behind it", || redis.command(&["LLEN", "got"]) == ":4");
    until("the one that failed, put aside", || redis.command(&["XLEN", "orders.dead"]) == ":1");
    deployed.logged("of orders was put aside in orders.dead after 2 attempts");
    assert_eq!(deployed.log().matches("of orders failed: it trapped").count(), 2, "{}", deployed.log());
    assert_eq!(pending(&redis), ":0");
    // A server that has lost all has a new group.
    redis.restart();
    add(&redis, "five");
    until("an entry after the restart", || redis.command(&["LLEN", "got"]) == ":1");
    deployed.logged("subscribed to orders again");
    // What an instance has when the component is stopped, it handles and acknowledges: its write waits for the server, which
    // stands still as soon as it has told of the entry.
    let address = redis.url().replace("redis://", "");
    let mut both = std::net::TcpStream::connect(address).unwrap();
    let text = b"XADD orders * payload six\r\nCLIENT PAUSE 1000 WRITE\r\n";
    std::io::Write::write_all(&mut both, text).unwrap();
    // Not as the server has it: what it has sent may be on its way yet.
    let invocations = || deployed.workload.as_invocations().unwrap().invocations();
    until("the entry under way", || futures_now(invocations()).alive == 1);
    ended(&deployed).await;
    assert_eq!((redis.command(&["LLEN", "got"]), pending(&redis)), (":2".to_owned(), ":0".to_owned()));
}

/// How many messages there are in the list `got`, and how many different ones.
fn got(redis: &Redis) -> (String, String) {
    let different = "local seen, count = {}, 0 \
                     for _, one in ipairs(redis.call('LRANGE', 'got', 0, -1)) do \
                       if not seen[one] then seen[one] = true count = count + 1 end \
                     end \
                     return count";
    (redis.command(&["LLEN", "got"]), redis.command(&["EVAL", different, "0"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_message_is_lost_or_comes_twice_where_another_run_takes_over() {
    let rig = Rig::new();
    let program = program("inbound-redis2");
    for subscribe in ["/orders", "?stream=orders&group=billing"] {
        let redis = Redis::start();
        let mut first = spec(&rig, &redis, subscribe);
        first.app = Some("shop".to_owned());
        first.service = Some("orders".to_owned());
        let compose = [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "orders")];
        first.labels.extend(compose.map(|(key, value)| (key.to_owned(), value.to_owned())));
        first.labels.insert("com.docker.compose.container-number".to_owned(), "1".to_owned());
        let mut second = first.clone();
        second.id = rig.spec("second", &[]).id;
        second.labels.insert("com.docker.compose.replace".to_owned(), first.id.as_str().to_owned());
        let deployed = rig.run(first.clone(), "inbound-redis2").await;
        if subscribe.starts_with('/') {
            until("a subscriber", || redis.command(&["PUBLISH", "orders", "0"]) == ":1");
        } else {
            add(&redis, "0");
        }
        until("the first", || redis.command(&["LLEN", "got"]) == ":1");
        let over = AtomicBool::new(false);
        let sent = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut number = 1;
                while !over.load(Ordering::Relaxed) {
                    let message = number.to_string();
                    if subscribe.starts_with('/') {
                        assert_eq!(
                            redis.command(&["PUBLISH", "orders", &message]),
                            ":1",
                            "one subscriber at all times"
                        );
                    } else {
                        add(&redis, &message);
                    }
                    number += 1;
                }
                number
            });
            let replaced = async {
                for _ in 0..5 {
                    let prepared = rig.prepared(&first, &program, deployed.address, None, None);
                    rig.executor.as_renew().unwrap().renew(prepared).await.unwrap();
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let successor = rig.run(second.clone(), "inbound-redis2").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                ended(&deployed).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
                successor
            };
            let successor = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(replaced));
            over.store(true, Ordering::Relaxed);
            (sender.join().unwrap(), successor)
        });
        let (count, successor) = sent;
        let all = format!(":{count}");
        until("the last", || got(&redis) == (all.clone(), all.clone()));
        assert!(count > 50, "{count}");
        ended(&successor).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_at_the_times_of_its_schedule() {
    let rig = Rig::new();
    let mut spec = rig.spec("ticker", &[("bireme.schedule", "* * * * *")]);
    spec.args = ["ticker", "echo", "hello"].map(str::to_owned).to_vec();
    let deployed = rig.run(spec, "command").await;
    let since = Instant::now();
    while !deployed.log().contains("hello") {
        assert!(since.elapsed() < Duration::from_secs(65), "a minute begins within a minute: {}", deployed.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(deployed.workload.as_invocations().unwrap().invocations().await.unwrap().trigger, "schedule");
    ended(&deployed).await;
    // Only a command has one.
    let spec = rig.spec("web", &[("bireme.schedule", "@daily")]);
    let refused = rig.executor.check(&spec, &program("hello")).await.unwrap_err();
    assert!(refused.message().contains("a schedule is for a command"), "{refused}");
}
