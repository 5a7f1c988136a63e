//! Requests that are refused before a component has them.

use crate::common::{Rig, raw, send};

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
