//! The `filters` parameter: `{"label":["a=b"],"status":["running"]}`, and its old form with maps in place of arrays.

use std::collections::{BTreeMap, BTreeSet};

use bireme_core::go::parse_bool;
use bireme_engine::request::ContainerFilter;
use serde::Deserialize;

use super::Refusal;

/// Filters by name. Several values of one are alternatives, several names must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

/// Values in all filters of a request, and bytes of one: each is looked at for everything that is listed, and names are
/// regular expressions.
const MOST: usize = 1000;
const LONGEST: usize = 4096;

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Set(BTreeMap<String, bool>),
}

impl Filters {
    /// An empty text is no filter at all.
    pub fn parse(text: &str, known: &[&str]) -> Result<Self, Refusal> {
        let filters = Self::any(text)?;
        match filters.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(unknown) => Err(Refusal::invalid(format!("invalid filter '{unknown}'"))),
            None => Ok(filters),
        }
    }

    /// As [`Self::parse`], with filters of any name.
    pub fn any(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let wire: BTreeMap<String, Values> = serde_json::from_str(text).map_err(|error| {
            Refusal::invalid(format!("invalid filters: expected JSON such as {{\"label\":[\"key=value\"]}}: {error}"))
        })?;
        let mut filters = BTreeMap::new();
        let mut count = 0;
        for (name, values) in wire {
            let values: Vec<String> = match values {
                Values::List(list) => {
                    // The same value twice is one, as in a map.
                    let mut seen = BTreeSet::new();
                    list.into_iter().filter(|value| seen.insert(value.clone())).collect()
                }
                Values::Set(set) => set.into_iter().filter(|(_, on)| *on).map(|(value, _)| value).collect(),
            };
            count += values.len();
            if count > MOST {
                return Err(Refusal::invalid(format!(
                    "invalid filters: more than {MOST} values: ask for fewer at once"
                )));
            }
            if let Some(long) = values.iter().find(|value| value.len() > LONGEST) {
                let length = long.len();
                return Err(Refusal::invalid(format!(
                    "invalid filter '{name}': a value of {length} bytes: at most {LONGEST} are taken"
                )));
            }
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    /// The values of one filter; empty when it is absent.
    pub fn get(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// These filters, with the values of `other` as those of `name`: two names for one thing.
    pub fn or(&self, name: &str, other: &str) -> Result<Self, Refusal> {
        let mut all = self.clone();
        if let Some(values) = all.0.remove(other) {
            if !self.get(name).is_empty() {
                return Err(Refusal::invalid(format!(
                    "filters '{name}' and '{other}' mean the same: give one of them"
                )));
            }
            all.0.insert(name.to_owned(), values);
        }
        Ok(all)
    }

    fn list(&self, name: &str) -> Vec<String> {
        self.get(name).to_vec()
    }

    /// Whether `value` is one of the values, or the filter is absent.
    pub fn admits(&self, name: &str, value: &str) -> bool {
        let values = self.get(name);
        values.is_empty() || values.iter().any(|wanted| wanted == value)
    }

    /// A filter that is `true` or `false`.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let mut answer = None;
        for value in self.get(name) {
            let value =
                parse_bool(value).ok_or_else(|| Refusal::invalid(format!("invalid filter '{name}={value}'")))?;
            if answer.is_some_and(|before| before != value) {
                return Err(Refusal::invalid(format!("got conflicting values of filter '{name}'")));
            }
            answer = Some(value);
        }
        Ok(answer)
    }

    /// Whether `labels` has every `key` or `key=value` of the filter `label`, and none of `label!`.
    pub fn labels_match(&self, labels: &BTreeMap<String, String>) -> bool {
        self.get("label").iter().all(|wanted| has_label(labels, wanted))
            && !self.get("label!").iter().any(|unwanted| has_label(labels, unwanted))
    }
}

fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
        None => labels.contains_key(wanted),
    }
}

/// The filters of `GET /containers/json`.
pub const CONTAINERS: &[&str] = &[
    "ancestor",
    "before",
    "exited",
    "expose",
    "health",
    "id",
    "is-task",
    "isolation",
    "label",
    "name",
    "network",
    "publish",
    "since",
    "status",
    "volume",
];

/// The filter of a container list.
pub fn containers(filters: &Filters, all: bool, limit: Option<usize>) -> Result<ContainerFilter, Refusal> {
    let mut exited = Vec::new();
    for code in filters.get("exited") {
        exited.push(code.parse().map_err(|_| Refusal::invalid(format!("invalid filter 'exited={code}'")))?);
    }
    const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
    for status in filters.get("status") {
        if !STATES.contains(&status.as_str()) {
            return Err(Refusal::invalid(format!("invalid filter 'status={status}'")));
        }
    }
    for health in filters.get("health") {
        if !["none", "starting", "healthy", "unhealthy"].contains(&health.as_str()) {
            return Err(Refusal::invalid(format!("invalid filter 'health={health}'")));
        }
    }
    for text in filters.get("is-task") {
        if !matches!(text.as_str(), "true" | "false") {
            return Err(Refusal::invalid(format!("invalid filter 'is-task={text}'")));
        }
    }
    let tasks = filters.get("is-task").iter().any(|text| text == "true");
    let ports = |name: &str| super::ports::parse_all(filters.get(name));
    let first = |name: &str| filters.get(name).first().cloned();
    Ok(ContainerFilter {
        // Docker looks at every state as soon as states or exit codes are asked for.
        tasks,
        all: all || limit.is_some() || !filters.get("status").is_empty() || !exited.is_empty(),
        limit,
        ids: filters.list("id"),
        names: filters.list("name"),
        labels: filters.list("label"),
        status: filters.list("status"),
        exited,
        ancestors: filters.list("ancestor"),
        networks: filters.list("network"),
        volumes: filters.list("volume"),
        health: filters.list("health"),
        publish: ports("publish")?,
        expose: ports("expose")?,
        before: first("before"),
        since: first("since"),
    })
}

/// The point in time of a prune's `until`: a duration back from `now`, or a time.
pub fn until(filters: &Filters, now: i64) -> Result<Option<i64>, Refusal> {
    match filters.get("until") {
        [] => Ok(None),
        // Nothing back: now.
        [text] if matches!(text.as_str(), "0s" | "0m" | "0h") => Ok(Some(now)),
        [text] => match bireme_core::labels::duration(text) {
            Ok(back) => Ok(Some(now.saturating_sub(i64::try_from(back.as_nanos()).unwrap_or(i64::MAX)))),
            Err(_) => super::time::parse(text).map(Some),
        },
        _ => Err(Refusal::invalid("more than one until filter specified")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let list = Filters::parse(r#"{"label":["a=b"]}"#, &["label"]).unwrap();
        let set = Filters::parse(r#"{"label":{"a=b":true,"c":false}}"#, &["label"]).unwrap();
        assert_eq!(list, set);
        assert_eq!(Filters::parse("", &[]).unwrap(), Filters::default());
    }

    #[test]
    fn values_are_bounded_and_the_same_twice_is_one() {
        let many: Vec<String> = (0..MOST + 1).map(|n| n.to_string()).collect();
        let text = |values: &[String]| serde_json::json!({ "name": values }).to_string();
        let refused = Filters::any(&text(&many)).unwrap_err();
        assert!(refused.message.contains("more than 1000 values"), "{}", refused.message);
        let refused = Filters::any(&text(&["x".repeat(LONGEST + 1)])).unwrap_err();
        assert!(refused.message.contains("a value of 4097 bytes"), "{}", refused.message);
        let twice = Filters::any(r#"{"until":["1h","1h"]}"#).unwrap();
        assert!(until(&twice, 0).unwrap().is_some());
    }

    #[test]
    fn unknown_filters_and_values_are_refused_by_name() {
        let refused =
            |text: &str| Filters::parse(text, CONTAINERS).and_then(|f| containers(&f, false, None)).unwrap_err();
        assert_eq!(refused(r#"{"foo":["x"]}"#).message, "invalid filter 'foo'");
        assert_eq!(refused(r#"{"status":["asleep"]}"#).message, "invalid filter 'status=asleep'");
        assert_eq!(refused(r#"{"exited":["x"]}"#).message, "invalid filter 'exited=x'");
        assert!(refused("bad").message.starts_with("invalid filters: expected JSON"));
    }

    #[test]
    fn states_widen_the_list() {
        let filter = |text: &str| containers(&Filters::parse(text, CONTAINERS).unwrap(), false, None).unwrap();
        assert!(!filter("").all);
        assert!(filter(r#"{"status":["exited"]}"#).all);
        assert!(filter(r#"{"exited":["0"]}"#).all);
        assert_eq!(filter(r#"{"before":["x"]}"#).before.as_deref(), Some("x"));
    }
}
