//! Binds, mounts and the files that are put into a container.

use bollard_stubs::models::{
    Mount as WireMount, MountBindOptions, MountBindOptionsPropagationEnum, MountTmpfsOptions, MountType,
    MountVolumeOptions,
};

use super::{InjectedFile, Replica, some_map};
use crate::model::{BindOptions, MountKind, Project, Service};

/// Binds and mounts. A bind that may create its folder, and a named volume without options, go the old way
/// (`Binds`), since the API's `Mounts` never creates a folder; the rest are `Mounts`.
pub(super) fn storage(project: &Project, service: &Service) -> (Vec<String>, Vec<WireMount>) {
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    for mount in &service.volumes {
        match (mount.kind, &mount.source) {
            (MountKind::Bind, Some(source)) => {
                let options = mount.bind.clone().unwrap_or_default();
                // Without `bind` at all the folder is made too, as Compose does.
                let creates = mount.bind.is_none() || options.create_host_path;
                if creates && options.recursive.is_none() && mount.consistency.is_none() {
                    let mut flags = vec![if mount.read_only { "ro" } else { "rw" }];
                    flags.extend(options.selinux.as_deref());
                    flags.extend(options.propagation.as_deref());
                    binds.push(format!("{source}:{}:{}", mount.target, flags.join(",")));
                } else {
                    mounts.push(WireMount {
                        typ: Some(MountType::BIND),
                        source: Some(source.clone()),
                        target: Some(mount.target.clone()),
                        read_only: Some(mount.read_only),
                        consistency: mount.consistency.clone(),
                        bind_options: bind_options(&options),
                        ..WireMount::default()
                    });
                }
            }
            (MountKind::Volume, source) => {
                let name = source.as_ref().and_then(|key| project.volumes.get(key)).map(|volume| volume.name.clone());
                let options = mount.volume.clone().unwrap_or_default();
                let plain = options.labels.is_empty() && options.subpath.is_none() && !options.nocopy;
                match name {
                    Some(name) if plain => {
                        binds.push(format!("{name}:{}:{}", mount.target, if mount.read_only { "ro" } else { "rw" }));
                    }
                    name => mounts.push(WireMount {
                        typ: Some(MountType::VOLUME),
                        source: name,
                        target: Some(mount.target.clone()),
                        read_only: Some(mount.read_only),
                        volume_options: Some(MountVolumeOptions {
                            no_copy: Some(options.nocopy),
                            labels: some_map(&options.labels),
                            subpath: options.subpath,
                            ..MountVolumeOptions::default()
                        }),
                        ..WireMount::default()
                    }),
                }
            }
            (MountKind::Tmpfs, _) | (MountKind::Bind, None) => {
                let options = mount.tmpfs.clone().unwrap_or_default();
                mounts.push(WireMount {
                    typ: Some(MountType::TMPFS),
                    target: Some(mount.target.clone()),
                    read_only: Some(mount.read_only),
                    tmpfs_options: Some(MountTmpfsOptions {
                        size_bytes: options.size,
                        mode: options.mode.map(i64::from),
                        ..MountTmpfsOptions::default()
                    }),
                    ..WireMount::default()
                });
            }
        }
    }
    (binds, mounts)
}

fn bind_options(options: &BindOptions) -> Option<MountBindOptions> {
    let propagation = options.propagation.as_deref().and_then(|word| match word {
        "private" => Some(MountBindOptionsPropagationEnum::PRIVATE),
        "rprivate" => Some(MountBindOptionsPropagationEnum::RPRIVATE),
        "shared" => Some(MountBindOptionsPropagationEnum::SHARED),
        "rshared" => Some(MountBindOptionsPropagationEnum::RSHARED),
        "slave" => Some(MountBindOptionsPropagationEnum::SLAVE),
        "rslave" => Some(MountBindOptionsPropagationEnum::RSLAVE),
        _ => None,
    });
    let recursive = options.recursive.as_deref();
    if propagation.is_none() && recursive.is_none() && !options.create_host_path {
        return None;
    }
    Some(MountBindOptions {
        propagation,
        non_recursive: (recursive == Some("disabled")).then_some(true),
        create_mountpoint: options.create_host_path.then_some(true),
        read_only_non_recursive: (recursive == Some("writable")).then_some(true),
        read_only_force_recursive: (recursive == Some("readonly")).then_some(true),
    })
}

/// Secrets and configs: those in files are read-only binds, the others are put into the container once it is created.
pub(super) fn file_objects(project: &Project, service: &Service, mounts: &mut Vec<WireMount>) -> Vec<InjectedFile> {
    let mut files = Vec::new();
    let secrets = service.secrets.iter().map(|reference| (reference, &project.secrets, "/run/secrets/"));
    let configs = service.configs.iter().map(|reference| (reference, &project.configs, "/"));
    for (reference, objects, folder) in secrets.chain(configs) {
        let Some(object) = objects.get(&reference.source) else { continue };
        let target = match reference.target.as_deref() {
            Some(target) if target.starts_with('/') => target.to_owned(),
            Some(target) => format!("{folder}{target}"),
            None => format!("{folder}{}", reference.source),
        };
        let content = object.content.as_ref().or(object.environment_value.as_ref());
        if let Some(file) = &object.file {
            // As a mount, not a bind: a missing file is an error, never an empty folder in its place.
            mounts.push(WireMount {
                typ: Some(MountType::BIND),
                source: Some(file.display().to_string()),
                target: Some(target),
                read_only: Some(true),
                ..WireMount::default()
            });
        } else if let Some(content) = content {
            let id = |id: &Option<String>| id.as_ref().and_then(|id| id.parse().ok()).unwrap_or(0);
            files.push(InjectedFile {
                path: target,
                content: content.clone().into_bytes(),
                uid: id(&reference.uid),
                gid: id(&reference.gid),
                mode: reference.mode.unwrap_or(0o444),
            });
        }
    }
    files
}

/// Whose volumes the container uses too, as the API has it.
pub(super) fn volumes_from(service: &Service, replica: &Replica) -> Vec<String> {
    let container = |entry: &String| match entry.strip_prefix("container:") {
        Some(rest) => rest.to_owned(),
        None => {
            let (name, mode) = entry.split_once(':').unwrap_or((entry, "rw"));
            let id = replica.containers.get(name).map_or(name, String::as_str);
            format!("{id}:{mode}")
        }
    };
    service.volumes_from.iter().map(container).collect()
}
