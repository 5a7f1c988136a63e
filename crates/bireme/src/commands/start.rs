//! `bireme start`.

use bireme_api::answers::container::Container;

use super::each::each;
use crate::app;
use crate::attach::{self, Ended, Session, Signals, Streams, Target};
use crate::cli::StartArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};

pub(super) async fn start(context: &Context, args: &StartArgs) -> Outcome {
    if args.attach || args.interactive {
        let [name] = args.names.as_slice() else {
            return Err(Failure::new("--attach and --interactive take exactly one container").into());
        };
        return attached(context, args, name).await;
    }
    let names = app::targets(context, &args.names, &args.project).await?;
    each(context, &names, |name| context.client.post(format!("/containers/{name}/start")).done()).await
}

async fn attached(context: &Context, args: &StartArgs, name: &str) -> Outcome {
    let name = &app::resolve(context, name).await?;
    let container: Container = context.client.get(format!("/containers/{name}/json")).read().await?;
    let id = container.id.unwrap_or_else(|| name.clone());
    let tty = container.config.tty;
    let stdin = args.interactive && container.config.open_stdin;
    super::run::check_terminal(tty && stdin)?;
    // Whoever interrupts means what is being started. With a terminal, that is what the workload reads.
    let mut signals = (!tty).then(Signals::new).transpose()?;
    let session = Session::new(stdin, tty, args.detach_keys.as_deref())?;
    let streams = Streams::with_input(stdin);
    let condition = if container.host_config.auto_remove { "removed" } else { "next-exit" };
    let begun = async {
        let connection = attach::connect(&context.client, &id, streams, args.detach_keys.as_deref()).await?;
        let exit = attach::begin_wait(&context.client, &id, condition).await?;
        context.client.post(format!("/containers/{id}/start")).done().await?;
        Ok::<_, bireme_api::ClientError>((connection, exit))
    };
    let (connection, exit) = attach::kept_during(signals.as_mut(), begun).await?;
    match attach::converse(context, session, connection, Target::Container(id), signals).await? {
        Ended::Detached => Ok(0),
        Ended::Output => exit.await,
    }
}
