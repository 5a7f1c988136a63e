//! Waiting for the containers of a service: until they run, are healthy, or have ended well.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bireme_api::answers::container::{Container, ContainerSummary};
use bireme_compose::{Condition, labels};
use serde_json::json;

use super::Executor;
use crate::error::Failure;

impl Executor<'_> {
    /// Until every container of a service meets a condition.
    pub(super) async fn wait_for(&self, service: &str, condition: Condition) -> anyhow::Result<()> {
        let filters = json!({"label": [
            format!("{}={}", labels::PROJECT, self.project.name),
            format!("{}={service}", labels::SERVICE),
        ]});
        let mut said = false;
        // Since when each has been seen in the run it is in, and how often it had been restarted at first.
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        loop {
            let list: Vec<ContainerSummary> =
                self.context.client.get("/containers/json").query("all", 1).query("filters", &filters).read().await?;
            let mut met = !list.is_empty();
            for listed in &list {
                if listed.labels.get(labels::ONE_OFF).is_some_and(|text| text.eq_ignore_ascii_case("true")) {
                    continue;
                }
                let id = &listed.id;
                let container: Container = self.context.client.get(format!("/containers/{id}/json")).read().await?;
                met &= meets(&container, condition)?;
                if condition == Condition::ServiceStarted {
                    met &= settled(&container, seen.entry(id.clone()).or_default())?;
                }
            }
            if met {
                if said {
                    self.say("Service", service, done_word(condition))?;
                }
                return Ok(());
            }
            if !said {
                said = true;
                self.say("Service", service, "Waiting")?;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// How long a container without a health check must run until it counts as up: one that crashes at once is not.
const SETTLE: Duration = Duration::from_secs(1);
/// After so many restarts meanwhile, waiting is in vain.
const MAX_RESTARTS: i64 = 3;

/// What is remembered of a container while it is waited for.
#[derive(Debug, Default)]
struct Seen {
    run: Option<(String, Instant)>,
    restarts: Option<i64>,
    /// How it ended when it was last seen between two runs.
    code: i64,
}

/// Whether a running container has been in one run long enough; an error when it only crashes again and again.
fn settled(container: &Container, seen: &mut Seen) -> anyhow::Result<bool> {
    let (name, restarts) = (container.bare_name(), container.restart_count);
    // A run that began anew has no code yet.
    if let Some(code) = container.state.exit_code.filter(|code| *code != 0) {
        seen.code = code;
    }
    if restarts - *seen.restarts.get_or_insert(restarts) >= MAX_RESTARTS {
        return Err(failed(name, format!("container {name} exited ({}) again and again", seen.code)));
    }
    let run = &container.state.started_at;
    match &seen.run {
        Some((known, since)) if known == run => Ok(since.elapsed() >= SETTLE),
        _ => {
            seen.run = Some((run.clone(), Instant::now()));
            Ok(false)
        }
    }
}

fn done_word(condition: Condition) -> &'static str {
    match condition {
        Condition::ServiceStarted => "Running",
        Condition::ServiceHealthy => "Healthy",
        Condition::ServiceCompletedSuccessfully => "Exited",
    }
}

/// Whether a container meets a condition; an error when it never will.
fn meets(container: &Container, condition: Condition) -> anyhow::Result<bool> {
    let (name, state) = (container.bare_name(), &container.state);
    let ended = matches!(state.status.as_str(), "exited" | "dead");
    let code = state.exit_code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
    match condition {
        Condition::ServiceCompletedSuccessfully if ended && state.exit_code == Some(0) => Ok(true),
        Condition::ServiceCompletedSuccessfully if ended => {
            Err(failed(name, format!("container {name} did not complete successfully: it exited with code {code}")))
        }
        Condition::ServiceCompletedSuccessfully => Ok(false),
        _ if ended => Err(failed(name, format!("container {name} exited ({code})"))),
        Condition::ServiceStarted => Ok(state.running),
        Condition::ServiceHealthy => match state.health.as_ref().map_or("none", |health| health.status.as_str()) {
            "healthy" => Ok(true),
            "unhealthy" => Err(failed(name, format!("container {name} is unhealthy"))),
            "starting" => Ok(false),
            _ if !state.running => Ok(false),
            _ => Err(Failure::new(format!("container {name} has no healthcheck configured"))
                .hint("give its service a healthcheck (label bireme.health for a component)")
                .into()),
        },
    }
}

fn failed(name: &str, message: String) -> anyhow::Error {
    Failure::new(message).hint(format!("`bireme logs {name}` shows what it said")).into()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn check(state: Value, condition: Condition, expected: Result<bool, &str>) {
        let container = json!({"Name": "/web-1", "State": state});
        let container: Container = serde_json::from_value(container).unwrap();
        let got = meets(&container, condition).map_err(|error| error.to_string());
        assert_eq!(got, expected.map_err(str::to_owned), "{state}");
    }

    #[test]
    fn conditions_are_met_or_never_will_be() {
        use Condition::{ServiceCompletedSuccessfully, ServiceHealthy, ServiceStarted};
        check(json!({"Status": "running", "Running": true}), ServiceStarted, Ok(true));
        check(json!({"Status": "created"}), ServiceStarted, Ok(false));
        check(json!({"Status": "exited", "ExitCode": 2}), ServiceStarted, Err("container web-1 exited (2)"));
        check(json!({"Status": "exited", "ExitCode": 0}), ServiceCompletedSuccessfully, Ok(true));
        check(json!({"Status": "running", "Running": true}), ServiceCompletedSuccessfully, Ok(false));
        check(
            json!({"Status": "exited"}),
            ServiceCompletedSuccessfully,
            Err("container web-1 did not complete successfully: it exited with code unknown"),
        );
        check(
            json!({"Status": "exited", "ExitCode": 1}),
            ServiceCompletedSuccessfully,
            Err("container web-1 did not complete successfully: it exited with code 1"),
        );
        check(
            json!({"Status": "running", "Running": true, "Health": {"Status": "starting"}}),
            ServiceHealthy,
            Ok(false),
        );
        check(
            json!({"Status": "running", "Running": true, "Health": {"Status": "unhealthy"}}),
            ServiceHealthy,
            Err("container web-1 is unhealthy"),
        );
        check(
            json!({"Status": "running", "Running": true}),
            ServiceHealthy,
            Err("container web-1 has no healthcheck configured"),
        );
    }
}
