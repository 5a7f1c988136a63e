//! RUN: commands of a build. Nothing is run here: whoever asks for a build brings what runs them.

use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bireme_core::BoxFuture;

use crate::error::ImageError;
use crate::model::Image;

pub use crate::made::Changes;

/// Runs the commands of builds.
pub trait RunSteps: Send + Sync {
    /// Runs one command to its end, its output told to `log`, and answers what it changed.
    ///
    /// # Errors
    /// `Run` when it ended with another code than 0; `RunRefused` when it could not be run.
    /// # Cancel safety
    /// Dropping the future, or the answer, ends the command and leaves nothing of it.
    fn run<'a>(&'a self, step: RunStep, log: OnRunOutput<'a>) -> BoxFuture<'a, Result<Changes, ImageError>>;
}

/// What is told of a command while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutput {
    /// A line about the command itself, with its line end, as Docker's classic builder has them.
    Note(String),
    /// Something that it printed. A character is never cut in two.
    Printed {
        /// As complaint.
        stderr: bool,
        /// Any length.
        text: String,
    },
}

/// Takes what is told of a command, in order.
pub type OnRunOutput<'a> = &'a (dyn Fn(RunOutput) + Send + Sync);

/// One command of a build.
#[derive(Clone, Debug)]
pub struct RunStep {
    /// What was built so far. It is no stored image.
    pub image: Image,
    /// The folders of its layers, lowest first; they stay while the command runs.
    pub layers: Vec<PathBuf>,
    /// Program and arguments.
    pub command: Vec<String>,
    /// `NAME=value` of the build's arguments, to be added to the image's environment.
    pub env: Vec<String>,
    /// The same of secrets: for the command alone, and in nothing that is kept or told.
    pub secret_env: Hidden<Vec<String>>,
    /// What it finds beside the image's files, in the order in which it is mounted.
    pub mounts: Vec<StepMount>,
    /// Which networks it reaches.
    pub network: StepNetwork,
    /// It may do what root may: `--security=insecure`.
    pub insecure: bool,
    /// What must stay while it runs.
    pub keep: Keep,
}

/// What a command has at a path of its own.
#[derive(Clone, Debug)]
pub struct StepMount {
    /// Absolute path in the container.
    pub target: String,
    /// Nothing can be written there.
    pub read_only: bool,
    /// What stands there.
    pub source: StepMountSource,
    /// What is made for it in the image, and taken away before the layer is packed.
    pub stub: Option<Stub>,
}

/// Files and folders that are made in a container for nothing but to mount something there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stub {
    /// Where it is mounted, absolute, without links.
    pub place: PathBuf,
    /// The first part of that path which the image does not have.
    pub first: PathBuf,
}

/// What is mounted for a command.
#[derive(Clone, Debug)]
pub enum StepMountSource {
    /// A folder of this machine, which keeps what is written to it.
    Folder(PathBuf),
    /// Files of layers. What is written to them is gone with the command.
    Layers {
        /// Their folders, lowest first.
        lower: Vec<PathBuf>,
        /// Of the file or folder in their tree, without a leading slash.
        subpath: PathBuf,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; `None` for the kernel's default.
        size: Option<u64>,
    },
    /// A file that is in memory alone.
    Secret {
        /// What is in it.
        content: Hidden<Vec<u8>>,
        /// Who may read it.
        access: Access,
    },
    /// A socket of this machine.
    Socket {
        /// Of the socket.
        path: PathBuf,
        /// Who may use it.
        access: Access,
    },
}

/// Owner and permissions of a file that a build lends to a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Which networks a command reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepNetwork {
    /// Those of the build.
    #[default]
    Default,
    /// None.
    None,
    /// The machine's.
    Host,
}

/// A value that no log shows.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Hidden<T>(pub T);

impl<T> fmt::Debug for Hidden<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(hidden)")
    }
}

/// Things that are kept until this is dropped.
#[derive(Clone, Default)]
pub struct Keep(pub Vec<Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Keep {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "({} kept)", self.0.len())
    }
}
