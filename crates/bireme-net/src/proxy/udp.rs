//! Datagrams that are passed on, and the answers to them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinSet};

use super::pool::{Activity, Pool};
use super::{Bounds, Guest, Passing, UDP, room};
use crate::places::Source;

/// A client of a UDP port is forgotten after so long a silence, as by Docker's proxy.
const SILENCE: Duration = Duration::from_secs(90);
const LARGEST: usize = 65_535;

/// Passes on what is sent to `socket`, and the answers back to whom they are for.
pub(crate) fn udp(
    pool: &Arc<Pool>,
    runtime: &Handle,
    socket: std::net::UdpSocket,
    target: SocketAddr,
) -> io::Result<Passing> {
    udp_within(UDP, pool, runtime, socket, target)
}

pub(super) fn udp_within(
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
