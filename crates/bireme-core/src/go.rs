//! Words as Go's standard library reads and writes them, and with it Docker, BuildKit and their clients.

use std::fmt::Write as _;

/// `true` and `false` in each way that Go's `strconv.ParseBool` takes; `None` for any other text.
pub fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A text as a part of a query, as Go's `url.QueryEscape` writes it: a space becomes `+`.
pub fn query_escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            b' ' => escaped.push('+'),
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

/// A text between quotes, as Go's `strconv.Quote` writes it (`%q`).
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            _ if letter.is_ascii_control() => drop(write!(quoted, "\\x{:02x}", u32::from(letter))),
            _ if letter.is_control() => drop(write!(quoted, "\\u{:04x}", u32::from(letter))),
            _ => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_those_of_go() {
        for (text, expected) in [
            ("plain ü", "\"plain ü\""),
            ("a \"b\" \\", "\"a \\\"b\\\" \\\\\""),
            ("\n\t\x01\x7f\u{85}", "\"\\n\\t\\x01\\x7f\\u0085\""),
        ] {
            assert_eq!(quote(text), expected);
        }
    }

    #[test]
    fn escapes_are_those_of_a_query() {
        assert_eq!(query_escape("a b/ü~"), "a+b%2F%C3%BC~");
    }

    #[test]
    fn words_for_true_and_false_are_those_of_go() {
        assert_eq!(["1", "t", "True"].map(parse_bool), [Some(true); 3]);
        assert_eq!(["0", "F", "false"].map(parse_bool), [Some(false); 3]);
        assert_eq!(["", "yes", "tRUE"].map(parse_bool), [None; 3]);
    }
}
