//! What a component offers and asks for, told before anything of it is compiled or run.

mod names;
mod offered;

use std::path::Path;

use bireme_core::executor::Interface;
use bireme_core::{ErrorKind, ExecError};

pub use self::names::{WORLD, is_made_for_a_world};
pub use self::offered::{module_trigger, refuse_imports, traps, trigger};
use crate::protocol::sentence;

/// Reads the interface of the component or core module at `path`. Blocking.
///
/// # Errors
/// `Invalid` for what is no component, with a sentence; `Internal` where the file cannot be read.
pub(crate) fn read(path: &Path) -> Result<Interface, ExecError> {
    let names = std::fs::File::open(path).map_err(names::NamesError::from).and_then(|mut file| names::read(&mut file));
    let names = names.map_err(|error| match error {
        names::NamesError::Malformed(_) => ExecError::new(ErrorKind::Invalid, sentence(&error.to_string())),
        names::NamesError::Io(source) => {
            let text = format!("cannot read the component {}", path.display());
            ExecError::new(ErrorKind::Internal, text).caused_by(source)
        }
    })?;
    let starts = if names.is_module { module_trigger(&names.exports) } else { trigger(&names.exports) };
    let refused = refuse_imports(&names.imports, names.is_module);
    let refused = refused.or_else(|| starts.as_ref().err().cloned()).map(|refusal| sentence(&refusal.message));
    let trigger = starts.ok().map(|trigger| trigger.name().to_owned());
    Ok(Interface { trigger, imports: names.imports, exports: names.exports, refused })
}
