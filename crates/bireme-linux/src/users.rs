//! Who a process in the container is: `user[:group]` looked up in the container's own `/etc/passwd` and `/etc/group`.
//!
//! The files belong to whoever made the image. They are opened beneath the root filesystem, with links resolved inside
//! it, only if they are regular files, and read up to a limit.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;

use bireme_core::ErrorKind;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use crate::protocol::Failure;

/// No sane user database is larger.
const MAX_FILE: u64 = 8 << 20;

/// A process's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// From 0 to 2147483647, as Docker takes them.
    pub uid: u32,
    /// The first group, in the same range.
    pub gid: u32,
    /// Supplementary groups, in ascending order; the first group is among them.
    pub groups: Vec<u32>,
    /// The home folder, a path in the container: `/` where none is known.
    pub home: String,
}

/// Looks up `user` (Docker's `--user`) and `extra` (`--group-add`) in the root filesystem at `root`.
///
/// # Errors
/// `Invalid` when a name is not there or a number is out of range.
pub fn resolve(root: impl AsFd, user: &str, extra: &[String]) -> Result<User, Failure> {
    let passwd = read(&root, "etc/passwd");
    let group = read(&root, "etc/group");
    lookup(&passwd, &group, user, extra)
}

/// Opens `path` beneath `root`, whatever its links say.
fn read(root: impl AsFd, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let Ok(fd) = bireme_sys::path::open(root, path, flags, Mode::empty(), resolve) else { return String::new() };
    let regular =
        rustix::fs::fstat(&fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    // Of the kernel's own files some are for the asking of nobody but root: reading /proc/kmsg takes it from the machine's log.
    let regular = regular && !bireme_sys::path::is_kernels(fd.as_fd()).unwrap_or(true);
    let mut bytes = Vec::new();
    if regular {
        // What cannot be read holds no users; numbers still work.
        let _ = File::from(fd).take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn lookup(passwd: &str, group: &str, user: &str, extra: &[String]) -> Result<User, Failure> {
    let (name, wanted_group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = number(name)?;
    // A name is looked for before a number, so that a user called 1000 is found.
    let entries = || passwd.lines().filter_map(PasswdEntry::parse);
    let entry =
        entries().find(|entry| entry.name == name).or_else(|| entries().find(|entry| Some(entry.uid) == number));
    let uid = match (&entry, number) {
        (Some(entry), _) => entry.uid,
        (None, Some(uid)) => uid,
        (None, None) => {
            let message = format!(
                "unable to find user {name}: no matching entries in passwd file; use its number or add it to the image"
            );
            return Err(Failure::new(ErrorKind::Invalid, message));
        }
    };
    let groups: Vec<GroupEntry<'_>> = group.lines().filter_map(GroupEntry::parse).collect();
    let gid_of = |text: &str| -> Result<u32, Failure> {
        if let Some(group) = groups.iter().find(|group| group.name == text) {
            return Ok(group.gid);
        }
        self::number(text)?.ok_or_else(|| {
            let message = format!(
                "Unable to find group {text}: no matching entries in group file; use its number or add it to the image"
            );
            Failure::new(ErrorKind::Invalid, message)
        })
    };
    let mut supplementary = Vec::new();
    let gid = match wanted_group {
        Some(text) => gid_of(text)?,
        None => {
            // Named groups come with the user only where no group was asked for, as Docker does.
            if let Some(entry) = &entry {
                supplementary.extend(
                    groups
                        .iter()
                        .filter(|group| group.members().any(|member| member == entry.name))
                        .map(|group| group.gid),
                );
            }
            entry.as_ref().map_or(0, |entry| entry.gid)
        }
    };
    for text in extra {
        supplementary.push(gid_of(text)?);
    }
    // The first group is among the others too, as runc and Docker have it.
    supplementary.push(gid);
    supplementary.sort_unstable();
    supplementary.dedup();
    // The kernel takes no more, and others no larger numbers: said here, it is known what of the image is at fault.
    let numbers = supplementary.iter().chain([&uid, &gid]).copied();
    if let Some(large) = numbers.max().filter(|id| *id > LARGEST) {
        return Err(Failure::new(ErrorKind::Invalid, out_of_range(&large.to_string())));
    }
    if supplementary.len() > MOST_GROUPS {
        let message = format!(
            "user {name} is in {} groups: at most {MOST_GROUPS} can be had; leave some out of the image's group file",
            supplementary.len()
        );
        return Err(Failure::new(ErrorKind::Invalid, message));
    }
    let home = entry.map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    Ok(User { uid, gid, groups: supplementary, home })
}

/// The number that `text` is, if it is one at all.
fn number(text: &str) -> Result<Option<u32>, Failure> {
    if !text.bytes().all(|b| b.is_ascii_digit()) || text.is_empty() {
        return Ok(None);
    }
    // As Docker and runc: the ids above have no meaning on many systems.
    match text.parse::<u32>() {
        Ok(id) if id <= LARGEST => Ok(Some(id)),
        _ => Err(Failure::new(ErrorKind::Invalid, out_of_range(text))),
    }
}

/// Largest number of a user or group, as with Docker.
const LARGEST: u32 = i32::MAX as u32;
/// Groups of one process. Source: the kernel's `NGROUPS_MAX`.
const MOST_GROUPS: usize = 65_536;

fn out_of_range(id: &str) -> String {
    format!("user or group {id} is out of range: use 0 to {LARGEST}")
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> PasswdEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.trim().parse().ok()?;
        let gid = fields.next()?.trim().parse().ok()?;
        Some(Self { name, uid, gid, home: fields.nth(1).unwrap_or("/") })
    }
}

struct GroupEntry<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

impl<'a> GroupEntry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.trim().parse().ok()?;
        Some(Self { name, gid, members: fields.next().unwrap_or("") })
    }

    fn members(&self) -> impl Iterator<Item = &'a str> {
        self.members.split(',').map(str::trim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:\n77:x:5:5::/:\nbroken\n";
    const GROUP: &str = "root:x:0:\nbob:x:1001:\nwheel:x:10:bob,eve\naudio:x:11:eve\n";

    fn check(user: &str, expected: Result<(u32, u32, &[u32], &str), ()>) {
        let got = lookup(PASSWD, GROUP, user, &[]);
        let got = got.as_ref().map(|u| (u.uid, u.gid, u.groups.as_slice(), u.home.as_str())).map_err(|_| ());
        assert_eq!(got, expected, "{user}");
    }

    #[test]
    fn finds_users_as_docker_does() {
        check("", Ok((0, 0, &[0], "/root")));
        check("bob", Ok((1000, 1001, &[10, 1001], "/home/bob")));
        check("1000", Ok((1000, 1001, &[10, 1001], "/home/bob")));
        check("bob:audio", Ok((1000, 11, &[11], "/home/bob")));
        check("bob:33", Ok((1000, 33, &[33], "/home/bob")));
        check("4000", Ok((4000, 0, &[0], "/")));
        check("4000:wheel", Ok((4000, 10, &[10], "/")));
        check("77", Ok((5, 5, &[5], "/")));
        check("eve", Err(()));
        check("bob:nobody", Err(()));
        check("4294967295", Err(()));
        check(":wheel", Ok((0, 10, &[10], "/root")));
        assert_eq!(lookup(PASSWD, GROUP, "4000", &["audio".into(), "5".into()]).unwrap().groups, [0, 5, 11]);
    }

    #[test]
    fn what_the_kernel_does_not_take_is_refused_before_it_is_asked() {
        let large = "root:x:0:0::/:\nbob:x:4294967295:1::/:\nann:x:5:4294967294::/:\n";
        for user in ["bob", "ann"] {
            let refused = lookup(large, "", user, &[]).unwrap_err();
            assert!(refused.message.contains("is out of range: use 0 to 2147483647"), "{}", refused.message);
        }
        let groups: String = (0..70_000).map(|gid| format!("g{gid}:x:{gid}:bob\n")).collect();
        let refused = lookup("bob:x:7:7::/:\n", &groups, "bob", &[]).unwrap_err();
        assert!(refused.message.contains("is in 70000 groups") && refused.message.len() < 200, "{}", refused.message);
    }

    #[test]
    fn does_not_follow_links_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("passwd"), "evil:x:0:0::/:\n").unwrap();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("passwd"), root.path().join("etc/passwd")).unwrap();
        let fd = std::fs::File::open(root.path()).unwrap();
        assert!(resolve(&fd, "evil", &[]).is_err());
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        // A named pipe must not make the reader wait.
        rustix::fs::mknodat(&fd, "etc/passwd", FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(resolve(&fd, "evil", &[]).is_err());
    }
}
