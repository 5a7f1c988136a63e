//! `bireme system df`.

use serde_json::Value;

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
    let usage: Value = context.client.get("/system/df").read().await?;
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

fn list<'a>(usage: &'a Value, key: &str) -> &'a [Value] {
    usage[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Bytes; -1 stands for not known.
fn bytes(value: &Value) -> f64 {
    value.as_f64().filter(|bytes| *bytes > 0.0).unwrap_or(0.0)
}

fn is_up(container: &Value) -> bool {
    matches!(container["State"].as_str(), Some("running" | "paused" | "restarting"))
}

/// Source: docker/cli, `command/formatter/disk_usage.go`.
fn summary(usage: &Value) -> Vec<Row> {
    let row = |kind: &str, total: usize, active: usize, size: f64, reclaimable: f64, share: bool| {
        let text = units::human_total(reclaimable);
        Row::default()
            .with("Type", kind)
            .with("TotalCount", total.to_string())
            .with("Active", active.to_string())
            .with("Size", units::human_total(size))
            .with(
                "Reclaimable",
                if share && size > 0.0 {
                    format!("{text} ({:.0}%)", (reclaimable * 100.0 / size).floor())
                } else {
                    text
                },
            )
    };
    let count = |key: &str, test: &dyn Fn(&Value) -> bool| list(usage, key).iter().filter(|one| test(one)).count();
    let sum = |key: &str, of: &dyn Fn(&Value) -> f64| list(usage, key).iter().map(of).fold(0.0, |sum, one| sum + one);
    let total = |key: &str| list(usage, key).len();

    let used = |image: &Value| image["Containers"].as_i64().unwrap_or(0) > 0;
    let layers = bytes(&usage["LayersSize"]);
    let held = sum("Images", &|image| {
        if used(image) { bytes(&image["Size"]) - bytes(&image["SharedSize"]) } else { 0.0 }
    });
    let written = |container: &Value| bytes(&container["SizeRw"]);
    let stopped = sum("Containers", &|one| if is_up(one) { 0.0 } else { written(one) });
    let volume = |volume: &Value| bytes(&volume["UsageData"]["Size"]);
    let mounted = |volume: &Value| volume["UsageData"]["RefCount"].as_i64().unwrap_or(0) > 0;
    let idle = sum("Volumes", &|one| if mounted(one) { 0.0 } else { volume(one) });
    let cached = |cache: &Value| if cache["Shared"] == true { 0.0 } else { bytes(&cache["Size"]) };
    let unused = sum("BuildCache", &|one| if one["InUse"] == true { 0.0 } else { cached(one) });
    vec![
        row("Images", total("Images"), count("Images", &used), layers, (layers - held).max(0.0), true),
        row("Containers", total("Containers"), count("Containers", &is_up), sum("Containers", &written), stopped, true),
        row("Local Volumes", total("Volumes"), count("Volumes", &mounted), sum("Volumes", &volume), idle, true),
        row(
            "Build Cache",
            total("BuildCache"),
            count("BuildCache", &|cache| cache["InUse"] == true),
            sum("BuildCache", &cached),
            unused,
            false,
        ),
    ]
}

fn verbose(usage: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = String::new();
    let mut section = |title: &str, head: &[&str], rows: Vec<Vec<String>>| {
        let mut table = vec![head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>()];
        table.extend(rows);
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("{title}\n\n{}", listing::align(&table)));
    };
    let images = list(usage, "Images").iter().map(|image| {
        let name = list(image, "RepoTags").first().and_then(Value::as_str).unwrap_or("<none>:<none>");
        let (repository, tag) = name.rsplit_once(':').unwrap_or((name, "<none>"));
        let (size, shared) = (bytes(&image["Size"]), bytes(&image["SharedSize"]));
        let created = image["Created"].as_i64().unwrap_or(0);
        vec![
            repository.to_owned(),
            tag.to_owned(),
            units::short_id(&text(&image["Id"])),
            if created <= 0 { "N/A".to_owned() } else { units::ago(created) },
            units::human_size(size),
            units::human_size(shared),
            units::human_total(size - shared),
            image["Containers"].as_i64().unwrap_or(0).max(0).to_string(),
        ]
    });
    section(
        "Images space usage:",
        &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"],
        images.collect(),
    );
    let containers = list(usage, "Containers").iter().map(|container| {
        let name = list(container, "Names").first().and_then(Value::as_str).unwrap_or_default();
        let volumes = list(container, "Mounts").iter().filter(|mount| mount["Type"] == "volume").count();
        vec![
            units::short_id(&text(&container["Id"])),
            text(&container["Image"]),
            format!("\"{}\"", units::ellipsis(&text(&container["Command"]), 20)),
            volumes.to_string(),
            units::human_size(bytes(&container["SizeRw"])),
            units::ago(container["Created"].as_i64().unwrap_or(0)),
            text(&container["Status"]),
            name.trim_start_matches('/').to_owned(),
        ]
    });
    section(
        "Containers space usage:",
        &["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"],
        containers.collect(),
    );
    let volumes = list(usage, "Volumes").iter().map(|volume| {
        let data = &volume["UsageData"];
        let links = data["RefCount"].as_i64().unwrap_or(0).max(0).to_string();
        vec![text(&volume["Name"]), links, units::human_size(bytes(&data["Size"]))]
    });
    section("Local Volumes space usage:", &["VOLUME NAME", "LINKS", "SIZE"], volumes.collect());
    let caches: f64 =
        list(usage, "BuildCache").iter().map(|cache| bytes(&cache["Size"])).fold(0.0, |sum, one| sum + one);
    let rows = list(usage, "BuildCache").iter().map(|cache| {
        vec![
            units::short_id(&text(&cache["ID"])),
            text(&cache["Type"]),
            units::human_size(bytes(&cache["Size"])),
            cache["UsageCount"].as_i64().unwrap_or(0).to_string(),
            cache["Shared"].as_bool().unwrap_or(false).to_string(),
        ]
    });
    section(
        &format!("Build cache usage: {}", units::human_size(caches)),
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
