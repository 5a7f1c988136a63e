//! The schedule trigger: a command that runs again and again, a fresh instance each time.

use std::sync::Arc;
use std::time::Duration;

use bireme_core::clock::now_nanos;
use bireme_core::labels::Schedule;

use super::command;
use crate::workload::Workload;

/// The clock may be set while a run is waited for.
const LOOK: Duration = Duration::from_secs(30);

/// Runs the command at its times until the workload stops. A time at which it still runs is passed over; so are those at
/// which the machine slept.
pub(crate) async fn keep(workload: Arc<Workload>, schedule: Box<Schedule>) {
    let stopped = workload.stopped();
    let mut running: Option<tokio::task::JoinHandle<()>> = None;
    let mut last = now_nanos();
    while let Some(due) = schedule.next_after(last.max(now_nanos())) {
        loop {
            let left = Duration::from_nanos(u64::try_from(due - now_nanos()).unwrap_or(0));
            if left.is_zero() {
                break;
            }
            tokio::select! {
                () = tokio::time::sleep(left.min(LOOK)) => {}
                () = stopped.cancelled() => return,
            }
        }
        // Where the clock is set back, not the same time twice.
        last = due;
        if running.as_ref().is_some_and(|running| !running.is_finished()) {
            workload.component.log.note("bireme: it still runs, so that a time of its schedule is passed over");
            continue;
        }
        let workload = Arc::clone(&workload);
        running = Some(tokio::spawn(async move {
            let exit = command::run(Arc::clone(&workload)).await;
            if exit.code != 0 && !workload.is_stopping() {
                workload.component.log.note(&format!("bireme: the run ended with exit code {}", exit.code));
            }
        }));
    }
    workload.component.log.note("bireme: its schedule has no further time");
}
