//! The one table from kinds of failure to HTTP status, and the body of every refusal: `{"message": …}`.

use std::error::Error as StdError;

use axum::response::{IntoResponse, Response};
use bireme_core::ErrorKind;
use bireme_core::error::chain;
use bireme_engine::EngineError;
use bireme_image::ImageError;
use bireme_net::NetError;
use http::{StatusCode, header};

/// What a client is told when a request fails.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
}

/// The status Docker clients expect for a kind of failure.
///
/// Source: `errdefs` and `httpstatus` of moby, from which every Docker SDK makes its typed errors.
pub fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Denied => StatusCode::FORBIDDEN,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl ApiError {
    /// A refusal of `kind` in a sentence of our own.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { status: status_of(kind), message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }

    /// What Docker answers for a path it does not serve.
    pub fn no_such_page() -> Self {
        Self::new(ErrorKind::NotFound, "page not found")
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    /// For failures of libraries: the client reads `error`, and its causes where the fault is ours; the log has all.
    fn from_library(status: StatusCode, error: &(dyn StdError + 'static)) -> Self {
        let chain = chain(error);
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), error = %chain, "request failed");
            return Self { status, message: chain };
        }
        tracing::debug!(status = status.as_u16(), error = %chain, "request refused");
        Self { status, message: error.to_string() }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let status = match &error {
            EngineError::NotModified { .. } => StatusCode::NOT_MODIFIED,
            // A command that is not there or cannot be executed is the client's mistake, however the executor sees it.
            EngineError::Exec(exec) if matches!(exec.exit_code(), Some(126 | 127)) => StatusCode::BAD_REQUEST,
            // No fault of ours, but 500 is what Docker's clients know it by.
            EngineError::Net(NetError::PortAllocated { .. } | NetError::PortTaken { .. }) => {
                tracing::debug!(%error, "request refused");
                return Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: error.to_string() };
            }
            other => status_of(other.kind()),
        };
        Self::from_library(status, &error)
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        let status = match &error {
            // As Docker has it: 503 would be the engine itself.
            ImageError::Registry { .. } | ImageError::Unreachable { .. } | ImageError::Fetch { .. } => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
            ImageError::Login { .. } => StatusCode::UNAUTHORIZED,
            other => status_of(other.kind()),
        };
        Self::from_library(status, &error)
    }
}

impl From<crate::convert::Refusal> for ApiError {
    fn from(refusal: crate::convert::Refusal) -> Self {
        Self::new(refusal.kind, refusal.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        let body = format!("{}\n", serde_json::json!({ "message": self.message }));
        (self.status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_become_the_status_that_docker_clients_expect() {
        let table: Vec<String> = [
            ErrorKind::NotFound,
            ErrorKind::Conflict,
            ErrorKind::Invalid,
            ErrorKind::Denied,
            ErrorKind::Unavailable,
            ErrorKind::Unsupported,
            ErrorKind::Internal,
        ]
        .into_iter()
        .map(|kind| format!("{kind:?} {}", status_of(kind)))
        .collect();
        insta::assert_snapshot!(table.join("\n"), @r"
        NotFound 404 Not Found
        Conflict 409 Conflict
        Invalid 400 Bad Request
        Denied 403 Forbidden
        Unavailable 503 Service Unavailable
        Unsupported 501 Not Implemented
        Internal 500 Internal Server Error
        ");
    }

    #[test]
    fn a_command_that_is_not_there_is_the_clients_mistake() {
        let exec = bireme_core::ExecError::new(ErrorKind::Internal, "exec: \"x\": executable file not found in $PATH");
        let error = ApiError::from(EngineError::Exec(exec.with_exit_code(127)));
        assert_eq!(error.status(), StatusCode::BAD_REQUEST);
    }
}
