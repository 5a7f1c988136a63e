//! What a component answers, within its limits, and what is answered in its place.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use bireme_core::ErrorKind;

use crate::common::{Rig, futures_now, get, program, send, try_get, until};

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
    probe.logged("    at function ");
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
