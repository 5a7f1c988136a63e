//! What a build fails with, and how it travels: a gRPC status whose details are BuildKit's typed errors.
//!
//! BuildKit puts each typed error of the chain beside the message, as JSON under a type URL of its own
//! (`util/grpcerrors`, `solver/errdefs`); clients take from them which lines of which file to print and which step failed.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bireme_core::ErrorKind;
use bollard_buildkit_proto::google;
use prost::Message as _;
use serde_json::json;
use tonic::{Code, Status};

use crate::place::{Lines, SourceFile};

/// The longest message that is sent, in bytes: it travels in a header, which clients bound.
const MAX_MESSAGE: usize = 4 << 10;
/// The most bytes of details; beyond them details are left out, the last ones first.
const MAX_DETAILS: usize = 64 << 10;

/// Why a build, or one call for it, failed.
///
/// `Display` gives the message, which is what the user reads after `failed to solve:`.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildError {
    code: Code,
    message: String,
    details: Vec<Detail>,
}

/// A typed error in the form in which it travels.
#[derive(Clone, Debug, PartialEq)]
struct Detail {
    type_url: String,
    value: Vec<u8>,
}

impl BuildError {
    /// A step of the build failed by its own fault. Clients print the message as it stands.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { code: Code::Unknown, message: message.into(), details: Vec::new() }
    }

    /// A request could not be done. Clients print the code's name before the message, but for internal failures.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let code = match kind {
            ErrorKind::NotFound => Code::NotFound,
            ErrorKind::Conflict => Code::FailedPrecondition,
            ErrorKind::Invalid => Code::InvalidArgument,
            ErrorKind::Denied => Code::PermissionDenied,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Unsupported => Code::Unimplemented,
            ErrorKind::Internal => Code::Unknown,
        };
        Self { code, message: message.into(), details: Vec::new() }
    }

    /// The build was given up, by the client or because it went away.
    pub fn cancelled() -> Self {
        Self { code: Code::Cancelled, message: "the build was cancelled".to_owned(), details: Vec::new() }
    }

    /// The same error, about these lines of a source file: the client prints them. (`errdefs.Source`)
    #[must_use]
    pub fn at(self, file: &SourceFile, lines: &[Lines]) -> Self {
        let ranges: Vec<_> =
            lines.iter().map(|lines| json!({"start": {"line": lines.start}, "end": {"line": lines.end}})).collect();
        let value = json!({
            "info": {"filename": file.filename, "language": file.language, "data": STANDARD.encode(&file.data)},
            "ranges": ranges,
        });
        self.with("errdefs.Source", &value)
    }

    /// The same error, of the vertex with this digest ([`Vertex::digest`](crate::Vertex::digest)). (`errdefs.Vertex`)
    #[must_use]
    pub fn of_vertex(self, digest: &str) -> Self {
        self.with("errdefs.Vertex", &json!({"digest": digest}))
    }

    /// The same error, of a process that ended with this code. (`gatewayapi.ExitMessage`)
    #[must_use]
    pub fn exit_code(self, code: u32) -> Self {
        self.with("gatewayapi.ExitMessage", &json!({"Code": code}))
    }

    /// The frontend does not know this subrequest (`requestid`). (`errdefs.Subrequest`)
    pub fn unsupported_subrequest(name: &str) -> Self {
        Self { code: Code::Unimplemented, message: format!("unsupported request {name}"), details: Vec::new() }
            .with("errdefs.Subrequest", &json!({"name": name}))
    }

    fn with(mut self, name: &str, value: &serde_json::Value) -> Self {
        let type_url = format!("github.com/moby/buildkit/{name}+json");
        self.details.push(Detail { type_url, value: value.to_string().into_bytes() });
        self
    }

    /// The message alone.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the build was given up and not refused.
    pub fn is_cancelled(&self) -> bool {
        self.code == Code::Cancelled
    }

    /// What went wrong, from the point of view of whoever asked.
    pub fn kind(&self) -> ErrorKind {
        match self.code {
            Code::NotFound => ErrorKind::NotFound,
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => ErrorKind::Conflict,
            Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
            Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
            Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded | Code::Cancelled => {
                ErrorKind::Unavailable
            }
            Code::Unimplemented => ErrorKind::Unsupported,
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => ErrorKind::Internal,
        }
    }

    /// What a client handed back with `Return`: its message and details go on as they came.
    pub(crate) fn from_wire(status: google::rpc::Status) -> Self {
        let details =
            status.details.into_iter().map(|any| Detail { type_url: any.type_url, value: any.value }).collect();
        let code = match Code::from_i32(status.code) {
            Code::Ok => Code::Unknown,
            code => code,
        };
        Self { code, message: status.message, details }
    }

    /// The gRPC status that says this.
    pub(crate) fn to_status(&self) -> Status {
        let mut message = self.message.clone();
        if message.len() > MAX_MESSAGE {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE));
            message.push('…');
        }
        let mut left = MAX_DETAILS;
        let mut details = Vec::new();
        for detail in &self.details {
            let size = detail.type_url.len() + detail.value.len();
            // The client's own trace of its stack is of no use to it, and long.
            if size <= left && !detail.type_url.contains("stack.Stack") {
                left -= size;
                let (type_url, value) = (detail.type_url.clone(), detail.value.clone());
                details.push(google::protobuf::Any { type_url, value });
            }
        }
        if details.is_empty() {
            return Status::new(self.code, message);
        }
        let wire = google::rpc::Status { code: self.code as i32, message: message.clone(), details };
        Status::with_details(self.code, message, wire.encode_to_vec().into())
    }
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for BuildError {}

impl From<BuildError> for Status {
    fn from(error: BuildError) -> Self {
        error.to_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(error: &BuildError) -> Vec<(String, serde_json::Value)> {
        let status = error.to_status();
        let wire = google::rpc::Status::decode(status.details()).unwrap();
        wire.details.into_iter().map(|any| (any.type_url, serde_json::from_slice(&any.value).unwrap())).collect()
    }

    #[test]
    fn the_place_of_an_error_travels_in_the_form_that_clients_print() {
        let file = SourceFile {
            filename: "Dockerfile".to_owned(),
            language: "Dockerfile".to_owned(),
            data: b"FROM a\nRUN b\n".to_vec(),
        };
        let error = BuildError::failed("exit code: 3")
            .exit_code(3)
            .of_vertex("sha256:00")
            .at(&file, &[Lines { start: 2, end: 2 }]);
        let details = details(&error);
        assert_eq!(details[0], ("github.com/moby/buildkit/gatewayapi.ExitMessage+json".to_owned(), json!({"Code": 3})));
        assert_eq!(details[1].1, json!({"digest": "sha256:00"}));
        assert_eq!(details[2].0, "github.com/moby/buildkit/errdefs.Source+json");
        assert_eq!(details[2].1["info"]["data"], json!(STANDARD.encode("FROM a\nRUN b\n")));
        assert_eq!(details[2].1["ranges"], json!([{"start": {"line": 2}, "end": {"line": 2}}]));
    }

    #[test]
    fn what_the_client_hands_back_keeps_its_details_but_for_its_stack() {
        let any = |name: &str| google::protobuf::Any { type_url: name.to_owned(), value: b"{}".to_vec() };
        let error = BuildError::from_wire(google::rpc::Status {
            code: 2,
            message: "no".to_owned(),
            details: vec![any("github.com/moby/buildkit/stack.Stack+json"), any("x/errdefs.Vertex+json")],
        });
        assert_eq!(details(&error), [("x/errdefs.Vertex+json".to_owned(), json!({}))]);
        assert_eq!(error.to_status().code(), Code::Unknown);
    }

    #[test]
    fn what_would_not_fit_into_a_header_is_cut() {
        let long = "é".repeat(MAX_MESSAGE);
        let file = SourceFile { data: vec![b'x'; MAX_DETAILS], ..SourceFile::default() };
        let status = BuildError::failed(long).at(&file, &[]).exit_code(1).to_status();
        assert!(status.message().len() <= MAX_MESSAGE + '…'.len_utf8());
        let wire = google::rpc::Status::decode(status.details()).unwrap();
        assert_eq!(wire.details.len(), 1);
    }
}
