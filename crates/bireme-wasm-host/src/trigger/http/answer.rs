//! How an instance ended, and what the client is told where the answer is not the component's.

use std::pin::Pin;

use http::header::{HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use wasmtime_wasi_http::WasiBody;

use crate::body;
use crate::component::Component;
use crate::workload::Invocation;

/// An instance that is under way.
pub(super) type Instance = Pin<Box<dyn Future<Output = Ended> + Send>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Failed,
    TimedOut,
    Stopped,
    /// No slot in the pool.
    Busy,
}

/// An instance that is at its end. The invocation comes back, to be counted by what became of the answer.
pub(super) struct Ended {
    pub end: End,
    pub invocation: Invocation,
    /// The state of an instance that broke off, for as long as it must be seen whether its body is whole.
    pub _remains: Option<Box<dyn Send>>,
}

/// An answer of ours, in one sentence.
pub(super) fn answer(status: StatusCode, text: String) -> Response<WasiBody> {
    let mut response = Response::new(body::full(text + "\n"));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, text);
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The answer for an instance that ended without one, or in the middle of one.
pub(super) fn failure(component: &Component, end: End) -> Response<WasiBody> {
    let name = component.name();
    match end {
        End::TimedOut => {
            let text = format!("{name} did not answer within its limit; see its log (docker logs {name})");
            answer(StatusCode::GATEWAY_TIMEOUT, text)
        }
        End::Stopped => answer(StatusCode::SERVICE_UNAVAILABLE, format!("{name} was stopped")),
        End::Busy => {
            let text = format!("{name} has no room for another instance; try again later");
            answer(StatusCode::SERVICE_UNAVAILABLE, text)
        }
        End::Done | End::Failed => failed(component),
    }
}

pub(super) fn failed(component: &Component) -> Response<WasiBody> {
    let name = component.name();
    let text = format!("{name} failed to answer; see its log (docker logs {name})");
    answer(StatusCode::INTERNAL_SERVER_ERROR, text)
}
