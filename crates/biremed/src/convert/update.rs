//! `POST /containers/{id}/update`: limits and the restart policy.

use bireme_api::models::{HostConfig, RestartPolicy as WireRestart};
use bireme_engine::request::Update;
use serde_json::Value;

use super::{Refusal, create};

/// What shall change. What may not change after create is left alone, as dockerd leaves it.
///
/// # Errors
/// `Invalid` for what contradicts itself or is no policy.
pub fn update(body: &Value) -> Result<Update, Refusal> {
    let wire = |value: Value| {
        serde_json::from_value::<HostConfig>(value).map_err(|error| Refusal::invalid(format!("invalid JSON: {error}")))
    };
    let Some(fields) = body.as_object() else {
        return Err(Refusal::invalid("invalid JSON: expected an object"));
    };
    let mut limits = fields.clone();
    let policy = limits.remove("RestartPolicy").unwrap_or_default();
    let host = wire(Value::Object(limits))?;
    let mut resources = create::resources(&host, create::For::Update)?;
    // Zero frees it here; left out, it stays as it is.
    resources.pids = host.pids_limit;
    let name = policy["Name"].as_str().unwrap_or_default();
    let restart = if name.is_empty() {
        None
    } else {
        create::check_restart_name(name)?;
        let wire: WireRestart =
            serde_json::from_value(policy).map_err(|error| Refusal::invalid(format!("invalid JSON: {error}")))?;
        Some(create::restart(wire, false)?)
    };
    Ok(Update { restart, resources })
}

#[cfg(test)]
mod tests {
    use bireme_core::spec::Resources;
    use bireme_engine::request::RestartPolicy;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_set_changes() {
        let quiet = json!({ "CpuShares": 0, "Devices": [], "CpusetCpus": "", "RestartPolicy": { "Name": "", "MaximumRetryCount": 0 } });
        assert_eq!(update(&quiet), Ok(Update::default()));
        let always = update(&json!({ "Memory": 0, "RestartPolicy": { "Name": "always" } })).unwrap();
        assert_eq!(always, Update { restart: Some(RestartPolicy::Always), ..Update::default() });
        let limits = update(&json!({ "MemorySwap": -1, "NanoCpus": 500_000_000, "PidsLimit": 0 })).unwrap().resources;
        let expected =
            Resources { memory_swap: Some(-1), nano_cpus: Some(500_000_000), pids: Some(0), ..Resources::default() };
        assert_eq!(limits, expected);
    }

    #[test]
    fn what_dockerd_refuses_is_refused_in_its_words() {
        let check = |body: Value, expected: &str| {
            let refusal = update(&body).unwrap_err().message;
            assert!(refusal.contains(expected), "{body}: {refusal}");
        };
        check(json!({ "Memory": 1 }), "Minimum memory limit allowed is 6MB");
        check(json!({ "Memory": -5 }), "Minimum memory limit allowed is 6MB");
        check(json!({ "Memory": "x" }), "invalid JSON");
        check(json!({ "RestartPolicy": { "Name": "odd" } }), "unknown policy 'odd'");
        check(json!([]), "invalid JSON");
    }
}
