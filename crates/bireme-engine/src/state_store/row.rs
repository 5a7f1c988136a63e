//! What stands in a row: records with their sums, and what can be read of those that are damaged.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::container::MutableState;
use crate::seal::{Seal, check, seal};
use crate::view::{Config, Network, Volume};

/// The copy of what moves of a workload.
#[derive(Deserialize)]
pub(super) struct MutableRecord<M> {
    pub(super) name: String,
    #[serde(rename = "moving")]
    pub(super) mutable: M,
}

/// A network or volume whose record cannot be read: it stays as it is.
#[derive(Clone, Debug)]
pub(crate) struct Unread {
    pub(crate) key: String,
    pub(crate) name: String,
    /// Whatever that is.
    pub(crate) record: String,
}

/// What a record is read as.
pub(crate) trait Record: DeserializeOwned {
    /// Whether it is the record of the thing with this key and name: a record that was damaged, or whose row was, may be
    /// another's.
    fn is_of(&self, key: &str, name: &str) -> bool;
}

impl Record for Config {
    fn is_of(&self, key: &str, _name: &str) -> bool {
        self.spec.id.as_str() == key
    }
}

impl Record for MutableState {
    fn is_of(&self, _key: &str, _name: &str) -> bool {
        true
    }
}

impl Record for Network {
    fn is_of(&self, key: &str, name: &str) -> bool {
        self.id == key && self.name == name
    }
}

impl Record for Volume {
    fn is_of(&self, key: &str, name: &str) -> bool {
        self.name == key && self.name == name
    }
}

/// Reads the record of the thing `key` that is called `name`, whose sum is of `of`.
///
/// # Errors
/// In words: why it cannot be relied on.
pub(super) fn read<T: Record>(of: &str, key: &str, name: &str, text: &str) -> Result<T, String> {
    if check(of, text) == Seal::Broken {
        return Err("its sum is that of another text: it was damaged on the disk".to_owned());
    }
    let record: T = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if record.is_of(key, name) { Ok(record) } else { Err("it is that of something else".to_owned()) }
}

/// A column of text. A byte that is none costs the row at most, as its sum is that of another text then.
pub(super) fn text(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(String::from_utf8_lossy(row.get_ref(column)?.as_bytes()?).into_owned())
}

/// Of a workload, each part that is whole in its row (name, config, state) or in the copies: the config, and the name with the
/// newest state.
pub(super) fn whole_parts(
    id: &str,
    row: Option<&[String; 3]>,
    copies: &(Option<Config>, Option<MutableRecord<MutableState>>),
) -> (Option<String>, Option<(String, String)>) {
    let config = row.map(|[_, config, _]| config).filter(|text| read::<Config>(&of_config(id), id, "", text).is_ok());
    let config = config.cloned().or_else(|| copies.0.as_ref().map(|config| sealed(&of_config(id), config)));
    let state = row.filter(|[.., state]| read::<MutableState>(&of_mutable(id), id, "", state).is_ok());
    let state = state.map(|[name, _, state]| (name.clone(), state.clone()));
    let copied = || copies.1.as_ref().map(|copy| (copy.name.clone(), sealed(&of_mutable(id), &copy.mutable)));
    let older =
        |state: &(String, String)| copies.1.as_ref().is_some_and(|copy| written(&state.1) < copy.mutable.written);
    let state = match state {
        Some(state) if !older(&state) => Some(state),
        state => copied().or(state),
    };
    (config, state)
}

/// What the sum is of, of the part of a workload that was fixed at create.
pub(super) fn of_config(id: &str) -> String {
    format!("config {id}")
}

/// The same of the part that changes.
pub(super) fn of_mutable(id: &str) -> String {
    format!("state {id}")
}

pub(super) fn written(mutable: &str) -> i64 {
    serde_json::from_str::<Written>(mutable).map_or(i64::MIN, |record| record.written)
}

/// The text of a record, with the sum of it.
pub(super) fn sealed(of: &str, value: &impl Serialize) -> String {
    seal(of, json(value))
}

pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("records hold only maps with text keys")
}

/// When a record was written; of anything that has no such time, none.
#[derive(Deserialize)]
pub(super) struct Written {
    #[serde(default)]
    pub(super) written: i64,
}
