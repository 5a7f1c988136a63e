//! Sizes in bytes as Docker reads and prints them.
//!
//! Reading knows two languages with the same words: in one `k` is 1024 (memory, files), in the other 1000 (log files).
//! Printing likewise. Source: github.com/docker/go-units, `size.go`.

use thiserror::Error;

/// Why a text is no size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// No number, or a unit that is none.
    #[error("not a size such as 512m, 1.5g or 1073741824")]
    Malformed,
    /// More than fits into 63 bits.
    #[error("more than any machine has")]
    TooLarge,
}

/// Bytes from `1073741824`, `64m`, `1.5GiB`, `10 kB`: units are powers of 1024, in any case. Never more than `i64::MAX`.
///
/// # Errors
/// When it is no size, or too large a one.
///
/// Source: `RAMInBytes` of go-units, without signs, exponents and a `b` of its own before which no number stands.
pub fn parse_binary(text: &str) -> Result<u64, SizeError> {
    parse(text, 1024)
}

/// Bytes as [`parse_binary`], with units that are powers of 1000.
///
/// # Errors
/// When it is no size, or too large a one.
///
/// Source: `FromHumanSize` of go-units, which Docker reads `max-size` of logs with.
pub fn parse_decimal(text: &str) -> Result<u64, SizeError> {
    parse(text, 1000)
}

/// As [`parse_binary`], where `-1` stands for no limit at all and stays what it is.
///
/// # Errors
/// When it is no size, or too large a one.
///
/// Source: `MemSwapBytes` of docker/cli, `opts`.
pub fn parse_limit(text: &str) -> Result<i64, SizeError> {
    if text.trim() == "-1" {
        return Ok(-1);
    }
    parse_binary(text).and_then(|size| i64::try_from(size).map_err(|_| SizeError::TooLarge))
}

fn parse(text: &str, base: u64) -> Result<u64, SizeError> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let power = power(&unit.trim_start().to_ascii_lowercase()).ok_or(SizeError::Malformed)?;
    let scale = base.pow(power);
    let bytes = if number.contains('.') {
        let bytes = number.parse::<f64>().map_err(|_| SizeError::Malformed)? * scale as f64;
        // What is too large stays so: the conversion saturates.
        bytes as u64
    } else {
        if number.is_empty() {
            return Err(SizeError::Malformed);
        }
        // Of digits alone, all that can be wrong is that there are too many.
        number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).ok_or(SizeError::TooLarge)?
    };
    if i64::try_from(bytes).is_ok() { Ok(bytes) } else { Err(SizeError::TooLarge) }
}

/// Which power of the base a unit in lower case is.
fn power(unit: &str) -> Option<u32> {
    if matches!(unit, "" | "b") {
        return Some(0);
    }
    let prefix = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let known = ["k", "m", "g", "t", "p"];
    known.iter().position(|known| *known == prefix).and_then(|at| u32::try_from(at + 1).ok())
}

/// Bytes in powers of 1000 with four significant digits: `5.573MB`.
///
/// Source: `HumanSize` of go-units.
pub fn decimal(bytes: f64) -> String {
    with_unit(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], 4)
}

/// Bytes in powers of 1000 with three significant digits, as in Docker's tables: `5.57MB`.
///
/// Source: `HumanSizeWithPrecision` of go-units, but for what rounds up to the next unit: `1000kB`, where Go writes `1e+03kB`.
pub fn decimal_short(bytes: f64) -> String {
    with_unit(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], 3)
}

/// Bytes in powers of 1024 with four significant digits, as Docker prints memory: `1.934GiB`.
///
/// Source: `BytesSize` of go-units.
pub fn binary(bytes: f64) -> String {
    with_unit(bytes, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"], 4)
}

fn with_unit(mut size: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut at = 0;
    while size >= base && at + 1 < units.len() {
        size /= base;
        at += 1;
    }
    format!("{}{}", significant(size, digits), units[at])
}

/// A number with at most `digits` significant digits and no zeros at its end: `%.*g` of C and Go, without exponents.
fn significant(value: f64, digits: usize) -> String {
    let whole = if value >= 1.0 { value.log10().floor() as usize + 1 } else { 1 };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_in_both_languages() {
        for (text, of_1024, of_1000) in [
            ("0", 0, 0),
            ("7", 7, 7),
            ("7b", 7, 7),
            ("512m", 512 << 20, 512_000_000),
            ("50M", 50 << 20, 50_000_000),
            ("10kb", 10 << 10, 10_000),
            (" 64m ", 64 << 20, 64_000_000),
            ("64KB", 64 << 10, 64_000),
            ("10 KiB", 10 << 10, 10_000),
            ("1.5g", 3 << 29, 1_500_000_000),
            ("1.5GiB", 3 << 29, 1_500_000_000),
            ("2t", 2 << 40, 2_000_000_000_000),
            ("1P", 1 << 50, 1_000_000_000_000_000),
            ("9007199254740993", 9_007_199_254_740_993, 9_007_199_254_740_993),
        ] {
            assert_eq!((parse_binary(text), parse_decimal(text)), (Ok(of_1024), Ok(of_1000)), "{text}");
        }
        for text in
            ["", "m", "b", ".", "1x", "12x", "-5", "+5", "1e3", "5ib", "5bb", "5kk", "5kib2", "1.2.3", "5é", "nan"]
        {
            assert_eq!(parse_binary(text), Err(SizeError::Malformed), "{text}");
        }
        for text in ["9223372036854775808", "99999999p", "9999999999.5p", "99999999999999999999999"] {
            assert_eq!(parse_binary(text), Err(SizeError::TooLarge), "{text}");
        }
        assert_eq!((parse_limit("-1"), parse_limit("1k"), parse_limit("-2").is_err()), (Ok(-1), Ok(1024), true));
    }

    #[test]
    fn sizes_are_printed_as_go_prints_them() {
        for (bytes, four, three, of_1024) in [
            (0.0, "0B", "0B", "0B"),
            (5.0, "5B", "5B", "5B"),
            (999.0, "999B", "999B", "999B"),
            (1000.0, "1kB", "1kB", "1000B"),
            (1_234_567.0, "1.235MB", "1.23MB", "1.177MiB"),
            (5_570_000.0, "5.57MB", "5.57MB", "5.312MiB"),
            (123_400_000.0, "123.4MB", "123MB", "117.7MiB"),
            (999_960.0, "1000kB", "1000kB", "976.5KiB"),
            (2_076_180_480.0, "2.076GB", "2.08GB", "1.934GiB"),
            (536_870_912.0, "536.9MB", "537MB", "512MiB"),
            (5e18, "5EB", "5EB", "4.337EiB"),
        ] {
            assert_eq!((&*decimal(bytes), &*decimal_short(bytes), &*binary(bytes)), (four, three, of_1024), "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = (parse_binary(&text), parse_decimal(&text), parse_limit(&text));
        }

        #[test]
        fn a_printed_size_reads_back_to_its_digits(bytes in 0u64..1 << 55) {
            let (printed, read) = (bytes as f64, |text: &str| parse_decimal(text).unwrap() as f64);
            prop_assert!((read(&decimal(printed)) - printed).abs() <= printed * 5.1e-4 + 1.0);
            let read = parse_binary(&binary(printed)).unwrap() as f64;
            prop_assert!((read - printed).abs() <= printed * 5.1e-4 + 1.0);
        }
    }
}
