//! One file as it travels: `fsutil.types.Stat`, whose modes are Go's `os.FileMode`.

use std::collections::BTreeMap;

use bollard_buildkit_proto::fsutil::types::Stat;

/// Bits of Go's `os.FileMode` (`io/fs/fs.go`).
mod go {
    pub(super) const DIR: u32 = 1 << 31;
    pub(super) const SYMLINK: u32 = 1 << 27;
    pub(super) const DEVICE: u32 = 1 << 26;
    pub(super) const PIPE: u32 = 1 << 25;
    pub(super) const SOCKET: u32 = 1 << 24;
    pub(super) const SETUID: u32 = 1 << 23;
    pub(super) const SETGID: u32 = 1 << 22;
    pub(super) const CHAR_DEVICE: u32 = 1 << 21;
    pub(super) const STICKY: u32 = 1 << 20;
    pub(super) const IRREGULAR: u32 = 1 << 19;
    pub(super) const TYPE: u32 = DIR | SYMLINK | DEVICE | PIPE | SOCKET | CHAR_DEVICE | IRREGULAR;
}

/// One entry of a tree of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Below the root of the tree, without a slash at either end: `sub/file`.
    pub path: String,
    /// What it is.
    pub kind: EntryKind,
    /// Permissions with set-user-ID (`0o4000`), set-group-ID and sticky bit, as the kernel writes them.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When it was last changed, in nanoseconds since 1970.
    pub modified: i64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A folder.
    Folder,
    /// A file of `size` bytes, whose content is to be asked for.
    File {
        /// In bytes, as it was when the walk passed it.
        size: u64,
    },
    /// The same file as the one at an earlier path.
    HardLink {
        /// The earlier path.
        to: String,
    },
    /// A symbolic link.
    Link {
        /// What it says, unchecked.
        target: String,
    },
    /// A device.
    Device {
        /// Of characters, or else of blocks.
        character: bool,
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// A named pipe.
    Pipe,
    /// A socket.
    Socket,
}

impl Entry {
    /// Whether the sender of this has content for it that can be asked for.
    pub(crate) fn has_content(mode: u32) -> bool {
        mode & go::TYPE == 0
    }

    /// The entry that `stat` describes.
    ///
    /// # Errors
    /// When it is of no kind that has a meaning here; the text says which.
    pub(crate) fn from_stat(stat: Stat) -> Result<Self, String> {
        let kind = match stat.mode & go::TYPE {
            0 if !stat.linkname.is_empty() => EntryKind::HardLink { to: stat.linkname },
            0 => EntryKind::File {
                size: u64::try_from(stat.size).map_err(|_| format!("{:?} has a negative size", stat.path))?,
            },
            go::DIR => EntryKind::Folder,
            go::SYMLINK => EntryKind::Link { target: stat.linkname },
            go::PIPE => EntryKind::Pipe,
            go::SOCKET => EntryKind::Socket,
            kind if kind == go::DEVICE || kind == go::DEVICE | go::CHAR_DEVICE => {
                let number =
                    |n: i64| u32::try_from(n).map_err(|_| format!("{:?} has no number of a device", stat.path));
                EntryKind::Device {
                    character: kind & go::CHAR_DEVICE != 0,
                    major: number(stat.devmajor)?,
                    minor: number(stat.devminor)?,
                }
            }
            other => return Err(format!("{:?} is of no known kind (mode {other:#x})", stat.path)),
        };
        let bit = |go: u32, unix: u32| if stat.mode & go != 0 { unix } else { 0 };
        Ok(Self {
            path: stat.path,
            kind,
            mode: stat.mode & 0o777 | bit(go::SETUID, 0o4000) | bit(go::SETGID, 0o2000) | bit(go::STICKY, 0o1000),
            uid: stat.uid,
            gid: stat.gid,
            modified: stat.mod_time,
            xattrs: stat.xattrs.into_iter().collect(),
        })
    }

    /// The same as it travels.
    pub(crate) fn to_stat(&self) -> Stat {
        let bit = |unix: u32, go: u32| if self.mode & unix != 0 { go } else { 0 };
        let mut stat = Stat {
            path: self.path.clone(),
            mode: self.mode & 0o777 | bit(0o4000, go::SETUID) | bit(0o2000, go::SETGID) | bit(0o1000, go::STICKY),
            uid: self.uid,
            gid: self.gid,
            size: 0,
            mod_time: self.modified,
            linkname: String::new(),
            devmajor: 0,
            devminor: 0,
            xattrs: self.xattrs.clone().into_iter().collect(),
        };
        match &self.kind {
            EntryKind::Folder => stat.mode |= go::DIR,
            EntryKind::File { size } => stat.size = i64::try_from(*size).unwrap_or(i64::MAX),
            EntryKind::HardLink { to } => stat.linkname.clone_from(to),
            EntryKind::Link { target } => {
                stat.mode |= go::SYMLINK;
                stat.size = i64::try_from(target.len()).unwrap_or(i64::MAX);
                stat.linkname.clone_from(target);
            }
            EntryKind::Device { character, major, minor } => {
                stat.mode |= go::DEVICE | if *character { go::CHAR_DEVICE } else { 0 };
                (stat.devmajor, stat.devminor) = (i64::from(*major), i64::from(*minor));
            }
            EntryKind::Pipe => stat.mode |= go::PIPE,
            EntryKind::Socket => stat.mode |= go::SOCKET,
        }
        stat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(mode: u32) -> Stat {
        Stat { path: "a".to_owned(), mode, ..Stat::default() }
    }

    #[test]
    fn modes_seen_on_the_wire_are_understood() {
        assert_eq!(Entry::from_stat(stat(2147484141)).unwrap().kind, EntryKind::Folder);
        assert_eq!(Entry::from_stat(stat(2147484141)).unwrap().mode, 0o755);
        let link = Entry::from_stat(Stat { linkname: "big".to_owned(), size: 3, ..stat(134218239) }).unwrap();
        assert_eq!((link.kind, link.mode), (EntryKind::Link { target: "big".to_owned() }, 0o777));
        assert_eq!(Entry::from_stat(stat(1 << 23 | 0o755)).unwrap().mode, 0o4755);
        assert!(Entry::from_stat(stat(1 << 19)).unwrap_err().contains("no known kind"));
        assert!(Entry::from_stat(Stat { size: -1, ..stat(0o644) }).is_err());
    }

    #[test]
    fn every_kind_comes_back_as_it_went() {
        let kinds = [
            EntryKind::Folder,
            EntryKind::File { size: 7 },
            EntryKind::HardLink { to: "b".to_owned() },
            EntryKind::Link { target: "../x".to_owned() },
            EntryKind::Device { character: true, major: 1, minor: 3 },
            EntryKind::Device { character: false, major: 8, minor: 0 },
            EntryKind::Pipe,
            EntryKind::Socket,
        ];
        for kind in kinds {
            let entry = Entry {
                path: "a".to_owned(),
                kind,
                mode: 0o7751,
                uid: 1,
                gid: 2,
                modified: -3,
                xattrs: [("user.a".to_owned(), vec![0])].into(),
            };
            assert_eq!(Entry::from_stat(entry.to_stat()).unwrap(), entry);
        }
    }
}
