//! `bireme top`: rates and percentiles from counters, as a table.

pub mod live;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bireme_api::v1::Workload;
use bireme_core::size;
use serde_json::{Value, json};

use crate::listing::align;

/// Percentiles are taken over this much of the past.
const WINDOW: Duration = Duration::from_secs(10);
/// Rates are taken over this much: short enough to follow, long enough to be calm.
const RATE_WINDOW: Duration = Duration::from_millis(2500);
/// Points of the sparkline that are kept.
const POINTS: usize = 300;

/// The samples of the window, and the rates so far.
#[derive(Debug, Default)]
pub struct History {
    samples: VecDeque<(Instant, Vec<Workload>)>,
    total_rates: VecDeque<f64>,
    rates: HashMap<String, VecDeque<f64>>,
}

/// What one workload did in the window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Its service's; its own outside an app.
    pub name: String,
    /// The Compose project; empty outside one.
    pub app: String,
    /// `container` or `component`.
    pub kind: String,
    /// Docker's word, as [`Workload::state`].
    pub state: String,
    /// As it was named at create.
    pub image: String,
    /// Processor use in percent of one processor, over the rate window. A component's is its app's host process.
    pub cpu: f64,
    /// Bytes: of a container, in use; of a component, the largest any instance had.
    pub memory: u64,
    /// How often its policy restarted it.
    pub restarts: u64,
    /// Only of workloads with invocations.
    pub calls: Option<Calls>,
    /// Requests per second of the samples before, oldest first.
    pub history: Vec<f64>,
}

/// What the instances of one component did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calls {
    /// `http`, `redis` or `command`.
    pub trigger: String,
    /// Instances since the start of the workload.
    pub started: u64,
    /// Instances that run now.
    pub alive: u64,
    /// Requests or messages that wait for an instance now.
    pub queued: u64,
    /// Invocations that failed, took too long or were turned away, since the start of the workload.
    pub failed: u64,
    /// Invocations that ended, over the rate window.
    pub per_second: f64,
    /// Microseconds; `None` when nothing was invoked in the window.
    pub p50: Option<u64>,
    /// Likewise.
    pub p99: Option<u64>,
}

impl Row {
    /// Whether instances are started per request or message.
    pub fn is_component(&self) -> bool {
        self.kind == "component"
    }

    /// The row for `--format json`.
    pub fn to_json(&self) -> Value {
        let calls = self.calls.as_ref();
        json!({
            "ID": self.id, "Name": self.name, "App": self.app, "Kind": self.kind, "State": self.state,
            "Image": self.image, "CPUPercent": (self.cpu * 100.0).round() / 100.0, "MemoryBytes": self.memory, "Restarts": self.restarts,
            "Trigger": calls.map(|calls| &calls.trigger), "Started": calls.map(|calls| calls.started),
            "Alive": calls.map(|calls| calls.alive), "Queued": calls.map(|calls| calls.queued),
            "Failed": calls.map(|calls| calls.failed),
            "PerSecond": calls.map(|calls| (calls.per_second * 100.0).round() / 100.0),
            "P50Micros": calls.and_then(|calls| calls.p50), "P99Micros": calls.and_then(|calls| calls.p99),
        })
    }
}

impl History {
    /// Adds a sample taken at `now`.
    pub fn push(&mut self, now: Instant, workloads: Vec<Workload>) {
        self.samples.push_back((now, workloads));
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|(time, _)| now - *time >= WINDOW) {
            self.samples.pop_front();
        }
        let rates: Vec<(String, f64)> =
            self.rows().into_iter().map(|row| (row.id, row.calls.map_or(0.0, |calls| calls.per_second))).collect();
        push(&mut self.total_rates, rates.iter().map(|(_, rate)| rate).sum());
        self.rates.retain(|id, _| rates.iter().any(|(known, _)| known == id));
        for (id, rate) in rates {
            push(self.rates.entry(id).or_default(), rate);
        }
    }

    /// Requests per second of everything, oldest first.
    pub fn total_rates(&self) -> &VecDeque<f64> {
        &self.total_rates
    }

    /// The workloads of the newest sample: by app, components before containers, by name.
    pub fn rows(&self) -> Vec<Row> {
        let Some((now, newest)) = self.samples.back() else { return Vec::new() };
        let before = |least: Duration, id: &str| {
            let sample = self.samples.iter().rev().find(|(time, _)| *now - *time >= least).or(self.samples.front());
            sample
                .filter(|(time, _)| time < now)
                .and_then(|(time, list)| Some((*time, list.iter().find(|workload| workload.id == id)?)))
        };
        let mut rows: Vec<Row> = newest
            .iter()
            .map(|workload| {
                let recent = before(RATE_WINDOW, &workload.id);
                let seconds = recent.map_or(0.0, |(time, _)| (*now - time).as_secs_f64());
                let per_second = |new: u64, old: u64| {
                    // After a restart the counters begin again.
                    let grown = if new >= old { new - old } else { new };
                    if seconds > 0.0 { grown as f64 / seconds } else { 0.0 }
                };
                let cpu = recent.map_or(0.0, |(_, old)| per_second(workload.cpu_total, old.cpu_total)) / 1e7;
                let calls = workload.invocations.as_ref().map(|calls| {
                    let old = recent.and_then(|(_, old)| old.invocations.as_ref());
                    let done = |calls: &bireme_api::v1::Invocations| {
                        calls.succeeded.saturating_add(calls.failed).saturating_add(calls.timed_out)
                    };
                    let oldest = before(WINDOW, &workload.id).and_then(|(_, old)| old.invocations.as_ref());
                    let latency = difference(&calls.latency, oldest.map_or(&[], |old| old.latency.as_slice()));
                    Calls {
                        trigger: calls.trigger.clone(),
                        started: calls.started,
                        alive: calls.alive,
                        queued: calls.queued,
                        failed: calls.failed.saturating_add(calls.timed_out).saturating_add(calls.rejected),
                        per_second: old.map_or(0.0, |old| per_second(done(calls), done(old))),
                        p50: quantile(&latency, 0.5),
                        p99: quantile(&latency, 0.99),
                    }
                });
                Row {
                    id: workload.id.clone(),
                    name: match (&workload.service, &workload.app) {
                        (Some(service), Some(_)) => service.clone(),
                        _ => workload.name.clone(),
                    },
                    app: workload.app.clone().unwrap_or_default(),
                    kind: workload.kind.clone(),
                    state: workload.state.clone(),
                    image: workload.image.clone(),
                    cpu,
                    memory: workload.memory_usage,
                    restarts: workload.restarts,
                    calls,
                    history: self
                        .rates
                        .get(&workload.id)
                        .map(|rates| rates.iter().copied().collect())
                        .unwrap_or_default(),
                }
            })
            .collect();
        // Workloads of no app come last.
        rows.sort_by(|left, right| {
            let key = |row: &Row| {
                (row.app.is_empty(), row.app.clone(), !row.is_component(), row.name.clone(), row.id.clone())
            };
            key(left).cmp(&key(right))
        });
        rows
    }
}

fn push(rates: &mut VecDeque<f64>, rate: f64) {
    rates.push_back(rate);
    if rates.len() > POINTS {
        rates.pop_front();
    }
}

/// What a cumulative histogram gained since an older one.
fn difference(new: &[(u64, u64)], old: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let last = |histogram: &[(u64, u64)]| histogram.last().map_or(0, |(_, count)| *count);
    if last(new) < last(old) {
        return new.to_vec();
    }
    new.iter()
        .map(|(bound, count)| {
            // The older one at the same bound; it may have fewer bounds.
            let before = old.iter().rev().find(|(other, _)| other <= bound).map_or(0, |(_, count)| *count);
            (*bound, count.saturating_sub(before))
        })
        .collect()
}

/// The value below which the share `q` lies, in a straight line within its bucket.
fn quantile(histogram: &[(u64, u64)], q: f64) -> Option<u64> {
    let total = histogram.last().map(|(_, count)| *count).filter(|total| *total > 0)?;
    let rank = q * total as f64;
    let (mut lower, mut below) = (0u64, 0u64);
    for (bound, count) in histogram {
        if *count as f64 >= rank {
            // The last bucket may have no bound of its own.
            if *bound == u64::MAX {
                return Some(lower);
            }
            let share = if *count > below { (rank - below as f64) / (count - below) as f64 } else { 1.0 };
            return Some(lower + ((bound - lower) as f64 * share) as u64);
        }
        (lower, below) = (*bound, *count);
    }
    Some(lower)
}

/// `950µs`, `1.2ms`, `15ms`, `2.1s`.
pub fn latency(micros: Option<u64>) -> String {
    match micros {
        None => "–".to_owned(),
        Some(micros) if micros < 1000 => format!("{micros}µs"),
        Some(micros) if micros < 10_000 => format!("{:.1}ms", micros as f64 / 1e3),
        Some(micros) if micros < 1_000_000 => format!("{}ms", micros / 1000),
        Some(micros) => format!("{:.1}s", micros as f64 / 1e6),
    }
}

/// `7`, `1,234`, `12.3k`, `4.5M`.
pub fn count(count: u64) -> String {
    match count {
        0..=9_999 if count >= 1000 => format!("{},{:03}", count / 1000, count % 1000),
        0..=9_999 => count.to_string(),
        10_000..=999_999 => format!("{:.1}k", count as f64 / 1e3),
        1_000_000..=999_999_999 => format!("{:.1}M", count as f64 / 1e6),
        _ => format!("{:.1}G", count as f64 / 1e9),
    }
}

/// `0`, `0.4`, `12`, `1,234`.
pub fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}") } else { count(rate.round() as u64) }
}

/// Whole units and one letter: `64M`.
pub fn memory(bytes: u64) -> String {
    size::binary(bytes as f64).replace("iB", "")
}

/// The rows as one plain table, for pipes and `--no-stream`.
pub fn plain(rows: &[Row]) -> String {
    let heading = [
        "APP", "NAME", "KIND", "STATE", "STARTED", "ALIVE", "QUEUED", "REQ/S", "P50", "P99", "CPU %", "MEMORY",
        "FAILED",
    ];
    let mut table = vec![heading.map(str::to_owned).to_vec()];
    let dash = || "-".to_owned();
    for row in rows {
        let calls = row.calls.as_ref();
        let of = |get: &dyn Fn(&Calls) -> String| calls.map_or_else(dash, get);
        let plain = |micros: Option<u64>| if micros.is_some() { latency(micros) } else { dash() };
        table.push(vec![
            if row.app.is_empty() { dash() } else { row.app.clone() },
            row.name.clone(),
            row.kind.clone(),
            row.state.clone(),
            of(&|calls| calls.started.to_string()),
            of(&|calls| calls.alive.to_string()),
            of(&|calls| calls.queued.to_string()),
            of(&|calls| format!("{:.1}", calls.per_second)),
            of(&|calls| plain(calls.p50)),
            of(&|calls| plain(calls.p99)),
            format!("{:.1}", row.cpu),
            size::binary(row.memory as f64),
            of(&|calls| calls.failed.to_string()),
        ]);
    }
    align(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bireme_api::v1::Invocations;

    fn component(started: u64, latency: &[(u64, u64)]) -> Workload {
        Workload {
            id: "c".into(),
            name: "app-web-1".into(),
            kind: "component".into(),
            app: Some("app".into()),
            service: Some("web".into()),
            state: "running".into(),
            cpu_total: started * 1_000_000,
            invocations: Some(Invocations {
                trigger: "http".into(),
                started,
                succeeded: started,
                latency: latency.to_vec(),
                memory_peak: 1 << 20,
                ..Invocations::default()
            }),
            ..Workload::default()
        }
    }

    #[test]
    fn rates_and_percentiles_come_from_differences() {
        let begin = Instant::now();
        let mut history = History::default();
        history.push(begin, vec![component(1000, &[(100, 1000), (1000, 1000)])]);
        history.push(begin + Duration::from_secs(1), vec![component(1100, &[(100, 1000), (1000, 1100)])]);
        let row = &history.rows()[0];
        let calls = row.calls.as_ref().unwrap();
        assert_eq!((row.name.as_str(), calls.per_second, row.cpu), ("web", 100.0, 10.0));
        // All hundred of the window lie between 100 and 1000 µs, whatever came before.
        assert_eq!((calls.p50, calls.p99), (Some(550), Some(991)));
        assert_eq!(history.total_rates().back(), Some(&100.0));
    }

    #[test]
    fn counters_that_begin_again_are_no_negative_rate() {
        let begin = Instant::now();
        let mut history = History::default();
        history.push(begin, vec![component(1000, &[(100, 1000)])]);
        history.push(begin + Duration::from_secs(1), vec![component(10, &[(100, 10)])]);
        assert_eq!(history.rows()[0].calls.as_ref().unwrap().per_second, 10.0);
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [latency(None), latency(Some(950)), latency(Some(1250)), latency(Some(15_300)), latency(Some(2_100_000))],
            ["–", "950µs", "1.2ms", "15ms", "2.1s"]
        );
        assert_eq!([count(7), count(1234), count(12_345), count(4_500_000)], ["7", "1,234", "12.3k", "4.5M"]);
        assert_eq!([rate(0.0), rate(0.42), rate(12.4)], ["0", "0.4", "12"]);
        assert_eq!(memory(64 << 20), "64M");
        assert_eq!(quantile(&[(100, 0), (u64::MAX, 5)], 0.5), Some(100));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
