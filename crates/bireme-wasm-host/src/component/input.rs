//! Standard input of a command.

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

/// Standard input: what attached clients send, for the one instance of a command.
pub(crate) struct Input {
    client: tokio::sync::Mutex<Option<DuplexStream>>,
    guest: Mutex<Option<DuplexStream>>,
    /// The first client that has nothing more to send ends it for good.
    once: bool,
}

impl Input {
    pub(super) fn new(once: bool) -> Self {
        let (client, guest) = tokio::io::duplex(64 << 10);
        Self { client: tokio::sync::Mutex::new(Some(client)), guest: Mutex::new(Some(guest)), once }
    }

    /// What the instance reads; the first call has it.
    pub(crate) fn take(&self) -> Option<DuplexStream> {
        self.guest.lock().take()
    }

    /// Hands over what `from` sends until it ends or nobody reads any more.
    pub(crate) async fn feed(&self, mut from: impl tokio::io::AsyncRead + Unpin) {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let mut client = self.client.lock().await;
            let Some(open) = client.as_mut() else { return };
            if open.write_all(&buffer[..length]).await.is_err() {
                *client = None;
                return;
            }
        }
        if self.once {
            *self.client.lock().await = None;
        }
    }
}
