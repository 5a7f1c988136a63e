//! What an instance has open, with the places of the host's descriptors that this takes.

use std::collections::HashMap;
use std::sync::Weak;

use crate::stock::Place;

/// What an instance has open.
#[derive(Default)]
pub(crate) struct Open {
    pub files: Vec<(Weak<std::fs::File>, Place)>,
    /// How often one was opened or closed since it was last looked which of them are.
    changes: usize,
    /// The sockets of WASI 0.3 that have a place, by their handles. Those of closed ones are taken by new ones.
    pub sockets: HashMap<u32, Weak<Place>>,
    /// Of a core module.
    pub of_module: Vec<Place>,
    /// How many of those are in use at most.
    pub module_uses: usize,
}

/// Most files of an instance that are looked at each time one is opened or closed.
const LOOK_ALWAYS: usize = 32;

impl Open {
    /// Gives back the places of files that are closed. Where there are many it is looked only once half of them may be.
    pub(crate) fn look(&mut self) {
        self.changes += 1;
        if self.files.len() <= LOOK_ALWAYS || self.changes > self.files.len() / 2 {
            self.look_now();
        }
    }

    pub(crate) fn look_now(&mut self) {
        self.files.retain(|(file, _)| file.strong_count() > 0);
        self.changes = 0;
    }
}
