//! `moby.buildkit.v1.frontend.LLBBridge`: what the client's part of a build asks for, call by call.

use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use std::sync::Arc;

use bireme_core::ErrorKind;
use bollard_buildkit_proto::moby::buildkit::v1::CacheOptionsEntry;
use bollard_buildkit_proto::moby::buildkit::v1::VertexWarning;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridge;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::result::Result as WireOutputs;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    EvaluateRequest, EvaluateResponse, ExecMessage, InputsRequest, InputsResponse, NewContainerRequest,
    NewContainerResponse, PingRequest, PongResponse, ReadDirRequest, ReadDirResponse, ReadFileRequest,
    ReadFileResponse, Ref, RefMap, RefMapDeprecated, ReleaseContainerRequest, ReleaseContainerResponse,
    ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceMetaRequest, ResolveSourceMetaResponse,
    Result as WireResult, ReturnRequest, ReturnResponse, SolveRequest, SolveResponse, StatFileRequest,
    StatFileResponse, WarnRequest, WarnResponse,
};
use bollard_buildkit_proto::pb;
use futures::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::builder::{Frontend, Output, Outputs, Solved};
use crate::builds::{OpenBuild, run};
use crate::control::refuse_policies;
use crate::convert;
use crate::error::BuildError;
use crate::outputs::definition_of;
use crate::server::{MAX_FILE, Server};

/// Names the build that a call belongs to (`client/buildid`).
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// How many results of one build there may be, platforms and inputs.
const MAX_RESULTS: usize = 256;

impl Server {
    async fn open_build(&self, metadata: &MetadataMap) -> Result<Arc<OpenBuild>, BuildError> {
        match metadata.get(BUILD_ID).and_then(|id| id.to_str().ok()) {
            Some(id) => self.builds.get(id).await,
            None => Err(BuildError::new(ErrorKind::Invalid, format!("the call names no build (metadata {BUILD_ID})"))),
        }
    }

    pub(crate) fn inputs(
        &self,
        definitions: &HashMap<String, pb::Definition>,
    ) -> Result<BTreeMap<String, Output>, BuildError> {
        if definitions.len() > MAX_RESULTS {
            return Err(BuildError::new(
                ErrorKind::Invalid,
                format!("a build takes at most {MAX_RESULTS} other results"),
            ));
        }
        let input = |(name, definition): (&String, &pb::Definition)| {
            Ok((name.clone(), self.outputs.of_definition(definition)?))
        };
        definitions.iter().map(input).collect()
    }

    async fn bridge_solve(&self, open: &OpenBuild, request: SolveRequest) -> Result<SolveResponse, BuildError> {
        refuse_policies(request.source_policies.iter().any(|policy| !policy.rules.is_empty()))?;
        let definition = request.definition.filter(|definition| !definition.def.is_empty());
        let solved = match definition {
            Some(definition) if request.frontend.is_empty() => {
                Solved { outputs: Outputs::One(self.outputs.of_definition(&definition)?), ..Solved::default() }
            }
            // A client makes an empty result in this way.
            None if request.frontend.is_empty() => Solved::default(),
            _ => {
                let import = |entry: bollard_buildkit_proto::moby::buildkit::v1::frontend::CacheOptionsEntry| {
                    convert::cache_option(CacheOptionsEntry { r#type: entry.r#type, attrs: entry.attrs })
                };
                let options = convert::sorted(request.frontend_opt);
                let mut cache_imports = convert::named_imports(&options)?;
                cache_imports.extend(request.cache_imports.into_iter().map(import));
                let inputs = self.inputs(&request.frontend_inputs)?;
                let frontend = Frontend { name: request.frontend, options, inputs, cache_imports };
                let (builder, build) = (self.builder.clone(), open.build.clone());
                run(&open.build, async move { builder.solve(build, frontend).await }).await?
            }
        };
        let outputs = match solved.outputs {
            Outputs::None => Named::One(String::new()),
            Outputs::One(output) => Named::One(open.keep(output)?),
            Outputs::Platforms(all) => {
                let kept = all.into_iter().map(|(platform, output)| Ok((platform, open.keep(output)?)));
                Named::Platforms(kept.collect::<Result<_, BuildError>>()?)
            }
        };
        if !request.allow_result_return {
            let Named::One(r#ref) = outputs else {
                return Err(BuildError::new(ErrorKind::Unsupported, "this client is too old for several platforms"));
            };
            return Ok(SolveResponse { r#ref, result: None });
        }
        let result = outputs.to_wire(request.allow_result_array_ref);
        let metadata = solved.metadata.into_iter().collect();
        let result = WireResult { metadata, attestations: HashMap::new(), result: Some(result) };
        Ok(SolveResponse { r#ref: String::new(), result: Some(result) })
    }

    /// What a client chose of the results.
    fn chosen(&self, result: WireResult) -> Result<Option<Solved>, BuildError> {
        let output = |id: &String| self.outputs.get(id);
        let one = |id: String| match id.as_str() {
            "" => Ok(Outputs::None),
            _ => output(&id).map(Outputs::One),
        };
        let several = |ids: HashMap<String, String>| {
            if ids.len() > MAX_RESULTS {
                return Err(BuildError::new(ErrorKind::Invalid, format!("a build has at most {MAX_RESULTS} results")));
            }
            let kept = ids.iter().filter(|(_, id)| !id.is_empty());
            let outputs = kept.map(|(platform, id)| Ok((platform.clone(), output(id)?)));
            outputs.collect::<Result<_, BuildError>>().map(Outputs::Platforms)
        };
        let outputs = match result.result {
            None => Outputs::None,
            Some(WireOutputs::Ref(reference)) => one(reference.id)?,
            Some(WireOutputs::RefDeprecated(id)) => one(id)?,
            Some(WireOutputs::Refs(map)) => several(map.refs.into_iter().map(|(name, r)| (name, r.id)).collect())?,
            Some(WireOutputs::RefsDeprecated(map)) => several(map.refs)?,
        };
        let metadata = convert::sorted(result.metadata);
        if matches!(outputs, Outputs::None) && metadata.is_empty() {
            return Ok(None);
        }
        Ok(Some(Solved { outputs, metadata }))
    }
}

/// Results by their handles.
enum Named {
    One(String),
    Platforms(BTreeMap<String, String>),
}

impl Named {
    fn to_wire(&self, arrays: bool) -> WireOutputs {
        let reference = |id: &String| Ref { id: id.clone(), def: (!id.is_empty()).then(|| definition_of(id)) };
        match (self, arrays) {
            (Self::One(id), true) => WireOutputs::Ref(reference(id)),
            (Self::One(id), false) => WireOutputs::RefDeprecated(id.clone()),
            (Self::Platforms(all), true) => {
                let refs = all.iter().map(|(platform, id)| (platform.clone(), reference(id))).collect();
                WireOutputs::Refs(RefMap { refs })
            }
            (Self::Platforms(all), false) => {
                WireOutputs::RefsDeprecated(RefMapDeprecated { refs: all.clone().into_iter().collect() })
            }
        }
    }
}

#[async_trait]
impl LlbBridge for Server {
    async fn ping(&self, request: Request<PingRequest>) -> Result<Response<PongResponse>, Status> {
        self.open_build(request.metadata()).await?;
        let workers = self.builder.workers().await?;
        let engine = convert::version(self.builder.version());
        Ok(Response::new(PongResponse {
            frontend_api_caps: convert::gateway_caps(),
            llb_caps: convert::llb_caps(&self.builder.capabilities()),
            workers: workers.into_iter().map(|worker| convert::worker(worker, engine.clone())).collect(),
        }))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>, Status> {
        let open = self.open_build(request.metadata()).await?;
        Ok(Response::new(self.bridge_solve(&open, request.into_inner()).await?))
    }

    async fn r#return(&self, request: Request<ReturnRequest>) -> Result<Response<ReturnResponse>, Status> {
        let open = self.open_build(request.metadata()).await?;
        let request = request.into_inner();
        let returned = match request.error {
            Some(error) => Err(BuildError::from_wire(error)),
            None => self.chosen(request.result.unwrap_or_default()),
        };
        open.give_back(returned)?;
        Ok(Response::new(ReturnResponse {}))
    }

    async fn evaluate(&self, request: Request<EvaluateRequest>) -> Result<Response<EvaluateResponse>, Status> {
        self.open_build(request.metadata()).await?;
        let id = request.into_inner().r#ref;
        // What was solved has been built.
        if !id.is_empty() {
            self.outputs.get(&id)?;
        }
        Ok(Response::new(EvaluateResponse {}))
    }

    async fn inputs(&self, request: Request<InputsRequest>) -> Result<Response<InputsResponse>, Status> {
        let open = self.open_build(request.metadata()).await?;
        Ok(Response::new(InputsResponse { definitions: open.inputs.clone() }))
    }

    async fn read_file(&self, request: Request<ReadFileRequest>) -> Result<Response<ReadFileResponse>, Status> {
        let open = self.open_build(request.metadata()).await?;
        let request = request.into_inner();
        let output = self.outputs.get(&request.r#ref)?;
        let invalid = |_| BuildError::new(ErrorKind::Invalid, "a part of a file was asked for that none has");
        let range = match request.range {
            Some(range) => {
                let offset = u64::try_from(range.offset).map_err(invalid)?;
                Some((offset, u64::try_from(range.length).map_err(invalid)?.min(MAX_FILE)))
            }
            None => None,
        };
        let data = self.builder.read_file(open.build.clone(), &output, &request.file_path, range).await?;
        if data.len() as u64 > MAX_FILE {
            let message = format!("{} is larger than {MAX_FILE} bytes; read it in parts", request.file_path);
            return Err(BuildError::new(ErrorKind::Invalid, message).into());
        }
        Ok(Response::new(ReadFileResponse { data }))
    }

    async fn read_dir(&self, request: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        let open = self.open_build(request.metadata()).await?;
        let request = request.into_inner();
        let output = self.outputs.get(&request.r#ref)?;
        let entries =
            self.builder.read_dir(open.build.clone(), &output, &request.dir_path, &request.include_pattern).await?;
        Ok(Response::new(ReadDirResponse { entries: entries.iter().map(crate::files::Entry::to_stat).collect() }))
    }

    async fn stat_file(&self, request: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        let open = self.open_build(request.metadata()).await?;
        let request = request.into_inner();
        let output = self.outputs.get(&request.r#ref)?;
        let entry = self.builder.stat_file(open.build.clone(), &output, &request.path).await?;
        Ok(Response::new(StatFileResponse { stat: Some(entry.to_stat()) }))
    }

    async fn resolve_image_config(
        &self,
        request: Request<ResolveImageConfigRequest>,
    ) -> Result<Response<ResolveImageConfigResponse>, Status> {
        self.open_build(request.metadata()).await?;
        let request = request.into_inner();
        refuse_policies(request.source_policies.iter().any(|policy| !policy.rules.is_empty()))?;
        Err(cannot_resolve(&request.r#ref).into())
    }

    async fn resolve_source_meta(
        &self,
        request: Request<ResolveSourceMetaRequest>,
    ) -> Result<Response<ResolveSourceMetaResponse>, Status> {
        self.open_build(request.metadata()).await?;
        let request = request.into_inner();
        refuse_policies(request.source_policies.iter().any(|policy| !policy.rules.is_empty()))?;
        let source = request.source.unwrap_or_default();
        let Some(reference) = source.identifier.strip_prefix("docker-image://") else {
            let message = format!("cannot resolve {:?}: this engine resolves images only", source.identifier);
            return Err(BuildError::new(ErrorKind::Unsupported, message).into());
        };
        Err(cannot_resolve(reference).into())
    }

    async fn warn(&self, request: Request<WarnRequest>) -> Result<Response<WarnResponse>, Status> {
        let open = self.open_build(request.metadata()).await?;
        let request = request.into_inner();
        open.build.progress().warn_raw(VertexWarning {
            vertex: request.digest,
            level: request.level,
            short: request.short,
            detail: request.detail,
            url: request.url,
            info: request.info,
            ranges: request.ranges,
        });
        Ok(Response::new(WarnResponse {}))
    }

    async fn new_container(&self, _: Request<NewContainerRequest>) -> Result<Response<NewContainerResponse>, Status> {
        Err(no_containers())
    }

    async fn release_container(
        &self,
        _: Request<ReleaseContainerRequest>,
    ) -> Result<Response<ReleaseContainerResponse>, Status> {
        Err(no_containers())
    }

    type ExecProcessStream = Pin<Box<dyn Stream<Item = Result<ExecMessage, Status>> + Send>>;

    async fn exec_process(
        &self,
        _: Request<Streaming<ExecMessage>>,
    ) -> Result<Response<Self::ExecProcessStream>, Status> {
        Err(no_containers())
    }

    async fn read_file_container(&self, _: Request<ReadFileRequest>) -> Result<Response<ReadFileResponse>, Status> {
        Err(no_containers())
    }

    async fn read_dir_container(&self, _: Request<ReadDirRequest>) -> Result<Response<ReadDirResponse>, Status> {
        Err(no_containers())
    }

    async fn stat_file_container(&self, _: Request<StatFileRequest>) -> Result<Response<StatFileResponse>, Status> {
        Err(no_containers())
    }
}

fn no_containers() -> Status {
    Status::unimplemented("this engine runs no containers for the client's part of a build (buildx debug)")
}

fn cannot_resolve(reference: &str) -> BuildError {
    let message = format!("cannot resolve {reference}: this engine resolves images for its own frontend only");
    BuildError::new(ErrorKind::Unsupported, message)
}
