//! Spin's variables: the environment of the workload under Spin's spelling.

use wasmtime::component::{Accessor, HasSelf};

use super::bindings::concurrent::spin::variables::variables as v3;
use super::bindings::sync::fermyon::spin2_0_0::variables as v2;
use crate::guest::Guest;

/// Why there is no value.
pub(super) enum Missing {
    InvalidName(String),
    Undefined(String),
}

impl Guest {
    /// The environment variable called `name`, or the one Spin's lower-case spelling stands for: `SPIN_VARIABLE_NAME`,
    /// then `NAME`.
    pub(super) fn variable(&self, name: &str) -> Result<String, Missing> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(Missing::InvalidName(format!("{name:?} may have letters, digits and _ only")));
        }
        let upper = name.to_ascii_uppercase();
        let find = |wanted: &str| self.component.env.iter().find(|(known, _)| known == wanted).map(|(_, value)| value);
        let variable = self.component.variables.get(&name.to_ascii_lowercase());
        match find(name).or(variable).or_else(|| find(&upper)) {
            Some(value) => Ok(value.clone()),
            None => Err(Missing::Undefined(format!(
                "{name} is not set: give the workload the environment variable {upper}"
            ))),
        }
    }
}

impl v2::Host for Guest {
    async fn get(&mut self, name: String) -> Result<String, v2::Error> {
        self.variable(&name).map_err(|missing| match missing {
            Missing::InvalidName(text) => v2::Error::InvalidName(text),
            Missing::Undefined(text) => v2::Error::Undefined(text),
        })
    }
}

impl v3::Host for Guest {}

impl<T: Send> v3::HostWithStore<T> for HasSelf<Guest> {
    async fn get(guest: &Accessor<T, Self>, name: String) -> Result<String, v3::Error> {
        guest.with(|mut access| access.get().variable(&name)).map_err(|missing| match missing {
            Missing::InvalidName(text) => v3::Error::InvalidName(text),
            Missing::Undefined(text) => v3::Error::Undefined(text),
        })
    }
}
