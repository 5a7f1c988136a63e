//! Core modules of Spin before components, and programs that answer as CGI programs.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use bireme_core::Executor as _;

use crate::common::{Deployed, Rig, bytes, program, send, until};
use crate::stores::Redis;

fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> crate::common::Answer {
    let length = body.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: example.com:8080\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    send(address, &request).unwrap()
}

async fn module(rig: &Rig, labels: &[(&str, &str)]) -> Deployed {
    let mut spec = rig.spec("spin1", labels);
    spec.env = vec!["COLOUR=blue".to_owned()];
    rig.run(spec, "spin1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_is_asked_and_answers() {
    let rig = Rig::new();
    let module = module(&rig, &[("bireme.http.route", "/...")]).await;
    let answer = post(module.address, "/echo?a=b%20c", "X-Sent: one\r\nX-Sent: two\r\n", "what was sent");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines[0], "1 /echo?a=b%20c");
    for line in [
        "host: example.com:8080",
        "x-sent: one",
        "x-sent: two",
        "spin-path-info: /echo",
        "spin-full-url: http://example.com:8080/echo?a=b%20c",
        "spin-matched-route: /...",
    ] {
        assert!(lines.contains(&line), "{line} is not in {lines:?}");
    }
    assert!(answer.body.ends_with("what was sent"), "{}", answer.body);
    assert!(answer.head.contains("x-two: 1\r\nx-two: 2\r\n"), "{}", answer.head);
    assert_eq!(module.get("/nowhere").status, 404);
    assert_eq!(module.get("/status?204").status, 204);
    assert_eq!(module.get("/env?INITIALIZED").body, "yes", "a reactor is initialised");
    assert_eq!(module.get("/env?COLOUR").body, "blue");
    assert_eq!(module.get("/config?colour").body, "blue");
    let missing = module.get("/config?shape");
    assert!(missing.status == 500 && missing.body.contains("error 3: shape is not set"), "{}", missing.body);
    assert_eq!(module.get("/input").body, "", "there is no standard input");
    assert!(module.get("/kv?default").body.ends_with("1\nErr(\"error 4: \")\ntrue\none,two\nfalse"));
    assert_eq!(module.get("/kv?another").body, "error 2: ");
    for (method, status) in [("PUT", 200), ("PATCH", 200), ("OPTIONS", 200), ("TRACE", 405)] {
        let asked = format!("{method} /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        assert_eq!(send(module.address, &asked).unwrap().status, status, "{method}");
    }
}

/// What a tool chain leaves to its host to make a component of.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_made_for_a_world_is_the_component_that_it_is_meant_to_be() {
    let rig = Rig::new();
    let spec = rig.spec("module", &[("bireme.kv", "default")]);
    let module = rig.run(spec, "spin2-p1").await;
    assert_eq!(module.get("/count").body, "1 of [\"count\"]");
    let component = rig.run(rig.spec("component", &[("bireme.kv", "default")]), "spin2").await;
    assert_eq!(component.get("/count").body, "1 of [\"count\"]");
    // A module whose world is nonsense is refused with a sentence.
    let text = "(module (@custom \"component-type:x\" \"nonsense\") (func (export \"a:b/c#d\")))";
    let broken = crate::common::bytes(&rig, &wat::parse_str(text).unwrap());
    let refused = rig.executor.check(&rig.spec("broken", &[]), &broken).await.unwrap_err();
    assert!(refused.to_string().contains("does not fit the world that it was made for"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_speaks_with_redis_where_it_may() {
    let (rig, redis) = (Rig::new(), Redis::start());
    let url = redis.url();
    let module = module(&rig, &[("bireme.allow", url.as_str())]).await;
    let answer = module.get(&format!("/redis?{url}"));
    let expected =
        "a value\n\"\"\n42\n2\n1\na\n[Bytes(\"a value\"), Nil]\n[Number(7)]\n[Status(\"PONG\")]\nErr(\"error 1\")\n3\n";
    assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{}", module.log());
    module.logged("outbound-redis: what is there is of another type");
    assert_eq!(module.get("/redis?redis://127.0.0.1:9").body, "error 1");
    module.logged("redis://127.0.0.1:9 is not permitted");
    assert_eq!(module.get("/redis?nonsense").body, "error 1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_sends_requests_where_it_may() {
    let rig = Rig::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let asked = std::thread::spawn(move || {
        let mut stream = server.accept().unwrap().0;
        let (mut request, mut part) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"sent") {
            let count = stream.read(&mut part).unwrap();
            request.extend_from_slice(&part[..count]);
        }
        stream.write_all(b"HTTP/1.1 418 Teapot\r\nX-Here: yes\r\nContent-Length: 5\r\n\r\nshort").unwrap();
        String::from_utf8(request).unwrap()
    });
    let allow = format!("http://{address}");
    let module = module(&rig, &[("bireme.allow", allow.as_str())]).await;
    let answer = module.get(&format!("/http?http://{address}/there?x=y"));
    assert_eq!(
        answer.body,
        "(418, [(\"x-here\", \"yes\"), (\"content-length\", \"5\")], \"short\")",
        "{}",
        module.log()
    );
    let asked = asked.join().unwrap();
    assert!(asked.starts_with("POST /there?x=y HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("x-sent: yes\r\n") && asked.contains(&format!("host: {address}\r\n")), "{asked}");
    assert_eq!(module.get("/http?http://127.0.0.1:9/").body, "error 1");
    assert_eq!(module.get("/http?::").body, "error 2");
    assert_eq!(module.get(&format!("/http?http://{address}/")).body, "error 4", "nobody listens any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_fails_costs_its_request_alone() {
    let rig = Rig::new();
    let mut spec = rig.spec("spin1", &[]);
    spec.resources.memory = Some(32 << 20);
    let module = rig.run(spec, "spin1").await;
    assert_eq!(module.get("/crash").status, 500);
    module.logged("GET /crash failed: it trapped: wasm trap: wasm `unreachable` instruction executed");
    assert_eq!(module.get("/status?99").status, 500);
    module.logged("it answered with status 99, which is none");
    assert_eq!(module.get("/header?no:header").status, 500);
    module.logged("it answered with a header that is none");
    assert_eq!(module.get("/grow?1000").body, "1000");
    assert_eq!(module.get("/grow?100000000").status, 500);
    module.logged("it reached its memory limit");
    // A body is paid for by whoever is to read it.
    let large = "x".repeat(40 << 20);
    let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", large.len());
    // It is answered before all of it was sent.
    let _ = std::net::TcpStream::connect(module.address).unwrap().write_all((head + &large).as_bytes());
    module.logged("POST /echo failed: it reached its memory limit");
    assert_eq!(module.get("/status?200").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_claims_to_be_such_a_module_is_refused_or_contained() {
    let rig = Rig::new();
    let handler =
        r#"(func (export "handle-http-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)"#;
    let realloc = r#"(func (export "canonical_abi_realloc") (param i32 i32 i32 i32) (result i32)"#;
    let memory = r#"(memory (export "memory") 1)"#;
    let refused = [
        (
            format!("(module {memory} {realloc} (i32.const 8)) (func (export \"handle-http-request\")))"),
            "handle-http-request",
        ),
        (format!("(module {memory} {handler} (i32.const 8)))"), "canonical_abi_realloc"),
        (format!("(module {realloc} (i32.const 8)) {handler} (i32.const 8)))"), "memory"),
    ];
    for (module, lacks) in refused {
        let module = bytes(&rig, &wat::parse_str(&module).unwrap());
        let spec = rig.spec("refused", &[]);
        let error = bireme_core::Executor::check(&rig.executor, &spec, &module).await.unwrap_err();
        assert!(error.to_string().contains(lacks), "{error}");
    }
    let contained = [
        // It gives memory that it has not.
        format!("(module {memory} {realloc} (i32.const -9)) {handler} (i32.const 8)))"),
        // Its answer is nowhere.
        format!("(module {memory} {realloc} (i32.const 8)) {handler} (i32.const -9)))"),
        // Its body is larger than its memory.
        format!(
            "(module {memory} (data (i32.const 1024) \"\\c8\\00\") (data (i32.const 1040) \"\\01\\00\\00\\00\\00\\00\\00\\00\\ff\\ff\\ff\\7f\") \
             {realloc} (i32.const 8)) {handler} (i32.const 1024)))"
        ),
        // More headers than there is memory.
        format!(
            "(module {memory} (data (i32.const 1024) \"\\c8\\00\\00\\00\\01\\00\\00\\00\\00\\00\\00\\00\\ff\\ff\\ff\\ff\") \
             {realloc} (i32.const 8)) {handler} (i32.const 1024)))"
        ),
    ];
    for module in contained {
        let spec = rig.spec("contained", &[]);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let deployed =
            rig.run_on(spec, &bytes(&rig, &wat::parse_str(&module).unwrap()), address, Some(socket)).await.unwrap();
        assert_eq!(deployed.get("/").status, 500, "{module}");
        deployed.logged("it trapped: wasm trap: out of bounds memory access");
    }
}

/// Each call would have a stack of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_module_asks_nothing_while_it_gives_memory() {
    let rig = Rig::new();
    let module = r#"(module
        (import "spin-config" "get-config" (func $get (param i32 i32 i32)))
        (memory (export "memory") 1)
        (func (export "canonical_abi_realloc") (param i32 i32 i32 i32) (result i32)
            (call $get (i32.const 0) (i32.const 1) (i32.const 64)) (i32.const 128))
        (func (export "handle-http-request") (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) (i32.const 8)))"#;
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let program = bytes(&rig, &wat::parse_str(module).unwrap());
    let deployed = rig.run_on(rig.spec("asks", &[]), &program, address, Some(socket)).await.unwrap();
    assert_eq!(deployed.get("/").status, 500);
    deployed.logged("canonical_abi_realloc of the module calls an import, which it may not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_handles_messages() {
    let (rig, redis) = (Rig::new(), Redis::start());
    let (url, channel) = (redis.url(), format!("{}/spin1", redis.url()));
    let mut spec = rig.spec("inbound", &[("bireme.redis.subscribe", &channel), ("bireme.allow", &url)]);
    spec.env = vec![format!("REDIS={url}")];
    let module = rig.run(spec, "inbound-redis1").await;
    until("a subscription", || redis.command(&["PUBLISH", "spin1", "first"]).trim() == ":1");
    module.logged("message: first");
    until("what it kept", || redis.command(&["GET", "inbound1:last"]).trim() == "first");
    redis.command(&["PUBLISH", "spin1", "fail"]);
    module.logged("failed: the handler answered with an error");
    redis.command(&["PUBLISH", "spin1", "crash"]);
    module.logged("failed: it trapped: wasm trap: wasm `unreachable` instruction executed");
    redis.command(&["PUBLISH", "spin1", "last"]);
    until("what it kept", || redis.command(&["GET", "inbound1:last"]).trim() == "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_answers_as_a_cgi_program() {
    let rig = Rig::new();
    let mut spec =
        rig.spec("wagi", &[("bireme.wagi", "wagi ${ARGS} at ${SCRIPT_NAME}"), ("bireme.http.route", "/cgi/...")]);
    spec.env = vec!["COLOUR=blue".to_owned()];
    spec.resources.memory = Some(16 << 20);
    let wagi = rig.run(spec, "wagi-p1").await;
    let answer = post(
        wagi.address,
        "/cgi/a%20b?show&x=1",
        "Content-Type: text/x\r\nX-Sent: yes\r\nAuthorization: secret\r\nProxy: http://evil.example\r\n",
        "what was sent",
    );
    assert_eq!(answer.status, 200, "{} {}", answer.body, wagi.log());
    assert!(answer.head.contains("x-answered-by: wagi\r\n"), "{}", answer.head);
    let lines: Vec<&str> = answer.body.lines().collect();
    assert_eq!(lines[0], r#"["wagi", "show", "x=1", "at", "/cgi/a%20b"]"#);
    for line in [
        "COLOUR=blue",
        "AUTH_TYPE=",
        "CONTENT_LENGTH=13",
        "CONTENT_TYPE=text/x",
        "GATEWAY_INTERFACE=CGI/1.1",
        "HTTP_X_SENT=yes",
        "PATH_INFO=/a b",
        "QUERY_STRING=show&x=1",
        "REMOTE_ADDR=127.0.0.1",
        "REQUEST_METHOD=POST",
        "SCRIPT_NAME=/cgi",
        "SERVER_NAME=example.com",
        "SERVER_PORT=8080",
        "SERVER_PROTOCOL=HTTP/1.1",
        "SERVER_SOFTWARE=WAGI/1",
        "X_FULL_URL=http://example.com:8080/cgi/a%20b?show&x=1",
        "X_MATCHED_ROUTE=/cgi/...",
        "X_RAW_PATH_INFO=/a%20b",
    ] {
        assert!(lines.contains(&line), "{line} is not in {lines:?}");
    }
    assert!(!answer.body.contains("secret") && !answer.body.contains("evil.example"), "{}", answer.body);
    assert!(answer.body.ends_with("what was sent"), "{}", answer.body);
    wagi.logged("asked for show");
    let head = |path: &str| wagi.get(path).head.to_ascii_lowercase();
    assert!(
        head("/cgi?moved").starts_with("http/1.1 302 found\r\n") && head("/cgi?moved").contains("location: /elsewhere")
    );
    let status = wagi.get("/cgi?status");
    assert_eq!((status.status, status.body.as_str()), (418, "short\n"));
    assert_eq!(wagi.get("/cgi?exit0").body, "left early\n");
    for (path, why) in [
        ("/cgi?nothing", "it printed nothing"),
        ("/cgi?plain", "it printed none of the headers content-type, status and location"),
        ("/cgi?exit", "it ended with code 3"),
        ("/cgi?large&100000", "it reached its memory limit"),
    ] {
        assert_eq!(wagi.get(path).status, 500, "{path}");
        wagi.logged(why);
    }
    assert_eq!(wagi.get("/cgi?large&1000").body.len(), 1024 * 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_programs_answer_as_cgi_programs() {
    let rig = Rig::new();
    for guest in ["spin1", "hello", "command"] {
        let spec = rig.spec(guest, &[("bireme.wagi", "${SCRIPT_NAME}")]);
        let error = bireme_core::Executor::check(&rig.executor, &spec, &program(guest)).await.unwrap_err();
        assert!(error.to_string().contains("label bireme.wagi does not fit"), "{error}");
    }
}
