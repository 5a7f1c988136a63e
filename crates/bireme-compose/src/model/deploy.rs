//! `deploy`: how many containers, and what each may use.

use std::collections::BTreeMap;

use serde::Serialize;

use super::form;
use crate::keys::Keys;
use crate::keys::reason::SWARM;
use crate::read::value::{bytes, count, integer, number, one_of, texts};
use crate::read::{Reader, Result, keyed};
use crate::yaml::Node;

keyed! {
    /// `deploy`: what of the orchestrator's section applies to one machine.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Deploy = "deploy" {
        /// `replicated`, the only one there is here.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mode: Option<String> => opt(mode),
        /// Of the service, not of its containers; kept and printed only.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => or_default(texts),
        /// How many containers; `scale` says the same.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub replicas: Option<u32> => opt(count),
        /// What each container may use.
        #[serde(skip_serializing_if = "Resources::is_empty")]
        pub resources: Resources => or_default(Resources::read),
        /// Applies when the service has no `restart`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub restart_policy: Option<DeployRestart> => opt(DeployRestart::read),
    }
    refused:
        "endpoint_mode" => SWARM,
        "placement" => "there is one machine, so nothing to place; leave it out",
        "rollback_config" => SWARM,
        "update_config" => SWARM;
}

fn mode(node: &Node, path: &str) -> Result<String> {
    match node.as_str() {
        Some("global" | "replicated-job" | "global-job") => {
            Err(node.unsupported(path, "belongs to Swarm; write `replicated` or leave it out"))
        }
        _ => one_of(&["replicated"])(node, path),
    }
}

keyed! {
    /// What each container of a service may use.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Resources = "resources" {
        /// The most it gets.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub limits: Option<Resource> => opt(Resource::read),
        /// What is kept for it.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub reservations: Option<Resource> => opt(Resource::reserved),
    }
}

impl Resources {
    fn is_empty(&self) -> bool {
        self.limits.is_none() && self.reservations.is_none()
    }
}

keyed! {
    /// One set of bounds of a container.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Resource = "limits" {
        /// Processors, such as 0.5.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::short_number")]
        pub cpus: Option<f64> => opt(number),
        /// Bytes.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub memory: Option<i64> => opt(bytes),
        /// Processes and threads; 0 or -1: no limit. Of `limits` only.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub pids: Option<i64> => opt(integer),
    }
}

pub(crate) const RESERVATIONS: Keys = Keys {
    what: "reservations",
    done: &["cpus", "memory"],
    refused: &[
        ("devices", "graphics processors are not handed to containers; name the device files under `devices`"),
        ("generic_resources", SWARM),
    ],
};

impl Resource {
    /// `reservations`, which has other keys than `limits`.
    fn reserved(node: &Node, path: &str) -> Result<Self> {
        Self::decode(&Reader::new(node, &RESERVATIONS, path)?)
    }
}

keyed! {
    /// When a container that has ended is started again.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct DeployRestart = "restart_policy" {
        /// `none`, `on-failure` or `any`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub condition: Option<String> => opt(one_of(&["none", "on-failure", "any"])),
        /// Starts after failures, with `on-failure` only; absent: no limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub max_attempts: Option<u32> => opt(count),
    }
    refused:
        "delay" => "the wait between restarts is the engine's own, growing from 100 ms to a minute; leave it out",
        "window" => "the engine counts a start as good after ten seconds; leave it out";
}
