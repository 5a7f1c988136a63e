//! What a component cannot have, or has no use for, of what a workload can be asked to be.

use bireme_core::spec::Blkio;
use bireme_core::{ErrorKind, ExecError, WorkloadSpec};

use crate::protocol::Trigger;

/// Whether labels and standard input fit what the component exports.
///
/// # Errors
/// A sentence that says what to change.
pub(super) fn fits(spec: &WorkloadSpec, exported: Trigger) -> Result<(), ExecError> {
    let invalid = |text: &str| Err(ExecError::new(ErrorKind::Invalid, text));
    let trigger = exported.of(&spec.bireme);
    if spec.bireme.wagi.is_some() && trigger != Trigger::Wagi {
        return invalid(
            "label bireme.wagi does not fit: it has a program answer requests that is a core module of WASI preview 1 with \
             a main function, and this is none",
        );
    }
    let name = trigger.name();
    if spec.bireme.schedule.is_some() && name != "schedule" {
        return invalid(&format!(
            "label bireme.schedule does not fit: a schedule is for a command (wasi:cli/run), and this component exports the \
             {name} trigger"
        ));
    }
    if name != "http" && spec.labels.contains_key("bireme.http.route") {
        return invalid(&format!(
            "label bireme.http.route does not fit: this component exports the {name} trigger, not http"
        ));
    }
    if name != "command" && spec.open_stdin {
        let text = "only a command that runs once has standard input: leave out stdin_open (docker run without -i)";
        return Err(ExecError::new(ErrorKind::Unsupported, text));
    }
    match (trigger, &spec.bireme.subscribe) {
        (_, None) if name == "redis" && spec.bireme.requested.contains_key("bireme.redis.subscribe") => invalid(
            "the image requests the channel of its label bireme.redis.subscribe: confirm it with \
                 bireme.allow-requested=true (bireme run --allow-requested), or set bireme.redis.subscribe to \
                 redis://host:port/CHANNEL",
        ),
        (_, None) if name == "redis" => invalid(
            "this component handles Redis messages, and no label says which: set bireme.redis.subscribe to \
             redis://host:port/CHANNEL",
        ),
        (_, None) => Ok(()),
        (_, Some(_)) if name == "redis" => Ok(()),
        (other, Some(_)) => invalid(&format!(
            "label bireme.redis.subscribe does not fit: this component exports the {} trigger, not \
             inbound-redis",
            other.name()
        )),
    }
}

/// What of the limits has no effect on a component, a sentence each.
pub(super) fn without_effect(spec: &WorkloadSpec) -> Vec<String> {
    let limits = &spec.resources;
    let without_effect = [
        (limits.nano_cpus.is_some() || limits.cpu_quota.is_some(), "a limit of processor time per period"),
        (limits.cpu_shares.is_some(), "CPU shares"),
        (limits.cpuset.is_some() || limits.cpuset_mems.is_some(), "a set of processors"),
        (limits.memory_reservation.is_some(), "a memory reservation"),
        (limits.pids.is_some(), "a limit of processes"),
        (limits.blkio != Blkio::default(), "a share of block devices"),
    ];
    let told = without_effect.iter().filter(|(set, _)| *set).map(|(_, what)| {
        format!(
            "{what} has no effect on a component: use the memory limit (of one instance), bireme.cpu-time and \
             bireme.instances"
        )
    });
    told.collect()
}

/// Refuses what can be asked of a container and what no component can have.
pub(super) fn refuse_what_components_lack(spec: &WorkloadSpec) -> Result<(), ExecError> {
    let refuse = |text: &str| Err(ExecError::new(ErrorKind::Unsupported, text));
    if spec.tty {
        return refuse("a component has no terminal: leave out tty (docker run without -t)");
    }
    if spec.security.privileged {
        return refuse("a component cannot be privileged: grant what it needs with mounts and bireme.allow");
    }
    if !spec.security.cap_add.is_empty() {
        return refuse("a component has no Linux capabilities: leave out cap_add");
    }
    if !spec.security.devices.is_empty() {
        return refuse("a component cannot be given devices: leave out devices");
    }
    if !spec.security.sysctls.is_empty() {
        return refuse("a component has no kernel settings of its own: leave out sysctls");
    }
    Ok(())
}
