//! JSON bodies, refused in the words of Docker's engine.
//!
//! Clients, and suites that try an engine, look for the sentences of Go's decoder: which character stands where none may.
//!
//! Source: `httputils.ReadJSON` of moby; the scanner of Go's `encoding/json`.

use serde::de::DeserializeOwned;

/// Reads the one value that `body` is to hold. The error is the end of Docker's sentence.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let end = match scan(body) {
        Ok(end) => end,
        Err(reason) => return Err(format!("invalid JSON: {reason}")),
    };
    // What closes something is not looked at by Go's decoder.
    if body[end..].iter().any(|byte| !SPACE.contains(byte) && !matches!(byte, b'}' | b']')) {
        return Err("unexpected content after JSON".to_owned());
    }
    serde_json::from_slice(&body[..end]).map_err(|error| format!("invalid JSON: {error}"))
}

const SPACE: [u8; 4] = [b' ', b'\t', b'\r', b'\n'];

/// Values within values, as Go has it.
const DEEPEST: usize = 10_000;

/// Where the first value of `body` ends.
fn scan(body: &[u8]) -> Result<usize, String> {
    let mut scanner = Scanner { body, at: 0 };
    // What is open: true for an object.
    let mut open: Vec<bool> = Vec::new();
    loop {
        // A value begins here.
        let byte = scanner.next()?;
        match byte {
            b'{' | b'[' => {
                if open.len() == DEEPEST {
                    return Err("exceeded max depth".to_owned());
                }
                let object = byte == b'{';
                let close = if object { b'}' } else { b']' };
                if scanner.peek()? == close {
                    scanner.next()?;
                } else {
                    open.push(object);
                    if object {
                        scanner.key("looking for beginning of object key string")?;
                    }
                    continue;
                }
            }
            b'"' => scanner.string()?,
            b't' => scanner.word("true")?,
            b'f' => scanner.word("false")?,
            b'n' => scanner.word("null")?,
            b'-' | b'0'..=b'9' => scanner.number(byte)?,
            other => return Err(invalid(other, "looking for beginning of value")),
        }
        // A value has ended: close what ends with it.
        loop {
            let Some(object) = open.last().copied() else { return Ok(scanner.at) };
            match (scanner.next()?, object) {
                (b',', true) => {
                    scanner.key("looking for beginning of object key string")?;
                    break;
                }
                (b',', false) => break,
                (b'}', true) | (b']', false) => drop(open.pop()),
                (other, true) => return Err(invalid(other, "after object key:value pair")),
                (other, false) => return Err(invalid(other, "after array element")),
            }
        }
    }
}

struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let byte = self.body.get(self.at).copied().ok_or("unexpected EOF")?;
        self.at += 1;
        Ok(byte)
    }

    fn peek(&mut self) -> Result<u8, String> {
        while self.body.get(self.at).is_some_and(|byte| SPACE.contains(byte)) {
            self.at += 1;
        }
        self.body.get(self.at).copied().ok_or_else(|| "unexpected EOF".to_owned())
    }

    /// The next byte that is no space.
    fn next(&mut self) -> Result<u8, String> {
        self.peek()?;
        self.byte()
    }

    /// A key and its colon.
    fn key(&mut self, place: &str) -> Result<(), String> {
        match self.next()? {
            b'"' => self.string()?,
            other => return Err(invalid(other, place)),
        }
        match self.next()? {
            b':' => Ok(()),
            other => Err(invalid(other, "after object key")),
        }
    }

    /// The rest of a string.
    fn string(&mut self) -> Result<(), String> {
        loop {
            match self.byte()? {
                b'"' => return Ok(()),
                b'\\' => match self.byte()? {
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    b'u' => {
                        for _ in 0..4 {
                            let digit = self.byte()?;
                            if !digit.is_ascii_hexdigit() {
                                return Err(invalid(digit, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    other => return Err(invalid(other, "in string escape code")),
                },
                control @ 0..0x20 => return Err(invalid(control, "in string literal")),
                _ => {}
            }
        }
    }

    /// The rest of `true`, `false` or `null`.
    fn word(&mut self, word: &str) -> Result<(), String> {
        for expected in word.chars().skip(1) {
            let byte = self.byte()?;
            if char::from(byte) != expected {
                return Err(invalid(byte, &format!("in literal {word} (expecting {})", quoted(expected))));
            }
        }
        Ok(())
    }

    /// The rest of a number. One that ends with the body is whole.
    fn number(&mut self, first: u8) -> Result<(), String> {
        let mut digit = first;
        if digit == b'-' {
            digit = self.byte()?;
            if !digit.is_ascii_digit() {
                return Err(invalid(digit, "in numeric literal"));
            }
        }
        if digit != b'0' {
            self.digits();
        }
        if self.body.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.one_digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.body.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.body.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.one_digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn one_digit(&mut self, place: &str) -> Result<(), String> {
        match self.byte()? {
            b'0'..=b'9' => Ok(()),
            other => Err(invalid(other, place)),
        }
    }

    fn digits(&mut self) {
        while self.body.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }
}

fn invalid(byte: u8, place: &str) -> String {
    format!("invalid character {} {place}", quoted(char::from(byte)))
}

/// A character as Go quotes it.
fn quoted(c: char) -> String {
    match c {
        '\'' => "'\\''".to_owned(),
        '\n' => "'\\n'".to_owned(),
        '\r' => "'\\r'".to_owned(),
        '\t' => "'\\t'".to_owned(),
        '\\' => "'\\\\'".to_owned(),
        c if c.is_control() => format!("'\\x{:02x}'", u32::from(c)),
        c => format!("'{c}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    #[test]
    fn refusals_are_gos() {
        for (body, words) in [
            ("{invalid json", "invalid JSON: invalid character 'i' looking for beginning of object key string"),
            ("{} trailing content", "unexpected content after JSON"),
            (r#"[{"trailing"#, "invalid JSON: unexpected EOF"),
            (r#"{"a" 1}"#, "invalid JSON: invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid JSON: invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid JSON: invalid character '2' after array element"),
            ("[1,]", "invalid JSON: invalid character ']' looking for beginning of value"),
            (r#"{"a":1,}"#, "invalid JSON: invalid character '}' looking for beginning of object key string"),
            ("nul", "invalid JSON: unexpected EOF"),
            ("nulx", "invalid JSON: invalid character 'x' in literal null (expecting 'l')"),
            ("1.x", "invalid JSON: invalid character 'x' after decimal point in numeric literal"),
            ("1 1", "unexpected content after JSON"),
            ("\"\\x\"", "invalid JSON: invalid character 'x' in string escape code"),
            ("\"\n\"", "invalid JSON: invalid character '\\n' in string literal"),
            ("'", "invalid JSON: invalid character '\\'' looking for beginning of value"),
        ] {
            assert_eq!(read::<Value>(body.as_bytes()).unwrap_err(), words, "{body}");
        }
        assert_eq!(read::<Value>(b" {\"a\": [1, {}]} \n").unwrap(), serde_json::json!({ "a": [1, {}] }));
        // As Go, which looks for more values alone.
        assert_eq!(read::<Value>(b"{}}").unwrap(), serde_json::json!({}));
    }

    #[test]
    fn what_is_deep_is_refused_and_does_not_end_the_daemon() {
        let deep = "[".repeat(1 << 20);
        assert_eq!(read::<Value>(deep.as_bytes()).unwrap_err(), "invalid JSON: exceeded max depth");
        let less = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(read::<Value>(less.as_bytes()).unwrap_err().contains("recursion limit"));
    }

    proptest! {
        #[test]
        fn it_agrees_with_the_decoder(body in r#"[\[\]{}:,"a01.e\-\\ tn]{0,30}"#) {
            let ours = scan(body.as_bytes()).is_ok_and(|end| body[end..].trim().is_empty());
            let known = serde_json::from_str::<Value>(&body);
            // A number that is too large is well-formed all the same.
            let theirs = known.is_ok() || known.is_err_and(|error| error.to_string().contains("out of range"));
            prop_assert_eq!(ours, theirs);
        }
    }
}
