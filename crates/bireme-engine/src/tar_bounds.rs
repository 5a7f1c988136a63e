//! Bounds on what the headers of a tar archive may make its reader hold.
//!
//! A long name or a set of extended headers is read whole before its entry is: 200 KB of gzip can stand for gigabytes of
//! them. This reader passes an archive on as it is and breaks it off at the first header that is larger than any real one.
//!
//! Source: POSIX.1-2017, pax; GNU tar, "Basic Tar Format".

use std::io::{self, Read};

/// Bytes of a GNU long name or long link: the kernel takes paths of 4,096.
const LONGEST_NAME: u64 = 16 << 10;
/// Bytes of a set of extended headers: names, times, and attributes of at most 64 KiB each.
const LARGEST_HEADERS: u64 = 1 << 20;
/// GNU's blocks of further holes that follow one header; 21 holes each.
const MOST_SPARSE: usize = 10_000;

const BLOCK: usize = 512;

/// Passes a tar archive on, and refuses headers beyond the bounds.
pub(crate) struct Bounded<R> {
    inner: R,
    state: State,
    block: [u8; BLOCK],
    /// Bytes of `block` that were read.
    filled: usize,
    /// Bytes of `block` that were passed on.
    passed: usize,
    /// The records of extended headers that are being read, for the size of the entry they are about.
    records: Vec<u8>,
    /// The size that extended headers give the next entry.
    size: Option<u64>,
}

#[derive(Clone, Copy)]
enum State {
    Header,
    /// Blocks of a sparse file's holes, and then so many bytes of it.
    Sparse {
        seen: usize,
        then: u64,
    },
    /// So many bytes of content, padding included.
    Content(u64),
    /// So many bytes of records and of padding.
    Records {
        left: u64,
        padding: u64,
    },
}

impl<R: Read> Bounded<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, state: State::Header, block: [0; BLOCK], filled: 0, passed: 0, records: Vec::new(), size: None }
    }

    /// What a whole block makes of the state.
    fn understand(&mut self) -> io::Result<()> {
        match self.state {
            State::Header => self.header(),
            State::Sparse { seen, then } => {
                if seen > MOST_SPARSE {
                    return Err(refused(format!("a file has more than {MOST_SPARSE} blocks of holes")));
                }
                self.state = match self.block[504] {
                    0 => content(then),
                    _ => State::Sparse { seen: seen + 1, then },
                };
                Ok(())
            }
            State::Content(_) | State::Records { .. } => Ok(()),
        }
    }

    fn header(&mut self) -> io::Result<()> {
        if self.block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let header = tar::Header::from_byte_slice(&self.block);
        // A header that cannot be read is for the reader to refuse: nothing that follows is of use to it.
        let Ok(said) = header.entry_size() else { return Ok(()) };
        let kind = header.entry_type();
        if kind.is_gnu_longname() || kind.is_gnu_longlink() {
            if said > LONGEST_NAME {
                return Err(refused(format!("a name of {said} bytes: at most {LONGEST_NAME} are read")));
            }
            self.state = content(said);
        } else if kind.is_pax_local_extensions() || kind.is_pax_global_extensions() {
            if said > LARGEST_HEADERS {
                return Err(refused(format!("extended headers of {said} bytes: at most {LARGEST_HEADERS} are read")));
            }
            self.records.clear();
            if kind.is_pax_local_extensions() {
                self.state = match said {
                    0 => State::Header,
                    _ => State::Records { left: said, padding: said.next_multiple_of(BLOCK as u64) - said },
                };
            } else {
                self.state = content(said);
            }
        } else {
            let size = self.size.take().unwrap_or(said);
            let more = kind.is_gnu_sparse() && self.block[482] != 0;
            self.state = if more { State::Sparse { seen: 0, then: size } } else { content(size) };
        }
        Ok(())
    }

    /// The last `size` of a set of records.
    fn size_of_records(&mut self) {
        let sizes = tar::PaxExtensions::new(&self.records).filter_map(|record| {
            let record = record.ok()?;
            (record.key_bytes() == b"size").then(|| record.value().ok()?.parse().ok())?
        });
        self.size = sizes.last();
        self.records = Vec::new();
    }
}

fn content(size: u64) -> State {
    match size {
        0 => State::Header,
        size => State::Content(size.checked_next_multiple_of(BLOCK as u64).unwrap_or(u64::MAX)),
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
            State::Content(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                let some = self.inner.read(&mut buffer[..most])?;
                *left -= some as u64;
                if *left == 0 {
                    self.state = State::Header;
                }
                Ok(some)
            }
            State::Records { left, padding } => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                let some = self.inner.read(&mut buffer[..most])?;
                self.records.extend_from_slice(&buffer[..some]);
                *left -= some as u64;
                if *left == 0 {
                    self.state = if *padding == 0 { State::Header } else { State::Content(*padding) };
                    self.size_of_records();
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

    #[test]
    fn headers_larger_than_any_real_one_are_refused_before_they_are_read() {
        for (kind, size, words) in [
            (b'L', 200 << 20, "a name of 209715200 bytes: at most 16384 are read"),
            (b'K', 1 << 20, "a name of 1048576 bytes"),
            (b'x', 200 << 20, "extended headers of 209715200 bytes: at most 1048576 are read"),
            (b'g', 200 << 20, "extended headers of 209715200 bytes"),
        ] {
            let archive = io::Read::chain(io::Cursor::new(header(kind, size)), io::repeat(b'a'));
            let refused = Bounded::new(archive).read_to_end(&mut Vec::new()).unwrap_err();
            assert!(refused.to_string().contains(words), "{refused}");
        }
    }

    #[test]
    fn a_bomb_behind_an_honest_entry_is_found() {
        // The size that counts is that of the extended headers, not of the entry's own.
        let mut archive = tar::Builder::new(Vec::new());
        archive.append_pax_extensions([("size", b"1024".as_slice())]).unwrap();
        let mut bytes = archive.into_inner().unwrap();
        bytes.truncate(1024);
        bytes.extend(header(b'0', 0));
        bytes.extend([b'c'; 1024]);
        bytes.extend(header(b'L', 1 << 30));
        assert!(through(&bytes).unwrap_err().to_string().contains("a name of 1073741824 bytes"));
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
