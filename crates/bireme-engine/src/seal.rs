//! Records with a sum of what they say and of whom: a bit that flips in one is noticed, also where what is left still parses.
//!
//! The sum is the last field of the JSON object. Engines that know none leave it unread, and write records without one.

use sha2::{Digest as _, Sha256};

const FIELD: &str = ",\"sum\":\"";
const END: &str = "\"}";
/// Hexadecimal digits of a sum.
const LENGTH: usize = 16;

/// What the sum of a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seal {
    Whole,
    /// It has none: an earlier engine wrote it.
    Missing,
    /// It is that of another text.
    Broken,
}

fn sum(of: &str, body: &str) -> String {
    let digest = Sha256::new().chain_update(of).chain_update([0]).chain_update(body).finalize();
    let mut text = format!("{digest:x}");
    text.truncate(LENGTH);
    text
}

/// The text of a record of the thing `of`, with its sum. What is no JSON object stays as it is.
pub(crate) fn seal(of: &str, text: String) -> String {
    match text.strip_suffix('}').filter(|body| body.len() > 1) {
        Some(body) => format!("{body}{FIELD}{}{END}", sum(of, body)),
        None => text,
    }
}

/// Looks whether the record of the thing `of` is as it was written.
pub(crate) fn check(of: &str, text: &str) -> Seal {
    let parts = || {
        let rest = text.strip_suffix(END)?;
        let (body, found) = rest.split_at_checked(rest.len().checked_sub(LENGTH)?)?;
        Some((body.strip_suffix(FIELD)?, found))
    };
    match parts() {
        Some((body, found)) if sum(of, body) == found => Seal::Whole,
        Some(_) => Seal::Broken,
        None => Seal::Missing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_sum_is_of_one_thing_and_one_text() {
        let sealed = seal("a", r#"{"name":"x","n":1}"#.to_owned());
        assert_eq!(check("a", &sealed), Seal::Whole);
        assert_eq!(check("b", &sealed), Seal::Broken);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&sealed).unwrap()["name"], "x");
        for text in ["{}", "7", "\"fixed\"", "", "{\"a\":1}"] {
            assert_eq!(check("a", text), Seal::Missing, "{text}");
        }
        assert_eq!(seal("a", "{}".to_owned()), "{}");
    }

    proptest! {
        #[test]
        fn a_flipped_bit_of_what_is_said_is_noticed(at in 0usize..1000, bit in 0u8..7) {
            let body = r#"{"spec":{"id":"0123456789abcdef","name":"web"},"image_id":"sha256:12","mounts":["data"]}"#;
            let sealed = seal("0123", body.to_owned());
            let mut bytes = sealed.clone().into_bytes();
            let at = at % (body.len() - 1);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(check("0123", std::str::from_utf8(&bytes).unwrap()), Seal::Broken);
        }
    }
}
