//! `--parents`: the folders that lead to a source are kept.
//!
//! Source: the Dockerfile reference, "COPY --parents".

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

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
