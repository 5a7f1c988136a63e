//! Files and folders that are made in a container for nothing but to mount something there, and do not belong in its layer.
//!
//! Source: BuildKit, `executor/stubs.go`.

use std::io;
use std::path::Path;

use bireme_image::Stub;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Removes stubs from what a container changed, as far as they are still empty. Blocking.
pub(crate) fn remove(upper: &Path, stubs: &[Stub]) -> io::Result<()> {
    if stubs.is_empty() {
        return Ok(());
    }
    let root = fs::open(upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // The innermost first: one mount may lie in the folder that was made for another.
    let mut innermost: Vec<&Stub> = stubs.iter().collect();
    innermost.sort_by(|one, other| other.place.cmp(&one.place));
    for stub in innermost {
        for path in stub.place.ancestors().take_while(|path| path.starts_with(&stub.first)) {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { break };
            let above = above.strip_prefix("/").unwrap_or(above);
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            let Ok(folder) = bireme_sys::path::open(&root, above, flags, Mode::empty(), how) else { break };
            let Ok(stat) = fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { break };
            let removal = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => AtFlags::REMOVEDIR,
                FileType::RegularFile if stat.st_size == 0 => AtFlags::empty(),
                _ => break,
            };
            match fs::unlinkat(&folder, name, removal) {
                Ok(()) => {}
                // The command put something there: that is its own.
                Err(Errno::NOTEMPTY | Errno::EXIST) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_to_mount_on_goes_and_what_a_command_made_stays() {
        let upper = tempfile::tempdir().unwrap();
        let root = upper.path();
        for folder in ["run/secrets", "root/.cache/pip", "mnt/used", "etc"] {
            std::fs::create_dir_all(root.join(folder)).unwrap();
        }
        std::fs::write(root.join("run/secrets/token"), "").unwrap();
        std::fs::write(root.join("mnt/used/file"), "kept").unwrap();
        std::fs::write(root.join("etc/made"), "by the command").unwrap();
        std::os::unix::fs::symlink("/", root.join("out")).unwrap();
        let stub = |place: &str, first: &str| Stub { place: place.into(), first: first.into() };
        let stubs = [
            stub("/run/secrets/token", "/run/secrets"),
            stub("/root/.cache/pip", "/root"),
            stub("/root/.cache", "/root"),
            stub("/mnt/used", "/mnt"),
            stub("/etc/made", "/etc/made"),
            stub("/out/tmp", "/out/tmp"),
            stub("/never/made", "/never"),
        ];
        remove(root, &stubs).unwrap();
        assert!(root.join("run").is_dir() && !root.join("run/secrets").exists());
        assert!(!root.join("root").exists());
        assert!(root.join("mnt/used/file").is_file() && root.join("etc/made").is_file());
    }
}
