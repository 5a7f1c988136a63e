//! An HTTP component of WASI 0.3 that behaves as the last segment of the path says.

use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::sockets::ip_name_lookup;
use wasip3::sockets::types::{
    IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket, UdpSocket,
};
use wasip3::{wit_bindgen, wit_future, wit_stream};

wasip3::http::service::export!(Probe);

struct Probe;

impl wasip3::exports::http::handler::Guest for Probe {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = query.to_owned();
        Ok(match path.rsplit('/').next().unwrap_or_default() {
            // Says `content-length: N` and has no body; with `,body` it opens one and writes nothing into it.
            "length" => {
                let (length, opens) = query.split_once(',').map_or((query.as_str(), false), |(n, _)| (n, true));
                let fields = Fields::from_list(&[("content-length".to_owned(), length.as_bytes().to_vec())]).unwrap();
                bare(fields, opens)
            }
            "status" => {
                let response = bare(Fields::new(), false);
                response.set_status_code(query.parse().unwrap()).unwrap();
                response
            }
            "big" => whole(vec![b'x'; query.parse().unwrap()]),
            "pause" => body(Fields::new(), None, async move |part| {
                part.write_all(b"first\n".to_vec()).await;
                pause(&query).await;
                part.write_all(b"second\n".to_vec()).await;
            }),
            "fall" => body(Fields::new(), None, async move |part| {
                part.write_all(b"first\n".to_vec()).await;
                if !query.is_empty() {
                    pause(&query).await;
                }
                panic!("as asked");
            }),
            "trailers" => {
                let fields = Fields::from_list(&[("trailer".to_owned(), b"x-sum".to_vec())]).unwrap();
                let trailers = Fields::from_list(&[("x-sum".to_owned(), b"42".to_vec())]).unwrap();
                body(fields, Some(trailers), async move |part| {
                    part.write_all(b"summed\n".to_vec()).await;
                })
            }
            // Opens as many as it may, up to `KIND,COUNT,MILLIS,WHERE`, tells how many and why no more, and keeps them.
            "hoard" => {
                let words: Vec<String> = query.split(',').map(str::to_owned).collect();
                let (hoard, why) = hoard(&words[0], words[1].parse().unwrap(), &words[3]).await;
                let text = format!("{} {why}", hoard.len());
                wit_bindgen::spawn(async move {
                    if words[2] != "0" {
                        pause(&words[2]).await;
                    }
                    drop(hoard);
                });
                whole(text.into_bytes())
            }
            // Opens and closes everything, so often.
            "churn" => {
                let (count, place) = query.split_once(',').unwrap();
                for n in 0..count.parse::<u32>().unwrap() {
                    for kind in ["tcp", "udp", "file", "stream", "receive"] {
                        let (hoard, why) = hoard(kind, 1, if kind == "receive" { place } else { "" }).await;
                        assert_eq!(hoard.len(), 1, "{kind} {n}: {why}");
                    }
                }
                whole(b"done".to_vec())
            }
            "log" => {
                let (mut bytes, reader) = wit_stream::new();
                let end = wasip3::cli::stdout::write_via_stream(reader);
                bytes.write_all(format!("out {query}\n").into_bytes()).await;
                drop(bytes);
                end.await.unwrap();
                whole(b"logged\n".to_vec())
            }
            // Prints the beginning of a line to so many streams.
            "outputs" => {
                let (count, millis) = query.split_once(',').unwrap();
                let millis = millis.to_owned();
                let mut streams = Vec::new();
                for _ in 0..count.parse::<u32>().unwrap() {
                    let (mut bytes, reader) = wit_stream::new();
                    let end = wasip3::cli::stdout::write_via_stream(reader);
                    bytes.write_all(b"x".to_vec()).await;
                    streams.push((bytes, end));
                }
                let text = streams.len().to_string();
                wit_bindgen::spawn(async move {
                    pause(&millis).await;
                    drop(streams);
                });
                whole(text.into_bytes())
            }
            "fetch" => told(fetch(&query).await),
            // Writes so many parts of the body that have nothing in them.
            "nothings" => body(Fields::new(), None, async move |part| {
                for _ in 0..query.parse::<u32>().unwrap() {
                    part.write(Vec::new()).await;
                }
                part.write_all(b"done".to_vec()).await;
            }),
            "connect" => told(connect(&query).await),
            "udp" => told(datagram(&query).await),
            _ => whole(b"probe of 0.3".to_vec()),
        })
    }
}

type Part = wit_bindgen::rt::async_support::StreamWriter<u8>;

fn bare(fields: Fields, opens: bool) -> Response {
    let contents = opens.then(|| wit_stream::new().1);
    let (trailers, result) = wit_future::new(|| Ok(None));
    drop(trailers);
    Response::new(fields, contents, result).0
}

/// A response whose body `write` writes.
fn body(fields: Fields, trailers: Option<Fields>, write: impl AsyncFnOnce(&mut Part) + 'static) -> Response {
    let (mut part, receiver) = wit_stream::new();
    let (end, result) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(fields, Some(receiver), result);
    wit_bindgen::spawn(async move {
        write(&mut part).await;
        drop(part);
        let _ = end.write(Ok(trailers)).await;
    });
    response
}

fn whole(bytes: Vec<u8>) -> Response {
    body(Fields::new(), None, async move |part| {
        part.write_all(bytes).await;
    })
}

fn told(result: Result<String, String>) -> Response {
    let (status, text) = result.map_or_else(|text| (502, text), |text| (200, text));
    let response = whole(text.into_bytes());
    response.set_status_code(status).unwrap();
    response
}

async fn pause(millis: &str) {
    wasip3::clocks::monotonic_clock::wait_for(millis.parse::<u64>().unwrap() * 1_000_000).await;
}

/// The first address of `host:port`, whose host may be a name.
async fn find(target: &str) -> Result<(IpAddressFamily, IpSocketAddress), String> {
    let (host, port) = target.rsplit_once(':').ok_or("no port")?;
    let port = port.parse().map_err(|_| "no port")?;
    let found = ip_name_lookup::resolve_addresses(host.to_owned()).await.map_err(|code| format!("lookup: {code:?}"))?;
    Ok(match found.first().ok_or("no address")? {
        IpAddress::Ipv4(address) => {
            let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: *address });
            (IpAddressFamily::Ipv4, address)
        }
        IpAddress::Ipv6(address) => {
            let address = Ipv6SocketAddress { port, flow_info: 0, address: *address, scope_id: 0 };
            (IpAddressFamily::Ipv6, IpSocketAddress::Ipv6(address))
        }
    })
}

async fn connect(target: &str) -> Result<String, String> {
    let (family, address) = find(target).await?;
    let socket = TcpSocket::create(family).map_err(|code| format!("create: {code:?}"))?;
    socket.connect(address).await.map_err(|code| format!("connect: {code:?}"))?;
    Ok("connected".to_owned())
}

/// What another answers: its body, or its status where that is no success.
async fn fetch(url: &str) -> Result<String, String> {
    let rest = url.strip_prefix("http://").ok_or("no http://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let (end, trailers) = wit_future::new(|| Ok(None));
    drop(end);
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    request.set_scheme(Some(&Scheme::Http)).map_err(|()| "scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "authority")?;
    request.set_path_with_query(Some(path)).map_err(|()| "path")?;
    let response = wasip3::http::client::send(request).await.map_err(|code| format!("{code:?}"))?;
    let status = response.get_status_code();
    let (_read, result) = wit_future::new(|| Ok(()));
    let (bytes, _trailers) = Response::consume_body(response, result);
    let text = String::from_utf8_lossy(&bytes.collect().await).into_owned();
    if status == 200 { Ok(text) } else { Err(format!("status {status}")) }
}

/// Opens `count` of one kind, or as many as there may be, and tells why there are no more.
async fn hoard(kind: &str, count: usize, place: &str) -> (Vec<Box<dyn std::any::Any>>, String) {
    let mut hoard: Vec<Box<dyn std::any::Any>> = Vec::new();
    while hoard.len() < count {
        match open(kind, place).await {
            Ok(one) => hoard.push(one),
            Err(why) => return (hoard, why),
        }
    }
    (hoard, "none".to_owned())
}

async fn open(kind: &str, place: &str) -> Result<Box<dyn std::any::Any>, String> {
    use wasip3::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
    match kind {
        "tcp" => Ok(Box::new(TcpSocket::create(IpAddressFamily::Ipv4).map_err(|code| format!("{code:?}"))?)),
        "udp" => Ok(Box::new(UdpSocket::create(IpAddressFamily::Ipv4).map_err(|code| format!("{code:?}"))?)),
        // The socket is closed, and what reads from it is not.
        "receive" => {
            let (family, address) = find(place).await?;
            let socket = TcpSocket::create(family).map_err(|code| format!("{code:?}"))?;
            socket.connect(address).await.map_err(|code| format!("connect: {code:?}"))?;
            Ok(Box::new(socket.receive()))
        }
        // One entry is read, and the others are left.
        "folder" => {
            let folders = wasip3::filesystem::preopens::get_directories();
            let (folder, _) = folders.first().ok_or("no folder")?;
            let (mut entries, end) = folder.read_directory();
            match entries.next().await {
                Some(_) => Ok(Box::new((entries, end))),
                None => Err(format!("{:?}", end.await)),
            }
        }
        "file" | "stream" => {
            let folders = wasip3::filesystem::preopens::get_directories();
            let (folder, _) = folders.first().ok_or("no folder")?;
            let flags = DescriptorFlags::READ;
            let path = if place.is_empty() { "file" } else { place };
            let file = folder.open_at(PathFlags::empty(), path.to_owned(), OpenFlags::empty(), flags).await;
            let file = file.map_err(|code| format!("{code:?}"))?;
            // The file is closed, and what reads from it is not.
            Ok(if kind == "stream" { Box::new(file.read_via_stream(0)) } else { Box::new(file) })
        }
        other => panic!("{other}"),
    }
}

async fn datagram(target: &str) -> Result<String, String> {
    let (family, address) = find(target).await?;
    let socket = UdpSocket::create(family).map_err(|code| format!("create: {code:?}"))?;
    socket.send(b"ping".to_vec(), Some(address)).await.map_err(|code| format!("send: {code:?}"))?;
    let (bytes, _) = socket.receive().await.map_err(|code| format!("receive: {code:?}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
