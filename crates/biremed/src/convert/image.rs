//! Images: lists, inspections, histories, and the JSON lines of pull, load and build.

use bireme_core::error::{chain, one_line};
use bireme_core::glob::Pattern;
use bireme_core::size;
use bireme_engine::{Preparation, PreparationStep};
use bireme_image::{
    BuildEvent, CacheRecord, Healthcheck, Image, ImageConfig, ImageError, ImageSummary, Progress, Reference,
};
use serde_json::{Map, Value, json};

use super::{Filters, Refusal, time};
use crate::version::ApiVersion;

/// The filters of `GET /images/json`.
pub const FILTERS: &[&str] = &["before", "dangling", "label", "label!", "reference", "since", "until"];

/// One entry of the list. `containers` is how many workloads use it, `shared` how many bytes of it other images have, too; both
/// are left out of the list unless somebody asks.
pub fn entry(
    image: &ImageSummary,
    references: &[String],
    containers: Option<usize>,
    shared: Option<u64>,
    version: ApiVersion,
) -> Value {
    let nameless = references.is_empty() && image.repo_digests.is_empty();
    // Before 1.43 an image without a name was given one that no image can have.
    let old = version < ApiVersion(43);
    let placeholder = |of: &[String], text: &str| if nameless && old { json!([text]) } else { json!(of) };
    let mut wire = json!({
        "Containers": containers.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX)),
        "Created": image.created.map_or(0, |created| created.timestamp()),
        "Id": image.id.to_string(),
        "Labels": (!image.labels.is_empty()).then_some(&image.labels),
        "ParentId": "",
        "RepoDigests": placeholder(&image.repo_digests, "<none>@<none>"),
        "RepoTags": placeholder(references, "<none>:<none>"),
        "SharedSize": shared.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        "Size": image.size,
    });
    if version < ApiVersion(44) {
        wire["VirtualSize"] = json!(image.size);
    }
    wire
}

/// The references of an image that a `reference` filter leaves, or `None` when it hides the image.
pub fn references_left(image: &ImageSummary, filters: &Filters) -> Option<Vec<String>> {
    let patterns = filters.get("reference");
    if patterns.is_empty() {
        return Some(image.references.clone());
    }
    let left: Vec<String> =
        image.references.iter().filter(|name| patterns.iter().any(|pattern| matches(pattern, name))).cloned().collect();
    let by_digest = image.repo_digests.iter().any(|name| patterns.iter().any(|pattern| matches(pattern, name)));
    (!left.is_empty() || by_digest).then_some(left)
}

/// Whether a familiar name matches a pattern, with or without its tag.
///
/// Source: `reference.FamiliarMatch` of distribution.
fn matches(pattern: &str, name: &str) -> bool {
    let untagged = Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar_name());
    // What is no pattern fits nothing.
    Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(name) || pattern.matches(&untagged))
}

/// `GET /images/{name}/json`.
pub fn inspect(image: &Image, version: ApiVersion) -> Value {
    let mut wire = json!({
        "Id": image.id.to_string(),
        "RepoTags": image.references,
        "RepoDigests": image.repo_digests,
        "Parent": "",
        "Comment": image.comment.clone().unwrap_or_default(),
        "Created": image.created.map_or_else(|| time::NEVER.to_owned(), time::utc),
        "DockerVersion": "",
        "Author": image.author.clone().unwrap_or_default(),
        "Config": config(&image.config),
        "Architecture": image.platform.architecture,
        "Os": image.platform.os,
        "Size": image.size,
        "GraphDriver": { "Data": {}, "Name": "overlay2" },
        "RootFS": { "Type": "layers", "Layers": image.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>() },
        "Metadata": { "LastTagTime": image.last_tagged.map_or_else(|| time::NEVER.to_owned(), time::utc) },
    });
    if !image.platform.variant.is_empty() {
        wire["Variant"] = json!(image.platform.variant);
    }
    if version < ApiVersion(44) {
        wire["VirtualSize"] = json!(image.size);
    }
    wire
}

fn config(config: &ImageConfig) -> Value {
    let mut wire = json!({
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": false,
        "AttachStdout": false,
        "AttachStderr": false,
        "Tty": false,
        "OpenStdin": false,
        "StdinOnce": false,
        "Env": (!config.env.is_empty()).then_some(&config.env),
        "Cmd": config.cmd,
        "Image": "",
        "Volumes": (!config.volumes.is_empty()).then(|| set(config.volumes.keys())),
        "WorkingDir": config.working_dir,
        "Entrypoint": config.entrypoint,
        "OnBuild": (!config.on_build.is_empty()).then_some(&config.on_build),
        "Labels": (!config.labels.is_empty()).then_some(&config.labels),
    });
    if !config.exposed_ports.is_empty() {
        wire["ExposedPorts"] = set(config.exposed_ports.keys());
    }
    if let Some(signal) = &config.stop_signal {
        wire["StopSignal"] = json!(signal);
    }
    if let Some(health) = &config.healthcheck {
        wire["Healthcheck"] = healthcheck(health);
    }
    if let Some(shell) = &config.shell {
        wire["Shell"] = json!(shell);
    }
    wire
}

/// What is empty or zero is left out.
fn healthcheck(health: &Healthcheck) -> Value {
    let Healthcheck { test, interval, timeout, start_period, start_interval, retries } = health;
    let mut wire = Map::new();
    if !test.is_empty() {
        wire.insert("Test".to_owned(), json!(test));
    }
    for (key, number) in [
        ("Interval", interval),
        ("Timeout", timeout),
        ("StartPeriod", start_period),
        ("StartInterval", start_interval),
        ("Retries", retries),
    ] {
        if *number != 0 {
            wire.insert(key.to_owned(), json!(number));
        }
    }
    Value::Object(wire)
}

/// Docker's form of a set: an object whose values say nothing.
fn set<'a>(keys: impl Iterator<Item = &'a String>) -> Value {
    Value::Object(keys.map(|key| (key.clone(), json!({}))).collect())
}

/// `GET /images/{name}/history`: the newest step first.
pub fn history(image: &Image) -> Value {
    let mut sizes = image.layer_sizes.iter();
    let mut steps: Vec<Value> = image
        .history
        .iter()
        .map(|step| {
            let size = if step.empty_layer { 0 } else { sizes.next().copied().unwrap_or_default() };
            json!({
                "Comment": step.comment.clone().unwrap_or_default(),
                "Created": step.created.map_or(0, |created| created.timestamp()),
                "CreatedBy": step.created_by.clone().unwrap_or_default(),
                "Id": "<missing>",
                "Size": size,
                "Tags": null,
            })
        })
        .collect();
    steps.reverse();
    if let Some(newest) = steps.first_mut() {
        newest["Id"] = json!(image.id.to_string());
        newest["Tags"] = json!((!image.references.is_empty()).then_some(&image.references));
    }
    Value::Array(steps)
}

/// A line of progress.
pub fn progress(progress: &Progress) -> Value {
    let mut wire = Map::new();
    wire.insert("status".to_owned(), json!(progress.status));
    if let Some(current) = progress.current {
        let mut detail = json!({ "current": current });
        if let Some(total) = progress.total {
            detail["total"] = json!(total);
        }
        wire.insert("progressDetail".to_owned(), detail);
        wire.insert("progress".to_owned(), json!(bar(current, progress.total)));
    } else if progress.id.is_some() {
        wire.insert("progressDetail".to_owned(), json!({}));
    }
    if let Some(id) = &progress.id {
        wire.insert("id".to_owned(), json!(id));
    }
    Value::Object(wire)
}

/// A line about a component that is compiled when its image came in. Seconds stand where bytes do: clients show both.
///
/// Source: moby, `JSONProgress.Units`.
pub fn preparation(preparation: &Preparation) -> Value {
    let Preparation { program, step } = preparation;
    match step {
        PreparationStep::Begun => json!({ "status": "Compiling", "progressDetail": {}, "id": program }),
        PreparationStep::Going(so_far) => json!({
            "status": "Compiling",
            "progressDetail": { "current": so_far.as_secs(), "units": "s" },
            "progress": format!("{} s", so_far.as_secs()),
            "id": program,
        }),
        PreparationStep::Ready(_) => json!({ "status": "Compiled", "progressDetail": {}, "id": program }),
        // Of several lines clients draw the first over others.
        PreparationStep::Refused(why) => json!({
            "status": format!("Cannot be run here: {}", one_line(why, MOST_TOLD)),
            "progressDetail": {},
            "id": program,
        }),
        PreparationStep::GoesOn => json!({
            "status": "Compiling takes long; it goes on, and the first start waits for the rest",
            "progressDetail": {},
            "id": program,
        }),
    }
}

/// Bytes that a line tells of why an image cannot be run.
const MOST_TOLD: usize = 2 << 10;

/// The bar that old clients print as it comes. Source: `JSONProgress.String` of moby, on 80 columns.
fn bar(current: u64, total: Option<u64>) -> String {
    let Some(total) = total.filter(|total| *total > 0) else { return format!("{:>8}", size::decimal(current as f64)) };
    let done = usize::try_from((current.min(total) * 50) / total).unwrap_or(50);
    let (full, empty) = ("=".repeat(done), " ".repeat(50 - done));
    format!("[{full}>{empty}] {:>8}/{}", size::decimal(current as f64), size::decimal(total as f64))
}

/// What the cache of builds holds.
pub fn cache_record(record: &CacheRecord) -> Value {
    json!({
        "ID": record.id,
        "Type": record.kind.word(),
        "Description": record.description,
        "InUse": record.in_use,
        "Shared": record.shared,
        "Size": record.size,
        "CreatedAt": time::rfc3339(record.created.saturating_mul(1_000_000)),
        "LastUsedAt": time::rfc3339(record.last_used.saturating_mul(1_000_000)),
        "UsageCount": record.uses,
    })
}

/// A line of a build.
pub fn build_event(event: &BuildEvent) -> Option<Value> {
    match event {
        BuildEvent::Stream(text) => Some(json!({ "stream": text })),
        BuildEvent::Progress(line) => Some(progress(line)),
        BuildEvent::Built(id) => Some(json!({ "aux": { "ID": id.to_string() } })),
        // Of builds that clients of BuildKit's protocol see.
        BuildEvent::Dockerfile { .. } | BuildEvent::Warning(_) | BuildEvent::Step { .. } => None,
    }
}

/// The line that ends a stream whose status went out long ago.
pub fn failure(error: &ImageError) -> Value {
    let message = chain(error);
    let mut wire = json!({ "errorDetail": { "message": message }, "error": message });
    if let ImageError::Run { code, .. } = error {
        wire["errorDetail"]["code"] = json!(code);
    }
    wire
}

/// The name of `fromImage` and `tag` together: a tag may be a digest.
///
/// # Errors
/// `Invalid` in Docker's words.
pub fn pull_reference(image: &str, tag: &str) -> Result<Reference, Refusal> {
    let text = match tag {
        "" => image.to_owned(),
        digest if digest.contains(':') => format!("{image}@{digest}"),
        tag => format!("{image}:{tag}"),
    };
    Reference::parse(&text).map_err(|error| Refusal::invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_a_name_with_or_without_its_tag() {
        for (pattern, name, expected) in [
            ("busybox", "busybox:latest", true),
            ("busybox:1", "busybox:2", false),
            ("busy*", "busybox:latest", true),
            ("*", "a/b:1", false),
            ("*/b", "a/b:1", true),
            ("busybox:[0-9]", "busybox:1", true),
            ("busybox:[^0-9]", "busybox:1", false),
            ("[", "[", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn what_an_image_does_not_say_is_null_or_left_out() {
        let said = ImageConfig {
            volumes: [("/v".to_owned(), Default::default())].into(),
            exposed_ports: [("80/tcp".to_owned(), Default::default())].into(),
            healthcheck: Some(Healthcheck {
                test: vec!["CMD".to_owned(), "true".to_owned()],
                interval: 5,
                retries: 3,
                ..Healthcheck::default()
            }),
            ..ImageConfig::default()
        };
        let wire = config(&said);
        assert_eq!((&wire["Volumes"], &wire["ExposedPorts"]), (&json!({ "/v": {} }), &json!({ "80/tcp": {} })));
        assert_eq!(wire["Healthcheck"], json!({ "Test": ["CMD", "true"], "Interval": 5, "Retries": 3 }));
        let wire = config(&ImageConfig { healthcheck: Some(Healthcheck::default()), ..ImageConfig::default() });
        assert_eq!((&wire["Volumes"], wire.get("ExposedPorts")), (&Value::Null, None));
        assert_eq!(wire["Healthcheck"], json!({}));
    }

    #[test]
    fn progress_is_dockers() {
        let line =
            |current, total| Progress { id: Some("ab".to_owned()), status: "Downloading".to_owned(), current, total };
        let lines = [line(None, None), line(Some(1_234_567), Some(2_469_134)), line(Some(5), None)];
        let told: Vec<String> = lines.iter().map(|line| progress(line).to_string()).collect();
        insta::assert_snapshot!(told.join("\n"), @r#"
        {"id":"ab","progressDetail":{},"status":"Downloading"}
        {"id":"ab","progress":"[=========================>                         ]  1.235MB/2.469MB","progressDetail":{"current":1234567,"total":2469134},"status":"Downloading"}
        {"id":"ab","progress":"      5B","progressDetail":{"current":5},"status":"Downloading"}
        "#);
    }

    #[test]
    fn a_compilation_is_told_as_a_layer_is() {
        use std::time::Duration;
        let told = |step| preparation(&Preparation { program: "ab".to_owned(), step }).to_string();
        let long = format!("it imports\n{}", "ä".repeat(MOST_TOLD));
        let lines = [
            told(PreparationStep::Begun),
            told(PreparationStep::Going(Duration::from_millis(3400))),
            told(PreparationStep::Ready(Duration::from_secs(4))),
            told(PreparationStep::Refused("it imports\nwasi:nn".to_owned())),
        ];
        insta::assert_snapshot!(lines.join("\n"), @r#"
        {"id":"ab","progressDetail":{},"status":"Compiling"}
        {"id":"ab","progress":"3 s","progressDetail":{"current":3,"units":"s"},"status":"Compiling"}
        {"id":"ab","progressDetail":{},"status":"Compiled"}
        {"id":"ab","progressDetail":{},"status":"Cannot be run here: it imports wasi:nn"}
        "#);
        assert!(told(PreparationStep::Refused(long)).len() < MOST_TOLD + 100);
    }

    #[test]
    fn tags_may_be_digests() {
        assert_eq!(pull_reference("busybox", "1").unwrap().familiar(), "busybox:1");
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(pull_reference("busybox", &digest).unwrap().familiar(), format!("busybox@{digest}"));
        assert!(pull_reference("Bad Name", "").is_err());
    }
}
