//! JSON as Go reads and writes it: null is the empty value, and a set is a map of nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// A value, of which null is the default.
pub(crate) fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// The value of a set that is spelt as a map: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Braces>")]
pub struct Empty {}

/// What [`Empty`] is read from; null is as good, as in Go.
#[derive(Deserialize)]
struct Braces {}

impl From<Option<Braces>> for Empty {
    fn from(_: Option<Braces>) -> Self {
        Self {}
    }
}

/// A map of texts, of which null is the empty one, as in Go.
pub(super) fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = Option::<BTreeMap<String, Option<String>>>::deserialize(from)?.unwrap_or_default();
    Ok(map.into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
pub(super) fn is_zero(number: &i64) -> bool {
    *number == 0
}
