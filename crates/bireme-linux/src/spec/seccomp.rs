//! Which system calls a container may make: Docker's default, or a profile in Docker's JSON form.

use std::collections::BTreeSet;

use bireme_core::ErrorKind;
use bireme_core::spec::Seccomp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::protocol::Failure;

const DEFAULT: &str = include_str!("seccomp_default.txt");

/// The `linux.seccomp` of an OCI runtime specification, or none. `capabilities` are those the container will have,
/// without the `CAP_` prefix.
///
/// # Errors
/// `Invalid` for a profile that cannot be understood.
pub(super) fn section(profile: &Seccomp, capabilities: &BTreeSet<String>) -> Result<Option<Value>, Failure> {
    match profile {
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => Ok(Some(default(capabilities))),
        Seccomp::Profile(text) => custom(text, capabilities).map(Some),
    }
}

/// The architectures whose calls this machine's kernel takes: ours first.
fn architectures() -> &'static [&'static str] {
    match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        _ => &["SCMP_ARCH_NATIVE"],
    }
}

fn default(capabilities: &BTreeSet<String>) -> Value {
    // Lines without a condition become one rule.
    let mut plain = Vec::new();
    let mut rules = Vec::new();
    for line in DEFAULT.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let Some((conditions, names)) = line.split_once(": ") else { continue };
        let names: Vec<&str> = names.split(' ').collect();
        let words: Vec<&str> = conditions.split_whitespace().collect();
        if words.is_empty() {
            plain.extend(names);
            continue;
        }
        let applies = words.iter().all(|word| match word.split_at(1) {
            ("+", capability) => capabilities.contains(capability),
            ("-", capability) => !capabilities.contains(capability),
            ("@", arch) => arch == std::env::consts::ARCH,
            _ => true,
        });
        if !applies {
            continue;
        }
        let mut rule = json!({ "names": names, "action": "SCMP_ACT_ALLOW" });
        if let Some(errno) =
            words.iter().find_map(|word| word.strip_prefix('=')).and_then(|text| text.parse::<u32>().ok())
        {
            rule = json!({ "names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno });
        }
        if let Some(at) = words.iter().position(|word| word.starts_with("arg")) {
            let number = |offset: usize| words.get(at + offset).and_then(|text| text.parse::<u64>().ok());
            let index = words[at].trim_start_matches("arg").parse::<u64>().unwrap_or(0);
            let operator = words.get(at + 1).copied().unwrap_or("EQ");
            let mut argument =
                json!({ "index": index, "value": number(2).unwrap_or(0), "op": format!("SCMP_CMP_{operator}") });
            if let Some(masked) = number(3) {
                argument["valueTwo"] = json!(masked);
            }
            rule["args"] = json!([argument]);
        }
        rules.push(rule);
    }
    rules.insert(0, json!({ "names": plain, "action": "SCMP_ACT_ALLOW" }));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures(),
        "syscalls": rules,
    })
}

/// A profile as Docker takes it: the OCI form, and conditions on capabilities, architectures and the kernel.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
    listener_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Conditions,
    #[serde(default)]
    excludes: Conditions,
}

#[derive(Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conditions {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

fn custom(text: &str, capabilities: &BTreeSet<String>) -> Result<Value, Failure> {
    let refuse = |why: String| Failure::new(ErrorKind::Invalid, format!("seccomp profile is not valid: {why}"));
    let profile: Profile = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
    if profile.listener_path.is_some() {
        return Err(Failure::new(
            ErrorKind::Unsupported,
            "seccomp profiles with a listener are not supported: leave out listenerPath",
        ));
    }
    check_action(&profile.default_action).map_err(refuse)?;
    let architectures = match (profile.architectures, profile.arch_map) {
        (Some(listed), _) if !listed.is_empty() => listed,
        (_, Some(map)) if !map.is_empty() => map
            .into_iter()
            .find(|entry| entry.architecture == architectures()[0])
            .map(|entry| {
                std::iter::once(entry.architecture).chain(entry.sub_architectures.unwrap_or_default()).collect()
            })
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let mut rules = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        check_action(&rule.action).map_err(refuse)?;
        let names: Vec<String> = rule.name.into_iter().chain(rule.names).collect();
        if names.is_empty() {
            return Err(refuse("a rule names no system call".to_owned()));
        }
        if !rule.includes.included(capabilities) || rule.excludes.excluded(capabilities) {
            continue;
        }
        let mut out = json!({ "names": names, "action": rule.action });
        if let Some(errno) = rule.errno_ret {
            out["errnoRet"] = json!(errno);
        }
        if let Some(arguments) = rule.args.filter(|arguments| !arguments.is_empty()) {
            out["args"] = json!(arguments);
        }
        rules.push(out);
    }
    let mut out = json!({ "defaultAction": profile.default_action, "architectures": architectures, "syscalls": rules });
    if let Some(errno) = profile.default_errno_ret {
        out["defaultErrnoRet"] = json!(errno);
    }
    if let Some(flags) = profile.flags.filter(|flags| !flags.is_empty()) {
        out["flags"] = json!(flags);
    }
    Ok(out)
}

fn check_action(action: &str) -> Result<(), String> {
    let known = [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_LOG",
    ];
    if known.contains(&action) { Ok(()) } else { Err(format!("action {action:?} is not one of {}", known.join(", "))) }
}

impl Conditions {
    fn included(&self, capabilities: &BTreeSet<String>) -> bool {
        self.caps.iter().flatten().all(|name| has(capabilities, name))
            && self.arches.as_ref().is_none_or(|arches| arches.is_empty() || arches.iter().any(|arch| is_ours(arch)))
            && self.min_kernel.as_deref().is_none_or(kernel_is_at_least)
    }

    fn excluded(&self, capabilities: &BTreeSet<String>) -> bool {
        self.caps.iter().flatten().any(|name| has(capabilities, name))
            || self.arches.iter().flatten().any(|arch| is_ours(arch))
            || self.min_kernel.as_deref().is_some_and(kernel_is_at_least)
    }
}

fn has(capabilities: &BTreeSet<String>, name: &str) -> bool {
    capabilities.contains(name.strip_prefix("CAP_").unwrap_or(name))
}

/// Docker writes architectures as Go does.
fn is_ours(arch: &str) -> bool {
    matches!((arch, std::env::consts::ARCH), ("amd64", "x86_64") | ("arm64", "aarch64"))
        || arch == std::env::consts::ARCH
}

fn kernel_is_at_least(wanted: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split(|c: char| !c.is_ascii_digit()).take(2).map(|part| part.parse().unwrap_or(0)).collect()
    };
    numbers(rustix::system::uname().release().to_str().unwrap_or_default()) >= numbers(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(value: &Value) -> BTreeSet<&str> {
        let rules = value["syscalls"].as_array().unwrap();
        rules
            .iter()
            .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW")
            .flat_map(|rule| rule["names"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect()
    }

    /// Every rule of a profile in our form, one for each name.
    fn rules(profile: &str) -> BTreeSet<String> {
        let lines = profile.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let split = lines.map(|line| line.split_once(": ").unwrap());
        split.flat_map(|(when, names)| names.split(' ').map(move |name| format!("{when}{name}"))).collect()
    }

    #[test]
    fn the_default_is_mobys_but_for_what_is_told_here() {
        let (ours, mobys) = (rules(DEFAULT), rules(include_str!("seccomp_moby.txt")));
        let more: Vec<&String> = ours.difference(&mobys).collect();
        assert!(more.is_empty(), "allowed here alone: {more:?}");
        let fewer: Vec<&str> = mobys.difference(&ours).map(String::as_str).collect();
        let expected = [
            // Always allowed above.
            "+SYS_PTRACE process_vm_readv",
            "+SYS_PTRACE process_vm_writev",
            "+SYS_PTRACE ptrace",
            // What it opens is behind a pointer.
            "socketcall",
        ];
        assert_eq!(fewer, expected);
    }

    #[test]
    fn capabilities_open_what_they_are_for() {
        let without = default(&BTreeSet::new());
        let with = default(&BTreeSet::from(["SYS_ADMIN".to_owned(), "SYS_PTRACE".to_owned()]));
        assert!(names(&without).contains("openat") && names(&without).contains("clone"));
        for denied in ["mount", "unshare", "clone3", "bpf", "kexec_load", "io_uring_setup", "keyctl", "userfaultfd"] {
            assert!(!names(&without).contains(denied), "{denied}");
        }
        for allowed in ["mount", "unshare", "clone3", "kcmp"] {
            assert!(names(&with).contains(allowed), "{allowed}");
        }
        assert!(names(&without).len() > 330, "{}", names(&without).len());
    }

    #[test]
    fn reads_profiles_in_dockers_form() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],
            "syscalls":[{"names":["chmod"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
                        {"name":"mount","action":"SCMP_ACT_ERRNO","excludes":{"caps":["CAP_SYS_ADMIN"]}}]}"#;
        let open = custom(text, &BTreeSet::from(["SYS_ADMIN".to_owned()])).unwrap();
        assert_eq!(open["syscalls"].as_array().unwrap().len(), 1);
        assert_eq!(custom(text, &BTreeSet::new()).unwrap()["syscalls"].as_array().unwrap().len(), 2);
        assert!(custom("{}", &BTreeSet::new()).is_err());
        assert!(custom(r#"{"defaultAction":"NO"}"#, &BTreeSet::new()).is_err());
    }
}
