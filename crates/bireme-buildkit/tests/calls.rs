//! Calls in an order that buildx does not use: frontends solved directly, two readers, definitions of LLB, clients that go.

#![allow(clippy::unwrap_used, reason = "in tests, which fail by it")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bireme_buildkit::{
    Build, BuildError, Builder, Exports, Frontend, LogStream, Outputs, Prune, Results, Server, Solved, Usage,
    UsageQuery, Worker,
};
use bireme_core::BoxFuture;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::result::Result as Wire;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    PingRequest, Result as WireResult, ReturnRequest, SolveRequest as BridgeRequest,
};
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryRequest, Exporter, SolveRequest, StatusRequest, StatusResponse,
};
use bollard_buildkit_proto::pb;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Answers at once, or waits to be given up.
#[derive(Default)]
struct Simple {
    cancelled: AtomicBool,
    cleaned_up: AtomicBool,
}

impl Builder for Simple {
    fn version(&self) -> String {
        "v0".to_owned()
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>, BuildError>> {
        Box::pin(async { Ok(vec![Worker::default()]) })
    }

    fn solve(&self, build: Arc<Build>, frontend: Frontend) -> BoxFuture<'_, Result<Solved, BuildError>> {
        Box::pin(async move {
            let vertex = build.progress().vertex("step", &[]);
            vertex.start();
            vertex.log(LogStream::Stdout, b"said\n");
            match frontend.name.as_str() {
                "wait" => {
                    build.cancelled().cancelled().await;
                    self.cancelled.store(true, Ordering::SeqCst);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    self.cleaned_up.store(true, Ordering::SeqCst);
                    return Err(BuildError::cancelled());
                }
                "panic" => panic!("on purpose"),
                _ => {}
            }
            vertex.complete();
            let mut made = frontend
                .inputs
                .get("base")
                .map_or_else(String::new, |base| base.downcast_ref::<String>().unwrap().clone());
            made.push_str(&frontend.name);
            Ok(Solved { outputs: Outputs::One(Arc::new(made)), metadata: BTreeMap::new() })
        })
    }

    fn export(
        &self,
        _: Arc<Build>,
        solved: Option<Solved>,
        exports: Exports,
    ) -> BoxFuture<'_, Result<BTreeMap<String, String>, BuildError>> {
        Box::pin(async move {
            let made = match solved.map(|solved| solved.outputs) {
                Some(Outputs::One(output)) => output.downcast_ref::<String>().unwrap().clone(),
                _ => "nothing".to_owned(),
            };
            Ok(exports.exporters.into_iter().map(|exporter| (exporter.kind, made.clone())).collect())
        })
    }

    fn disk_usage(&self, _: UsageQuery) -> BoxFuture<'_, Result<Vec<Usage>, BuildError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn prune(&self, _: Prune, _: mpsc::Sender<Usage>) -> BoxFuture<'_, Result<(), BuildError>> {
        Box::pin(async { Err(BuildError::failed("cannot prune: no")) })
    }
}

struct Engine {
    builder: Arc<Simple>,
    control: ControlClient<Channel>,
    bridge: LlbBridgeClient<Channel>,
}

async fn engine() -> Engine {
    let builder = Arc::new(Simple::default());
    let server = Server::new(builder.clone(), Results::default());
    let connector = tower::service_fn(move |_| {
        let server = server.clone();
        async move {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            tokio::spawn(async move { server.serve(theirs).await });
            Ok::<_, std::io::Error>(TokioIo::new(ours))
        }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await.unwrap();
    Engine { builder, control: ControlClient::new(channel.clone()), bridge: LlbBridgeClient::new(channel) }
}

fn solve(id: &str, frontend: &str) -> SolveRequest {
    let exporters = vec![Exporter { r#type: "moby".to_owned(), attrs: HashMap::new() }];
    SolveRequest { r#ref: id.to_owned(), frontend: frontend.to_owned(), exporters, ..SolveRequest::default() }
}

fn of_build<T>(id: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("buildkit-controlapi-buildid", id.parse().unwrap());
    request
}

/// All that `Status` says of a build.
async fn status(mut control: ControlClient<Channel>, id: &str) -> Result<Vec<StatusResponse>, Status> {
    let mut news = control.status(StatusRequest { r#ref: id.to_owned() }).await?.into_inner();
    let mut all = Vec::new();
    while let Some(part) = news.message().await? {
        all.push(part);
    }
    Ok(all)
}

#[tokio::test]
async fn a_frontend_is_solved_and_exported_without_the_bridge_and_told_to_every_reader() {
    let mut engine = engine().await;
    let before = tokio::spawn(status(engine.control.clone(), "b"));
    let second = tokio::spawn(status(engine.control.clone(), "b"));
    let answer = engine.control.solve(solve("b", "dockerfile.v0")).await.unwrap().into_inner();
    assert_eq!(answer.exporter_response["moby"], "dockerfile.v0");
    for news in [before.await.unwrap(), second.await.unwrap(), status(engine.control.clone(), "b").await] {
        let news = news.unwrap();
        assert!(news.iter().flat_map(|news| &news.logs).any(|log| log.msg == b"said\n"));
        assert!(news.iter().flat_map(|news| &news.vertexes).any(|vertex| vertex.completed.is_some()));
    }
}

#[tokio::test]
async fn the_bridge_hands_a_result_to_another_build_as_a_definition() {
    let mut engine = engine().await;
    let first = tokio::spawn({
        let mut control = engine.control.clone();
        async move { control.solve(solve("one", "")).await }
    });
    // May come before the build, and names it.
    engine.bridge.ping(of_build("one", PingRequest {})).await.unwrap();
    assert_eq!(engine.bridge.ping(PingRequest {}).await.unwrap_err().code(), Code::InvalidArgument);
    let request = BridgeRequest {
        frontend: "a".to_owned(),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..BridgeRequest::default()
    };
    let result = engine.bridge.solve(of_build("one", request)).await.unwrap().into_inner().result.unwrap();
    let Some(Wire::Ref(reference)) = result.result.clone() else { panic!("no reference") };

    let mut second = solve("two", "b");
    second.frontend_inputs = HashMap::from([("base".to_owned(), reference.def.unwrap())]);
    let answer = engine.control.solve(second).await.unwrap().into_inner();
    assert_eq!(answer.exporter_response["moby"], "ab");

    engine.bridge.r#return(of_build("one", ReturnRequest { result: Some(result), error: None })).await.unwrap();
    assert_eq!(first.await.unwrap().unwrap().into_inner().exporter_response["moby"], "a");
}

#[tokio::test]
async fn a_failure_that_the_client_returns_is_the_builds_with_its_details() {
    let mut engine = engine().await;
    let build = tokio::spawn({
        let mut control = engine.control.clone();
        async move { control.solve(solve("b", "")).await }
    });
    let error = bollard_buildkit_proto::google::rpc::Status {
        code: 2,
        message: "the step failed".to_owned(),
        ..Default::default()
    };
    let returned = ReturnRequest { result: None, error: Some(error) };
    engine.bridge.r#return(of_build("b", returned.clone())).await.unwrap();
    assert_eq!(build.await.unwrap().unwrap_err().message(), "the step failed");

    let build = tokio::spawn({
        let mut control = engine.control.clone();
        async move { control.solve(solve("c", "")).await }
    });
    let unknown = WireResult { result: Some(Wire::RefDeprecated("nothing".to_owned())), ..WireResult::default() };
    engine.bridge.r#return(of_build("c", ReturnRequest { result: Some(unknown), error: None })).await.unwrap();
    assert_eq!(build.await.unwrap().unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn what_is_not_offered_is_refused_by_a_sentence() {
    let mut engine = engine().await;
    let op = pb::SourceOp { identifier: "docker-image://busybox".to_owned(), attrs: BTreeMap::new() };
    let op = pb::Op { op: Some(pb::op::Op::Source(op)), ..pb::Op::default() };
    let definition = pb::Definition { def: vec![prost::Message::encode_to_vec(&op)], ..pb::Definition::default() };
    let refused =
        engine.control.solve(SolveRequest { definition: Some(definition), ..solve("b", "") }).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert!(refused.message().contains("does not run LLB definitions"), "{refused}");

    let policy = SolveRequest { source_policy_session: "s".to_owned(), ..solve("b", "a") };
    assert!(engine.control.solve(policy).await.unwrap_err().message().contains("source policies"));

    let history = engine.control.listen_build_history(BuildHistoryRequest::default()).await.unwrap_err();
    assert_eq!(history.code(), Code::Unimplemented);

    let mut gone = engine
        .control
        .prune(bollard_buildkit_proto::moby::buildkit::v1::PruneRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(gone.message().await.unwrap_err().message(), "cannot prune: no");

    let broken = engine.control.solve(solve("b", "panic")).await.unwrap_err();
    assert!(broken.message().contains("a defect of this engine"), "{broken}");
}

#[tokio::test]
async fn a_build_whose_call_is_given_up_cleans_up_and_its_name_is_free() {
    let mut engine = engine().await;
    let call = tokio::spawn({
        let mut control = engine.control.clone();
        async move { control.solve(solve("b", "wait")).await }
    });
    let reader = tokio::spawn(status(engine.control.clone(), "b"));
    engine.bridge.ping(of_build("b", PingRequest {})).await.unwrap();
    assert!(engine.control.solve(solve("b", "a")).await.unwrap_err().message().contains("its ID is taken"));
    call.abort();
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, reader).await.unwrap().unwrap().unwrap();
    let cleaned_up = async {
        while !engine.builder.cleaned_up.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, cleaned_up).await.expect("the builder was dropped before it had cleaned up");
    assert!(engine.builder.cancelled.load(Ordering::SeqCst));
    engine.control.solve(solve("b", "a")).await.unwrap();
}
