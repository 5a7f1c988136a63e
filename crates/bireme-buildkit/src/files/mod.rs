//! Trees of files over a stream: fsutil's protocol (`github.com/tonistiigi/fsutil`: `send.go`, `receive.go`).
//!
//! The sender walks its tree and sends a `STAT` for each entry, an empty one at the end. The receiver asks with `REQ` for the
//! content of those it wants, by their number in the walk, at any time; the sender answers with `DATA`, of several files
//! mixed, an empty one at the end of each. The receiver says `FIN` when it has all, and the sender says it too.
//!
//! - [`Entry`]: one entry, and Go's modes;
//! - `order`: what makes a walk one, so that no receiver sees a name that leads elsewhere;
//! - [`Receive`]: what one does with a walk that comes in, [`receive`](crate::Session::files) drives it; [`Folder`] is the
//!   ready one, which writes below a folder, and [`InMemory`] keeps a few files;
//! - [`Source`]: a tree that goes out, [`FolderSource`] is one on disk.
//!
//! Receivers and sources are plain blocking code: they run on a thread of their own, at most a few packets ahead of the
//! connection.

mod entry;
mod folder;
mod memory;
mod order;
mod receive;
mod send;
mod source;
#[cfg(test)]
mod tests;

pub use entry::{Entry, EntryKind};
pub use folder::Folder;
pub use memory::{FewFiles, InMemory};
pub use receive::{Content, Failure, Limits, Receive};
pub use send::Source;
pub use source::FolderSource;

pub(crate) use receive::receive;
pub(crate) use send::send;
