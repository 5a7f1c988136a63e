//! `GET /containers/{id}/stats`, with the fields Docker's CLI computes its columns from.

use bireme_core::Stats;
use bireme_core::executor::InterfaceStats;
use serde_json::{Map, Value, json};

use super::time;

/// One reading, with what the whole machine did until then.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub stats: Stats,
    /// Nanoseconds since the Unix epoch.
    pub read: i64,
    /// Processor time of the whole machine, in nanoseconds.
    pub system_cpu: u64,
    pub online_cpus: u32,
    /// Bytes: what a workload without a limit may use.
    pub machine_memory: u64,
}

/// The answer for a workload that runs. `before` is the reading before this one.
pub fn show(id: &str, name: &str, sample: &Sample, before: Option<&Sample>) -> Value {
    let stats = &sample.stats;
    let io = |op: &str, value: u64| json!({ "major": 0, "minor": 0, "op": op, "value": value });
    let block = if stats.block_read == 0 && stats.block_write == 0 {
        json!([])
    } else {
        json!([io("read", stats.block_read), io("write", stats.block_write)])
    };
    let networks: Map<String, Value> =
        stats.networks.iter().map(|(interface, counters)| (interface.clone(), counted(counters))).collect();
    let mut pids = json!({ "current": stats.pids });
    if let Some(limit) = stats.pids_limit {
        pids["limit"] = json!(limit);
    }
    let mut wire = json!({
        "id": id,
        "name": format!("/{name}"),
        "os_type": "linux",
        "read": time::rfc3339(sample.read),
        "preread": before.map_or_else(|| time::NEVER.to_owned(), |before| time::rfc3339(before.read)),
        "pids_stats": pids,
        "blkio_stats": {
            "io_service_bytes_recursive": block, "io_serviced_recursive": null, "io_queue_recursive": null,
            "io_service_time_recursive": null, "io_wait_time_recursive": null, "io_merged_recursive": null,
            "io_time_recursive": null, "sectors_recursive": null
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(Some(sample)),
        "precpu_stats": cpu(before),
        "memory_stats": {
            "usage": stats.memory_usage,
            "max_usage": stats.memory_peak,
            "stats": { "inactive_file": stats.memory_inactive_file },
            "limit": stats.memory_limit.unwrap_or(sample.machine_memory),
        },
    });
    if !networks.is_empty() {
        wire["networks"] = Value::Object(networks);
    }
    wire
}

fn counted(counters: &InterfaceStats) -> Value {
    let InterfaceStats { rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped } =
        counters;
    json!({
        "rx_bytes": rx_bytes,
        "rx_packets": rx_packets,
        "rx_errors": rx_errors,
        "rx_dropped": rx_dropped,
        "tx_bytes": tx_bytes,
        "tx_packets": tx_packets,
        "tx_errors": tx_errors,
        "tx_dropped": tx_dropped,
    })
}

/// The answer for a workload that does not run: zeros, as Docker gives.
pub fn show_idle(id: &str, name: &str) -> Value {
    json!({
        "id": id,
        "name": format!("/{name}"),
        "os_type": "linux",
        "read": time::NEVER,
        "preread": time::NEVER,
        "pids_stats": {},
        "blkio_stats": {
            "io_service_bytes_recursive": null, "io_serviced_recursive": null, "io_queue_recursive": null,
            "io_service_time_recursive": null, "io_wait_time_recursive": null, "io_merged_recursive": null,
            "io_time_recursive": null, "sectors_recursive": null
        },
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": cpu(None),
        "precpu_stats": cpu(None),
        "memory_stats": {},
    })
}

fn cpu(sample: Option<&Sample>) -> Value {
    let empty = Stats::default();
    let stats = sample.map_or(&empty, |sample| &sample.stats);
    let mut wire = json!({
        "cpu_usage": {
            "total_usage": stats.cpu_total,
            "usage_in_kernelmode": stats.cpu_system,
            "usage_in_usermode": stats.cpu_user,
        },
        "throttling_data": {
            "periods": 0, "throttled_periods": stats.throttled_periods, "throttled_time": stats.throttled_time
        },
    });
    if let Some(sample) = sample {
        wire["system_cpu_usage"] = json!(sample.system_cpu);
        wire["online_cpus"] = json!(sample.online_cpus);
    }
    wire
}

#[cfg(test)]
mod tests {
    use bireme_api::models::ContainerStatsResponse;

    use super::*;

    #[test]
    fn readings_have_dockers_shape() {
        let stats = Stats {
            cpu_total: 5,
            memory_usage: 9,
            memory_inactive_file: 2,
            pids: 1,
            pids_limit: Some(10),
            block_read: 4,
            networks: [("eth0".to_owned(), InterfaceStats { rx_bytes: 3, ..Default::default() })].into(),
            ..Stats::default()
        };
        let before = Sample { read: 1_700_000_000_000_000_000, system_cpu: 10, online_cpus: 2, ..Sample::default() };
        let sample =
            Sample { stats, read: 1_700_000_001_000_000_000, system_cpu: 20, machine_memory: 100, ..before.clone() };
        let wire = show("abc", "web", &sample, Some(&before));
        serde_json::from_value::<ContainerStatsResponse>(wire.clone()).unwrap();
        insta::assert_json_snapshot!(wire);
        serde_json::from_value::<ContainerStatsResponse>(show_idle("abc", "web")).unwrap();
    }
}
