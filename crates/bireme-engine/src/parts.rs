//! What the engine and its actors are made of: the services, and networks, volumes and exec sessions on them.

use std::sync::Arc;

use crate::exec::Execs;
use crate::network::Networks;
use crate::services::Services;
use crate::volume::Volumes;

/// The services, and what stands on them.
pub(crate) struct Parts {
    pub(crate) services: Arc<Services>,
    pub(crate) networks: Arc<Networks>,
    pub(crate) volumes: Arc<Volumes>,
    pub(crate) execs: Arc<Execs>,
}
