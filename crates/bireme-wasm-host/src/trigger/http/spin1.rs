//! Modules of Spin before components: `handle-http-request`, with the whole body of request and answer at once.
//!
//! Source: `wit/deps/spin@unversioned` of Spin, interface `inbound-http`.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use wasmtime::{InstancePre, Store};
use wasmtime_wasi_http::WasiBody;

use crate::account::Account;
use crate::body;
use crate::guest::Guest;
use crate::host::spin1::abi::{Abi, SLICE, lowered, number, raised};
use crate::host::spin1::{METHODS, PAIR, is_of_connection};

/// Bytes of an answer: status, headers and body, each of the last two a mark whether it is there, and a slice.
const ANSWER: usize = 28;

/// Method, and the slices of address, headers, parameters and body, that with a mark.
type Arguments = (i32, i32, i32, i32, i32, i32, i32, i32, i32, i32);

/// Has a fresh instance answer.
///
/// # Errors
/// What the module traps with, a body that is not whole, and an answer that is none.
pub(super) async fn call(
    store: &mut Store<Guest>,
    account: &Arc<Account>,
    pre: &InstancePre<Guest>,
    request: Request<WasiBody>,
) -> wasmtime::Result<Response<WasiBody>> {
    let (head, sent) = request.into_parts();
    let Some(method) = METHODS.iter().position(|known| *known == head.method) else {
        return Ok(super::answer::answer(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{} is no method of the interface that the module was built for", head.method),
        ));
    };
    // The body of a request that has none is empty.
    let (sent, _charges) = body::collect(account, sent).await.map_err(wasmtime::Error::msg)?;
    let (instance, abi) = Abi::begin(store, pre).await?;
    let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let uri = abi.give_text(store, path.as_bytes()).await?;
    let mut pairs = Vec::with_capacity(head.headers.len() * PAIR);
    for (name, value) in &head.headers {
        // Strings of the interface are UTF-8.
        let value = String::from_utf8_lossy(value.as_bytes());
        pairs.extend(lowered(abi.give_text(store, name.as_str().as_bytes()).await?));
        pairs.extend(lowered(abi.give_text(store, value.as_bytes()).await?));
    }
    let headers = (abi.give(store, &pairs, 4).await?, (pairs.len() / PAIR) as i32);
    let none = (abi.give(store, &[], 4).await?, 0);
    let content = abi.give_text(store, &sent).await?;
    drop(sent);
    let handle = instance.get_typed_func::<Arguments, i32>(&mut *store, "handle-http-request")?;
    let arguments = (method as i32, uri.0, uri.1, headers.0, headers.1, none.0, none.1, 1, content.0, content.1);
    let at = handle.call_async(&mut *store, arguments).await?;
    let answer: [u8; ANSWER] = abi.bytes(store, at, ANSWER)?.try_into()?;
    let status = u16::from_le_bytes([answer[0], answer[1]]);
    let content = match answer[16] {
        0 => &[][..],
        _ => abi.slice(store, raised(&answer, 20))?,
    };
    let charge = account.charge(content.len()).map_err(wasmtime::Error::msg)?;
    let mut response = Response::new(body::paid(content.to_vec(), vec![charge]));
    *response.status_mut() = StatusCode::from_u16(status)
        .map_err(|_| wasmtime::format_err!("it answered with status {status}, which is none"))?;
    if number(&answer, 4) & 0xff != 0 {
        for pair in abi.elements(store, raised(&answer, 8), PAIR)? {
            let (name, value) = (abi.slice(store, raised(pair, 0))?, abi.slice(store, raised(pair, SLICE))?);
            let pair = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
            if pair.as_ref().is_some_and(|(name, _)| is_of_connection(name)) {
                continue;
            }
            let kept = pair.is_some_and(|(name, value)| response.headers_mut().try_append(name, value).is_ok());
            if !kept {
                let name = String::from_utf8_lossy(name).chars().take(80).collect::<String>();
                wasmtime::bail!("it answered with a header that is none: {name:?}");
            }
        }
    }
    if head.method == Method::HEAD {
        *response.body_mut() = body::full(Vec::new());
    }
    Ok(response)
}
