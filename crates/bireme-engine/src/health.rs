//! Health: probing a running workload with the timing of Docker's health check.
//!
//! The probe is a command inside it, or, with `bireme.health`, a GET to its first address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bireme_core::ExecSpec;
use bireme_core::clock::now_nanos;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::command::Command;
use crate::container::Handle;
use crate::event::Events;
use crate::request::HealthCheck;
use crate::services::Services;
use crate::view::{Config, Health, HealthProbe};
use crate::{frames, names};

/// How much of a probe's output is kept. Source: Docker's `maxOutputLen`.
const OUTPUT_LIMIT: usize = 4096;
const LOG_LENGTH: usize = 5;
/// How long the end of a probe that was killed is waited for.
const KILLED: Duration = Duration::from_secs(5);

/// Between two probes there is at least this much, whatever an image says: each probe is a process that joins the
/// container, and tens of milliseconds of work for the engine. Docker's API takes a millisecond and more from a request,
/// and what an image says unchecked.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// A health check with every default applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    test: Test,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: u32,
}

impl Check {
    /// Before the next probe. Pure.
    fn pause(&self, starting: bool) -> Duration {
        let asked = if starting { self.start_interval.min(self.interval) } else { self.interval };
        asked.max(LEAST_PAUSE)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Command(Vec<String>),
    /// Path and port of a GET.
    Http {
        path: String,
        port: u16,
    },
}

/// The check of a workload; `None` when it has none or it is switched off.
pub(crate) fn effective(config: &Config) -> Option<Check> {
    let timing = config.health.clone().unwrap_or_default();
    let test = match (&config.spec.bireme.health, timing.test.first().map(String::as_str)) {
        (_, Some("NONE")) => return None,
        (Some(path), _) => {
            let port = config.spec.ports.first().map_or(80, |port| port.number);
            Test::Http { path: path.clone(), port }
        }
        (None, Some("CMD")) => Test::Command(timing.test[1..].to_vec()),
        (None, Some("CMD-SHELL")) => {
            Test::Command(vec!["/bin/sh".to_owned(), "-c".to_owned(), timing.test[1..].join(" ")])
        }
        (None, _) => return None,
    };
    let or = |value: Duration, default| if value.is_zero() { Duration::from_secs(default) } else { value };
    Some(Check {
        test,
        interval: or(timing.interval, 30),
        timeout: or(timing.timeout, 30),
        start_period: timing.start_period,
        start_interval: or(timing.start_interval, 5),
        retries: if timing.retries == 0 { 3 } else { timing.retries },
    })
}

/// Whether a check runs a command inside, which only some executors offer.
pub(crate) fn runs_command(check: Option<&HealthCheck>, http: bool) -> bool {
    !http && check.is_some_and(|check| matches!(check.test.first().map(String::as_str), Some("CMD" | "CMD-SHELL")))
}

/// Probes until `run` is cancelled, and tells the owner after each. `health` is what is known so far of a workload that
/// has run for `ran`; `number` says which run it is.
pub(crate) async fn probe(
    services: Arc<Services>,
    handle: Arc<Handle>,
    check: Check,
    mut health: Health,
    ran: Duration,
    run: CancellationToken,
    number: u64,
) {
    let began = tokio::time::Instant::now();
    let early = || ran + began.elapsed() < check.start_period;
    loop {
        let starting = health.status == "starting" && early();
        let pause = check.pause(starting);
        tokio::select! {
            () = run.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let start = now_nanos();
        let outcome = tokio::select! {
            () = run.cancelled() => return,
            outcome = once(&services.events, &handle, &check) => outcome,
        };
        let (exit_code, output) = outcome;
        let in_start_period = early();
        health.log.push(HealthProbe { start, end: now_nanos(), exit_code, output });
        if health.log.len() > LOG_LENGTH {
            health.log.remove(0);
        }
        judge(&mut health, exit_code == 0, in_start_period, check.retries);
        if !handle.tell(Command::Probed { run: number, health: health.clone() }).await {
            return;
        }
    }
}

/// Counts one probe. Pure.
fn judge(health: &mut Health, passed: bool, in_start_period: bool, retries: u32) {
    if passed {
        health.failing_streak = 0;
        health.status = "healthy".to_owned();
    } else if !(in_start_period && health.status == "starting") {
        health.failing_streak += 1;
        if health.failing_streak >= retries {
            health.status = "unhealthy".to_owned();
        }
    }
}

async fn once(events: &Events, handle: &Handle, check: &Check) -> (i32, String) {
    match &check.test {
        Test::Command(args) => command(events, handle, args, check.timeout).await,
        Test::Http { path, port } => match tokio::time::timeout(check.timeout, http(handle, path, *port)).await {
            Ok(answer) => answer.unwrap_or_else(|error| (1, error.to_string())),
            Err(_) => (-1, exceeded(check.timeout, "")),
        },
    }
}

/// What is told of a probe that took too long; what it had said by then follows. Source: moby's `cmdProbe.run`.
fn exceeded(timeout: Duration, said: &str) -> String {
    let text = format!("Health check exceeded timeout ({timeout:?})");
    if said.is_empty() { text } else { format!("{text}: {said}") }
}

/// Runs a probe inside. One that takes longer than `timeout` is killed with all that it started.
async fn command(events: &Events, handle: &Handle, args: &[String], timeout: Duration) -> (i32, String) {
    let id = names::random_hex();
    let Some(workload) = handle.workload() else { return (1, "not running".to_owned()) };
    let Some(exec) = workload.as_exec() else { return (1, "cannot run commands".to_owned()) };
    let spec = ExecSpec { args: args.to_vec(), ..ExecSpec::default() };
    // A probe is told of as any session is.
    let words = args.join(" ");
    let tell = |action: &str| handle.emit(events, &format!("{action}: {words}"), [("execID", id.as_str())]);
    tell("exec_create");
    tell("exec_start");
    let until = tokio::time::Instant::now() + timeout;
    let kill = async || {
        if let Err(error) = exec.exec_kill(&id).await {
            tracing::warn!(workload.id = handle.id(), %error, "a health probe that took too long could not be killed");
        }
    };
    // Within its time as well: whoever stops the process before its program is executed must not stop the probing.
    let started = match tokio::time::timeout_at(until, exec.exec(&id, spec)).await {
        Ok(Ok(started)) => started,
        Ok(Err(error)) => return (error.exit_code().unwrap_or(1), error.to_string()),
        Err(_) => {
            kill().await;
            return (-1, exceeded(timeout, ""));
        }
    };
    let mut bytes = Vec::new();
    let end = async {
        let said = async {
            started.stream.set_nonblocking(true)?;
            let mut stream = tokio::net::UnixStream::from_std(started.stream)?;
            while let Some((_, frame)) = frames::next(&mut stream).await? {
                let room = OUTPUT_LIMIT.saturating_sub(bytes.len());
                bytes.extend_from_slice(&frame[..frame.len().min(room)]);
            }
            std::io::Result::Ok(())
        };
        // What it said counts also where the rest cannot be read.
        let _ = said.await;
        exec.exec_wait(&id).await
    };
    let ended = tokio::time::timeout_at(until, end).await;
    let said = String::from_utf8_lossy(&bytes).into_owned();
    let died = |code: i32| handle.emit(events, "exec_die", [("execID", id.as_str()), ("exitCode", &code.to_string())]);
    match ended {
        Ok(Ok(code)) => {
            died(code);
            (code, said)
        }
        Ok(Err(error)) => (1, error.to_string()),
        Err(_) => {
            kill().await;
            let code = tokio::time::timeout(KILLED, exec.exec_wait(&id)).await;
            died(code.ok().and_then(Result::ok).unwrap_or(137));
            (-1, exceeded(timeout, &said))
        }
    }
}

async fn http(handle: &Handle, path: &str, port: u16) -> std::io::Result<(i32, String)> {
    let view = handle.view();
    let own = view.endpoints.iter().find_map(|endpoint| endpoint.ipv4);
    let own = own.map(|(address, _)| SocketAddr::new(address, port));
    // On the machine's network it is where it is published.
    let published = view.ports.iter().find(|published| published.container.number == port).map(|published| {
        let host = published.host;
        if host.ip().is_unspecified() { SocketAddr::from(([127, 0, 0, 1], host.port())) } else { host }
    });
    let Some(address) = own.or(published) else {
        return Ok((1, "it has no address to probe".to_owned()));
    };
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: bireme-health\r\nConnection: close\r\n\r\n", view.name);
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(OUTPUT_LIMIT as u64).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let status: u16 = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((i32::from(!(200..400).contains(&status)), text.lines().next().unwrap_or("no answer").to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_only_after_the_start_period() {
        let mut health = Health { status: "starting".to_owned(), ..Health::default() };
        let mut check = |passed, early, expected: (&str, u32)| {
            judge(&mut health, passed, early, 2);
            assert_eq!((health.status.as_str(), health.failing_streak), expected);
        };
        check(false, true, ("starting", 0));
        check(false, false, ("starting", 1));
        check(true, true, ("healthy", 0));
        check(false, true, ("healthy", 1));
        check(false, false, ("unhealthy", 2));
        check(true, false, ("healthy", 0));
    }

    #[test]
    fn there_is_time_between_two_probes_whatever_an_image_says() {
        let check = |interval: u64, start_interval: u64| Check {
            test: Test::Command(Vec::new()),
            interval: Duration::from_nanos(interval),
            timeout: Duration::from_secs(1),
            start_period: Duration::from_secs(1),
            start_interval: Duration::from_nanos(start_interval),
            retries: 1,
        };
        for starting in [true, false] {
            assert_eq!(check(1, 1).pause(starting), LEAST_PAUSE);
            assert_eq!(check(5_000_000_000, 5_000_000_000).pause(starting), Duration::from_secs(5));
        }
        assert_eq!(check(5_000_000_000, 1).pause(true), LEAST_PAUSE);
    }
}
