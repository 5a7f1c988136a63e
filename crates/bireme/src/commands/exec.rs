//! `bireme exec`.

use bireme_api::models::{ExecConfig, IdResponse};
use serde_json::{Value, json};

use crate::attach::{self, Ended, Session, Target};
use crate::cli::ExecArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::request;

pub(super) async fn exec(context: &Context, args: &ExecArgs) -> Outcome {
    let (name, command) = args.name_and_command.split_first().expect("the grammar asks for two words at least");
    super::run::check_terminal(args.tty && args.interactive && !args.detach)?;
    let environment = request::environment(&args.env, &args.env_file)?;
    let config = ExecConfig {
        attach_stdin: Some(args.interactive && !args.detach),
        attach_stdout: Some(!args.detach),
        attach_stderr: Some(!args.detach),
        detach_keys: args.detach_keys.clone(),
        tty: Some(args.tty),
        env: (!environment.is_empty()).then_some(environment),
        cmd: Some(command.to_vec()),
        privileged: Some(args.privileged),
        user: args.user.clone(),
        working_dir: args.workdir.clone(),
        console_size: args.tty.then(crate::terminal::console_size).flatten(),
    };
    let name = crate::app::resolve(context, name).await?;
    let created: IdResponse = context.client.post(format!("/containers/{name}/exec")).json(&config).read().await?;
    let id = created.id;
    let mut how = json!({"Detach": args.detach, "Tty": args.tty});
    if let Some(size) = args.tty.then(crate::terminal::console_size).flatten() {
        how["ConsoleSize"] = json!(size);
    }
    let start = context.client.post(format!("/exec/{id}/start")).json(&how);
    if args.detach {
        start.done().await?;
        return Ok(0);
    }
    let session = Session::new(args.interactive, args.tty, args.detach_keys.as_deref())?;
    let connection = start.upgrade().await?;
    let ended = attach::converse(context, session, connection, Target::Exec(id.clone()), false).await?;
    if ended == Ended::Detached {
        return Ok(0);
    }
    // The output may end a moment before the engine has noted the exit code.
    for _ in 0..200 {
        let state: Value = context.client.get(format!("/exec/{id}/json")).read().await?;
        if state["Running"] != true {
            return Ok(attach::exit_code(state["ExitCode"].as_i64().unwrap_or(0)));
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(0)
}
