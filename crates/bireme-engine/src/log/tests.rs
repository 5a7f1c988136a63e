//! Logs read from their last records on and from a time on, and files that are no log or hold what is no record.

use std::path::Path;

use bireme_core::log_line::{self, Stream as Output};
use rustix::fs::{self, CWD, FileType, Mode};

use super::file::*;
use super::place::*;
use super::watcher::*;
use super::*;
use proptest::prelude::*;
use std::io::Write as _;

fn written(bytes: &[u8]) -> LogFile {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    LogFile::new(file, 0)
}

fn line(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    log_line::encode(&mut out, Output::Stdout, text.as_bytes(), 1);
    out
}

fn texts(file: &mut LogFile) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(records) = file.next_records().unwrap() {
        all.extend(records.into_iter().map(|record| record.text));
        assert!(file.pending.capacity() <= 4 * (LONGEST + CHUNK), "{} bytes", file.pending.capacity());
    }
    all
}

#[test]
fn a_line_without_end_is_passed_over_in_flat_memory() {
    let mut bytes = line("before\n");
    bytes.extend(std::iter::repeat_n(b'a', 20 << 20));
    bytes.push(b'\n');
    bytes.extend(line("after\n"));
    assert_eq!(texts(&mut written(&bytes)), ["before\n", "after\n"]);
}

#[test]
fn the_longest_record_is_read() {
    let longest = "\u{1}".repeat(log_line::MAX_TEXT);
    assert_eq!(texts(&mut written(&line(&longest))), [longest]);
}

#[test]
fn a_file_that_is_no_log_is_read_for_a_moment_and_no_longer() {
    let file = tempfile::tempfile().unwrap();
    // On one side of the hole a record each, so that both directions have to pass it.
    let hole = 4_u64 << 40;
    std::os::unix::fs::FileExt::write_all_at(&file, &line("first\n"), 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &line("last\n"), hole).unwrap();
    let all = LogQuery { stdout: true, stderr: true, follow: false, since: None, until: None, tail: None };
    let mut log = LogFile::new(file.try_clone().unwrap(), 0);
    let (mut told, mut turns) = (Vec::new(), 0);
    let refused = loop {
        turns += 1;
        match log.turn(&all, || false) {
            Ok((records, _)) => told.extend(records.into_iter().map(|record| record.text)),
            Err(error) => break error,
        }
    };
    assert_eq!(told, ["first\n"]);
    assert!(refused.to_string().contains("are no records"), "{refused}");
    assert!(turns <= 1 + MOST_JUNK as usize / TURN_READ, "{turns} turns");
    let mut log = LogFile::new(file, 0);
    // The end of the record that stands behind the hole is a line's; its beginning is not found.
    assert!(log.seek_last(10, || false).unwrap() <= 1);
    assert!(log.file.stream_position().unwrap() > hole - (1 << 30));
}

#[test]
fn reading_ends_when_nobody_waits_for_it_and_lets_others_read() {
    let one = line(&"x".repeat(1000));
    let bytes = one.repeat(20 << 10);
    let query = |since| LogQuery { stdout: true, stderr: true, follow: false, since, until: None, tail: None };
    let mut log = written(&bytes);
    assert_eq!(log.turn(&query(None), || true).unwrap(), (Vec::new(), End::All));
    // Records that are not wanted do not make a turn longer.
    assert_eq!(log.turn(&query(Some(i64::MAX)), || false).unwrap(), (Vec::new(), End::Turn));
    assert_eq!(log.file.stream_position().unwrap(), TURN_READ as u64);
    let (records, end) = log.turn(&query(None), || false).unwrap();
    assert_eq!(end, End::Turn);
    assert!(records.len() * 1000 < 2 * TURN_FOUND, "{} records", records.len());
    let looked = std::cell::Cell::new(0);
    let vain = || {
        looked.set(looked.get() + 1);
        looked.get() > 3
    };
    log.seek_last(usize::MAX, vain).unwrap();
    assert_eq!(looked.get(), 4);
}

#[test]
fn only_a_regular_file_of_one_name_is_taken_for_a_log() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let place = Place { path: at("log"), rotated: 2 };
    let refused = |what: &str| {
        let error = place.open(0).err().unwrap_or_else(|| panic!("{what} was opened"));
        assert!(error.to_string().contains("is no log file"), "{what}: {error}");
        std::fs::remove_file(at("log")).unwrap();
    };
    assert!(place.open(0).unwrap().is_none() && place.inode(0).unwrap().is_none());
    std::fs::write(at("secret"), line("of another\n")).unwrap();
    std::os::unix::fs::symlink(at("secret"), at("log")).unwrap();
    assert_ne!(place.inode(0).unwrap(), Some(std::os::unix::fs::MetadataExt::ino(&at("secret").metadata().unwrap())));
    refused("a link");
    std::fs::hard_link(at("secret"), at("log")).unwrap();
    refused("a second name");
    fs::mknodat(CWD, at("log"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    refused("a pipe");
    std::fs::write(at("log"), line("own\n")).unwrap();
    assert_eq!(texts(&mut place.open(0).unwrap().unwrap()), ["own\n"]);
    // Without end, and each a link: no more are looked at than the workload may have.
    for number in 1..10 {
        std::os::unix::fs::symlink("nowhere", at(&format!("log.{number}"))).unwrap();
    }
    assert_eq!(place.rotated().unwrap(), 2);
}

#[tokio::test]
async fn a_log_that_cannot_be_watched_is_looked_at_now_and_then() {
    let mut watch = Watch::new(Path::new("/nowhere"));
    assert!(matches!(watch, Watch::Asked));
    tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.unwrap();
}

proptest! {
    #[test]
    fn reading_begins_at_the_last_records(lines in proptest::collection::vec("[a-z]{0,3000}", 0..80), count in 0_usize..90) {
        let bytes: Vec<u8> = lines.iter().flat_map(|text| line(text)).chain(*b"{\"log\":\"half").collect();
        let mut file = written(&bytes);
        let found = file.seek_last(count, || false).unwrap();
        prop_assert_eq!(found, count.min(lines.len()));
        prop_assert_eq!(texts(&mut file), &lines[lines.len() - found..]);
    }
}
