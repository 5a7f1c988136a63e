//! What a volume of driver `local` is a mount of, by its options `type`, `device` and `o`, as `mount` takes them.
//!
//! It is mounted at the volume's folder for as long as a workload that runs has the volume.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::ToSocketAddrs as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::refusal::OptionFault;

/// # Errors
/// For an option that is none of the three, or one without another that it needs.
pub(crate) fn check(options: &BTreeMap<String, String>) -> Result<(), OptionFault> {
    for option in options.keys() {
        match option.as_str() {
            "type" | "device" | "o" => {}
            "size" => return Err(OptionFault::Size),
            other => return Err(OptionFault::Unknown(other.to_owned())),
        }
    }
    let given = |name: &str| options.get(name).is_some_and(|value| !value.is_empty());
    for (option, needed) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")] {
        if given(option) && !given(needed) {
            return Err(OptionFault::Missing(needed));
        }
    }
    Ok(())
}

/// Mounts what the options name; nothing where they name nothing, or it is mounted. Blocking.
pub(crate) fn mount(options: &BTreeMap<String, String>, at: &Path) -> io::Result<()> {
    let get = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    if get("device").is_empty() || is_mounted(at)? {
        return Ok(());
    }
    let kind = get("type");
    let (flags, data) = parse(get("o"), kind)?;
    let read_only = flags.contains(MountFlags::RDONLY);
    let data = CString::new(data).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    rustix::mount::mount(get("device"), at, if kind == "none" { "" } else { kind }, flags, data.as_c_str())?;
    if flags.contains(MountFlags::BIND) && read_only {
        // A bind mount takes its other flags only when it stands.
        let made = rustix::mount::mount_remount(at, flags, data.as_c_str());
        if let Err(error) = made {
            rustix::mount::unmount(at, UnmountFlags::DETACH)?;
            return Err(error.into());
        }
    }
    Ok(())
}

/// Nothing where nothing is mounted. Blocking.
pub(crate) fn unmount(at: &Path) -> io::Result<()> {
    while is_mounted(at)? {
        rustix::mount::unmount(at, UnmountFlags::DETACH)?;
    }
    Ok(())
}

pub(crate) fn is_mounted(at: &Path) -> io::Result<bool> {
    match rustix::fs::statx(CWD, at, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE) {
        Ok(found) => Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Words of `o` that are flags, and the rest for the file system itself.
fn parse(words: &str, kind: &str) -> io::Result<(MountFlags, String)> {
    let mut flags = MountFlags::empty();
    let mut data = Vec::new();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let (flag, on) = match word {
            "defaults" | "_netdev" => continue,
            "ro" => (MountFlags::RDONLY, true),
            "rw" => (MountFlags::RDONLY, false),
            "bind" => (MountFlags::BIND, true),
            "rbind" => (MountFlags::BIND | MountFlags::REC, true),
            "nosuid" => (MountFlags::NOSUID, true),
            "suid" => (MountFlags::NOSUID, false),
            "nodev" => (MountFlags::NODEV, true),
            "dev" => (MountFlags::NODEV, false),
            "noexec" => (MountFlags::NOEXEC, true),
            "exec" => (MountFlags::NOEXEC, false),
            "sync" => (MountFlags::SYNCHRONOUS, true),
            "async" => (MountFlags::SYNCHRONOUS, false),
            "dirsync" => (MountFlags::DIRSYNC, true),
            "noatime" => (MountFlags::NOATIME, true),
            "atime" => (MountFlags::NOATIME, false),
            "nodiratime" => (MountFlags::NODIRATIME, true),
            "diratime" => (MountFlags::NODIRATIME, false),
            "relatime" => (MountFlags::RELATIME, true),
            "strictatime" => (MountFlags::STRICTATIME, true),
            "mand" | "nomand" => continue,
            _ => {
                data.push(address(word, kind)?);
                continue;
            }
        };
        flags.set(flag, on);
    }
    Ok((flags, data.join(",")))
}

/// The kernel knows no names of machines: `addr=NAME` becomes the address.
fn address(word: &str, kind: &str) -> io::Result<String> {
    let name = word.strip_prefix("addr=").filter(|_| kind.starts_with("nfs") || kind == "cifs");
    match name {
        Some(name) if name.parse::<std::net::IpAddr>().is_err() => {
            let mut found = (name, 0).to_socket_addrs()?;
            let found = found.next().ok_or_else(|| io::Error::other(format!("{name} has no address")))?;
            Ok(format!("addr={}", found.ip()))
        }
        _ => Ok(word.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(options: &[(&str, &str)]) -> String {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        check(&options).map_or_else(|error| error.to_string(), |()| "ok".to_owned())
    }

    #[test]
    fn options_are_checked_in_dockers_words() {
        assert_eq!(told(&[]), "ok");
        assert_eq!(told(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]), "ok");
        assert_eq!(told(&[("colour", "red")]), "invalid option: \"colour\"");
        assert_eq!(told(&[("type", "tmpfs")]), "missing required option: \"device\"");
        assert_eq!(told(&[("device", "/dev/sdb1")]), "missing required option: \"type\"");
        assert!(told(&[("size", "1g")]).contains("not offered"));
    }

    #[test]
    fn flags_are_told_from_what_the_file_system_takes() {
        let (flags, data) = parse("size=2m,ro,noexec,mode=0750,exec,addr=10.0.0.1", "nfs4").unwrap();
        assert_eq!(flags, MountFlags::RDONLY);
        assert_eq!(data, "size=2m,mode=0750,addr=10.0.0.1");
        assert_eq!(parse("rbind", "none").unwrap().0, MountFlags::BIND | MountFlags::REC);
        assert_eq!(parse("addr=localhost", "tmpfs").unwrap().1, "addr=localhost", "only network file systems have one");
    }
}
