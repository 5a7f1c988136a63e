//! HTTP components: answers, limits, routes, streams, logs, and life beside a daemon that comes and goes.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::{LIMIT, Rig, get, program, raw, read_answer, send, text, try_get, until};
use bireme_core::spec::{Mount, MountSource, Propagation, Signal};
use bireme_core::{ErrorKind, Executor as _};

#[tokio::test(flavor = "multi_thread")]
async fn components_of_both_generations_answer() {
    let rig = Rig::new();
    let old = rig.run(rig.spec("old", &[]), "hello").await;
    let new = rig.run(rig.spec("new", &[]), "hello3").await;
    assert_eq!((old.get("/").status, old.get("/").body.as_str()), (200, "hello\n"));
    assert_eq!((new.get("/").status, new.get("/").body.as_str()), (200, "hello from 0.3\n"));
    old.workload.delete().await.unwrap();
    new.workload.delete().await.unwrap();
    assert!(try_get(old.address, "/").is_err(), "the port is closed after the delete");
    assert_eq!(std::fs::read_dir(rig.options.exec_root.join("w")).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_gets_a_fresh_instance_and_is_counted() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("probe", &[]), "probe").await;
    for _ in 0..3 {
        assert_eq!(probe.get("/instance").body, "1");
    }
    let stats = probe.workload.as_invocations().unwrap().invocations().await.unwrap();
    assert_eq!((stats.started, stats.trigger.as_str()), (3, "http"));
    assert!(stats.latency.last().unwrap().1 <= 3 && stats.memory_peak > 0, "{stats:?}");
    assert!(probe.workload.stats().await.unwrap().cpu_total > 0);
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_one_request_and_no_other() {
    let rig = Rig::new();
    let mut spec = rig.spec("limited", &[("bireme.timeout", "400ms")]);
    spec.resources.memory = Some(16 << 20);
    let probe = rig.run(spec, "probe").await;
    let neighbour = std::thread::spawn({
        let address = probe.address;
        move || (0..20).all(|_| get(address, "/").status == 200)
    });
    let looped = probe.get("/loop");
    assert_eq!(looped.status, 504, "{looped:?}");
    assert!(looped.body.contains("limited"), "{looped:?}");
    assert_eq!(probe.get("/sleep").status, 504);
    let trapped = probe.get("/trap");
    assert_eq!(trapped.status, 500);
    assert!(trapped.body.contains("docker logs limited"), "{trapped:?}");
    assert_eq!(probe.get("/hog").status, 500);
    assert_eq!(probe.get("/silent").status, 500);
    assert!(neighbour.join().unwrap(), "a neighbour was harmed");
    probe.logged("it took longer than bireme.timeout=400ms");
    probe.logged("GET /trap failed: it trapped");
    let stats = probe.workload.as_invocations().unwrap().invocations().await.unwrap();
    assert_eq!((stats.timed_out, stats.failed, stats.alive), (2, 3, 0), "{stats:?}");
    assert!(stats.memory_peak <= 16 << 20);
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processor_time_has_a_limit_of_its_own() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("thinker", &[("bireme.cpu-time", "50ms")]), "probe").await;
    assert_eq!(probe.get("/sleep?200").status, 200, "sleeping costs no processor time");
    assert_eq!(probe.get("/loop").status, 504);
    probe.logged("bireme.cpu-time=50ms");
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_answers_503_with_retry_after() {
    let rig = Rig::new();
    let labels = [("bireme.instances", "1"), ("bireme.queue", "1"), ("bireme.timeout", "5s")];
    let probe = rig.run(rig.spec("narrow", &labels), "probe").await;
    let address = probe.address;
    let first = std::thread::spawn(move || get(address, "/sleep?1000").status);
    until("an instance at work", || !futures_now(probe.workload.processes("")).rows.is_empty());
    let second = std::thread::spawn(move || get(address, "/").status);
    until("a request in the queue", || futures_now(probe.workload.as_invocations().unwrap().invocations()).queued == 1);
    let refused = probe.get("/");
    assert_eq!(refused.status, 503);
    assert!(refused.head.to_lowercase().contains("retry-after"), "{refused:?}");
    assert_eq!((first.join().unwrap(), second.join().unwrap()), (200, 200));
    probe.workload.delete().await.unwrap();
}

/// Waits for a future from a thread of a multi-threaded runtime.
fn futures_now<T>(future: impl Future<Output = Result<T, bireme_core::ExecError>>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_of_an_app_share_a_port_by_their_routes() {
    let rig = Rig::new();
    let app = |name: &str, route: &str, reply: &str| {
        let mut spec = rig.spec(name, &[("bireme.http.route", route)]);
        spec.app = Some("shared".to_owned());
        spec.env = vec![format!("REPLY={reply}")];
        spec
    };
    let one = rig.run(app("one", "/one/...,/users/:id", "one"), "probe").await;
    let two = rig.run_on(app("two", "/...", "two"), &program("probe"), one.address, None).await.unwrap();
    assert_eq!(one.workload.pid(), two.workload.pid(), "one process serves the app");
    assert_eq!((one.get("/one/x").body.as_str(), one.get("/other").body.as_str()), ("one", "two"));
    let clash = rig.run_on(app("three", "/users/:name", "three"), &program("probe"), one.address, None).await;
    let clash = clash.err().unwrap();
    assert_eq!(clash.kind(), ErrorKind::Conflict);
    assert!(clash.message().contains("/users/:name") && clash.message().contains("one"), "{clash}");

    let request =
        "GET /one/a/headers?q=1 HTTP/1.1\r\nHost: shop:80\r\nspin-path-info: forged\r\nConnection: close\r\n\r\n";
    let headers = send(one.address, request).unwrap().body;
    for expected in [
        "spin-path-info: /a/headers\n",
        "spin-full-url: http://shop:80/one/a/headers?q=1\n",
        "spin-matched-route: /one/...\n",
        "spin-component-route: /one\n",
        "spin-base-path: /\n",
        "spin-client-addr: 127.0.0.1:",
    ] {
        assert!(headers.contains(expected), "{expected:?} in {headers}");
    }
    assert!(!headers.contains("forged"));
    let headers = get(one.address, "/users/headers").body;
    assert!(headers.contains("spin-path-match-id: headers\n"), "{headers}");

    two.workload.delete().await.unwrap();
    let nobody = one.get("/other");
    assert_eq!((nobody.status, nobody.body.as_str()), (404, "no component serves /other\n"));
    assert_eq!(one.get("/one/x").status, 200, "the other goes on");
    one.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("echo", &[]), "probe").await;
    let mut stream = TcpStream::connect(probe.address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").unwrap();
    let mut got = Vec::new();
    let mut part = [0; 1024];
    while !got.windows(5).any(|window| window == b"first") {
        let n = stream.read(&mut part).unwrap();
        assert_ne!(n, 0, "closed early: {} {}", String::from_utf8_lossy(&got), probe.log());
        got.extend_from_slice(&part[..n]);
    }
    stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").unwrap();
    while !got.ends_with(b"0\r\n\r\n") {
        let n = stream.read(&mut part).unwrap();
        assert_ne!(n, 0, "closed early: {} {}", String::from_utf8_lossy(&got), probe.log());
        got.extend_from_slice(&part[..n]);
    }
    assert!(String::from_utf8_lossy(&got).contains("second"));

    let big = "x".repeat(3 << 20);
    let request =
        format!("POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", big.len());
    let stream = TcpStream::connect(probe.address).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let body = big.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(request.as_bytes()).unwrap();
        writer.write_all(body.as_bytes()).unwrap();
    });
    assert_eq!(read_answer(stream).unwrap().body.len(), big.len());
    writing.join().unwrap();
    probe.workload.delete().await.unwrap();
}

/// A request of `method` after which the connection is closed.
fn once(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nConnection: close\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn small_answers_have_a_length_and_large_ones_arrive_whole() {
    let rig = Rig::new();
    for (guest, hello) in [("hello", "hello\n"), ("hello3", "hello from 0.3\n")] {
        let hello_guest = rig.run(rig.spec(guest, &[]), guest).await;
        for _ in 0..20 {
            let (got, _) = raw(hello_guest.address, &once("GET", "/"));
            let (head, body) = got.split_once("\r\n\r\n").unwrap();
            let length = format!("content-length: {}", hello.len());
            assert!(head.to_lowercase().contains(&length) && !head.contains("chunked"), "{guest}: {head}");
            assert_eq!(body, hello);
        }
        hello_guest.workload.delete().await.unwrap();
    }
    for guest in ["probe", "probe3"] {
        let probe = rig.run(rig.spec(guest, &[]), guest).await;
        // About the most that is gathered, and about the buffers below.
        for size in [0, 1, 4096, 65_535, 65_536, 65_537, 131_072, 5_000_000] {
            let body = probe.get(&format!("/big?{size}")).body;
            assert!(body.len() == size && body.bytes().all(|byte| byte == b'x'), "{guest}: {} of {size}", body.len());
        }
        probe.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_part_goes_out_before_the_second_is_there() {
    let rig = Rig::new();
    for guest in ["probe", "probe3"] {
        let probe = rig.run(rig.spec(guest, &[]), guest).await;
        let begun = std::time::Instant::now();
        let mut stream = TcpStream::connect(probe.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.write_all(once("GET", "/pause?3000").as_bytes()).unwrap();
        let mut got = String::new();
        while !got.contains("first\n") {
            let mut part = [0; 1024];
            let n = stream.read(&mut part).unwrap();
            assert_ne!(n, 0, "closed early: {got}");
            got.push_str(&String::from_utf8_lossy(&part[..n]));
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{guest} was held back: {:?}", begun.elapsed());
        assert!(!got.contains("second"));
        stream.read_to_string(&mut got).unwrap();
        assert!(got.contains("second\n") && got.ends_with("0\r\n\r\n"), "{got}");
        probe.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_body_is_never_ended_as_if_it_were_whole() {
    let rig = Rig::new();
    for guest in ["probe", "probe3"] {
        let probe = rig.run(rig.spec(guest, &[("bireme.timeout", "2s")]), guest).await;
        // Nothing has gone out yet: the client gets a plain failure.
        let (got, _) = raw(probe.address, &once("GET", "/fall"));
        assert!(got.starts_with("HTTP/1.1 500") && got.contains("docker logs"), "{guest}: {got}");
        // The first part has gone out: all that is left is to cut the connection.
        let (got, _) = raw(probe.address, &once("GET", "/fall?300"));
        assert!(got.starts_with("HTTP/1.1 200") && got.contains("first\n"), "{guest}: {got}");
        assert!(!got.ends_with("0\r\n\r\n"), "{guest} ended its body cleanly: {got:?}");
        probe.logged("failed: it trapped");
        // The same for one that is ended by its limit.
        let (got, _) = raw(probe.address, &once("GET", "/pause?60000"));
        assert!(got.contains("first\n") && !got.ends_with("0\r\n\r\n"), "{guest} ended its body cleanly: {got:?}");
        probe.logged("it took longer than bireme.timeout=2s");
        probe.workload.delete().await.unwrap();
    }
    let probe = rig.run(rig.spec("probe", &[]), "probe").await;
    // A body that was finished is whole, whatever its instance does then.
    let answer = probe.get("/fall-after");
    assert_eq!((answer.status, answer.body.as_str()), (200, "all of it\n"), "{answer:?}");
    let (got, _) = raw(probe.address, &once("GET", "/short"));
    assert!(!got.starts_with("HTTP/1.1 200") || got.contains("content-length: 100"), "{got}");
    assert_eq!(probe.get("/length?5").status, 500);
    probe.logged("GET /length failed: its content-length says 5 bytes, and its body has 0");
    until("the end of all instances", || futures_now(probe.workload.processes("")).rows.is_empty());
    let stats = probe.workload.as_invocations().unwrap().invocations().await.unwrap();
    assert_eq!((stats.failed, stats.succeeded), (3, 0), "{stats:?}");
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_are_sent_to_those_who_take_them() {
    let rig = Rig::new();
    for guest in ["probe", "probe3"] {
        let probe = rig.run(rig.spec(guest, &[]), guest).await;
        let (got, _) = raw(probe.address, &once("GET", "/trailers"));
        assert!(got.contains("summed\n") && got.ends_with("0\r\nx-sum: 42\r\n\r\n"), "{guest}: {got:?}");
        let (got, _) = raw(probe.address, &once("GET", "/trailers").replace("TE: trailers\r\n", ""));
        assert!(got.ends_with("summed\n\r\n0\r\n\r\n"), "{guest}: {got:?}");
        probe.workload.delete().await.unwrap();
    }
}

/// RFC 9110, 9.3.2 and 8.6: a HEAD is answered with the length that a GET would have; 15.3.5 and 15.4.5: no body at all.
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_are_passed_through() {
    let rig = Rig::new();
    for guest in ["probe", "probe3"] {
        let probe = rig.run(rig.spec(guest, &[]), guest).await;
        let head_of = |method: &str, path: &str| {
            let (got, _) = raw(probe.address, &once(method, path));
            let (head, body) = got.split_once("\r\n\r\n").unwrap_or((&got, ""));
            assert_eq!(body, "", "{guest} {method} {path}: {got:?}");
            head.to_lowercase()
        };
        for path in ["/length?1234", "/length?1234,body"] {
            let head = head_of("HEAD", path);
            assert!(
                head.starts_with("http/1.1 200") && head.contains("content-length: 1234"),
                "{guest} {path}: {head}"
            );
            assert!(!head.contains("chunked"), "{guest} {path}: {head}");
        }
        // A guest that answers as if it were a GET.
        let head = head_of("HEAD", "/big?10");
        assert!(head.starts_with("http/1.1 200") && head.contains("content-length: 10"), "{guest}: {head}");
        assert!(head_of("HEAD", "/big?5000000").starts_with("http/1.1 200"));
        for status in ["204", "304"] {
            let head = head_of("GET", &format!("/status?{status}"));
            assert!(head.starts_with(&format!("http/1.1 {status}")), "{guest}: {head}");
            assert!(!head.contains("content-length") && !head.contains("chunked"), "{guest}: {head}");
        }
        // The connection is good for more.
        let mut stream = TcpStream::connect(probe.address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let keep = |request: String| request.replace("Connection: close\r\n", "");
        let requests =
            [keep(once("HEAD", "/length?7")), keep(once("GET", "/status?204")), once("GET", "/big?3")].concat();
        stream.write_all(requests.as_bytes()).unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        assert_eq!(got.matches("HTTP/1.1 ").count(), 3, "{guest}: {got:?}");
        assert!(got.ends_with("\r\n\r\nxxx"), "{guest}: {got:?}");
        // To a GET, such an answer is an error of the component's, and not one that confuses the client.
        let (got, _) = raw(probe.address, &once("GET", "/length?1234"));
        assert!(got.starts_with("HTTP/1.1 500"), "{guest}: {got:?}");
        assert!(!probe.log().contains("GET /status failed"), "{}", probe.log());
        // Nor is one that promises another, or a tunnel.
        for status in ["100", "101", "103"] {
            let (got, _) = raw(probe.address, &once("GET", &format!("/status?{status}")));
            assert!(got.starts_with("HTTP/1.1 500"), "{guest} {status}: {got:?}");
        }
        probe.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_logged_and_attached() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("chatty", &[]), "probe").await;
    let attach = probe.workload.as_attach().unwrap();
    let mut client = attach.attach(false).await.unwrap();
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(probe.get("/log?hi").status, 200);
    probe.logged("out hi\n");
    probe.logged("err hi\n");
    let mut frame = [0; 15];
    client.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x07out hi\n");
    // Whoever is attached misses nothing of what comes then.
    for _ in 0..50 {
        let mut client = attach.attach(false).await.unwrap();
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(probe.get("/log?hi").status, 200);
        client.read_exact(&mut frame).unwrap();
    }
    // Docker's clients attach input to whatever they attach to. What has none takes it and throws it away: nobody is left
    // hanging with it, output goes on, and the end of the input is not the end of the output.
    let mut client = attach.attach(true).await.unwrap();
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.set_write_timeout(Some(LIMIT)).unwrap();
    client.write_all(&vec![b'x'; 4 << 20]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(probe.get("/log?hi").status, 200);
    client.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x07out hi\n");
    // The end of the component is the end of the output.
    probe.workload.signal(Signal::TERM).await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\x02\0\0\0\0\0\0\x07err hi\n");
    assert_eq!(probe.workload.wait().await.unwrap().code, 0);
    probe.workload.delete().await.unwrap();
}

/// One instance asks for room on more handles of its output than there are places in the log, and keeps them.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_many_outputs_leaves_the_log_to_the_others() {
    let rig = Rig::new();
    for guest in ["probe", "probe3"] {
        let probe = rig.run(rig.spec("chatty", &[("bireme.timeout", "60s")]), guest).await;
        for _ in 0..4 {
            assert_eq!(probe.get("/outputs?300,30000").body, "300", "{guest}: each has room");
        }
        let attach = probe.workload.as_attach().unwrap();
        let mut client =
            tokio::time::timeout(LIMIT / 3, attach.attach(false)).await.expect("attached in time").unwrap();
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        // Of another instance.
        assert_eq!(probe.get("/log?hi").status, 200);
        let mut frame = [0; 15];
        client.read_exact(&mut frame).unwrap();
        assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x07out hi\n", "{guest}");
        probe.workload.signal(Signal::KILL).await.unwrap();
        tokio::time::timeout(LIMIT / 2, probe.workload.wait()).await.expect("it ends in time").unwrap();
        probe.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_output_than_there_is_room_for_ends_the_instance() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("chatty", &[]), "probe").await;
    assert_eq!(probe.get("/overrun").status, 500, "{}", probe.log());
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn serving_goes_on_while_daemons_come_and_go() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("steady", &[]), "probe").await;
    let (going, served) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let client = std::thread::spawn({
        let (going, served, address) = (Arc::clone(&going), Arc::clone(&served), probe.address);
        move || {
            while going.load(Ordering::Relaxed) {
                assert_eq!(get(address, "/").status, 200);
                served.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let pid = probe.workload.pid();
    let known = probe.known();
    for _ in 0..3 {
        let before = served.load(Ordering::Relaxed);
        let executor = rig.second_executor();
        let again = executor.reattach(probe.known()).await.unwrap();
        assert_eq!(again.pid(), pid);
        executor.sweep(std::slice::from_ref(&probe.spec.id), &[]).await;
        drop((again, executor));
        until("more requests", || served.load(Ordering::Relaxed) > before + 5);
    }
    going.store(false, Ordering::Relaxed);
    client.join().unwrap();

    // Ended while no daemon looked: the next one finds how.
    let executor = rig.second_executor();
    let again = executor.reattach(known).await.unwrap();
    again.signal(Signal::TERM).await.unwrap();
    assert_eq!(again.wait().await.unwrap().code, 0);
    let third = rig.second_executor().reattach(probe.known()).await.unwrap();
    assert_eq!(third.wait().await.unwrap().code, 0);
    executor.sweep(&[], &[]).await;
    let record = rig.second_executor().reattach(probe.known()).await.err();
    assert!(record.is_none() || record.unwrap().kind() == ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_what_is_under_way() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("polite", &[]), "probe").await;
    let address = probe.address;
    let under_way = std::thread::spawn(move || get(address, "/sleep?500").status);
    until("an instance at work", || !futures_now(probe.workload.processes("")).rows.is_empty());
    probe.workload.signal(Signal::TERM).await.unwrap();
    let exit = probe.workload.wait().await.unwrap();
    assert_eq!((exit.code, under_way.join().unwrap()), (0, 200));
    assert_eq!(probe.get("/").status, 503);
    assert_eq!(probe.workload.signal(Signal::TERM).await.err().unwrap().kind(), ErrorKind::Conflict);
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_component_is_cut_off() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("cut", &[]), "probe").await;
    let address = probe.address;
    let under_way = std::thread::spawn(move || get(address, "/sleep").status);
    until("an instance at work", || !futures_now(probe.workload.processes("")).rows.is_empty());
    probe.workload.signal(Signal::KILL).await.unwrap();
    assert_eq!(probe.workload.wait().await.unwrap().code, 137);
    assert_eq!(under_way.join().unwrap(), 503);
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_host_is_the_end_of_its_components() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("orphan", &[]), "probe").await;
    let pid = rustix::process::Pid::from_raw(probe.workload.pid().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let exit = probe.workload.wait().await.unwrap();
    assert_eq!(exit.code, 137);
    assert!(exit.error.unwrap().contains("host process died"));
    assert!(probe.workload.pid().is_none());
    let found = rig.second_executor().reattach(probe.known()).await.unwrap();
    assert_eq!(found.wait().await.unwrap().code, 137, "the next daemon finds the same end");
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_no_rights() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("fenced", &[]), "probe").await;
    let pid = probe.workload.pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned();
    let user: u32 = line("Uid:").split('\t').next().unwrap().parse().unwrap();
    let users = bireme_wasm::HOST_UIDS;
    assert!((users.0..users.0 + users.1).contains(&user), "{user}");
    assert_eq!(line("CapEff:"), "0000000000000000");
    assert_eq!(line("CapPrm:"), "0000000000000000");
    assert_eq!((line("NoNewPrivs:").as_str(), line("Seccomp:").as_str()), ("1", "2"));
    let mut root: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/root"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    root.sort();
    assert_eq!(root, ["etc", "kv", "proc"]);
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_refused_at_check_by_name() {
    let rig = Rig::new();
    let spec = rig.spec("refused", &[]);
    let check = async |program: bireme_core::Program| rig.executor.check(&spec, &program).await.err().unwrap();
    let unknown = r#"(component
        (import "acme:rockets/launch@1.0.0" (instance (export "go" (func))))
        (import "wasi:http/types@0.4.0" (instance)))"#;
    let error = check(text(&rig, unknown)).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("acme:rockets/launch@1.0.0"), "{error}");
    assert!(
        error.message().contains("wasi:http/types@0.4.0 (version 0.4.0 is not offered; 0.2.x and 0.3.x is)"),
        "{error}"
    );
    let nothing = check(text(&rig, "(component)")).await;
    assert!(nothing.message().contains("exports none of"), "{nothing}");
    let garbage = check(text(&rig, "\0\0\0\0nonsense")).await;
    assert_eq!(garbage.kind(), ErrorKind::Invalid, "{garbage}");
    let module = check(text(&rig, r#"(component (core module (func (export "x"))))"#)).await;
    assert_eq!(module.kind(), ErrorKind::Unsupported);

    let mut spec = rig.spec("pty", &[]);
    spec.tty = true;
    let error = rig.executor.check(&spec, &program("hello")).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let spec = rig.spec("subscriber", &[("bireme.redis.subscribe", "redis://x/c")]);
    let error = rig.executor.check(&spec, &program("hello")).await.err().unwrap();
    assert!(error.message().contains("bireme.redis.subscribe"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_compiled_once_and_again_when_damaged() {
    let rig = Rig::new();
    let hello = program("hello");
    rig.executor.check(&rig.spec("a", &[]), &hello).await.unwrap();
    let cache = rig.options.data_root.join("wasm/cache");
    let code = std::fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "cwasm"))
        .unwrap();
    let made = std::fs::metadata(&code).unwrap().modified().unwrap();
    rig.second_executor().check(&rig.spec("b", &[]), &hello).await.unwrap();
    assert_eq!(std::fs::metadata(&code).unwrap().modified().unwrap(), made, "it was compiled twice");

    // Seen by the next daemon.
    std::fs::write(&code, b"rubbish").unwrap();
    rig.second_executor().check(&rig.spec("c", &[]), &hello).await.unwrap();
    assert!(std::fs::metadata(&code).unwrap().len() > 1000);
    // Seen by the host, of a daemon that believes it sound.
    std::fs::write(&code, b"rubbish").unwrap();
    let run = rig.run(rig.spec("d", &[]), "hello").await;
    assert_eq!(run.get("/").status, 200);
    run.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn outgoing_requests_need_permission() {
    let rig = Rig::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let n = stream.read(&mut head).unwrap();
            let line = String::from_utf8_lossy(&head[..n]).lines().next().unwrap_or_default().to_owned();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}", line.len());
        }
    });
    let denied = rig.run(rig.spec("denied", &[]), "probe").await;
    let answer = denied.get(&format!("/fetch?http://127.0.0.1:{port}/x"));
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("HttpRequestDenied"), "{answer:?}");
    denied.logged(&format!("http://127.0.0.1:{port} is not permitted; add it to bireme.allow"));
    assert_eq!(denied.get(&format!("/connect?127.0.0.1:{port}")).status, 502);

    let allow = format!("http://127.0.0.1:{port}");
    let only_http = rig.run(rig.spec("http", &[("bireme.allow", &allow)]), "probe").await;
    assert_eq!(only_http.get(&format!("/connect?127.0.0.1:{port}")).status, 502, "http:// is not for sockets");
    assert_eq!(only_http.get(&format!("/fetch?https://127.0.0.1:{port}/x")).status, 502, "nor for https://");
    only_http.logged(&format!("https://127.0.0.1:{port} is not permitted"));
    only_http.workload.delete().await.unwrap();
    let sockets = rig.run(rig.spec("tcp", &[("bireme.allow", &format!("tcp://127.0.0.1:{port}"))]), "probe").await;
    assert_eq!(sockets.get(&format!("/fetch?http://127.0.0.1:{port}/x")).status, 502, "tcp:// is for sockets alone");
    assert_eq!(sockets.get(&format!("/connect?127.0.0.1:{port}")).status, 200);
    sockets.workload.delete().await.unwrap();
    let both = format!("{allow},tcp://127.0.0.1:{port}");
    let allowed = rig.run(rig.spec("allowed", &[("bireme.allow", &both)]), "probe").await;
    let answer = allowed.get(&format!("/fetch?http://127.0.0.1:{port}/x"));
    assert_eq!((answer.status, answer.body.as_str()), (200, "GET /x HTTP/1.1"));
    assert_eq!(allowed.get(&format!("/connect?127.0.0.1:{port}")).status, 200);
    assert_eq!(allowed.get("/connect?127.0.0.1:1").status, 502);
    let third = rig.run(rig.spec("third", &[("bireme.allow", &allow)]), "hello3").await;
    assert_eq!(third.get(&format!("/fetch?http://127.0.0.1:{port}/x")).body, "fetched 200\n");
    for deployed in [denied, allowed, third] {
        deployed.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_folder_leaves_nothing_behind() {
    let rig = Rig::new();
    let mut spec = rig.spec("homeless", &[]);
    let source =
        MountSource::Bind { path: "/does/not/exist".into(), propagation: Propagation::Private, recursive: true };
    spec.mounts = vec![Mount { source, target: "/data".to_owned(), read_only: false }];
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let error = rig.run_on(spec, &program("hello"), address, Some(socket)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(std::fs::read_dir(rig.options.exec_root.join("w")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_unclear_about_its_host_is_refused() {
    let rig = Rig::new();
    let run = rig.run(rig.spec("hello", &[]), "hello").await;
    let status = |request: &str| send(run.address, request).map(|answer| answer.status).unwrap_or_default();
    for bad in [
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n",
        "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        // What smuggles: folded lines, blanks before the colon, lengths that differ or are none, codings that are not chunked.
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\na",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        assert_eq!(status(bad), 400, "{bad:?}");
    }
    for good in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\nConnection: close\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    ] {
        assert_eq!(status(good), 200, "{good:?}");
    }
    assert_eq!(status("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), 405);
    run.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_line_and_not_the_header_says_which_host_is_meant() {
    let rig = Rig::new();
    let run = rig.run(rig.spec("a", &[("bireme.http.route", "inside.example/...")]), "hello").await;
    let status = |line: &str, host: &str| {
        let request = format!("GET {line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        send(run.address, &request).unwrap().status
    };
    assert_eq!(status("/", "inside.example"), 200);
    assert_eq!(status("/", "other.example"), 404);
    assert_eq!(status("http://inside.example/", "other.example"), 200);
    assert_eq!(status("http://other.example/", "inside.example"), 404);
    run.workload.delete().await.unwrap();
}

/// Nothing that comes after what is unclear about its length is taken for a request.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_smuggled_behind_another() {
    let rig = Rig::new();
    let run = rig.run(rig.spec("hello", &[]), "hello").await;
    let second = "GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for first in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ] {
        let (got, _) = raw(run.address, &format!("{first}{second}"));
        assert_eq!(got.matches("HTTP/1.1 ").count(), 1, "{first:?}: {got}");
    }
    run.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused() {
    let rig = Rig::new();
    let run = rig.run(rig.spec("hello", &[]), "hello").await;
    let status = |headers: &str| {
        let (got, _) = raw(run.address, &format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\r\n"));
        got.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let field = |size: usize| format!("X: {}\r\n", "y".repeat(size));
    // 64 KiB, with some hundred bytes for the rest.
    for size in [65_000, 60 << 10, 1000] {
        assert_eq!(status(&field(size)), "200", "a field of {size} bytes");
    }
    for size in [65_536, 66_000, 70_000, 80_000, 100 << 10, 120 << 10, 1 << 20] {
        assert_eq!(status(&field(size)), "431", "a field of {size} bytes");
    }
    assert_eq!(status(&field(1000).repeat(100)), "431", "many that are large together");
    assert_eq!(status(&"X: y\r\n".repeat(120)), "200");
    assert_eq!(status(&"X: y\r\n".repeat(200)), "431", "too many fields");
    let long = |length: usize| {
        let line = format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "p".repeat(length));
        let (got, _) = raw(run.address, &line);
        got.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(long(60_000), "200");
    assert!(["414", "431"].contains(&long(65_500).as_str()) && ["414", "431"].contains(&long(100_000).as_str()));
    assert_eq!(run.get("/").status, 200);
    run.workload.delete().await.unwrap();
}

/// How many descriptors a process has open.
fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Writes `part` again and again, with pauses, until the server ends the connection; answers what it said.
fn trickle(
    mut stream: TcpStream,
    begin: &str,
    part: &'static [u8],
    pause: Duration,
) -> std::thread::JoinHandle<Option<String>> {
    stream.write_all(begin.as_bytes()).unwrap();
    std::thread::spawn(move || {
        stream.set_nonblocking(true).unwrap();
        let begun = Instant::now();
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        while begun.elapsed() < 3 * LIMIT {
            match stream.read(&mut buffer) {
                Ok(0) => return Some(String::from_utf8_lossy(&got).into_owned()),
                Ok(length) => got.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return Some(String::from_utf8_lossy(&got).into_owned()),
            }
            let _ = stream.write(part);
            std::thread::sleep(pause);
        }
        None
    })
}

/// Connects from an address of the loopback, as another client would.
fn connect_from(from: &str, to: std::net::SocketAddr) -> Option<TcpStream> {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).ok()?;
    bind(&socket, &std::net::SocketAddr::new(from.parse().unwrap(), 0)).ok()?;
    connect(&socket, &to).ok()?;
    Some(TcpStream::from(socket))
}

/// Connections of two clients, each with a request that waits for an instance.
fn waiting_clients(address: std::net::SocketAddr, request: &str) -> Vec<TcpStream> {
    let froms = ["127.0.0.2", "127.0.0.3"].iter().flat_map(|from| (0..512).map(move |_| from));
    let connect = |from| {
        let mut stream = connect_from(from, address)?;
        stream.set_nonblocking(true).unwrap();
        stream.write_all(request.as_bytes()).ok()?;
        Some(stream)
    };
    let clients: Vec<TcpStream> = froms.filter_map(|from| connect(from)).collect();
    assert!(clients.len() > 900, "{}", clients.len());
    // Long enough for what is read at all.
    std::thread::sleep(Duration::from_millis(500));
    clients
}

/// Nobody's account has what connections take before a request is there: the kernel would end the whole process.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_of_many_clients_ends_no_host() {
    let rig = Rig::new();
    let mut spec = rig.spec("small", &[("bireme.instances", "2"), ("bireme.timeout", "4s")]);
    spec.resources.memory = Some(16 << 20);
    let probe = rig.run(spec, "probe").await;
    let pid = probe.workload.pid().unwrap();
    assert_eq!(probe.get("/").status, 200);
    // Bare, and behind a body that had the connection's buffer grow.
    let half = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(63_000));
    let body = "b".repeat(150_000);
    let grown = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 150000\r\n\r\n{body}");
    for first in ["", grown.as_str()] {
        let clients: Vec<TcpStream> = (0..2500)
            .filter_map(|_| {
                let mut stream = TcpStream::connect(probe.address).ok()?;
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
                // Those beyond what one client may have are closed.
                if !first.is_empty() {
                    stream.write_all(first.as_bytes()).ok()?;
                    let mut answer = vec![0; 200_000];
                    let mut read = 0;
                    while read < 150_000 {
                        read += stream.read(&mut answer[read..]).ok().filter(|count| *count > 0)?;
                    }
                }
                stream.set_nonblocking(true).unwrap();
                let _ = stream.write(half.as_bytes());
                Some(stream)
            })
            .collect();
        assert!(clients.len() > 400, "{}", clients.len());
        // Long enough for what is read at all.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the kernel ended the host");
        drop(clients);
        until("an answer to others", || try_get(probe.address, "/").is_ok_and(|answer| answer.status == 200));
    }
    assert_eq!(probe.workload.pid(), Some(pid));
    // Whole requests that wait for a place, with others sent behind them, from two clients.
    let fields: String = (0..118).map(|n| format!("A{n}: {}\r\n", "x".repeat(500))).collect();
    let whole = format!("GET /sleep?20000 HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let clients = waiting_clients(probe.address, &whole);
    for mut stream in &clients {
        let _ = stream.write(whole.as_bytes());
        let _ = stream.write(half.as_bytes());
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the kernel ended the host");
    drop(clients);
    until("an answer to others", || try_get(probe.address, "/").is_ok_and(|answer| answer.status == 200));
    // Long paths, which reach a component in further fields.
    let path = "p".repeat(60_000);
    let clients = waiting_clients(probe.address, &format!("GET /sleep?20000&{path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    for mut stream in &clients {
        let _ = stream.write(half.as_bytes());
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the kernel ended the host");
    drop(clients);
    until("an answer to others", || try_get(probe.address, "/").is_ok_and(|answer| answer.status == 200));
    // The same with bodies that nobody reads: the kernel holds those, and may count them to the host.
    let posted = format!("POST /sleep?20000 HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n{fields}\r\n");
    let clients = waiting_clients(probe.address, &posted);
    let part = vec![b'b'; 64 << 10];
    let sent = Instant::now();
    while sent.elapsed() < Duration::from_secs(3) {
        for mut stream in &clients {
            while stream.write(&part).is_ok_and(|length| length == part.len()) {}
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the kernel ended the host");
    drop(clients);
    until("an answer to others", || try_get(probe.address, "/").is_ok_and(|answer| answer.status == 200));
    assert_eq!(probe.workload.pid(), Some(pid));
    // Large heads are read as ever, one behind the other on a connection, and behind a body.
    let field = "y".repeat(40_000);
    let text = format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nX: {field}\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\nX: {field}\r\nConnection: close\r\n\r\n"
    );
    let (said, _) = raw(probe.address, &text);
    assert_eq!(said.matches("HTTP/1.1 200").count(), 2, "{said}");
    probe.workload.delete().await.unwrap();
}

/// The kernel holds what a client has not read of its last answer, beside all connections that may be.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_nobody_reads_count_as_connections() {
    let rig = Rig::new();
    let mut spec = rig.spec("small", &[("bireme.instances", "4")]);
    spec.resources.memory = Some(6 << 20);
    let probe = rig.run(spec, "probe").await;
    assert_eq!(probe.get("/").status, 200);
    let ask = b"GET /big?60000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let clients: Vec<TcpStream> = (0..900)
        .filter_map(|_| {
            // Room for little, so that the rest stays where it was sent from.
            let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
            let socket = socket.unwrap();
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
            rustix::net::connect(&socket, &probe.address).ok()?;
            let mut stream = TcpStream::from(socket);
            stream.write_all(ask).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // Those beyond what one client may have are closed.
            (stream.read(&mut [0; 16]).ok()? > 0).then_some(stream)
        })
        .collect();
    assert!((400..=512).contains(&clients.len()), "{}", clients.len());
    // Whoever reads late has all of it; and the places of who leaves are free again.
    let mut late = clients.into_iter().next().unwrap();
    let mut rest = Vec::new();
    late.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > 59_000, "{}", rest.len());
    until("an answer to others", || try_get(probe.address, "/").is_ok_and(|answer| answer.status == 200));
    probe.workload.delete().await.unwrap();
}

/// A head that comes byte by byte, a body that never ends or never comes, an answer that nobody reads, and nothing at all:
/// each gives back what it holds.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_give_back_what_they_hold() {
    let rig = Rig::new();
    let spec = rig.spec("patient", &[("bireme.timeout", "2s"), ("bireme.instances", "4"), ("bireme.queue", "0")]);
    let probe = rig.run(spec, "probe").await;
    let pid = probe.workload.pid().unwrap();
    assert_eq!(probe.get("/").status, 200);
    let before = descriptors(pid);
    let connect = || TcpStream::connect(probe.address).unwrap();
    let often = Duration::from_millis(200);

    // These hold an instance each.
    let endless = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let endless = trickle(connect(), endless, b"1\r\nx\r\n", often);
    let absent = trickle(connect(), "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n", b"", often);
    let unread: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = connect();
            stream.write_all(b"GET /big?60000000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            stream
        })
        .collect();
    until("four instances at work", || futures_now(probe.workload.processes("")).rows.len() == 4);
    assert_eq!(probe.get("/").status, 503, "there is no fifth");
    until("the end of the four", || futures_now(probe.workload.processes("")).rows.is_empty());
    assert_eq!(probe.get("/").status, 200);
    for slow in [endless, absent] {
        let said = slow.join().unwrap().expect("the connection is ended");
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 504") || said.starts_with("HTTP/1.1 200"), "{said}");
        assert!(!said.ends_with("0\r\n\r\n"), "an answer that broke off ended as if it were whole: {said}");
    }

    // These hold a connection and no instance.
    let heads = [
        trickle(connect(), "GET /a", b"a", often),
        trickle(connect(), "GET / HTTP/1.1\r\nHost: a\r\nX: ", b"y", often),
        trickle(connect(), "", b"", often),
        trickle(connect(), "GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", often),
    ];
    for slow in heads {
        slow.join().unwrap().expect("the connection is ended");
    }
    // The kernel ends what is not read.
    let begun = Instant::now();
    while descriptors(pid) > before {
        assert!(begun.elapsed() < 4 * LIMIT, "{} descriptors instead of {before}", descriptors(pid));
        std::thread::sleep(often);
    }
    drop(unread);
    assert_eq!(probe.get("/").status, 200);
    let stats = probe.workload.as_invocations().unwrap().invocations().await.unwrap();
    assert_eq!((stats.alive, stats.queued), (0, 0), "{stats:?}");
    probe.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_turned_away_is_told_once_in_a_while_by_the_name_it_has() {
    let rig = Rig::new();
    let spec = rig.spec("before", &[("bireme.instances", "1"), ("bireme.queue", "0")]);
    let run = rig.run(spec, "probe").await;
    run.workload.renamed("after").await;
    let busy = TcpStream::connect(run.address).unwrap();
    (&busy).write_all(b"GET /sleep?20000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    until("an instance at work", || !futures_now(run.workload.processes("")).rows.is_empty());
    for _ in 0..5 {
        let answer = run.get("/turned-away");
        assert_eq!(answer.status, 503);
        assert!(answer.body.starts_with("after has no free instance"), "{answer:?}");
    }
    let text = "GET /turned-away was answered with 503: no instance came free (bireme.instances=1, bireme.queue=0)";
    run.logged(text);
    assert_eq!(run.log().matches("answered with 503").count(), 1, "{}", run.log());
    drop(busy);
    run.workload.delete().await.unwrap();
}
