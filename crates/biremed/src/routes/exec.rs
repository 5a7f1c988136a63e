//! `/exec`: further processes in a container.

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bireme_api::models::{ExecConfig, ExecStartConfig};
use bireme_core::ExecSpec;
use bireme_core::detach_keys::DetachKeys;
use bireme_engine::{EngineError, ExecAttach};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{Answer, ok};
use crate::app::App;
use crate::convert::create::console_size;
use crate::error::ApiError;
use crate::extract::{Json, OptionalJson, Query};
use crate::hijack::{self, Hijack, Only};
use crate::version::ApiVersion;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/containers/{name}/exec", post(create))
        .route("/exec/{id}/start", post(start))
        .route("/exec/{id}/resize", post(resize))
        .route("/exec/{id}/json", get(inspect))
}

#[derive(serde::Deserialize)]
struct CreateRequest {
    #[serde(flatten)]
    config: ExecConfig,
    /// As docker-py writes it. Docker reads keys in any case.
    #[serde(rename = "detachKeys")]
    detach_keys: Option<String>,
}

async fn create(State(app): State<App>, Path(name): Path<String>, Json(wire): Json<CreateRequest>) -> Answer {
    let CreateRequest { config: wire, detach_keys } = wire;
    let args = wire.cmd.unwrap_or_default();
    if args.is_empty() {
        return Err(ApiError::invalid("No exec command specified"));
    }
    let detach_keys = super::attach::detach_keys(wire.detach_keys.or(detach_keys).as_deref().unwrap_or_default())?;
    let spec = ExecSpec {
        args,
        env: wire.env.unwrap_or_default(),
        cwd: wire.working_dir.filter(|path| !path.is_empty()),
        user: wire.user.filter(|user| !user.is_empty()),
        tty: wire.tty == Some(true),
        stdin: wire.attach_stdin == Some(true),
        privileged: wire.privileged == Some(true),
        size: console_size(wire.console_size.as_deref())?,
    };
    let attach = ExecAttach {
        stdin: spec.stdin,
        stdout: wire.attach_stdout == Some(true),
        stderr: wire.attach_stderr == Some(true),
        detach_keys,
    };
    let id = app.engine.exec_create(&name, spec, attach).await?;
    Ok(super::json(StatusCode::CREATED, &json!({ "Id": id })))
}

async fn start(
    State(app): State<App>,
    Path(id): Path<String>,
    version: ApiVersion,
    headers: HeaderMap,
    OptionalJson(wire): OptionalJson<ExecStartConfig>,
) -> Answer {
    let detach = wire.detach == Some(true);
    let size = console_size(wire.console_size.as_deref())?;
    let known = app.engine.exec_ready(&id)?;
    if detach {
        app.change(|engine| async move { engine.exec_start(&id, detach, size).await.map(drop) }).await?;
        return Ok(Response::new(Body::empty()));
    }
    let tty = known.spec.tty;
    // The form of the output is what the client asks for here, whatever the session has.
    let raw = wire.tty == Some(true);
    // Begun when the client has the head of the answer: some read it together with what follows, and lose that.
    let run = async move |client: hijack::Client| {
        client.has_read().await;
        let session = match app.engine.exec_start(&id, detach, size).await {
            Ok(session) => session,
            // Told in the stream, as Docker does: its client then asks for the exit code.
            Err(error) => {
                if !matches!(&error, EngineError::Exec(error) if error.exit_code().is_some()) {
                    tracing::warn!(exec = id, error = %bireme_core::error::chain(&error), "a session did not start");
                }
                return hijack::say(client, &format!("{error}\r\n"), raw).await;
            }
        };
        let Some(stream) = session.stream else { return };
        let input = known.attach.stdin;
        let keys = if tty && input { known.attach.detach_keys } else { DetachKeys::none() };
        let only = Only::formed(known.attach.stdout, known.attach.stderr, tty, raw);
        // The client asks for the exit code as soon as the stream ends: it must stand by then.
        let recorded = app.engine.exec_recorded(&id);
        hijack::carry(client, stream, input, keys, only, recorded).await;
    };
    Ok(Hijack::new(&headers, version, raw, run).into_response())
}

async fn resize(State(app): State<App>, Path(id): Path<String>, query: Query) -> Answer {
    let (columns, rows) = super::containers::terminal_size(&query)?;
    app.engine.exec_resize(&id, columns, rows).await?;
    Ok(Response::new(Body::empty()))
}

async fn inspect(State(app): State<App>, Path(id): Path<String>) -> Answer {
    let view = app.engine.exec_inspect(&id)?;
    let (entrypoint, arguments) =
        view.spec.args.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
    ok(&json!({
        "ID": view.id,
        "Running": view.running,
        "ExitCode": view.exit_code,
        "ProcessConfig": {
            "tty": view.spec.tty,
            "entrypoint": entrypoint,
            "arguments": arguments,
            "privileged": view.spec.privileged,
            "user": view.spec.user.clone().unwrap_or_default(),
        },
        "OpenStdin": view.attach.stdin,
        "OpenStderr": view.attach.stderr,
        "OpenStdout": view.attach.stdout,
        "CanRemove": false,
        "ContainerID": view.container_id,
        "DetachKeys": "",
        "Pid": view.pid.unwrap_or_default(),
    }))
}
