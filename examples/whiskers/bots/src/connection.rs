//! One kept-alive HTTP connection to the app, as a browser has one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any module may take.
const PATIENCE: Duration = Duration::from_secs(35);

pub(crate) struct Connection {
    server: SocketAddr,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// Only ever to this machine: what this program sends is load.
    pub(crate) fn to_port(port: u16) -> Self {
        Self { server: (Ipv4Addr::LOCALHOST, port).into(), sender: None }
    }

    /// Sends a request without a body.
    ///
    /// # Errors
    /// When no whole answer comes; the next request then goes through a new connection.
    pub(crate) async fn send(&mut self, method: &str, path: &str) -> Result<Response<Bytes>> {
        self.send_with(method, path, &[], Bytes::new()).await
    }

    /// Sends a request.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub(crate) async fn send_with(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Response<Bytes>> {
        let mut request = Request::builder().method(method).uri(path).header("host", self.server.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into()))?;
        let answer = timeout(PATIENCE, self.exchange(request))
            .await
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}")));
        if answer.is_err() {
            self.sender = None;
        }
        answer.with_context(|| format!("{method} {path}"))
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>> {
        // The server may have closed a connection that was idle.
        if let Some(open) = &mut self.sender
            && open.ready().await.is_err()
        {
            self.sender = None;
        }
        let sender = match &mut self.sender {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect(self.server).await.context("cannot connect")?;
                stream.set_nodelay(true).context("cannot connect")?;
                let (sender, driver) = handshake(TokioIo::new(stream)).await.context("cannot connect")?;
                // Ends with the connection, which ends with the sender.
                tokio::spawn(driver);
                self.sender.insert(sender)
            }
        };
        let (head, body) = sender.send_request(request).await.context("no answer")?.into_parts();
        let body = body.collect().await.context("the answer broke off")?.to_bytes();
        Ok(Response::from_parts(head, body))
    }
}
