//! Configurations of images.
//!
//! Source: OCI image specification, `config.md`; github.com/moby/docker-image-spec, `spec.md`, for Docker's additions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::counts::Counts;
use super::go_json::{Empty, is_zero, null_default, texts};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::platform::Platform;

/// An image's configuration as it is stored and hashed, with Docker's additions to the OCI form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<String>,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) os: String,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) config: ImageConfig,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) rootfs: RootFs,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) history: Vec<History>,
    /// The steps that made it, for builds elsewhere: the key of each, and which layer it made if it made one.
    #[serde(
        default,
        rename = "bireme.build.cache.v0",
        deserialize_with = "null_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub(crate) steps: Vec<(Digest, Option<usize>)>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) diff_ids: Vec<Digest>,
}

impl ConfigFile {
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, ImageError> {
        serde_json::from_slice(bytes).map_err(|error| ImageError::malformed(format!("configuration of {what}"), error))
    }

    /// The configuration of an artifact may be anything; where it is an image's, it is read as one.
    pub(crate) fn of_artifact(bytes: &[u8]) -> Self {
        let counted = Counts::of(bytes).is_ok_and(|counts| counts.check().is_ok());
        if counted { serde_json::from_slice(bytes).unwrap_or_default() } else { Self::default() }
    }

    /// Of an image that has nothing yet.
    pub(crate) fn empty(platform: Platform) -> Self {
        Self {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
            ..Self::default()
        }
    }

    pub(crate) fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, &self.variant)
    }
}

/// What a workload of an image starts with unless told otherwise. Fields are Docker's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user[:group]`; empty is root.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Such as `80/tcp`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `None` if the image has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `None` if the image has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths inside that are volumes.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Empty is `/`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// By name.
    #[serde(deserialize_with = "texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How to tell whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What shell-form commands are run with; `None` is `/bin/sh -c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Instructions for images built from this one.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
}

/// Docker's health check; durations are in nanoseconds, 0 inherits the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// From the end of one check to the start of the next.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// After which a check counts as failed.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// From the start of the workload, in which failures do not count.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// As `interval`, within `start_period`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until it counts as unhealthy.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// One step in the making of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When; `None` if its maker does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<DateTime<Utc>>,
    /// The command that was run, or `/bin/sh -c #(nop)` and the instruction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// As in the configuration when the step was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Free text, such as the name of the builder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The step made no layer.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_what_it_is_in_go() {
        let text = br#"{"os":null,"architecture":"amd64","variant":null,"history":[{"empty_layer":null}],"config":{
            "Volumes":{"/v":null},"ExposedPorts":{"80/tcp":null},"Labels":{"a":null,"b":"c"},"User":null,
            "Healthcheck":{"Test":null,"Interval":null,"Retries":null}}}"#;
        assert!(Counts::of(text).unwrap().check().is_ok());
        let file = ConfigFile::parse(text, "x").unwrap();
        assert_eq!((file.os.as_str(), file.variant.as_str(), file.history[0].empty_layer), ("", "", false));
        assert!(file.config.volumes.contains_key("/v") && file.config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(file.config.labels.values().collect::<Vec<_>>(), ["", "c"]);
        assert_eq!(file.config.healthcheck, Some(Healthcheck::default()));
        for other in ["7", "\"x\"", "[1]"] {
            let text = format!("{{\"config\":{{\"Volumes\":{{\"/v\":{other}}}}}}}");
            assert!(ConfigFile::parse(text.as_bytes(), "x").is_err(), "{other}");
        }
    }
}
