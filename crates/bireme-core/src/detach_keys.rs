//! The keys that leave a terminal and let the workload go on.

use thiserror::Error;

/// A sequence of keys, looked for in a stream of input however that is cut.
///
/// What may be the beginning of the sequence is held back until it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    /// How many keys the input ends with.
    matched: usize,
}

/// A word that names no key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("unknown key {key:?}: write a letter or ctrl-LETTER, such as ctrl-p,ctrl-q")]
pub struct UnknownKey {
    /// What stands between two commas.
    pub key: String,
}

impl Default for DetachKeys {
    /// Docker's default: ctrl-p, ctrl-q.
    fn default() -> Self {
        Self { keys: vec![16, 17], matched: 0 }
    }
}

impl DetachKeys {
    /// Reads keys with commas between: single letters, `ctrl-a` to `ctrl-z`, `ctrl-@`, `ctrl-[`, `ctrl-\`, `ctrl-]`,
    /// `ctrl-^`, `ctrl-_` and `DEL`. An empty text stands for the default.
    ///
    /// # Errors
    /// When one of them is no key.
    ///
    /// Source: `ToBytes` of github.com/moby/term; `ContainerAttach` of moby for the empty text.
    pub fn parse(text: &str) -> Result<Self, UnknownKey> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let keys = text.split(',').map(|word| key(word).ok_or_else(|| UnknownKey { key: word.to_owned() }));
        Ok(Self { keys: keys.collect::<Result<_, _>>()?, matched: 0 })
    }

    /// No keys: nothing detaches.
    pub fn none() -> Self {
        Self { keys: Vec::new(), matched: 0 }
    }

    /// What of the stream so far and of `input`, its next piece, is input of the workload, and whether the sequence is
    /// complete. What follows the sequence is lost.
    pub fn filter(&mut self, input: &[u8]) -> (Vec<u8>, bool) {
        if self.keys.is_empty() {
            return (input.to_vec(), false);
        }
        let mut passed = Vec::with_capacity(input.len() + self.matched);
        for byte in input {
            while self.matched > 0 && self.keys[self.matched] != *byte {
                let shorter = self.shorter();
                passed.extend_from_slice(&self.keys[..self.matched - shorter]);
                self.matched = shorter;
            }
            if self.keys[self.matched] != *byte {
                passed.push(*byte);
                continue;
            }
            self.matched += 1;
            if self.matched == self.keys.len() {
                self.matched = 0;
                return (passed, true);
            }
        }
        (passed, false)
    }

    /// With how many keys, fewer than matched, the sequence may begin within what is matched: of `a,a,b`, after `a,a` with
    /// the second `a`.
    fn shorter(&self) -> usize {
        let matched = &self.keys[..self.matched];
        (0..self.matched).rev().find(|length| matched.ends_with(&self.keys[..*length])).unwrap_or_default()
    }
}

fn key(word: &str) -> Option<u8> {
    match (word.as_bytes(), word.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([single], _) => Some(*single),
        (_, Some([letter @ b'a'..=b'z'])) => Some(letter - b'a' + 1),
        (_, Some(b"@")) => Some(0),
        (_, Some(b"[")) => Some(27),
        (_, Some(b"\\")) => Some(28),
        (_, Some(b"]")) => Some(29),
        (_, Some(b"^")) => Some(30),
        (_, Some(b"_")) => Some(31),
        (b"DEL", _) => Some(127),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_dockers() {
        for (text, keys) in [
            ("", &[16, 17][..]),
            ("ctrl-p,ctrl-q", &[16, 17]),
            ("ctrl-a,d", &[1, b'd']),
            ("ctrl-@,a,ctrl-]", &[0, b'a', 29]),
            ("ctrl-[,ctrl-\\,ctrl-^,ctrl-_,DEL", &[27, 28, 30, 31, 127]),
        ] {
            assert_eq!(DetachKeys::parse(text).unwrap().keys, keys, "{text}");
        }
        for text in ["shift-x", "ctrl-pp", "ctrl-A", "ctrl-", "a,,b", ",", "é"] {
            assert!(DetachKeys::parse(text).is_err(), "{text}");
        }
    }

    fn check(mut keys: DetachKeys, inputs: &[&[u8]], expected: &[u8], detached: bool) {
        let mut passed = Vec::new();
        let mut struck = false;
        for input in inputs {
            let (more, now) = keys.filter(input);
            passed.extend(more);
            struck |= now;
        }
        assert_eq!((passed.as_slice(), struck), (expected, detached), "{inputs:?}");
    }

    #[test]
    fn the_sequence_is_found_across_pieces_and_nothing_else_is_lost() {
        check(DetachKeys::default(), &[b"ab\x10", b"c"], b"ab\x10c", false);
        check(DetachKeys::default(), &[b"a\x10", b"\x11b"], b"a", true);
        check(DetachKeys::default(), &[b"a\x10b"], b"a\x10b", false);
        check(DetachKeys::default(), &[b"\x10\x10\x11"], b"\x10", true);
        check(DetachKeys::parse("").unwrap(), &[b"\x10\x11"], b"", true);
        check(DetachKeys::parse("ctrl-a,d").unwrap(), &[b"\x01", b"d"], b"", true);
        check(DetachKeys::parse("a,a,b").unwrap(), &[b"aa", b"ab"], b"a", true);
        check(DetachKeys::none(), &[b"\x10\x11"], b"\x10\x11", false);
    }

    proptest! {
        #[test]
        fn it_detaches_where_the_keys_are_and_nowhere_else(
            keys in "[ab]{1,4}", input in "[abc]{0,30}", cut in 1usize..5,
        ) {
            let mut words = DetachKeys::parse(&keys.chars().map(String::from).collect::<Vec<_>>().join(",")).unwrap();
            let mut passed = Vec::new();
            let mut struck = false;
            for piece in input.as_bytes().chunks(cut) {
                let (more, now) = words.filter(piece);
                passed.extend(more);
                if now {
                    struck = true;
                    break;
                }
            }
            prop_assert_eq!(struck, input.contains(&keys));
            match input.find(&keys) {
                Some(at) => prop_assert_eq!(&passed, &input.as_bytes()[..at]),
                None => {
                    passed.extend_from_slice(&words.keys[..words.matched]);
                    prop_assert_eq!(passed, input.as_bytes());
                }
            }
        }
    }
}
