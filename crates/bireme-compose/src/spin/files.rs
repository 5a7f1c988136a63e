//! `files` and `exclude_files` of a component: folders that are mounted where all of them are whole folders, so that what is
//! changed in them is seen at once; otherwise an image in which the files lie beside the component.

use std::path::{Path, PathBuf};

use super::manifest::{list, plain, text};
use crate::canonical::absolute;
use crate::error::ComposeError;
use crate::yaml::{Node, Value};

type Result<T> = std::result::Result<T, ComposeError>;

/// Where the component lies in an image that has files beside it: `/` is the program's.
const COMPONENT: &str = "/.component.wasm";

/// Characters that a path in a Dockerfile cannot have as they are.
pub(super) const SPECIAL: [char; 5] = ['"', '\\', '$', '\n', '\r'];

/// What a component sees.
pub(super) enum Files<'a> {
    /// Nothing, or whole folders: entries of `volumes`.
    Mounts(Vec<Node>),
    /// Instructions of a Dockerfile that copy what it sees.
    Copies(Vec<Copy<'a>>),
}

/// One entry of `files`.
pub(super) struct Copy<'a> {
    node: &'a Node,
    what: Entry,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// A file or a folder, and where it is seen.
    Placed { source: String, destination: String },
    /// A file, seen at the same path.
    Single(String),
    /// All that fits a pattern below a folder, seen at the same path.
    Matched { folder: String, pattern: String },
}

impl Entry {
    /// `"assets/**/*.png"`, or `{ source, destination }`.
    fn read(node: &Node, place: &str) -> Result<Self> {
        let Some(pattern) = node.as_str() else {
            let part = |key: &str| {
                let node = node.get(key).ok_or_else(|| node.invalid(place, format!("has no {key}")))?;
                text(node, &format!("{place}.{key}")).map(str::to_owned)
            };
            let destination = part("destination")?;
            let destination = format!("/{}", destination.trim_start_matches('/'));
            return Ok(Self::Placed { source: part("source")?, destination });
        };
        let clean = pattern.trim_start_matches("./").trim_start_matches('/');
        let parts: Vec<&str> = clean.split('/').collect();
        let fixed = parts.iter().take_while(|part| !is_pattern(part)).count();
        if fixed == parts.len() {
            return Ok(Self::Single(clean.to_owned()));
        }
        Ok(Self::Matched { folder: parts[..fixed].join("/"), pattern: parts[fixed..].join("/") })
    }

    /// The folder, and where it is seen, where the entry is all of one.
    fn whole(&self, root: &Path) -> Option<(&str, String)> {
        match self {
            Self::Placed { source, destination } if !root.join(source).is_file() => Some((source, destination.clone())),
            Self::Matched { folder, pattern }
                if matches!(pattern.as_str(), "**/*" | "**" | "*") && !folder.is_empty() =>
            {
                Some((folder, format!("/{folder}")))
            }
            _ => None,
        }
    }
}

fn is_pattern(part: &str) -> bool {
    part.contains(['*', '?', '['])
}

/// Reads both keys of a component's table. `root` is the folder of the manifest.
///
/// # Errors
/// What is malformed.
pub(super) fn read<'a>(node: &'a Node, id: &str, root: &Path) -> Result<(Files<'a>, Vec<String>)> {
    let place = format!("component.{id}.files");
    let files = list(node.get("files"), &place)?;
    let copies = files.iter().map(|node| Ok(Copy { node, what: Entry::read(node, &place)? }));
    let copies: Vec<Copy<'_>> = copies.collect::<Result<_>>()?;
    let excluding = format!("component.{id}.exclude_files");
    let excluded = list(node.get("exclude_files"), &excluding)?.iter();
    let excluded: Vec<String> =
        excluded.map(|pattern| text(pattern, &excluding).map(str::to_owned)).collect::<Result<_>>()?;
    let whole: Option<Vec<_>> = copies.iter().map(|copy| copy.what.whole(root)).collect();
    let Some(whole) = whole.filter(|_| excluded.is_empty() || copies.is_empty()) else {
        return Ok((Files::Copies(copies), excluded));
    };
    let is_told_apart = (1..whole.len()).all(|at| !whole[..at].iter().any(|(_, target)| *target == whole[at].1));
    if !is_told_apart {
        return Ok((Files::Copies(copies), excluded));
    }
    let mounts = files.iter().zip(whole);
    Ok((
        Files::Mounts(mounts.map(|(node, (source, target))| mount(node, &root.join(source), &target)).collect()),
        excluded,
    ))
}

/// A folder that the component sees.
fn mount(files: &Node, source: &Path, target: &str) -> Node {
    // A folder that is missing is not made in the user's.
    let bind = Value::Map([("create_host_path".to_owned(), files.part(Value::Bool(false)))].into());
    let keys = [
        ("bind", files.part(bind)),
        ("type", files.text("bind")),
        ("source", plain(files, &source.to_string_lossy())),
        ("target", plain(files, target)),
        ("read_only", files.part(Value::Bool(true))),
    ];
    files.part(Value::Map(keys.map(|(key, value)| (key.to_owned(), value)).into()))
}

/// The Dockerfile of an image that holds the component at [`COMPONENT`] and the files beside it.
///
/// # Errors
/// Paths that lead out of the folder of the manifest, or have characters that Dockerfiles give a meaning.
pub(super) fn dockerfile(program: &Program, copies: &[Copy<'_>], excluded: &[String], id: &str) -> Result<String> {
    let mut text = format!("FROM scratch\n{} {COMPONENT}\n", program.instruction);
    for Copy { node, what } in copies {
        let place = format!("component.{id}.files");
        // Names that fit are kept below the folder of the manifest.
        let (mut keeps, mut patterns) = (false, Vec::new());
        let (from, to) = match what {
            Entry::Placed { source, destination } => (source.as_str(), destination.clone()),
            Entry::Single(path) => (path.as_str(), format!("/{path}")),
            Entry::Matched { folder, pattern } if pattern.contains(['/']) || pattern.contains("**") => {
                patterns = vec!["**".to_owned(), format!("!{pattern}")];
                (folder.as_str(), format!("/{folder}"))
            }
            Entry::Matched { pattern, .. } => {
                keeps = true;
                (pattern.as_str(), "/".to_owned())
            }
        };
        let below = match what {
            Entry::Matched { folder, .. } if keeps => folder,
            _ => from,
        };
        patterns.extend(relative_all(excluded, if keeps { "" } else { from }));
        let is_special = |path: &&str| path.contains(SPECIAL);
        let texts = [from, &to, below].into_iter().chain(patterns.iter().map(String::as_str));
        let has_space = patterns.iter().map(String::as_str).find(|pattern| pattern.contains(char::is_whitespace));
        if let Some(path) = texts.into_iter().find(is_special).or(has_space) {
            let text = format!("{path:?} has a character that paths of single files cannot have here");
            return Err(node.unsupported(place, text));
        }
        if Path::new(below).is_absolute() || below.split('/').any(|part| part == "..") {
            let text =
                format!("{below:?} is outside the folder of the manifest: put it into that, or mount a whole folder");
            return Err(node.unsupported(place, text));
        }
        let mut parts: Vec<&str> = program.below.iter().map(String::as_str).collect();
        if keeps {
            // As COPY is told where the kept part begins.
            parts.push(".");
            parts.extend(below.split('/').filter(|part| !part.is_empty()));
        }
        parts.extend(from.split('/').filter(|part| !matches!(*part, "" | ".")));
        let source = if parts.is_empty() { ".".to_owned() } else { parts.join("/") };
        text.push_str(if keeps { "COPY --parents" } else { "COPY" });
        for pattern in patterns {
            text.push_str(&format!(" --exclude={pattern}"));
        }
        text.push_str(&format!(" [\"{source}\", \"{to}\"]\n"));
    }
    text.push_str(&format!("ENTRYPOINT [\"{COMPONENT}\"]\n"));
    Ok(text)
}

/// The patterns that may fit something below `folder`, as that folder's own. In Spin's, `*` fits `/`, too.
fn relative_all(patterns: &[String], folder: &str) -> Vec<String> {
    let deep = patterns.iter().map(|pattern| {
        let parts = pattern.trim_start_matches("./").trim_start_matches('/').split('/');
        let mut deep: Vec<&str> = Vec::new();
        for part in parts.filter(|part| !part.is_empty()) {
            if part.contains('*') && part != "**" && deep.last() != Some(&"**") {
                deep.push("**");
            }
            deep.push(part);
        }
        deep.join("/")
    });
    let folder: Vec<&str> = folder.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    deep.filter_map(|pattern| relative(&pattern, &folder)).collect()
}

/// `pattern` as seen from `folder`; `None` where it fits nothing below it.
fn relative(pattern: &str, folder: &[&str]) -> Option<String> {
    let Some((first, below)) = folder.split_first() else { return Some(pattern.to_owned()) };
    let (part, rest) = pattern.split_once('/').unwrap_or((pattern, ""));
    match part {
        "**" => Some(pattern.to_owned()),
        // All of it.
        _ if part == *first && rest.is_empty() => Some("**".to_owned()),
        _ if part == *first => relative(rest, below),
        _ => None,
    }
}

/// How an image gets its component.
pub(super) struct Program {
    /// ADD or COPY with its source, without where to.
    pub(super) instruction: String,
    /// The folder that the build is sent.
    pub(super) context: PathBuf,
    /// Names of the folders that lead from there to that of the manifest.
    below: Vec<String>,
}

impl Program {
    /// What is fetched.
    pub(super) fn fetched(instruction: String, root: &Path) -> Self {
        Self { instruction, context: root.to_owned(), below: Vec::new() }
    }

    /// The file `source`, as seen from `root`, the folder of the manifest. The nearest folder that holds both is sent.
    pub(super) fn file(source: &str, root: &Path) -> Self {
        let path = absolute(root, source, None);
        let context = root.ancestors().find(|folder| path.starts_with(folder)).unwrap_or(Path::new("/"));
        let names = |path: &Path| -> Vec<String> {
            let inside = path.strip_prefix(context).unwrap_or(path);
            inside.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect()
        };
        let instruction = format!("COPY {}", names(&path).join("/"));
        Self { instruction, context: context.to_owned(), below: names(root) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusions_are_seen_from_the_folder_that_is_copied() {
        for (pattern, folder, expected) in [
            ("a/secret", "a", Some("secret")),
            ("a/secret", "", Some("a/secret")),
            ("a/secret", "b", None),
            ("a/b/c", "a/b", Some("c")),
            ("a", "a/b", Some("**")),
            ("**/*.map", "a", Some("**/*.map")),
            ("*.map", "a", Some("**/*.map")),
            ("a/*.map", "a", Some("**/*.map")),
            ("./a/**/x", "a", Some("**/x")),
        ] {
            let got = relative_all(&[pattern.to_owned()], folder);
            assert_eq!(got.first().map(String::as_str), expected, "{pattern} in {folder}");
        }
    }
}
