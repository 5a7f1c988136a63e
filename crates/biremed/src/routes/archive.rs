//! `/containers/{id}/archive`: files in and out, as `docker cp` has it.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use bireme_core::error::chain;
use bireme_engine::{ChangeKind, PathStat, Unpack};
use bytes::BytesMut;
use futures::StreamExt as _;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tokio_util::io::{ReaderStream, SyncIoBridge};

use super::{Answer, image_parts};
use crate::app::App;
use crate::convert::time;
use crate::error::ApiError;
use crate::extract::Query;
use crate::work;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/containers/{name}/archive", get(read).head(stat).put(write))
        .route("/containers/{name}/changes", get(changes))
        .route("/containers/{name}/export", get(export))
}

fn path(query: &Query) -> Result<String, ApiError> {
    match query.get("path") {
        Some(path) => Ok(path.to_owned()),
        None => Err(ApiError::invalid("bad parameter: path cannot be empty")),
    }
}

async fn stat(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let path = path(&query)?;
    let found = app.engine.stat_path(&name, &path).await?;
    Ok(with_stat(StatusCode::OK.into_response(), &path, &found))
}

async fn read(State(app): State<App>, Path(name): Path<String>, query: Query) -> Answer {
    let path = path(&query)?;
    // Asked first, so that a missing path has its status.
    let found = app.engine.stat_path(&name, &path).await?;
    let (reader, writer) = tokio::io::duplex(256 * 1024);
    let engine = app.engine.clone();
    let asked = path.clone();
    let place = work::place(work::Way::Out).await;
    let reading = async move {
        let _place = place;
        engine.read_archive(&name, &path, SyncIoBridge::new(writer)).await
    };
    Ok(with_stat(archive(reader, reading, "application/x-tar").await?, &asked, &found))
}

/// `A`, `C` and `D` of `docker diff`.
async fn changes(State(app): State<App>, Path(name): Path<String>) -> Answer {
    let changes = app.engine.changes(&name).await?;
    if changes.is_empty() {
        return super::ok(&json!(null));
    }
    let shown = changes.into_iter().map(|change| {
        let kind = match change.kind {
            ChangeKind::Modified => 0,
            ChangeKind::Added => 1,
            ChangeKind::Deleted => 2,
        };
        json!({ "Path": change.path.to_string_lossy(), "Kind": kind })
    });
    super::ok(&shown.collect())
}

async fn export(State(app): State<App>, Path(name): Path<String>) -> Answer {
    // Asked first, so that a name that is none has its status.
    app.engine.can_export(&name)?;
    let (reader, writer) = tokio::io::duplex(256 * 1024);
    let engine = app.engine.clone();
    let place = work::place(work::Way::Out).await;
    let reading = async move {
        let _place = place;
        engine.export(&name, SyncIoBridge::new(writer)).await
    };
    archive(reader, reading, "application/octet-stream").await
}

/// Streams what `reading` writes to the other end of `reader`.
///
/// # Errors
/// What `reading` failed with before anything was written: it still has its status then.
async fn archive(
    mut reader: tokio::io::DuplexStream,
    reading: impl Future<Output = Result<(), bireme_engine::EngineError>> + Send + 'static,
    kind: &'static str,
) -> Answer {
    let mut reading = Box::pin(reading);
    let mut first = BytesMut::with_capacity(64 * 1024);
    let ended = tokio::select! {
        biased;
        read = reader.read_buf(&mut first) => match read {
            // Over without a byte: why is told by `reading`, which has closed its end.
            Ok(0) | Err(_) => Some((&mut reading).await),
            Ok(_) => None,
        },
        ended = &mut reading => Some(ended),
    };
    if let Some(Err(error)) = ended {
        return Err(error.into());
    }
    let over = ended.is_some();
    let reading = async move { if over { Ok(()) } else { reading.await } };
    let failure = futures::stream::once(reading).filter_map(async |ended| {
        let error = ended.err()?;
        tracing::warn!(error = %chain(&error), "reading files of a container failed");
        // Breaks the answer off, so that nobody takes half an archive for a whole one.
        Some(Err(std::io::Error::other(error)))
    });
    let rest = futures::stream::select(ReaderStream::with_capacity(reader, 64 * 1024), failure);
    let pieces = futures::stream::once(std::future::ready(Ok(first.freeze()))).chain(rest);
    let mut response = Response::new(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

async fn write(State(app): State<App>, Path(name): Path<String>, query: Query, body: Body) -> Answer {
    let path = path(&query)?;
    let _place = work::place(work::Way::In).await;
    let archive = SyncIoBridge::new(image_parts::reader(body));
    let how = Unpack { keep_kinds: query.flag("noOverwriteDirNonDir") };
    app.engine.write_archive(&name, &path, archive, how).await?;
    Ok(Response::new(Body::empty()))
}

fn with_stat(mut response: Response, path: &str, stat: &PathStat) -> Response {
    let (seconds, nanos) = stat.modified;
    let wire = json!({
        "name": stat.name,
        "size": stat.size,
        "mode": go_mode(stat.mode),
        "mtime": time::rfc3339(seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(nanos))),
        "linkTarget": link_target(path, &stat.link),
    });
    let text = base64::engine::general_purpose::STANDARD.encode(wire.to_string());
    let value = HeaderValue::try_from(text).expect("base64 is plain text");
    response.headers_mut().insert("x-docker-container-path-stat", value);
    response
}

/// Where a link at `path` leads, from the root; empty for what is none.
fn link_target(path: &str, link: &str) -> String {
    if link.is_empty() {
        return String::new();
    }
    let folder = path.trim_end_matches('/').rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').filter(|_| !link.starts_with('/')).chain(link.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Go's `os.FileMode`, which the wire has, from the kernel's. Source: `fillFileStatFromSys` of Go's os package.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let flag = |bit: u32, go: u32| if mode & bit == 0 { 0 } else { go };
    mode & 0o777 | kind | flag(0o4000, 1 << 23) | flag(0o2000, 1 << 22) | flag(0o1000, 1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_from_the_root() {
        for (path, link, expected) in
            [("/a/b", "c", "/a/c"), ("/a/b/", "../../../c", "/c"), ("b", "/x/./y", "/x/y"), ("/a", "", "")]
        {
            assert_eq!(link_target(path, link), expected);
        }
    }

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o041_777), 0o777 | 1 << 31 | 1 << 20);
        assert_eq!(go_mode(0o120_777), 0o777 | 1 << 27);
        assert_eq!(go_mode(0o104_755), 0o755 | 1 << 23);
    }
}
