//! Messages of a Redis channel: whoever listens has them, once and at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bireme_core::labels::Subscription as Label;
use futures::StreamExt as _;

use super::{Connection, SILENT, Subscription, begun, call};
use crate::host::redis::dial::{For, dial};
use crate::host::resp::Backlog;
use crate::workload::{Invocation, Workload};

/// How often the server is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Serves one connection to its end and answers why it ended.
pub(super) async fn serve(
    subscription: &Subscription,
    workload: Arc<Workload>,
    label: &Label,
    connection: &mut Connection,
) -> String {
    let component = &workload.component;
    let backlog = Arc::new(Backlog::default());
    let connected = async {
        let behind = For::Subscription(Some(Arc::clone(&backlog)));
        let (info, stream) = dial(component, &label.server, true, behind).await?;
        let mut pubsub =
            redis::aio::PubSub::new(info.redis_settings(), stream).await.map_err(|error| error.to_string())?;
        pubsub.subscribe(&label.channel).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(pubsub)
    };
    let pubsub = match begun(connected).await {
        Ok(pubsub) => pubsub,
        Err(error) => return error,
    };
    connection.begin(&workload, &label.channel);
    backlog.begin();
    // Another may take over from it while this connection lasts.
    drop(workload);
    let (mut sink, mut messages) = pubsub.split();
    // Answers come in turn, behind messages that may wait for a free instance: what counts is that anything comes.
    let beat = async {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            heartbeat.tick().await;
            if let Err(error) = sink.ping::<redis::Value>().await {
                return error.to_string();
            }
            backlog.taken();
        }
    };
    let mut beat = std::pin::pin!(beat);
    // While messages wait here, nothing is read.
    let mut busy = Instant::now();
    loop {
        let quiet = busy.max(backlog.heard());
        tokio::select! {
            message = messages.next() => match message {
                Some(message) => {
                    // Waiting here for a free instance leaves further messages with the server, but for a few.
                    let invocation = subscription.admit(&format!("message on {}", label.channel)).await;
                    backlog.taken();
                    tokio::spawn(handle(invocation, message.get_payload_bytes().to_vec()));
                    busy = Instant::now();
                }
                None => return "the connection was closed".to_owned(),
            },
            ended = beat.as_mut() => return ended,
            () = tokio::time::sleep((HEARTBEAT * 2).saturating_sub(quiet.elapsed())) => {
                if busy.max(backlog.heard()).elapsed() >= HEARTBEAT * 2 {
                    return SILENT.to_owned();
                }
            }
        }
    }
}

async fn handle(mut invocation: Invocation, payload: Vec<u8>) {
    if let Err(text) = call::handle(&mut invocation, payload).await {
        let number = invocation.number;
        invocation.workload.component.log.note(&format!("bireme: message {number} failed: {text}"));
    }
}
