//! Where a component may connect to, and at which address that is.

use std::net::{IpAddr, SocketAddr};

use crate::component::Component;

/// An endpoint that a component asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    pub scheme: &'a str,
    /// A name or the text of an address, without brackets.
    pub host: &'a str,
    pub port: u16,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0} is not permitted; add it to bireme.allow")]
    Denied(String),
    #[error("the name {0} is not known")]
    Unknown(String),
}

impl Target<'_> {
    /// # Errors
    /// When `bireme.allow` does not permit it.
    pub(crate) fn permit(&self, component: &Component) -> Result<(), ConnectError> {
        if component.allow.permits(self.scheme, self.host, self.port) {
            return Ok(());
        }
        Err(ConnectError::Denied(format!("{}://{}:{}", self.scheme, self.host, self.port)))
    }

    /// The addresses to try, if it is permitted.
    ///
    /// # Errors
    /// When it is not permitted, or the name is not known.
    pub(crate) async fn resolve(&self, component: &Component) -> Result<Vec<SocketAddr>, ConnectError> {
        self.permit(component)?;
        let found = lookup(component, self.host).await;
        if found.is_empty() {
            return Err(ConnectError::Unknown(self.host.to_owned()));
        }
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect())
    }
}

/// The addresses of a name: those of the component's networks first, then DNS.
pub(crate) async fn lookup(component: &Component, name: &str) -> Vec<IpAddr> {
    if let Ok(ip) = name.parse() {
        return vec![ip];
    }
    let plain = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    if let Some(known) = component.names().get(&plain) {
        return known.clone();
    }
    // The resolver of the C library, which reads the resolv.conf that `confine` wrote: the engine's servers.
    match tokio::net::lookup_host((plain.as_str(), 0)).await {
        Ok(found) => found.map(|address| address.ip()).collect(),
        Err(_) => Vec::new(),
    }
}
