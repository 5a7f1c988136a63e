//! How a call fails.

use bireme_core::ErrorKind;
use http::StatusCode;

use super::host::Host;

/// Why a call did not bring an answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers at the address, or we may not connect.
    #[error("cannot connect to the engine at {host}")]
    Connect {
        /// Where it was looked for.
        host: Host,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The engine answered with an error of its own.
    #[error("Error response from daemon: {message}")]
    Refused {
        /// Of the answer: 400 and above, or what came where a connection was to be taken over.
        status: StatusCode,
        /// The engine's sentence.
        message: String,
    },
    /// The connection ended before the answer was whole.
    #[error("the connection to the engine broke during {call}")]
    Broken {
        /// `METHOD /path`.
        call: String,
        /// What is behind it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer came, and is not of the form that its reader knows.
    #[error("the engine's answer to {call} is not what was expected")]
    Malformed {
        /// `METHOD /path`.
        call: String,
        /// What is behind it.
        #[source]
        source: serde_json::Error,
    },
    /// The request cannot be written as HTTP.
    #[error("cannot send {call}")]
    Request {
        /// `METHOD /path`.
        call: String,
        /// What is behind it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClientError {
    /// The kind of failure, from the status when the engine answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Request { .. } => ErrorKind::Invalid,
            Self::Connect { .. } | Self::Broken { .. } => ErrorKind::Unavailable,
            Self::Malformed { .. } => ErrorKind::Internal,
            Self::Refused { status, .. } => match status.as_u16() {
                404 => ErrorKind::NotFound,
                409 => ErrorKind::Conflict,
                401 | 403 => ErrorKind::Denied,
                503 => ErrorKind::Unavailable,
                501 => ErrorKind::Unsupported,
                400..=499 => ErrorKind::Invalid,
                _ => ErrorKind::Internal,
            },
        }
    }

    /// Whether the engine said that what was named does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// The sentence in an error answer: Docker's `{"message": …}`, else the body, else the status.
pub(super) fn message(status: StatusCode, body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Message {
        message: String,
    }
    let text = match serde_json::from_slice::<Message>(body) {
        Ok(Message { message }) => message,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let text = text.trim();
    if text.is_empty() { status.to_string() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_answer_becomes_its_sentence() {
        assert_eq!(message(StatusCode::NOT_FOUND, b"{\"message\":\"no such container: x\"}"), "no such container: x");
        assert_eq!(message(StatusCode::BAD_GATEWAY, b""), "502 Bad Gateway");
        assert_eq!(message(StatusCode::BAD_GATEWAY, b"oops\n"), "oops");
    }
}
