//! Counts its visits in a file. The same router answers as a Linux server and as a WebAssembly component: what differs is
//! the last ten lines, who calls it.

use std::io;
use std::path::Path;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;

/// A volume, so that the count outlives the workload, of whichever kind.
const COUNT: &str = "/data/visits";

fn router() -> Router {
    Router::new().route("/", get(visit)).route("/healthz", get(async || "ok\n"))
}

async fn visit() -> Result<String, (StatusCode, String)> {
    let count = count(Path::new(COUNT)).map_err(|error| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{COUNT}: {error}; mount a volume at /data\n"))
    })?;
    Ok(format!("visit {count}, answered by {}\n", KIND))
}

/// Adds one. Two visits at once may count as one: this is an example of something else.
fn count(path: &Path) -> io::Result<u64> {
    let before = match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(io::Error::other)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let count: u64 = before + 1;
    std::fs::write(path, format!("{count}\n"))?;
    Ok(count)
}

#[cfg(target_os = "wasi")]
const KIND: &str = "a WebAssembly component";

#[cfg(target_os = "wasi")]
#[wstd_axum::http_server]
fn main() -> Router {
    router()
}

#[cfg(not(target_os = "wasi"))]
const KIND: &str = "a Linux container";

#[cfg(not(target_os = "wasi"))]
fn main() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        // As process 1 it has no default for this signal.
        let mut terminate = signal(SignalKind::terminate())?;
        let listener = tokio::net::TcpListener::bind("0.0.0.0:8000").await?;
        let end = async move {
            terminate.recv().await;
        };
        axum::serve(listener, router()).with_graceful_shutdown(end).await
    })
}
