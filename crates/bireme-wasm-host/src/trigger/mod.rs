//! What starts instances. One module per kind.

pub(crate) mod command;
pub(crate) mod http;
pub(crate) mod redis;

use crate::account::Account;

/// What the workload's log says of an instance that was ended because of [`Cut::Memory`](crate::guarded::Cut::Memory).
pub(crate) const ENDED_FOR_MEMORY: &str =
    "it had more memory than any other when the host process had as much as it may, and was ended";

/// Why an invocation failed, in one line, for the workload's log.
pub(crate) fn reason(account: &Account, error: &wasmtime::Error) -> String {
    if account.was_refused() {
        // Guests abort when they are refused memory, which traps like any other fault.
        return format!("it reached its memory limit: {}", account.limit_text());
    }
    if let Some(trap) = error.downcast_ref::<wasmtime::Trap>() {
        return format!("it trapped: {trap}");
    }
    crate::compile::root(error)
}
