//! Numbers of PostgreSQL's type `numeric` as text, exactly.
//!
//! Source: PostgreSQL's `numeric_send` and `numeric_recv`: digits to the base 10,000, the weight of the first, the sign, and
//! how many decimal digits stand behind the point.

use std::fmt::Write as _;

use bytes::BytesMut;

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xc000;
const INFINITE: u16 = 0xd000;
const NEGATIVE_INFINITE: u16 = 0xf000;
/// Decimal digits of one digit.
const WIDTH: usize = 4;
/// Most decimal digits before the point, and behind it.
const MOST: (usize, usize) = (131_072, 16_383);

/// Bytes that the text of a number takes at most, which may be some ten thousand times its own.
///
/// # Errors
/// A sentence where the bytes are no number, or one that PostgreSQL does not have.
pub(super) fn text_length(bytes: &[u8]) -> Result<usize, String> {
    let word = |at: usize| bytes.get(2 * at..2 * at + 2).map(|word| i16::from_be_bytes([word[0], word[1]]));
    let (Some(weight), Some(scale)) = (word(1), word(3)) else {
        return Err("the server sent a numeric value that is cut short".to_owned());
    };
    let (before, behind) =
        (usize::try_from(weight).map_or(1, |weight| WIDTH * (weight + 1)), usize::from(scale as u16));
    if before > MOST.0 + WIDTH || behind > MOST.1 {
        return Err("the server sent a numeric value with more digits than there can be".to_owned());
    }
    Ok("-.".len() + before + behind)
}

/// # Errors
/// A sentence where the bytes are no number.
pub(super) fn to_text(bytes: &[u8]) -> Result<String, String> {
    text_length(bytes)?;
    let word = |at: usize| -> Result<u16, String> {
        let word = bytes.get(2 * at..2 * at + 2).ok_or("the server sent a numeric value that is cut short")?;
        Ok(u16::from_be_bytes([word[0], word[1]]))
    };
    let (count, weight, sign, scale) = (usize::from(word(0)?), word(1)? as i16, word(2)?, usize::from(word(3)?));
    match sign {
        NAN => return Ok("NaN".to_owned()),
        INFINITE => return Ok("Infinity".to_owned()),
        NEGATIVE_INFINITE => return Ok("-Infinity".to_owned()),
        _ => {}
    }
    let digit = |at: i32| usize::try_from(at).ok().filter(|at| *at < count).map_or(Ok(0), |at| word(4 + at));
    let mut text = String::new();
    if sign == NEGATIVE {
        text.push('-');
    }
    let weight = i32::from(weight);
    if weight < 0 {
        text.push('0');
    }
    for at in 0..=weight {
        let digit = digit(at)?;
        // The first without zeros before it.
        let _ = if at == 0 { write!(text, "{digit}") } else { write!(text, "{digit:04}") };
    }
    if scale > 0 {
        text.push('.');
        let end = text.len() + scale;
        let mut at = weight + 1;
        while text.len() < end {
            // Where the first digit is far behind the point, zeros come before it.
            let _ = write!(text, "{:04}", digit(at)?);
            at += 1;
        }
        text.truncate(end);
    }
    Ok(text)
}

/// # Errors
/// A sentence where the text is no number, or one that is too long.
pub(super) fn from_text(text: &str, into: &mut BytesMut) -> Result<(), String> {
    let malformed = || format!("{text:?} is no decimal number, such as -12.50");
    let mut words = |words: &[u16]| words.iter().for_each(|word| into.extend_from_slice(&word.to_be_bytes()));
    let (is_negative, plain) = match text.strip_prefix('-') {
        Some(plain) => (true, plain),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let special = match plain.to_ascii_lowercase().as_str() {
        "nan" => Some(NAN),
        "infinity" | "inf" => Some(if is_negative { NEGATIVE_INFINITE } else { INFINITE }),
        _ => None,
    };
    if let Some(sign) = special {
        words(&[0, 0, sign, 0]);
        return Ok(());
    }
    let (whole, part) = plain.split_once('.').unwrap_or((plain, ""));
    if (whole.is_empty() && part.is_empty()) || !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let whole = whole.trim_start_matches('0');
    if whole.len() > MOST.0 || part.len() > MOST.1 {
        return Err(format!(
            "a decimal number has at most {} digits before the point and {} behind it",
            MOST.0, MOST.1
        ));
    }
    // Both sides in groups of four: the first filled up from the left, the last from the right.
    let before = whole.len().div_ceil(WIDTH);
    let mut padded = "0".repeat(before * WIDTH - whole.len());
    padded.push_str(whole);
    padded.push_str(part);
    padded.push_str(&"0".repeat(part.len().div_ceil(WIDTH) * WIDTH - part.len()));
    let group = |group: &[u8]| group.iter().fold(0u16, |value, byte| value * 10 + u16::from(byte - b'0'));
    let digits: Vec<u16> = padded.as_bytes().chunks(WIDTH).map(group).collect();
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    let kept = digits[leading..].iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
    let weight = if kept == 0 { 0 } else { before as i32 - 1 - leading as i32 };
    let sign = if is_negative && kept > 0 { NEGATIVE } else { 0 };
    // At most some ten thousand groups: every count fits.
    words(&[kept as u16, weight as i16 as u16, sign, part.len() as u16]);
    words(&digits[leading..leading + kept]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(text: &str) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        from_text(text, &mut bytes).unwrap();
        bytes.to_vec()
    }

    #[test]
    fn numbers_are_as_the_server_sends_them() {
        let words = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
        for (text, expected) in [
            ("0", words(&[0, 0, 0, 0])),
            ("0.00", words(&[0, 0, 0, 2])),
            ("12345.678", words(&[3, 1, 0, 3, 1, 2345, 6780])),
            ("-10000", words(&[1, 1, NEGATIVE, 0, 1])),
            ("0.00001", words(&[1, 0xfffe, 0, 5, 1000])),
            ("NaN", words(&[0, 0, NAN, 0])),
            ("-Infinity", words(&[0, 0, NEGATIVE_INFINITE, 0])),
        ] {
            assert_eq!(encoded(text), expected, "{text}");
            assert_eq!(to_text(&expected).unwrap(), text);
        }
        for text in ["", ".", "-", "1e5", "1.2.3", "0x10", " 1", "1,5", "١"] {
            assert!(from_text(text, &mut BytesMut::new()).is_err(), "{text:?}");
        }
        assert!(from_text(&"9".repeat(MOST.0 + 1), &mut BytesMut::new()).is_err());
        assert!(to_text(&[0, 3, 0, 0]).is_err());
    }

    proptest! {
        #[test]
        fn every_number_comes_back(text in "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,40})?") {
            let is_zero = text.bytes().all(|byte| matches!(byte, b'-' | b'0' | b'.'));
            let expected = if is_zero { text.trim_start_matches('-') } else { &text };
            prop_assert_eq!(to_text(&encoded(&text)).unwrap(), expected);
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(text) = to_text(&bytes) {
                prop_assert!(text.len() <= text_length(&bytes).unwrap().max("-Infinity".len()));
            }
        }
    }
}
