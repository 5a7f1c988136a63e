//! What a container changed, as the layer of an image.
//!
//! Source: OCI image specification, "Image Layer Filesystem Changeset": what was added or modified stands in it as it is,
//! what was deleted as an empty file whose name begins with `.wh.`.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use tar::EntryType;

use crate::archive::{Linked, append_attributes, append_one, header};
use crate::changes::{ChangeKind, changes_of};

/// Writes the difference between a container's layers and its own folder. Blocking.
///
/// The same files give the same bytes, their times included.
pub(crate) fn pack(lower: &[PathBuf], upper: &Path, out: &mut dyn Write) -> io::Result<()> {
    let root = fs::open(upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut archive = tar::Builder::new(out);
    let mut linked = Linked::default();
    for change in changes_of(lower, upper)? {
        let name = change.path.strip_prefix("/").unwrap_or(&change.path);
        let (Some(above), Some(base)) = (name.parent(), name.file_name()) else { continue };
        if change.kind == ChangeKind::Deleted {
            let mut hidden = OsStr::new(".wh.").to_owned();
            hidden.push(base);
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o600);
            // Fields left out are no numbers to strict readers.
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            header.set_mtime(0);
            archive.append_data(&mut header, above.join(hidden), io::empty())?;
            continue;
        }
        let parent = folder(&root, above)?;
        let stat = fs::statat(&parent, base, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory
            && stat.st_nlink > 1
            && let Some(first) = linked.before(&stat, name)
        {
            archive.append_link(&mut header(&stat, EntryType::Link), name, first)?;
            continue;
        }
        if matches!(kind, FileType::Directory | FileType::RegularFile) {
            append_attributes(&mut archive, parent.as_fd(), base)?;
        }
        match kind {
            FileType::Directory => archive.append_data(&mut header(&stat, EntryType::Directory), name, io::empty())?,
            FileType::CharacterDevice | FileType::BlockDevice => {
                let kind = if kind == FileType::BlockDevice { EntryType::Block } else { EntryType::Char };
                let mut header = header(&stat, kind);
                header.set_device_major(fs::major(stat.st_rdev))?;
                header.set_device_minor(fs::minor(stat.st_rdev))?;
                archive.append_data(&mut header, name, io::empty())?;
            }
            // A socket means nothing without its process.
            _ => append_one(&mut archive, parent.as_fd(), base, name, &stat)?,
        }
    }
    archive.into_inner()?.flush()
}

/// A folder below `root`, with no link on the way: the container may be running.
fn folder(root: &OwnedFd, path: &Path) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    Ok(fs::openat2(root, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty(), how)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_layer_has_what_changed_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let (lower, upper) = (temp.path().join("lower"), temp.path().join("upper"));
        for folder in [lower.join("etc"), lower.join("old"), upper.join("etc"), upper.join("bin")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::fs::write(lower.join("etc/kept"), "kept").unwrap();
        std::fs::write(upper.join("etc/new"), "new").unwrap();
        std::fs::hard_link(upper.join("etc/new"), upper.join("etc/same")).unwrap();
        symlink("new", upper.join("etc/link")).unwrap();
        std::fs::write(upper.join("bin/tool"), "#!").unwrap();
        std::fs::set_permissions(upper.join("bin/tool"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::fs::write(upper.join("etc/hosts"), "").unwrap();
        fs::setxattr(upper.join("bin/tool"), "user.colour", b"blue", fs::XattrFlags::empty()).unwrap();
        fs::setxattr(upper.join("bin"), "trusted.overlay.opaque", b"y", fs::XattrFlags::empty()).unwrap();
        let gone = upper.join("old");
        fs::mknodat(fs::CWD, gone, FileType::CharacterDevice, Mode::empty(), fs::makedev(0, 0)).unwrap();

        let mut packed = Vec::new();
        pack(&[lower], &upper, &mut packed).unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let mut entries = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let extended: Vec<String> = match entry.pax_extensions().unwrap() {
                Some(pairs) => pairs.map(|pair| pair.unwrap().key().unwrap().to_owned()).collect(),
                None => Vec::new(),
            };
            let header = entry.header();
            entries.push(format!(
                "{:?} {} {:o} {}",
                header.entry_type(),
                entry.path().unwrap().display(),
                header.mode().unwrap(),
                extended.join(" ")
            ));
        }
        assert_eq!(
            entries,
            [
                "Directory bin 755 ",
                "Regular bin/tool 4755 SCHILY.xattr.user.colour",
                "Directory etc 755 ",
                "Symlink etc/link 777 ",
                "Regular etc/new 644 ",
                "Link etc/same 644 ",
                "Regular .wh.old 600 ",
            ]
        );
    }
}
