//! Clients that are slow, many, or read nothing.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common::{LIMIT, Rig, futures_now, raw, try_get, until};

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
