//! What is remembered, a second time: a file beside each thing that is stored, so that a lost or broken database loses
//! nothing.
//!
//! ```text
//! <data_root>/containers/<id>/record.json    name, and what was decided at create
//! <data_root>/containers/<id>/state.json     name, and what changes; written at each change
//! <data_root>/volumes/<name>/volume.json     options and labels; `_data` beside it is the user's
//! <data_root>/networks/<id>.json
//! ```
//!
//! The database decides while it is there. A folder that it does not know, and that has such a file, is adopted when the
//! engine starts; one of a container without it is what a create or a removal left that was cut short.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The most bytes of one record that are read.
const MAX_RECORD: u64 = 16 << 20;

/// A container as its folder tells it. Both parts are the database's, opaque here.
#[derive(Debug)]
pub(crate) struct StoredWorkload {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) fixed: String,
    pub(crate) moving: String,
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: String,
    record: Box<RawValue>,
}

/// Where the records lie.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    root: PathBuf,
}

impl Records {
    pub(crate) fn new(data_root: &Path) -> Self {
        Self { root: data_root.to_owned() }
    }

    /// What a failure to write a record is told of.
    pub(crate) fn path_of(&self, id: &str) -> PathBuf {
        self.container(id)
    }

    fn container(&self, id: &str) -> PathBuf {
        self.root.join("containers").join(id)
    }

    /// Writes down a workload that was created.
    pub(crate) fn put_fixed(&self, id: &str, name: &str, fixed: &str) -> io::Result<()> {
        put(&self.container(id).join("record.json"), &named(name, fixed)?)
    }

    /// Writes down what changed of it. One whose folder is gone is being removed, and is left alone.
    pub(crate) fn put_moving(&self, id: &str, name: &str, moving: &str) -> io::Result<()> {
        match put(&self.container(id).join("state.json"), &named(name, moving)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    pub(crate) fn has_workload(&self, id: &str) -> bool {
        self.container(id).join("record.json").is_file()
    }

    /// Every workload that a folder tells of. What cannot be read is told in the log and stays where it is.
    pub(crate) fn workloads(&self) -> Vec<StoredWorkload> {
        let mut found = Vec::new();
        for (id, folder) in folders(&self.root.join("containers")) {
            let (record, state) = (folder.join("record.json"), folder.join("state.json"));
            if !record.is_file() {
                continue;
            }
            match (get::<Named>(&record), get::<Named>(&state)) {
                (Ok(record), Ok(state)) => found.push(StoredWorkload {
                    id,
                    name: state.name,
                    fixed: record.record.get().to_owned(),
                    moving: state.record.get().to_owned(),
                }),
                (Err(error), _) | (_, Err(error)) => {
                    tracing::warn!(path = %folder.display(), %error, "the record of a container cannot be read; its folder stays as it is");
                }
            }
        }
        found
    }

    pub(crate) fn put_volume(&self, name: &str, record: &str) -> io::Result<()> {
        put(&self.root.join("volumes").join(name).join("volume.json"), record.as_bytes())
    }

    /// Every folder of a volume, and its record where there is one that can be read.
    pub(crate) fn volumes<T: for<'de> Deserialize<'de>>(&self) -> Vec<(String, PathBuf, Option<T>)> {
        let volumes = folders(&self.root.join("volumes")).into_iter();
        volumes
            .filter(|(_, folder)| folder.join("_data").is_dir())
            .map(|(name, folder)| (name, folder.join("_data"), get(&folder.join("volume.json")).ok()))
            .collect()
    }

    pub(crate) fn put_network(&self, id: &str, record: &str) -> io::Result<()> {
        let folder = self.root.join("networks");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        put(&folder.join(format!("{id}.json")), record.as_bytes())
    }

    pub(crate) fn delete_network(&self, id: &str) {
        let _ = fs::remove_file(self.root.join("networks").join(format!("{id}.json")));
    }

    pub(crate) fn networks<T: for<'de> Deserialize<'de>>(&self) -> Vec<T> {
        let entries = fs::read_dir(self.root.join("networks")).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
            .filter_map(|entry| match get(&entry.path()) {
                Ok(network) => Some(network),
                Err(error) => {
                    tracing::warn!(path = %entry.path().display(), %error, "the record of a network cannot be read");
                    None
                }
            })
            .collect()
    }
}

fn named(name: &str, record: &str) -> io::Result<Vec<u8>> {
    let record = RawValue::from_string(record.to_owned())?;
    Ok(serde_json::to_vec(&Named { name: name.to_owned(), record })?)
}

/// Whole or not at all; closed to others, since environments hold secrets.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(bytes)?;
    fs::rename(&unfinished, path)
}

fn get<T: for<'de> Deserialize<'de>>(path: &Path) -> io::Result<T> {
    let file = fs::File::open(path)?;
    if file.metadata()?.len() > MAX_RECORD {
        return Err(io::Error::other(format!("it is larger than {} MiB", MAX_RECORD >> 20)));
    }
    Ok(serde_json::from_reader(io::BufReader::new(file))?)
}

/// The folders in `folder`, links left out, by name.
fn folders(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}
