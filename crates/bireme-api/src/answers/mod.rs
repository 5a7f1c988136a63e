//! What a client reads of an engine's answers, whichever engine that is.
//!
//! The generated [`models`](crate::models) are what we send and what our own engine is asked with. They are too strict to
//! read with: a field that an older engine leaves out, or a state that another engine has a word of its own for, refuses the
//! whole answer. The types here have only the fields that somebody reads, and whatever of them is absent, `null` or of another
//! kind has its default: no text, no entries, zero, or `None` where it matters that nothing was said. Words such as states
//! stay text. What an engine says beyond these fields is not lost: `inspect` and templates go by its own bytes.
//!
//! Names of fields are those of the wire. Identifiers, names and times are text as the engine wrote it.

pub mod container;
pub mod image;
pub mod network;
pub mod progress;
pub mod stats;
pub mod system;
pub mod volume;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer};
use serde_json::Value;

/// A field's value, or its default where it is `null` or not what we would read. Of a list or map, those members that are.
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: DeserializeOwned + Default,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(T::deserialize(&value).unwrap_or_else(|_| T::deserialize(readable::<T>(value)).unwrap_or_default()))
}

/// What of a list or map could be read as a `T` with that member alone; anything else as it is.
fn readable<T: DeserializeOwned>(value: Value) -> Value {
    match value {
        Value::Array(all) => Value::Array(
            all.into_iter().filter(|one| T::deserialize(Value::Array(vec![one.clone()])).is_ok()).collect(),
        ),
        Value::Object(all) => {
            let alone = |key: &String, one: &Value| Value::Object([(key.clone(), one.clone())].into_iter().collect());
            Value::Object(all.into_iter().filter(|(key, one)| T::deserialize(alone(key, one)).is_ok()).collect())
        }
        other => other,
    }
}

/// Declares answers: every field is public, may be absent, and is read by [`lenient`].
macro_rules! answers {
    ($(
        $(#[$about:meta])*
        pub struct $name:ident { $($(#[$field_about:meta])* $field:ident: $kind:ty,)* }
    )*) => {$(
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(default)]
        $(#[$about])*
        pub struct $name {
            $(
                $(#[$field_about])*
                #[serde(deserialize_with = "crate::answers::lenient")]
                pub $field: $kind,
            )*
        }
    )*};
}
use answers;

answers! {
    /// What a `prune` of anything removed.
    ///
    /// Source: Docker Engine API, `ContainerPrune`, `ImagePrune`, `NetworkPrune`, `VolumePrune`, `BuildPrune`.
    #[serde(rename_all = "PascalCase")]
    pub struct Pruned {
        /// Ids of containers.
        containers_deleted: Vec<String>,
        /// Names of networks.
        networks_deleted: Vec<String>,
        /// Names of volumes.
        volumes_deleted: Vec<String>,
        /// Images that lost a name or went.
        images_deleted: Vec<image::Removed>,
        /// Ids of steps in the cache of builds.
        caches_deleted: Vec<String>,
        /// Bytes on disk that are free again.
        space_reclaimed: u64,
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::container::{Container, ContainerSummary, ExecSession};
    use super::*;

    fn check<T: DeserializeOwned + std::fmt::Debug + PartialEq>(text: &str, expected: T) {
        assert_eq!(serde_json::from_str::<T>(text).unwrap(), expected, "{text}");
    }

    #[test]
    fn what_is_absent_null_or_of_another_kind_has_its_default() {
        check("{}", ContainerSummary::default());
        check(
            r#"{"Id":null,"Names":null,"Labels":null,"Ports":{},"Created":"yesterday","NetworkSettings":[],"New":{"a":1}}"#,
            ContainerSummary::default(),
        );
        check(r#"{"State":{"ExitCode":"3"},"Config":null}"#, Container::default());
        check(
            r#"{"SpaceReclaimed":-1,"ImagesDeleted":[{"Deleted":null}]}"#,
            Pruned { images_deleted: vec![image::Removed::default()], ..Pruned::default() },
        );
    }

    #[test]
    fn an_odd_member_costs_no_other() {
        let labels = std::collections::BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        check(
            r#"{"Labels":{"a":"b","n":1,"none":null},"Names":["/one",2,null]}"#,
            ContainerSummary { labels, names: vec!["/one".to_owned()], ..ContainerSummary::default() },
        );
    }

    #[test]
    fn words_of_other_engines_are_kept() {
        check(
            r#"{"State":"initialized"}"#,
            ContainerSummary { state: "initialized".to_owned(), ..ContainerSummary::default() },
        );
    }

    #[test]
    fn a_code_that_nobody_gave_is_none() {
        check(r#"{"Running":false,"ExitCode":null}"#, ExecSession { running: Some(false), exit_code: None });
        check(r#"{"Running":false,"ExitCode":0}"#, ExecSession { running: Some(false), exit_code: Some(0) });
    }

    #[test]
    fn an_answer_of_another_shape_is_refused() {
        assert!(serde_json::from_str::<Vec<ContainerSummary>>("{}").is_err());
        assert!(serde_json::from_str::<container::Created>(r#"{"Warnings":null}"#).is_err());
    }
}
