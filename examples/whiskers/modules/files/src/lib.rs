//! `/...`: serves the site from the folder `/site`, which the app file mounts read-only.
//!
//! Types, entity tags, conditional and range requests; no way out of the folder: a path with a segment that is empty,
//! begins with a dot or holds a separator is not found.

mod range;
mod site;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use wstd::http::body::{Body, Bytes};
use wstd::http::{Error, Method, Request, Response, StatusCode, response::Builder};

use range::Range;
use site::Found;

/// What is read from the file at once; a page of the site rarely needs two.
const CHUNK: usize = 64 * 1024;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => return Ok(answer(StatusCode::METHOD_NOT_ALLOWED).header("allow", "GET, HEAD").body(Body::empty())?),
    };
    match site::find(request.uri().path()) {
        Ok(found) => Ok(serve(&request, found, head)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let body = if head { Body::empty() } else { "There is no such page on this ship.\n".into() };
            Ok(answer(StatusCode::NOT_FOUND).header("content-type", "text/plain; charset=utf-8").body(body)?)
        }
        Err(error) => {
            eprintln!("{}: {error}", request.uri().path());
            Ok(answer(StatusCode::INTERNAL_SERVER_ERROR).body(Body::empty())?)
        }
    }
}

fn serve(request: &Request<Body>, found: Found, head: bool) -> Result<Response<Body>, Error> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let Found { file, size, tag, kind } = found;
    let described = |status| answer(status).header("etag", &tag).header("cache-control", "no-cache");

    if header("if-none-match").is_some_and(|tags| range::names(tags, &tag)) {
        return Ok(described(StatusCode::NOT_MODIFIED).body(Body::empty())?);
    }
    // A range of another version is of no use: then the whole is sent.
    let wanted = header("range").filter(|_| header("if-range").is_none_or(|version| version == tag));
    let (status, from, length) = match wanted.map_or(Range::Whole, |wanted| range::read(wanted, size)) {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part { from, length } => (StatusCode::PARTIAL_CONTENT, from, length),
        Range::Outside => {
            let response =
                described(StatusCode::RANGE_NOT_SATISFIABLE).header("content-range", format!("bytes */{size}"));
            return Ok(response.body(Body::empty())?);
        }
    };
    let mut response = described(status).header("accept-ranges", "bytes").header("content-type", kind);
    // A host of wasi:http takes a length with fewer bytes after it for a mistake, so a head goes without.
    if !head {
        response = response.header("content-length", length);
    }
    if status == StatusCode::PARTIAL_CONTENT {
        response = response.header("content-range", format!("bytes {from}-{}/{size}", from + length - 1));
    }
    if kind.starts_with("text/html") {
        response = response.header("content-security-policy", "default-src 'self'; img-src 'self' data:");
    }
    Ok(response.body(if head { Body::empty() } else { contents(file, from, length)? })?)
}

fn answer(status: StatusCode) -> Builder {
    Response::builder().status(status).header("x-content-type-options", "nosniff")
}

/// The bytes of `file`, read as the client takes them.
fn contents(mut file: File, from: u64, length: u64) -> io::Result<Body> {
    if from > 0 {
        file.seek(SeekFrom::Start(from))?;
    }
    let mut left = length;
    let chunks = std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let mut chunk = vec![0; CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))];
        Some(match file.read(&mut chunk) {
            Ok(0) => {
                left = 0;
                Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"))
            }
            Ok(read) => {
                left -= read as u64;
                chunk.truncate(read);
                Ok(Bytes::from(chunk))
            }
            Err(error) => {
                left = 0;
                Err(error)
            }
        })
    });
    Ok(Body::from_try_stream(futures_lite::stream::iter(chunks)))
}
