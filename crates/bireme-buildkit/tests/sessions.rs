//! Sessions against clients that close, lack methods, are slow, or send what they should not.

#![allow(clippy::unwrap_used, reason = "in tests, which fail by it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bireme_buildkit::{Content, Entry, Failure, FilesRequest, Receive, SessionError, SessionHeaders, Sessions};
use bireme_core::ErrorKind;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bollard_buildkit_proto::moby::filesync::packet::file_sync_server::{FileSync, FileSyncServer};
use bollard_buildkit_proto::moby::filesync::v1::BytesMessage;
use bollard_buildkit_proto::moby::filesync::v1::file_send_server::{FileSend, FileSendServer};
use futures::{Stream, StreamExt as _, stream};
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;
use tonic::{Response, Status, Streaming};
use tower::Service as _;

const METHODS: [&str; 3] = [
    "/moby.filesync.v1.FileSync/DiffCopy",
    "/moby.filesync.v1.FileSend/DiffCopy",
    "/moby.buildkit.secrets.v1.Secrets/GetSecret",
];

/// A client's end of a session.
#[derive(Clone, Default)]
struct Peer {
    /// What arrived by `FileSend`, and whether its end came.
    sent: Arc<Mutex<(Vec<u8>, Option<bool>)>>,
    metadata: Arc<Mutex<BTreeMap<String, String>>>,
}

type Packets = Pin<Box<dyn Stream<Item = Result<Packet, Status>> + Send>>;

#[tonic::async_trait]
impl FileSync for Peer {
    type DiffCopyStream = Packets;
    type TarStreamStream = Packets;

    /// Names one file and then waits, or refuses.
    async fn diff_copy(&self, request: tonic::Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        if request.metadata().get("dir-name").unwrap() == "forbidden" {
            return Err(Status::not_found("no access allowed to dir \"forbidden\""));
        }
        let stat = Stat { path: "a".to_owned(), mode: 0o644, ..Stat::default() };
        let first = Packet { stat: Some(stat), ..Packet::default() };
        Ok(Response::new(stream::iter([Ok(first)]).chain(stream::pending()).boxed()))
    }

    async fn tar_stream(&self, _: tonic::Request<Streaming<Packet>>) -> Result<Response<Packets>, Status> {
        Err(Status::unimplemented("none"))
    }
}

#[tonic::async_trait]
impl FileSend for Peer {
    type DiffCopyStream = stream::Empty<Result<BytesMessage, Status>>;

    async fn diff_copy(
        &self,
        request: tonic::Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::DiffCopyStream>, Status> {
        for key in ["buildkit-attachable-exporter-id", "exporter-md-containerimage.digest"] {
            let value = request.metadata().get(key).unwrap().to_str().unwrap();
            self.metadata.lock().insert(key.to_owned(), value.to_owned());
        }
        let mut incoming = request.into_inner();
        loop {
            // Slower than we are.
            tokio::time::sleep(Duration::from_millis(1)).await;
            match incoming.message().await {
                Ok(Some(message)) => self.sent.lock().0.extend(message.data),
                Ok(None) => break self.sent.lock().1 = Some(true),
                Err(_) => break self.sent.lock().1 = Some(false),
            }
        }
        Ok(Response::new(stream::empty()))
    }
}

#[tonic::async_trait]
impl Secrets for Peer {
    async fn get_secret(
        &self,
        request: tonic::Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        match request.into_inner().id.as_str() {
            "there" => Ok(Response::new(GetSecretResponse { data: b"x".to_vec() })),
            "absent" => Err(Status::not_found("no such secret")),
            "large" => Ok(Response::new(GetSecretResponse { data: vec![0; 600 << 10] })),
            "denied" => Err(Status::permission_denied("not yours")),
            // Never answered.
            _ => std::future::pending().await,
        }
    }
}

/// Opens a session called `id` with these methods; aborting the task is the client going away.
fn open(sessions: &Sessions, id: &str, methods: &[&str], peer: Peer) -> JoinHandle<Result<(), SessionError>> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let headers = SessionHeaders {
        uuid: id.to_owned(),
        methods: methods.iter().map(|method| (*method).to_owned()).collect(),
        ..SessionHeaders::default()
    };
    let sessions = sessions.clone();
    let attached = tokio::spawn(async move { sessions.attach(headers, ours).await });
    tokio::spawn(async move {
        let mut sync = FileSyncServer::new(peer.clone());
        let mut send = FileSendServer::new(peer.clone());
        let mut secrets = SecretsServer::new(peer);
        let service = tower::service_fn(move |request: Request<Incoming>| {
            let path = request.uri().path();
            let answer: Pin<Box<dyn Future<Output = Result<_, Infallible>> + Send>> = match path {
                path if path.starts_with("/moby.filesync.v1.FileSync/") => sync.call(request),
                path if path.starts_with("/moby.filesync.v1.FileSend/") => send.call(request),
                _ => secrets.call(request),
            };
            answer
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(theirs), TowerToHyperService::new(service))
            .await;
    });
    attached
}

/// Wants everything and keeps nothing.
struct Sink;

impl Receive for Sink {
    type Done = ();

    fn entry(&mut self, _: u32, _: &Entry) -> Result<Content, Failure> {
        Ok(Content::Want)
    }

    fn data(&mut self, _: u32, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn end(&mut self, _: u32) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(self) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::test]
async fn a_session_is_waited_for_and_found() {
    let sessions = Sessions::new();
    let waiting = tokio::spawn({
        let sessions = sessions.clone();
        async move { sessions.get("s").await.map(|session| session.id().to_owned()) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let _open = open(&sessions, "s", &METHODS, Peer::default());
    assert_eq!(waiting.await.unwrap().unwrap(), "s");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_come_is_waited_for_some_seconds() {
    let since = tokio::time::Instant::now();
    let missing = Sessions::new().get("never").await.unwrap_err();
    assert_eq!(missing, SessionError::Missing("never".to_owned()));
    assert!(since.elapsed() < Duration::from_secs(30));
}

#[tokio::test]
async fn secrets_are_given_or_not() {
    let sessions = Sessions::new();
    let _open = open(&sessions, "s", &METHODS, Peer::default());
    let session = sessions.get("s").await.unwrap();
    assert_eq!(session.secret("there").await, Ok(Some(b"x".to_vec())));
    assert_eq!(session.secret("absent").await, Ok(None));
    assert!(session.secret("large").await.is_err(), "a secret beyond the limit was taken");
    let denied = session.secret("denied").await.unwrap_err();
    assert_eq!(denied.kind(), ErrorKind::Denied);
    assert_eq!(denied.to_string(), "cannot get the secret \"denied\" from the client: not yours");
}

#[tokio::test]
async fn a_method_that_the_client_lacks_is_refused_by_name() {
    let sessions = Sessions::new();
    let _open = open(&sessions, "s", &["/Moby.FileSync.v1.FileSync/diffcopy"], Peer::default());
    let session = sessions.get("s").await.unwrap();
    let refused = session.secret("there").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.to_string().contains("secrets (/moby.buildkit.secrets.v1.Secrets/GetSecret)"), "{refused}");
    assert_eq!(session.fetch_token(token()).await, Ok(None));
    assert!(session.ssh("default").await.unwrap_err().to_string().contains("an SSH agent"));
    // Names of methods are compared without regard to case.
    assert!(session.offers("/moby.filesync.v1.FileSync/DiffCopy"));
}

fn token() -> bireme_buildkit::TokenRequest {
    bireme_buildkit::TokenRequest {
        client_id: "bireme".to_owned(),
        host: "r.example".to_owned(),
        realm: "https://r.example/token".to_owned(),
        service: "r.example".to_owned(),
        scopes: Vec::new(),
    }
}

#[tokio::test]
async fn a_session_that_closes_ends_all_who_wait_for_it() {
    let sessions = Sessions::new();
    let peer = Peer::default();
    let attached = open(&sessions, "s", &METHODS, peer.clone());
    let session = sessions.get("s").await.unwrap();
    let secret = tokio::spawn({
        let session = session.clone();
        async move { session.secret("slow").await.map(|_| ()) }
    });
    let request = FilesRequest { name: "context".to_owned(), ..FilesRequest::default() };
    let files = tokio::spawn({
        let session = session.clone();
        async move { session.files(request, Sink).await }
    });
    let metadata = BTreeMap::from([("containerimage.digest".to_owned(), "sha256:0".to_owned())]);
    let mut tar = session.send_tar("0", &metadata).await.unwrap();
    tar.write_all(b"some").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    attached.abort();
    let limit = Duration::from_secs(10);
    assert_eq!(tokio::time::timeout(limit, secret).await.unwrap().unwrap(), Err(SessionError::Closed));
    assert_eq!(tokio::time::timeout(limit, files).await.unwrap().unwrap(), Err(SessionError::Closed));
    let failed = tokio::time::timeout(limit, tar.shutdown()).await.unwrap().unwrap_err();
    assert!(failed.to_string().contains("the client's session has closed"), "{failed}");
    assert!(session.closed().is_cancelled());
    assert_eq!(session.secret("there").await, Err(SessionError::Closed));
}

#[tokio::test]
async fn an_id_is_taken_until_its_session_closes() {
    let sessions = Sessions::new();
    let first = open(&sessions, "s", &METHODS, Peer::default());
    sessions.get("s").await.unwrap();
    let refused = open(&sessions, "s", &METHODS, Peer::default()).await.unwrap().unwrap_err();
    assert!(refused.to_string().contains("is open already"), "{refused}");
    first.abort();
    let _ = first.await;
    let _second = open(&sessions, "s", &METHODS, Peer::default());
    assert!(sessions.get("s").await.is_ok());
    assert!(SessionHeaders::from_http(&http::HeaderMap::new()).unwrap_err().to_string().contains("no ID"));
}

#[tokio::test]
async fn a_folder_that_the_client_does_not_give_is_refused_with_its_words() {
    let sessions = Sessions::new();
    let _open = open(&sessions, "s", &METHODS, Peer::default());
    let session = sessions.get("s").await.unwrap();
    let request = FilesRequest { name: "forbidden".to_owned(), ..FilesRequest::default() };
    let refused = session.files(request, Sink).await.unwrap_err();
    assert!(refused.to_string().contains("no access allowed to dir"), "{refused}");
    let request = FilesRequest { exclude: vec!["x".repeat(600 << 10)], ..FilesRequest::default() };
    assert!(session.files(request, Sink).await.unwrap_err().to_string().contains(".dockerignore"));
}

#[tokio::test]
async fn a_file_arrives_whole_at_a_slow_client_and_says_so_if_it_does_not() {
    let sessions = Sessions::new();
    let peer = Peer::default();
    let _open = open(&sessions, "s", &METHODS, peer.clone());
    let session = sessions.get("s").await.unwrap();
    let metadata = BTreeMap::from([("containerimage.digest".to_owned(), "sha256:0".to_owned())]);
    let content: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    let mut tar = session.send_tar("7", &metadata).await.unwrap();
    tar.write_all(&content).await.unwrap();
    tar.shutdown().await.unwrap();
    assert_eq!(*peer.sent.lock(), (content, Some(true)));
    assert_eq!(peer.metadata.lock()["buildkit-attachable-exporter-id"], "7");
    assert_eq!(peer.metadata.lock()["exporter-md-containerimage.digest"], "sha256:0");

    *peer.sent.lock() = Default::default();
    let mut tar = session.send_tar("7", &metadata).await.unwrap();
    tar.write_all(b"half").await.unwrap();
    drop(tar);
    for _ in 0..1000 {
        if peer.sent.lock().1.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Its end has not come: either the call broke, or the client's part of it was dropped with the call.
    assert_ne!(peer.sent.lock().1, Some(true), "half a file was ended as a whole one");
}
