//! `POST /containers/{id}/update`: the restart policy, which is all that may change.

use bireme_api::models::RestartPolicy as WireRestart;
use bireme_engine::request::RestartPolicy;
use serde_json::Value;

use super::{Refusal, create};

/// The new restart policy, or `None` when the body asks for nothing.
///
/// # Errors
/// `Unsupported` for every limit that is set; `Invalid` for a policy that is none.
pub fn restart_policy(body: &Value) -> Result<Option<RestartPolicy>, Refusal> {
    for (field, value) in body.as_object().into_iter().flatten() {
        // What Docker's clients send for "leave it as it is".
        let unset = match value {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Number(number) => number.as_f64() == Some(0.0),
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
        };
        if field != "RestartPolicy" && !unset {
            return Err(Refusal::unsupported(format!(
                "changing {field} of a container is not offered: create it anew with the new value"
            )));
        }
    }
    let name = body["RestartPolicy"]["Name"].as_str().unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    create::check_restart_name(name)?;
    let wire: WireRestart = serde_json::from_value(body["RestartPolicy"].clone())
        .map_err(|error| Refusal::invalid(format!("invalid JSON: {error}")))?;
    create::restart(wire, false).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_restart_policy_may_change() {
        let quiet = json!({ "CpuShares": 0, "Devices": [], "CpusetCpus": "", "RestartPolicy": { "Name": "", "MaximumRetryCount": 0 } });
        assert_eq!(restart_policy(&quiet), Ok(None));
        let always = json!({ "Memory": 0, "RestartPolicy": { "Name": "always" } });
        assert_eq!(restart_policy(&always), Ok(Some(RestartPolicy::Always)));
        let memory = restart_policy(&json!({ "Memory": 1 })).unwrap_err();
        assert!(memory.message.starts_with("changing Memory of a container is not offered"));
        assert!(restart_policy(&json!({ "RestartPolicy": { "Name": "odd" } })).is_err());
    }
}
