//! What a workload may do beyond running: capabilities, devices, seccomp, what of `/proc` it sees.

use bireme_api::models::{DeviceMapping, HostConfig};
use bireme_core::linux_names;
use bireme_core::spec::{Device, Seccomp, Security};
use serde_json::Value;

use super::text;
use crate::convert::Refusal;

pub(super) fn security(host: &HostConfig) -> Result<Security, Refusal> {
    let mut security = Security {
        privileged: host.privileged == Some(true),
        cap_add: capabilities(host.cap_add.clone().unwrap_or_default())?,
        cap_drop: capabilities(host.cap_drop.clone().unwrap_or_default())?,
        read_only_root: host.readonly_rootfs == Some(true),
        group_add: host.group_add.clone().unwrap_or_default(),
        masked_paths: host.masked_paths.clone(),
        readonly_paths: host.readonly_paths.clone(),
        devices: host.devices.clone().unwrap_or_default().into_iter().map(device).collect::<Result<_, _>>()?,
        device_rules: device_rules(host.device_cgroup_rules.as_deref())?,
        sysctls: host.sysctls.clone().unwrap_or_default().into_iter().collect(),
        ..Security::default()
    };
    for option in host.security_opt.iter().flatten() {
        security_option(option, &mut security)?;
    }
    Ok(security)
}

/// Source: `deviceCgroupRuleRegex` of moby; what the executor says about the parts comes on top.
fn device_rules(rules: Option<&[String]>) -> Result<Vec<String>, Refusal> {
    let rules = rules.unwrap_or_default();
    match rules.iter().find(|rule| rule.split(' ').count() != 3) {
        Some(bad) => Err(Refusal::invalid(format!("invalid device cgroup rule format: '{bad}'"))),
        None => Ok(rules.to_vec()),
    }
}

/// `key=value`, in old clients `key:value`.
fn security_option(option: &str, security: &mut Security) -> Result<(), Refusal> {
    let (key, value) = match option.split_once(['=', ':']) {
        Some((key, value)) => (key, value),
        None => (option, ""),
    };
    match (key, value) {
        ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
        ("no-new-privileges", "false") => security.no_new_privileges = false,
        ("seccomp", "unconfined") => security.seccomp = Seccomp::Unconfined,
        ("seccomp", "builtin") => security.seccomp = Seccomp::Default,
        ("seccomp", profile) => {
            if serde_json::from_str::<serde_json::Map<String, Value>>(profile).is_err() {
                return Err(Refusal::invalid(
                    "Decoding seccomp profile failed: expected unconfined, builtin, or a profile as JSON",
                ));
            }
            security.seccomp = Seccomp::Profile(profile.to_owned());
        }
        // Neither AppArmor nor SELinux is applied here: switching them off asks for nothing.
        ("apparmor", "unconfined") | ("label", "disable") => {}
        ("systempaths", "unconfined") => {
            security.masked_paths = Some(Vec::new());
            security.readonly_paths = Some(Vec::new());
        }
        ("apparmor" | "label" | "systempaths" | "writable-cgroups" | "credentialspec", _) => {
            return Err(Refusal::unsupported(format!("security option {option:?} is not offered: leave it out")));
        }
        _ => return Err(Refusal::invalid(format!("invalid --security-opt: {option:?}"))),
    }
    Ok(())
}

fn capabilities(names: Vec<String>) -> Result<Vec<String>, Refusal> {
    names
        .into_iter()
        .map(|asked| {
            let name = linux_names::plain_capability(&asked);
            if name == "ALL" || linux_names::capability_number(&name).is_some() {
                Ok(name)
            } else {
                Err(Refusal::invalid(format!("invalid capability: unknown capability: \"CAP_{name}\"")))
            }
        })
        .collect()
}

fn device(wire: DeviceMapping) -> Result<Device, Refusal> {
    let host = wire.path_on_host.unwrap_or_default();
    let target = text(wire.path_in_container).unwrap_or_else(|| host.clone());
    let permissions = text(wire.cgroup_permissions).unwrap_or_else(|| "rwm".to_owned());
    if !host.starts_with('/') || !target.starts_with('/') {
        return Err(Refusal::invalid(format!("invalid device {host:?}: paths must be absolute")));
    }
    if !permissions.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(Refusal::invalid(format!("invalid device mode of {host}: {permissions}: use letters of rwm")));
    }
    Ok(Device { host, target, permissions })
}
