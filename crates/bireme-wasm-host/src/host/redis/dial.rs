//! Connections to Redis servers, for guests, stores and the trigger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};

use crate::component::{Component, Entered, Held, IDLE};
use crate::host::net;
use crate::host::resp::{Backlog, Measured};
use crate::host::server::take_place;

/// Longest time to connect, and to wait for one answer.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// Whose a connection is.
pub(crate) enum For {
    Guests,
    /// A label's. What is read waits in the backlog, where there is one, until it is taken from there.
    Subscription(Option<Arc<Backlog>>),
}

/// Reads a Redis URL and connects to where its name leads now, from the component's own address.
///
/// # Errors
/// A sentence when it is not a Redis URL, the name is not known or nobody answers. The URL itself, which may hold a
/// password, is left out.
///
/// `named` is whether a label names the server: then the name may lead into private networks, which is where servers are.
pub(crate) async fn dial(
    component: &Component,
    url: &str,
    named: bool,
    user: For,
) -> Result<(ConnectionInfo, Measured), String> {
    let info = url.into_connection_info().map_err(|error| format!("this is not a Redis address: {error}"))?;
    let (host, port) = match info.addr() {
        ConnectionAddr::Tcp(host, port) => (host.clone(), *port),
        ConnectionAddr::TcpTls { .. } => return Err("rediss:// (TLS) is not offered; use redis://".to_owned()),
        _ => return Err("only redis://host:port addresses are offered".to_owned()),
    };
    let host = host.trim_matches(['[', ']']);
    let mut found = net::lookup(component, host).await;
    let Some(first) = found.first().copied() else { return Err(format!("the name {host} is not known")) };
    if !named {
        let covers = |address| component.allow.covers("redis", host, address, port);
        found = net::covered(component, host, found, covers);
    }
    if found.is_empty() {
        return Err(net::leads_inside(host, first));
    }
    let addresses: Vec<SocketAddr> = found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
    // What a label subscribes to is the host's own, and not what guests may leave no room for.
    let (place, backlog) = match user {
        For::Guests => (Some(take_place(component)?), None),
        For::Subscription(backlog) => (None, backlog),
    };
    let stream = tokio::time::timeout(CONNECT, net::dial(component, &addresses)).await;
    let stream = stream.map_err(|_| format!("{host} does not answer"))?.map_err(|error| format!("{host}: {error}"))?;
    let under_way = component.redis.under_way.clone();
    let stream = Measured::new(stream, host, component.memory_limit, under_way, backlog, component.log.clone(), place);
    Ok((info, stream))
}

/// The connection to `url`, made if there is none. Whether the workload may is the caller's to know. It counts as in use
/// for as long as what comes with it is kept.
///
/// # Errors
/// A sentence, also when too many are in use.
pub(crate) async fn connection(
    component: &Component,
    url: &str,
    named: bool,
) -> Result<(MultiplexedConnection, Held), String> {
    let all = &component.redis;
    let Entered { cell, held, permit, number } = match all.known(url) {
        Some(known) => known,
        None => {
            let permit = all.permit().await?;
            all.enter(url, permit)
        }
    };
    let made = cell
        .get_or_try_init(async || {
            let (info, stream) = dial(component, url, named, For::Guests).await?;
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(ANSWER));
            let made = MultiplexedConnection::new_with_config(info.redis_settings(), stream, config);
            let made = tokio::time::timeout(CONNECT, made).await.map_err(|_| "Redis does not answer".to_owned())?;
            let (connection, driver) = made.map_err(|error| error.to_string())?;
            let (all, url) = (all.clone(), url.to_owned());
            let users = Arc::downgrade(&held);
            // Ends when the connection breaks, or when nobody holds it any more. The library waits then for answers
            // that are still to come, which may be for ever.
            tokio::spawn(async move {
                let _permit = permit;
                {
                    let mut driver = std::pin::pin!(driver);
                    while users.strong_count() > 0 && tokio::time::timeout(IDLE / 2, driver.as_mut()).await.is_err() {
                        all.close_idle();
                    }
                }
                all.remove(&url, number);
            });
            Ok::<_, String>(connection)
        })
        .await
        .cloned();
    if made.is_err() {
        all.remove(url, number);
    }
    Ok((made?, held))
}
