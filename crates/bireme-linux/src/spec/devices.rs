//! The device nodes of a container and the cgroup's rules about them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bireme_core::ErrorKind;
use bireme_core::spec::Security;
use serde_json::{Value, json};

use crate::protocol::Failure;

pub(super) struct Devices {
    pub(super) nodes: Value,
    pub(super) rules: Value,
}

/// Character devices every container may use, as in Docker: null, zero, full, random, urandom, tty, console, ptmx, pts.
const DEFAULT: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// What libcontainer makes by itself.
const MADE: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

pub(super) fn of(security: &Security) -> Result<Devices, Failure> {
    let mut nodes = BTreeMap::new();
    if security.privileged {
        for path in all_below(Path::new("/dev")) {
            if let Some((node, _)) = node(&path, &path.to_string_lossy()) {
                nodes.insert(path.to_string_lossy().into_owned(), node);
            }
        }
        for path in MADE {
            nodes.remove(path);
        }
        let rules = json!([{ "allow": true, "access": "rwm" }]);
        return Ok(Devices { nodes: Value::Array(nodes.into_values().collect()), rules });
    }
    let mut rules = vec![
        json!({ "allow": false, "access": "rwm" }),
        // Making nodes is harmless while using them is not allowed.
        json!({ "allow": true, "type": "c", "access": "m" }),
        json!({ "allow": true, "type": "b", "access": "m" }),
    ];
    for (major, minor) in DEFAULT {
        let mut rule = json!({ "allow": true, "type": "c", "major": major, "access": "rwm" });
        if let Some(minor) = minor {
            rule["minor"] = json!(minor);
        }
        rules.push(rule);
    }
    for device in &security.devices {
        let host = Path::new(&device.host);
        let found = if host.is_dir() {
            all_below(host)
                .into_iter()
                .filter_map(|path| {
                    let inside = Path::new(&device.target).join(path.strip_prefix(host).ok()?);
                    node(&path, &inside.to_string_lossy())
                })
                .collect()
        } else {
            node(host, &device.target).into_iter().collect::<Vec<_>>()
        };
        if found.is_empty() {
            let message = format!(
                "error gathering device information while adding custom device {:?}: no such device",
                device.host
            );
            return Err(Failure::new(ErrorKind::Invalid, message));
        }
        for (node, mut rule) in found {
            rule["access"] = json!(device.permissions);
            rules.push(rule);
            if let Some(path) = node["path"].as_str().filter(|path| !MADE.contains(path)) {
                nodes.insert(path.to_owned(), node.clone());
            }
        }
    }
    for rule in &security.device_rules {
        rules.push(parse_rule(rule)?);
    }
    Ok(Devices { nodes: Value::Array(nodes.into_values().collect()), rules: Value::Array(rules) })
}

/// Reads `c 1:3 mr`, `a *:* rwm`.
///
/// # Errors
/// `Invalid` in Docker's words.
pub(super) fn parse_rule(rule: &str) -> Result<Value, Failure> {
    let invalid = || Failure::new(ErrorKind::Invalid, format!("invalid device cgroup rule format: '{rule}'"));
    let [kind, numbers, access] = rule.split(' ').collect::<Vec<_>>()[..] else { return Err(invalid()) };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let fits = ["a", "b", "c"].contains(&kind)
        && (1..=3).contains(&access.len())
        && access.bytes().all(|letter| b"rwm".contains(&letter));
    if !fits {
        return Err(invalid());
    }
    let mut out = json!({ "allow": true, "type": kind, "access": access });
    for (key, text) in [("major", major), ("minor", minor)] {
        if text != "*" {
            out[key] = json!(text.parse::<u32>().map_err(|_| invalid())?);
        }
    }
    Ok(out)
}

/// The node for a device of the host, and a rule that allows it.
fn node(host: &Path, inside: &str) -> Option<(Value, Value)> {
    let meta = fs::metadata(host).ok()?;
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return None,
    };
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let node = json!({
        "path": inside, "type": kind, "major": major, "minor": minor,
        "fileMode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
    });
    Some((node, json!({ "allow": true, "type": kind, "major": major, "minor": minor, "access": "rwm" })))
}

/// The devices in a folder and below it; not those a container gets of its own.
fn all_below(dir: &Path) -> Vec<PathBuf> {
    let own = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "core", "stdin", "stdout", "stderr", ".udev", ".lxc"];
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if entry.file_name().to_str().is_none_or(|name| own.contains(&name)) {
            continue;
        }
        if kind.is_dir() {
            found.extend(all_below(&entry.path()));
        } else if kind.is_char_device() || kind.is_block_device() {
            found.push(entry.path());
        }
    }
    found
}
