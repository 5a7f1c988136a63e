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
        if !is_name(name) {
            let rule = "begins with a letter, has letters, digits and single _ only, and does not end with _";
            return Err(Missing::InvalidName(format!("{name:?} is no name of a variable, which {rule}")));
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

/// Source: Spin, `crates/expressions`. Capital letters, which are none of Spin's, are those of the environment.
fn is_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.ends_with('_')
        && !name.contains("__")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_spin_and_of_the_environment() {
        for name in ["a", "greeting", "GREETING", "a_1", "tls2"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "1a", "_a", "a_", "a__b", "a-b", "ä", "a b"] {
            assert!(!is_name(name), "{name}");
        }
    }
}
