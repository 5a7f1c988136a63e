//! COPY, ADD and WORKDIR: from files of a context, stage or image to one new layer.
//!
//! A layer is planned first, as an ordered list of what it will hold, and written as a tar afterwards: the same sources
//! give the same bytes. Folders that lead to what is copied stand in the layer with the attributes they have below, for
//! in an overlay the uppermost folder's attributes count.

mod owner;
mod plan;
mod write;

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Read as _, Seek as _};
use std::path::{Component, Path, PathBuf};

use bireme_core::glob::{Pattern, is_pattern};
use bireme_core::ignore::Ignore;
use rustix::fs::FileType;
use tempfile::TempDir;

use crate::error::{ImageError, StoreContext as _};
use crate::made::NewLayer;
use crate::store::Inner;
use crate::unpack::{Options, is_tar, open_any, unpack};
use crate::view::{Found, View, size_of_name};
use crate::wanted::Wanted;
use plan::{Attributes, Content, Plan, Tree, relative};
use write::write;

/// What one COPY or ADD is told, with variables already put in.
pub(super) struct CopyRequest {
    /// `COPY` or `ADD`.
    pub(super) keyword: String,
    pub(super) line: usize,
    pub(super) sources: Vec<String>,
    pub(super) target: String,
    pub(super) working_dir: String,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<u32>,
    /// The sources are a context: owners are not taken from it, and parts may be hidden.
    pub(super) context: bool,
    /// What is left out: names within the folders that are copied, and names of files.
    pub(super) exclude: Ignore,
}

/// What a COPY or ADD made.
pub(super) struct Copied {
    pub(super) layer: NewLayer,
    /// What was copied, by its content: `file:…`, `dir:…` or `multi:…` and a digest that times do not change.
    pub(super) what: String,
}

/// Carries out a COPY or ADD on top of `below`.
pub(super) fn copy(
    inner: &Inner,
    wanted: &Wanted,
    order: &CopyRequest,
    source: View,
    ignore: &Ignore,
    below: &View,
) -> Result<Copied, ImageError> {
    let job = Job { inner, wanted, order, ignore, names: Cell::new(0) };
    job.run(source, below)
}

/// Makes a folder and those above it, as WORKDIR does; `None` if it is there.
pub(super) fn make_folder(
    inner: &Inner,
    wanted: &Wanted,
    below: &View,
    path: &Path,
) -> Result<Option<NewLayer>, ImageError> {
    let failed = |error: io::Error| ImageError::BuildRequest { reason: format!("WORKDIR {}: {error}", path.display()) };
    let (place, found) = below.resolve(path, true).map_err(failed)?;
    match found {
        Some(found) if found.kind() == FileType::Directory => return Ok(None),
        Some(_) => {
            let reason = format!("WORKDIR {}: it is not a folder", path.display());
            return Err(ImageError::BuildRequest { reason });
        }
        None => {}
    }
    let mut plan = Plan::on(below);
    plan.parents(&place, 0, 0).map_err(failed)?;
    plan.add(place, Content::Folder(None), Attributes::made(0, 0)).map_err(failed)?;
    write(inner, wanted, &plan, &[]).map(|(layer, _)| Some(layer))
}

/// A folder whose content is copied.
#[derive(Clone, Copy)]
struct FolderCopy<'a> {
    from: &'a Path,
    to: &'a Path,
    /// Whether `.dockerignore` hides parts of it.
    ignoring: bool,
    /// Its place within the folder that COPY names, for `--exclude`; `None` where that has no say.
    excluding: Option<&'a Path>,
}

struct Job<'a> {
    inner: &'a Inner,
    wanted: &'a Wanted,
    order: &'a CopyRequest,
    ignore: &'a Ignore,
    /// Bytes of the names that are held at the moment.
    names: Cell<usize>,
}

/// Bytes of names that are held at once, beside those of the plan.
const LARGEST_NAMES: usize = 128 << 20;

impl Job<'_> {
    fn fault(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Copy { instruction: self.order.keyword.clone(), line: self.order.line, reason: reason.into() }
    }

    fn failed<'e>(&'e self, path: &'e Path) -> impl Fn(io::Error) -> ImageError + 'e {
        move |error| self.fault(format!("{}: {error}", path.display()))
    }

    /// Does `each` with the names in a folder, which count as held meanwhile.
    fn names<T>(
        &self,
        tree: &View,
        folder: &Path,
        each: impl FnOnce(Vec<OsString>) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let before = self.names.get();
        let names =
            tree.list(folder, self.wanted, LARGEST_NAMES.saturating_sub(before)).map_err(self.failed(folder))?;
        self.names.set(before + names.iter().map(|name| size_of_name(name)).sum::<usize>());
        let done = each(names);
        self.names.set(before);
        done
    }

    fn hides(&self, rules: &Ignore, path: &Path) -> Result<bool, ImageError> {
        hides(rules, path, self.wanted).map_err(self.failed(path))
    }

    fn run(&self, source: View, below: &View) -> Result<Copied, ImageError> {
        let order = self.order;
        let owner = order
            .chown
            .as_deref()
            .map(|text| owner::of(text, below).map_err(|reason| self.fault(reason)))
            .transpose()?;
        let mut found = Vec::new();
        for pattern in &order.sources {
            self.sources(&source, pattern, &mut found)?;
        }
        let kind = match &found[..] {
            [(_, only)] if only.kind() == FileType::Directory => "dir",
            [_] => "file",
            _ => "multi",
        };
        let to_folder =
            order.target.ends_with('/') || order.target == "." || order.target.ends_with("/.") || order.target == "..";
        if found.len() > 1 && !to_folder {
            return Err(self.fault(format!(
                "when using {} with more than one source file, the destination must be a directory and end with a /",
                order.keyword
            )));
        }
        let target = Path::new("/").join(&order.working_dir).join(&order.target);
        let (target, there) = below.resolve(&target, true).map_err(self.failed(&target))?;
        let there = there.map(|there| there.kind());

        let mut plan = Plan::on(below);
        // Archives are unpacked beside the context; the trees live until the layer is written.
        let mut trees = vec![source];
        let mut unpacked: Vec<TempDir> = Vec::new();
        let (uid, gid) = owner.unwrap_or((0, 0));
        for (name, item) in found {
            if item.kind() != FileType::Directory && self.hides(&order.exclude, Path::new(&name))? {
                continue;
            }
            let archive = match item.kind() {
                FileType::RegularFile if order.keyword == "ADD" && order.context => self.archive(&trees[0], &item)?,
                _ => None,
            };
            if let Some(folder) = archive {
                let tree = View::new(vec![folder.path().to_owned()])?;
                unpacked.push(folder);
                trees.push(tree);
                let tree = trees.len() - 1;
                self.target_folder(&mut plan, &target, there, uid, gid)?;
                let whole = FolderCopy { from: Path::new("/"), to: &target, ignoring: false, excluding: None };
                self.children(&mut plan, &trees[tree], tree, whole, owner)?;
                continue;
            }
            match item.kind() {
                FileType::Directory => {
                    self.target_folder(&mut plan, &target, there, uid, gid)?;
                    let excluding = Some(Path::new(""));
                    let whole = FolderCopy { from: &item.path, to: &target, ignoring: order.context, excluding };
                    self.children(&mut plan, &trees[0], 0, whole, owner)?;
                }
                FileType::RegularFile => {
                    let place = if to_folder || there == Some(FileType::Directory) {
                        self.target_folder(&mut plan, &target, there, uid, gid)?;
                        target.join(name)
                    } else {
                        plan.parents(&target, uid, gid).map_err(self.failed(&target))?;
                        target.clone()
                    };
                    self.put(&mut plan, &trees[0], 0, item, place, owner)?;
                }
                _ => return Err(self.fault(format!("{}: it is neither a file nor a folder", item.path.display()))),
            }
        }
        let (layer, sum) = write(self.inner, self.wanted, &plan, &trees)?;
        Ok(Copied { layer, what: format!("{kind}:{}", sum.hex()) })
    }

    /// What a source means: one path, or all that fit a pattern; each with the name it was asked for by.
    fn sources(&self, tree: &View, pattern: &str, found: &mut Vec<(OsString, Found)>) -> Result<(), ImageError> {
        let clean = clean(pattern);
        let text = clean.to_string_lossy().into_owned();
        let hidden = |path: &Path| if self.order.context { self.hides(self.ignore, path) } else { Ok(false) };
        let absent = || {
            let place = if self.order.context { "build context or excluded by .dockerignore" } else { "source image" };
            self.fault(format!("file not found in {place}: stat {pattern}: file does not exist"))
        };
        if !is_pattern(&text) {
            let (_, item) = tree.resolve(&Path::new("/").join(&clean), true).map_err(self.failed(&clean))?;
            let item = item.ok_or_else(absent)?;
            // A folder that is hidden may hold what is taken back.
            if item.kind() != FileType::Directory && (hidden(&clean)? || hidden(relative(&item.path))?) {
                return Err(absent());
            }
            found.push((clean.file_name().unwrap_or_default().to_owned(), item));
            return Ok(());
        }
        let parts: Vec<Pattern> = text
            .split('/')
            .map(Pattern::new)
            .collect::<Result<_, _>>()
            .map_err(|error| self.fault(error.to_string()))?;
        let mut places = vec![PathBuf::from("/")];
        for part in &parts {
            let (mut next, mut held) = (Vec::new(), 0);
            for place in places {
                let (place, there) = tree.resolve(&place, true).map_err(self.failed(&clean))?;
                if !there.is_some_and(|there| there.kind() == FileType::Directory) {
                    continue;
                }
                self.names(tree, &place, |names| {
                    for name in &names {
                        self.wanted.check().map_err(self.failed(&place))?;
                        if part.matches(&name.to_string_lossy()) {
                            let found = place.join(name);
                            held += size_of_name(found.as_os_str());
                            next.push(found);
                        }
                    }
                    if held > LARGEST_NAMES {
                        return Err(self.fault(format!("\"{pattern}\" fits too many files: copy them in parts")));
                    }
                    Ok(())
                })?;
            }
            places = next;
        }
        let before = found.len();
        for place in places {
            let (_, item) = tree.resolve(&place, true).map_err(self.failed(&place))?;
            let Some(item) = item else { continue };
            if hidden(relative(&place))? {
                continue;
            }
            found.push((place.file_name().unwrap_or_default().to_owned(), item));
        }
        if found.len() == before {
            return Err(self.fault(format!(
                "no source files were specified: nothing fits \"{pattern}\" in the {}",
                if self.order.context { "build context, or .dockerignore hides it" } else { "source" }
            )));
        }
        Ok(())
    }

    /// Makes the target a folder of the layer.
    fn target_folder(
        &self,
        plan: &mut Plan<'_>,
        target: &Path,
        there: Option<FileType>,
        uid: u32,
        gid: u32,
    ) -> Result<(), ImageError> {
        if there.is_some_and(|there| there != FileType::Directory) {
            return Err(self.fault(format!("cannot copy to non-directory: {}", target.display())));
        }
        plan.parents(target, uid, gid).map_err(self.failed(target))?;
        plan.folder(target, uid, gid).map_err(self.failed(target))
    }

    /// Copies what is in a folder, without the folder itself.
    fn children(
        &self,
        plan: &mut Plan<'_>,
        tree: &View,
        number: usize,
        folder: FolderCopy<'_>,
        owner: Option<(u32, u32)>,
    ) -> Result<bool, ImageError> {
        let FolderCopy { from, to, ignoring, excluding } = folder;
        let mut any = false;
        self.names(tree, from, |names| {
            for name in names {
                self.wanted.check().map_err(self.failed(from))?;
                let (source, place) = (from.join(&name), to.join(&name));
                let Some(item) = tree.look(&source).map_err(self.failed(&source))? else { continue };
                let within = excluding.map(|within| within.join(&name));
                let hidden = (ignoring && self.hides(self.ignore, relative(&source))?)
                    || match within.as_deref() {
                        Some(within) => self.hides(&self.order.exclude, within)?,
                        None => false,
                    };
                if item.kind() == FileType::Directory {
                    let attributes = self.attributes(number, &item, owner);
                    self.check(plan, &place, true)?;
                    let next = FolderCopy { from: &source, to: &place, ignoring, excluding: within.as_deref() };
                    let inner = self.children(plan, tree, number, next, owner)?;
                    if !hidden || inner {
                        let content = Content::Folder(Some((Tree::Source(number), item)));
                        plan.add(place, content, attributes).map_err(self.failed(from))?;
                        any = true;
                    }
                } else if !hidden {
                    self.put(plan, tree, number, item, place, owner)?;
                    any = true;
                }
            }
            Ok(any)
        })
    }

    fn put(
        &self,
        plan: &mut Plan<'_>,
        tree: &View,
        number: usize,
        item: Found,
        place: PathBuf,
        owner: Option<(u32, u32)>,
    ) -> Result<(), ImageError> {
        self.check(plan, &place, false)?;
        let attributes = self.attributes(number, &item, owner);
        let path = item.path.clone();
        let content = match item.kind() {
            FileType::RegularFile => Content::File(Tree::Source(number), item),
            FileType::Symlink => Content::Link(tree.read_link(&item).map_err(self.failed(&item.path))?),
            kind => {
                return Err(self.fault(format!("{}: files of type {kind:?} are not copied", item.path.display())));
            }
        };
        plan.add(place, content, attributes).map_err(self.failed(&path))
    }

    /// A folder does not become a file, nor a file a folder.
    fn check(&self, plan: &Plan<'_>, place: &Path, folder: bool) -> Result<(), ImageError> {
        let is_folder = match plan.entries.get(place) {
            Some((content, _)) => matches!(content, Content::Folder(_)),
            None => match plan.below.look(place).map_err(self.failed(place))? {
                Some(there) => there.kind() == FileType::Directory,
                None => return Ok(()),
            },
        };
        match (is_folder, folder) {
            (true, false) => Err(self.fault(format!("cannot replace the directory {} with a file", place.display()))),
            (false, true) => Err(self.fault(format!("cannot copy to non-directory: {}", place.display()))),
            _ => Ok(()),
        }
    }

    fn attributes(&self, number: usize, item: &Found, owner: Option<(u32, u32)>) -> Attributes {
        let mut attributes = Attributes::of(&item.stat);
        if let (Some(mode), false) = (self.order.chmod, item.kind() == FileType::Symlink) {
            attributes.mode = mode;
        }
        if let Some((uid, gid)) = owner {
            (attributes.uid, attributes.gid) = (uid, gid);
        } else if self.order.context && number == 0 {
            // What an ADDed archive says of owners counts; what the user's machine says does not.
            (attributes.uid, attributes.gid) = (0, 0);
        }
        attributes
    }

    /// Unpacks a file of the context if it is a tar archive.
    fn archive(&self, tree: &View, item: &Found) -> Result<Option<TempDir>, ImageError> {
        let failed = self.failed(&item.path);
        let mut file = tree.open(item).map_err(&failed)?;
        let mut header = [0; 512];
        let is_tar = match open_any(&file) {
            Ok(mut unpacked) => unpacked.read_exact(&mut header).is_ok() && is_tar(&header),
            Err(_) => false,
        };
        if !is_tar {
            return Ok(None);
        }
        file.rewind().map_err(&failed)?;
        let ingest = self.inner.ingest();
        let folder =
            tempfile::Builder::new().prefix("add-").tempdir_in(&ingest).during("create a folder in", &ingest)?;
        let limits = &self.inner.settings.limits;
        let size = u64::try_from(item.stat.st_size).unwrap_or_default();
        let options = Options {
            name: &item.path.to_string_lossy(),
            whiteouts: false,
            owners: true,
            max_bytes: limits.unpacked(size),
            max_entries: limits.entries,
        };
        unpack(open_any(&file).map_err(&failed)?, self.wanted, folder.path(), &options)?;
        Ok(Some(folder))
    }
}

/// Whether `path`, relative to the folder that is copied from, is hidden.
///
/// # Errors
/// When nobody waits for the answer any more.
fn hides(rules: &Ignore, path: &Path, wanted: &Wanted) -> io::Result<bool> {
    rules.try_hides(&path.to_string_lossy(), || wanted.check())
}

/// A relative path without `.`, and without leaving the tree by `..`.
fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hiding_ends_with_whoever_waits() {
        let rules = Ignore::parse("a\n".repeat(bireme_core::ignore::RULES).as_str()).unwrap();
        let wanted = Wanted::default();
        assert!(!hides(&rules, Path::new("b/c"), &wanted).unwrap());
        wanted.give_up();
        assert!(hides(&rules, Path::new("b/c"), &wanted).is_err());
    }
}
