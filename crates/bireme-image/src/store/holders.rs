//! Who has which folder of builds.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::RwLock;

/// Who has which folder now.
#[derive(Default)]
pub(crate) struct Holders(Mutex<HashMap<String, Arc<RwLock<()>>>>);

impl Holders {
    pub(crate) fn of(&self, name: &str) -> Arc<RwLock<()>> {
        let mut all = self.0.lock();
        all.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(all.entry(name.to_owned()).or_default())
    }

    /// Whether somebody has a folder, or waits for it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.lock().get(name).is_some_and(|lock| Arc::strong_count(lock) > 1)
    }
}
