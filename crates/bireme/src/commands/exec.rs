//! `bireme exec`.

use std::time::{Duration, Instant};

use bireme_api::ClientError;
use bireme_api::answers::container::{Created, ExecSession};
use bireme_api::models::{ExecConfig, ExecStartConfig};

use crate::attach::{self, Ended, Session, Target};
use crate::cli::ExecArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};
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
    let created: Created = context.client.post(format!("/containers/{name}/exec")).json(&config).read().await?;
    let id = created.id;
    let how = ExecStartConfig {
        detach: Some(args.detach),
        tty: Some(args.tty),
        console_size: args.tty.then(crate::terminal::console_size).flatten(),
    };
    let start = context.client.post(format!("/exec/{id}/start")).json(&how);
    if args.detach {
        start.done().await?;
        return Ok(0);
    }
    let session = Session::new(args.interactive, args.tty, args.detach_keys.as_deref())?;
    let connection = start.upgrade().await?;
    let ended = attach::converse(context, session, connection, Target::Exec(id.clone()), None).await?;
    if ended == Ended::Detached {
        return Ok(0);
    }
    ended_with(context, &id).await
}

/// How long an engine may leave open how a session ended, while it does not say that it still runs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Between two questions, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// What follows from what the engine says of a session whose output has ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// It ended, with this exit code.
    Ended(i64),
    /// It runs on without its output, for as long as it likes.
    Running,
    /// It is not said yet how it ended.
    Unclear,
    /// It will not be said any more, for this reason. It must not be taken for success.
    Unknown(String),
}

/// `unclear` is how long the engine has left it open already.
fn decide(said: Result<ExecSession, ClientError>, unclear: Duration) -> Verdict {
    let reason = match said {
        Ok(ExecSession { running: Some(true), .. }) => return Verdict::Running,
        Ok(ExecSession { running: Some(false), exit_code: Some(code) }) => return Verdict::Ended(code),
        Ok(_) => "the engine does not say".to_owned(),
        Err(error) if error.is_not_found() => {
            return Verdict::Unknown("the engine does not know the session any more".to_owned());
        }
        // It may be about to start again.
        Err(error) => bireme_core::error::chain(&error),
    };
    if unclear < PATIENCE { Verdict::Unclear } else { Verdict::Unknown(reason) }
}

/// Waits until a session whose output has ended has ended too: it may close its output early, and the engine may note
/// the exit code a moment later.
async fn ended_with(context: &Context, id: &str) -> Outcome {
    let mut pause = PAUSE.0;
    let mut clear = Instant::now();
    loop {
        let said = context.client.get(format!("/exec/{id}/json")).read().await;
        match decide(said, clear.elapsed()) {
            Verdict::Ended(code) => return Ok(attach::exit_code(code)),
            Verdict::Running => clear = Instant::now(),
            Verdict::Unclear => {}
            Verdict::Unknown(reason) => {
                return Err(Failure::new(format!("cannot tell how the command ended: {reason}")).code(125).into());
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(said: Result<(Option<bool>, Option<i64>), u16>, unclear: Duration, expected: Verdict) {
        let shown = format!("{said:?} after {unclear:?}");
        let said = match said {
            Ok((running, exit_code)) => Ok(ExecSession { running, exit_code }),
            Err(status) => Err(ClientError::Refused {
                status: http::StatusCode::from_u16(status).unwrap(),
                message: "no".to_owned(),
            }),
        };
        assert_eq!(decide(said, unclear), expected, "{shown}");
    }

    #[test]
    fn only_a_code_that_the_engine_gave_is_answered() {
        let (soon, late) = (Duration::ZERO, PATIENCE);
        check(Ok((Some(false), Some(0))), soon, Verdict::Ended(0));
        check(Ok((Some(false), Some(3))), late, Verdict::Ended(3));
        // However long it runs, and whatever code stands there meanwhile.
        check(Ok((Some(true), None)), late, Verdict::Running);
        check(Ok((Some(true), Some(0))), late, Verdict::Running);
        for said in [(Some(false), None), (None, None), (None, Some(0))] {
            check(Ok(said), soon, Verdict::Unclear);
            check(Ok(said), late, Verdict::Unknown("the engine does not say".to_owned()));
        }
        let unknown = "the engine does not know the session any more";
        check(Err(404), soon, Verdict::Unknown(unknown.to_owned()));
        check(Err(500), soon, Verdict::Unclear);
        check(Err(500), late, Verdict::Unknown("Error response from daemon: no".to_owned()));
    }
}
