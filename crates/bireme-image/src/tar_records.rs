//! Records of extended headers, read by their lengths, and written so that the `tar` crate reads the same.
//!
//! A record is `LENGTH KEY=VALUE` and a line break, the length being that of the whole, so that values may be of any bytes. The
//! `tar` crate goes by the line breaks instead: it takes a set for broken that has one in a value, as file capabilities and
//! names may, and does not see a size behind it. It takes the first record of a key, where the last counts. So a set that it
//! would misread is written anew, as long as it was, and what cannot be written for it is handed over apart.
//!
//! Source: POSIX.1-2017, pax, "pax Extended Header"; GNU tar manual, "PAX formats", for keys that may stand there many times.

use std::collections::HashSet;

/// Key and value.
pub(crate) type Record = (Vec<u8>, Vec<u8>);

/// A set of records as the reader behind is to see it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// As long as the set was; `None` where it needs no change.
    pub(crate) written: Option<Vec<u8>>,
    /// What only we can read.
    pub(crate) apart: Vec<Record>,
    /// Bytes of the entry, where the set says.
    pub(crate) size: Option<u64>,
}

/// Keys of which an empty value takes nothing back and says nothing: the header counts, as for Go's reader.
const OF_THE_HEADER: [&[u8]; 6] = [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"];

/// Reads a set of records and settles what of it counts.
///
/// # Errors
/// What the set has, going on from "it has".
pub(crate) fn settle(set: &[u8]) -> Result<Settled, &'static str> {
    let all = read(set).ok_or("extended headers that cannot be read")?;
    let mut seen = HashSet::new();
    let mut kept: Vec<(&[u8], &[u8])> = Vec::with_capacity(all.len());
    for (key, value) in all.iter().rev() {
        let says_nothing = value.is_empty() && OF_THE_HEADER.contains(key);
        // GNU's first form tells of each stretch of data by the same two keys.
        if !says_nothing && (key.starts_with(b"GNU.sparse.") || seen.insert(*key)) {
            kept.push((key, value));
        }
    }
    kept.reverse();
    let size = match kept.iter().find(|(key, _)| *key == b"size") {
        Some((_, text)) => {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            Some(number.ok_or("a size in extended headers that is no number")?)
        }
        None => None,
    };
    let (apart, plain): (Vec<_>, Vec<_>) =
        kept.into_iter().partition(|(key, value)| key.contains(&b'\n') || value.contains(&b'\n'));
    let written = (plain.len() < all.len()).then(|| write(&plain, set.len()));
    let apart = apart.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
    Ok(Settled { written, apart, size })
}

fn read(mut set: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut all = Vec::new();
    while !set.is_empty() {
        let space = set.iter().take(20).position(|byte| *byte == b' ')?;
        let digits = set[..space].iter().all(u8::is_ascii_digit);
        let length: usize = std::str::from_utf8(&set[..space]).ok().filter(|_| digits)?.parse().ok()?;
        if length < space + 3 || length > set.len() {
            return None;
        }
        let (record, rest) = set.split_at(length);
        let (end, record) = record[space + 1..].split_last()?;
        let equals = record.iter().position(|byte| *byte == b'=').filter(|at| *at > 0 && *end == b'\n')?;
        all.push((&record[..equals], &record[equals + 1..]));
        set = rest;
    }
    Some(all)
}

/// Writes records of `length` bytes together, which is no less than they had.
fn write(records: &[(&[u8], &[u8])], length: usize) -> Vec<u8> {
    let mut bodies: Vec<Vec<u8>> =
        records.iter().map(|(key, value)| [b" ", *key, b"=", *value, b"\n"].concat()).collect();
    let mut lengths: Vec<usize> = bodies.iter().map(|body| shortest(body.len())).collect();
    // What is left is filled by a record of no meaning, which has five bytes at least, or by zeros before a length.
    match (length.saturating_sub(lengths.iter().sum()), lengths.first_mut()) {
        (left @ 1..5, Some(first)) => *first += left,
        (0, _) | (1..5, None) => {}
        (left, _) => {
            let digits = left.to_string().len();
            bodies.push([b" c=", &vec![b'-'; left - digits - 4][..], b"\n"].concat());
            lengths.push(left);
        }
    }
    let mut out = Vec::with_capacity(length);
    for (body, length) in bodies.iter().zip(lengths) {
        out.extend(format!("{length:0width$}", width = length - body.len()).bytes());
        out.extend(body);
    }
    out
}

/// The length of a record with the digits that say so.
fn shortest(body: usize) -> usize {
    let mut length = body + 1;
    while length.to_string().len() + body > length {
        length += 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(records: &[(&[u8], &[u8])]) -> Vec<u8> {
        let length = |(key, value): &(&[u8], &[u8])| shortest(key.len() + value.len() + 3);
        write(records, records.iter().map(length).sum())
    }

    /// What the `tar` crate makes of a set.
    fn by_the_crate(set: &[u8]) -> Vec<Record> {
        let all = tar::PaxExtensions::new(set).map(|one| one.expect("it reads what was written for it"));
        all.map(|one| (one.key_bytes().to_vec(), one.value_bytes().to_vec())).collect()
    }

    #[test]
    fn what_the_reader_would_misread_is_written_anew() {
        let pairs: [(&[u8], &[u8]); 5] =
            [(b"path", b"first"), (b"comment", b"two\nlines"), (b"size", b"7"), (b"path", b"last"), (b"uid", b"")];
        let bytes = set(&pairs);
        let settled = settle(&bytes).unwrap();
        let written = settled.written.unwrap();
        assert_eq!(written.len(), bytes.len());
        let read: Vec<Record> = by_the_crate(&written).into_iter().filter(|(key, _)| key != b"c").collect();
        assert_eq!(read, [(b"size".to_vec(), b"7".to_vec()), (b"path".to_vec(), b"last".to_vec())]);
        assert_eq!((settled.apart, settled.size), (vec![(b"comment".to_vec(), b"two\nlines".to_vec())], Some(7)));
    }

    #[test]
    fn what_is_well_stays_as_it_is() {
        let pairs: [(&[u8], &[u8]); 4] =
            [(b"GNU.sparse.offset", b"0"), (b"GNU.sparse.offset", b"9"), (b"mtime", b"1.5"), (b"k", b"a=b")];
        assert_eq!(settle(&set(&pairs)).unwrap(), Settled::default());
        assert_eq!(settle(b"").unwrap(), Settled::default());
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for bytes in [
            &b"x"[..],
            b"5 a=",
            b"6 a=\n",
            b"4 a=\n",
            b"5 a=\n\0",
            b"5 abc\n",
            b"5 =a\n",
            b"-5 a=\n",
            b"+5 a=\n",
            b"99999999999999999999 a=\n",
            b"0 a=\n",
            b"1 a=\n",
            b" a=\n",
        ] {
            assert!(settle(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(settle(b"10 size=x\n").unwrap_err().contains("no number"));
    }

    proptest! {
        #[test]
        fn the_reader_sees_what_counts(
            pairs in proptest::collection::vec(("[d-g]{1,3}|path|size", "[a-z\n=]{0,120}|[0-9]{1,9}"), 0..8)
        ) {
            let pairs: Vec<(&[u8], &[u8])> = pairs.iter()
                .filter(|(key, value)| key != "size" || value.parse::<u64>().is_ok())
                .map(|(key, value)| (key.as_bytes(), value.as_bytes()))
                .collect();
            let bytes = set(&pairs);
            let settled = settle(&bytes).unwrap();
            let written = settled.written.as_ref().unwrap_or(&bytes);
            prop_assert_eq!(written.len(), bytes.len());
            let mut expected = std::collections::BTreeMap::new();
            for (key, value) in pairs {
                if value.is_empty() && OF_THE_HEADER.contains(&key) {
                    continue;
                }
                expected.insert(key.to_vec(), value.to_vec());
            }
            let read = by_the_crate(written).into_iter().filter(|(key, _)| key != b"c");
            let seen: std::collections::BTreeMap<_, _> = read.chain(settled.apart.clone()).collect();
            prop_assert_eq!(&seen, &expected);
            prop_assert_eq!(settled.size, expected.get(&b"size"[..]).map(|text| std::str::from_utf8(text).unwrap().parse().unwrap()));
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = settle(&noise);
        }
    }
}
