//! Fetching what stands at an address that a user names: sources of ADD, contexts of builds, archives to import.

use bireme_core::error::chain;
use futures::TryStreamExt as _;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

use crate::error::ImageError;
use crate::registry::{CONNECT, SILENCE, trusting};

/// Opens what stands at an address, `http://` where it names no scheme.
///
/// # Errors
/// `Fetch`. What goes wrong later is an error of the reader.
/// # Cancel safety
/// Dropping the future, or the reader, ends the request.
pub async fn fetch(source: &str) -> Result<impl AsyncRead + Send + Unpin + 'static, ImageError> {
    let url = if source.contains("://") { source.to_owned() } else { format!("http://{source}") };
    let failed = |error: reqwest::Error| ImageError::Fetch { url: source.to_owned(), reason: chain(&error) };
    let client = trusting(reqwest::Client::builder()).connect_timeout(CONNECT).read_timeout(SILENCE);
    let client = client.build().map_err(failed)?;
    let answer = client.get(&url).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    Ok(StreamReader::new(Box::pin(answer.bytes_stream().map_err(std::io::Error::other))))
}
