//! Servers that a guest names by an address of its own: whether it may connect, and the connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::net::{self, ConnectError, Target};
use crate::component::Component;
use crate::stock::Place;

/// Longest time to connect, and to agree with a server on who is there.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// Most bytes of an address that a guest names: a handle keeps it.
pub(super) const LONGEST_ADDRESS: usize = 2 << 10;

/// A place among the descriptors of the component for a connection.
///
/// # Errors
/// A sentence where it has as many open as it may; the log is told.
pub(super) fn take_place(component: &Component) -> Result<Place, String> {
    component.descriptors.take().ok_or_else(|| {
        component.note_descriptors();
        "the component has as many files, sockets and connections open as it may".to_owned()
    })
}

/// A connection to a server, which counts among the descriptors of the component until it is closed.
pub(super) struct Stream {
    bytes: Bytes,
    _place: Place,
}

enum Bytes {
    Plain(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
}

/// # Errors
/// A sentence where the component may not connect to `target`; the log is told.
pub(super) fn permit(component: &Component, target: Target<'_>) -> Result<(), String> {
    target.permit(component).map_err(|error| noted(component, &error))
}

/// What the guest is told, told to the log, too.
fn noted(component: &Component, error: &ConnectError) -> String {
    let text = error.to_string();
    component.log.note(&format!("bireme: {text}"));
    text
}

impl Stream {
    /// Connects to `target`, if the component may.
    ///
    /// # Errors
    /// A sentence; of what is not permitted the log is told, too.
    pub(super) async fn connect(component: &Component, target: Target<'_>) -> Result<Self, String> {
        let addresses = target.resolve(component).await.map_err(|error| noted(component, &error))?;
        Self::dial(component, &addresses, target.host).await
    }

    /// Connects to the server that another connection is with, which was permitted then. `host` is what it is called.
    ///
    /// # Errors
    /// A sentence.
    pub(super) async fn again(component: &Component, peer: SocketAddr, host: &str) -> Result<Self, String> {
        Self::dial(component, &[peer], host).await
    }

    async fn dial(component: &Component, addresses: &[SocketAddr], host: &str) -> Result<Self, String> {
        let place = take_place(component)?;
        let stream = tokio::time::timeout(CONNECT, net::dial(component, addresses)).await;
        let stream = stream.map_err(|_| format!("{host} does not answer"))?;
        let stream = stream.map_err(|error| format!("{host}: {error}"))?;
        Ok(Self { bytes: Bytes::Plain(stream), _place: place })
    }

    /// The same connection with TLS from here on.
    ///
    /// # Errors
    /// A sentence, also where the server's certificate is not that of `host`, or of nobody whom `config` trusts.
    pub(super) async fn secure(self, host: &str, config: &Arc<ClientConfig>) -> Result<Self, String> {
        let Bytes::Plain(stream) = self.bytes else { return Ok(self) };
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?;
        let secured = tokio::time::timeout(CONNECT, TlsConnector::from(Arc::clone(config)).connect(name, stream)).await;
        let secured = secured.map_err(|_| format!("{host} does not answer"))?.map_err(|error| {
            format!(
                "{host} cannot be trusted: {error}; to trust a private authority, mount its certificate and name the file in \
                 SSL_CERT_FILE"
            )
        })?;
        Ok(Self { bytes: Bytes::Secured(Box::new(secured)), _place: self._place })
    }

    pub(super) fn is_secured(&self) -> bool {
        matches!(self.bytes, Bytes::Secured(_))
    }

    fn socket(&self) -> &TcpStream {
        match &self.bytes {
            Bytes::Plain(stream) => stream,
            Bytes::Secured(stream) => stream.get_ref().0,
        }
    }

    /// Where the server is.
    pub(super) fn peer(&self) -> io::Result<SocketAddr> {
        self.socket().peer_addr()
    }

    fn peek(&self) -> rustix::io::Result<(usize, usize)> {
        let flags = rustix::net::RecvFlags::PEEK | rustix::net::RecvFlags::DONTWAIT;
        rustix::net::recv(self.socket(), &mut [0u8; 1], flags)
    }

    /// Whether the server has neither closed it nor sent what nobody asked for.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.peek(), Err(rustix::io::Errno::AGAIN))
    }

    /// Whether the server has closed it, or it broke.
    pub(super) fn is_closed(&self) -> bool {
        !matches!(self.peek(), Ok((1.., _)) | Err(rustix::io::Errno::AGAIN))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Bytes::Secured(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Bytes::Secured(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_flush(context),
            Bytes::Secured(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.bytes {
            Bytes::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Bytes::Secured(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
