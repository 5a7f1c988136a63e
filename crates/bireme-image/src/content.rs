//! The content of a file of an archive, written with its holes.
//!
//! An archive tells of a sparse file where its data lie, and a few bytes of it stand for terabytes of zeros. Those are not
//! written: a file has them without taking space. GNU's old form is unpacked by the `tar` crate; here are those that stand in
//! extended headers, which GNU tar writes for `--sparse --format=posix` and Go's reader knows.
//!
//! Source: GNU tar manual, "Storing Sparse Files", PAX formats 0.0, 0.1 and 1.0.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};

/// Stretches of data that one file may have.
const MOST_STRETCHES: usize = 200_000;
/// Bytes that are looked at together: a stretch of zeros that is shorter is written.
const PIECE: usize = 1 << 17;

static ZEROS: [u8; PIECE] = [0; PIECE];

thread_local! {
    /// What pieces are read into, kept from one file to the next: most files are far smaller than a piece, and to have the
    /// kernel give zeroed memory for each would cost more than to copy them.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What extended headers say of a sparse file.
#[derive(Debug, Default)]
pub struct Sparse {
    name: Option<Vec<u8>>,
    size: Option<u64>,
    major: u64,
    minor: u64,
    /// Where data lie, and their bytes, where the headers tell it.
    map: Option<Vec<(u64, u64)>>,
    /// How many stretches there are, where the headers tell it.
    stretches: Option<u64>,
    /// Where the stretch lies of which the bytes are told next.
    offset: Option<u64>,
}

/// Why a file was not written.
#[derive(Debug)]
pub enum Failed {
    /// The archive, or whoever wants it.
    Read(io::Error),
    /// The disk.
    Write(io::Error),
}

impl From<Failed> for io::Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Read(error) | Failed::Write(error) => error,
        }
    }
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the map of a sparse file {what}"))
}

impl Sparse {
    /// Takes one record of the extended headers, if it is about this.
    ///
    /// # Errors
    /// `InvalidData` for one that cannot be read.
    pub fn note(&mut self, key: &str, value: &[u8]) -> io::Result<()> {
        let Some(key) = key.strip_prefix("GNU.sparse.") else { return Ok(()) };
        let text = || std::str::from_utf8(value).map_err(|_| bad("is no text"));
        let number = || text()?.parse::<u64>().map_err(|_| bad("has something else where a number should be"));
        match key {
            "name" => self.name = Some(value.to_vec()),
            "realsize" | "size" => self.size = Some(number()?),
            "major" => self.major = number()?,
            "minor" => self.minor = number()?,
            "numblocks" => self.stretches = Some(number()?),
            // The first form tells of one stretch after the other.
            "offset" => self.offset = Some(number()?),
            "numbytes" => {
                let Some(offset) = self.offset.take() else { return Err(bad("has a stretch without a place")) };
                let map = self.map.get_or_insert_default();
                if map.len() >= MOST_STRETCHES {
                    return Err(bad("has too many stretches"));
                }
                map.push((offset, number()?));
            }
            "map" => {
                let numbers: Vec<u64> = text()?
                    .split(',')
                    .take(2 * MOST_STRETCHES + 2)
                    .map(|one| one.parse().map_err(|_| bad("has something else where a number should be")))
                    .collect::<Result<_, _>>()?;
                self.map = Some(numbers.as_chunks::<2>().0.iter().map(|[at, bytes]| (*at, *bytes)).collect());
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether an extended header tells of holes.
    pub fn is_sparse(&self) -> bool {
        self.name.is_some() || self.map.is_some() || self.stretches.is_some() || self.major > 0
    }

    /// What the file is called: the name in its header is made up.
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// The map in front of the data, in blocks of its own.
    fn read_map(content: &mut impl Read, wanted: &mut dyn FnMut() -> io::Result<()>) -> io::Result<Vec<(u64, u64)>> {
        let (mut block, mut at) = ([0; 512], 512);
        let mut number = || -> io::Result<u64> {
            let mut value: u64 = 0;
            loop {
                if at == block.len() {
                    wanted()?;
                    content.read_exact(&mut block)?;
                    at = 0;
                }
                let byte = block[at];
                at += 1;
                match byte {
                    b'0'..=b'9' => {
                        let more = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(byte - b'0')));
                        value = more.ok_or_else(|| bad("has too large a number"))?;
                    }
                    b'\n' => return Ok(value),
                    _ => return Err(bad("has something else where a number should be")),
                }
            }
        };
        let stretches = number()?;
        if stretches > MOST_STRETCHES as u64 {
            return Err(bad("has too many stretches"));
        }
        (0..stretches).map(|_| Ok((number()?, number()?))).collect()
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file, holes and all.
    pub length: u64,
    /// Of data, each of which takes a call or two.
    pub stretches: u64,
}

/// Writes all of `content` to `file`, which is empty. `length` is told how long the file becomes, before what makes it so
/// is written, and may end it.
///
/// # Errors
/// `Read` for `content`, a map that makes no sense, and what `length` answers.
pub fn write(
    content: &mut impl Read,
    sparse: &Sparse,
    file: &mut File,
    length: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Written, Failed> {
    let mut buffer = BUFFER.take();
    buffer.resize(PIECE, 0);
    let written = write_by(content, sparse, file, &mut buffer, length);
    BUFFER.set(buffer);
    written
}

fn write_by(
    content: &mut impl Read,
    sparse: &Sparse,
    file: &mut File,
    buffer: &mut [u8],
    length: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<Written, Failed> {
    let (map, size) = match (sparse.major, &sparse.map, sparse.size) {
        (1, _, Some(size)) if sparse.minor == 0 => {
            length(size).map_err(Failed::Read)?;
            (Sparse::read_map(content, &mut || length(size)).map_err(Failed::Read)?, size)
        }
        (0, map, Some(size)) if map.is_some() || sparse.stretches.is_some() => {
            let map = map.clone().unwrap_or_default();
            if sparse.stretches.is_some_and(|told| told != map.len() as u64) {
                return Err(Failed::Read(bad("has another number of stretches than it says")));
            }
            length(size).map_err(Failed::Read)?;
            (map, size)
        }
        (0, None, _) if sparse.name.is_none() => {
            let (end, in_hole) = put(content, file, 0, None, buffer, length)?;
            if in_hole {
                file.set_len(end).map_err(Failed::Write)?;
            }
            return Ok(Written { length: end, stretches: 1 });
        }
        _ => return Err(Failed::Read(bad("has a form that is not known: make the archive without --sparse"))),
    };
    if map.len() > MOST_STRETCHES {
        return Err(Failed::Read(bad("has too many stretches")));
    }
    let (mut end, mut stretches) = (0, 0);
    for (at, bytes) in map {
        let until = at.checked_add(bytes).filter(|until| at >= end && *until <= size);
        let Some(until) = until else { return Err(Failed::Read(bad("leads backwards, or behind the end"))) };
        if bytes == 0 {
            continue;
        }
        stretches += 1;
        length(until).map_err(Failed::Read)?;
        file.seek(SeekFrom::Start(at)).map_err(Failed::Write)?;
        (end, _) = put(content, file, at, Some(bytes), buffer, length)?;
        if end != until {
            return Err(Failed::Read(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    file.set_len(size).map_err(Failed::Write)?;
    Ok(Written { length: size, stretches })
}

/// Writes `content`, or so many `bytes` of it, from `start` on, where `file` stands. Answers where it ends, and whether it does
/// so in a hole, which has not made that the file's end yet.
fn put(
    content: &mut impl Read,
    file: &mut File,
    start: u64,
    bytes: Option<u64>,
    buffer: &mut [u8],
    length: &mut dyn FnMut(u64) -> io::Result<()>,
) -> Result<(u64, bool), Failed> {
    let (mut end, mut in_hole) = (start, false);
    let mut content = content.take(bytes.unwrap_or(u64::MAX));
    loop {
        let mut filled = 0;
        while filled < PIECE {
            match content.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(some) => filled += some,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failed::Read(error)),
            }
        }
        if filled == 0 {
            return Ok((end, in_hole));
        }
        let piece = &buffer[..filled];
        end = end.saturating_add(filled as u64);
        length(end).map_err(Failed::Read)?;
        in_hole = filled == PIECE && piece == ZEROS;
        if in_hole {
            file.seek_relative(PIECE as i64).map_err(Failed::Write)?;
        } else {
            file.write_all(piece).map_err(Failed::Write)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use proptest::prelude::*;

    use super::*;

    fn written(content: &[u8], sparse: &Sparse) -> Result<Vec<u8>, Failed> {
        let mut file = tempfile::tempfile().unwrap();
        let size = write(&mut &*content, sparse, &mut file, &mut |_| Ok(()))?.length;
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, size);
        Ok(bytes)
    }

    fn told(records: &[(&str, &str)]) -> Sparse {
        let mut sparse = Sparse::default();
        records.iter().for_each(|(key, value)| sparse.note(&format!("GNU.sparse.{key}"), value.as_bytes()).unwrap());
        sparse
    }

    #[test]
    fn zeros_take_no_space_and_somebody_may_end_it() {
        let mut file = tempfile::tempfile_in("/var/tmp").unwrap();
        let mut content = (&b"start"[..]).chain(io::repeat(0).take(64 << 20)).chain(&b"end"[..]);
        let size = write(&mut content, &Sparse::default(), &mut file, &mut |_| Ok(())).unwrap().length;
        let about = file.metadata().unwrap();
        assert_eq!((size, about.len()), ((64 << 20) + 8, (64 << 20) + 8));
        assert!(about.blocks() < 4096, "{} blocks", about.blocks());
        let mut most = |length| if length > 1 << 20 { Err(io::Error::other("too long")) } else { Ok(()) };
        let ended = write(&mut io::repeat(0), &Sparse::default(), &mut file, &mut most).unwrap_err();
        assert!(matches!(&ended, Failed::Read(error) if error.to_string() == "too long"), "{ended:?}");
    }

    #[test]
    fn maps_of_gnu_tar_are_read() {
        let mut content = b"2\n4\n3\n20\n2\n".to_vec();
        content.resize(512, 0);
        content.extend(b"abcde");
        let newest = told(&[("major", "1"), ("minor", "0"), ("name", "sparse"), ("realsize", "25")]);
        assert_eq!(newest.name(), Some(&b"sparse"[..]));
        let expected = b"\0\0\0\0abc\0\0\0\0\0\0\0\0\0\0\0\0\0de\0\0\0";
        assert_eq!(written(&content, &newest).unwrap(), expected);
        let older = told(&[("name", "sparse"), ("size", "25"), ("numblocks", "2"), ("map", "4,3,20,2")]);
        assert_eq!(written(b"abcde", &older).unwrap(), expected);
        let stretches = [("offset", "4"), ("numbytes", "3"), ("offset", "20"), ("numbytes", "2")];
        let oldest = told(&[&[("size", "25"), ("numblocks", "2")][..], &stretches].concat());
        assert_eq!(written(b"abcde", &oldest).unwrap(), expected);
        assert_eq!(written(b"", &told(&[("size", "3"), ("numblocks", "0")])).unwrap(), [0; 3]);
    }

    #[test]
    fn maps_that_lie_are_refused() {
        for (map, size, words) in [
            ("4,3,2,2", "25", "leads backwards"),
            ("4,3,20,9", "25", "behind the end"),
            ("18446744073709551615,3", "25", "behind the end"),
        ] {
            let refused = written(b"abcdefghi", &told(&[("name", "x"), ("size", size), ("map", map)])).unwrap_err();
            assert!(matches!(&refused, Failed::Read(error) if error.to_string().contains(words)), "{refused:?}");
        }
        let cut = written(b"ab", &told(&[("name", "x"), ("size", "25"), ("map", "4,3")])).unwrap_err();
        assert!(matches!(&cut, Failed::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof), "{cut:?}");
        let none = written(b"ab", &told(&[("name", "x"), ("size", "25"), ("numblocks", "1")])).unwrap_err();
        assert!(matches!(&none, Failed::Read(error) if error.to_string().contains("another number")), "{none:?}");
        let unknown = written(b"ab", &told(&[("name", "x"), ("major", "2"), ("realsize", "25")])).unwrap_err();
        assert!(matches!(&unknown, Failed::Read(error) if error.to_string().contains("not known")), "{unknown:?}");
        Sparse::default().note("GNU.sparse.numbytes", b"1").unwrap_err();
        for text in ["x\n", "99999999999999999999\n", "300000\n", "2\n1\n"] {
            let newest = told(&[("major", "1"), ("name", "x"), ("realsize", "25")]);
            let mut content = text.as_bytes().to_vec();
            content.resize(512, 0);
            written(&content, &newest).unwrap_err();
        }
        Sparse::default().note("GNU.sparse.realsize", b"many").unwrap_err();
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_was_read(pieces in proptest::collection::vec((any::<bool>(), 0_usize..300_000), 0..5)) {
            let content: Vec<u8> = pieces.iter().flat_map(|(zero, length)| vec![u8::from(!zero); *length]).collect();
            prop_assert_eq!(written(&content, &Sparse::default()).unwrap(), content);
        }
    }
}
