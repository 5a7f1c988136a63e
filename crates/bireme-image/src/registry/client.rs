//! The HTTP client for one place: whose certificates it trusts, and which it shows.

use bireme_core::error::chain;
use reqwest::{Certificate, ClientBuilder, Identity};

use super::hosts::{Manner, Place, read};
use super::trust::trusting;
use super::{CONNECT, SILENCE};
use crate::error::ImageError;

/// A client for `place`. `listening` ends a connection on which nothing comes for a while.
///
/// # Errors
/// `RegistryConfig` for certificates that cannot be used.
pub(crate) fn client(place: &Place, listening: bool) -> Result<reqwest::Client, ImageError> {
    let Manner { ca, client, skip_verify, header: _, dial_timeout } = &place.manner;
    let mut builder = ClientBuilder::new()
        .connect_timeout(dial_timeout.unwrap_or(CONNECT))
        .user_agent(concat!("bireme/", env!("CARGO_PKG_VERSION")));
    // While a layer is sent, the registry has nothing to say, however long that takes.
    if listening {
        builder = builder.read_timeout(SILENCE);
    }
    let content = |path: &std::path::Path| {
        read(path).map_err(|error| ImageError::RegistryConfig { path: path.to_owned(), reason: error.1 })
    };
    let mut trusted = Vec::new();
    for path in ca {
        let bad = |reason: String| ImageError::RegistryConfig { path: path.clone(), reason };
        let certificates = Certificate::from_pem_bundle(&content(path)?).map_err(|error| bad(chain(&error)))?;
        if certificates.is_empty() {
            return Err(bad("there is no certificate in it, as PEM".to_owned()));
        }
        trusted.extend(certificates);
    }
    if trusted.is_empty() && !skip_verify && client.is_empty() {
        builder = trusting(builder);
    }
    if !trusted.is_empty() {
        builder = builder.tls_certs_merge(trusted);
    }
    if *skip_verify {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    if let [(certificate, key), more @ ..] = &client[..] {
        if !more.is_empty() {
            tracing::warn!(registry = place.host, shown = %certificate.display(), "of several client certificates the first is shown");
        }
        let mut pem = content(certificate)?;
        if let Some(key) = key {
            pem.push(b'\n');
            pem.extend(content(key)?);
        }
        let identity = Identity::from_pem(&pem).map_err(|error| {
            let reason = format!("it and its key are no certificate to show: {}", chain(&error));
            ImageError::RegistryConfig { path: certificate.clone(), reason }
        })?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|error| ImageError::Registry {
        registry: place.host.clone(),
        attempt: "prepare a connection".to_owned(),
        reason: chain(&error),
    })
}
