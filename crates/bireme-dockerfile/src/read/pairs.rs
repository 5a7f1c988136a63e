//! ENV, LABEL and ARG: names and values.

use crate::error::ParseError;
use crate::instruction::{Instruction, is_separator};
use crate::keyword::Keyword;
use crate::words::{Expander, split};

/// One pair of ENV or LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Never empty as it is written.
    pub name: String,
    /// What follows the sign.
    pub value: String,
    /// In the old form: `NAME VALUE`, white space between them.
    pub legacy: bool,
}

/// One of the names that ARG declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// As it is written.
    pub name: String,
    /// What it is when the build gives no value. [`Expander::word`] expands it, and only then.
    pub default: Option<String>,
    /// What a comment of the form `# NAME text` right before the instruction says of it.
    pub description: Option<String>,
}

/// The pairs of ENV or LABEL, as written.
///
/// # Errors
/// When there are none, or they are not of either form.
pub fn pairs(at: &Instruction) -> Result<Vec<Pair>, ParseError> {
    let pairs = pairs_form(at)?;
    if pairs.is_empty() {
        return Err(at.fault(format!("{} requires at least one argument", at.keyword)));
    }
    if pairs.iter().any(|pair| pair.name.is_empty()) {
        return Err(at.fault(format!("{} names can not be blank", at.keyword)));
    }
    Ok(pairs)
}

/// The pairs of ENV or LABEL. In both, variables are expanded in names too.
///
/// # Errors
/// As [`pairs`], and when a word cannot be expanded.
pub fn expand_pairs(at: &Instruction, expander: &mut Expander<'_>) -> Result<Vec<(String, String)>, ParseError> {
    let mut word = |word: &str| expander.word(word).map_err(|reason| at.fault(reason));
    pairs(at)?.iter().map(|pair| Ok((word(&pair.name)?, word(&pair.value)?))).collect()
}

/// What BuildKit looks at before it understands anything.
pub(crate) fn pairs_form(at: &Instruction) -> Result<Vec<Pair>, ParseError> {
    let name = if at.keyword == Keyword::Label { "LABEL" } else { "ENV" };
    let words = split(&at.rest, at.escape);
    if words.first().is_some_and(|first| !first.contains('=')) {
        let Some((key, value)) = at.rest.split_once(is_separator) else {
            return Err(at.fault(format!("{name} must have two arguments")));
        };
        let value = value.trim_start_matches(is_separator).to_owned();
        return Ok(vec![Pair { name: key.to_owned(), value, legacy: true }]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some((name, value)) => Ok(Pair { name: name.to_owned(), value: value.to_owned(), legacy: false }),
            None => Err(at.fault(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value"))),
        })
        .collect()
}

/// The names that ARG declares.
///
/// # Errors
/// When there are none, or an empty one.
pub fn arguments(at: &Instruction) -> Result<Vec<Argument>, ParseError> {
    let words = split(&at.rest, at.escape);
    if words.is_empty() {
        return Err(at.fault("ARG requires at least one argument"));
    }
    words
        .into_iter()
        .map(|word| {
            let (name, default) = match word.split_once('=') {
                Some(("", _)) => return Err(at.fault("ARG names can not be blank")),
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word, None),
            };
            let description = crate::comment::described(&at.comments, &name);
            Ok(Argument { name, default, description })
        })
        .collect()
}
