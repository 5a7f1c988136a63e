//! One line of a Dockerfile, divided into word, flags and the rest.
//!
//! Source: github.com/moby/buildkit, `frontend/dockerfile/parser/{split_command,line_parsers}.go`.

use crate::error::{Lines, ParseError};
use crate::heredoc::{self, Heredoc};
use crate::instruction::{Flag, Instruction, is_separator};
use crate::keyword::Keyword;

/// An instruction's line, of which the word may be unknown.
pub(crate) struct Line {
    pub(crate) word: String,
    pub(crate) keyword: Option<Keyword>,
    pub(crate) instruction: Instruction,
}

impl Line {
    /// Divides a line. What BuildKit finds wrong at this stage is refused, whatever else is wrong with the file.
    pub(crate) fn read(lines: Lines, text: &str, escape: char) -> Result<Self, ParseError> {
        let text = text.trim();
        let (word, behind) = text.split_once(is_separator).unwrap_or((text, ""));
        let keyword = Keyword::read(word);
        let (flags, rest) = flags(behind.trim_start_matches(is_separator));
        let mut instruction = Instruction {
            lines,
            // Looked at only where it is known.
            keyword: keyword.unwrap_or(Keyword::Run),
            written: word.to_owned(),
            text: text.to_owned(),
            flags,
            rest: rest.trim().to_owned(),
            json: None,
            heredocs: Vec::new(),
            comments: Vec::new(),
            escape,
            empty_continuation: None,
        };
        let rest = instruction.rest.as_str();
        instruction.json = match keyword {
            Some(keyword) if keyword.takes_json() => json(lines, rest)?,
            Some(Keyword::Healthcheck) => {
                json(lines, rest.split_once(char::is_whitespace).map_or("", |(_, command)| command.trim_start()))?
            }
            Some(Keyword::Env | Keyword::Label) => {
                crate::read::pairs_form(&instruction)?;
                None
            }
            Some(Keyword::Onbuild) if !rest.is_empty() => {
                Self::read_within(lines, rest, escape)?;
                None
            }
            _ => None,
        };
        Ok(Self { word: word.to_owned(), keyword, instruction })
    }

    /// The instruction behind ONBUILD. Further ones within it are refused later.
    fn read_within(lines: Lines, text: &str, escape: char) -> Result<Option<Self>, ParseError> {
        let word = text.split(is_separator).next().unwrap_or_default();
        if word.eq_ignore_ascii_case("ONBUILD") {
            return Ok(None);
        }
        Self::read(lines, text, escape).map(Some)
    }

    /// The heredocs that begin on the line.
    pub(crate) fn heredocs(&self) -> Result<Vec<Heredoc>, ParseError> {
        let Instruction { lines, rest, escape, text, .. } = &self.instruction;
        let takes = match self.keyword {
            Some(Keyword::Onbuild) => Self::read_within(*lines, rest, *escape)?.is_some_and(|within| within.takes()),
            _ => self.takes(),
        };
        if !takes {
            return Ok(Vec::new());
        }
        let begun = heredoc::begun_in(text).map_err(|reason| ParseError::at(*lines, reason))?;
        if begun.len() > heredoc::MOST {
            let message = format!("an instruction has at most {} heredocs: divide it", heredoc::MOST);
            return Err(ParseError::at(*lines, message));
        }
        Ok(begun)
    }

    fn takes(&self) -> bool {
        self.keyword.is_some_and(Keyword::takes_heredocs) && self.instruction.json.is_none()
    }
}

/// The exec form. A list with anything but strings in it is refused; what is no JSON is the shell form.
fn json(lines: Lines, rest: &str) -> Result<Option<Vec<String>>, ParseError> {
    if !rest.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    });
    strings
        .collect::<Option<Vec<String>>>()
        .map(Some)
        .ok_or_else(|| ParseError::at(lines, "when using JSON array syntax, arrays must be comprised of strings only"))
}

/// Takes the flags off the beginning; answers what is left. Quotes and backslashes are read in flags alone, and always so.
///
/// Source: github.com/moby/buildkit, `frontend/dockerfile/parser/split_command.go`.
fn flags(text: &str) -> (Vec<Flag>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, quoted, after) = flag_word(rest);
        rest = after;
        match word.strip_prefix("--") {
            Some("") if !quoted => return (flags, rest),
            named => {
                let named = named.unwrap_or(&word);
                let (name, value) = match named.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (named, None),
                };
                flags.push(Flag { name: name.to_owned(), value });
            }
        }
    }
}

/// One word without its quotes, whether there were any, and what stands behind it.
fn flag_word(text: &str) -> (String, bool, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut quoted = false;
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (letter, quote) {
            (letter, None) if letter.is_whitespace() => return (word, quoted, &text[at..]),
            ('\'' | '"', None) => (quote, quoted) = (Some(letter), true),
            (letter, Some(open)) if letter == open => quote = None,
            ('\\', _) => word.extend(letters.next().map(|(_, letter)| letter)),
            _ => word.push(letter),
        }
    }
    (word, quoted, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_flags_off() {
        let read = |text: &str| {
            let (flags, rest) = flags(text);
            let flags: Vec<String> =
                flags.into_iter().map(|flag| format!("{}:{}", flag.name, flag.value.unwrap_or_default())).collect();
            (flags.join(" "), rest.to_owned())
        };
        for (text, flags, rest) in [
            ("a --b=c d", "", "a --b=c d"),
            ("--a=b  --c d", "a:b c:", "d"),
            ("--a=\"b c\" 'd'", "a:b c", "'d'"),
            ("--a='type=x,\"y\"' d", "a:type=x,\"y\"", "d"),
            ("--a=b\\ c\\\"d e", "a:b c\"d", "e"),
            ("--a -- --b", "a:", "--b"),
            ("--", "", ""),
            ("--a=x,\"y z", "a:x,y z", ""),
        ] {
            // What stands behind `--` is not looked at again.
            let (read, left) = read(text);
            assert_eq!((read.as_str(), left.trim()), (flags, rest), "{text}");
        }
    }
}
