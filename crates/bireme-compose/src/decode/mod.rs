//! Nodes in their long form → the typed model. Every refusal names the key's path; nothing is skipped.
//!
//! How the mappings of a Compose file are read stands in the model, beside the fields ([`keyed!`](crate::read::keyed)): a
//! key is written once, and its field, the list of known keys and the reader follow from that line. Here is what needs
//! more than one mapping: files beside the Compose file, the name of the project, other services.
//!
//! Why not serde's `Deserialize` over the nodes: it was tried on `healthcheck` and `deploy`, with a deserializer that
//! knows path and line.
//! - An error of serde is a text. A refused value (`deploy.mode: global`) could not be told from a malformed one; their
//!   exit codes differ.
//! - Its own texts ("invalid value: integer `-1`, expected u32") stood where ours should, wherever it derives the reading.
//! - The names it derives can be listed only by yet another deserializer; the tables of keys ([`schema`](crate::schema)),
//!   which a test holds against the specification, would have stayed as lists of their own.
//! - Each required key, check across keys and value with a language of its own needed a function or a mirror type
//!   besides, and `env_file`, `label_file` and `build.args` need more than a node, so that little was left to derive.

mod references;
mod service;
mod top_level;

pub(crate) use references::check_references;
pub(crate) use service::{EnvFile, Surroundings, service};
pub(crate) use top_level::{file_object, network, volume};
