//! `bireme system df`.

use bireme_api::answers::container::ContainerSummary;
use bireme_api::answers::image::ImageSummary;
use bireme_api::answers::system::{BuildCache, DiskUsage};
use bireme_api::answers::volume::Volume;
use bireme_core::size;

use crate::cli::DfArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::listing::{self, Listing, Row};
use crate::units;

const LISTING: Listing<'static> = Listing {
    columns: &[
        ("Type", "TYPE"),
        ("TotalCount", "TOTAL"),
        ("Active", "ACTIVE"),
        ("Size", "SIZE"),
        ("Reclaimable", "RECLAIMABLE"),
    ],
    shown: &["Type", "TotalCount", "Active", "Size", "Reclaimable"],
    key: "Type",
};

pub(super) async fn df(context: &Context, args: &DfArgs) -> Outcome {
    let usage: DiskUsage = context.client.get("/system/df").read().await?;
    if args.verbose {
        if args.format.format.is_some() {
            return Err(Failure::new("--verbose and --format exclude each other; leave one out").into());
        }
        context.printer.raw(verbose(&usage).as_bytes())?;
    } else {
        LISTING.print(&context.printer, &summary(&usage), args.format.format.as_deref(), false)?;
    }
    Ok(0)
}

/// Bytes; -1 stands for not known.
fn bytes(value: i64) -> f64 {
    value.max(0) as f64
}

fn sum<T>(list: &[T], of: impl Fn(&T) -> f64) -> f64 {
    list.iter().map(of).fold(0.0, |sum, one| sum + one)
}

fn count<T>(list: &[T], test: impl Fn(&T) -> bool) -> usize {
    list.iter().filter(|one| test(one)).count()
}

fn is_up(container: &ContainerSummary) -> bool {
    matches!(container.state.as_str(), "running" | "paused" | "restarting")
}

/// Source: docker/cli, `command/formatter/disk_usage.go`.
fn summary(usage: &DiskUsage) -> Vec<Row> {
    let row = |kind: &str, total: usize, active: usize, size: f64, reclaimable: f64, share: bool| {
        let text = size::decimal(reclaimable);
        Row::default()
            .with("Type", kind)
            .with("TotalCount", total.to_string())
            .with("Active", active.to_string())
            .with("Size", size::decimal(size))
            .with(
                "Reclaimable",
                if share && size > 0.0 {
                    format!("{text} ({:.0}%)", (reclaimable * 100.0 / size).floor())
                } else {
                    text
                },
            )
    };
    let DiskUsage { images, containers, volumes, build_cache, .. } = usage;
    let used = |image: &ImageSummary| image.containers > 0;
    let layers = bytes(usage.layers_size);
    let held = sum(images, |image| if used(image) { bytes(image.size) - bytes(image.shared_size) } else { 0.0 });
    let written = |container: &ContainerSummary| bytes(container.size_rw);
    let stopped = sum(containers, |one| if is_up(one) { 0.0 } else { written(one) });
    let volume = |volume: &Volume| bytes(volume.usage_data.size);
    let mounted = |volume: &Volume| volume.usage_data.ref_count > 0;
    let idle = sum(volumes, |one| if mounted(one) { 0.0 } else { volume(one) });
    let cached = |cache: &BuildCache| if cache.shared { 0.0 } else { bytes(cache.size) };
    let unused = sum(build_cache, |one| if one.in_use { 0.0 } else { cached(one) });
    vec![
        row("Images", images.len(), count(images, used), layers, (layers - held).max(0.0), true),
        row("Containers", containers.len(), count(containers, is_up), sum(containers, written), stopped, true),
        row("Local Volumes", volumes.len(), count(volumes, mounted), sum(volumes, volume), idle, true),
        row(
            "Build Cache",
            build_cache.len(),
            count(build_cache, |cache| cache.in_use),
            sum(build_cache, cached),
            unused,
            false,
        ),
    ]
}

fn verbose(usage: &DiskUsage) -> String {
    let mut out = String::new();
    let mut section = |title: &str, head: &[&str], rows: Vec<Vec<String>>| {
        let mut table = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
        table.extend(rows);
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("{title}\n\n{}", listing::align(&table)));
    };
    let images = usage.images.iter().map(|image| {
        let name = image.repo_tags.first().map_or("<none>:<none>", String::as_str);
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        let (size, shared) = (bytes(image.size), bytes(image.shared_size));
        vec![
            repository.to_owned(),
            tag.to_owned(),
            units::short_id(&image.id),
            if image.created <= 0 { "N/A".to_owned() } else { units::ago(image.created) },
            size::decimal_short(size),
            size::decimal_short(shared),
            size::decimal(size - shared),
            image.containers.max(0).to_string(),
        ]
    });
    section(
        "Images space usage:",
        &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"],
        images.collect(),
    );
    let containers = usage.containers.iter().map(|container| {
        vec![
            units::short_id(&container.id),
            container.image.clone(),
            format!("\"{}\"", units::ellipsis(&container.command, 20)),
            count(&container.mounts, |mount| mount.kind == "volume").to_string(),
            size::decimal_short(bytes(container.size_rw)),
            units::ago(container.created),
            container.status.clone(),
            container.bare_names().next().unwrap_or_default().to_owned(),
        ]
    });
    section(
        "Containers space usage:",
        &["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"],
        containers.collect(),
    );
    let volumes = usage.volumes.iter().map(|volume| {
        let data = &volume.usage_data;
        vec![volume.name.clone(), data.ref_count.max(0).to_string(), size::decimal_short(bytes(data.size))]
    });
    section("Local Volumes space usage:", &["VOLUME NAME", "LINKS", "SIZE"], volumes.collect());
    let caches = sum(&usage.build_cache, |cache| bytes(cache.size));
    let rows = usage.build_cache.iter().map(|cache| {
        vec![
            units::short_id(&cache.id),
            cache.kind.clone(),
            size::decimal_short(bytes(cache.size)),
            cache.usage_count.to_string(),
            cache.shared.to_string(),
        ]
    });
    section(
        &format!("Build cache usage: {}", size::decimal_short(caches)),
        &["CACHE ID", "CACHE TYPE", "SIZE", "USAGE", "SHARED"],
        rows.collect(),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_used_counts_as_dockers() {
        let usage = json!({
            "LayersSize": 1000,
            "Images": [{"Size": 600, "SharedSize": 100, "Containers": 1}, {"Size": 500, "SharedSize": 100, "Containers": 0}],
            "Containers": [{"State": "running", "SizeRw": 10}, {"State": "exited", "SizeRw": 30}],
            "Volumes": [{"UsageData": {"Size": 7, "RefCount": 1}}, {"UsageData": {"Size": -1, "RefCount": 0}}],
            "BuildCache": null,
        });
        let usage: DiskUsage = serde_json::from_value(usage).unwrap();
        let text = LISTING.render(&summary(&usage), None, false).unwrap().unwrap();
        let expected = [
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE",
            "Images          2         1         1kB       500B (50%)",
            "Containers      2         1         40B       30B (75%)",
            "Local Volumes   2         1         7B        0B (0%)",
            "Build Cache     0         0         0B        0B",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
        assert!(verbose(&usage).contains("Local Volumes space usage:"));
    }
}
