//! The command trigger: one instance, whose end is the end of the workload.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::{Exit, Labels, WorkloadSpec};
use wasmtime::{InstancePre, Store};
use wasmtime_wasi::I32Exit;

use crate::account::Account;
use crate::guarded::{Cut, Guarded};
use crate::guest::Guest;
use crate::program::Program;
use crate::trigger::trap::note_trap;
use crate::workload::{Outcome, Workload};

/// Runs the command to its end and answers how it ended.
pub(crate) async fn run(workload: Arc<Workload>) -> Exit {
    let component = &workload.component;
    let exit = |code, error| Exit { code, oom_killed: false, finished_at: now_nanos(), error };
    let Ok(mut invocation) = workload.admit(component.spec.args.join(" ").into()).await else {
        return exit(137, Some("it was stopped before it started".to_owned()));
    };
    // A command runs as long as it likes, unless it was said how long: the default is one of requests and messages.
    let limit = time_limit(&component.spec);
    let ended =
        Guarded::new(Arc::clone(&invocation.account), limit, call(&workload.program, &invocation.account)).await;
    let exit = match ended {
        Ok(Ok(code)) => exit(code, None),
        Ok(Err(error)) => match error.downcast_ref::<I32Exit>() {
            Some(I32Exit(code)) => exit(*code, None),
            None => {
                invocation.outcome = Outcome::Failed;
                let reason = super::reason(&invocation.account, &error);
                let text = format!("bireme: {} failed: {reason}", component.name());
                component.log.note_surely(&text).await;
                if invocation.account.was_refused() {
                    // As a Linux process that the kernel ended at its limit.
                    Exit { oom_killed: true, ..exit(137, None) }
                } else {
                    // As a Linux process that aborted.
                    exit(134, None)
                }
            }
        },
        Err(Cut::CpuTime) => {
            invocation.outcome = Outcome::TimedOut;
            let limit = component.spec.bireme.cpu_time.unwrap_or_default();
            let name = component.name();
            let text =
                format!("bireme: {name} used more processor time than bireme.cpu-time={limit:?} allows and was ended");
            component.log.note_surely(&text).await;
            // As a Linux process that SIGXCPU ended.
            exit(152, None)
        }
        Err(Cut::Timeout) => {
            invocation.outcome = Outcome::TimedOut;
            let limit = limit.unwrap_or_default();
            let text = format!("bireme: {} took longer than bireme.timeout={limit:?} and was ended", component.name());
            component.log.note_surely(&text).await;
            // As timeout(1) has it.
            exit(124, None)
        }
        Err(Cut::Memory) => {
            invocation.outcome = Outcome::Failed;
            component.log.note_surely(&format!("bireme: {}: {}", component.spec.name, super::ENDED_FOR_MEMORY)).await;
            Exit { oom_killed: true, ..exit(137, None) }
        }
        Err(Cut::Broken) => {
            invocation.outcome = Outcome::Failed;
            exit(134, Some("the host process failed while it ran the command; see its log".to_owned()))
        }
        Err(Cut::Stopped) => {
            invocation.outcome = Outcome::Failed;
            exit(workload.cut_code(), None)
        }
    };
    drop(invocation);
    exit
}

/// How long a command may run. An image that asks for more than requests are given asks for less than commands are.
fn time_limit(spec: &WorkloadSpec) -> Option<Duration> {
    const TIMEOUT: &str = "bireme.timeout";
    if let Some(asked) = spec.bireme.requested.get(TIMEOUT) {
        return Labels::parse(&BTreeMap::from([(TIMEOUT.to_owned(), asked.clone())])).ok().map(|asked| asked.timeout);
    }
    spec.labels.contains_key(TIMEOUT).then_some(spec.bireme.timeout)
}

async fn call(program: &Program, account: &Arc<Account>) -> wasmtime::Result<i32> {
    let mut store = match program {
        Program::CommandP1(_) => Guest::store_p1(account, 0, None)?,
        _ => Guest::store(account, 0)?,
    };
    let called = call_in(&mut store, program).await;
    called.inspect_err(|error| note_trap(&mut store, error))
}

async fn call_in(store: &mut Store<Guest>, program: &Program) -> wasmtime::Result<i32> {
    let code = |result: Result<(), ()>| i32::from(result.is_err());
    match program {
        Program::CommandP2(pre) => {
            let command = pre.instantiate_async(&mut *store).await?;
            Ok(code(command.wasi_cli_run().call_run(store).await?))
        }
        Program::CommandP3(pre) => {
            let command = pre.instantiate_async(&mut *store).await?;
            let result =
                store.run_concurrent(async |accessor| command.wasi_cli_run().call_run(accessor).await).await??;
            Ok(code(result))
        }
        Program::CommandP1(pre) => {
            start(store, pre).await?;
            Ok(0)
        }
        Program::HttpP2(_) | Program::Http(_) | Program::RedisP2(_) | Program::RedisP3(_) | Program::Spin1(_) => {
            wasmtime::bail!("not a command")
        }
    }
}

/// Runs the main function of a program of WASI preview 1 in a fresh instance.
///
/// # Errors
/// What it traps with; [`I32Exit`] where it ends by itself, also with 0.
pub(super) async fn start(store: &mut Store<Guest>, pre: &InstancePre<Guest>) -> wasmtime::Result<()> {
    let instance = pre.instantiate_async(&mut *store).await?;
    instance.get_typed_func::<(), ()>(&mut *store, "_start")?.call_async(&mut *store, ()).await
}
