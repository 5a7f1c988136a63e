//! Between our types and those of the wire, in one place.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bireme_core::ErrorKind;
use bollard_buildkit_proto::moby::buildkit::v1::apicaps::ApiCap;
use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, GcPolicy as WireGcPolicy, WorkerRecord};
use bollard_buildkit_proto::moby::buildkit::v1::{
    CacheOptions, CacheOptionsEntry, DiskUsageRequest, Exporter as WireExporter, PruneRequest, SolveRequest,
    UsageRecord,
};
use bollard_buildkit_proto::pb;

use crate::builder::{CacheOption, Exporter, Exports, Platform, Prune, Usage, UsageQuery, Worker};
use crate::error::BuildError;
use crate::progress::timestamp;

/// What the gateway offers, by names of `frontend/gateway/pb/caps.go`. `return` is what clients cannot do without;
/// `reference.output` makes them hand definitions on.
const GATEWAY: [&str; 16] = [
    "frontend.caps",
    "frontend.inputs",
    "gateway.evaluate",
    "gateway.solve.evaluate",
    "gateway.solve.metadata",
    "gateway.warnings",
    "importcaches",
    "proto.refarray",
    "readdir",
    "readfile",
    "reference.output",
    "resolveimage",
    "resolveimage.resolvemode",
    "return",
    "returnmap",
    "solve.base",
];

/// Of LLB, what our handles of outputs need, which is nothing but a source; and that one build may have several exporters.
const LLB: [&str; 4] = ["constraints", "exporter.multiple", "platform", "source.image"];

pub(crate) fn gateway_caps() -> Vec<ApiCap> {
    let more = ["source.metaresolver", "statfile"];
    GATEWAY.into_iter().chain(more).map(cap).collect()
}

pub(crate) fn llb_caps(more: &[&str]) -> Vec<ApiCap> {
    LLB.iter().chain(more).copied().map(cap).collect()
}

fn cap(id: &str) -> ApiCap {
    ApiCap { id: id.to_owned(), enabled: true, ..ApiCap::default() }
}

pub(crate) fn version(version: String) -> BuildkitVersion {
    BuildkitVersion { package: "bireme".to_owned(), version, revision: String::new() }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn duration(nanos: i64) -> Duration {
    u64::try_from(nanos).map(Duration::from_nanos).unwrap_or_default()
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

pub(crate) fn worker(worker: Worker, engine: BuildkitVersion) -> WorkerRecord {
    let policy = |policy: crate::builder::GcPolicy| WireGcPolicy {
        all: policy.all,
        keep_duration: nanos(policy.keep_duration),
        filters: policy.filters,
        reserved_space: signed(policy.reserved_space),
        max_used_space: signed(policy.max_used_space),
        min_free_space: signed(policy.min_free_space),
    };
    WorkerRecord {
        id: worker.id,
        labels: worker.labels.into_iter().collect(),
        platforms: worker.platforms.into_iter().map(to_platform).collect(),
        gc_policy: worker.gc_policies.into_iter().map(policy).collect(),
        buildkit_version: Some(engine),
        cdi_devices: Vec::new(),
    }
}

fn to_platform(platform: Platform) -> pb::Platform {
    let Platform { os, architecture, variant } = platform;
    pb::Platform { architecture, os, variant, ..pb::Platform::default() }
}

pub(crate) fn cache_option(entry: CacheOptionsEntry) -> CacheOption {
    CacheOption { kind: entry.r#type, options: entry.attrs.into_iter().collect() }
}

/// Caches to take results from, in the older form too.
pub(crate) fn cache_imports(cache: &CacheOptions) -> Vec<CacheOption> {
    let older = cache.import_refs_deprecated.iter().map(|reference| CacheOption {
        kind: "registry".to_owned(),
        options: BTreeMap::from([("ref".to_owned(), reference.clone())]),
    });
    cache.imports.iter().cloned().map(cache_option).chain(older).collect()
}

/// The caches to take results from as clients that drive a front end name them: among its options, as JSON.
///
/// Source: BuildKit, `client/solve.go`, `parseCacheOptions`; `frontend/dockerui/config.go`.
///
/// # Errors
/// What is no list of caches.
pub(crate) fn named_imports(options: &BTreeMap<String, String>) -> Result<Vec<CacheOption>, BuildError> {
    let Some(text) = options.get("cache-imports").filter(|text| !text.is_empty()) else { return Ok(Vec::new()) };
    let unreadable = |why: String| BuildError::new(ErrorKind::Invalid, format!("failed to read cache-imports: {why}"));
    let entries: Vec<serde_json::Value> = serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
    let read = |entry: serde_json::Value| {
        let kind = entry["Type"].as_str().ok_or_else(|| unreadable("an entry has no Type".to_owned()))?.to_owned();
        let attributes = entry["Attrs"].as_object().into_iter().flatten();
        let options = attributes.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        Ok(CacheOption { kind, options: options.collect() })
    };
    entries.into_iter().map(read).collect()
}

/// What is to be given away, in the older form too.
pub(crate) fn exports(request: &SolveRequest) -> Exports {
    let mut exporters: Vec<WireExporter> = request.exporters.clone();
    if exporters.is_empty() && !request.exporter_deprecated.is_empty() {
        exporters.push(WireExporter {
            r#type: request.exporter_deprecated.clone(),
            attrs: request.exporter_attrs_deprecated.clone(),
        });
    }
    let mut caches: Vec<CacheOption> = Vec::new();
    if let Some(cache) = &request.cache {
        caches.extend(cache.exports.iter().cloned().map(cache_option));
        if !cache.export_ref_deprecated.is_empty() {
            let mut options: BTreeMap<_, _> = cache.export_attrs_deprecated.clone().into_iter().collect();
            options.insert("ref".to_owned(), cache.export_ref_deprecated.clone());
            caches.push(CacheOption { kind: "registry".to_owned(), options });
        }
    }
    let exporter = |(index, exporter): (usize, WireExporter)| Exporter {
        // Clients number theirs.
        id: index.to_string(),
        kind: exporter.r#type,
        options: exporter.attrs.into_iter().collect(),
    };
    Exports { exporters: exporters.into_iter().enumerate().map(exporter).collect(), caches }
}

pub(crate) fn usage_query(request: DiskUsageRequest) -> UsageQuery {
    UsageQuery { filters: filters(request.filter), unused_for: duration(request.age_limit) }
}

pub(crate) fn prune(request: PruneRequest) -> Prune {
    Prune {
        filters: filters(request.filter),
        all: request.all,
        keep_duration: duration(request.keep_duration),
        reserved_space: unsigned(request.reserved_space),
        max_used_space: unsigned(request.max_used_space),
        min_free_space: unsigned(request.min_free_space),
    }
}

/// Clients send an empty filter for none.
fn filters(filters: Vec<String>) -> Vec<String> {
    filters.into_iter().filter(|filter| !filter.is_empty()).collect()
}

pub(crate) fn usage(usage: Usage) -> UsageRecord {
    UsageRecord {
        id: usage.id,
        mutable: usage.mutable,
        in_use: usage.in_use,
        size: signed(usage.size),
        created_at: Some(timestamp(usage.created)),
        last_used_at: usage.last_used.map(timestamp),
        usage_count: signed(usage.usage_count),
        description: usage.description,
        record_type: usage.kind,
        shared: usage.shared,
        parents: usage.parents,
        ..UsageRecord::default()
    }
}

pub(crate) fn sorted<V>(map: HashMap<String, V>) -> BTreeMap<String, V> {
    map.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exporters_come_in_either_form_and_are_numbered() {
        let attrs = HashMap::from([("name".to_owned(), "t1".to_owned())]);
        let older = SolveRequest {
            exporter_deprecated: "moby".to_owned(),
            exporter_attrs_deprecated: attrs.clone(),
            ..SolveRequest::default()
        };
        let expected = Exporter { id: "0".to_owned(), kind: "moby".to_owned(), options: sorted(attrs.clone()) };
        assert_eq!(exports(&older).exporters, std::slice::from_ref(&expected));
        let wire = |kind: &str| WireExporter { r#type: kind.to_owned(), attrs: attrs.clone() };
        let newer = SolveRequest { exporters: vec![wire("moby"), wire("tar")], ..older };
        let second = Exporter { id: "1".to_owned(), kind: "tar".to_owned(), ..expected.clone() };
        assert_eq!(exports(&newer).exporters, [expected, second]);
    }

    #[test]
    fn caches_come_in_either_form() {
        let cache = CacheOptions {
            export_ref_deprecated: "r/x".to_owned(),
            export_attrs_deprecated: HashMap::from([("mode".to_owned(), "max".to_owned())]),
            import_refs_deprecated: vec!["r/y".to_owned()],
            ..CacheOptions::default()
        };
        let option = |pairs: &[(&str, &str)]| CacheOption {
            kind: "registry".to_owned(),
            options: pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        assert_eq!(cache_imports(&cache), [option(&[("ref", "r/y")])]);
        let named = |text: &str| named_imports(&BTreeMap::from([("cache-imports".to_owned(), text.to_owned())]));
        assert_eq!(named(r#"[{"Type":"registry","Attrs":{"ref":"r/y"}}]"#).unwrap(), [option(&[("ref", "r/y")])]);
        assert_eq!(named("").unwrap(), []);
        for text in ["{}", "[", "[{}]", "[1]"] {
            assert!(named(text).unwrap_err().message().contains("cache-imports"), "{text}");
        }
        let request = SolveRequest { cache: Some(cache), ..SolveRequest::default() };
        assert_eq!(exports(&request).caches, [option(&[("mode", "max"), ("ref", "r/x")])]);
    }

    #[test]
    fn an_empty_filter_is_none() {
        let request = PruneRequest { filter: vec![String::new()], keep_duration: -1, ..PruneRequest::default() };
        assert_eq!(prune(request), Prune::default());
    }
}
