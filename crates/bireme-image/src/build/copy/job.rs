//! One COPY or ADD: finds what its sources are, and plans what the layer will hold of them.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, Read as _, Seek as _};
use std::path::{Component, Path, PathBuf};

use bireme_core::glob::{Pattern, is_pattern};
use bireme_core::ignore::Ignore;
use rustix::fs::FileType;
use tempfile::TempDir;

use super::CopyRequest;
use super::plan::{Attributes, Content, Plan, Tree, relative};
use super::{owner, parents};
use crate::error::ImageError;
use crate::store::Inner;
use crate::unpack::{Options, is_tar, open_any, unpack};
use crate::view::{Found, View, size_of_name};
use crate::wanted::Wanted;

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

/// What the layer will hold so far.
pub(super) struct Planned<'a> {
    pub(super) plan: Plan<'a>,
    pub(super) trees: Vec<View>,
    /// Archives are unpacked beside the context; they live until the layer is written.
    unpacked: Vec<TempDir>,
}

impl<'a> Planned<'a> {
    /// Nothing yet, on top of these layers.
    pub(super) fn on(below: &'a View) -> Self {
        Self { plan: Plan::on(below), trees: Vec::new(), unpacked: Vec::new() }
    }
}

/// One COPY or ADD while it is planned.
pub(super) struct Job<'a> {
    pub(super) inner: &'a Inner,
    pub(super) wanted: &'a Wanted,
    pub(super) order: &'a CopyRequest,
    pub(super) ignore: &'a Ignore,
    /// There are others beside it.
    pub(super) several: bool,
    /// The number of the tree that is copied from; others are archives that were found in it.
    pub(super) main: Cell<usize>,
    /// Bytes of the names that are held at the moment.
    pub(super) names: Cell<usize>,
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

    /// Adds what is copied to the plan; answers what kind of thing it is.
    pub(super) fn run(&self, source: View, planned: &mut Planned<'_>) -> Result<&'static str, ImageError> {
        let order = self.order;
        let below = planned.plan.below;
        let owner = order
            .chown
            .as_deref()
            .map(|text| owner::of(text, below).map_err(|reason| self.fault(reason)))
            .transpose()?;
        let mut found = Vec::new();
        for pattern in &order.sources {
            self.sources(&source, pattern, &mut found)?;
        }
        if found.is_empty() {
            if order.lenient {
                return Ok("multi");
            }
            let patterns = order.sources.join(" ");
            return Err(self.fault(format!(
                "no source files were specified: nothing fits \"{patterns}\" in the {}",
                if order.context { "build context, or .dockerignore hides it" } else { "source" }
            )));
        }
        let kind = match &found[..] {
            [(_, only)] if only.kind() == FileType::Directory => "dir",
            [_] => "file",
            _ => "multi",
        };
        let to_folder =
            order.target.ends_with('/') || order.target == "." || order.target.ends_with("/.") || order.target == "..";
        if (found.len() > 1 || self.several) && !to_folder && !order.parents {
            return Err(self.fault(format!(
                "when using {} with more than one source file, the destination must be a directory and end with a /",
                order.keyword
            )));
        }
        let target = Path::new("/").join(&order.working_dir).join(&order.target);
        let (target, there) = below.resolve(&target, true).map_err(self.failed(&target))?;
        let there = there.map(|there| there.kind());
        let (uid, gid) = owner.unwrap_or((0, 0));
        // As in BuildKit, the folders that are made for it are as what is copied.
        planned.plan.made = order.chmod.as_ref().map_or(0o755, |chmod| chmod.apply(0o755, true));
        let main = planned.trees.len();
        planned.trees.push(source);
        self.main.set(main);
        for (name, item) in found {
            if item.kind() != FileType::Directory && self.hides(&order.exclude, Path::new(&name))? {
                continue;
            }
            let Planned { plan, trees, unpacked } = planned;
            let archive = match item.kind() {
                FileType::RegularFile if order.unpack => self.archive(&trees[main], &item)?,
                _ => None,
            };
            if let Some(folder) = archive {
                let tree = View::new(vec![folder.path().to_owned()])?;
                unpacked.push(folder);
                trees.push(tree);
                let tree = trees.len() - 1;
                // Docker's classic builder leaves the owners that an archive has.
                let owner = owner.filter(|_| order.lenient);
                let (uid, gid) = owner.unwrap_or((0, 0));
                self.target_folder(plan, &target, there, uid, gid)?;
                let whole = FolderCopy { from: Path::new("/"), to: &target, ignoring: false, excluding: None };
                self.children(plan, &trees[tree], tree, whole, owner)?;
                continue;
            }
            let place = if order.parents {
                self.target_folder(plan, &target, there, uid, gid)?;
                let place = target.join(&name);
                self.keep_parents(plan, (main, &trees[main]), &target, Path::new(&name), &item, owner)?;
                Some(place)
            } else {
                None
            };
            match item.kind() {
                FileType::Directory => {
                    let to = place.as_ref().unwrap_or(&target);
                    if place.is_none() {
                        self.target_folder(plan, to, there, uid, gid)?;
                    } else {
                        let attributes = self.attributes(main, &item, owner);
                        self.check(plan, to, true)?;
                        plan.add(to.clone(), Content::Folder(None), attributes).map_err(self.failed(to))?;
                    }
                    let excluding = Some(Path::new(""));
                    let whole = FolderCopy { from: &item.path, to, ignoring: order.context, excluding };
                    self.children(plan, &trees[main], main, whole, owner)?;
                }
                FileType::RegularFile => {
                    let place = if let Some(place) = place {
                        place
                    } else if to_folder || there == Some(FileType::Directory) {
                        self.target_folder(plan, &target, there, uid, gid)?;
                        target.join(name)
                    } else {
                        plan.parents(&target, uid, gid).map_err(self.failed(&target))?;
                        target.clone()
                    };
                    self.put(plan, &trees[main], main, item, place, owner)?;
                }
                _ => return Err(self.fault(format!("{}: it is neither a file nor a folder", item.path.display()))),
            }
        }
        Ok(kind)
    }

    /// What a source means: one path, or all that fit a pattern; each with the name it was asked for by.
    fn sources(&self, tree: &View, pattern: &str, found: &mut Vec<(OsString, Found)>) -> Result<(), ImageError> {
        let clean = clean(pattern);
        let text = clean.to_string_lossy().into_owned();
        let hidden = |path: &Path| if self.order.context { self.hides(self.ignore, path) } else { Ok(false) };
        let absent = || {
            if self.order.lenient {
                let place = if self.order.context { ", or .dockerignore hides it" } else { "" };
                return self.fault(format!("\"/{}\": not found{place}", clean.display()));
            }
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
            found.push((self.name_of(pattern, &clean), item));
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
        for place in places {
            let (_, item) = tree.resolve(&place, true).map_err(self.failed(&place))?;
            let Some(item) = item else { continue };
            if hidden(relative(&place))? {
                continue;
            }
            found.push((self.name_of(pattern, &place), item));
        }
        Ok(())
    }

    /// What a source is called below the target.
    fn name_of(&self, pattern: &str, path: &Path) -> OsString {
        if self.order.parents {
            return parents::kept(path, parents::dropped(pattern));
        }
        path.file_name().unwrap_or_default().to_owned()
    }

    /// Makes the folders between the target and what is kept of a source's path, as they are where it is copied from.
    fn keep_parents(
        &self,
        plan: &mut Plan<'_>,
        (number, tree): (usize, &View),
        target: &Path,
        kept: &Path,
        item: &Found,
        owner: Option<(u32, u32)>,
    ) -> Result<(), ImageError> {
        let depth = kept.components().count();
        // As many folders above the source as there are above what is kept of its path.
        let above: Vec<&Path> = item.path.ancestors().skip(1).take(depth.saturating_sub(1)).collect();
        let places: Vec<&Path> = kept.ancestors().skip(1).take(depth.saturating_sub(1)).collect();
        for (source, place) in above.into_iter().zip(places).rev() {
            let place = target.join(place);
            let found = tree.look(source).map_err(self.failed(source))?;
            let Some(found) = found.filter(|found| found.kind() == FileType::Directory) else { continue };
            let attributes = self.attributes(number, &found, owner);
            self.check(plan, &place, true)?;
            plan.add(place, Content::Folder(Some((Tree::Source(number), found))), attributes)
                .map_err(self.failed(source))?;
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
        if let (Some(mode), false) = (&self.order.chmod, item.kind() == FileType::Symlink) {
            attributes.mode = mode.apply(attributes.mode, item.kind() == FileType::Directory);
        }
        if let Some((uid, gid)) = owner {
            (attributes.uid, attributes.gid) = (uid, gid);
        } else if self.order.context && number == self.main.get() {
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
        let folder = self.inner.aside("add-")?;
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

/// A name that is no pattern.
pub(in crate::build) fn literal(name: &str) -> String {
    let mut literal = String::new();
    for letter in name.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '\\') {
            literal.push('\\');
        }
        literal.push(letter);
    }
    literal
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
