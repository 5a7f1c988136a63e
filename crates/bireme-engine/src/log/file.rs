//! One file of a log, read piece by piece: the records of whole lines; a line that is no record is passed over.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};

use bireme_core::log_line::{self, Record, Stream as Output};

use crate::request::LogQuery;

/// How much is read at once.
pub(super) const CHUNK: usize = 64 * 1024;

/// Bytes of the longest record: its text with every byte escaped, and what stands round it. What is longer is none of ours.
pub(super) const LONGEST: usize = log_line::MAX_TEXT * 6 + 1024;

/// Bytes of one file that are no records: beyond, it is not the log that was written. A sparse file of terabytes would
/// otherwise be read for hours.
pub(super) const MOST_JUNK: u64 = 64 << 20;

/// Bytes that are read in one turn, and bytes of records that end it earlier.
pub(super) const TURN_READ: usize = 4 << 20;

pub(super) const TURN_FOUND: usize = 256 << 10;

/// Why a turn is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Turn,
    File,
    /// Nothing more is wanted, of this file or any other.
    All,
}

/// One file of the log, with what was read but is no whole record yet.
pub(super) struct LogFile {
    pub(super) file: File,
    pub(super) inode: u64,
    pub(super) pending: Vec<u8>,
    /// The record that is being read is too long to be one of ours: what is left of it is passed over.
    pub(super) skipping: bool,
    /// Bytes that were no records.
    pub(super) junk: u64,
}

impl LogFile {
    pub(super) fn new(file: File, inode: u64) -> Self {
        Self { file, inode, pending: Vec::new(), skipping: false, junk: 0 }
    }

    /// Reads on, for so long that other readers have their turn too; answers what is wanted of it.
    pub(super) fn turn(&mut self, query: &LogQuery, is_vain: impl Fn() -> bool) -> io::Result<(Vec<Record>, End)> {
        let (mut taken, mut bytes) = (Vec::new(), 0);
        for _ in 0..TURN_READ / CHUNK {
            if is_vain() {
                return Ok((Vec::new(), End::All));
            }
            let Some(records) = self.next_records()? else { return Ok((taken, End::File)) };
            for record in records {
                match judge(query, &record) {
                    Verdict::Late => return Ok((taken, End::All)),
                    Verdict::Skipped => {}
                    Verdict::Sent => {
                        bytes += record.text.len() + size_of::<Record>();
                        taken.push(record);
                    }
                }
            }
            if bytes > TURN_FOUND {
                break;
            }
        }
        Ok((taken, End::Turn))
    }

    /// The next whole records; `None` at the end of the file. What cannot be decoded is passed over.
    ///
    /// # Errors
    /// `InvalidData` where that is more than [`MOST_JUNK`].
    pub(super) fn next_records(&mut self) -> io::Result<Option<Vec<Record>>> {
        let before = self.pending.len();
        self.pending.resize(before + CHUNK, 0);
        let read = loop {
            match self.file.read(&mut self.pending[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        self.pending.truncate(before + read);
        if read == 0 {
            return Ok(None);
        }
        let end = |bytes: &[u8]| bytes.iter().position(|b| *b == b'\n').map(|at| at + 1);
        if self.skipping {
            let passed = end(&self.pending);
            self.skipping = passed.is_none();
            let passed = passed.unwrap_or(self.pending.len());
            self.junk += passed as u64;
            self.pending.drain(..passed);
        }
        let whole = self.pending.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let mut records = Vec::new();
        for line in self.pending[..whole].split_inclusive(|b| *b == b'\n') {
            match log_line::decode(line) {
                Some(record) => records.push(record),
                None => self.junk += line.len() as u64,
            }
        }
        self.pending.drain(..whole);
        if self.pending.len() > LONGEST {
            self.junk += self.pending.len() as u64;
            self.pending = Vec::new();
            self.skipping = true;
        }
        if self.junk > MOST_JUNK {
            let text = format!(
                "more than {} MiB of it are no records, so something else wrote to it: what follows is not read. \
                 Remove the file, and find out what wrote it",
                MOST_JUNK >> 20
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(Some(records))
    }

    /// Goes to where the last `count` records begin; answers how many there are, if fewer. Looks no further back than
    /// [`MOST_JUNK`] of what cannot be records.
    pub(super) fn seek_last(&mut self, count: usize, is_vain: impl Fn() -> bool) -> io::Result<usize> {
        let mut at = self.file.metadata()?.len();
        // Each record ends a line; the one behind the last line end is not whole yet.
        let mut ends = 0;
        // Where the line that is being looked through ends, and bytes of those that were too long.
        let (mut line_end, mut junk) = (at, 0);
        let too_long = |length: u64| if length > LONGEST as u64 { length } else { 0 };
        let mut chunk = vec![0; CHUNK];
        while at > 0 {
            if is_vain() || junk + too_long(line_end - at) > MOST_JUNK {
                self.file.seek(SeekFrom::Start(line_end))?;
                return Ok(ends);
            }
            let size = at.min(CHUNK as u64);
            at -= size;
            let piece = &mut chunk[..usize::try_from(size).unwrap_or(CHUNK)];
            self.file.seek(SeekFrom::Start(at))?;
            // It may have been cut meanwhile: then there is nothing to go to.
            if let Err(error) = self.file.read_exact(piece) {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    return Err(error);
                }
                self.file.seek(SeekFrom::Start(0))?;
                return Ok(0);
            }
            for (offset, _) in piece.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
                let begins = at + offset as u64 + 1;
                if ends == count {
                    self.file.seek(SeekFrom::Start(begins))?;
                    return Ok(count);
                }
                ends += 1;
                junk += too_long(line_end - begins);
                line_end = begins;
            }
        }
        self.file.seek(SeekFrom::Start(0))?;
        Ok(ends)
    }
}

/// What becomes of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Sent,
    Skipped,
    /// It is later than what was asked for, and so is all that follows.
    Late,
}

/// Pure.
pub(super) fn judge(query: &LogQuery, record: &Record) -> Verdict {
    let wanted = match record.stream {
        Output::Stdout => query.stdout,
        Output::Stderr => query.stderr,
    };
    if query.until.is_some_and(|until| record.time > until) {
        Verdict::Late
    } else if wanted && query.since.is_none_or(|since| record.time >= since) {
        Verdict::Sent
    } else {
        Verdict::Skipped
    }
}
