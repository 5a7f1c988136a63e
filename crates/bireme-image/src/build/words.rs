//! Words of an instruction: quotes, escapes and variables.
//!
//! Source: github.com/moby/buildkit, `frontend/dockerfile/shell/lex.go`.

/// Bytes that one word may come to. A kernel takes 128 KiB in one argument or variable.
const LONGEST: usize = 1 << 20;

/// Reads one word: takes quotes and escapes away and puts the values of variables in.
///
/// `value` answers a variable's value. Errors complete the sentence "… in WORD".
pub(super) fn expand(word: &str, escape: char, value: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut lexer = Lexer { rest: word.chars().peekable(), escape, value, depth: 0 };
    lexer.until(None).map_err(|error| {
        let mut shown: String = word.chars().take(200).collect();
        if shown.len() < word.len() {
            shown.push('…');
        }
        format!("failed to process \"{shown}\": {error}")
    })
}

/// Splits at white space outside quotes; quotes and escapes stay.
pub(super) fn split(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match quote {
            None if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if letter == '\'' || letter == '"' => quote = Some(letter),
            Some(open) if open == letter => quote = None,
            _ => {}
        }
        word.push(letter);
        if letter == escape && quote != Some('\'') {
            word.extend(letters.next());
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

struct Lexer<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    escape: char,
    value: &'a dyn Fn(&str) -> Option<String>,
    /// Of braces within braces.
    depth: u32,
}

impl Lexer<'_> {
    /// Reads up to `end`, which it takes, or to the end of the word.
    fn until(&mut self, end: Option<char>) -> Result<String, String> {
        self.read(end, false)
    }

    /// As [`Self::until`], with the escapes left in: a pattern has a use for them.
    fn until_raw(&mut self, end: char) -> Result<String, String> {
        self.read(Some(end), true)
    }

    fn read(&mut self, end: Option<char>, raw: bool) -> Result<String, String> {
        let mut out = String::new();
        while let Some(letter) = self.rest.next() {
            if Some(letter) == end {
                return Ok(out);
            }
            match letter {
                '\'' => loop {
                    match self.rest.next() {
                        Some('\'') => break,
                        Some(letter) => out.push(letter),
                        None => {
                            return Err(
                                "unexpected end of statement while looking for matching single-quote".to_owned()
                            );
                        }
                    }
                },
                '"' => self.double_quoted(&mut out)?,
                '$' => self.variable(&mut out)?,
                letter if letter == self.escape => {
                    let next = self.rest.next();
                    if raw {
                        // Patterns know the backslash, whatever the file's escape is.
                        out.push('\\');
                    }
                    out.extend(next);
                }
                letter => out.push(letter),
            }
        }
        match end {
            Some(end) => Err(format!("unexpected end of statement while looking for \"{end}\"")),
            None => Ok(out),
        }
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.rest.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable(out)?,
                Some(letter) if letter == self.escape => match self.rest.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => out.push(next),
                    Some(next) => out.extend([letter, next]),
                    None => out.push(letter),
                },
                Some(letter) => out.push(letter),
                None => return Err("unexpected end of statement while looking for matching double-quote".to_owned()),
            }
        }
    }

    /// What follows a dollar sign. Nothing else makes a word longer than it is written.
    fn variable(&mut self, out: &mut String) -> Result<(), String> {
        self.put_in(out)?;
        if out.len() > LONGEST {
            return Err(format!("it comes to more than {LONGEST} bytes"));
        }
        Ok(())
    }

    fn put_in(&mut self, out: &mut String) -> Result<(), String> {
        match self.rest.peek() {
            Some('{') => {
                self.rest.next();
                self.braces(out)
            }
            Some(first) if is_name(*first) => {
                let name = self.name();
                out.push_str(&(self.value)(&name).unwrap_or_default());
                Ok(())
            }
            _ => {
                out.push('$');
                Ok(())
            }
        }
    }

    fn braces(&mut self, out: &mut String) -> Result<(), String> {
        self.depth += 1;
        if self.depth > 32 {
            return Err("substitutions are nested too deeply".to_owned());
        }
        let name = self.name();
        if name.is_empty() {
            return Err("bad substitution".to_owned());
        }
        let value = (self.value)(&name);
        match self.rest.next() {
            Some('}') => out.push_str(&value.unwrap_or_default()),
            Some(first @ (':' | '-' | '+' | '?')) => {
                // With a colon an empty value counts as none.
                let (operator, set) = if first == ':' {
                    (self.rest.next(), value.as_deref().is_some_and(|value| !value.is_empty()))
                } else {
                    (Some(first), value.is_some())
                };
                let word = self.until(Some('}'))?;
                match operator {
                    Some('-') if set => out.push_str(&value.unwrap_or_default()),
                    Some('-') => out.push_str(&word),
                    Some('+') if set => out.push_str(&word),
                    Some('+') => {}
                    Some('?') if set => out.push_str(&value.unwrap_or_default()),
                    Some('?') if word.is_empty() => return Err(format!("{name}: is not allowed to be unset")),
                    Some('?') => return Err(format!("{name}: {word}")),
                    other => {
                        let other = other.map(String::from).unwrap_or_default();
                        return Err(format!("unsupported modifier ({other}) in substitution"));
                    }
                }
            }
            Some(side @ ('#' | '%')) => {
                let longest = self.rest.next_if_eq(&side).is_some();
                let pattern = self.until_raw('}')?;
                let value = value.unwrap_or_default();
                out.push_str(&match side {
                    '#' => super::substitution::without_prefix(&value, &pattern, longest)?,
                    _ => super::substitution::without_suffix(&value, &pattern, longest)?,
                });
            }
            Some('/') => {
                let all = self.rest.next_if_eq(&'/').is_some();
                let pattern = self.until_raw('/')?;
                let with = self.until_raw('}')?;
                super::substitution::replace(&value.unwrap_or_default(), &pattern, &with, all, LONGEST, out)?;
            }
            Some(other) => return Err(format!("unsupported modifier ({other}) in substitution")),
            None => return Err("missing \"}\"".to_owned()),
        }
        self.depth -= 1;
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(letter) = self.rest.next_if(|letter| is_name(*letter)) {
            name.push(letter);
        }
        name
    }
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(name: &str) -> Option<String> {
        match name {
            "a" => Some("1".to_owned()),
            "path" => Some("a/b/a.tar.gz".to_owned()),
            "empty" => Some(String::new()),
            _ => None,
        }
    }

    #[test]
    fn expands_as_docker_does() {
        for (word, expected) in [
            ("x$a", "x1"),
            ("${a}x", "1x"),
            ("$none.", "."),
            ("\\$a", "$a"),
            ("'$a'", "$a"),
            ("\"$a b\"", "1 b"),
            ("\"\\x\\\"\"", "\\x\""),
            ("${none:-two}", "two"),
            ("${empty:-two}", "two"),
            ("${empty-two}", ""),
            ("${a:+set}", "set"),
            ("${empty:+set}", ""),
            ("${empty+set}", "set"),
            ("${none:-${a}}", "1"),
            ("100$", "100$"),
            ("$$a", "$1"),
            ("${path#*/}", "b/a.tar.gz"),
            ("${path##*/}", "a.tar.gz"),
            ("${path%.*}", "a/b/a.tar"),
            ("${path%%.*}", "a/b/a"),
            ("${path#x}", "a/b/a.tar.gz"),
            ("${path%.?z}", "a/b/a.tar"),
            ("${path/a/x}", "x/b/a.tar.gz"),
            ("${path//a/x}", "x/b/x.txr.gz"),
            ("${path//\\//-}", "a-b-a.tar.gz"),
            ("${path/${none:-b}/$a}", "a/1/a.tar.gz"),
            ("${path//./}", "a/b/atargz"),
            ("${path/n*/x}", "a/b/a.tar.gz"),
            ("${path#\\*}", "a/b/a.tar.gz"),
            ("${none#x}", ""),
        ] {
            assert_eq!(expand(word, '\\', &value).as_deref(), Ok(expected), "{word}");
        }
        for bad in ["'x", "\"x", "${a", "${}", "${a^x}", "${a/x}", "${a%x", "${none:?must be set}"] {
            assert!(expand(bad, '\\', &value).is_err(), "{bad}");
        }
        let long = |_: &str| Some("x".repeat(600_000));
        assert!(expand("${a//x/yy}", '\\', &long).unwrap_err().ends_with("it comes to more than 1048576 bytes"));
        for word in ["$a$a", "\"$a$a\"", "${b:-$a$a}"] {
            let error = expand(word, '\\', &|name| if name == "b" { None } else { long(name) }).unwrap_err();
            assert!(error.ends_with("it comes to more than 1048576 bytes"), "{error}");
        }
        assert_eq!(split("a='x y' b=\"1 2\" c=\\ d", '\\'), ["a='x y'", "b=\"1 2\"", "c=\\ d"]);
    }

    proptest! {
        #[test]
        fn never_panics(word in "[$\\{\\}a:'\"\\\\+?#%/*x -]{0,40}|\\PC{0,40}") {
            let _ = expand(&word, '\\', &value);
            let _ = split(&word, '`');
        }
    }
}
