//! A second copy of what is remembered, a small file for each thing, from which a lost database is made anew.
//!
//! ```text
//! <data_root>/records/workloads/<id>.fixed     view::Config
//! <data_root>/records/workloads/<id>.moving    the name and container::MutableState
//! <data_root>/records/networks/<id>            view::Network
//! <data_root>/records/volumes/<name>           view::Volume
//! ```
//!
//! They do not lie in the folders of the things themselves: a component's host may write into its own. A record is
//! written after the database has it and goes before the database forgets it, so that none is ever ahead.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::seal::{Seal, check};

/// Bytes of one record; what is larger is none of ours.
const LIMIT: u64 = 64 << 20;

/// Beside each other so that a name of 255 bytes fits and so that none can be taken for another.
const NEW: &str = ".new";

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Workload,
    Network,
    Volume,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Workload => "workloads",
            Self::Network => "networks",
            Self::Volume => "volumes",
        }
    }
}

/// The folder of all records.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    root: PathBuf,
}

impl Records {
    pub(crate) fn open(data_root: &Path) -> io::Result<Self> {
        let root = data_root.join("records");
        for kind in [Kind::Workload, Kind::Network, Kind::Volume] {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root.join(kind.folder()))?;
        }
        Ok(Self { root })
    }

    fn path(&self, kind: Kind, name: &str) -> PathBuf {
        self.root.join(kind.folder()).join(name)
    }

    /// Whole or not at all. Blocking.
    pub(crate) fn put(&self, kind: Kind, name: &str, text: &str) -> io::Result<()> {
        let new = self.root.join(NEW);
        // One writer at a time: whoever writes holds the connection to the database.
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&new, self.path(kind, name))
    }

    /// Nothing where nothing is. Blocking.
    pub(crate) fn forget(&self, kind: Kind, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path(kind, name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Whether there is one with something in it: what was written just before a power cut may be empty.
    pub(crate) fn has(&self, kind: Kind, name: &str) -> bool {
        std::fs::metadata(self.path(kind, name)).is_ok_and(|about| about.len() > 0)
    }

    /// What stands in one, whatever that is. Blocking.
    pub(crate) fn text(&self, kind: Kind, name: &str) -> Option<String> {
        let mut bytes = Vec::new();
        File::open(self.path(kind, name)).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// `None` where there is none, or none that can be read; its sum is of `of`. Blocking.
    pub(crate) fn get<T: DeserializeOwned>(&self, kind: Kind, name: &str, of: &str) -> Option<T> {
        let path = self.path(kind, name);
        let mut text = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(LIMIT).read_to_end(&mut text));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a record cannot be read");
                return None;
            }
            Ok(_) => {}
        }
        if std::str::from_utf8(&text).is_ok_and(|text| check(of, text) == Seal::Broken) {
            tracing::warn!(path = %path.display(), "a record is damaged: its sum is that of another text");
            return None;
        }
        serde_json::from_slice(&text)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "a record is damaged"))
            .ok()
    }

    /// Names of all records of a kind. Blocking.
    pub(crate) fn names(&self, kind: Kind) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join(kind.folder())).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_record_is_closed_to_others_and_read_again_or_not_at_all() {
        let temp = tempfile::tempdir().unwrap();
        let records = Records::open(temp.path()).unwrap();
        let name = "v".repeat(255);
        records.put(Kind::Volume, &name, "[1,2]").unwrap();
        records.put(Kind::Volume, &name, "[3]").unwrap();
        assert_eq!(records.get::<Vec<u8>>(Kind::Volume, &name, &name), Some(vec![3]));
        assert_eq!(records.names(Kind::Volume), std::slice::from_ref(&name));
        assert!(records.has(Kind::Volume, &name) && !records.has(Kind::Volume, "other"));
        std::fs::write(records.path(Kind::Volume, "other"), "").unwrap();
        assert!(!records.has(Kind::Volume, "other"));
        records.forget(Kind::Volume, "other").unwrap();
        assert!(records.names(Kind::Network).is_empty());
        let mode = |path: PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(records.path(Kind::Volume, &name)), 0o600);
        assert_eq!(mode(records.root.join("volumes")), 0o700);
        std::fs::write(records.path(Kind::Volume, &name), "[3").unwrap();
        assert_eq!(records.get::<Vec<u8>>(Kind::Volume, &name, &name), None);
        records.forget(Kind::Volume, &name).unwrap();
        records.forget(Kind::Volume, &name).unwrap();
        assert!(!records.has(Kind::Volume, &name));
    }
}
