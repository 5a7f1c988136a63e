//! One instance, from the request that it is made for to its end.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use bireme_wasm::protocol::Trigger;
use futures::channel::oneshot;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Method, Request, Response, Uri};
use parking_lot::Mutex;
use wasmtime::{AsContextMut as _, Store};
use wasmtime_wasi_http::handler::{Prepared, Proxy};
use wasmtime_wasi_http::p2::bindings::{self, ProxyPre};
use wasmtime_wasi_http::{WasiBody, WasiHttpView as _};

use super::answer::{End, Ended, Instance, failed, failure};
use super::response_body::{Progress, begin_body};
use super::{spin1, wagi};
use crate::account::Account;
use crate::guarded::{Cut, Guarded};
use crate::guest::Guest;
use crate::program::Program;
use crate::trigger::trap::note_trap;
use crate::trigger::{ENDED_FOR_MEMORY, reason};
use crate::workload::{Invocation, Outcome, Workload};

type Answer = oneshot::Sender<Result<Response<WasiBody>, wasmtime::Error>>;

/// Has a fresh instance answer `request`, which is called `what`. `depth` counts the components it has been through before.
pub(super) async fn serve(
    invocation: Invocation,
    what: Arc<str>,
    request: Request<WasiBody>,
    depth: u32,
) -> Response<WasiBody> {
    let component = &Arc::clone(&invocation.workload.component);
    let account = Arc::clone(&invocation.account);
    let head = request.method() == Method::HEAD;
    let (sender, mut response) = oneshot::channel();
    let mut instance: Instance = Box::pin(run(invocation, request, Arc::clone(&what), sender, depth));
    // The instance is polled here until it has answered, without a task of its own. Its answer is looked for after each poll:
    // whoever waited for it would have it wake this very task.
    let (answered, ended) = poll_fn(|cx| {
        account.at_once(cx, |cx| {
            let ended = match instance.as_mut().poll(cx) {
                Poll::Ready(ended) => Some(ended),
                Poll::Pending => None,
            };
            match response.try_recv() {
                Ok(None) if ended.is_none() => Poll::Pending,
                answered => Poll::Ready((answered, ended)),
            }
        })
    })
    .await;
    match (answered, ended) {
        (Ok(Some(Ok(response))), ended) => {
            let instance = ended.is_none().then_some(instance);
            begin_body(&account, &what, head, response, Progress { instance, ended }).await
        }
        (Ok(Some(Err(error))), None) => {
            tokio::spawn(async move { note_failure(&mut instance.await.invocation, &what, &error) });
            failed(component)
        }
        // An instance that was cut off has logged why; the error is only that it did not answer.
        (Ok(Some(Err(error))), Some(mut ended)) if matches!(ended.end, End::Done | End::Failed) => {
            let busy = error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some();
            note_failure(&mut ended.invocation, &what, &error);
            failure(component, if busy { End::Busy } else { End::Failed })
        }
        (_, Some(ended)) => failure(component, ended.end),
        // The sender was dropped without a word: the instance is ending, and tells why.
        (_, None) => failure(component, instance.await.end),
    }
}

fn note_failure(invocation: &mut Invocation, what: &str, error: &wasmtime::Error) {
    invocation.outcome = Outcome::Failed;
    invocation.account.component.log.note(&format!("bireme: {what} failed: {}", reason(&invocation.account, error)));
}

/// Runs one instance to its end.
async fn run(
    mut invocation: Invocation,
    request: Request<WasiBody>,
    what: Arc<str>,
    answer: Answer,
    depth: u32,
) -> Ended {
    let (workload, account) = (&invocation.workload, &invocation.account);
    let component = &workload.component;
    let limit = Some(component.spec.bireme.timeout);
    let mut guarded = Guarded::new(
        Arc::clone(account),
        limit,
        call(Arc::clone(workload), Arc::clone(account), request, answer, depth),
    );
    let ended = (&mut guarded).await;
    let mut remains: Option<Box<dyn Send>> = None;
    let (outcome, end) = match ended {
        Ok(Ok(())) => (Outcome::Succeeded, End::Done),
        Ok(Err((error, _))) if error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>().is_some() => {
            component.note_full(&what);
            (Outcome::Failed, End::Busy)
        }
        Ok(Err((error, store))) => {
            component.log.note(&format!("bireme: {what} failed: {}", reason(account, &error)));
            remains = Some(Box::new(store));
            (Outcome::Failed, End::Failed)
        }
        Err(cut) => {
            remains = Some(Box::new(guarded));
            match cut {
                Cut::Timeout => {
                    let limit = component.spec.bireme.timeout;
                    let text = format!("bireme: {what} was ended: it took longer than bireme.timeout={limit:?}");
                    component.log.note(&text);
                    (Outcome::TimedOut, End::TimedOut)
                }
                Cut::CpuTime => {
                    let limit = component.spec.bireme.cpu_time.unwrap_or_default();
                    component.log.note(&format!(
                        "bireme: {what} was ended: it used more processor time than bireme.cpu-time={limit:?}"
                    ));
                    (Outcome::TimedOut, End::TimedOut)
                }
                Cut::Memory => {
                    component.log.note(&format!("bireme: {what} failed: {}", ENDED_FOR_MEMORY));
                    (Outcome::Failed, End::Failed)
                }
                Cut::Broken => (Outcome::Failed, End::Failed),
                Cut::Stopped => {
                    component.log.note(&format!("bireme: {what} was cut off: {} was stopped", component.name()));
                    (Outcome::Failed, End::Stopped)
                }
            }
        }
    };
    invocation.outcome = outcome;
    Ended { end, invocation, _remains: remains }
}

/// Calls the handler and waits until the instance has nothing more to do. With an error comes the state of the instance,
/// if there was one.
async fn call(
    workload: Arc<Workload>,
    account: Arc<Account>,
    request: Request<WasiBody>,
    answer: Answer,
    depth: u32,
) -> Result<(), (wasmtime::Error, Option<Store<Guest>>)> {
    match &*workload.program {
        Program::HttpP2(_) | Program::Http(_) => {}
        Program::Spin1(pre) => {
            let mut store = Guest::store_p1(&account, depth, None).map_err(|error| (error, None))?;
            let answered = spin1::call(&mut store, &account, pre, request).await;
            return answered.map(|response| drop(answer.send(Ok(response)))).map_err(|error| {
                note_trap(&mut store, &error);
                (error, Some(store))
            });
        }
        program => {
            let answered = wagi::call(&account, program, depth, request).await;
            return answered.map(|response| drop(answer.send(Ok(response))));
        }
    }
    let mut store = Guest::store(&account, depth).map_err(|error| (error, None))?;
    // Those of 0.2 are told by the WASI crate.
    let is_newest = workload.component.trigger == Trigger::HttpP3;
    let request = if is_newest { with_server(request) } else { request };
    let result = call_in(&mut store, &workload.program, request, answer).await;
    result.map_err(|error| {
        note_trap(&mut store, &error);
        (error, Some(store))
    })
}

/// A request that says in its address, too, whom it is for, as components are told it: not all look at its headers.
fn with_server(mut request: Request<WasiBody>) -> Request<WasiBody> {
    let host = request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let (None, Some(host)) = (request.uri().authority(), host) else { return request };
    let mut parts = request.uri().clone().into_parts();
    (parts.scheme, parts.authority) = (Some(Scheme::HTTP), Some(host));
    // One without a path is for the server itself (`OPTIONS *`).
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

async fn call_in(
    store: &mut Store<Guest>,
    program: &Program,
    request: Request<WasiBody>,
    answer: Answer,
) -> wasmtime::Result<()> {
    let pre = match program {
        Program::HttpP2(pre) => return call_in_turn(store, pre, request, answer).await,
        Program::Http(pre) => pre,
        _ => wasmtime::bail!("not an HTTP component"),
    };
    let proxy: Proxy = pre.instantiate_async(&mut *store).await?;
    let proxy = &proxy;
    store
        .run_concurrent(async |accessor| {
            // The answer goes straight to whoever waits outside: while the guest is in a call that blocks it, nothing in
            // here is polled.
            let prepared = accessor.with(|mut store| {
                Prepared::new(store.as_context_mut(), proxy, request, |guest| guest.http(), answer)
            })?;
            prepared.run(accessor, std::future::pending()).await?;
            std::future::poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        })
        .await?
}

/// The same of a component of the sequential engine. What the guest does after its answer is over when the call is.
async fn call_in_turn(
    store: &mut Store<Guest>,
    pre: &ProxyPre<Guest>,
    request: Request<WasiBody>,
    answer: Answer,
) -> wasmtime::Result<()> {
    let proxy = pre.instantiate_async(&mut *store).await?;
    // The guest may set it, or let go of it, once.
    let answer = Arc::new(Mutex::new(Some(answer)));
    let mut view = store.data_mut().http();
    let request = view.new_incoming_request(bindings::http::types::Scheme::Http, request)?;
    let out = view.new_response_outparam_from_callback({
        let answer = Arc::clone(&answer);
        move |response| {
            if let Some(answer) = answer.lock().take() {
                let _ = answer.send(response.map_err(wasmtime::Error::from));
            }
        }
    })?;
    proxy.wasi_http_incoming_handler().call_handle(&mut *store, request, out).await?;
    if let Some(answer) = answer.lock().take() {
        let _ = answer.send(Err(wasmtime::format_err!("guest never invoked `response-outparam::set` method")));
    }
    Ok(())
}
