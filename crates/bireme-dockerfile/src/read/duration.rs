//! Lengths of time as Go writes them: `1m30s`, `500ms`, `1.5h`.
//!
//! Source: Go's `time.ParseDuration`.

/// Reads nanoseconds.
///
/// # Errors
/// In Go's words.
pub(super) fn nanoseconds(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(rest.len());
        let (whole, part) = rest[..end].split_once('.').unwrap_or((&rest[..end], ""));
        if (whole.is_empty() && part.is_empty()) || part.contains('.') || whole.len() > 19 {
            return Err(invalid());
        }
        rest = &rest[end..];
        let end = rest.find(|letter: char| letter.is_ascii_digit() || letter == '.').unwrap_or(rest.len());
        let unit: i128 = match &rest[..end] {
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            other => return Err(format!("time: unknown unit {other:?} in duration {text:?}")),
        };
        rest = &rest[end..];
        total += whole.parse::<i128>().unwrap_or(0) * unit;
        let mut place = unit;
        for digit in part.chars().filter_map(|letter| letter.to_digit(10)) {
            place /= 10;
            total += i128::from(digit) * place;
        }
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
    }
    let total = i64::try_from(total).map_err(|_| invalid())?;
    Ok(if negative { -total } else { total })
}

#[cfg(test)]
mod tests {
    use super::nanoseconds;

    #[test]
    fn reads_durations_as_go_does() {
        for (text, read) in [
            ("30s", Ok(30_000_000_000)),
            ("1m30s", Ok(90_000_000_000)),
            ("500ms", Ok(500_000_000)),
            ("1.5h", Ok(5_400_000_000_000)),
            (".5s", Ok(500_000_000)),
            ("-5s", Ok(-5_000_000_000)),
            ("0", Ok(0)),
            ("x", Err("time: invalid duration \"x\"")),
            ("5", Err("time: missing unit in duration \"5\"")),
            ("", Err("time: invalid duration \"\"")),
            ("1d", Err("time: unknown unit \"d\" in duration \"1d\"")),
            ("99999999999h", Err("time: invalid duration \"99999999999h\"")),
        ] {
            assert_eq!(nanoseconds(text), read.map_err(str::to_owned), "{text}");
        }
    }
}
