//! HTTP components: answers, limits, routes, streams, logs, and life beside a daemon that comes and goes.

mod answers;
mod bodies;
mod clients;
mod life;
mod output;
mod requests;

/// Waits for a future from a thread of a multi-threaded runtime.
fn futures_now<T>(future: impl Future<Output = Result<T, bireme_core::ExecError>>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future)).unwrap()
}
