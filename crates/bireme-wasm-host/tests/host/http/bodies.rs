//! Bodies of requests and answers.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::common::{LIMIT, Rig, futures_now, raw, read_answer, until};

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
