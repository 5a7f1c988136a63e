//! Why the engine refuses what it is asked for: by what it is about, with the names that whoever asked needs to know.
//!
//! What is done about a refusal is decided by its variant and by [`kind`](ContainerRefusal::kind), never by its text. The
//! text is the sentence that clients are shown, that `State.Error` keeps and that the log has: Docker's, where Docker has
//! one (clients look for parts of it), and otherwise what was refused, why, and what to do next.

#![expect(missing_docs, reason = "the sentence of each variant says what it is about and names its fields")]

mod container;
mod files;
mod network;
mod request;
#[cfg(test)]
mod tests;
mod volume;

pub use self::container::{Because, ContainerRefusal, Then, UpdateConflict};
pub use self::files::FilesRefusal;
pub use self::network::{BindFailure, NetworkFault, NetworkRefusal};
pub use self::request::{Countable, LogFault, RequestRefusal};
pub use self::volume::{OptionFault, VolumeRefusal};
