//! What a service waits for in another one.

use serde::Serialize;

use super::form::is_false;
use crate::read::value::{boolean, one_of};
use crate::read::{Result, keyed};
use crate::yaml::Node;

const CONDITIONS: &[&str] = &["service_started", "service_healthy", "service_completed_successfully"];
const NO_CONDITION: &str =
    "has no condition; write one of service_started, service_healthy, service_completed_successfully";

keyed! {
    /// What a service waits for in another one.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Dependency = "a dependency" {
        /// What the other service must have reached.
        pub condition: Condition => required(Condition::read, NO_CONDITION),
        /// Restart this service when the other was recreated.
        #[serde(skip_serializing_if = "is_false")]
        pub restart: bool => or_default(boolean),
        /// Whether it is an error that the other service is not there or does not come up.
        pub required: bool => or(boolean, true),
    }
}

/// How far the containers of a service must have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// They were started.
    ServiceStarted,
    /// Their health checks have passed.
    ServiceHealthy,
    /// They have ended with exit code 0.
    ServiceCompletedSuccessfully,
}

impl Condition {
    fn read(node: &Node, path: &str) -> Result<Self> {
        Ok(match one_of(CONDITIONS)(node, path)?.as_str() {
            "service_healthy" => Self::ServiceHealthy,
            "service_completed_successfully" => Self::ServiceCompletedSuccessfully,
            _ => Self::ServiceStarted,
        })
    }

    /// The word of the Compose file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ServiceStarted => "service_started",
            Self::ServiceHealthy => "service_healthy",
            Self::ServiceCompletedSuccessfully => "service_completed_successfully",
        }
    }
}
