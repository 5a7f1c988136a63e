//! An HTTP component that behaves as the last segment of the path says.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, RequestOptions, ResponseOutparam,
    Scheme,
};
use wasip2::io::streams::{OutputStream, StreamError};

wasip2::http::proxy::export!(Probe);

struct Probe;

impl wasip2::exports::http::incoming_handler::Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path.rsplit('/').next().unwrap_or_default() {
            "loop" => loop {
                std::hint::black_box(0);
            },
            "sleep" => {
                let millis = query.parse::<u64>().unwrap_or(600_000);
                wasip2::clocks::monotonic_clock::subscribe_duration(millis * 1_000_000).block();
                reply(out, 200, b"slept\n");
            }
            "hog" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(std::hint::black_box(vec![1u8; 1 << 20]));
                }
            }
            "trap" => panic!("as asked"),
            "echo" => echo(&request, out),
            "headers" => {
                let mut text = String::new();
                for (name, value) in request.headers().entries() {
                    text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(&value)));
                }
                reply(out, 200, text.as_bytes());
            }
            "env" => reply(out, 200, std::env::var(query).unwrap_or_else(|_| "unset".to_owned()).as_bytes()),
            "log" => {
                println!("out {query}");
                eprintln!("err {query}");
                reply(out, 200, b"logged\n");
            }
            "random" => {
                let bytes = wasip2::random::random::get_random_bytes(query.parse().unwrap());
                reply(out, 200, bytes.len().to_string().as_bytes());
            }
            // Adds fields to a set until it is refused, and tells how many there were.
            "fields" => {
                let fields = Fields::new();
                let mut count = 0;
                while count < 100_000 && fields.append(&format!("{query}{count}"), b"").is_ok() {
                    count += 1;
                }
                reply(out, 200, count.to_string().as_bytes());
            }
            // An answer with two lengths.
            "lengths" => {
                let fields = Fields::new();
                let added: Vec<bool> =
                    ["1", "2"].iter().map(|length| fields.append("content-length", length.as_bytes()).is_ok()).collect();
                let response = OutgoingResponse::new(fields);
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                let stream = body.write().unwrap();
                let _ = stream.blocking_write_and_flush(format!("{added:?}").as_bytes());
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            // Takes handles until it is ended.
            "pollables" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(wasip2::clocks::monotonic_clock::subscribe_duration(1_000_000_000_000));
                }
            }
            // Writes nothing, very often, where nobody reads.
            "nothings" => {
                let (_body, stream) = begin(out);
                for _ in 0..query.parse::<u64>().unwrap() {
                    let _ = stream.check_write();
                    let _ = stream.write(b"");
                    let _ = stream.flush();
                }
                pause("60000");
            }
            // Has a path sent that names another server: `AUTHORITY PATH`.
            "target" => {
                let (authority, path) = query.split_once(',').unwrap();
                match ask(Scheme::Http, authority, path, None) {
                    Ok((status, body)) => reply(out, status, &body),
                    Err(text) => reply(out, 502, text.as_bytes()),
                }
            }
            // Waits for nothing at all.
            "hasty" => {
                let options = RequestOptions::new();
                for set in [
                    RequestOptions::set_connect_timeout,
                    RequestOptions::set_first_byte_timeout,
                    RequestOptions::set_between_bytes_timeout,
                ] {
                    let _ = set(&options, Some(0));
                }
                match ask(Scheme::Http, query, "/", Some(options)) {
                    Ok((status, body)) => reply(out, status, &body),
                    Err(text) => reply(out, 502, text.as_bytes()),
                }
            }
            "fetch" => match fetch(query) {
                Ok((status, body)) => reply(out, status, &body),
                Err(text) => reply(out, 502, text.as_bytes()),
            },
            // Says `content-length: N` and has no body; with `,body` it opens one and writes nothing into it.
            "length" => {
                let (length, opens) = query.split_once(',').map_or((query, false), |(length, _)| (length, true));
                let fields = [("content-length".to_owned(), length.as_bytes().to_vec())];
                let response = OutgoingResponse::new(Fields::from_list(&fields).unwrap());
                let body = opens.then(|| response.body().unwrap());
                ResponseOutparam::set(out, Ok(response));
                if let Some(body) = body {
                    let _ = OutgoingBody::finish(body, None);
                }
            }
            "status" => {
                let response = OutgoingResponse::new(Fields::new());
                response.set_status_code(query.parse().unwrap()).unwrap();
                ResponseOutparam::set(out, Ok(response));
            }
            "big" => reply(out, 200, &vec![b'x'; query.parse().unwrap()]),
            // Two parts and a pause.
            "pause" => {
                let (body, stream) = begin(out);
                stream.blocking_write_and_flush(b"first\n").unwrap();
                pause(query);
                stream.blocking_write_and_flush(b"second\n").unwrap();
                drop(stream);
                OutgoingBody::finish(body, None).unwrap();
            }
            // Traps with the body unfinished, after a pause if one is asked for.
            "fall" => {
                let (_body, stream) = begin(out);
                stream.blocking_write_and_flush(b"first\n").unwrap();
                if !query.is_empty() {
                    pause(query);
                }
                panic!("as asked");
            }
            "fall-after" => {
                reply(out, 200, b"all of it\n");
                panic!("as asked");
            }
            "short" => {
                let fields = [("content-length".to_owned(), b"100".to_vec())];
                let response = OutgoingResponse::new(Fields::from_list(&fields).unwrap());
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                body.write().unwrap().blocking_write_and_flush(b"short").unwrap();
                let _ = OutgoingBody::finish(body, None);
            }
            "trailers" => {
                let fields = [("trailer".to_owned(), b"x-sum".to_vec())];
                let response = OutgoingResponse::new(Fields::from_list(&fields).unwrap());
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                body.write().unwrap().blocking_write_and_flush(b"summed\n").unwrap();
                let trailers = Fields::from_list(&[("x-sum".to_owned(), b"42".to_vec())]).unwrap();
                OutgoingBody::finish(body, Some(trailers)).unwrap();
            }
            "lookup" => match std::net::ToSocketAddrs::to_socket_addrs(query) {
                Ok(found) => {
                    let found: Vec<String> = found.map(|address| address.to_string()).collect();
                    reply(out, 200, found.join(" ").as_bytes());
                }
                Err(error) => reply(out, 502, error.to_string().as_bytes()),
            },
            // Sends a datagram and waits for the one that comes back.
            "udp" => match datagram(query) {
                Ok(text) => reply(out, 200, &text),
                Err(error) => reply(out, 502, error.to_string().as_bytes()),
            },
            "listen" => match std::net::TcpListener::bind(query) {
                Ok(_) => reply(out, 200, b"listening"),
                Err(error) => reply(out, 502, error.to_string().as_bytes()),
            },
            "connect" => match std::net::TcpStream::connect(query) {
                Ok(_) => reply(out, 200, b"connected"),
                Err(error) => reply(out, 502, error.to_string().as_bytes()),
            },
            "instance" => {
                static mut COUNT: u32 = 0;
                // SAFETY: an instance has one thread.
                let count = unsafe {
                    COUNT += 1;
                    COUNT
                };
                reply(out, 200, count.to_string().as_bytes());
            }
            // Opens as many as it may, up to `KIND,COUNT,MILLIS,WHERE`, tells how many and why no more, and keeps them.
            "hoard" => {
                let words: Vec<&str> = query.split(',').collect();
                let [kind, count, millis, place] = words.as_slice() else { panic!("KIND,COUNT,MILLIS,WHERE") };
                let (hoard, why) = hoard(kind, count.parse().unwrap(), place);
                reply(out, 200, format!("{} {why}", hoard.len()).as_bytes());
                if *millis != "0" {
                    pause(millis);
                }
            }
            // Opens and closes a file and a socket, so often.
            "churn" => {
                let (count, _) = query.split_once(',').unwrap();
                for n in 0..count.parse::<u32>().unwrap() {
                    for kind in ["tcp", "udp", "file", "stream"] {
                        let (hoard, why) = hoard(kind, 1, "");
                        assert_eq!(hoard.len(), 1, "{kind} {n}: {why}");
                    }
                }
                reply(out, 200, b"done");
            }
            // Asks for room on so many handles of its standard output, and prints nothing.
            "outputs" => {
                let (count, millis) = query.split_once(',').unwrap();
                let outputs: Vec<OutputStream> =
                    (0..count.parse().unwrap()).map(|_| wasip2::cli::stdout::get_stdout()).collect();
                let room = outputs.iter().filter(|output| output.check_write().is_ok_and(|room| room > 0)).count();
                reply(out, 200, room.to_string().as_bytes());
                pause(millis);
            }
            // Writes more than there is room for.
            "overrun" => {
                let output = wasip2::cli::stdout::get_stdout();
                let room = usize::try_from(output.check_write().unwrap()).unwrap();
                let _ = output.write(&vec![b'x'; room + 1]);
                reply(out, 200, b"written");
            }
            "silent" => {}
            _ => reply(out, 200, std::env::var("REPLY").unwrap_or_else(|_| "probe".to_owned()).as_bytes()),
        }
    }
}

fn reply(out: ResponseOutparam, status: u16, text: &[u8]) {
    let response = OutgoingResponse::new(Fields::new());
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    for chunk in text.chunks(4096) {
        stream.blocking_write_and_flush(chunk).unwrap();
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

/// Opens `count` of one kind, or as many as there may be, and tells why there are no more.
fn hoard(kind: &str, count: usize, place: &str) -> (Vec<Box<dyn std::any::Any>>, String) {
    use wasip2::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
    use wasip2::sockets::network::IpAddressFamily;
    let folders = wasip2::filesystem::preopens::get_directories();
    let open = || {
        let flags = DescriptorFlags::READ;
        let (folder, _) = folders.first().ok_or("no folder")?;
        let path = if place.is_empty() { "file" } else { place };
        folder
            .open_at(PathFlags::empty(), path, OpenFlags::empty(), flags)
            .map_err(|code| format!("{code:?}"))
    };
    let mut hoard: Vec<Box<dyn std::any::Any>> = Vec::new();
    while hoard.len() < count {
        let one: Result<Box<dyn std::any::Any>, String> = match kind {
            "tcp" => wasip2::sockets::tcp_create_socket::create_tcp_socket(IpAddressFamily::Ipv4)
                .map(|socket| Box::new(socket) as _)
                .map_err(|code| format!("{code:?}")),
            "udp" => wasip2::sockets::udp_create_socket::create_udp_socket(IpAddressFamily::Ipv4)
                .map(|socket| Box::new(socket) as _)
                .map_err(|code| format!("{code:?}")),
            "file" => open().map(|file| Box::new(file) as _),
            // The file is closed, and what reads from it is not.
            "stream" => open().and_then(|file| {
                file.read_via_stream(0).map(|stream| Box::new(stream) as _).map_err(|code| format!("{code:?}"))
            }),
            "http" => request(Scheme::Http, place, "/", None).map(|answer| Box::new(answer) as _),
            other => panic!("{other}"),
        };
        match one {
            Ok(one) => hoard.push(one),
            Err(why) => return (hoard, why),
        }
    }
    if kind == "http" {
        // Whoever was refused a connection is told at once.
        pause("500");
        let mut asked = 0;
        let mut answered = |answer: &Box<dyn std::any::Any>| {
            // One call of the host has a look at no more than so many at a time.
            asked += 1;
            if asked % 50 == 0 {
                pause("1");
            }
            let answer: &wasip2::http::types::FutureIncomingResponse = answer.downcast_ref().unwrap();
            let _ = answer.subscribe().ready();
            answer.get().map(|answer| format!("{:?}", answer.unwrap().map(|_| ())))
        };
        let mut why = "none".to_owned();
        hoard.retain(|answer| match answered(answer) {
            Some(answer) => {
                why = answer;
                false
            }
            None => true,
        });
        return (hoard, why);
    }
    (hoard, "none".to_owned())
}

fn begin(out: ResponseOutparam) -> (OutgoingBody, OutputStream) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    (body, stream)
}

fn pause(millis: &str) {
    wasip2::clocks::monotonic_clock::subscribe_duration(millis.parse::<u64>().unwrap() * 1_000_000).block();
}

fn datagram(to: &str) -> std::io::Result<Vec<u8>> {
    let to = std::net::ToSocketAddrs::to_socket_addrs(to)?.next().ok_or(std::io::ErrorKind::NotFound)?;
    let socket = std::net::UdpSocket::bind(if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.send_to(b"ping", to)?;
    let mut buffer = [0; 1500];
    let (length, _) = socket.recv_from(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

/// Sends back each chunk as it comes.
fn echo(request: &IncomingRequest, out: ResponseOutparam) {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    let incoming = request.consume().unwrap();
    let input = incoming.stream().unwrap();
    loop {
        match input.blocking_read(4096) {
            Ok(chunk) => stream.blocking_write_and_flush(&chunk).unwrap(),
            Err(StreamError::Closed) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

/// GETs an `http://` or `https://` URL.
fn fetch(url: &str) -> Result<(u16, Vec<u8>), String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    ask(if scheme == "https" { Scheme::Https } else { Scheme::Http }, authority, path, None)
}

fn ask(
    scheme: Scheme,
    authority: &str,
    path: &str,
    options: Option<RequestOptions>,
) -> Result<(u16, Vec<u8>), String> {
    let answer = request(scheme, authority, path, options)?;
    answer.subscribe().block();
    let response = answer.get().ok_or("no answer")?.map_err(|()| "taken")?.map_err(|error| format!("{error:?}"))?;
    let body = response.consume().map_err(|()| "body")?;
    let stream = body.stream().map_err(|()| "stream")?;
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(chunk) => bytes.extend(chunk),
            Err(StreamError::Closed) => return Ok((response.status(), bytes)),
            Err(error) => return Err(format!("{error:?}")),
        }
    }
}

fn request(
    scheme: Scheme,
    authority: &str,
    path: &str,
    options: Option<RequestOptions>,
) -> Result<wasip2::http::types::FutureIncomingResponse, String> {
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(&Method::Get).map_err(|()| "method")?;
    request.set_scheme(Some(&scheme)).map_err(|()| "scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "authority")?;
    request.set_path_with_query(Some(path)).map_err(|()| "path")?;
    outgoing_handler::handle(request, options).map_err(|error| format!("{error:?}"))
}
