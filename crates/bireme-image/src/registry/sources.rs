//! Everywhere one image may be fetched from: what one place lacks, or has wrong, is asked of the next.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::hosts::places;
use super::{Operation, Remote};
use crate::auth::RegistryAuth;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::reference::Reference;
use crate::settings::RegistrySettings;

/// The places of one pull, in the order in which they are asked.
pub(crate) struct Sources {
    remotes: Vec<Remote>,
    /// Those before it could not serve, and are not asked again.
    first: AtomicUsize,
    /// Layers that this pull may fetch at once.
    pub(crate) slots: Semaphore,
}

impl Sources {
    /// # Errors
    /// As [`places`]; `Registry` where no place may be pulled from.
    pub(crate) fn of(
        settings: &RegistrySettings,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
    ) -> Result<Self, ImageError> {
        let mut places = places(settings, reference.registry())?;
        places.retain(|place| place.can.pull || place.can.resolve);
        let last = places.len().saturating_sub(1);
        let mut remotes = Vec::new();
        for (at, place) in places.into_iter().enumerate() {
            // A mirror is somebody else: credentials for the registry are not shown to it.
            let auth = auth.filter(|_| place.own).cloned().unwrap_or(RegistryAuth::Anonymous);
            remotes.push(Remote::new(place, reference, auth, Operation::Pull, at == last)?);
        }
        if remotes.is_empty() {
            return Err(ImageError::Registry {
                registry: reference.registry().to_owned(),
                attempt: "pull".to_owned(),
                reason: "its hosts.toml names no host with the capability pull".to_owned(),
            });
        }
        Ok(Self { remotes, first: AtomicUsize::new(0), slots: Semaphore::new(settings.downloads.max(1)) })
    }

    /// The places that are still asked, each with its number.
    pub(crate) fn left(&self) -> impl Iterator<Item = (usize, &Remote)> {
        self.remotes.iter().enumerate().skip(self.first.load(Ordering::Relaxed))
    }

    /// Notes that the place of that number could not serve.
    pub(crate) fn give_up(&self, at: usize) {
        self.first.fetch_max((at + 1).min(self.remotes.len() - 1), Ordering::Relaxed);
    }

    /// Fetches a manifest or index by tag or digest; what belongs to it is asked of the same place first.
    ///
    /// # Errors
    /// Those of the last place.
    pub(crate) async fn manifest(&self, version: &str) -> Result<(Vec<u8>, Digest), ImageError> {
        let by_digest = version.parse::<Digest>().is_ok();
        let mut ended = None;
        for (at, remote) in self.left() {
            if !(if by_digest { remote.can.pull } else { remote.can.resolve }) {
                continue;
            }
            match remote.manifest(version).await {
                Ok(found) => {
                    // Those before it may not be behind it: they do not have even this.
                    self.first.fetch_max(at, Ordering::Relaxed);
                    return Ok(found);
                }
                Err(error) => {
                    self.told(at, remote, &error);
                    ended = Some(error);
                }
            }
        }
        Err(ended.unwrap_or_else(|| self.nobody("resolve")))
    }

    /// Fetches a small blob into memory; its digest and size are checked.
    ///
    /// # Errors
    /// Those of the last place.
    pub(crate) async fn document(&self, digest: &Digest, size: u64, what: &str) -> Result<Vec<u8>, ImageError> {
        let mut ended = None;
        for (at, remote) in self.left().filter(|(_, remote)| remote.can.pull) {
            match remote.document(digest, size, what).await {
                Ok(found) => return Ok(found),
                Err(error) => {
                    self.told(at, remote, &error);
                    ended = Some(error);
                }
            }
        }
        Err(ended.unwrap_or_else(|| self.nobody("pull")))
    }

    /// The list of what refers to a manifest; an empty one, where nobody keeps any.
    ///
    /// # Errors
    /// Those of the last place.
    pub(crate) async fn referrers(&self, digest: &Digest, artifact_type: Option<&str>) -> Result<Vec<u8>, ImageError> {
        let mut ended = None;
        for (at, remote) in self.left().filter(|(_, remote)| remote.can.pull) {
            let found = match remote.referrers(digest, artifact_type).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => remote.manifest(&format!("sha256-{}", digest.hex())).await,
                Err(error) => Err(error),
            };
            match found {
                Ok((found, _)) => return Ok(found),
                Err(ImageError::ManifestUnknown { .. }) => return Ok(b"{}".to_vec()),
                Err(error) => {
                    self.told(at, remote, &error);
                    ended = Some(error);
                }
            }
        }
        Err(ended.unwrap_or_else(|| self.nobody("pull")))
    }

    /// Tells that a place could not serve, where there is another to ask.
    pub(crate) fn told(&self, at: usize, remote: &Remote, error: &ImageError) {
        if at + 1 < self.remotes.len() {
            tracing::warn!(mirror = remote.host(), %error, "a mirror could not serve, asking the next place");
            if matches!(error, ImageError::Unreachable { .. } | ImageError::Registry { .. }) {
                self.give_up(at);
            }
        }
    }

    pub(crate) fn nobody(&self, capability: &str) -> ImageError {
        ImageError::Registry {
            registry: self.remotes.last().map_or_else(String::new, |remote| remote.host().to_owned()),
            attempt: "pull".to_owned(),
            reason: format!("its hosts.toml names no host with the capability {capability}"),
        }
    }
}
