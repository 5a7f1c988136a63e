//! Where mounts may lie in a container. By words alone: nothing is looked up.

use std::path::{Component, Path, PathBuf};

use super::invalid;
use crate::protocol::Failure;

/// A mount may lie anywhere but at the root and over what the kernel shows of itself.
///
/// # Errors
/// `Invalid` naming the target.
pub fn check_target(target: &str) -> Result<(), Failure> {
    if !target.starts_with('/') || has_dots(target) || target.contains('\0') {
        return Err(invalid(format!("mount target {target:?} must be an absolute path without . or .. in it")));
    }
    let parts: Vec<&str> = target.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => Err(invalid("invalid mount target: destination can't be '/'")),
        ["proc" | "sys", ..] => Err(invalid(format!(
            "mount target {target} lies in /proc or /sys, where a mount could mislead the kernel's own files; choose another path"
        ))),
        ["dev"] => Err(invalid("mounting over /dev is not supported; name single devices with --device")),
        _ => Ok(()),
    }
}

/// Whether a part of `path` is `.` or `..`.
pub(super) fn has_dots(path: &str) -> bool {
    path.split('/').any(|part| part == "." || part == "..")
}

/// `path` below the root, without `.` and `..`, by its words alone.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::Normal(name) => plain.push(name),
            Component::ParentDir => drop(plain.pop()),
            _ => {}
        }
    }
    plain
}

/// Whether `path` is the root, or among the files of the kernel that are mounted after all else: libcontainer makes those
/// read-only, and the runner what is not.
pub fn is_kernels(path: &str) -> bool {
    let plain = plain(Path::new(path));
    plain == Path::new("/") || ["/proc", "/sys", "/dev"].iter().any(|kernels| plain.starts_with(kernels))
}

/// Whether a mount must wait until `/dev` is there, and is therefore libcontainer's.
pub fn below_dev(target: &str) -> bool {
    Path::new(target).starts_with("/dev")
}

/// Whether the machine's device nodes are in what is mounted from `source`: they were meant to be used.
pub fn brings_devices(source: &Path) -> bool {
    let devices = Path::new("/dev");
    source.starts_with(devices) || devices.starts_with(source)
}

/// Two targets below `/dev` of which the second lies in the first.
pub(super) fn nested_in_dev<'a>(targets: &[&'a str]) -> Option<(&'a str, &'a str)> {
    let below: Vec<&str> = targets.iter().copied().filter(|target| below_dev(target)).collect();
    let pairs = below.iter().flat_map(|outer| below.iter().map(move |inner| (*outer, *inner)));
    pairs.into_iter().find(|(outer, inner)| outer != inner && Path::new(inner).starts_with(outer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_dev_do_not_lie_in_each_other() {
        assert_eq!(nested_in_dev(&["/data", "/data/in", "/dev/shm", "/dev/a", "/dev/ab"]), None);
        assert_eq!(nested_in_dev(&["/dev/a/b/c", "/data", "/dev/a"]), Some(("/dev/a", "/dev/a/b/c")));
        assert_eq!(nested_in_dev(&["/dev/shm", "/dev/shm/x"]), Some(("/dev/shm", "/dev/shm/x")));
    }

    #[test]
    fn targets_over_the_kernels_files_are_refused() {
        for bad in
            ["/", "//", "/proc", "/proc/sys/kernel", "//proc/1", "/sys/fs/cgroup", "/a/../proc", "relative", "/dev"]
        {
            assert!(check_target(bad).is_err(), "{bad}");
        }
        for good in ["/data", "/procfs", "/dev/shm", "/etc/hosts"] {
            assert!(check_target(good).is_ok(), "{good}");
        }
    }
}
