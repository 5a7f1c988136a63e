//! The Redis trigger: one fresh instance per message of a channel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use wasmtime::InstancePre;

use crate::account::Account;
use crate::guarded::{Cut, Guarded};
use crate::guest::Guest;
use crate::host::redis::dial::dial;
use crate::host::resp::Backlog;
use crate::host::spin1::abi::Abi;
use crate::program::Program;
use crate::workload::{Invocation, Outcome, Workload};

/// How long to wait before another attempt to connect: doubled from the first to the last.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LAST_WAIT: Duration = Duration::from_secs(5);
/// How long a subscription must have lasted before the log is told of its end again.
const STEADY: Duration = Duration::from_secs(10);
/// How often the server is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(10);

const SILENT: &str = "the server does not answer";

/// Listens until the workload stops. Neither a bad message nor a server that goes away ends it.
pub(crate) async fn listen(workload: Arc<Workload>) {
    let component = &workload.component;
    let stopped = workload.stopped();
    let mut wait = FIRST_WAIT;
    let mut told = Told::Nothing;
    loop {
        let mut begun = None;
        let ended = tokio::select! {
            ended = subscribe(&workload, &mut begun, &mut told) => ended,
            () = stopped.cancelled() => return,
        };
        let lasted = begun.map_or(Duration::ZERO, |begun: Instant| begun.elapsed());
        // A server that accepts and drops us is no better than one that does not answer.
        if lasted >= wait {
            wait = FIRST_WAIT;
        }
        if told == Told::Nothing || lasted >= STEADY {
            let channel = component.spec.bireme.subscribe.as_ref().map_or("", |subscription| &subscription.channel);
            component.log.note(&format!("bireme: the subscription to {channel} broke off ({ended}); trying again"));
            told = Told::End;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped.cancelled() => return,
        }
        wait = (wait * 2).min(LAST_WAIT);
    }
}

/// What the log was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    End,
    Again,
}

/// Serves one connection to its end and answers why it ended. `begun` is when the subscription was there.
async fn subscribe(workload: &Arc<Workload>, begun: &mut Option<Instant>, told: &mut Told) -> String {
    let component = &workload.component;
    let Some(subscription) = &component.spec.bireme.subscribe else { return "no channel is set".to_owned() };
    let backlog = Arc::new(Backlog::default());
    let connected = async {
        let behind = Some(Arc::clone(&backlog));
        let (info, stream) = dial(component, &subscription.server, true, behind).await?;
        let mut pubsub =
            redis::aio::PubSub::new(info.redis_settings(), stream).await.map_err(|error| error.to_string())?;
        pubsub.subscribe(&subscription.channel).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(pubsub)
    };
    let pubsub = match tokio::time::timeout(Duration::from_secs(10), connected).await {
        Ok(Ok(pubsub)) => pubsub,
        Ok(Err(error)) => return error,
        Err(_) => return SILENT.to_owned(),
    };
    if *told == Told::End {
        component.log.note(&format!("bireme: subscribed to {} again", subscription.channel));
        *told = Told::Again;
    }
    *begun = Some(Instant::now());
    backlog.begin();
    component.redis.forget();
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
                    let work = format!("message on {}", subscription.channel);
                    let admitted = workload.admit_waiting(work.into()).await;
                    backlog.taken();
                    let Ok(invocation) = admitted else { return "it is being stopped".to_owned() };
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
    let (workload, account) = (&invocation.workload, &invocation.account);
    let component = &workload.component;
    let limit = Some(component.spec.bireme.timeout);
    let ended = Guarded::new(Arc::clone(account), limit, call(&workload.program, account, payload)).await;
    let number = invocation.number;
    let failure = match ended {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(text))) => Some((Outcome::Failed, text)),
        Ok(Err(error)) => Some((Outcome::Failed, super::reason(account, &error))),
        Err(Cut::Timeout) => {
            let limit = component.spec.bireme.timeout;
            Some((Outcome::TimedOut, format!("it took longer than bireme.timeout={limit:?}")))
        }
        Err(Cut::CpuTime) => {
            let limit = component.spec.bireme.cpu_time.unwrap_or_default();
            Some((Outcome::TimedOut, format!("it used more processor time than bireme.cpu-time={limit:?}")))
        }
        Err(Cut::Memory) => Some((Outcome::Failed, super::ENDED_FOR_MEMORY.to_owned())),
        Err(Cut::Broken) => Some((Outcome::Failed, "the host process failed".to_owned())),
        Err(Cut::Stopped) => Some((Outcome::Failed, "the component was stopped".to_owned())),
    };
    if let Some((outcome, text)) = failure {
        component.log.note(&format!("bireme: message {number} failed: {text}"));
        invocation.outcome = outcome;
    }
}

/// Calls the handler; the inner error is the guest's own.
async fn call(program: &Program, account: &Arc<Account>, payload: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
    if let Program::Spin1(pre) = program {
        return call_spin1(account, pre, &payload).await;
    }
    let mut store = Guest::store(account, 0)?;
    match program {
        Program::RedisP2(pre) => {
            let instance = pre.instantiate_async(&mut store).await?;
            let result = instance.fermyon_spin_inbound_redis().call_handle_message(&mut store, &payload).await?;
            Ok(result.map_err(|_| "the handler answered with an error".to_owned()))
        }
        Program::RedisP3(pre) => {
            let instance = pre.instantiate_async(&mut store).await?;
            let result = store
                .run_concurrent(async |accessor| {
                    let result = instance.spin_redis_inbound_redis().call_handle_message(accessor, payload).await;
                    std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                    result
                })
                .await??;
            Ok(result.map_err(|error| format!("the handler answered {error:?}")))
        }
        _ => wasmtime::bail!("not a message handler"),
    }
}

/// The same of a module of Spin before components. Source: its interface `inbound-redis`, in `wit/deps/spin@unversioned`.
async fn call_spin1(
    account: &Arc<Account>,
    pre: &InstancePre<Guest>,
    payload: &[u8],
) -> wasmtime::Result<Result<(), String>> {
    let mut store = Guest::store_p1(account, 0, None)?;
    let (instance, abi) = Abi::begin(&mut store, pre).await?;
    let message = abi.give_text(&mut store, payload).await?;
    let handle = instance.get_typed_func::<(i32, i32), i32>(&mut store, "handle-redis-message")?;
    let at = handle.call_async(&mut store, message).await?;
    Ok(match abi.bytes(&store, at, 1)?[0] {
        0 => Ok(()),
        _ => Err("the handler answered with an error".to_owned()),
    })
}
