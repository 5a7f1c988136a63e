//! HTTP/2 on a connection that a client opened for gRPC.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse};
use bollard_buildkit_proto::moby::buildkit::v1::control_server::{ControlServer, SERVICE_NAME as CONTROL};
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::{
    LlbBridgeServer, SERVICE_NAME as BRIDGE,
};
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::body::Body;
use tower::Service as _;

use crate::builder::Builder;
use crate::builds::Builds;
use crate::outputs::Results;
use crate::session::Sessions;

/// The largest file of a result, or part of one, that is read at once, in bytes.
pub const MAX_FILE: u64 = 8 << 20;

/// The largest message in either direction, as BuildKit and its clients have it.
const MAX_MESSAGE: usize = 16 << 20;
/// The most bytes of headers of a call: a session within one names its methods there.
const MAX_HEADERS: u32 = 128 << 10;
/// How many calls may be open on one connection; bake has some for each of its targets.
const MAX_STREAMS: u32 = 1000;
/// How often a quiet client is asked whether it is there, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(30);

/// Answers BuildKit's clients. Clones are the same server; builds and their results are known on all its connections.
#[derive(Clone)]
pub struct Server {
    pub(crate) builder: Arc<dyn Builder>,
    pub(crate) builds: Builds,
    pub(crate) outputs: Results,
    sessions: Sessions,
}

impl Server {
    /// Lets `builder` build, and keeps in `results` what clients may build upon.
    pub fn new(builder: Arc<dyn Builder>, results: Results) -> Self {
        Self { builder, builds: Builds::default(), outputs: results, sessions: Sessions::new() }
    }

    /// The clients' sessions; what comes by `POST /session` is given to [`Sessions::attach`].
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Serves HTTP/2, begun with its preface, on `io` until the client closes it: the daemon calls it with what `POST /grpc`
    /// left after its `101`.
    ///
    /// Dropping the future closes the connection and gives up the builds that were asked for on it.
    ///
    /// # Errors
    /// When the client breaks the protocol or is gone.
    pub async fn serve<I>(&self, io: I) -> Result<(), hyper::Error>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let calls = Calls {
            control: ControlServer::new(self.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            bridge: LlbBridgeServer::new(self.clone())
                .max_decoding_message_size(MAX_MESSAGE)
                .max_encoding_message_size(MAX_MESSAGE),
            health: HealthServer::new(Healthy),
        };
        let service = tower::service_fn(move |request: Request<Incoming>| calls.clone().answer(request));
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADERS)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(TokioIo::new(io), TowerToHyperService::new(service))
            .await
    }
}

#[derive(Clone)]
struct Calls {
    control: ControlServer<Server>,
    bridge: LlbBridgeServer<Server>,
    health: HealthServer<Healthy>,
}

impl Calls {
    async fn answer(mut self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let path = request.uri().path();
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|(service, _)| service);
        match service {
            Some(CONTROL) => self.control.call(request).await,
            Some(BRIDGE) => self.bridge.call(request).await,
            Some("grpc.health.v1.Health") => self.health.call(request).await,
            _ => Ok(unimplemented()),
        }
    }
}

/// For services that are not there, which clients try and do without: traces of OpenTelemetry.
fn unimplemented() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("12"));
    response
}

/// Says that we are there.
struct Healthy;

#[tonic::async_trait]
impl Health for Healthy {
    async fn check(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, tonic::Status> {
        Ok(tonic::Response::new(HealthCheckResponse { status: 1 }))
    }

    async fn list(
        &self,
        _: tonic::Request<HealthListRequest>,
    ) -> Result<tonic::Response<HealthListResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("this engine has one state of health; ask Check"))
    }

    type WatchStream = futures::stream::Empty<Result<HealthCheckResponse, tonic::Status>>;

    async fn watch(
        &self,
        _: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<Self::WatchStream>, tonic::Status> {
        Err(tonic::Status::unimplemented("this engine's state of health does not change; ask Check"))
    }
}
