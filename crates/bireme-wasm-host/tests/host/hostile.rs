//! Servers that mean harm to the host of the component that talks to them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bireme_core::spec::Signal;

use crate::common::{LIMIT, Rig, peak, until};

/// A server that answers `+OK` to every command of Redis, but to `command` what `attack` does with the connection.
fn server(command: &'static str, attack: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let attack = Arc::new(attack);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let attack = Arc::clone(&attack);
            std::thread::spawn(move || answer(stream, command, &*attack));
        }
    });
    url
}

fn answer(mut stream: TcpStream, command: &str, attack: &dyn Fn(&mut TcpStream)) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        // Our client sends a command in one piece: `*N`, then its words, each behind its length.
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let lines: Vec<&str> = text.split("\r\n").collect();
        for words in lines.windows(3).filter(|words| words[0].starts_with('*')) {
            if words[2] == command {
                attack(&mut stream);
                return;
            }
            let _ = stream.write_all(b"+OK\r\n");
        }
    }
}

/// Writes `bytes` until nobody takes them any more.
fn pour(stream: &mut TcpStream, bytes: &[u8]) {
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    while stream.write_all(bytes).is_ok() {}
}

/// Keeps the connection until the other side ends it.
fn linger(stream: &mut TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

/// What it is called, what comes first, what comes then and again, and what the log says of it.
type Attack<'a> = (&'a str, &'a [u8], &'a [u8], &'a str);

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_server_that_answers_too_much_costs_no_more_than_an_instance() {
    let rig = Rig::new();
    let string = [b"$100000\r\n".as_slice(), &[b'x'; 100_000], b"\r\n"].concat();
    let attacks: [Attack<'_>; 8] = [
        ("a huge string", b"$1099511627776\r\n", &[b'x'; 65_536], "an answer of more than"),
        ("a length beyond all", b"$9223372036854775807\r\n", b"", "an answer of more than"),
        ("a huge list", b"*1000000000000\r\n", &b":1\r\n".repeat(10_000), "an answer of more than"),
        ("a list that grows", b"*200000\r\n", &string, "an answer of more than"),
        ("lists in lists", b"", &b"*1\r\n".repeat(10_000), "lists within lists"),
        ("wide lists in lists", b"", &b"*4096\r\n".repeat(10_000), "lists within lists"),
        ("an endless line", b"+", &[b'x'; 65_536], "a line of more than 64 KiB"),
        ("another protocol", b"HTTP/1.1 200 OK\r\n\r\n", b"", "does not speak Redis"),
    ];
    for (what, first, then, said) in attacks {
        let (first, then) = (first.to_vec(), then.to_vec());
        let url = server("SET", move |stream| {
            let _ = stream.write_all(&first);
            if then.is_empty() {
                linger(stream);
            } else {
                pour(stream, &then);
            }
        });
        let mut spec = rig.spec("victim", &[("bireme.allow", url.as_str())]);
        spec.resources.memory = Some(64 << 20);
        let victim = rig.run(spec, "spin2").await;
        let pid = victim.workload.pid().unwrap();
        let begun = Instant::now();
        assert_eq!(victim.get(&format!("/redis?{url}")).status, 500, "{what}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} took {:?}", begun.elapsed());
        victim.logged(said);
        victim.logged("the Redis server 127.0.0.1 ");
        assert!(peak(pid) < 200, "{what}: the host had {} MiB", peak(pid));
        // The host is as it was, and so are the others in it.
        assert_eq!(victim.get("/count").body, "1 of [\"count\"]", "{what}");
        victim.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_server_that_does_not_answer_is_given_up() {
    let rig = Rig::new();
    for command in ["CLIENT", "SET"] {
        let url = server(command, linger);
        let labels = [("bireme.allow", url.as_str()), ("bireme.timeout", "12s")];
        let victim = rig.run(rig.spec("victim", &labels), "spin2").await;
        let begun = Instant::now();
        let answer = victim.get(&format!("/redis?{url}"));
        assert!([500, 504].contains(&answer.status), "{command}: {answer:?}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{command}: {:?}", begun.elapsed());
        assert_eq!(victim.get("/count").body, "1 of [\"count\"]");
        victim.workload.delete().await.unwrap();
    }
    // One that a label names, and that accepts and says nothing.
    let url = server("CLIENT", linger);
    let stores = format!("default,far={url}");
    let victim = rig.run(rig.spec("victim", &[("bireme.kv", stores.as_str())]), "spin2").await;
    let begun = Instant::now();
    assert_eq!(victim.get("/count?far").status, 500);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(victim.get("/count").status, 200);
    victim.workload.delete().await.unwrap();
}

/// A server that ends each subscription after one message has the connections of the component looked up anew each time;
/// those that instances still hold count all the same.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_counted_also_when_subscriptions_break_off() {
    let rig = Rig::new();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (Arc::clone(&open), Arc::clone(&most));
    // What the guest asks of it is never answered.
    let held = server("RPUSH", move |stream| {
        let now = counted.0.fetch_add(1, Ordering::SeqCst) + 1;
        counted.1.fetch_max(now, Ordering::SeqCst);
        linger(stream);
        counted.0.fetch_sub(1, Ordering::SeqCst);
    });
    let subscriptions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&subscriptions);
    let url = server("SUBSCRIBE", move |stream| {
        let _ = stream.write_all(b"*3\r\n$9\r\nsubscribe\r\n$6\r\norders\r\n:1\r\n");
        let _ = stream.write_all(b"*3\r\n$7\r\nmessage\r\n$6\r\norders\r\n$2\r\nhi\r\n");
        std::thread::sleep(Duration::from_millis(250));
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let subscribe = format!("{url}/orders");
    let labels =
        [("bireme.redis.subscribe", subscribe.as_str()), ("bireme.allow", held.as_str()), ("bireme.timeout", "60s")];
    let mut spec = rig.spec("victim", &labels);
    spec.env = vec![format!("REDIS={held}")];
    let victim = rig.run(spec, "inbound-redis2").await;
    until("forty subscriptions", || subscriptions.load(Ordering::SeqCst) >= 40);
    let most = most.load(Ordering::SeqCst);
    assert!((1..=32).contains(&most), "{most} connections at once");
    victim.logged("32 connections are in use");
    let told = victim.log().matches("broke off").count();
    assert!((1..=2).contains(&told), "what goes on and on is told once: {told}");
    victim.workload.signal(Signal::KILL).await.unwrap();
    victim.workload.delete().await.unwrap();
    until("all are closed", || open.load(Ordering::SeqCst) == 0);
}

/// More messages than there are instances for wait with the server, and not in the host.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_is_not_held_in_memory() {
    let mut rig = Rig::new();
    rig.log_limits = (Some(1 << 20), 1);
    let url = server("SUBSCRIBE", |stream| {
        let _ = stream.write_all(b"*3\r\n$9\r\nsubscribe\r\n$6\r\norders\r\n:1\r\n");
        let payload = [b'x'; 100_000];
        pour(stream, &[b"*3\r\n$7\r\nmessage\r\n$6\r\norders\r\n$100000\r\n".as_slice(), &payload, b"\r\n"].concat());
    });
    let subscribe = format!("{url}/orders");
    let labels = [("bireme.redis.subscribe", subscribe.as_str()), ("bireme.instances", "1")];
    let mut spec = rig.spec("flooded", &labels);
    spec.env = vec!["REDIS=redis://127.0.0.1:1".to_owned()];
    let flooded = rig.run(spec, "inbound-redis2").await;
    let pid = flooded.workload.pid().unwrap();
    let begun = Instant::now();
    until("ten seconds of it", || {
        assert!(peak(pid) < 250, "the host had {} MiB after {:?}", peak(pid), begun.elapsed());
        begun.elapsed() > Duration::from_secs(10)
    });
    let stats = flooded.workload.as_invocations().unwrap().invocations().await.unwrap();
    assert!(stats.started > 20, "messages are handled: {stats:?}");
    flooded.workload.signal(Signal::TERM).await.unwrap();
    assert_eq!(flooded.workload.wait().await.unwrap().code, 0);
    flooded.workload.delete().await.unwrap();
}
