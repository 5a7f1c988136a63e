//! Which workload takes the place of which, as Compose says it by labels.
//!
//! Compose, ours and the real one, makes the new container before it stops the old one, and says by a label that it replaces
//! one of the same project, service and number.

use std::collections::BTreeMap;

/// Set on a container that replaces another.
const REPLACE: &str = "com.docker.compose.replace";
/// What both have alike.
const SAME: [&str; 3] =
    ["com.docker.compose.project", "com.docker.compose.service", "com.docker.compose.container-number"];

/// Whether what has `labels` takes the place of another.
pub fn is_replacement(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(REPLACE)
}

/// Whether one with `labels` takes the place of one with the labels `other`.
pub fn replaces(labels: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> bool {
    is_replacement(labels) && SAME.iter().all(|key| labels.contains_key(*key) && labels.get(*key) == other.get(*key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| (format!("com.docker.compose.{key}"), (*value).to_owned())).collect()
    }

    #[test]
    fn only_the_same_place_of_the_same_service_is_replaced() {
        let old = labels(&[("project", "app"), ("service", "web"), ("container-number", "1")]);
        for (new, expected) in [
            (&[("project", "app"), ("service", "web"), ("container-number", "1"), ("replace", "x")][..], true),
            (&[("project", "app"), ("service", "web"), ("container-number", "2"), ("replace", "x")], false),
            (&[("project", "other"), ("service", "web"), ("container-number", "1"), ("replace", "x")], false),
            (&[("project", "app"), ("service", "web"), ("container-number", "1")], false),
            (&[("replace", "x")], false),
        ] {
            assert_eq!(replaces(&labels(new), &old), expected, "{new:?}");
        }
        assert!(!replaces(&labels(&[("replace", "x")]), &BTreeMap::new()), "what has no place replaces nobody");
    }
}
