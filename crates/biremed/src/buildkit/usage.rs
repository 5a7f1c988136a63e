//! The cache of builds as `docker buildx du` and `prune` see it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bireme_buildkit::{BuildError, Prune, Usage, UsageQuery};
use bireme_core::ErrorKind;
use bireme_image::{CacheKind, CacheRecord};
use tokio::sync::mpsc;

use super::failed;
use crate::app::App;

pub(super) async fn disk_usage(app: &App, query: UsageQuery) -> Result<Vec<Usage>, BuildError> {
    let filters = read_filters(&query.filters)?;
    let records = app.images.build_cache().await.map_err(|error| failed(&error))?;
    let old = |record: &CacheRecord| unused_for(record) >= query.unused_for;
    Ok(records.iter().filter(|record| old(record) && covers(&filters, record)).map(usage).collect())
}

pub(super) async fn prune(app: &App, prune: Prune, gone: mpsc::Sender<Usage>) -> Result<(), BuildError> {
    let filters = read_filters(&prune.filters)?;
    app.build_results.forget_ended();
    let records = app.images.build_cache().await.map_err(|error| failed(&error))?;
    if filters.is_empty() && prune.max_used_space.max(prune.reserved_space) == 0 {
        let until = i64::try_from(prune.keep_duration.as_millis()).unwrap_or(i64::MAX);
        let until = (until > 0).then(|| bireme_core::clock::now_nanos() / 1_000_000 - until);
        app.images.forget_empty_steps(until).map_err(|error| failed(&error))?;
    }
    let chosen = choose(&records, &prune, &filters);
    let ids: Vec<&str> = chosen.iter().map(|record| record.id.as_str()).collect();
    let is_chosen = |record: &CacheRecord| ids.contains(&record.id.as_str());
    let cleared = app.images.clear_build_cache(None, Some(&is_chosen)).await.map_err(|error| failed(&error))?;
    for record in &cleared {
        // Nobody reads it when the client is gone, which is no failure.
        let _ = gone.send(usage(record)).await;
    }
    Ok(())
}

/// Those that go: the longest unused first, until what is left fits.
fn choose<'a>(records: &'a [CacheRecord], prune: &Prune, filters: &[Filter]) -> Vec<&'a CacheRecord> {
    let mut open: Vec<&CacheRecord> = records
        .iter()
        .filter(|record| !record.in_use && (prune.all || !record.shared))
        .filter(|record| unused_for(record) >= prune.keep_duration && covers(filters, record))
        .collect();
    open.sort_by_key(|record| record.last_used);
    let mut kept: u64 = records.iter().map(|record| record.size).sum();
    let bound = prune.max_used_space.max(prune.reserved_space);
    if bound == 0 {
        return open;
    }
    open.into_iter()
        .take_while(|record| {
            let more = kept > bound;
            kept = kept.saturating_sub(record.size);
            more
        })
        .collect()
}

fn unused_for(record: &CacheRecord) -> Duration {
    SystemTime::now().duration_since(time(record.last_used)).unwrap_or_default()
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

fn usage(record: &CacheRecord) -> Usage {
    Usage {
        id: record.id.clone(),
        parents: Vec::new(),
        mutable: record.kind != CacheKind::Layer,
        in_use: record.in_use,
        shared: record.shared,
        size: record.size,
        created: time(record.created),
        last_used: Some(time(record.last_used)),
        usage_count: record.uses,
        description: record.description.clone(),
        kind: record.kind.word().to_owned(),
    }
}

/// One of containerd's filters: conditions that all have to hold.
///
/// Source: containerd, `pkg/filters`.
type Filter = Vec<Condition>;

struct Condition {
    field: String,
    test: Test,
}

enum Test {
    Present,
    Equals(String),
    Differs(String),
    Matches(regex::Regex),
}

fn read_filters(texts: &[String]) -> Result<Vec<Filter>, BuildError> {
    texts.iter().map(|text| text.split(',').map(|part| condition(part.trim())).collect()).collect()
}

fn condition(text: &str) -> Result<Condition, BuildError> {
    let bad = |why: &str| BuildError::new(ErrorKind::Invalid, format!("invalid filter \"{text}\": {why}"));
    let (field, test) = if let Some((field, value)) = text.split_once("==") {
        (field, Test::Equals(unquoted(value)))
    } else if let Some((field, value)) = text.split_once("!=") {
        (field, Test::Differs(unquoted(value)))
    } else if let Some((field, value)) = text.split_once("~=") {
        let pattern = regex::RegexBuilder::new(&unquoted(value)).size_limit(1 << 20).build();
        (field, Test::Matches(pattern.map_err(|error| bad(&error.to_string()))?))
    } else {
        (text, Test::Present)
    };
    let field = field.trim();
    match field {
        "id" | "type" | "description" | "inuse" | "mutable" | "shared" | "private" | "immutable" | "parent"
        | "parents" => Ok(Condition { field: field.to_owned(), test }),
        other => Err(bad(&format!(
            "{other} is none of id, type, description, inuse, mutable, immutable, shared, private, parents"
        ))),
    }
}

fn unquoted(value: &str) -> String {
    value.trim().trim_matches(['"', '\'', '/', '|']).to_owned()
}

fn covers(filters: &[Filter], record: &CacheRecord) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.iter().all(|condition| holds(condition, record)))
}

fn holds(condition: &Condition, record: &CacheRecord) -> bool {
    let flag = |is: bool| is.then(|| "true".to_owned());
    let value = match condition.field.as_str() {
        "id" => Some(record.id.clone()),
        "type" => Some(record.kind.word().to_owned()),
        "description" => Some(record.description.clone()),
        "inuse" => flag(record.in_use),
        "mutable" => flag(record.kind != CacheKind::Layer),
        "immutable" => flag(record.kind == CacheKind::Layer),
        "shared" => flag(record.shared),
        "private" => flag(!record.shared),
        _ => None,
    };
    match &condition.test {
        Test::Present => value.is_some(),
        Test::Equals(wanted) => value.as_deref() == Some(wanted),
        Test::Differs(wanted) => value.as_deref() != Some(wanted),
        Test::Matches(pattern) => value.is_some_and(|value| pattern.is_match(&value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, size: u64, last_used: i64) -> CacheRecord {
        CacheRecord {
            id: id.to_owned(),
            kind: CacheKind::Layer,
            size,
            shared: false,
            in_use: false,
            created: 0,
            last_used,
            uses: 1,
            description: "RUN make".to_owned(),
        }
    }

    #[test]
    fn filters_choose_as_containerds_do() {
        let one = record("abc", 1, 0);
        for (filters, covered) in [
            (&[][..], true),
            (&["id==abc"], true),
            (&["id~=^ab"], true),
            (&["id==x", "type==regular"], true),
            (&["type==regular,private"], true),
            (&["type!=regular"], false),
            (&["shared"], false),
            (&["inuse==true"], false),
            (&["description~=make"], true),
        ] {
            let texts: Vec<String> = filters.iter().map(|text| (*text).to_owned()).collect();
            assert_eq!(covers(&read_filters(&texts).unwrap(), &one), covered, "{filters:?}");
        }
        assert!(read_filters(&["what==1".to_owned()]).is_err() && read_filters(&["id~=(".to_owned()]).is_err());
    }

    #[test]
    fn pruning_to_a_bound_keeps_what_was_used_last() {
        let records = [record("new", 10, 300), record("old", 10, 100), record("middle", 10, 200)];
        let ids = |prune: &Prune| choose(&records, prune, &[]).iter().map(|one| one.id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(&Prune::default()), ["old", "middle", "new"]);
        assert_eq!(ids(&Prune { max_used_space: 15, ..Prune::default() }), ["old", "middle"]);
        assert_eq!(ids(&Prune { reserved_space: 30, ..Prune::default() }), Vec::<String>::new());
    }
}
