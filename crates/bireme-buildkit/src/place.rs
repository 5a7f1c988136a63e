//! Places in a source file, as errors and warnings point at them (`solver/pb/ops.proto`: `SourceInfo`, `Range`).

use bollard_buildkit_proto::pb;

/// A source file as it was read, so that a client can print the lines which an error or a warning is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFile {
    /// Its name as the user knows it: `Dockerfile`.
    pub filename: String,
    /// The language it is in: `Dockerfile`.
    pub language: String,
    /// All of it.
    pub data: Vec<u8>,
}

/// Whole lines of a source file, counted from 1, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    /// The first line.
    pub start: u32,
    /// The last line.
    pub end: u32,
}

impl From<&SourceFile> for pb::SourceInfo {
    fn from(file: &SourceFile) -> Self {
        Self {
            filename: file.filename.clone(),
            language: file.language.clone(),
            data: file.data.clone(),
            definition: None,
        }
    }
}

impl From<&Lines> for pb::Range {
    fn from(lines: &Lines) -> Self {
        let position = |line: u32| Some(pb::Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        Self { start: position(lines.start), end: position(lines.end) }
    }
}
