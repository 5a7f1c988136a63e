//! One workload takes the place of another without a gap between them.

use std::sync::Arc;
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::replaced::replaces;

use super::Engine;
use crate::command::Command;
use crate::container::Handle;
use crate::view::Status;

/// How long a workload that is stopped waits for the one that takes its place.
const SUCCEEDS: Duration = Duration::from_secs(10);
/// How long after it was made one is taken for what is about to take a place.
const RECENT: Duration = Duration::from_secs(120);

impl Engine {
    /// Has whatever takes the place of `handle` started, where it can do so while `handle` still runs: the ports stay open,
    /// and each request or message finds one of both. Clients make the successor, stop the old one and start the successor, in this
    /// order; between the last two nobody would answer.
    pub(super) async fn start_successor(&self, handle: &Arc<Handle>) {
        let may = |handle: &Handle| handle.executor.takes_over(&handle.config.spec, !handle.config.publish.is_empty());
        if handle.view().state.status != Status::Running || !may(handle) {
            return;
        }
        let sandbox = |handle: &Handle| handle.executor.sandbox(&handle.config.spec);
        let follows = |other: &Handle| {
            replaces(&other.config.spec.labels, &handle.config.spec.labels)
                && other.view().state.status == Status::Created
                && may(other)
                && sandbox(other) == sandbox(handle)
        };
        // One that was made long ago is what an `up` left that did not come to its end.
        let since = now_nanos().saturating_sub(i64::try_from(RECENT.as_nanos()).unwrap_or(i64::MAX));
        let made = |handle: &Arc<Handle>| handle.config.created;
        let all = self.registry().handles().into_iter();
        let successor = all.filter(|other| made(other) > since && follows(other)).max_by_key(made);
        let Some(successor) = successor else { return };
        match tokio::time::timeout(SUCCEEDS, successor.command(Command::Start)).await {
            Ok(Ok(())) => {}
            // Whoever starts it is told why it does not.
            Ok(Err(error)) => tracing::info!(
                id = %successor.id(),
                error = &error as &dyn std::error::Error,
                "what takes the place of a workload does not start while that runs"
            ),
            Err(_) => tracing::warn!(id = %successor.id(), "what takes the place of a workload is slow to start"),
        }
    }
}
