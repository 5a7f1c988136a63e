//! How much a configuration lists, counted before any of it is kept.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::go_json::null_default;

/// How many things a configuration lists. They are counted before anything of it is kept: some bytes each in a document
/// are hundreds in memory.
#[derive(Default, Deserialize)]
pub(crate) struct Counts {
    #[serde(default)]
    history: Count,
    #[serde(default, deserialize_with = "null_default")]
    config: ConfigCounts,
    /// What manifests and indexes have. The digest of one is the ID of an artifact, and no image may come to have the same.
    #[serde(default, rename = "schemaVersion")]
    schema_version: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigCounts {
    exposed_ports: Count,
    env: Count,
    entrypoint: Count,
    cmd: Count,
    volumes: Count,
    labels: Count,
    #[serde(deserialize_with = "null_default")]
    healthcheck: HealthCounts,
    shell: Count,
    on_build: Count,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HealthCounts {
    test: Count,
}

impl Counts {
    pub(crate) fn of(config: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(config)
    }

    /// # Errors
    /// A sentence that names what there is too much of.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.schema_version.is_some() {
            return Err("it is a manifest: it has a schemaVersion".to_owned());
        }
        let config = &self.config;
        let words = config.entrypoint.0 + config.cmd.0 + config.shell.0 + config.healthcheck.test.0;
        // None of them hinders what people build; a workload takes no more of most of them either.
        let bounds = [
            (self.history.0, 10_000, "steps of its history"),
            (config.labels.0, 10_000, "labels"),
            (config.env.0, 10_000, "variables"),
            (words, 10_000, "words of its commands"),
            (config.on_build.0, 1_000, "ONBUILD triggers"),
            (config.exposed_ports.0, 200_000, "ports"),
            (config.volumes.0, 1_000, "volumes"),
        ];
        match bounds.iter().find(|(found, most, _)| found > most) {
            None => Ok(()),
            Some((found, most, what)) => {
                Err(format!("it has {found} {what}, and no image may have more than {most}: build it with less"))
            }
        }
    }
}

/// The length of a list or the size of a map, of which nothing is kept.
#[derive(Default)]
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or a map")
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while all.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        from.deserialize_any(Counting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_configuration_lists_is_counted() {
        let fields: [(&str, usize, &str); 8] = [
            ("Labels", 10_000, "labels"),
            ("Env", 10_000, "variables"),
            ("Cmd", 10_000, "words of its commands"),
            ("Shell", 10_000, "words of its commands"),
            ("OnBuild", 1_000, "ONBUILD triggers"),
            ("ExposedPorts", 200_000, "ports"),
            ("Volumes", 1_000, "volumes"),
            ("", 10_000, "steps of its history"),
        ];
        for (field, most, what) in fields {
            let of = |count: usize| {
                let map = matches!(field, "Labels" | "ExposedPorts" | "Volumes");
                let member = |at| if map { format!("\"{at}\":{{}}") } else { "\"a\"".to_owned() };
                let all: Vec<String> = (0..count).map(member).collect();
                let all = all.join(",");
                let value = if map { format!("{{{all}}}") } else { format!("[{all}]") };
                let text = match field {
                    "" => format!("{{\"config\":null,\"history\":{value}}}"),
                    _ => format!("{{\"config\":{{\"{field}\":{value},\"Healthcheck\":null}},\"history\":null}}"),
                };
                Counts::of(text.as_bytes()).unwrap().check()
            };
            assert_eq!(of(most), Ok(()), "{field}");
            let refused = of(most + 1).unwrap_err();
            assert!(refused.starts_with(&format!("it has {} {what}, ", most + 1)), "{refused}");
        }
    }
}
