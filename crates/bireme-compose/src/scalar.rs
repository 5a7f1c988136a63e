//! The small languages inside values: sizes, durations and command lines.

use std::time::Duration;

use bireme_core::size::{self, SizeError};

/// The most bytes: beyond 2^53 a JSON number no longer counts single ones, and no machine has that much.
const MOST_BYTES: i64 = 9_000_000_000_000_000;

/// Bytes as in [`size::parse_limit`], with a sentence that names the text.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    match size::parse_limit(text) {
        Ok(bytes) if bytes <= MOST_BYTES => Ok(bytes),
        Ok(_) | Err(SizeError::TooLarge) => Err(format!("{text:?} is more than any machine has")),
        Err(SizeError::Malformed) => Err(format!("{text:?} is not a size such as 512m, 1.5g or 1073741824")),
    }
}

/// A duration as Go writes it; zero is allowed, a negative one is not.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is not a duration such as 500ms, 30s or 1m30s");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos = 0f64;
    if rest.is_empty() {
        return Err(refuse());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
        let number: f64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..end] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            "d" => 86_400e9,
            "w" => 604_800e9,
            _ => return Err(refuse()),
        };
        nanos += number * scale;
        rest = &rest[end..];
    }
    if nanos > 9e18 {
        return Err(format!("{text:?} is longer than 290 years"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded and not negative")]
    Ok(Duration::from_nanos(nanos.round() as u64))
}

/// As Go's `Duration.String`: `1m30s`, `1.5s`, `500ms`, `0s`.
pub(crate) fn format_duration(duration: Duration) -> String {
    fn fraction(value: u128, unit: u128, name: &str) -> String {
        let digits = unit.ilog10() as usize;
        let rest = format!("{:0digits$}", value % unit);
        let rest = rest.trim_end_matches('0');
        let dot = if rest.is_empty() { "" } else { "." };
        format!("{}{dot}{rest}{name}", value / unit)
    }
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => fraction(nanos, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanos, 1_000_000, "ms"),
        _ => {
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
            let minutes = nanos / 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// Splits a command line as a POSIX shell would, without expanding anything.
pub(crate) fn split_command(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(format!("{line:?} has a single quote that is not closed")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c) => {
                                if !matches!(c, '"' | '\\' | '$' | '`') {
                                    word.push('\\');
                                }
                                word.push(c);
                            }
                            None => return Err(format!("{line:?} ends within quotes")),
                        },
                        Some(c) => word.push(c),
                        None => return Err(format!("{line:?} has a double quote that is not closed")),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err(format!("{line:?} ends with a lone backslash")),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in
            [("64m", 64 << 20), ("1.5g", 3 << 29), ("10kb", 10_240), ("7", 7), ("-1", -1), ("50M", 50 << 20)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "1x", "-5", "1e3", "99999999p"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_read_and_print_as_gos() {
        for (text, printed) in
            [("90s", "1m30s"), ("1h", "1h0m0s"), ("1.5s", "1.5s"), ("500ms", "500ms"), ("0s", "0s"), ("1m0s", "1m0s")]
        {
            assert_eq!(parse_duration(text).map(format_duration), Ok(printed.to_owned()), "{text}");
        }
        for text in ["", "5", "-1s", "s", "1x"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn command_lines_split_as_a_shell_splits() {
        let check = |line: &str, words: &[&str]| {
            assert_eq!(split_command(line).unwrap(), words, "{line}");
        };
        check(r#"echo "hi there" 'a b' c\ d"#, &["echo", "hi there", "a b", "c d"]);
        check(r#"sh -c "echo \"x\" \n""#, &["sh", "-c", r#"echo "x" \n"#]);
        check("", &[]);
        check("''", &[""]);
        assert!(split_command("echo 'x").is_err());
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back(millis in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = (parse_bytes(&text), parse_duration(&text), split_command(&text));
        }
    }
}
