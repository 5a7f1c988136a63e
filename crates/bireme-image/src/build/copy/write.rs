//! From a plan to a layer's archive, and to the digest by which the cache knows what was copied.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::plan::{Attributes, Content, Plan, Tree, relative};
use crate::digest::{Digest, Summed};
use crate::error::ImageError;
use crate::made::{self, NewLayer};
use crate::store::Inner;
use crate::view::View;
use crate::wanted::Wanted;

/// Writes the layer in the order of its paths.
pub(super) fn write(
    inner: &Inner,
    wanted: &Wanted,
    plan: &Plan<'_>,
    trees: &[View],
) -> Result<(NewLayer, Digest), ImageError> {
    let mut sum = Sha256::new();
    let layer = made::layer(inner, wanted, |out| write_entries(out, plan, trees, &mut sum))?;
    Ok((layer, Digest::from_hash(sum)))
}

/// What a layer would be known by. Nothing is written.
pub(super) fn sum(wanted: &Wanted, plan: &Plan<'_>, trees: &[View]) -> Result<Digest, ImageError> {
    let mut sum = Sha256::new();
    write_entries(&mut wanted.lend(io::sink()), plan, trees, &mut sum)?;
    Ok(Digest::from_hash(sum))
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
        if name.as_os_str().as_bytes().split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh.")) {
            let text =
                "a name that begins with .wh. would delete another file in a layer: give it another name, or hide it";
            return Err(failed(io::Error::other(text)));
        }
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

/// One part of what a step of the cache is known by.
fn part(sum: &mut Sha256, bytes: &[u8]) {
    sum.update((bytes.len() as u64).to_le_bytes());
    sum.update(bytes);
}
