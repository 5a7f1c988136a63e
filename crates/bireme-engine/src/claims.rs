//! What creates that are under way rely on: nobody may remove it although no record tells yet who has it.

use std::collections::{HashMap, HashSet};

use bireme_core::WorkloadId;
use parking_lot::Mutex;

/// By the workload that comes of each create.
#[derive(Default)]
pub(crate) struct Claims(Mutex<HashMap<String, Claim>>);

#[derive(Default)]
struct Claim {
    image: String,
    volumes: HashSet<String>,
}

impl Claims {
    /// Has an image count as used.
    pub(crate) fn add_image(&self, id: &WorkloadId, image: String) {
        self.0.lock().entry(id.as_str().to_owned()).or_default().image = image;
    }

    /// Has a volume count as used. False where the create is not under way: it has come to its end, or was given up.
    pub(crate) fn add_volume(&self, id: &WorkloadId, name: &str) -> bool {
        let mut claims = self.0.lock();
        let Some(claim) = claims.get_mut(id.as_str()) else { return false };
        claim.volumes.insert(name.to_owned());
        true
    }

    /// A create has come to its end.
    pub(crate) fn remove(&self, id: &WorkloadId) {
        self.0.lock().remove(id.as_str());
    }

    /// The workloads being created that rely on an image.
    pub(crate) fn of_image(&self, image: &str) -> Vec<String> {
        self.which(|claim| claim.image == image)
    }

    /// The workloads being created that rely on a volume.
    pub(crate) fn of_volume(&self, name: &str) -> Vec<String> {
        self.which(|claim| claim.volumes.contains(name))
    }

    fn which(&self, holds: impl Fn(&Claim) -> bool) -> Vec<String> {
        self.0.lock().iter().filter(|(_, claim)| holds(claim)).map(|(id, _)| id.clone()).collect()
    }
}
