//! Comments that describe a stage or an argument.

/// What the comments before a stage or an argument say of it: `NAME text`.
pub(crate) fn described(comments: &[String], name: &str) -> Option<String> {
    comments.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned))
}
