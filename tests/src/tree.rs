//! The files of an image or a folder, as they are compared: kind, mode, owner, size and content, extended attributes; no
//! times.
//!
//! Layers are applied as the image specification of OCI has it (`layer.md`): removals first, then what is added.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::rc::Rc;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// By path, without a slash at either end.
#[derive(Clone, Default)]
pub struct Tree(BTreeMap<String, Entry>);

#[derive(Clone)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    attributes: BTreeMap<String, String>,
}

#[derive(Clone)]
enum Kind {
    Folder,
    /// Names of one file share the content, and so tell that they are links of each other.
    File(Rc<Vec<u8>>),
    Link(String),
    Other(&'static str),
}

impl Entry {
    /// Whether a reader of the two would see a difference.
    fn is_as(&self, other: &Self) -> bool {
        let same = match (&self.kind, &other.kind) {
            (Kind::Folder, Kind::Folder) => true,
            (Kind::File(one), Kind::File(two)) => Rc::ptr_eq(one, two) || one == two,
            (Kind::Link(one), Kind::Link(two)) => one == two,
            (Kind::Other(one), Kind::Other(two)) => one == two,
            _ => false,
        };
        same && (self.mode, self.owner, &self.attributes) == (other.mode, other.owner, &other.attributes)
    }
}

impl Tree {
    /// The files of an archive, whose names all mean themselves.
    ///
    /// # Errors
    /// When it is no tar archive.
    pub fn of_archive(archive: impl Read) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.add(read(archive)?);
        Ok(tree)
    }

    /// The files of a folder of this machine.
    ///
    /// # Errors
    /// When something in it cannot be read.
    pub fn of_folder(folder: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        let mut seen = BTreeMap::new();
        tree.walk(folder, "", &mut seen)?;
        Ok(tree)
    }

    fn walk(&mut self, folder: &Path, above: &str, seen: &mut BTreeMap<u64, Rc<Vec<u8>>>) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let (about, path) = (entry.metadata()?, entry.path());
            let name = entry.file_name().to_string_lossy().into_owned();
            let name = if above.is_empty() { name } else { format!("{above}/{name}") };
            let kind = if about.is_dir() {
                self.walk(&path, &name, seen)?;
                Kind::Folder
            } else if about.is_symlink() {
                Kind::Link(std::fs::read_link(&path)?.to_string_lossy().into_owned())
            } else if about.is_file() {
                let content = match seen.get(&about.ino()) {
                    Some(content) => Rc::clone(content),
                    None => Rc::new(std::fs::read(&path)?),
                };
                seen.insert(about.ino(), Rc::clone(&content));
                Kind::File(content)
            } else {
                Kind::Other(if about.file_type().is_fifo() { "fifo" } else { "device or socket" })
            };
            let owner = (u64::from(about.uid()), u64::from(about.gid()));
            self.0.insert(name, Entry { kind, mode: about.mode() & 0o7777, owner, attributes: BTreeMap::new() });
        }
        Ok(())
    }

    /// Puts a layer above what is there.
    ///
    /// # Errors
    /// When it is no tar archive.
    pub fn apply(&mut self, layer: impl Read) -> io::Result<()> {
        let mut added = Vec::new();
        for (path, what) in read(layer)? {
            let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
            match name.strip_prefix(".wh.") {
                Some(".wh..opq") => self.remove_below(folder),
                Some(gone) => {
                    self.remove(&if folder.is_empty() { gone.to_owned() } else { format!("{folder}/{gone}") })
                }
                None => added.push((path, what)),
            }
        }
        self.add(added);
        Ok(())
    }

    fn add(&mut self, entries: Vec<(String, Found)>) {
        for (path, found) in entries {
            let entry = match found {
                Found::Entry(entry) => entry,
                // A link to what is not there is left out, and so shows.
                Found::SameAs(first) => match self.0.get(&first) {
                    Some(entry) => entry.clone(),
                    None => continue,
                },
            };
            if !matches!(entry.kind, Kind::Folder) {
                self.remove_below(&path);
            }
            self.0.insert(path, entry);
        }
    }

    fn remove(&mut self, path: &str) {
        self.0.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, folder: &str) {
        let inside = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        self.0.retain(|path, _| !path.starts_with(&inside));
    }

    /// A line for each path that is not as in `base`. Of those in `varies`, what depends on the tools of the machine (size
    /// and content) is not told.
    pub fn beside(&self, base: &Self, varies: &[String]) -> Value {
        let mut lines = Map::new();
        let mut first: Vec<(&Rc<Vec<u8>>, &str)> = Vec::new();
        for (path, entry) in &self.0 {
            if base.0.get(path).is_some_and(|before| before.is_as(entry)) {
                continue;
            }
            let mut line = match &entry.kind {
                Kind::Folder => "folder",
                Kind::File(_) => "file",
                Kind::Link(_) => "link",
                Kind::Other(what) => what,
            }
            .to_owned();
            let _ = write!(line, " {:04o} {}:{}", entry.mode, entry.owner.0, entry.owner.1);
            match &entry.kind {
                Kind::File(_) if varies.contains(path) => line.push_str(" of the machine"),
                Kind::File(content) => {
                    let _ = write!(line, " {} {}", content.len(), digest(content));
                    match first.iter().find(|(other, _)| Rc::ptr_eq(other, content)) {
                        Some((_, name)) => {
                            let _ = write!(line, " = {name}");
                        }
                        None => first.push((content, path)),
                    }
                }
                Kind::Link(to) => {
                    let _ = write!(line, " -> {to}");
                }
                Kind::Folder | Kind::Other(_) => {}
            }
            for (name, value) in &entry.attributes {
                let _ = write!(line, " {name}={value}");
            }
            lines.insert(path.clone(), json!(line));
        }
        for path in base.0.keys().filter(|path| !self.0.contains_key(*path)) {
            lines.insert(path.clone(), json!("removed"));
        }
        Value::Object(lines)
    }
}

/// The first digits of a digest: enough to tell files apart, and short enough to read.
fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// An entry of an archive.
enum Found {
    Entry(Entry),
    /// A further name of another entry.
    SameAs(String),
}

fn read(archive: impl Read) -> io::Result<Vec<(String, Found)>> {
    let mut found = Vec::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = plain(&entry.path_bytes());
        if path.is_empty() {
            continue;
        }
        let mut attributes = BTreeMap::new();
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
                attributes
                    .insert(name.to_owned(), extension.value_bytes().iter().map(|b| format!("{b:02x}")).collect());
            }
        }
        let header = entry.header();
        let (mode, owner) = (header.mode()? & 0o7777, (header.uid()?, header.gid()?));
        let kind = match header.entry_type() {
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Symlink => {
                Kind::Link(String::from_utf8_lossy(&entry.link_name_bytes().unwrap_or_default()).into_owned())
            }
            tar::EntryType::Link => {
                found.push((path, Found::SameAs(plain(&entry.link_name_bytes().unwrap_or_default()))));
                continue;
            }
            tar::EntryType::Fifo => Kind::Other("fifo"),
            tar::EntryType::Char | tar::EntryType::Block => Kind::Other("device or socket"),
            _ => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                Kind::File(Rc::new(content))
            }
        };
        found.push((path, Found::Entry(Entry { kind, mode, owner, attributes })));
    }
    Ok(found)
}

fn plain(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    text.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;

    /// Folders end with a slash, `a=b` is a hard link, `a>b` a symbolic one.
    fn layer(names: &[&str]) -> Vec<u8> {
        let mut packed = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(0);
            if let Some((path, to)) = name.split_once('=') {
                header.set_entry_type(tar::EntryType::Link);
                packed.append_link(&mut header, path, to).unwrap();
            } else if let Some((path, to)) = name.split_once('>') {
                header.set_entry_type(tar::EntryType::Symlink);
                packed.append_link(&mut header, path, to).unwrap();
            } else if name.ends_with('/') {
                header.set_entry_type(tar::EntryType::Directory);
                packed.append_data(&mut header, name, io::empty()).unwrap();
            } else {
                header.set_size(name.len() as u64);
                packed.append_data(&mut header, name, name.as_bytes()).unwrap();
            }
        }
        packed.into_inner().unwrap()
    }

    fn stacked(layers: &[&[&str]]) -> Vec<String> {
        let mut tree = Tree::default();
        for names in layers {
            tree.apply(layer(names).as_slice()).unwrap();
        }
        tree.0.into_keys().collect()
    }

    #[test]
    fn a_whiteout_removes_what_is_below_it_and_nothing_of_its_own_layer() {
        assert_eq!(stacked(&[&["d/", "d/a", "d/b", "da"], &["d/.wh.a"]]), ["d", "d/b", "da"]);
        assert_eq!(stacked(&[&["d/", "d/a", "da"], &[".wh.d"]]), ["da"]);
        assert_eq!(stacked(&[&["d/", "d/a"], &["d/", "d/b", "d/.wh..wh..opq"]]), ["d", "d/b"]);
        assert_eq!(stacked(&[&["d/", "d/a"], &["d/b", ".wh.d"]]), ["d/b"]);
    }

    #[test]
    fn a_file_in_place_of_a_folder_hides_what_was_in_it() {
        assert_eq!(stacked(&[&["d/", "d/a"], &["d"]]), ["d"]);
        assert_eq!(stacked(&[&["d/", "d/a"], &["d>e"]]), ["d"]);
    }

    #[test]
    fn only_what_differs_from_the_base_is_told() {
        let mut base = Tree::default();
        base.apply(layer(&["a", "b", "d/"]).as_slice()).unwrap();
        let mut tree = base.clone();
        tree.apply(layer(&["a", ".wh.b", "c", "e=c", "f>c"]).as_slice()).unwrap();
        let told = tree.beside(&base, &[]);
        let of_c = format!("file 0644 0:0 1 {}", digest(b"c"));
        assert_eq!(told, json!({ "b": "removed", "c": of_c, "e": format!("{of_c} = c"), "f": "link 0644 0:0 -> c" }));
        let told = tree.beside(&base, &["c".to_owned()]);
        assert_eq!(told["c"], "file 0644 0:0 of the machine");
    }
}
