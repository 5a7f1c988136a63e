//! Where a copy goes and under which name, as Docker decides it. Pure.
//!
//! Source: moby's `pkg/archive` (`copy.go`): `CopyInfoDestinationPath`, `PrepareArchiveCopy`, `ResolveHostSourcePath`.

/// One end of a copy, after links were followed as far as they are to be followed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// As given: a slash or `/.` at the end means something.
    pub path: String,
    /// Something lies at the path.
    pub exists: bool,
    /// It is a folder.
    pub is_dir: bool,
    /// The name it was asked for by, where following a link has changed the last part of the path.
    pub asked_as: Option<String>,
}

/// What is unpacked where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The folder that the archive is unpacked in.
    pub folder: String,
    /// The name the copied thing has there; absent: its own.
    pub name: Option<String>,
}

/// Copies that Docker refuses, in its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The source is a folder, and something else lies at the target.
    #[error("cannot copy directory")]
    FolderOntoFile,
    /// The source is a file, and the target can only be a folder and is not there.
    #[error("no such directory")]
    NoSuchFolder,
}

/// Decides where `source` comes to lie.
///
/// # Errors
/// A folder onto something that is none; a file onto a folder (a path with a slash at its end) that is not there.
pub fn place(source: &End, target: &End) -> Result<Placement, Refused> {
    let (folder, name) = split(&target.path);
    match (target.exists, target.is_dir, source.is_dir) {
        (true, true, _) => Ok(Placement { folder: target.path.clone(), name: source.asked_as.clone() }),
        (true, false, true) => Err(Refused::FolderOntoFile),
        (false, _, false) if asserts_folder(&target.path) => Err(Refused::NoSuchFolder),
        _ => Ok(Placement { folder, name: Some(name) }),
    }
}

/// Whether the path can only be a folder's: it ends in `/` or `/.`.
pub fn asserts_folder(path: &str) -> bool {
    path.ends_with('/') || contents_only(path)
}

/// Whether what is inside the folder is meant: the path's last part is `.`.
pub fn contents_only(path: &str) -> bool {
    path == "." || path.ends_with("/.")
}

/// Folder and last part of a path; the last part of `a/.` is `.`.
pub fn split(path: &str) -> (String, String) {
    let mut clean = clean(path);
    if contents_only(path) && clean != "." {
        if !clean.ends_with('/') {
            clean.push('/');
        }
        clean.push('.');
    }
    match clean.rsplit_once('/') {
        Some(("", "")) => ("/".to_owned(), "/".to_owned()),
        Some(("", name)) => ("/".to_owned(), name.to_owned()),
        Some((folder, name)) => (folder.to_owned(), name.to_owned()),
        None => (".".to_owned(), clean),
    }
}

/// The shortest path that means the same, by its text alone. Source: Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") | None if !rooted => parts.push(".."),
                _ => {
                    parts.pop();
                }
            },
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Where a link at `path` that says `link` leads.
pub fn follow(path: &str, link: &str) -> String {
    if link.starts_with('/') { link.to_owned() } else { clean(&format!("{}/{link}", split(path).0)) }
}

/// `resolved`, which is clean, with the ending that `asked` had; and the last part of `asked`, if it is another now.
pub fn keep_ending(asked: &str, resolved: &str) -> (String, Option<String>) {
    let mut resolved = resolved.to_owned();
    if contents_only(asked) && !contents_only(&resolved) {
        resolved.push_str("/.");
    }
    if asked.ends_with('/') && !resolved.ends_with('/') {
        resolved.push('/');
    }
    let asked_as = base(asked);
    let renamed = asked_as != base(&resolved);
    (resolved, renamed.then_some(asked_as))
}

/// The last part of a path. Source: Go's `filepath.Base`.
fn base(path: &str) -> String {
    let path = path.trim_end_matches('/');
    match path.rsplit('/').next() {
        None | Some("") => "/".to_owned(),
        Some(name) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_split_as_go_splits_them() {
        for (path, folder, name) in [
            ("/", "/", "/"),
            ("/.", "/", "."),
            ("/a", "/", "a"),
            ("/a/b/", "/a", "b"),
            ("/a/b/.", "/a/b", "."),
            ("/a/../b", "/", "b"),
            ("a", ".", "a"),
            (".", ".", "."),
            ("./a/.", "a", "."),
        ] {
            assert_eq!(split(path), (folder.to_owned(), name.to_owned()), "{path}");
        }
        for (path, cleaned) in [("", "."), ("/..", "/"), ("../a", "../a"), ("a/../..", ".."), ("/a//b/./c", "/a/b/c")] {
            assert_eq!(clean(path), cleaned, "{path}");
        }
    }

    fn check(source: (&str, bool), target: (&str, Option<bool>), expected: Result<(&str, Option<&str>), Refused>) {
        let source = End { path: source.0.to_owned(), exists: true, is_dir: source.1, asked_as: None };
        let (path, kind) = target;
        let target = End { path: path.to_owned(), exists: kind.is_some(), is_dir: kind == Some(true), asked_as: None };
        let expected =
            expected.map(|(folder, name)| Placement { folder: folder.to_owned(), name: name.map(str::to_owned) });
        assert_eq!(place(&source, &target), expected, "{source:?} {target:?}");
    }

    #[test]
    fn a_copy_lands_where_dockers_does() {
        // Into a folder that is there.
        check(("/f", false), ("/d", Some(true)), Ok(("/d", None)));
        check(("/f", false), ("/d/", Some(true)), Ok(("/d/", None)));
        check(("/src", true), ("/d", Some(true)), Ok(("/d", None)));
        // Onto a file, or onto nothing.
        check(("/f", false), ("/d/g", Some(false)), Ok(("/d", Some("g"))));
        check(("/f", false), ("/d/g", None), Ok(("/d", Some("g"))));
        check(("/src", true), ("/d/new", None), Ok(("/d", Some("new"))));
        check(("/src/.", true), ("/d/new/", None), Ok(("/d", Some("new"))));
        // A folder never takes a file's place, and a file is no folder.
        check(("/src", true), ("/d/g", Some(false)), Err(Refused::FolderOntoFile));
        check(("/src/.", true), ("/d/g", Some(false)), Err(Refused::FolderOntoFile));
        check(("/f", false), ("/d/new/", None), Err(Refused::NoSuchFolder));
        check(("/f", false), ("/d/new/.", None), Err(Refused::NoSuchFolder));
    }

    #[test]
    fn a_followed_link_keeps_its_name_and_ending() {
        assert_eq!(keep_ending("/a/link", "/a/real"), ("/a/real".to_owned(), Some("link".to_owned())));
        assert_eq!(keep_ending("/a/link/", "/a/real"), ("/a/real/".to_owned(), Some("link".to_owned())));
        assert_eq!(keep_ending("/a/link/.", "/a/real"), ("/a/real/.".to_owned(), None));
        assert_eq!(follow("/a/link", "../b"), "/b");
        assert_eq!(follow("/a/link", "/etc"), "/etc");
    }

    proptest! {
        #[test]
        fn a_clean_path_stays(path in "[./ab]{0,12}") {
            let once = clean(&path);
            prop_assert_eq!(clean(&once), once.clone());
            prop_assert!(!once.contains("//"));
            prop_assert_eq!(path.starts_with('/'), once.starts_with('/'));
        }
    }
}
