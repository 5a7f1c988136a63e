//! The log file of a container.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use bireme_core::executor::LogTarget;
use bireme_core::log_line::{Splitter, Stream};

use crate::journal;

/// Appends records and rotates. Trouble never reaches the container: lines are lost, and that is noted once.
pub(crate) struct Log {
    target: LogTarget,
    file: Option<File>,
    size: u64,
    noted: bool,
    /// The last record was cut off; the next begins on a line of its own.
    torn: bool,
    splitters: [Splitter; 2],
    buffer: Vec<u8>,
}

impl Log {
    pub(crate) fn open(target: &LogTarget) -> Self {
        let mut log = Self {
            target: target.clone(),
            file: None,
            size: 0,
            noted: false,
            torn: false,
            splitters: [Splitter::new(Stream::Stdout), Splitter::new(Stream::Stderr)],
            buffer: Vec::new(),
        };
        log.reopen();
        log
    }

    fn reopen(&mut self) {
        use std::os::unix::fs::OpenOptionsExt as _;
        let Some(path) = &self.target.path else { return };
        match File::options().create(true).append(true).mode(0o640).open(path) {
            Ok(file) => {
                self.size = file.metadata().map_or(0, |meta| meta.len());
                self.file = Some(file);
            }
            Err(error) => self.trouble(&error),
        }
    }

    fn trouble(&mut self, error: &std::io::Error) {
        if !self.noted {
            journal::note(format_args!("output is not logged any more: {error}; free space or mend the log's folder"));
            self.noted = true;
        }
    }

    /// Takes output as it came.
    pub(crate) fn push(&mut self, stream: Stream, bytes: &[u8], time: i64) {
        if self.target.path.is_none() {
            return;
        }
        let splitter = &mut self.splitters[usize::from(stream == Stream::Stderr)];
        splitter.push(bytes, time, &mut self.buffer);
        self.write();
    }

    /// Writes what stands without a line end.
    pub(crate) fn finish(&mut self, time: i64) {
        for splitter in &mut self.splitters {
            splitter.finish(time, &mut self.buffer);
        }
        self.write();
    }

    fn write(&mut self) {
        let mut records = std::mem::take(&mut self.buffer);
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let take = self.fitting(rest);
            if take == 0 {
                self.rotate();
                continue;
            }
            self.append(&rest[..take]);
            rest = &rest[take..];
        }
        records.clear();
        // Kept for the next time, unless one burst made it large.
        if records.capacity() <= 256 << 10 {
            self.buffer = records;
        }
    }

    /// How many bytes of whole records the file has room for; an empty one takes any single record.
    fn fitting(&self, records: &[u8]) -> usize {
        let Some(most) = self.target.max_size else { return records.len() };
        let room = usize::try_from(most.saturating_sub(self.size)).unwrap_or(usize::MAX);
        if records.len() <= room {
            return records.len();
        }
        let whole = records[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole == 0 && self.size == 0 {
            records.iter().position(|byte| *byte == b'\n').map_or(records.len(), |at| at + 1)
        } else {
            whole
        }
    }

    fn append(&mut self, records: &[u8]) {
        if self.file.is_none() {
            self.reopen();
        }
        let Some(mut file) = self.file.as_ref() else { return };
        if self.torn && file.write(b"\n").is_ok_and(|count| count == 1) {
            self.torn = false;
        }
        match file.write(records) {
            Ok(written) => {
                self.size += written as u64;
                if written < records.len() {
                    self.torn = true;
                    self.trouble(&std::io::ErrorKind::StorageFull.into());
                }
            }
            Err(error) => self.trouble(&error),
        }
    }

    fn rotate(&mut self) {
        let Some(path) = self.target.path.clone() else { return };
        let most = self.target.max_files.max(1);
        self.file = None;
        for number in (1..most).rev() {
            let from = if number == 1 { path.clone() } else { numbered(&path, number - 1) };
            if let Err(error) = fs::rename(from, numbered(&path, number))
                && error.kind() != std::io::ErrorKind::NotFound
            {
                self.trouble(&error);
            }
        }
        if most == 1 {
            let _ = fs::remove_file(&path);
        }
        self.size = 0;
        self.reopen();
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}
