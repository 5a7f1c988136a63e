//! What every handler works with.

use std::sync::Arc;

use bireme_engine::Engine;
use bireme_image::ImageStore;
use tokio_util::sync::CancellationToken;

use crate::host::Host;
use crate::settings::Settings;

/// The daemon as its handlers see it. Clones share everything.
#[derive(Clone)]
pub struct App {
    pub engine: Engine,
    pub images: ImageStore,
    pub settings: Arc<Settings>,
    pub host: Arc<Host>,
    /// Cancelled when the daemon is to stop: streams without end then end.
    pub stop: CancellationToken,
}
