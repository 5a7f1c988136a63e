//! Restart policies.

use bireme_api::models::{RestartPolicy as WireRestart, RestartPolicyNameEnum};
use bireme_engine::request::RestartPolicy;

use crate::convert::Refusal;

/// # Errors
/// `Invalid`, in Docker's words, for a restart policy that is none.
pub(in crate::convert) fn check_restart_name(name: &str) -> Result<(), Refusal> {
    if ["", "no", "always", "unless-stopped", "on-failure"].contains(&name) {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
    )))
}

/// A restart policy; `auto_remove` contradicts all but none.
pub(in crate::convert) fn restart(wire: WireRestart, auto_remove: bool) -> Result<RestartPolicy, Refusal> {
    let count = wire.maximum_retry_count.unwrap_or_default();
    let policy = match wire.name.unwrap_or(RestartPolicyNameEnum::EMPTY) {
        RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO => RestartPolicy::No,
        RestartPolicyNameEnum::ALWAYS => RestartPolicy::Always,
        RestartPolicyNameEnum::UNLESS_STOPPED => RestartPolicy::UnlessStopped,
        RestartPolicyNameEnum::ON_FAILURE => RestartPolicy::OnFailure(
            u32::try_from(count)
                .map_err(|_| Refusal::invalid("invalid restart policy: maximum retry count cannot be negative"))?,
        ),
    };
    if count != 0 && !matches!(policy, RestartPolicy::OnFailure(_)) {
        return Err(Refusal::invalid("invalid restart policy: maximum retry count can only be used with 'on-failure'"));
    }
    if auto_remove && policy != RestartPolicy::No {
        return Err(Refusal::invalid("can't create 'AutoRemove' container with restart policy"));
    }
    Ok(policy)
}
