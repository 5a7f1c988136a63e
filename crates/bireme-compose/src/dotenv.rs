//! `.env` and `env_file` files, as Compose reads them.

use std::collections::BTreeMap;

use crate::interpolate::{MAX_TOTAL, Refusal, interpolate};

/// Reads `text`. A value may use variables: first those that `outer` knows, then those of the lines before.
/// A name without `=` that `outer` does not know is not set; `unset` is told of variables in values that nobody knows.
///
/// # Errors
/// The line and what is wrong with it.
pub(crate) fn parse(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut rest = text.trim_start_matches('\u{feff}');
    let mut line = 1;
    let mut made = 0;
    while !rest.is_empty() {
        let end = rest.find('\n').unwrap_or(rest.len());
        let current = rest[..end].trim();
        if current.is_empty() || current.starts_with('#') {
            rest = rest.get(end + 1..).unwrap_or("");
            line += 1;
            continue;
        }
        let body = rest.trim_start();
        let body = body.strip_prefix("export ").map_or(body, str::trim_start);
        let name_end = body.find(['=', ':', '\n']).unwrap_or(body.len());
        let name = body[..name_end].trim();
        if name.is_empty() || name.contains(|c: char| !c.is_alphanumeric() && !matches!(c, '_' | '.' | '-' | '[' | ']'))
        {
            return Err((line, format!("{name:?} is not a variable name; write NAME=value")));
        }
        if !body[name_end..].starts_with(['=', ':']) {
            // A bare name passes on what the surroundings have.
            if let Some(value) = outer(name) {
                found.insert(name.to_owned(), value);
            }
            rest = body[name_end..].strip_prefix('\n').unwrap_or("");
            line += 1;
            continue;
        }
        let raw = body[name_end + 1..].trim_start_matches([' ', '\t', '\r']);
        let (value, literal, after) = match raw.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let end = closing_quote(&raw[1..], quote)
                    .ok_or_else(|| (line, format!("the value of {name} begins with {quote} and has no closing one")))?;
                let inside = &raw[1..=end];
                let value = if quote == '"' { unescape(inside) } else { inside.to_owned() };
                (value, quote == '\'', &raw[end + 2..])
            }
            _ => {
                let end = raw.find('\n').unwrap_or(raw.len());
                let value = &raw[..end];
                let comment =
                    value.find(" #").or_else(|| value.find("\t#")).or_else(|| value.starts_with('#').then_some(0));
                (value[..comment.unwrap_or(value.len())].trim().to_owned(), false, &raw[end..])
            }
        };
        let value = if literal {
            value
        } else {
            let lookup = |name: &str| outer(name).or_else(|| found.get(name).cloned());
            interpolate(&value, &lookup, unset).map_err(|refusal| match refusal {
                Refusal::Malformed(reason) => (line, format!("the value of {name}: {reason}")),
                Refusal::Required { variable, message } => {
                    (line, format!("the value of {name} needs {variable}: {message}"))
                }
            })?
        };
        made += value.len();
        if made > MAX_TOTAL {
            return Err((
                line,
                format!("brings what variables make above {MAX_TOTAL} bytes; use fewer or shorter ones"),
            ));
        }
        found.insert(name.to_owned(), value);
        let end = after.find('\n').map_or(after.len(), |at| at + 1);
        let junk = after[..end].trim();
        if !junk.is_empty() && !junk.starts_with('#') {
            return Err((line, format!("{junk:?} follows the closing quote of {name}; remove it")));
        }
        let next = &after[end..];
        line += rest[..rest.len() - next.len()].matches('\n').count();
        rest = next;
    }
    Ok(found)
}

/// `format: raw`: every line is `NAME=value`, taken as it stands, or a name whose value `outer` knows.
///
/// # Errors
/// The line and what is wrong with it.
pub(crate) fn parse_raw(
    text: &str,
    outer: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut found = BTreeMap::new();
    for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once('=').map_or((line, None), |(name, value)| (name, Some(value)));
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err((at + 1, format!("{name:?} is not a variable name; write NAME=value")));
        }
        if let Some(value) = value.map(str::to_owned).or_else(|| outer(name)) {
            found.insert(name.to_owned(), value);
        }
    }
    Ok(found)
}

fn closing_quote(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            // A dollar that was escaped stays one after interpolation.
            Some('$') => out.push_str("$$"),
            Some(c @ ('"' | '\\' | '\'')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, (usize, String)> {
        let outer = |name: &str| (name == "OUTER").then(|| "outer".to_owned());
        parse(text, &outer, &mut |_| {}).map(|map| map.into_iter().collect())
    }

    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        assert_eq!(read(text), Ok(expected), "{text}");
    }

    #[test]
    fn every_form_of_a_line() {
        check("A=1\n# no\n\nexport B = two words # not this\nC=\n", &[("A", "1"), ("B", "two words"), ("C", "")]);
        check("A='$B \"x\"'\nB=\"a\\nb $OUTER \\$x\"", &[("A", "$B \"x\""), ("B", "a\nb outer $x")]);
        check("A=x\nB=${A}y\nC=${NO:-z}\nOUTER\nNO\n", &[("A", "x"), ("B", "xy"), ("C", "z"), ("OUTER", "outer")]);
        check("A: yaml\nB=\"two\nlines\"\nC=a#b\r\n", &[("A", "yaml"), ("B", "two\nlines"), ("C", "a#b")]);
        assert_eq!(read("A=1\n=x\n").map_err(|e| e.0), Err(2));
        assert_eq!(read("A=\"x\n").map_err(|e| e.0), Err(1));
        let outer = |name: &str| (name == "OUTER").then(|| "outer".to_owned());
        let raw = parse_raw("A='$x'\n#c\n  B=a=b\nOUTER\nNO\n", &outer);
        let expected = [("A", "'$x'"), ("B", "a=b"), ("OUTER", "outer")];
        assert_eq!(raw, Ok(expected.into_iter().map(|(name, value)| (name.into(), value.into())).collect()));
        assert_eq!(parse_raw("A=1\nB C=2", &outer).map_err(|error| error.0), Err(2));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[A-C='\"$\\\\#{} \\n:é]{0,60}") {
            let _ = read(&text);
        }
    }
}
