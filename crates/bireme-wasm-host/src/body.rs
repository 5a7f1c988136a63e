//! Whole bodies, for programs that have them no other way.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use wasmtime_wasi_http::WasiBody;

use crate::account::{Account, Charge};
use std::sync::Arc;

/// A body that is there already.
pub(crate) fn full(bytes: impl Into<Bytes>) -> WasiBody {
    Full::new(bytes.into()).map_err(wasmtime_wasi_http::Error::from).boxed_unsync()
}

/// Reads a body to its end. The instance of `account` pays for it as long as the charges live.
///
/// # Errors
/// A sentence: whoever sends it broke off, or it is more than the instance may have the host hold.
pub(crate) async fn collect(account: &Arc<Account>, mut body: WasiBody) -> Result<(Vec<u8>, Vec<Charge>), String> {
    let (mut bytes, mut charges) = (Vec::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| format!("the body broke off: {error}"))?;
        if let Ok(data) = frame.into_data() {
            charges.push(account.charge(data.len())?);
            bytes.extend_from_slice(&data);
        }
    }
    Ok((bytes, charges))
}
