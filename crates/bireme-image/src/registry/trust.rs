//! Whom this machine trusts: the certificates of its authorities, read once.
//!
//! Each client would read all of them for itself, which takes 15 to 20 ms, also where nothing but plain HTTP is spoken. As for
//! Docker's engine, authorities that are added to the machine count from the next start.

use std::sync::OnceLock;

use reqwest::ClientBuilder;
use rustls::{ClientConfig, RootCertStore};

/// Has a client trust whom this machine trusts.
pub(crate) fn trusting(builder: ClientBuilder) -> ClientBuilder {
    static TRUST: OnceLock<Option<ClientConfig>> = OnceLock::new();
    match TRUST.get_or_init(read) {
        Some(config) => builder.tls_backend_preconfigured(config.clone()),
        // It says itself what it lacks.
        None => builder,
    }
}

fn read() -> Option<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate of this machine's authorities cannot be read");
    }
    let mut roots = RootCertStore::empty();
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if ignored > 0 {
        tracing::debug!(ignored, "certificates of authorities that are none");
    }
    if roots.is_empty() {
        return None;
    }
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Some(config)
}
