//! Programs that answer as CGI programs do (Spin's executor `wagi`): one run for each request, with what was asked in
//! arguments and environment, its body on standard input, and the answer on standard output.
//!
//! Source: RFC 3875; the documentation of Wagi, "Environment Variables".

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode};
use wasmtime::Store;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::WasiBody;

use super::spin_headers;
use crate::account::{Account, Charge};
use crate::body;
use crate::guest::{Cgi, Guest};
use crate::host::spin1::is_of_connection;
use crate::program::Program;
use crate::trigger::command;
use crate::trigger::trap::note_trap;

/// As `HTTP_PROXY` it would say where programs send what they ask. Source: CVE-2016-5385.
const PROXY: HeaderName = HeaderName::from_static("proxy");

/// Runs the program once.
///
/// # Errors
/// As [`Failed`], with the state of the instance where there was one.
pub(super) async fn call(
    account: &Arc<Account>,
    program: &Program,
    depth: u32,
    request: Request<WasiBody>,
) -> Result<Response<WasiBody>, (wasmtime::Error, Option<Store<Guest>>)> {
    let before = |error| (error, None);
    let (head, sent) = request.into_parts();
    let (sent, charges) = body::collect(account, sent).await.map_err(|why| before(wasmtime::Error::msg(why)))?;
    let argv = account.component.spec.bireme.wagi.as_deref().unwrap_or_default();
    let cgi = Cgi::new(arguments(argv, &head), environment(&head, sent.len()), Bytes::from(sent), account, charges);
    let output = cgi.output();
    let mut store = Guest::store_p1(account, depth, Some(cgi)).map_err(before)?;
    let ran = run(&mut store, program).await;
    if let Err(error) = ran {
        note_trap(&mut store, &error);
        return Err((error, Some(store)));
    }
    let (printed, charges) = output.take();
    answered(&printed, charges).map_err(|why| (wasmtime::Error::msg(why), Some(store)))
}

async fn run(store: &mut Store<Guest>, program: &Program) -> wasmtime::Result<()> {
    let Program::CommandP1(pre) = program else { wasmtime::bail!("not a program of WASI preview 1") };
    let Err(error) = command::start(store, pre).await else { return Ok(()) };
    match error.downcast_ref::<I32Exit>() {
        Some(I32Exit(0)) => Ok(()),
        Some(I32Exit(code)) => wasmtime::bail!("it ended with code {code}"),
        None => Err(error),
    }
}

/// The command line: `${SCRIPT_NAME}` stands for the path and `${ARGS}` for the words of the query.
fn arguments(argv: &str, head: &Parts) -> Vec<String> {
    let query = head.uri.query().unwrap_or_default().replace('&', " ");
    let line = argv.replace("${SCRIPT_NAME}", head.uri.path()).replace("${ARGS}", &query);
    line.split(' ').map(str::to_owned).collect()
}

/// What the program is told of the request, beside its own environment.
fn environment(head: &Parts, length: usize) -> Vec<(String, String)> {
    let header = |name: &HeaderName| head.headers.get(name).map(text).unwrap_or_default();
    let host = header(&HOST);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name.to_owned(), port.to_owned()),
        _ => (host.clone(), "80".to_owned()),
    };
    let client = header(&spin_headers::CLIENT_ADDR);
    let address = client.rsplit_once(':').map_or(client.as_str(), |(address, _)| address).trim_matches(['[', ']']);
    let route = header(&spin_headers::MATCHED_ROUTE);
    let path = header(&spin_headers::PATH_INFO);
    let mut all: Vec<(String, String)> = [
        ("AUTH_TYPE", String::new()),
        ("CONTENT_LENGTH", length.to_string()),
        ("CONTENT_TYPE", header(&CONTENT_TYPE)),
        ("GATEWAY_INTERFACE", "CGI/1.1".to_owned()),
        ("PATH_INFO", decoded(&path)),
        ("PATH_TRANSLATED", decoded(&path)),
        ("QUERY_STRING", head.uri.query().unwrap_or_default().to_owned()),
        ("REMOTE_ADDR", address.to_owned()),
        ("REMOTE_HOST", address.to_owned()),
        ("REMOTE_USER", String::new()),
        ("REQUEST_METHOD", head.method.to_string()),
        ("SCRIPT_NAME", route.strip_suffix("/...").unwrap_or(&route).to_owned()),
        ("SERVER_NAME", name),
        ("SERVER_PORT", port),
        ("SERVER_PROTOCOL", format!("{:?}", head.version)),
        ("SERVER_SOFTWARE", "WAGI/1".to_owned()),
        ("X_RAW_PATH_INFO", path),
        ("X_FULL_URL", header(&spin_headers::FULL_URL)),
        ("X_MATCHED_ROUTE", route),
        ("X_COMPONENT_ROUTE", header(&spin_headers::COMPONENT_ROUTE)),
        ("X_RAW_COMPONENT_ROUTE", header(&spin_headers::RAW_COMPONENT_ROUTE)),
        ("X_BASE_PATH", header(&spin_headers::BASE_PATH)),
        ("X_CLIENT_ADDR", client),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    for (name, value) in &head.headers {
        let shown = variable(name.as_str());
        if let Some(part) = name.as_str().strip_prefix("spin-path-match-") {
            all.push((format!("X_PATH_MATCH_{}", variable(part)), text(value)));
        } else if !name.as_str().starts_with("spin-") && ![AUTHORIZATION, CONNECTION, PROXY].contains(name) {
            all.push((format!("HTTP_{shown}"), text(value)));
        }
    }
    all
}

fn variable(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// Without its percent-encoding. Source: RFC 3986, section 2.1.
fn decoded(path: &str) -> String {
    let bytes = path.as_bytes();
    let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.filter(|hex| *byte == b'%' && !hex.starts_with('+')).and_then(|hex| u8::from_str_radix(hex, 16).ok())
        {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

/// The answer that a program has printed: lines of headers, an empty line, and the body.
///
/// # Errors
/// What is missing in it, in a sentence.
fn answered(output: &Bytes, charges: Vec<Charge>) -> Result<Response<WasiBody>, String> {
    if output.is_empty() {
        return Err("it printed nothing: a CGI program prints headers, an empty line and the body".to_owned());
    }
    let (head, rest) = split(output);
    let mut headers = HeaderMap::new();
    let mut status = None;
    for line in head.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"status") {
            let code = value.split(|byte| *byte == b' ').next().unwrap_or_default();
            status = Some(StatusCode::from_bytes(code).map_err(|_| "it printed a status that is none".to_owned())?);
            continue;
        }
        let Some((name, value)) = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok()) else {
            continue;
        };
        // How long it is, is what it is, and how it is sent is not its own.
        if !is_of_connection(&name) {
            headers
                .try_append(name, value)
                .map_err(|_| "it printed more headers than an answer may have".to_owned())?;
        }
    }
    let moved = headers.contains_key(LOCATION);
    if status.is_none() && !moved && !headers.contains_key(CONTENT_TYPE) {
        return Err("it printed none of the headers content-type, status and location".to_owned());
    }
    let mut response = Response::new(body::paid(rest, charges));
    *response.status_mut() = status.unwrap_or(if moved { StatusCode::FOUND } else { StatusCode::OK });
    *response.headers_mut() = headers;
    Ok(response)
}

/// What stands before the first empty line, and what behind it.
fn split(output: &Bytes) -> (&[u8], Bytes) {
    let mut begin = 0;
    while let Some(end) = output[begin..].iter().position(|byte| *byte == b'\n') {
        if matches!(&output[begin..begin + end], b"" | b"\r") {
            return (&output[..begin], output.slice(begin + end + 1..));
        }
        begin += end + 1;
    }
    (output, Bytes::new())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn read(output: &'static str) -> Result<(u16, String, String), String> {
        let response = answered(&Bytes::from_static(output.as_bytes()), Vec::new())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let pairs: Vec<String> = head.headers.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
        Ok((head.status.as_u16(), pairs.join(";"), String::from_utf8(body.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn an_answer_has_headers_an_empty_line_and_a_body() {
        let of = |status, headers: &str, body: &str| Ok((status, headers.to_owned(), body.to_owned()));
        assert_eq!(
            read("Content-Type: text/plain\n\nhello\n\nworld").await,
            of(200, "content-type=text/plain", "hello\n\nworld")
        );
        assert_eq!(read("content-type:a/b\r\nX-One: 1\r\n\r\n\r\n").await, of(200, "content-type=a/b;x-one=1", "\r\n"));
        assert_eq!(read("status: 404 Not there\n\n").await, of(404, "", ""));
        assert_eq!(read("location: /there\n\n").await, of(302, "location=/there", ""));
        assert_eq!(read("status: 301\nlocation: /there\n\n").await, of(301, "location=/there", ""));
        assert_eq!(read("content-type: a/b").await, of(200, "content-type=a/b", ""));
        assert_eq!(read("content-type: a/b\ncontent-length: 7\n\nx").await, of(200, "content-type=a/b", "x"));
        assert!(read("").await.unwrap_err().contains("printed nothing"));
        assert!(read("hello\n").await.unwrap_err().contains("none of the headers"));
        assert!(read("status: abc\n\n").await.unwrap_err().contains("a status that is none"));
    }

    #[test]
    fn arguments_are_the_path_and_the_words_of_the_query() {
        let head = Request::get("/a/b?x=1&y=2").body(()).unwrap().into_parts().0;
        assert_eq!(arguments("${SCRIPT_NAME} ${ARGS}", &head), ["/a/b", "x=1", "y=2"]);
        assert_eq!(arguments("ruby -v ${ARGS}", &head), ["ruby", "-v", "x=1", "y=2"]);
        assert_eq!(decoded("/a%20b%2fc%zz%+1%"), "/a b/c%zz%+1%");
    }
}
