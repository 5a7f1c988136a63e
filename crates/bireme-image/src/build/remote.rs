//! Contexts that stand at an address: an archive, or a Dockerfile alone.
//!
//! Source: moby, `builder/remotecontext`.

use std::io::Cursor;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::source::TEXT_LIMIT;
use crate::error::ImageError;
use crate::unpack::{is_packed, is_tar};

/// What stands at an address.
pub(super) enum Remote {
    Archive(Box<dyn AsyncRead + Send + Unpin>),
    Dockerfile(Vec<u8>),
}

/// Fetches what stands there and tells what it is by its first bytes.
///
/// # Errors
/// `BuildRequest` for addresses of another kind; `Fetch`; `TooLarge` for a text that is longer than a Dockerfile may be.
pub(super) async fn open(address: &str) -> Result<Remote, ImageError> {
    if !["http://", "https://"].iter().any(|start| address.starts_with(start)) {
        return Err(ImageError::BuildRequest {
            reason: format!(
                "the remote context {address} could not be recognized as URL: it begins with http:// or https://"
            ),
        });
    }
    let failed = |error: std::io::Error| ImageError::Fetch { url: address.to_owned(), reason: error.to_string() };
    let mut body = crate::fetch::fetch(address).await?;
    let mut start = [0; 512];
    let mut got = 0;
    while got < start.len() {
        match body.read(&mut start[got..]).await.map_err(failed)? {
            0 => break,
            some => got += some,
        }
    }
    if is_packed(&start[..got]) || (got == start.len() && is_tar(&start)) {
        return Ok(Remote::Archive(Box::new(Cursor::new(start[..got].to_vec()).chain(body))));
    }
    let mut text = start[..got].to_vec();
    body.take(TEXT_LIMIT).read_to_end(&mut text).await.map_err(failed)?;
    if text.len() as u64 > TEXT_LIMIT {
        return Err(ImageError::TooLarge { what: format!("the Dockerfile at {address}"), limit: TEXT_LIMIT });
    }
    Ok(Remote::Dockerfile(text))
}
