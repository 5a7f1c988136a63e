//! One instance at work, held to the limits of its workload.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::account::Account;
use crate::turns::AT_ONCE;

/// Why an invocation was ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Timeout,
    CpuTime,
    Stopped,
    /// So that the process stays within its memory.
    Memory,
    /// The host failed while it ran the instance; told already.
    Broken,
}

/// Runs a guest's future under the limits of its workload: wall time, processor time, and the end of the workload.
///
/// The timer and the registration for the workload's end are made when the guest first waits for something; an
/// invocation that never waits pays for neither. A guest that computes is interrupted by the epoch every 10 ms, so it
/// cannot outrun them.
///
/// A panic of the host below it ends this instance and no more; the future must not be polled again.
pub(crate) struct Guarded<F> {
    inner: Pin<Box<F>>,
    account: Arc<Account>,
    deadline: Option<tokio::time::Instant>,
    waits: Option<Waits>,
    spent: Duration,
}

struct Waits {
    timer: Option<Pin<Box<tokio::time::Sleep>>>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<F: Future> Guarded<F> {
    /// `limit` is on wall time.
    pub(crate) fn new(account: Arc<Account>, limit: Option<Duration>, inner: F) -> Self {
        // A limit beyond what the clock can hold is none.
        let deadline = limit.and_then(|limit| tokio::time::Instant::now().checked_add(limit));
        Self { inner: Box::pin(inner), account, deadline, waits: None, spent: Duration::ZERO }
    }
}

impl<F: Future> Future for Guarded<F> {
    type Output = Result<F::Output, Cut>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let component = &this.account.component;
        let before = Instant::now();
        let inner = &mut this.inner;
        // What it leaves half done is its own state, which is thrown away: see the type.
        let polled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| inner.as_mut().poll(cx)));
        let spent = before.elapsed();
        this.spent += spent;
        component.metrics.cpu.fetch_add(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX), Relaxed);
        match polled {
            Ok(Poll::Ready(output)) => return Poll::Ready(Ok(output)),
            Ok(Poll::Pending) => {}
            Err(panic) => {
                let said = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let said = said.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                let text =
                    format!("the host process failed while it ran an instance of {}: {said}", component.spec.name);
                crate::complain(&text);
                component.log.note(&format!("bireme: {text}"));
                return Poll::Ready(Err(Cut::Broken));
            }
        }
        if component.spec.bireme.cpu_time.is_some_and(|limit| this.spent > limit) {
            return Poll::Ready(Err(Cut::CpuTime));
        }
        if this.account.is_doomed(cx.waker()) {
            return Poll::Ready(Err(Cut::Memory));
        }
        // It does not wait yet. One that goes on waking itself has its limits all the same.
        if this.spent < AT_ONCE && this.account.turns.is_woken() {
            return Poll::Pending;
        }
        let waits = this.waits.get_or_insert_with(|| Waits {
            timer: this.deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline))),
            cut: Box::pin(component.cut.clone().cancelled_owned()),
        });
        if waits.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(Cut::Stopped));
        }
        if waits.timer.as_mut().is_some_and(|timer| timer.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(Cut::Timeout));
        }
        Poll::Pending
    }
}
