//! COPY, ADD and WORKDIR: from files of a context, stage or image to one new layer.
//!
//! A layer is planned first, as an ordered list of what it will hold, and written as a tar afterwards: the same sources
//! give the same bytes. Folders that lead to what is copied stand in the layer with the attributes they have below, for
//! in an overlay the uppermost folder's attributes count.

use std::cell::Cell;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Stat};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::patterns::{Ignore, Pattern, is_pattern};
use crate::digest::{Digest, Summed};
use crate::error::{ImageError, StoreContext as _};
use crate::made::{self, NewLayer};
use crate::store::Inner;
use crate::unpack::{Options, is_tar, open_any, unpack};
use crate::view::{Found, View, size_of_name};
use crate::wanted::Wanted;

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

/// Attributes of something in the new layer.
#[derive(Clone, PartialEq, Eq)]
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: u64,
}

/// Content and extended attributes are read when they are written, for there may be any number of them.
enum Content {
    /// Its attributes are those of a folder that is there, unless it is new.
    Folder(Option<(Tree, Found)>),
    Link(OsString),
    File(Tree, Found),
}

#[derive(Clone, Copy)]
enum Tree {
    Below,
    /// By number.
    Source(usize),
}

/// What a layer will hold, by absolute path.
struct Plan<'a> {
    below: &'a View,
    entries: BTreeMap<PathBuf, (Content, Attributes)>,
    /// Bytes of it, about.
    size: usize,
}

/// Bytes that one plan may take: room for half a million files, and no way to fill the memory with some MB of names.
const LARGEST_PLAN: usize = 256 << 20;

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
        rules.hides(&path.to_string_lossy(), self.wanted).map_err(self.failed(path))
    }

    fn run(&self, source: View, below: &View) -> Result<Copied, ImageError> {
        let order = self.order;
        let owner = order.chown.as_deref().map(|text| self.owner(text, below)).transpose()?;
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
            .map(|part| Pattern::new(part, false))
            .collect::<Result<_, _>>()
            .map_err(|reason| self.fault(reason))?;
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

    /// Reads `user[:group]`, names being those of the image.
    fn owner(&self, text: &str, below: &View) -> Result<(u32, u32), ImageError> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let read = |path: &str| -> String {
            let mut text = String::new();
            if let Ok(file) = below.open_file(Path::new(path)) {
                // Larger than any real one; a line cut off is not found.
                let _ = file.take(4 << 20).read_to_string(&mut text);
            }
            text
        };
        let field = |file: &str, name: &str, at: usize| -> Option<u32> {
            let fields = file.lines().map(|line| line.split(':').collect::<Vec<_>>());
            fields.filter(|fields| fields[0] == name).find_map(|fields| fields.get(at)?.parse().ok())
        };
        let number = |name: &str| name.parse::<u32>().ok().filter(|id| *id != u32::MAX);
        let unknown = |what: &str, name: &str, file: &str| {
            self.fault(format!("unable to find {what} {name}: no matching entries in {file} of the image"))
        };
        let (uid, primary) = match number(user) {
            Some(uid) => (uid, uid),
            None => {
                let passwd = read("/etc/passwd");
                let uid = field(&passwd, user, 2).ok_or_else(|| unknown("user", user, "/etc/passwd"))?;
                (uid, field(&passwd, user, 3).unwrap_or(uid))
            }
        };
        let gid = match group {
            None | Some("") => primary,
            Some(group) => match number(group) {
                Some(gid) => gid,
                None => field(&read("/etc/group"), group, 2).ok_or_else(|| unknown("group", group, "/etc/group"))?,
            },
        };
        Ok((uid, gid))
    }
}

impl<'a> Plan<'a> {
    fn on(below: &'a View) -> Self {
        Self { below, entries: BTreeMap::new(), size: 0 }
    }

    /// # Errors
    /// Where it has become too large to be held.
    fn add(&mut self, path: PathBuf, content: Content, attributes: Attributes) -> io::Result<()> {
        let more = match &content {
            Content::Folder(Some((_, found))) | Content::File(_, found) => found.path.as_os_str().len(),
            Content::Folder(None) => 0,
            Content::Link(target) => target.len(),
        };
        self.size += size_of::<(PathBuf, (Content, Attributes))>() + path.as_os_str().len() + more;
        if self.size > LARGEST_PLAN {
            return Err(io::Error::other(format!(
                "the names of what it copies take more than {LARGEST_PLAN} bytes: copy it in parts"
            )));
        }
        self.entries.insert(path, (content, attributes));
        Ok(())
    }

    /// The folders above `path`, as they are below or new.
    fn parents(&mut self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|path| path.parent().is_some()).collect();
        for folder in above.into_iter().rev() {
            self.folder(folder, uid, gid)?;
        }
        Ok(())
    }

    fn folder(&mut self, path: &Path, uid: u32, gid: u32) -> io::Result<()> {
        if path.parent().is_none() || self.entries.contains_key(path) {
            return Ok(());
        }
        let (from, attributes) = match self.below.look(path)? {
            Some(there) if there.kind() == FileType::Directory => {
                let attributes = Attributes::of(&there.stat);
                (Some((Tree::Below, there)), attributes)
            }
            Some(_) => return Err(io::Error::from(io::ErrorKind::NotADirectory)),
            None => (None, Attributes::made(uid, gid)),
        };
        self.add(path.to_owned(), Content::Folder(from), attributes)
    }
}

impl Attributes {
    fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: u64::try_from(stat.st_mtime).unwrap_or_default(),
        }
    }

    /// Of a folder that nothing gives attributes to. Its time is the epoch, so that the layer is always the same.
    fn made(uid: u32, gid: u32) -> Self {
        Self { mode: 0o755, uid, gid, mtime: 0 }
    }
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

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Writes the layer in the order of its paths.
fn write(inner: &Inner, wanted: &Wanted, plan: &Plan<'_>, trees: &[View]) -> Result<(NewLayer, Digest), ImageError> {
    let mut sum = Sha256::new();
    let layer = made::layer(inner, wanted, |out| write_entries(out, plan, trees, &mut sum))?;
    Ok((layer, Digest::from_hash(sum)))
}

/// One part of what a step of the cache is known by.
fn part(sum: &mut Sha256, bytes: &[u8]) {
    sum.update((bytes.len() as u64).to_le_bytes());
    sum.update(bytes);
}

fn write_entries(out: &mut dyn Write, plan: &Plan<'_>, trees: &[View], sum: &mut Sha256) -> Result<(), ImageError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error: io::Error| ImageError::BuildRequest { reason: format!("cannot copy {}: {error}", path.display()) }
    };
    let mut tar = tar::Builder::new(out);
    tar.sparse(false);
    let tree = |tree: Tree| match tree {
        Tree::Below => plan.below,
        Tree::Source(number) => &trees[number],
    };
    // Where each file that has several names stands, by the tree that it is from, its device and its number.
    let mut written: HashMap<(Option<usize>, u64, u64), (&Path, &Attributes)> = HashMap::new();
    for (path, (content, attributes)) in &plan.entries {
        let failed = failed(path);
        let name = relative(path);
        if let Content::File(from, found) = content
            && found.stat.st_nlink > 1
        {
            let source = match from {
                Tree::Below => None,
                Tree::Source(number) => Some(*number),
            };
            match written.entry((source, found.stat.st_dev, found.stat.st_ino)) {
                Entry::Occupied(first) if first.get().1 == attributes => {
                    let first = relative(first.get().0);
                    sum.update(b"h");
                    part(sum, name.as_os_str().as_bytes());
                    part(sum, first.as_os_str().as_bytes());
                    let mut header = tar::Header::new_gnu();
                    header.set_mode(attributes.mode);
                    header.set_uid(attributes.uid.into());
                    header.set_gid(attributes.gid.into());
                    header.set_mtime(attributes.mtime);
                    header.set_size(0);
                    header.set_entry_type(tar::EntryType::Link);
                    tar.append_link(&mut header, name, first).map_err(&failed)?;
                    continue;
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(place) => {
                    place.insert((path, attributes));
                }
            }
        }
        let extended = match content {
            Content::Folder(Some((from, found))) | Content::File(from, found) => {
                tree(*from).attributes(found).map_err(&failed)?
            }
            Content::Folder(None) | Content::Link(_) => Vec::new(),
        };
        let pairs = extended.iter();
        let pairs: Vec<(String, &[u8])> =
            pairs.map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice())).collect();
        if !pairs.is_empty() {
            tar.append_pax_extensions(pairs.iter().map(|(name, value)| (name.as_str(), *value))).map_err(&failed)?;
        }
        // Everything but the time: a file that was written again is the same file. Each part with its length, or what one
        // entry says could be what others are.
        let kind = match content {
            Content::Folder(_) => b'd',
            Content::Link(_) => b'l',
            Content::File(..) => b'f',
        };
        sum.update([kind]);
        part(sum, name.as_os_str().as_bytes());
        for number in [attributes.mode, attributes.uid, attributes.gid] {
            sum.update(number.to_le_bytes());
        }
        sum.update((extended.len() as u64).to_le_bytes());
        for (name, value) in &extended {
            part(sum, name.as_bytes());
            part(sum, value);
        }
        let mut header = tar::Header::new_gnu();
        header.set_mode(attributes.mode);
        header.set_uid(attributes.uid.into());
        header.set_gid(attributes.gid.into());
        header.set_mtime(attributes.mtime);
        header.set_size(0);
        match content {
            Content::Folder(_) => {
                header.set_entry_type(tar::EntryType::Directory);
                let mut name = name.as_os_str().as_bytes().to_vec();
                name.push(b'/');
                let name = OsString::from_vec(name);
                tar.append_data(&mut header, &name, io::empty()).map_err(&failed)?;
            }
            Content::Link(target) => {
                part(sum, target.as_bytes());
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, name, target).map_err(&failed)?;
            }
            Content::File(from, found) => {
                let file = tree(*from).open(found).map_err(&failed)?;
                let size = u64::try_from(found.stat.st_size).unwrap_or_default();
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(size);
                // A file that grows or shrinks meanwhile must not spoil the archive.
                sum.update(size.to_le_bytes());
                let mut content = Summed { from: file.take(size), sum };
                tar.append_data(&mut header, name, &mut content).map_err(&failed)?;
                if content.from.limit() > 0 {
                    return Err(failed(io::Error::other("it changed while it was read")));
                }
            }
        }
    }
    tar.into_inner().map(|_| ()).map_err(failed(Path::new("/")))
}
