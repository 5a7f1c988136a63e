//! One message is handled by one instance.

use std::sync::Arc;

use wasmtime::{InstancePre, Store};

use crate::account::Account;
use crate::guarded::{Cut, Guarded};
use crate::guest::Guest;
use crate::host::spin1::abi::Abi;
use crate::program::Program;
use crate::trigger::trap::note_trap;
use crate::trigger::{ENDED_FOR_MEMORY, reason};
use crate::workload::{Invocation, Outcome};

/// Has a fresh instance handle one message.
///
/// # Errors
/// Why it failed, for the log.
pub(super) async fn handle(invocation: &mut Invocation, payload: Vec<u8>) -> Result<(), String> {
    let (workload, account) = (&invocation.workload, &invocation.account);
    let component = &workload.component;
    let limit = Some(component.spec.bireme.timeout);
    let ended = Guarded::new(Arc::clone(account), limit, call(&workload.program, account, payload)).await;
    let (outcome, text) = match ended {
        Ok(Ok(Ok(()))) => return Ok(()),
        Ok(Ok(Err(text))) => (Outcome::Failed, text),
        Ok(Err(error)) => (Outcome::Failed, reason(account, &error)),
        Err(Cut::Timeout) => {
            let limit = component.spec.bireme.timeout;
            (Outcome::TimedOut, format!("it took longer than bireme.timeout={limit:?}"))
        }
        Err(Cut::CpuTime) => {
            let limit = component.spec.bireme.cpu_time.unwrap_or_default();
            (Outcome::TimedOut, format!("it used more processor time than bireme.cpu-time={limit:?}"))
        }
        Err(Cut::Memory) => (Outcome::Failed, ENDED_FOR_MEMORY.to_owned()),
        Err(Cut::Broken) => (Outcome::Failed, "the host process failed".to_owned()),
        Err(Cut::Stopped) => (Outcome::Failed, "the component was stopped".to_owned()),
    };
    invocation.outcome = outcome;
    Err(text)
}

/// Calls the handler; the inner error is the guest's own.
async fn call(program: &Program, account: &Arc<Account>, payload: Vec<u8>) -> wasmtime::Result<Result<(), String>> {
    let mut store = match program {
        Program::Spin1(_) => Guest::store_p1(account, 0, None)?,
        _ => Guest::store(account, 0)?,
    };
    let called = call_in(&mut store, program, payload).await;
    called.inspect_err(|error| note_trap(&mut store, error))
}

async fn call_in(
    store: &mut Store<Guest>,
    program: &Program,
    payload: Vec<u8>,
) -> wasmtime::Result<Result<(), String>> {
    match program {
        Program::Spin1(pre) => call_spin1(store, pre, &payload).await,
        Program::RedisP2(pre) => {
            let instance = pre.instantiate_async(&mut *store).await?;
            let result = instance.fermyon_spin_inbound_redis().call_handle_message(store, &payload).await?;
            Ok(result.map_err(|_| "the handler answered with an error".to_owned()))
        }
        Program::RedisP3(pre) => {
            let instance = pre.instantiate_async(&mut *store).await?;
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
    store: &mut Store<Guest>,
    pre: &InstancePre<Guest>,
    payload: &[u8],
) -> wasmtime::Result<Result<(), String>> {
    let (instance, abi) = Abi::begin(store, pre).await?;
    let message = abi.give_text(store, payload).await?;
    let handle = instance.get_typed_func::<(i32, i32), i32>(&mut *store, "handle-redis-message")?;
    let at = handle.call_async(&mut *store, message).await?;
    Ok(match abi.bytes(store, at, 1)?[0] {
        0 => Ok(()),
        _ => Err("the handler answered with an error".to_owned()),
    })
}
