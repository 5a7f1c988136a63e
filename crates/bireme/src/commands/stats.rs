//! `bireme stats`.

use std::time::Duration;

use bireme_api::answers::container::ContainerSummary;
use bireme_api::answers::stats::{CpuStats, MemoryStats, Stats};
use bireme_core::size;
use futures::future::join_all;

use crate::cli::StatsArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::listing::{Listing, Row};
use crate::units;

const LISTING: Listing<'static> = Listing {
    columns: &[
        ("Container", "CONTAINER"),
        ("ID", "CONTAINER ID"),
        ("Name", "NAME"),
        ("CPUPerc", "CPU %"),
        ("MemUsage", "MEM USAGE / LIMIT"),
        ("MemPerc", "MEM %"),
        ("NetIO", "NET I/O"),
        ("BlockIO", "BLOCK I/O"),
        ("PIDs", "PIDS"),
    ],
    shown: &["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"],
    key: "ID",
};

pub(super) async fn stats(context: &Context, args: &StatsArgs) -> Outcome {
    let named = StatsArgs { names: crate::app::resolve_all(context, &args.names).await?, ..args.clone() };
    let args = &named;
    let live = !args.no_stream;
    let clear = live && context.printer.out_is_terminal;
    loop {
        let rows = sample(context, args).await?;
        let text = LISTING.render(&rows, args.format.format.as_deref(), false)?.unwrap_or_default();
        if clear {
            // Up and over the sample before, without a flash of nothing.
            let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
            context.printer.raw(format!("\x1b[H{lines}\x1b[J").as_bytes())?;
        } else {
            context.printer.raw(text.as_bytes())?;
        }
        if !live {
            return Ok(0);
        }
        if rows.is_empty() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

async fn sample(context: &Context, args: &StatsArgs) -> anyhow::Result<Vec<Row>> {
    let names = if args.names.is_empty() {
        let call = context.client.get("/containers/json").query("all", u8::from(args.all));
        let list: Vec<ContainerSummary> = call.read().await?;
        list.into_iter().map(|container| container.id).filter(|id| !id.is_empty()).collect()
    } else {
        args.names.clone()
    };
    let samples = join_all(names.iter().map(|name| async move {
        (name, context.client.get(format!("/containers/{name}/stats")).query("stream", 0).read::<Stats>().await)
    }))
    .await;
    let mut rows = Vec::new();
    for (name, sample) in samples {
        match sample {
            Ok(sample) => rows.push(row(name, &sample, args.no_trunc)),
            // It went while we looked, unless it was asked for by name.
            Err(error) if error.is_not_found() && args.names.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rows)
}

fn row(name: &str, sample: &Stats, no_trunc: bool) -> Row {
    let id = sample.id.as_deref().unwrap_or(name);
    let used = memory(&sample.memory_stats);
    let limit = sample.memory_stats.limit as f64;
    let share = if limit > 0.0 { used / limit * 100.0 } else { 0.0 };
    let (mut received, mut sent) = (0.0, 0.0);
    for interface in sample.networks.values() {
        received += interface.rx_bytes as f64;
        sent += interface.tx_bytes as f64;
    }
    let (mut read, mut written) = (0.0, 0.0);
    for entry in &sample.blkio_stats.io_service_bytes_recursive {
        match entry.op.to_ascii_lowercase().as_str() {
            "read" => read += entry.value as f64,
            "write" => written += entry.value as f64,
            _ => {}
        }
    }
    Row::default()
        .with("Container", name)
        .with("ID", if no_trunc { id.to_owned() } else { units::short_id(id) })
        .with("Name", sample.name.trim_start_matches('/'))
        .with("CPUPerc", format!("{:.2}%", processor(&sample.precpu_stats, &sample.cpu_stats)))
        .with("MemUsage", format!("{} / {}", size::binary(used), size::binary(limit)))
        .with("MemPerc", format!("{share:.2}%"))
        .with("NetIO", format!("{} / {}", size::decimal_short(received), size::decimal_short(sent)))
        .with("BlockIO", format!("{} / {}", size::decimal_short(read), size::decimal_short(written)))
        .with("PIDs", sample.pids_stats.current.to_string())
}

/// Source: docker's `calculateCPUPercentUnix`.
fn processor(before: &CpuStats, now: &CpuStats) -> f64 {
    let used = now.cpu_usage.total_usage as f64 - before.cpu_usage.total_usage as f64;
    let system = now.system_cpu_usage as f64 - before.system_cpu_usage as f64;
    let online = match (now.online_cpus, now.cpu_usage.percpu_usage.len()) {
        (0, 0) => 1.0,
        (0, listed) => listed as f64,
        (online, _) => online as f64,
    };
    if system > 0.0 && used > 0.0 { used / system * online * 100.0 } else { 0.0 }
}

/// In use, without pages of files that could be dropped. Source: docker's `calculateMemUsageUnixNoCache`.
fn memory(memory: &MemoryStats) -> f64 {
    let idle = memory.stats.total_inactive_file.or(memory.stats.inactive_file);
    let used = match idle {
        Some(idle) if idle < memory.usage => memory.usage - idle,
        _ => memory.usage,
    };
    used as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_sample_becomes_dockers_figures() {
        let sample = json!({
            "id": "0123456789abcdef", "name": "/web",
            "cpu_stats": {"cpu_usage": {"total_usage": 300}, "system_cpu_usage": 2000, "online_cpus": 2},
            "precpu_stats": {"cpu_usage": {"total_usage": 100}, "system_cpu_usage": 1000},
            "memory_stats": {"usage": 3_145_728, "limit": 10_485_760, "stats": {"inactive_file": 1_048_576}},
            "networks": {"eth0": {"rx_bytes": 1000, "tx_bytes": 2500}},
            "pids_stats": {"current": 3},
        });
        let sample: Stats = serde_json::from_value(sample).unwrap();
        let text = LISTING.render(&[row("web", &sample, false)], None, false).unwrap().unwrap();
        assert_eq!(
            text.lines().nth(1),
            Some("0123456789ab   web       40.00%    2MiB / 10MiB        20.00%    1kB / 2.5kB   0B / 0B     3")
        );
    }
}
