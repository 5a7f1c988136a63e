//! `$VAR`, `${VAR:-default}` and the rest of the Compose specification's interpolation.

use crate::error::ComposeError;
use crate::yaml::{Node, Value};

const MAX_NESTING: usize = 32;
/// Longest text that variables may make, in bytes; variables can use variables and double with every step.
const MAX_LENGTH: usize = 1 << 20;
/// Most bytes that all texts of a project may have once they are interpolated.
pub(crate) const MAX_TOTAL: usize = 64 << 20;

/// Why a text could not be interpolated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Malformed(String),
    Required { variable: String, message: String },
}

/// Interpolates `text`. `lookup` answers what a variable holds; `unset` is told of every one that was used without a
/// default and is not set (it stands for nothing).
pub(crate) fn interpolate(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
) -> Result<String, Refusal> {
    expand(text, lookup, unset, 0)
}

fn expand(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
    depth: usize,
) -> Result<String, Refusal> {
    if depth > MAX_NESTING {
        return Err(Refusal::Malformed("variables are nested more than 32 deep".to_owned()));
    }
    let malformed = |at: &str| {
        let shown: String = at.chars().take(40).collect();
        Refusal::Malformed(format!(
            "{shown:?} is no variable: write $NAME, ${{NAME}} or ${{NAME:-default}}, and $$ for a dollar sign"
        ))
    };
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        if out.len() > MAX_LENGTH {
            return Err(Refusal::Malformed(
                "is longer than a mebibyte once its variables are filled in; shorten them".to_owned(),
            ));
        }
        out.push_str(&rest[..dollar]);
        let at = &rest[dollar..];
        let after = &at[1..];
        if let Some(next) = after.strip_prefix('$') {
            out.push('$');
            rest = next;
        } else if let Some(inner) = after.strip_prefix('{') {
            let end = closing(inner).ok_or_else(|| malformed(at))?;
            out.push_str(&braced(&inner[..end], lookup, unset, depth).map_err(|refusal| match refusal {
                Refusal::Malformed(reason) if reason.is_empty() => malformed(at),
                other => other,
            })?);
            rest = &inner[end + 1..];
        } else {
            let length = name_length(after);
            if length == 0 {
                // As with Compose, a dollar sign that begins nothing is one.
                out.push('$');
                rest = after;
                continue;
            }
            let name = &after[..length];
            out.push_str(&lookup(name).unwrap_or_else(|| {
                unset(name);
                String::new()
            }));
            rest = &after[length..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the brace that is already open closes.
fn closing(inner: &str) -> Option<usize> {
    let bytes = inner.as_bytes();
    let (mut depth, mut at) = (0usize, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                depth += 1;
                at += 1;
            }
            b'$' if bytes.get(at + 1) == Some(&b'$') => at += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
    None
}

fn name_length(text: &str) -> usize {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts {
        return 0;
    }
    text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// What stands between the braces. An empty `Malformed` leaves the words to the caller, who has the whole text.
fn braced(
    inner: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
    depth: usize,
) -> Result<String, Refusal> {
    let length = name_length(inner);
    let (name, rest) = inner.split_at(length);
    if length == 0 {
        return Err(Refusal::Malformed(String::new()));
    }
    let value = lookup(name);
    let filled = value.clone().filter(|value| !value.is_empty());
    let required = |found: Option<String>, message: &str, unset: &mut dyn FnMut(&str)| match found {
        Some(value) => Ok(value),
        None => {
            let message = expand(message, lookup, unset, depth + 1)?;
            let message = if message.is_empty() { "no message given".to_owned() } else { message };
            Err(Refusal::Required { variable: name.to_owned(), message })
        }
    };
    if rest.is_empty() {
        Ok(value.unwrap_or_else(|| {
            unset(name);
            String::new()
        }))
    } else if let Some(word) = rest.strip_prefix(":-") {
        filled.map_or_else(|| expand(word, lookup, unset, depth + 1), Ok)
    } else if let Some(word) = rest.strip_prefix('-') {
        value.map_or_else(|| expand(word, lookup, unset, depth + 1), Ok)
    } else if let Some(word) = rest.strip_prefix(":?") {
        required(filled, word, unset)
    } else if let Some(word) = rest.strip_prefix('?') {
        required(value, word, unset)
    } else if let Some(word) = rest.strip_prefix(":+") {
        filled.map_or_else(|| Ok(String::new()), |_| expand(word, lookup, unset, depth + 1))
    } else if let Some(word) = rest.strip_prefix('+') {
        value.map_or_else(|| Ok(String::new()), |_| expand(word, lookup, unset, depth + 1))
    } else {
        Err(Refusal::Malformed(String::new()))
    }
}

/// Interpolates every string value below `node`; keys stay as they are.
pub(crate) fn interpolate_node(
    node: &mut Node,
    key: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
    budget: &mut usize,
) -> Result<(), ComposeError> {
    let replaced = match &mut node.value {
        Value::Text(text) if text.contains('$') => Some(interpolate(text, lookup, unset)),
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                interpolate_node(item, &format!("{key}[{index}]"), lookup, unset, budget)?;
            }
            None
        }
        Value::Map(map) => {
            for (name, item) in map {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                interpolate_node(item, &key, lookup, unset, budget)?;
            }
            None
        }
        _ => None,
    };
    match replaced {
        None => {}
        Some(Ok(text)) => {
            *budget = budget.checked_sub(text.len()).ok_or_else(|| {
                node.invalid(key, "brings the project above 64 MiB of text once variables are filled in; shorten them")
            })?;
            node.value = Value::Text(text);
        }
        Some(Err(Refusal::Malformed(reason))) => return Err(node.invalid(key, reason)),
        Some(Err(Refusal::Required { variable, message })) => {
            return Err(ComposeError::Required { place: node.place(key), variable, message });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(text: &str) -> Result<String, Refusal> {
        let lookup = |name: &str| match name {
            "FULL" => Some("full".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        interpolate(text, &lookup, &mut |_| {})
    }

    #[test]
    fn every_form_of_the_specification() {
        for (text, expected) in [
            ("$FULL/${FULL}", "full/full"),
            ("${NO:-d}${NO-d}", "dd"),
            ("[${EMPTY:-d}${EMPTY-d}]", "[d]"),
            ("${FULL:+r}${FULL+r}", "rr"),
            ("[${EMPTY:+r}${EMPTY+r}]", "[r]"),
            ("[${NO+r}]", "[]"),
            ("${FULL?e}${EMPTY?e}${FULL:?e}", "fullfull"),
            ("${NO:-${ALSO:-${FULL}}}", "full"),
            ("${NO:-a}b}", "ab}"),
            ("$$FULL $${FULL}", "$FULL ${FULL}"),
            ("${NO:-$$x}", "$x"),
            ("$NO.", "."),
            ("a $ b $1 $", "a $ b $1 $"),
        ] {
            assert_eq!(with(text).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(
            with("${NO:?set $FULL}"),
            Err(Refusal::Required { variable: "NO".to_owned(), message: "set full".to_owned() })
        );
        for text in ["${", "${NO", "${}", "${1x}", "${NO!x}"] {
            assert!(matches!(with(text), Err(Refusal::Malformed(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_without_dollars_is_left_alone(text in "[^$]{0,40}") {
            prop_assert_eq!(with(&text), Ok(text));
        }

        #[test]
        fn doubling_every_dollar_gives_the_text_back(text in "\\PC{0,40}") {
            prop_assert_eq!(with(&text.replace('$', "$$")), Ok(text));
        }

        #[test]
        fn no_text_panics(text in "[$A-Z{}:?+\\-]{0,60}") {
            let _ = with(&text);
        }
    }
}
