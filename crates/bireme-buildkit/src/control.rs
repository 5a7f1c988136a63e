//! `moby.buildkit.v1.Control`: builds, their progress, the cache, workers; and sessions within.

use std::pin::Pin;

use bireme_core::ErrorKind;
use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRequest, BytesMessage, DiskUsageRequest, DiskUsageResponse, InfoRequest,
    InfoResponse, ListWorkersRequest, ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse, StatusRequest,
    StatusResponse, UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord,
};
use futures::{Stream, StreamExt as _};
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::build::Build;
use crate::builder::{Frontend, Outputs, Solved};
use crate::builds::run;
use crate::convert;
use crate::error::BuildError;
use crate::server::Server;
use crate::session::SessionHeaders;

/// Bytes of a session within a call that wait in each direction.
const SESSION_BUFFER: usize = 64 << 10;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Server {
    async fn build(&self, request: SolveRequest) -> Result<SolveResponse, BuildError> {
        let policies = request.source_policy.as_ref().is_some_and(|policy| !policy.rules.is_empty());
        refuse_policies(policies || !request.source_policy_session.is_empty())?;
        let exports = convert::exports(&request);
        let build = Build::new(request.r#ref, request.session, self.sessions().clone(), request.entitlements);
        let (guard, returned) = self.builds.open(build, request.frontend_inputs.clone(), self.outputs.clone())?;
        let build = guard.open.build.clone();
        let definition = request.definition.filter(|definition| !definition.def.is_empty());
        let solved = match definition {
            Some(definition) => {
                let outputs = Outputs::One(self.outputs.of_definition(&definition)?);
                Some(Solved { outputs, ..Solved::default() })
            }
            None if request.frontend.is_empty() => match returned.await {
                Ok(returned) => returned?,
                Err(_) => return Err(BuildError::cancelled()),
            },
            None => {
                let frontend = Frontend {
                    name: request.frontend,
                    options: convert::sorted(request.frontend_attrs),
                    inputs: self.inputs(&request.frontend_inputs)?,
                    cache_imports: request.cache.as_ref().map(convert::cache_imports).unwrap_or_default(),
                };
                let builder = self.builder.clone();
                let work = {
                    let build = build.clone();
                    async move { builder.solve(build, frontend).await }
                };
                Some(run(&build, work).await?)
            }
        };
        if exports.exporters.is_empty() && exports.caches.is_empty() {
            return Ok(SolveResponse::default());
        }
        let builder = self.builder.clone();
        let work = {
            let build = build.clone();
            async move { builder.export(build, solved, exports).await }
        };
        let response = run(&build, work).await?;
        Ok(SolveResponse { exporter_response: response.into_iter().collect() })
    }
}

/// Source policies decide which sources a build may use; to build without heeding them would do what somebody forbade.
pub(crate) fn refuse_policies(any: bool) -> Result<(), BuildError> {
    if any {
        return Err(BuildError::new(
            ErrorKind::Unsupported,
            "source policies are not supported by this engine; unset EXPERIMENTAL_BUILDKIT_SOURCE_POLICY",
        ));
    }
    Ok(())
}

#[async_trait]
impl Control for Server {
    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        Ok(Response::new(self.build(request.into_inner()).await?))
    }

    type StatusStream = Answers<StatusResponse>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<Self::StatusStream>, Status> {
        let progress = self.builds.progress(&request.into_inner().r#ref).await?;
        Ok(Response::new(progress.follow().map(Ok).boxed()))
    }

    type SessionStream = Answers<BytesMessage>;

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let headers =
            SessionHeaders::from_http(&request.metadata().clone().into_headers()).map_err(BuildError::from)?;
        let (ours, theirs) = tokio::io::duplex(SESSION_BUFFER);
        let sessions = self.sessions().clone();
        tokio::spawn(async move {
            if let Err(error) = sessions.attach(headers, ours).await {
                tracing::warn!(%error, "a session within a call was not taken");
            }
        });
        let (read, write) = tokio::io::split(theirs);
        tokio::spawn(pass_on(request.into_inner(), write));
        let answers = ReaderStream::with_capacity(read, SESSION_BUFFER / 2);
        let answers = answers.map(|bytes| match bytes {
            Ok(bytes) => Ok(BytesMessage { data: bytes.into() }),
            Err(error) => Err(Status::unavailable(format!("the session broke: {error}"))),
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Result<Response<ListWorkersResponse>, Status> {
        let workers = self.builder.workers().await?;
        let engine = convert::version(self.builder.version());
        let record = workers.into_iter().map(|worker| convert::worker(worker, engine.clone())).collect();
        Ok(Response::new(ListWorkersResponse { record }))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(convert::version(self.builder.version())) }))
    }

    async fn disk_usage(&self, request: Request<DiskUsageRequest>) -> Result<Response<DiskUsageResponse>, Status> {
        let usage = self.builder.disk_usage(convert::usage_query(request.into_inner())).await?;
        Ok(Response::new(DiskUsageResponse { record: usage.into_iter().map(convert::usage).collect() }))
    }

    type PruneStream = Answers<UsageRecord>;

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>, Status> {
        let prune = convert::prune(request.into_inner());
        let (gone, records) = mpsc::channel(16);
        let builder = self.builder.clone();
        // To be ended once begun, whether or not the client waits.
        let task = tokio::spawn(async move { builder.prune(prune, gone).await });
        let last = futures::stream::once(task).filter_map(|ended| async {
            match ended {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Err(error.to_status())),
                Err(_) => Some(Err(Status::internal("a defect of this engine ended the clearing of its cache"))),
            }
        });
        let records = ReceiverStream::new(records).map(|usage| Ok(convert::usage(usage)));
        Ok(Response::new(records.chain(last).boxed()))
    }

    type ListenBuildHistoryStream = Answers<BuildHistoryEvent>;

    async fn listen_build_history(
        &self,
        _: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>, Status> {
        Err(Status::unimplemented("this engine keeps no history of builds"))
    }

    async fn update_build_history(
        &self,
        _: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>, Status> {
        Err(Status::unimplemented("this engine keeps no history of builds"))
    }
}

/// Carries the client's half of a session within a call.
async fn pass_on(mut messages: Streaming<BytesMessage>, mut write: tokio::io::WriteHalf<DuplexStream>) {
    while let Ok(Some(message)) = messages.message().await {
        if write.write_all(&message.data).await.is_err() {
            return;
        }
    }
    let _ = write.shutdown().await;
}
