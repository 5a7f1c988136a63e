//! What a component cannot do that a container can, and what its user does instead.

use bireme_core::executor::Power;
use bireme_core::{ErrorKind, ExecError};

/// Why the component called `name` lacks `power`.
pub(crate) fn refusal(name: &str, power: Power) -> ExecError {
    let component = |what: &str| format!("{name} is a WebAssembly component and {what}");
    let sentence = match power {
        Power::Attach => format!("{name} has no streams to attach to: read its output with `docker logs -f`"),
        Power::Terminal => format!("{name} has no terminal"),
        Power::Exec => component(
            "has no processes or shell to exec into: read its output with `docker logs`, its live instances with `docker top`",
        ),
        Power::Pause => component("cannot be paused: stop it instead"),
        Power::Limits => {
            format!("{name} takes its limits when it starts: stop it, update it, and start it again")
        }
        Power::Copy => component("has no file tree to copy from or to: copy to the folder it mounts instead"),
        Power::Changes => component("has no files of its own: what it writes is in the volumes it mounts"),
        Power::ProbeCommand => {
            component("cannot run a health check command: name a path to probe with the label bireme.health")
        }
        Power::Diagnose => format!("{name} is not looked into: ask again when it runs"),
        Power::Publish(port) => component(&format!(
            "answers HTTP over TCP: port {}/{} cannot be published",
            port.number,
            port.protocol.as_str()
        )),
    };
    ExecError::new(ErrorKind::Unsupported, sentence)
}

#[cfg(test)]
mod tests {
    use bireme_core::spec::{Port, Protocol};

    use super::*;

    #[test]
    fn every_refusal_says_what_to_do_instead() {
        let all = [
            Power::Attach,
            Power::Terminal,
            Power::Exec,
            Power::Pause,
            Power::Limits,
            Power::Copy,
            Power::Changes,
            Power::ProbeCommand,
            Power::Publish(Port { number: 53, protocol: Protocol::Udp }),
        ];
        for power in all {
            let error = refusal("hello", power);
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let told = error.message();
            assert!(told.starts_with("hello "), "{told}");
            assert!(told.contains(": ") || power == Power::Terminal, "nothing to do instead: {told}");
        }
    }
}
