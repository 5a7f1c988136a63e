//! `--parents`: the folders that lead to a source are kept.
//!
//! Source: the Dockerfile reference, "COPY --parents".

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use super::job::Job;
use super::plan::{Content, Plan, Tree};
use crate::error::ImageError;
use crate::view::{Found, View};

/// How many parts of a source's path, from its beginning, are not kept: those before `/./`.
pub(super) fn dropped(pattern: &str) -> usize {
    let Some((before, _)) = pattern.split_once("/./") else { return 0 };
    Path::new(before).components().filter(|part| matches!(part, Component::Normal(_))).count()
}

/// The part of a path that is kept.
pub(super) fn kept(path: &Path, dropped: usize) -> OsString {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_))).skip(dropped);
    parts.collect::<PathBuf>().into_os_string()
}

impl Job<'_> {
    /// Makes the folders between the target and what is kept of a source's path, as they are where it is copied from.
    pub(super) fn keep_parents(
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_pivot_is_dropped() {
        for (pattern, path, expected) in [
            ("x/a.txt", "/x/a.txt", "x/a.txt"),
            ("./x/a.txt", "/x/a.txt", "x/a.txt"),
            ("x/./y/*.txt", "/x/y/a.txt", "y/a.txt"),
            ("/x/./y", "/x/y", "y"),
            ("a/b/./c", "/a/b/c", "c"),
        ] {
            assert_eq!(kept(Path::new(path), dropped(pattern)), expected, "{pattern}");
        }
    }
}
