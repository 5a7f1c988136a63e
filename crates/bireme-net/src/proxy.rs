//! Published ports that a socket of ours passes on, because no rule can: from IPv6 to an IPv4 workload, and from `::1`.
//!
//! There are only so many places, for each port and for all of them together, and who gets one is decided in
//! [`crate::places`].

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::Instant;

use crate::places::{Decision, Held, Source, decide, places_of_all_ports};

/// How much is passed on at once for one port.
#[derive(Clone, Copy)]
struct Bounds {
    /// Connections, or clients that are remembered.
    most: usize,
    /// What has been silent for so long makes room for what is new.
    quiet: Duration,
}

const TCP: Bounds = Bounds { most: 1024, quiet: Duration::from_secs(10) };
const UDP: Bounds = Bounds { most: 1024, quiet: Duration::from_secs(1) };
/// A client of a UDP port is forgotten after so long a silence, as by Docker's proxy.
const SILENCE: Duration = Duration::from_secs(90);
const LARGEST: usize = 65_535;

/// A port being passed on; it ends when dropped.
pub(crate) struct Passing(JoinSet<()>);

impl Passing {
    /// Ends it; the port is free when this returns.
    pub(crate) async fn end(mut self) {
        self.0.shutdown().await;
    }
}

/// When something last passed.
#[derive(Clone)]
struct Activity {
    since: Instant,
    /// Nanoseconds after `since`: many come within a millisecond.
    last: Arc<AtomicU64>,
}

impl Activity {
    fn begin() -> Self {
        Self { since: Instant::now(), last: Arc::default() }
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn note(&self) {
        self.last.store(self.elapsed(), Ordering::Relaxed);
    }

    fn silent(&self) -> Duration {
        Duration::from_nanos(self.elapsed().saturating_sub(self.last.load(Ordering::Relaxed)))
    }
}

/// The places of all ports of one engine: each takes descriptors of the daemon, which needs some for everything else.
pub(crate) struct Pool {
    most: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    last: u64,
    guests: HashMap<u64, Pooled>,
}

struct Pooled {
    source: Source,
    activity: Activity,
    /// `None` until it is being served.
    serving: Option<AbortHandle>,
}

impl Pool {
    /// Of a process that may have so many descriptors.
    pub(crate) fn new(files: u64) -> Self {
        Self { most: places_of_all_ports(files), taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock()
    }

    /// A place for `source`, where need be that of somebody at whichever port, who is served no longer then.
    fn place(self: &Arc<Self>, source: Source, activity: &Activity) -> Option<Ticket> {
        let mut taken = self.taken();
        if taken.guests.len() >= self.most {
            let (numbers, held): (Vec<u64>, Vec<Held>) = taken
                .guests
                .iter()
                .map(|(number, one)| (*number, Held { source: one.source, silent: one.activity.silent() }))
                .unzip();
            let Decision::Instead(at) = decide(&held, source, TCP.quiet) else { return None };
            if let Some(serving) = taken.guests.remove(&numbers[at]).and_then(|one| one.serving) {
                serving.abort();
            }
        }
        taken.last += 1;
        let number = taken.last;
        taken.guests.insert(number, Pooled { source, activity: activity.clone(), serving: None });
        drop(taken);
        Some(Ticket { pool: Arc::clone(self), number })
    }
}

/// A place in a [`Pool`], given back when dropped.
struct Ticket {
    pool: Arc<Pool>,
    number: u64,
}

impl Ticket {
    /// By this the place is taken away again.
    fn serves(&self, serving: &AbortHandle) {
        match self.pool.taken().guests.get_mut(&self.number) {
            Some(one) => one.serving = Some(serving.clone()),
            // Somebody has it already.
            None => serving.abort(),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.pool.taken().guests.remove(&self.number);
    }
}

/// Somebody who has a place; what is done for him ends when it is dropped.
struct Guest<T> {
    source: Source,
    activity: Activity,
    serving: AbortHandle,
    what: T,
    _ticket: Ticket,
}

impl<T> Drop for Guest<T> {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Whether there is a place for `source`, where need be somebody else's, whose guest is dropped.
fn room<K: Clone + Eq + std::hash::Hash, T>(guests: &mut HashMap<K, Guest<T>>, source: Source, bounds: Bounds) -> bool {
    if guests.len() < bounds.most {
        return true;
    }
    let keys: Vec<K> = guests.keys().cloned().collect();
    let held = guests.values().map(|guest| Held { source: guest.source, silent: guest.activity.silent() });
    match decide(&held.collect::<Vec<_>>(), source, bounds.quiet) {
        Decision::Instead(at) => guests.remove(&keys[at]).is_some(),
        Decision::Refuse => false,
    }
}

/// Passes on what connects to `listener`.
pub(crate) fn tcp(
    pool: &Arc<Pool>,
    runtime: &Handle,
    listener: std::net::TcpListener,
    target: SocketAddr,
) -> io::Result<Passing> {
    tcp_within(TCP, pool, runtime, listener, target)
}

fn tcp_within(
    bounds: Bounds,
    pool: &Arc<Pool>,
    runtime: &Handle,
    listener: std::net::TcpListener,
    target: SocketAddr,
) -> io::Result<Passing> {
    let _inside = runtime.enter();
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let pool = Arc::clone(pool);
    let serve = async move {
        let mut guests = HashMap::new();
        let mut connections = JoinSet::new();
        loop {
            // Taken whether or not there is a place: somebody else may be waiting behind who gets one.
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(ended) = connections.join_next_with_id() => {
                    guests.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
                    continue;
                }
            };
            let Ok((client, from)) = accepted else {
                // Out of descriptors: wait for some connection to end rather than spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let source = Source::of(from.ip());
            if !room(&mut guests, source, bounds) {
                continue;
            }
            let activity = Activity::begin();
            let Some(ticket) = pool.place(source, &activity) else { continue };
            let mut client = Watched { stream: client, activity: activity.clone() };
            let serving = connections.spawn(async move {
                if let Ok(mut workload) = TcpStream::connect(target).await {
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut workload).await;
                }
            });
            ticket.serves(&serving);
            guests.insert(serving.id(), Guest { source, activity, serving, what: (), _ticket: ticket });
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn_on(serve, runtime);
    Ok(Passing(tasks))
}

/// A stream of a client, and when something last passed through it.
struct Watched {
    stream: TcpStream,
    activity: Activity,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.activity.note();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        if written.is_ready() {
            self.activity.note();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Passes on what is sent to `socket`, and the answers back to whom they are for.
pub(crate) fn udp(
    pool: &Arc<Pool>,
    runtime: &Handle,
    socket: std::net::UdpSocket,
    target: SocketAddr,
) -> io::Result<Passing> {
    udp_within(UDP, pool, runtime, socket, target)
}

fn udp_within(
    bounds: Bounds,
    pool: &Arc<Pool>,
    runtime: &Handle,
    socket: std::net::UdpSocket,
    target: SocketAddr,
) -> io::Result<Passing> {
    let _inside = runtime.enter();
    socket.set_nonblocking(true)?;
    let socket = Arc::new(UdpSocket::from_std(socket)?);
    let pool = Arc::clone(pool);
    let serve = async move {
        let mut guests: HashMap<SocketAddr, Guest<Arc<UdpSocket>>> = HashMap::new();
        // Each ends with the client that is forgotten.
        let mut answering: JoinSet<SocketAddr> = JoinSet::new();
        let mut buffer = vec![0; LARGEST];
        loop {
            let received = tokio::select! {
                biased;
                // One whose place is somebody else's at another port keeps no socket until something is sent here.
                Some(ended) = answering.join_next_with_id() => {
                    forget(&mut guests, ended);
                    continue;
                }
                received = socket.recv_from(&mut buffer) => received,
            };
            let Ok((count, client)) = received else {
                // An ICMP error of an earlier answer; nothing is wrong with the socket.
                tokio::task::yield_now().await;
                continue;
            };
            let source = Source::of(client.ip());
            if !guests.contains_key(&client) && room(&mut guests, source, bounds) {
                let Ok(workload) = towards(target).await else { continue };
                let (what, activity) = (Arc::new(workload), Activity::begin());
                let Some(ticket) = pool.place(source, &activity) else { continue };
                let answers = answer(Arc::clone(&socket), Arc::clone(&what), client, activity.clone());
                let serving = answering.spawn(answers);
                ticket.serves(&serving);
                guests.insert(client, Guest { source, activity, serving, what, _ticket: ticket });
            }
            if let Some(guest) = guests.get(&client) {
                guest.activity.note();
                let _ = guest.what.send(&buffer[..count]).await;
            }
        }
    };
    let mut tasks = JoinSet::new();
    tasks.spawn_on(serve, runtime);
    Ok(Passing(tasks))
}

/// Forgets a client that nothing was sent to for long, or whose place is taken at another port. Whoever made room here is
/// forgotten already, and may have come again.
fn forget<T>(guests: &mut HashMap<SocketAddr, Guest<T>>, ended: Result<(tokio::task::Id, SocketAddr), JoinError>) {
    match ended {
        Ok((id, client)) => {
            if guests.get(&client).is_some_and(|guest| guest.serving.id() == id) {
                guests.remove(&client);
            }
        }
        Err(error) => guests.retain(|_, guest| guest.serving.id() != error.id()),
    }
}

async fn towards(target: SocketAddr) -> io::Result<UdpSocket> {
    let any = if target.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(target).await?;
    Ok(socket)
}

/// Passes answers of the workload on to `client` until there are none for long.
async fn answer(
    socket: Arc<UdpSocket>,
    workload: Arc<UdpSocket>,
    client: SocketAddr,
    activity: Activity,
) -> SocketAddr {
    while let Ok(Ok(())) = tokio::time::timeout(SILENCE, workload.readable()).await {
        // Not kept while nothing comes: there may be many clients.
        let mut buffer = vec![0; LARGEST];
        match workload.try_recv(&mut buffer) {
            Ok(count) => {
                activity.note();
                let _ = socket.send_to(&buffer[..count], client).await;
            }
            // Nobody listens there yet, or nothing was there after all.
            Err(_) => tokio::task::yield_now().await,
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;

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
}
