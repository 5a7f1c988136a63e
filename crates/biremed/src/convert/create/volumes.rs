//! What is mounted: binds, mounts and tmpfs in Docker's three ways to ask, and volumes of other workloads.

use std::collections::{BTreeMap, HashSet};

use bireme_api::models::HostConfig;
use bireme_engine::request::MountRequest;

use crate::convert::{Refusal, mounts};

pub(super) fn all_mounts(host: &HostConfig) -> Result<Vec<MountRequest>, Refusal> {
    let mut all = Vec::new();
    for bind in host.binds.iter().flatten() {
        all.push(mounts::bind(bind)?);
    }
    for mount in host.mounts.iter().flatten() {
        all.push(mounts::mount(mount)?);
    }
    let tmpfs: BTreeMap<&String, &String> = host.tmpfs.iter().flatten().collect();
    for (target, options) in tmpfs {
        all.push(mounts::tmpfs(target, options)?);
    }
    mounts::check_targets(&all)?;
    Ok(all)
}

/// The paths of `Volumes`, in order, without those that something else is mounted at.
pub(super) fn declared(paths: Vec<String>, mounted: &[MountRequest]) -> Result<Vec<String>, Refusal> {
    let targets: HashSet<&str> = mounted.iter().map(|mount| mount.target.as_str()).collect();
    let mut declared = Vec::new();
    for volume in paths {
        let path = mounts::clean_target(&volume)
            .map_err(|reason| Refusal::invalid(format!("invalid volume specification: '{volume}': {reason}")))?;
        if !targets.contains(path.as_str()) {
            declared.push(path);
        }
    }
    declared.sort();
    Ok(declared)
}

/// `name[:ro|rw]`.
pub(super) fn volumes_from(list: Option<&[String]>) -> Result<Vec<(String, bool)>, Refusal> {
    let one = |text: &String| match text.split_once(':') {
        None => Ok((text.clone(), false)),
        Some((name, mode)) => {
            let words = || mode.split(',');
            match words().find(|word| !["ro", "rw", "z", "Z", "nocopy"].contains(word)) {
                Some(_) => Err(Refusal::invalid(format!("invalid mode: {mode}"))),
                None => Ok((name.to_owned(), words().any(|word| word == "ro"))),
            }
        }
    };
    list.into_iter().flatten().map(one).collect()
}
