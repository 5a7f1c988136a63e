//! Heredocs: the lines behind RUN, COPY and ADD that belong to them.
//!
//! Source: github.com/moby/buildkit, `frontend/dockerfile/parser/parser.go`.

use crate::words::{Lexed, Lexer};

/// Heredocs of one instruction.
pub(crate) const MOST: usize = 1_000;

/// One heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter, and for COPY and ADD the file's name.
    pub name: String,
    /// The lines as they stand in the file, ends included.
    pub content: String,
    /// The delimiter is not quoted: variables in the text of COPY and ADD are expanded.
    pub expand: bool,
    /// `<<-`: tabs at the beginning of lines are not meant.
    pub strip_tabs: bool,
    /// The number before the `<<`.
    pub descriptor: Option<u32>,
}

impl Heredoc {
    /// The text that is meant: without the tabs of `<<-`.
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// Whether a line ends it.
    pub(crate) fn ends_with(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if self.strip_tabs { line.trim_start_matches('\t') } else { line };
        line == self.name
    }
}

/// The beginnings of heredocs in an instruction's text, without their lines.
///
/// # Errors
/// When a delimiter's quotes have no partners.
pub(crate) fn begun_in(text: &str) -> Result<Vec<Heredoc>, String> {
    if !text.contains("<<") {
        return Ok(Vec::new());
    }
    let lexer = Lexer { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lexer::new('\\') };
    // Where the shell's own quoting is beyond this lexer, there are none.
    let Lexed { words, .. } = lexer.lex(text, &|_| None).unwrap_or_default();
    let mut begun = Vec::new();
    let mut words = words.into_iter();
    while let Some(mut word) = words.next() {
        // White space may stand before the delimiter, but not behind a dash.
        if word == "<<" {
            word.extend(words.next());
        }
        begun.extend(begun_by(&word)?);
    }
    Ok(begun)
}

/// Whether a word begins a heredoc: `<<EOF`, `3<<-"EOF"`.
///
/// # Errors
/// As [`begun_in`].
pub(crate) fn begun_by(word: &str) -> Result<Option<Heredoc>, String> {
    let Some((descriptor, rest)) = word.split_once("<<") else { return Ok(None) };
    if !descriptor.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let strip_tabs = rest.starts_with('-');
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let plain = Lexer { keep_unset: true, ..Lexer::new('\\') };
    let read = |lexer: Lexer| lexer.lex(rest, &|_| None).map_err(|error| error.message);
    let [name] = read(plain)?.words.try_into().unwrap_or_default();
    if name.is_empty() {
        return Ok(None);
    }
    let raw = read(Lexer { raw_quotes: true, ..plain })?.words.concat();
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(&name) == quotes(&raw);
    Ok(Some(Heredoc { name, content: String::new(), expand, strip_tabs, descriptor: descriptor.parse().ok() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_heredocs_from_what_only_looks_like_them() {
        for (text, names) in [
            ("<<EOF", &["EOF"][..]),
            ("cat <<-EOF <<\"X Y\" > /x", &["EOF", "X Y"]),
            ("3<<EOF cat", &["EOF"]),
            ("cat <<< EOF", &[]),
            ("cat <<<EOF", &[]),
            ("cat << EOF", &["EOF"]),
            ("a << b 3 <<\tc", &["b", "c"]),
            ("echo $((1 << 2))", &["2))"]),
            ("cat <<- EOF", &[]),
            ("cat << <<EOF", &[]),
            ("cat < <EOF", &[]),
            ("cat <<", &[]),
            ("a<<EOF", &[]),
            ("echo '<<EOF'", &[]),
            ("echo \"<<EOF\"", &[]),
            ("echo \\<<EOF", &[]),
            ("echo 'it is", &[]),
            ("<<$X", &["$X"]),
            ("<<''", &[]),
        ] {
            let found: Vec<String> = begun_in(text).unwrap().into_iter().map(|doc| doc.name).collect();
            assert_eq!(found, names, "{text}");
        }
        assert!(!begun_by("<<'EOF'").unwrap().unwrap().expand);
        assert!(begun_by("<<EOF").unwrap().unwrap().expand);
        assert!(!begun_by("<<E\"O\"F").unwrap().unwrap().expand);
        assert!(begun_by("<<-EOF").unwrap().unwrap().strip_tabs);
    }

    #[test]
    fn tabs_are_stripped_from_each_line() {
        let mut doc = begun_by("<<-EOF").unwrap().unwrap();
        doc.content = "\ta\n\t\tb\tc\n d\n".to_owned();
        assert_eq!(doc.text(), "a\nb\tc\n d\n");
        assert!(doc.ends_with("\t\tEOF\r\n") && !doc.ends_with(" EOF\n") && !doc.ends_with("EOF x"));
    }
}
