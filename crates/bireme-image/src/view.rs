//! The root filesystem of an image, read through its unpacked layers without mounting them.
//!
//! The kernel's overlayfs is the model: a name in an upper layer hides the same name below unless both are folders, a
//! character device 0/0 hides it altogether, an opaque folder hides all below it. Links are followed inside the image.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{ImageError, StoreContext as _};
use crate::unpack::is_whiteout;
use crate::wanted::Wanted;

/// Links followed until it is a loop. Source: path_resolution(7).
const MAX_LINKS: usize = 40;

/// Folders of which a view remembers where they are.
const MOST_REMEMBERED: usize = 4096;

/// The layers of one image, seen as one tree. Nothing in them changes meanwhile.
pub(crate) struct View {
    /// The highest first.
    layers: Vec<OwnedFd>,
    /// Which layers make up a folder, of those that were asked for: of a hundred layers it is mostly one.
    folders: Mutex<HashMap<PathBuf, Arc<[usize]>>>,
}

/// Something found in a [`View`].
pub(crate) struct Found {
    /// Where it really is: absolute, without links.
    pub(crate) path: PathBuf,
    pub(crate) stat: Stat,
    /// In which layer, counted from the highest.
    layer: usize,
}

impl Found {
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

impl View {
    /// `layers` are the folders, lowest first.
    pub(crate) fn new(layers: Vec<PathBuf>) -> Result<Self, ImageError> {
        let open = |path: &PathBuf| {
            fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .during("open the layer", path)
        };
        Ok(Self { layers: layers.iter().rev().map(open).collect::<Result<_, _>>()?, folders: Mutex::default() })
    }

    /// The layers whose folders at `path`, relative and without links, make up what is seen there, the highest first; none where
    /// nothing is, or no folder.
    fn layers_of(&self, path: &Path) -> Result<Arc<[usize]>, Errno> {
        let (mut unknown, mut layers) = (Vec::new(), None);
        for folder in path.ancestors() {
            layers = self.folders.lock().get(folder).cloned();
            if layers.is_some() {
                break;
            }
            unknown.push(folder);
        }
        let mut layers = layers.unwrap_or_else(|| (0..self.layers.len()).collect());
        for folder in unknown.into_iter().rev() {
            if layers.is_empty() {
                break;
            }
            layers = self.among(&layers, folder)?;
            let mut folders = self.folders.lock();
            if folders.len() >= MOST_REMEMBERED {
                folders.clear();
            }
            folders.insert(folder.to_owned(), Arc::clone(&layers));
        }
        Ok(layers)
    }

    /// Those of `layers`, which make up the folder above, that make up the folder at `path`.
    fn among(&self, layers: &[usize], path: &Path) -> Result<Arc<[usize]>, Errno> {
        let mut found = Vec::new();
        for layer in layers.iter().copied() {
            match open_beneath(&self.layers[layer], path, OFlags::RDONLY | OFlags::DIRECTORY) {
                Ok(folder) => {
                    found.push(layer);
                    if is_opaque(&folder)? {
                        break;
                    }
                }
                Err(Errno::NOENT) => {}
                // A file, link or whiteout of this layer stands where a folder would have to be.
                Err(Errno::NOTDIR | Errno::LOOP) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(found.into())
    }

    /// Finds what stands at `path`, an absolute path without links, following none.
    pub(crate) fn look(&self, path: &Path) -> std::io::Result<Option<Found>> {
        let relative = relative(path);
        for layer in self.layers_of(relative.parent().unwrap_or(relative))?.iter().copied() {
            match stat_beneath(&self.layers[layer], relative) {
                Ok(stat) if is_whiteout(&stat) => return Ok(None),
                Ok(stat) => return Ok(Some(Found { path: path.to_owned(), stat, layer })),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Follows links as a process with this root would; answers the last part even if it is not there.
    ///
    /// # Errors
    /// With `ELOOP` for too many links; `ENOTDIR` where a file stands in the way.
    pub(crate) fn resolve(&self, path: &Path, follow_last: bool) -> std::io::Result<(PathBuf, Option<Found>)> {
        let mut todo: VecDeque<OsString> = split(path.as_os_str());
        let mut done = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            match part.as_bytes() {
                b"." => continue,
                b".." => {
                    done.pop();
                    continue;
                }
                _ => {}
            }
            let here = done.join(&part);
            let Some(found) = self.look(&here)? else {
                // The rest cannot be there either.
                done = here;
                for part in todo {
                    match part.as_bytes() {
                        b"." => {}
                        b".." => {
                            done.pop();
                        }
                        _ => done.push(part),
                    }
                }
                return Ok((done, None));
            };
            match found.kind() {
                FileType::Symlink if follow_last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = self.read_link(&found)?;
                    if target.as_bytes().first() == Some(&b'/') {
                        done = PathBuf::from("/");
                    }
                    for part in split(&target).into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                FileType::Directory => done = here,
                _ if todo.iter().all(|part| part == ".") => return Ok((here.clone(), Some(found))),
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        let found = self.look(&done)?;
        Ok((done, found))
    }

    /// The target of a link.
    pub(crate) fn read_link(&self, found: &Found) -> std::io::Result<OsString> {
        let path = relative(&found.path);
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let folder = open_beneath(&self.layers[found.layer], parent, OFlags::PATH | OFlags::DIRECTORY)?;
        let target = fs::readlinkat(folder, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Opens a regular file that [`Self::look`] or [`Self::resolve`] found.
    pub(crate) fn open(&self, found: &Found) -> std::io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        Ok(open_beneath(&self.layers[found.layer], relative(&found.path), flags)?.into())
    }

    /// Opens the regular file at `path`, following links; the error completes a sentence that names the path.
    pub(crate) fn open_file(&self, path: &Path) -> Result<File, String> {
        match self.resolve(path, true) {
            Ok((_, Some(found))) if found.kind() == FileType::RegularFile => {
                self.open(&found).map_err(|error| format!("cannot be read: {error}"))
            }
            Ok((_, Some(_))) => Err("is not a regular file".to_owned()),
            Ok((_, None)) => Err("is not in its root filesystem".to_owned()),
            Err(error) => Err(format!("cannot be read: {error}")),
        }
    }

    /// Extended attributes of a file or folder, sorted; those of overlayfs left out.
    pub(crate) fn attributes(&self, found: &Found) -> std::io::Result<Vec<(String, Vec<u8>)>> {
        if !matches!(found.kind(), FileType::RegularFile | FileType::Directory) {
            return Ok(Vec::new());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = open_beneath(&self.layers[found.layer], relative(&found.path), flags)?;
        attributes(&file)
    }

    /// The names in a folder, sorted, for as long as they are `wanted`.
    ///
    /// # Errors
    /// `OutOfMemory` where they take more than `most` bytes, those that upper layers hide among them.
    pub(crate) fn list(&self, path: &Path, wanted: &Wanted, most: usize) -> std::io::Result<Vec<OsString>> {
        let relative = relative(path);
        let (mut names, mut gone) = (BTreeSet::new(), BTreeSet::new());
        let mut bytes = 0;
        for layer in self.layers_of(relative)?.iter().copied() {
            let folder = open_beneath(&self.layers[layer], relative, OFlags::RDONLY | OFlags::DIRECTORY)?;
            for entry in fs::Dir::read_from(&folder)? {
                wanted.check()?;
                let entry = entry?;
                let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
                if name == "." || name == ".." || gone.contains(&name) || names.contains(&name) {
                    continue;
                }
                bytes += size_of_name(&name);
                if bytes > most {
                    let text = "the names in it, and in what else is copied, take too many bytes: copy it in parts";
                    return Err(std::io::Error::new(std::io::ErrorKind::OutOfMemory, text));
                }
                if is_whiteout(&fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?) {
                    gone.insert(name);
                } else {
                    names.insert(name);
                }
            }
        }
        Ok(names.into_iter().collect())
    }
}

/// Bytes that a name takes with what holds it.
pub(crate) fn size_of_name(name: &OsStr) -> usize {
    name.len() + 64
}

/// Extended attributes that images may carry, sorted by name.
pub(crate) fn attributes(file: impl AsFd) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let mut names = vec![0; 64 << 10];
    let length = match fs::flistxattr(&file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter_map(|name| std::str::from_utf8(name).ok()) {
        if name == "security.capability" || (name.starts_with("user.") && !name.starts_with("user.overlay.")) {
            let mut value = vec![0; 64 << 10];
            let length = fs::fgetxattr(&file, name, &mut value[..])?;
            value.truncate(length);
            all.push((name.to_owned(), value));
        }
    }
    all.sort();
    Ok(all)
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn split(path: &OsStr) -> VecDeque<OsString> {
    path.as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|part| !part.is_empty())
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

/// Opens without following any link and without leaving the layer.
fn open_beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            answer => return answer,
        }
    }
}

fn stat_beneath(root: &OwnedFd, path: &Path) -> Result<Stat, Errno> {
    let Some(name) = path.file_name() else { return fs::fstat(root) };
    let folder = open_beneath(root, path.parent().unwrap_or(Path::new("")), OFlags::PATH | OFlags::DIRECTORY)?;
    fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn is_opaque(folder: &OwnedFd) -> Result<bool, Errno> {
    let mut value = [0; 8];
    match fs::fgetxattr(folder, "trusted.overlay.opaque", &mut value[..]) {
        Ok(length) => Ok(&value[..length] == b"y"),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_to_a_bound_and_for_as_long_as_they_are_wanted() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b", "a", "c"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        // Hard links are as many names, and of a folder that is listed in two layers each counts once.
        let view = View::new(vec![folder.path().to_owned(), folder.path().to_owned()]).unwrap();
        let (root, enough) = (Path::new("/"), 3 * size_of_name(OsStr::new("a")));
        assert_eq!(view.list(root, &Wanted::default(), enough).unwrap(), ["a", "b", "c"]);
        let refused = view.list(root, &Wanted::default(), enough - 1).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::OutOfMemory);
        let (wanted, waiting) = Wanted::until_dropped();
        drop(waiting);
        assert!(view.list(root, &wanted, enough).is_err());
    }
}
