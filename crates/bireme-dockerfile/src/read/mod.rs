//! What instructions say, one reading for each.
//!
//! A reading answers words as they are written. Where variables may stand in them, it has a second step that takes an
//! [`crate::Expander`]; what can only be judged then is refused then. Errors are in BuildKit's words.
//!
//! Source: github.com/moby/buildkit, `frontend/dockerfile/instructions`.

mod chmod;
mod command;
mod copy;
mod csv;
mod duration;
mod healthcheck;
mod mount;
mod pairs;
mod ports;
mod run;
mod simple;

pub use chmod::{Change, Chmod};
pub use command::{Command, command};
pub(crate) use copy::NO_VARIABLES_IN_FROM;
pub use copy::{CopyFlags, HeredocFile, copy};
pub use healthcheck::{Healthcheck, healthcheck};
pub use mount::{Mount, MountKind, Sharing};
pub(crate) use mount::{mount_words, mounted_from};
pub(crate) use pairs::pairs_form;
pub use pairs::{Argument, Pair, arguments, expand_pairs, pairs};
pub use ports::{Port, ports};
pub use run::{Network, RunCommand, RunFlags, Security, mounts, run};
pub use simple::{expand_volumes, onbuild, shell, shown, single, volumes};
