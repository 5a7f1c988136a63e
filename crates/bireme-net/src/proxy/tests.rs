use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::runtime::Handle;

use super::tcp::tcp_within;
use super::udp::udp_within;
use super::*;

const FEW: Bounds = Bounds { most: 8, quiet: Duration::from_secs(1) };
const LIMIT: Duration = Duration::from_secs(10);

fn local(text: &str) -> SocketAddr {
    format!("{text}:0").parse().unwrap()
}

/// A workload that gives back what it is sent.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind(local("127.0.0.1")).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn passing(bounds: Bounds) -> (Passing, SocketAddr) {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let passing = tcp_within(bounds, &roomy(), &Handle::current(), listener, echo().await).unwrap();
    (passing, SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port))
}

/// Places for all that is tried here.
fn roomy() -> Arc<Pool> {
    Arc::new(Pool::new(u64::MAX))
}

#[tokio::test]
async fn all_ports_together_have_no_more_places_than_descriptors_allow() {
    // 6 places, at ports that would have 8 each.
    let pool = Arc::new(Pool::new(24));
    let mut ports = Vec::new();
    for _ in 0..3 {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let at = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), listener.local_addr().unwrap().port());
        ports.push((tcp_within(FEW, &pool, &Handle::current(), listener, echo().await).unwrap(), at));
    }
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let (by_udp, target) = (socket.local_addr().unwrap(), echo().await);
    let _udp = udp_within(FEW, &pool, &Handle::current(), socket, target).unwrap();
    let client = UdpSocket::bind(local("127.0.0.2")).await.unwrap();
    client.send_to(b"word", by_udp).await.unwrap();
    while pool.taken().guests.is_empty() {
        tokio::task::yield_now().await;
    }
    // One client fills them all over two of the ports; what he had first makes room, at whichever port it was.
    let mut many = working("127.0.0.2", ports[0].1, 5).await;
    assert_eq!(pool.taken().guests.len(), 6);
    let mut others = Vec::new();
    for at in [ports[1].1, ports[2].1] {
        others.extend(working("127.0.0.3", at, 1).await);
    }
    assert_eq!(pool.taken().guests.len(), 6, "no more than there are");
    assert!(!works(&mut many[0]).await, "his oldest went");
    for stream in &mut others {
        assert!(works(stream).await);
    }
    assert!(!works(&mut connect("127.0.0.2", ports[2].1).await).await, "he pushes nobody out who has less");
    drop((many, others));
    while pool.taken().guests.len() > 1 {
        tokio::task::yield_now().await;
    }
    working("127.0.0.4", ports[0].1, 4).await;
}

async fn connect(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(local(from)).unwrap();
    socket.connect(to).await.unwrap()
}

/// Whether a word comes back.
async fn works(stream: &mut TcpStream) -> bool {
    let talk = async {
        let mut word = [0; 4];
        stream.write_all(b"word").await?;
        stream.read_exact(&mut word).await
    };
    matches!(tokio::time::timeout(LIMIT, talk).await, Ok(Ok(4)))
}

/// Connections of one client that all work.
async fn working(from: &str, at: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let mut stream = connect(from, at).await;
        assert!(works(&mut stream).await);
        all.push(stream);
    }
    all
}

#[tokio::test]
async fn one_client_does_not_lock_the_others_out() {
    let (_passing, at) = passing(FEW).await;
    let mut many = working("127.0.0.2", at, FEW.most).await;
    // Busy or not: he has more than others would have.
    let mut others = working("127.0.0.3", at, FEW.most / 2).await;
    // His oldest went, and the others' work on.
    for stream in others.iter_mut().chain(&mut many[FEW.most / 2..]) {
        assert!(works(stream).await);
    }
    assert!(!works(&mut many[0]).await);
    // With equal shares, nobody makes room while he is busy.
    assert!(!works(&mut connect("127.0.0.3", at).await).await);
    // A third still has less.
    assert!(works(&mut connect("127.0.0.4", at).await).await);
}

#[tokio::test]
async fn what_lies_still_makes_room_for_ones_own() {
    let (_passing, at) = passing(FEW).await;
    let mut many = working("127.0.0.2", at, FEW.most).await;
    tokio::time::sleep(FEW.quiet + FEW.quiet / 4).await;
    for stream in &mut many[1..] {
        assert!(works(stream).await);
    }
    assert!(works(&mut connect("127.0.0.2", at).await).await);
    assert!(!works(&mut many[0]).await, "it was the only idle one");
    assert!(works(&mut many[1]).await);
    // What ended gives its place back.
    drop(many);
    working("127.0.0.2", at, FEW.most - 1).await;
}

#[tokio::test]
async fn one_client_of_udp_does_not_lock_the_others_out() {
    let workload = UdpSocket::bind(local("127.0.0.1")).await.unwrap();
    let target = workload.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((count, from)) = workload.recv_from(&mut buffer).await {
            let _ = workload.send_to(&buffer[..count], from).await;
        }
    });
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let _passing = udp_within(FEW, &roomy(), &Handle::current(), socket, target).unwrap();
    let asks = async |from: &UdpSocket| {
        from.send_to(b"word", at).await.unwrap();
        let mut word = [0; 16];
        let answered = tokio::time::timeout(Duration::from_millis(500), from.recv_from(&mut word)).await;
        matches!(answered, Ok(Ok((4, _))))
    };
    let mut many = Vec::new();
    for _ in 0..FEW.most {
        let socket = UdpSocket::bind(local("127.0.0.2")).await.unwrap();
        assert!(asks(&socket).await);
        many.push(socket);
    }
    let other = UdpSocket::bind(local("127.0.0.3")).await.unwrap();
    assert!(asks(&other).await);
    // One that made room may come again, where something has been silent for long enough.
    tokio::time::sleep(FEW.quiet + FEW.quiet / 4).await;
    assert!(asks(&many[0]).await);
    assert!(asks(&other).await);
}
