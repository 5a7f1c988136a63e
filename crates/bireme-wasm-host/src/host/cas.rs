//! The handle of a compare-and-swap.

use std::sync::Arc;

use super::store::Store;
use crate::account::{Account, Charge};

/// The value of a key as it was when its handle was made.
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Cas {
    pub(super) store: Store,
    pub(super) key: String,
    pub(super) seen: Option<Vec<u8>>,
    /// What the host holds for the instance with it.
    _charge: Charge,
}

impl Cas {
    /// # Errors
    /// When the value is more than the instance may have the host hold.
    pub(super) fn new(
        account: &Arc<Account>,
        store: Store,
        key: String,
        seen: Option<Vec<u8>>,
    ) -> Result<Self, String> {
        let charge = account.charge(key.len() + seen.as_ref().map_or(0, Vec::len))?;
        Ok(Self { store, key, seen, _charge: charge })
    }
}
