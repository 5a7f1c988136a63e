//! Bounds on what the headers of a tar archive may make its reader hold, and forbearance with its end.
//!
//! A long name or a set of extended headers is read whole before its entry is: 200 KB of gzip can stand for gigabytes of
//! them. [`Bounded`] passes an archive on and breaks it off at the first header that is larger than any real one. Extended
//! headers that the reader behind it would misread are passed on as it reads them right.
//! It has to see the same headers as the reader behind it, the `tar` crate: where that one takes a header for another
//! kind, or an entry for shorter, a bomb would lie in what looks like content here. So every rule below is that crate's.
//!
//! An archive may end right behind the content of its last file. Docker's command line sends such contexts when it puts a
//! Dockerfile from elsewhere into them; Go's reader takes them, and so does this one: it makes up the padding that is
//! missing.
//!
//! Source: POSIX.1-2017, pax; GNU tar, "Basic Tar Format"; docker/cli, `AddDockerfileToBuildContext`.

use std::io::{self, Read};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::tar_records::{Record, settle};

/// Bytes of a GNU long name or long link: the kernel takes paths of 4,096.
const LONGEST_NAME: u64 = 16 << 10;
/// Bytes of a set of extended headers: names, times, and attributes of at most 64 KiB each.
const LARGEST_HEADERS: u64 = 1 << 20;
/// GNU's blocks of further holes that follow one header; 21 holes each.
const MOST_SPARSE: usize = 10_000;

const BLOCK: usize = 512;

/// Passes a tar archive on, and refuses headers beyond the bounds.
///
/// Reading fails with `InvalidData` and a sentence that goes on from "the archive cannot be read".
pub struct Bounded<R> {
    inner: R,
    state: State,
    block: [u8; BLOCK],
    /// Bytes of `block` that were read.
    filled: usize,
    /// Bytes of `block` that were passed on.
    passed: usize,
    /// The records of extended headers that are being passed on.
    records: Vec<u8>,
    /// The size that extended headers give the next entry.
    size: Option<u64>,
    apart: Option<Apart>,
}

/// Records of extended headers that the `tar` crate cannot read, as they have line breaks in them. Clones are one.
#[derive(Clone, Default)]
pub struct Apart(Arc<Mutex<Vec<Record>>>);

impl Apart {
    /// Those of the entry that was read last.
    pub fn take(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        std::mem::take(&mut self.0.lock())
    }
}

#[derive(Clone, Copy)]
enum State {
    Header,
    /// Blocks of a sparse file's holes, and then so many bytes of it.
    Sparse {
        seen: usize,
        then: u64,
    },
    /// So many bytes of content and of padding.
    Content {
        left: u64,
        padding: u64,
    },
    /// A set of records of which so many bytes were passed on. So many were missing at the end of the archive.
    Records {
        passed: usize,
        missing: u64,
        padding: u64,
    },
    /// Behind the mark of the end, where nobody reads headers.
    Ended,
}

impl<R: Read> Bounded<R> {
    /// Of the archive that `inner` begins with, already unpacked.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            state: State::Header,
            block: [0; BLOCK],
            filled: 0,
            passed: 0,
            records: Vec::new(),
            size: None,
            apart: None,
        }
    }

    /// Has records that the reader behind cannot read kept apart. Without, an archive in which one of them matters is refused.
    pub fn apart(&mut self) -> Apart {
        self.apart.get_or_insert_default().clone()
    }

    /// What is behind it, read as far as it was asked for.
    pub fn into_inner(self) -> R {
        self.inner
    }

    /// What a whole block makes of the state.
    fn understand(&mut self) -> io::Result<()> {
        match self.state {
            State::Header => self.header(),
            State::Sparse { seen, then } => {
                if seen > MOST_SPARSE {
                    return Err(refused(format!("a file with more than {MOST_SPARSE} blocks of holes")));
                }
                self.state = match self.block[504] {
                    1 => State::Sparse { seen: seen + 1, then },
                    _ => content(then),
                };
                Ok(())
            }
            State::Content { .. } | State::Records { .. } | State::Ended => Ok(()),
        }
    }

    fn header(&mut self) -> io::Result<()> {
        if self.block.iter().all(|byte| *byte == 0) {
            self.state = State::Ended;
            return Ok(());
        }
        let header = tar::Header::from_byte_slice(&self.block);
        // A header that cannot be read is for the reader to refuse: nothing that follows is of use to it.
        let Ok(said) = header.entry_size() else { return Ok(()) };
        let kind = header.entry_type();
        // Headers of the oldest form have no kinds beyond their own: what says so is an entry like any other.
        let known = header.as_gnu().is_some() || header.as_ustar().is_some();
        if kind.is_gnu_longname() || kind.is_gnu_longlink() {
            if said > LONGEST_NAME {
                return Err(refused(format!("a name of {said} bytes: at most {LONGEST_NAME} are read")));
            }
            if !known {
                self.size = None;
            }
            self.state = content(said);
        } else if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            if said > LARGEST_HEADERS {
                return Err(refused(format!("extended headers of {said} bytes: at most {LARGEST_HEADERS} are read")));
            }
            (self.records, self.size) = (Vec::new(), None);
            self.state = match said {
                0 => State::Header,
                _ if known && kind.is_pax_local_extensions() => self.read_records(said)?,
                _ => content(said),
            };
        } else {
            let size = self.size.take().unwrap_or(said);
            let more = kind.is_gnu_sparse() && self.block[482] == 1;
            self.state = if more { State::Sparse { seen: 0, then: size } } else { content(size) };
        }
        Ok(())
    }

    /// Reads a set of records, which is passed on when all of it is known.
    fn read_records(&mut self, said: u64) -> io::Result<State> {
        self.inner.by_ref().take(said).read_to_end(&mut self.records)?;
        let (missing, padding) = (said - self.records.len() as u64, padding_of(said));
        if missing == 0 {
            let settled = settle(&self.records).map_err(|what| refused(what.to_owned()))?;
            self.size = settled.size;
            if let Some(written) = settled.written {
                self.records = written;
            }
            match &self.apart {
                Some(apart) => *apart.0.lock() = settled.apart,
                None if settled.apart.iter().any(matters) => {
                    return Err(refused("a line break in the extended headers of a name or attribute".to_owned()));
                }
                None => {}
            }
        }
        Ok(State::Records { passed: 0, missing, padding })
    }
}

/// Whether an entry would be another without a record.
fn matters((key, _): &Record) -> bool {
    matches!(&key[..], b"path" | b"linkpath")
        || [&b"GNU.sparse."[..], b"SCHILY.xattr."].iter().any(|start| key.starts_with(start))
}

fn padding_of(size: u64) -> u64 {
    (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64
}

fn content(size: u64) -> State {
    match size {
        0 => State::Header,
        size => State::Content { left: size, padding: padding_of(size) },
    }
}

fn refused(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it has {what}"))
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // A block is looked at before any of it is passed on.
        if self.passed < self.filled {
            let some = (&self.block[self.passed..self.filled]).read(buffer)?;
            self.passed += some;
            return Ok(some);
        }
        match &mut self.state {
            State::Ended => self.inner.read(buffer),
            State::Header | State::Sparse { .. } => {
                (self.filled, self.passed) = (0, 0);
                while self.filled < BLOCK {
                    match self.inner.read(&mut self.block[self.filled..]) {
                        Ok(0) => break,
                        Ok(some) => self.filled += some,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                if self.filled == BLOCK {
                    self.understand()?;
                }
                let some = (&self.block[..self.filled]).read(buffer)?;
                self.passed = some;
                Ok(some)
            }
            State::Content { left: 0, padding } => {
                let most = usize::try_from(*padding).unwrap_or(BLOCK).min(buffer.len());
                let some = match self.inner.read(&mut buffer[..most])? {
                    0 => {
                        buffer[..most].fill(0);
                        most
                    }
                    some => some,
                };
                *padding -= some as u64;
                if *padding == 0 {
                    self.state = State::Header;
                }
                Ok(some)
            }
            State::Content { left, padding } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                let some = self.inner.read(&mut buffer[..most])?;
                *left -= some as u64;
                if *left == 0 && *padding == 0 {
                    self.state = State::Header;
                }
                Ok(some)
            }
            State::Records { passed, missing, padding } => {
                let some = (&self.records[*passed..]).read(buffer)?;
                *passed += some;
                if *passed == self.records.len() {
                    self.state = match (*missing, *padding) {
                        (0, 0) => State::Header,
                        (left, padding) => State::Content { left, padding },
                    };
                }
                Ok(some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(kind: u8, size: u64) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn through(archive: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Bounded::new(archive).read_to_end(&mut out).map(|_| out)
    }

    /// A set of extended headers in front of whatever comes.
    fn records(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_pax_extensions(pairs.iter().map(|(key, value)| (*key, value.as_bytes()))).unwrap();
        let mut bytes = archive.into_inner().unwrap();
        bytes.truncate(1024);
        bytes
    }

    #[test]
    fn headers_larger_than_any_real_one_are_refused_before_they_are_read() {
        for (kind, size, words) in [
            (b'L', 200 << 20, "it has a name of 209715200 bytes: at most 16384 are read"),
            (b'K', 1 << 20, "it has a name of 1048576 bytes"),
            (b'x', 200 << 20, "it has extended headers of 209715200 bytes: at most 1048576 are read"),
            (b'g', 200 << 20, "it has extended headers of 209715200 bytes"),
        ] {
            let archive = io::Read::chain(io::Cursor::new(header(kind, size)), io::repeat(b'a'));
            let refused = Bounded::new(archive).read_to_end(&mut Vec::new()).unwrap_err();
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }

    #[test]
    fn a_bomb_behind_an_honest_entry_is_found() {
        // The size that counts is that of the extended headers, not of the entry's own.
        let mut bytes = records(&[("size", "1024")]);
        bytes.extend(header(b'0', 0));
        bytes.extend([b'c'; 1024]);
        bytes.extend(header(b'L', 1 << 30));
        assert!(through(&bytes).unwrap_err().to_string().contains("a name of 1073741824 bytes"));
    }

    #[test]
    fn a_bomb_is_found_where_the_reader_takes_another_size() {
        // Each of these would hide what follows it from whoever believed the larger size.
        let old = |kind: u8| {
            let mut block = header(kind, 512);
            block[257..265].fill(0);
            let mut header = tar::Header::from_byte_slice(&block).clone();
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        let body = |text: &str| {
            let mut block = format!("{} {text}\n", text.len() + 4).into_bytes();
            block.resize(512, 0);
            block
        };
        let global_between = [records(&[("size", "4096")]), header(b'g', 0)].concat();
        let of_the_oldest_form = [old(b'x'), body("size=4096")].concat();
        for (at, start) in [global_between, of_the_oldest_form].into_iter().enumerate() {
            let archive = [start, header(b'0', 0), header(b'L', 1 << 30), vec![b'a'; 8192]].concat();
            let refused = through(&archive).expect_err(&format!("number {at}"));
            assert!(refused.to_string().contains("a name of 1073741824 bytes"), "number {at}: {refused}");
        }
    }

    /// What an entry is called and how long it is, for the reader behind.
    type Seen = (Vec<u8>, u64, Vec<Record>);

    fn entries(archive: &[u8]) -> io::Result<Vec<Seen>> {
        let mut bounded = Bounded::new(archive);
        let apart = bounded.apart();
        let mut tar = tar::Archive::new(bounded);
        let read = tar.entries()?.map(|entry| {
            let entry = entry?;
            Ok((entry.path_bytes().into_owned(), entry.size(), apart.take()))
        });
        read.collect()
    }

    #[test]
    fn extended_headers_are_read_by_their_lengths_and_the_last_counts() {
        let value = "a\nb";
        let start =
            records(&[("comment", value), ("size", "0"), ("path", "first"), ("size", "1024"), ("path", "last")]);
        let bytes = [start, header(b'0', 0), vec![b'c'; 1024], header(b'0', 0), vec![0; 1024]].concat();
        let read = entries(&bytes).unwrap();
        let apart = (b"comment".to_vec(), value.as_bytes().to_vec());
        assert_eq!(read, [(b"last".to_vec(), 1024, vec![apart]), (Vec::new(), 0, Vec::new())]);
        // Whoever cannot take them over reads on, or is told where it matters.
        assert_eq!(through(&bytes).unwrap().len(), bytes.len());
        for key in ["path", "linkpath", "SCHILY.xattr.security.capability", "GNU.sparse.name"] {
            let bytes = [records(&[(key, value)]), header(b'0', 0), vec![0; 1024]].concat();
            let refused = through(&bytes).unwrap_err().to_string();
            assert!(refused.contains("a line break in the extended headers"), "{refused}");
        }
        let mut broken = [records(&[("aaaa", "b"), ("size", "4096")]), header(b'0', 0)].concat();
        broken[512] = b'x';
        assert!(through(&broken).unwrap_err().to_string().contains("it has extended headers that cannot be read"));
        // A set that is cut off is no set.
        let cut = &bytes[..520];
        assert_eq!(through(cut).unwrap(), cut);
        assert!(entries(cut).is_err());
    }

    #[test]
    fn holes_without_end_are_refused() {
        let mut start = header(b'S', 0);
        start[482] = 1;
        let mut header = tar::Header::from_byte_slice(&start).clone();
        header.set_cksum();
        let archive = io::Read::chain(io::Cursor::new(header.as_bytes().to_vec()), io::repeat(1));
        let refused = Bounded::new(archive).read_to_end(&mut Vec::new()).unwrap_err();
        assert!(refused.to_string().contains("blocks of holes"), "{refused}");
    }

    #[test]
    fn an_archive_may_end_behind_its_last_file() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        archive.append_data(&mut header, "file", b"12345".as_slice()).unwrap();
        let whole = archive.into_inner().unwrap();
        let read = |bytes: &[u8]| -> io::Result<String> {
            let mut tar = tar::Archive::new(Bounded::new(bytes));
            let mut text = String::new();
            for entry in tar.entries()? {
                entry?.read_to_string(&mut text)?;
            }
            Ok(text)
        };
        for length in [whole.len(), 1024 + 512, 1024, 512 + 100, 512 + 5] {
            assert_eq!(read(&whole[..length]).unwrap(), "12345", "{length}");
        }
        for length in [512 + 4, 512, 100] {
            assert!(read(&whole[..length]).is_err(), "{length}");
        }
    }

    #[test]
    fn what_follows_the_end_is_not_looked_at() {
        let archive = [vec![0; 512], header(b'L', 1 << 30), vec![b'a'; 600]].concat();
        assert_eq!(through(&archive).unwrap(), archive);
    }

    proptest! {
        #[test]
        fn an_honest_archive_is_passed_on_as_it_is(
            files in proptest::collection::vec(("[a-z]{1,150}", 0_usize..3000), 0..6),
            piece in 1_usize..2000,
        ) {
            let mut archive = tar::Builder::new(Vec::new());
            for (name, size) in &files {
                archive.append_pax_extensions([("SCHILY.xattr.user.x", name.as_bytes())]).unwrap();
                let mut header = tar::Header::new_gnu();
                header.set_size(*size as u64);
                archive.append_data(&mut header, name, vec![b'L'; *size].as_slice()).unwrap();
            }
            let archive = archive.into_inner().unwrap();
            let mut bounded = Bounded::new(archive.as_slice());
            let (mut out, mut buffer) = (Vec::new(), vec![0; piece]);
            loop {
                match bounded.read(&mut buffer).unwrap() {
                    0 => break,
                    some => out.extend_from_slice(&buffer[..some]),
                }
            }
            prop_assert_eq!(out, archive);
        }

        #[test]
        fn noise_never_panics(noise in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = through(&noise);
        }
    }
}
