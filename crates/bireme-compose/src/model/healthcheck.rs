//! How it is found out whether a container works.

use std::time::Duration;

use serde::Serialize;

use super::form::{self, is_false};
use crate::read::value::{boolean, count, duration, strings};
use crate::read::{Result, keyed};
use crate::yaml::{Node, Value};

keyed! {
    /// How the engine finds out whether a container works; what is absent is the image's, else the engine's.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Healthcheck = "healthcheck" {
        /// Takes away the image's own check.
        #[serde(skip_serializing_if = "is_false")]
        pub disable: bool => or_default(boolean),
        /// `["CMD", …]`, `["CMD-SHELL", line]` or `["NONE"]`; empty: the image's.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub test: Vec<String> => or_default(test),
        /// From the end of one probe to the next.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::go_duration")]
        pub interval: Option<Duration> => opt(duration),
        /// How long a probe may take.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::go_duration")]
        pub timeout: Option<Duration> => opt(duration),
        /// Failures in a row that make a container unhealthy.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub retries: Option<u32> => opt(count),
        /// After the start, how long failures do not count.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::go_duration")]
        pub start_period: Option<Duration> => opt(duration),
        /// As `interval`, while `start_period` lasts.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::go_duration")]
        pub start_interval: Option<Duration> => opt(duration),
    }
}

impl Healthcheck {
    /// Whether there is anything to probe.
    pub fn is_on(&self) -> bool {
        !self.disable && self.test.first().is_none_or(|word| word != "NONE")
    }
}

fn test(node: &Node, path: &str) -> Result<Vec<String>> {
    match &node.value {
        Value::Text(line) => Ok(vec!["CMD-SHELL".to_owned(), line.clone()]),
        _ => {
            let words = strings(node, path)?;
            match words.first().map(String::as_str) {
                None | Some("NONE" | "CMD" | "CMD-SHELL") => Ok(words),
                Some(word) => {
                    Err(node.invalid(path, format!("must begin with NONE, CMD or CMD-SHELL, but begins with {word:?}")))
                }
            }
        }
    }
}
