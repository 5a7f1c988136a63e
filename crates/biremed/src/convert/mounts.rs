//! Mounts in Docker's three spellings: `Binds` (`-v`), `Mounts` (`--mount`) and `Tmpfs` (`--tmpfs`).

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use bireme_api::models::{Mount, MountBindOptionsPropagationEnum, MountType};
use bireme_core::spec::Propagation;
use bireme_engine::request::{MountRequest, MountRequestSource};

use super::Refusal;

/// One entry of `Binds`: `source:target[:options]`, or a target alone, which gets an anonymous volume.
pub fn bind(text: &str) -> Result<MountRequest, Refusal> {
    let refuse = |reason: &str| Refusal::invalid(format!("invalid volume specification: '{text}': {reason}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(refuse("expected source:target[:options]")),
    };
    let target = clean_target(target).map_err(|reason| refuse(&reason))?;
    let mut read_only = None;
    let mut no_copy = false;
    let mut propagation = None;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" | "rw" if read_only.is_none() => read_only = Some(option == "ro"),
            "nocopy" => no_copy = true,
            "private" | "rprivate" if propagation.is_none() => propagation = Some(Propagation::Private),
            "slave" | "rslave" if propagation.is_none() => propagation = Some(Propagation::Slave),
            "shared" | "rshared" if propagation.is_none() => propagation = Some(Propagation::Shared),
            // Labels of SELinux and hints to Docker Desktop: without effect on a machine that has neither, as in Docker.
            "z" | "Z" | "cached" | "consistent" | "delegated" => {}
            _ => return Err(refuse(&format!("invalid mode: {options}"))),
        }
    }
    let source = match source {
        Some("") => return Err(refuse("empty section between colons")),
        Some(path) if path.starts_with('/') => {
            if no_copy {
                return Err(refuse("nocopy is for named volumes only"));
            }
            MountRequestSource::Bind {
                path: PathBuf::from(path),
                create: true,
                propagation: propagation.unwrap_or_default(),
                recursive: true,
            }
        }
        _ if propagation.is_some() => return Err(refuse("propagation is for paths of the host only")),
        name => MountRequestSource::Volume {
            subpath: PathBuf::new(),
            name: name.map(volume_name).transpose()?,
            no_copy,
            driver: None,
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
        },
    };
    Ok(MountRequest { source, target, read_only: read_only.unwrap_or(false) })
}

fn volume_name(name: &str) -> Result<String, Refusal> {
    check_volume_name(name)?;
    Ok(name.to_owned())
}

/// Docker's rule for names of volumes.
pub fn check_volume_name(name: &str) -> Result<(), Refusal> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let good = name.len() >= 2
        && name.bytes().next().is_some_and(|byte| plain(&byte))
        && name.bytes().all(|byte| plain(&byte) || matches!(byte, b'_' | b'.' | b'-'));
    if good {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "create {name}: \"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

/// An absolute path inside the workload without `.`, `..` and doubled slashes.
pub fn clean_target(target: &str) -> Result<String, String> {
    if !target.starts_with('/') {
        return Err(format!("invalid mount path: '{target}' mount path must be absolute"));
    }
    let mut clean = PathBuf::from("/");
    for part in Path::new(target).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    // Whether `/` itself may be one, the kind of the workload decides, which is not known here.
    clean.to_str().map(str::to_owned).ok_or_else(|| format!("invalid mount path: {target:?} is not text"))
}

/// One entry of `Mounts`.
pub fn mount(mount: &Mount) -> Result<MountRequest, Refusal> {
    let asked = mount.target.as_deref().unwrap_or_default();
    let Some(kind) = mount.typ else {
        return Err(Refusal::invalid(format!("mount {asked}: field Type must not be empty")));
    };
    let refuse = |reason: String| Refusal::invalid(format!("invalid mount config for type \"{kind}\": {reason}"));
    if asked.is_empty() {
        return Err(Refusal::invalid(format!(
            "invalid mount config for type \"{kind}\": field Target must not be empty"
        )));
    }
    let target = clean_target(asked).map_err(refuse)?;
    let source = mount.source.as_deref().unwrap_or_default();
    let only = |options: bool, name: &str, of: &str| {
        if options { Err(refuse(format!("{name} is for mounts of type {of} only"))) } else { Ok(()) }
    };
    only(mount.bind_options.is_some() && kind != MountType::BIND, "BindOptions", "bind")?;
    only(mount.volume_options.is_some() && kind != MountType::VOLUME, "VolumeOptions", "volume")?;
    only(mount.tmpfs_options.is_some() && kind != MountType::TMPFS, "TmpfsOptions", "tmpfs")?;
    let made = match kind {
        MountType::BIND => {
            if source.is_empty() {
                return Err(refuse("field Source must not be empty".to_owned()));
            }
            if !source.starts_with('/') {
                return Err(refuse(format!("invalid mount path: '{source}' mount path must be absolute")));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            if options.read_only_force_recursive == Some(true) {
                return Err(Refusal::unsupported(format!(
                    "mount {asked}: ReadOnlyForceRecursive is not offered: mount the folders below it read-only one by one"
                )));
            }
            MountRequestSource::Bind {
                path: PathBuf::from(source),
                create: options.create_mountpoint == Some(true),
                propagation: match options.propagation {
                    Some(MountBindOptionsPropagationEnum::SHARED | MountBindOptionsPropagationEnum::RSHARED) => {
                        Propagation::Shared
                    }
                    Some(MountBindOptionsPropagationEnum::SLAVE | MountBindOptionsPropagationEnum::RSLAVE) => {
                        Propagation::Slave
                    }
                    _ => Propagation::Private,
                },
                recursive: options.non_recursive != Some(true),
            }
        }
        MountType::VOLUME => {
            let options = mount.volume_options.clone().unwrap_or_default();
            let driver = options.driver_config.unwrap_or_default();
            MountRequestSource::Volume {
                name: (!source.is_empty()).then(|| volume_name(source)).transpose()?,
                subpath: options.subpath.unwrap_or_default().into(),
                no_copy: options.no_copy == Some(true),
                driver: driver.name.filter(|name| !name.is_empty()),
                options: driver.options.unwrap_or_default().into_iter().collect(),
                labels: options.labels.unwrap_or_default().into_iter().collect(),
            }
        }
        MountType::TMPFS => {
            if !source.is_empty() {
                return Err(refuse("field Source must not be specified".to_owned()));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            MountRequestSource::Tmpfs {
                size: options.size_bytes.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0),
                mode: options.mode.and_then(|mode| u32::try_from(mode).ok()).filter(|mode| *mode > 0),
                options: options.options.unwrap_or_default().into_iter().map(|pair| pair.join("=")).collect(),
            }
        }
        MountType::IMAGE | MountType::NPIPE | MountType::CLUSTER => {
            return Err(Refusal::unsupported(format!(
                "mount {asked}: type {kind} is not offered: use bind, volume or tmpfs"
            )));
        }
    };
    Ok(MountRequest { source: made, target, read_only: mount.read_only == Some(true) })
}

/// Options of a tmpfs that have no value.
const TMPFS_FLAGS: [&str; 6] = ["exec", "noexec", "suid", "nosuid", "dev", "nodev"];

/// One entry of `Tmpfs`: target and mount options such as `size=64m,mode=1777,noexec`.
pub fn tmpfs(target: &str, text: &str) -> Result<MountRequest, Refusal> {
    let refuse = |reason: String| Refusal::invalid(format!("invalid tmpfs {target}: {reason}"));
    let clean = clean_target(target).map_err(refuse)?;
    let (mut size, mut mode, mut read_only) = (None, None, false);
    let mut options = Vec::new();
    for option in text.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => {
                size = Some(
                    bireme_core::size::parse_binary(value)
                        .map_err(|_| refuse(format!("{option:?}: expected bytes, or such as 64m")))?,
                );
            }
            Some(("mode", value)) => {
                let value =
                    u32::from_str_radix(value, 8).map_err(|_| refuse(format!("{option:?}: expected octal digits")))?;
                mode = Some(value);
            }
            _ if option == "ro" => read_only = true,
            _ if option == "rw" => read_only = false,
            Some(("uid" | "gid" | "nr_inodes" | "nr_blocks" | "mpol", _)) => options.push(option.to_owned()),
            None if TMPFS_FLAGS.contains(&option) => options.push(option.to_owned()),
            _ => return Err(Refusal::invalid(format!("invalid tmpfs option \"{option}\""))),
        }
    }
    Ok(MountRequest { source: MountRequestSource::Tmpfs { size, mode, options }, target: clean, read_only })
}

/// # Errors
/// `Invalid` when two mounts have one target.
pub fn check_targets(mounts: &[MountRequest]) -> Result<(), Refusal> {
    let mut targets = HashSet::new();
    for mount in mounts {
        if !targets.insert(&mount.target) {
            return Err(Refusal::invalid(format!("Duplicate mount point: {}", mount.target)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(mount: Result<MountRequest, Refusal>) -> String {
        match mount {
            Ok(mount) => format!("{:?} at {} read_only={}", mount.source, mount.target, mount.read_only),
            Err(refusal) => format!("{:?}: {}", refusal.kind, refusal.message),
        }
    }

    #[test]
    fn binds_are_read_as_docker_reads_them() {
        let told: Vec<String> = [
            "/a:/b",
            "/a:/b:ro,z,rslave",
            "data:/b/../c/:nocopy",
            "/b",
            "/a:b",
            "/a:/",
            "./a:/b",
            "/a:/b:odd",
            "/a:/b:ro,rw",
            "/a:/b:ro:x",
            "data:/b:rshared",
        ]
        .into_iter()
        .map(|text| format!("{text}\n  {}", tell(bind(text))))
        .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn mounts_are_checked_against_their_type() {
        let told: Vec<String> = [
            r#"{"Type":"bind","Source":"/a","Target":"/b","ReadOnly":true,"BindOptions":{"Propagation":"rslave","NonRecursive":true}}"#,
            r#"{"Type":"volume","Source":"data","Target":"/b","VolumeOptions":{"NoCopy":true,"Labels":{"a":"b"},"DriverConfig":{"Name":"local"}}}"#,
            r#"{"Type":"volume","Target":"/b"}"#,
            r#"{"Type":"tmpfs","Target":"/b","TmpfsOptions":{"SizeBytes":1024,"Mode":448,"Options":[["noexec"],["uid","5"]]}}"#,
            r#"{"Type":"bind","Source":"a","Target":"/b"}"#,
            r#"{"Type":"bind","Source":"/a"}"#,
            r#"{"Type":"tmpfs","Source":"/a","Target":"/b"}"#,
            r#"{"Type":"image","Source":"a","Target":"/b"}"#,
            r#"{"Type":"volume","Target":"/b","BindOptions":{}}"#,
            r#"{"Type":"volume","Source":"data","Target":"/b","VolumeOptions":{"Subpath":"x"}}"#,
        ]
        .into_iter()
        .map(|text| format!("{text}\n  {}", tell(mount(&serde_json::from_str(text).unwrap()))))
        .collect();
        insta::assert_snapshot!(told.join("\n"));
    }

    #[test]
    fn tmpfs_options_are_split() {
        let told: Vec<String> = ["", "size=64m,mode=1777,noexec", "ro,size=1g", "size=big", "mode=9"]
            .into_iter()
            .map(|text| format!("{text}\n  {}", tell(tmpfs("/t", text))))
            .collect();
        insta::assert_snapshot!(told.join("\n"));
    }
}
