//! The machine that reads quotes, escapes and variables.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

use super::pattern;

/// Bytes that one word may come to. A kernel takes 128 KiB in one argument or variable.
pub const LONGEST: usize = 1 << 20;
/// Braces within braces.
const DEEPEST: u32 = 32;
/// What one text may cost: bytes that values come to, and steps of matching their patterns.
const MOST_COST: usize = 1 << 25;

/// How to read.
#[derive(Clone, Copy, Debug)]
pub struct Lexer {
    /// The backslash, or the backtick.
    pub escape: char,
    /// Whether quotes mean anything. In the text of a heredoc they do not.
    pub quotes: bool,
    /// Leave quotes in.
    pub raw_quotes: bool,
    /// Leave escapes in.
    pub raw_escapes: bool,
    /// Leave variables that are not set as they are written.
    pub keep_unset: bool,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lexed {
    /// As one word.
    pub text: String,
    /// Divided at white space outside quotes.
    pub words: Vec<String>,
    /// The variables that were named, and whether they are set.
    pub named: BTreeMap<String, bool>,
    /// What it took, about one for each byte that was copied or looked at.
    pub(crate) cost: usize,
}

/// Why it could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LexError {
    /// The sentence.
    pub message: String,
    /// As in [`Lexed`], up to the mistake.
    pub named: BTreeMap<String, bool>,
    pub(crate) cost: usize,
}

impl Lexer {
    /// The everyday one: quotes and escapes are read and taken away, what is not set is empty.
    pub fn new(escape: char) -> Self {
        Self { escape, quotes: true, raw_quotes: false, raw_escapes: false, keep_unset: false }
    }

    /// Reads one text.
    ///
    /// # Errors
    /// See [`super::Expander::word`].
    pub fn lex(self, text: &str, value: &dyn Fn(&str) -> Option<String>) -> Result<Lexed, LexError> {
        let mut run = Run {
            mode: self,
            rest: text.chars().peekable(),
            value,
            named: BTreeMap::new(),
            depth: 0,
            cost: text.len(),
        };
        match run.until(None, self.raw_escapes) {
            Ok(read) => Ok(Lexed { text: read.text, words: read.words.done(), named: run.named, cost: run.cost }),
            Err(error) => {
                let shown: String = text.chars().take(200).collect();
                let more = if shown.len() < text.len() { "…" } else { "" };
                let shown = format!("{shown}{more}");
                Err(LexError {
                    message: format!("failed to process {shown:?}: {error}"),
                    named: run.named,
                    cost: run.cost,
                })
            }
        }
    }
}

#[derive(Default)]
struct Words {
    done: Vec<String>,
    word: String,
}

impl Words {
    fn letter(&mut self, letter: char) {
        if !letter.is_whitespace() {
            self.word.push(letter);
        } else if !self.word.is_empty() {
            self.done.push(std::mem::take(&mut self.word));
        }
    }

    fn done(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.done.push(self.word);
        }
        self.done
    }
}

#[derive(Default)]
struct Read {
    text: String,
    words: Words,
}

impl Read {
    /// Outside quotes.
    fn letter(&mut self, letter: char) {
        self.text.push(letter);
        self.words.letter(letter);
    }

    /// White space in it divides no words.
    fn whole(&mut self, text: &str) {
        self.text.push_str(text);
        self.words.word.push_str(text);
    }

    fn value(&mut self, text: &str) {
        self.text.push_str(text);
        text.chars().for_each(|letter| self.words.letter(letter));
    }
}

struct Run<'a> {
    mode: Lexer,
    rest: Peekable<Chars<'a>>,
    value: &'a dyn Fn(&str) -> Option<String>,
    named: BTreeMap<String, bool>,
    depth: u32,
    cost: usize,
}

impl Run<'_> {
    /// Reads up to `end`, which it takes, or to the end of the text.
    fn until(&mut self, end: Option<char>, raw_escapes: bool) -> Result<Read, String> {
        let mut read = Read::default();
        while let Some(letter) = self.rest.next() {
            if Some(letter) == end {
                return Ok(read);
            }
            match letter {
                '\'' if self.mode.quotes => read.whole(&self.single_quoted()?),
                '"' if self.mode.quotes => read.whole(&self.double_quoted()?),
                '$' => read.value(&self.variable()?),
                letter if letter == self.mode.escape => {
                    let mut kept = String::new();
                    if raw_escapes {
                        kept.push(letter);
                    }
                    kept.extend(self.rest.next());
                    read.whole(&kept);
                }
                letter => read.letter(letter),
            }
            if read.text.len() > LONGEST {
                return Err(format!("it comes to more than {LONGEST} bytes"));
            }
        }
        match end {
            Some(end) => Err(format!("unexpected end of statement while looking for matching {end}")),
            None => Ok(read),
        }
    }

    /// As [`Self::until`] within `${…}`, where the end of the text means a brace or slash without its partner.
    fn part(&mut self, end: char, raw_escapes: bool, missing: &str) -> Result<String, String> {
        self.until(Some(end), raw_escapes)
            .map(|read| read.text)
            .map_err(|error| if self.rest.peek().is_none() { missing.to_owned() } else { error })
    }

    fn single_quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        if self.mode.raw_quotes {
            out.push('\'');
        }
        loop {
            match self.rest.next() {
                Some('\'') => break,
                Some(letter) => out.push(letter),
                None => {
                    return Err("unexpected end of statement while looking for matching single-quote".to_owned());
                }
            }
        }
        if self.mode.raw_quotes {
            out.push('\'');
        }
        Ok(out)
    }

    fn double_quoted(&mut self) -> Result<String, String> {
        let mut out = String::new();
        if self.mode.raw_quotes {
            out.push('"');
        }
        loop {
            match self.rest.next() {
                Some('"') => break,
                Some('$') => out.push_str(&self.variable()?),
                Some(letter) if letter == self.mode.escape => {
                    let escaped = self.rest.next_if(|next| matches!(next, '"' | '$') || *next == letter);
                    if escaped.is_none() || self.mode.raw_escapes {
                        out.push(letter);
                    }
                    out.extend(escaped);
                }
                Some(letter) => out.push(letter),
                None => {
                    return Err("unexpected end of statement while looking for matching double-quote".to_owned());
                }
            }
            if out.len() > LONGEST {
                return Err(format!("it comes to more than {LONGEST} bytes"));
            }
        }
        if self.mode.raw_quotes {
            out.push('"');
        }
        Ok(out)
    }

    /// What follows a dollar sign. Nothing else makes a word longer than it is written.
    fn variable(&mut self) -> Result<String, String> {
        let out = match self.rest.next_if_eq(&'{') {
            Some(_) => self.braces()?,
            None => match self.name() {
                name if name.is_empty() => "$".to_owned(),
                name => match self.lookup(&name) {
                    None if self.mode.keep_unset => format!("${name}"),
                    value => value.unwrap_or_default(),
                },
            },
        };
        if out.len() > LONGEST {
            return Err(format!("it comes to more than {LONGEST} bytes"));
        }
        self.spend(out.len())?;
        Ok(out)
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = (self.value)(name);
        self.cost += value.as_ref().map_or(0, String::len);
        self.named.insert(name.to_owned(), value.is_some());
        value
    }

    fn spend(&mut self, steps: usize) -> Result<(), String> {
        self.cost = self.cost.saturating_add(steps);
        if self.cost > MOST_COST { Err("its variables and patterns take too long together".to_owned()) } else { Ok(()) }
    }

    fn braces(&mut self) -> Result<String, String> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(format!("substitutions are nested more than {DEEPEST} deep"));
        }
        match self.rest.peek() {
            None => return Err("syntax error: missing '}'".to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            _ => {}
        }
        let name = self.name();
        let out = match self.rest.next() {
            Some('}') => match self.lookup(&name) {
                None if self.mode.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            },
            Some(':') => match self.rest.next() {
                Some(operator @ ('-' | '+' | '?')) => self.default(&name, operator, true)?,
                operator => {
                    let operator = operator.unwrap_or('\u{fffd}');
                    if !matches!(operator, '#' | '%') {
                        // As far as BuildKit reads before it finds out.
                        self.part('}', false, "syntax error: missing '}'")?;
                        self.lookup(&name);
                    }
                    return Err(format!("unsupported modifier (:{operator}) in substitution"));
                }
            },
            Some(operator @ ('-' | '+' | '?')) => self.default(&name, operator, false)?,
            Some(side @ ('#' | '%')) => {
                let word = self.part('}', true, "syntax error: missing '}'")?;
                match self.lookup(&name) {
                    None if self.mode.keep_unset => format!("${{{name}{side}{word}}}"),
                    value => {
                        let pattern = word.strip_prefix(side);
                        let longest = pattern.is_some();
                        let pattern = pattern.unwrap_or(&word);
                        let value = value.unwrap_or_default();
                        self.spend(value.len().saturating_mul(pattern.len()))?;
                        match side {
                            '#' => pattern::without_prefix(&value, pattern, longest)?,
                            _ => pattern::without_suffix(&value, pattern, longest)?,
                        }
                    }
                }
            }
            Some('/') => {
                let all = self.rest.next_if_eq(&'/').is_some();
                let pattern = self.part('/', true, "syntax error: missing '/' in ${}")?;
                let with = self.part('}', true, "syntax error: missing '}'")?;
                match self.lookup(&name) {
                    None if self.mode.keep_unset => format!("${{{name}/{pattern}/{with}}}"),
                    value => {
                        let mut out = String::new();
                        let value = value.unwrap_or_default();
                        self.spend(value.len().saturating_mul(pattern.len()))?;
                        pattern::replace(&value, &pattern, &with, all, LONGEST, &mut out)?;
                        out
                    }
                }
            }
            other => {
                let other = other.unwrap_or('\u{fffd}');
                return Err(format!("unsupported modifier ({other}) in substitution"));
            }
        };
        self.depth -= 1;
        Ok(out)
    }

    /// `-`, `+` and `?`. With a colon an empty value counts as none.
    fn default(&mut self, name: &str, operator: char, colon: bool) -> Result<String, String> {
        let word = self.part('}', false, "syntax error: missing '}'")?;
        let value = self.lookup(name);
        if value.is_none() && self.mode.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let state = match &value {
            None => Some("is not allowed to be unset"),
            Some(value) if colon && value.is_empty() => Some("is not allowed to be empty"),
            Some(_) => None,
        };
        match (operator, state) {
            ('+', None) | ('-', Some(_)) => Ok(word),
            ('+', Some(_)) => Ok(String::new()),
            ('?', Some(reason)) => Err(format!("{name}: {}", if word.is_empty() { reason } else { &word })),
            _ => Ok(value.unwrap_or_default()),
        }
    }

    /// A name, a number, or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.rest.peek() {
            Some(first) if first.is_numeric() => {
                while let Some(digit) = self.rest.next_if(|letter| letter.is_numeric()) {
                    name.push(digit);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.rest.next()),
            _ => {
                while let Some(letter) = self.rest.next_if(|letter| letter.is_alphanumeric() || *letter == '_') {
                    name.push(letter);
                }
            }
        }
        name
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
