//! Whole bodies, for programs that have them no other way.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt as _, Full};
use wasmtime_wasi_http::WasiBody;

use crate::account::{Account, Charge};

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> WasiBody {
    Full::new(bytes.into()).map_err(wasmtime_wasi_http::Error::from).boxed_unsync()
}

/// A body that is paid for until it was sent: clients may take their time.
pub(crate) fn paid(bytes: impl Into<Bytes>, charges: Vec<Charge>) -> WasiBody {
    let body = Paid { body: Full::new(bytes.into()), _charges: charges };
    body.map_err(wasmtime_wasi_http::Error::from).boxed_unsync()
}

struct Paid {
    body: Full<Bytes>,
    _charges: Vec<Charge>,
}

impl Body for Paid {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that come part by part, which an instance pays for: some at a time, as each part may be a byte.
pub(crate) struct Kept {
    account: Arc<Account>,
    bytes: Vec<u8>,
    charges: Vec<Charge>,
    paid: usize,
}

/// Bytes that are paid for at a time.
const STEP: usize = 64 << 10;

impl Kept {
    pub(crate) fn new(account: &Arc<Account>) -> Self {
        Self { account: Arc::clone(account), bytes: Vec::new(), charges: Vec::new(), paid: 0 }
    }

    /// # Errors
    /// A sentence: it is more than the instance may have the host hold.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        let after = self.bytes.len() + bytes.len();
        if after > self.paid {
            // As the buffer grows, which doubles.
            let more = (after - self.paid).max(self.paid).max(STEP);
            self.charges.push(self.account.charge(more)?);
            self.paid += more;
            self.bytes.reserve_exact(self.paid - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The bytes that have come so far, and what was paid for them, for as long as they live.
    pub(crate) fn take(&mut self) -> (Vec<u8>, Vec<Charge>) {
        self.paid = 0;
        (std::mem::take(&mut self.bytes), std::mem::take(&mut self.charges))
    }
}

/// Reads a body to its end. The instance of `account` pays for it as long as the charges live.
///
/// # Errors
/// A sentence: whoever sends it broke off, or it is more than the instance may have the host hold.
pub(crate) async fn collect(account: &Arc<Account>, mut body: WasiBody) -> Result<(Vec<u8>, Vec<Charge>), String> {
    let mut kept = Kept::new(account);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the body broke off: {error}"))?;
        if let Ok(data) = frame.into_data() {
            kept.add(&data)?;
        }
    }
    Ok(kept.take())
}
