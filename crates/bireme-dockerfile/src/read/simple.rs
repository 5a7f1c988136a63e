//! MAINTAINER, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME and WORKDIR.

use crate::error::ParseError;
use crate::instruction::Instruction;
use crate::keyword::Keyword;
use crate::words::{Expander, Lexer};

/// The one argument of MAINTAINER, STOPSIGNAL, USER and WORKDIR, as written; white space counts in it. Of the last three it is
/// expanded by [`Expander::word`].
///
/// # Errors
/// When there is none.
pub fn single(at: &Instruction) -> Result<&str, ParseError> {
    if at.rest.is_empty() {
        return Err(at.fault(format!("{} requires exactly one argument", at.keyword)));
    }
    Ok(&at.rest)
}

/// The paths of VOLUME, as written.
///
/// # Errors
/// When there is none, or an empty one.
pub fn volumes(at: &Instruction) -> Result<Vec<String>, ParseError> {
    let words: Vec<String> = at.arguments().iter().map(|word| word.trim().to_owned()).collect();
    if words.is_empty() {
        return Err(at.fault("VOLUME requires at least one argument"));
    }
    at.check_flags()?;
    not_empty(at, words)
}

/// The paths of VOLUME.
///
/// # Errors
/// As [`volumes`], and when a word cannot be expanded.
pub fn expand_volumes(at: &Instruction, expander: &mut Expander<'_>) -> Result<Vec<String>, ParseError> {
    let words = volumes(at)?.into_iter().map(|word| expander.word(&word).map_err(|reason| at.fault(reason)));
    not_empty(at, words.collect::<Result<_, _>>()?)
}

fn not_empty(at: &Instruction, words: Vec<String>) -> Result<Vec<String>, ParseError> {
    if words.iter().any(String::is_empty) {
        return Err(at.fault("VOLUME specified can not be an empty string"));
    }
    Ok(words)
}

/// The words of SHELL.
///
/// # Errors
/// When they are no JSON array with something in it.
pub fn shell(at: &Instruction) -> Result<Vec<String>, ParseError> {
    at.check_flags()?;
    match &at.json {
        Some(words) if !words.is_empty() => Ok(words.clone()),
        None if !at.rest.is_empty() => Err(at.fault("SHELL requires the arguments to be in JSON form")),
        _ => Err(at.fault("SHELL requires at least one argument")),
    }
}

/// What ONBUILD leaves to images built from this one: an instruction, with the lines of its heredocs. Such a trigger is read
/// by [`Instruction::parse`] when it is pulled; till then it may be wrong.
///
/// # Errors
/// When there is none, or one that cannot be a trigger.
pub fn onbuild(at: &Instruction) -> Result<String, ParseError> {
    let trigger = at.rest.split(crate::instruction::is_separator).next().unwrap_or_default().to_uppercase();
    if trigger.is_empty() {
        return Err(at.fault("ONBUILD requires at least one argument"));
    }
    at.check_flags()?;
    match trigger.as_str() {
        "ONBUILD" => return Err(at.fault("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        "MAINTAINER" | "FROM" => return Err(at.fault(format!("{trigger} isn't allowed as an ONBUILD trigger"))),
        _ => {}
    }
    let mut expression = at.rest.clone();
    for heredoc in &at.heredocs {
        expression.push('\n');
        expression.push_str(&heredoc.content);
        expression.push_str(&heredoc.name);
    }
    Ok(expression)
}

/// An instruction as progress shows it: on one line, its word in upper case, with the values of variables in. Of RUN, quotes
/// stay and so do variables that are not set, which its shell may know.
pub fn shown(at: &Instruction, value: &dyn Fn(&str) -> Option<String>) -> String {
    let plain = Lexer::new(at.escape);
    let lexer = match at.keyword {
        Keyword::Run => Lexer { raw_quotes: true, keep_unset: true, ..plain },
        _ => plain,
    };
    let text = format!("{}{}", at.keyword, &at.text[at.written.len()..]);
    match lexer.lex(&text, value) {
        Ok(read) => read.text,
        Err(_) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_shows_values() {
        let value = |name: &str| (name == "a").then(|| "foo".to_owned());
        for (text, expected) in [
            ("WORKDIR /x/$a", "WORKDIR /x/foo"),
            ("copy --chown=1:1 \"$a\" 'bar' ${none} /t/", "COPY --chown=1:1 foo bar  /t/"),
            (
                "RUN --mount=type=cache,target=/c/$a echo \"$a $none\" 'x' \\$a",
                "RUN --mount=type=cache,target=/c/foo echo \"foo $none\" 'x' $a",
            ),
            ("RUN [\"echo\", \"OUT $a\"]", "RUN [\"echo\", \"OUT foo\"]"),
            ("RUN echo 'it is", "RUN echo 'it is"),
        ] {
            assert_eq!(shown(&Instruction::parse(text, '\\').unwrap(), &value), expected, "{text}");
        }
    }
}
