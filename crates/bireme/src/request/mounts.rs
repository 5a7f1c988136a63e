//! `-v` and `--mount`.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, bail};
use bireme_api::models::{
    Mount, MountBindOptions, MountTmpfsOptions, MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig,
};

/// What a `-v` flag asks for.
pub enum Volume {
    /// A bind or a named volume, as the engine reads it.
    Bind(String),
    /// An anonymous volume at this path.
    Anonymous(String),
}

/// Splits `-v` flags into binds and anonymous volumes.
pub(super) fn volumes(flags: &[String]) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let (mut binds, mut anonymous) = (Vec::new(), Vec::new());
    for flag in flags {
        match volume(flag)? {
            Volume::Bind(bind) => binds.push(bind),
            Volume::Anonymous(path) => anonymous.push(path),
        }
    }
    Ok((binds, anonymous))
}

/// Reads one `-v` flag; a relative source is one of ours and made absolute.
pub fn volume(flag: &str) -> anyhow::Result<Volume> {
    let (source, rest) = match flag.split_once(':') {
        None if flag.is_empty() => bail!("--volume: an empty mount; write [SOURCE:]TARGET[:ro]"),
        None => return Ok(Volume::Anonymous(flag.to_owned())),
        Some(("", _) | (_, "")) => bail!("--volume: {flag:?} is not [SOURCE:]TARGET[:ro]"),
        Some(parts) => parts,
    };
    let relative = source == "." || source == ".." || source.starts_with("./") || source.starts_with("../");
    let source = if relative { absolute(source)? } else { source.to_owned() };
    Ok(Volume::Bind(format!("{source}:{rest}")))
}

fn absolute(path: &str) -> anyhow::Result<String> {
    let full = std::path::absolute(Path::new(path)).with_context(|| format!("cannot make {path} absolute"))?;
    // `std::path::absolute` keeps `..`; where the folder exists, its true name is meant.
    let full = full.canonicalize().unwrap_or(full);
    full.to_str().map(str::to_owned).with_context(|| format!("{path} is not valid UTF-8"))
}

/// Reads one `--mount` flag.
pub(super) fn mount(flag: &str) -> anyhow::Result<Mount> {
    let mut mount = Mount { typ: Some(MountType::VOLUME), ..Mount::default() };
    let (mut bind, mut volume, mut tmpfs) =
        (None::<MountBindOptions>, None::<MountVolumeOptions>, None::<MountTmpfsOptions>);
    for part in flag.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        let yes = || match value {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            other => bail!("--mount: {key}={other}: expected true or false"),
        };
        match key.to_ascii_lowercase().as_str() {
            "type" => mount.typ = Some(super::word("--mount type", value)?),
            "source" | "src" => mount.source = Some(value.to_owned()),
            "target" | "dst" | "destination" => mount.target = Some(value.to_owned()),
            "readonly" | "ro" => mount.read_only = Some(yes()?),
            "consistency" => mount.consistency = Some(value.to_owned()),
            "bind-propagation" => {
                bind.get_or_insert_default().propagation = Some(super::word("--mount bind-propagation", value)?);
            }
            "bind-recursive" => {
                bind.get_or_insert_default().non_recursive = Some(value == "disabled");
            }
            "bind-nonrecursive" => bind.get_or_insert_default().non_recursive = Some(yes()?),
            "volume-nocopy" => volume.get_or_insert_default().no_copy = Some(yes()?),
            "volume-subpath" => volume.get_or_insert_default().subpath = Some(value.to_owned()),
            "volume-label" => {
                let (key, value) = super::pair(value, '=');
                volume.get_or_insert_default().labels.get_or_insert_default().insert(key, value);
            }
            "volume-driver" => driver(&mut volume).name = Some(value.to_owned()),
            "volume-opt" => {
                let (key, value) = super::pair(value, '=');
                driver(&mut volume).options.get_or_insert_with(HashMap::new).insert(key, value);
            }
            "tmpfs-size" => {
                let size =
                    bireme_core::size::parse_limit(value).with_context(|| format!("--mount: tmpfs-size={value}"))?;
                tmpfs.get_or_insert_default().size_bytes = Some(size);
            }
            "tmpfs-mode" => {
                let mode = i64::from_str_radix(value, 8).with_context(|| format!("--mount: tmpfs-mode={value}"))?;
                tmpfs.get_or_insert_default().mode = Some(mode);
            }
            other => {
                let known = [
                    "type",
                    "source",
                    "target",
                    "readonly",
                    "bind-propagation",
                    "volume-nocopy",
                    "volume-label",
                    "volume-driver",
                    "volume-opt",
                    "volume-subpath",
                    "tmpfs-size",
                    "tmpfs-mode",
                ];
                let near = bireme_core::nearest::nearest(other, known);
                bail!(
                    "--mount: unknown key {other:?}{}",
                    near.map(|near| format!(": did you mean {near:?}?")).unwrap_or_default()
                );
            }
        }
    }
    if mount.target.is_none() {
        bail!("--mount: {flag:?} has no target=");
    }
    if mount.typ == Some(MountType::BIND) {
        match &mount.source {
            None => bail!("--mount: {flag:?} is a bind without source="),
            Some(source) if !source.starts_with('/') => mount.source = Some(absolute(source)?),
            Some(_) => {}
        }
    }
    mount.bind_options = bind;
    mount.volume_options = volume;
    mount.tmpfs_options = tmpfs;
    Ok(mount)
}

fn driver(volume: &mut Option<MountVolumeOptions>) -> &mut MountVolumeOptionsDriverConfig {
    volume.get_or_insert_default().driver_config.get_or_insert_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(flag: &str, expected: Result<Value, &str>) {
        let got = mount(flag).map(|mount| serde_json::to_value(mount).unwrap()).map_err(|error| error.to_string());
        assert_eq!(got, expected.map_err(str::to_owned), "{flag}");
    }

    #[test]
    fn mounts_are_read() {
        check(
            "type=bind,src=/a,dst=/b,ro",
            Ok(json!({"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": true})),
        );
        check("target=/b", Ok(json!({"Type": "volume", "Target": "/b"})));
        check(
            "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1777",
            Ok(json!({"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}})),
        );
        check("type=bind,dst=/b", Err("--mount: \"type=bind,dst=/b\" is a bind without source="));
        check("sorce=/a,dst=/b", Err("--mount: unknown key \"sorce\": did you mean \"source\"?"));
    }

    #[test]
    fn volumes_are_told_apart() {
        let (binds, anonymous) = volumes(&["/a:/b:ro".to_owned(), "data:/d".to_owned(), "/only".to_owned()]).unwrap();
        assert_eq!((binds, anonymous), (vec!["/a:/b:ro".to_owned(), "data:/d".to_owned()], vec!["/only".to_owned()]));
        let (binds, _) = volumes(&["./x:/b".to_owned()]).unwrap();
        assert!(binds[0].starts_with('/') && binds[0].ends_with("/x:/b"), "{binds:?}");
        assert!(volumes(&[":/b".to_owned()]).is_err());
    }
}
