//! `bireme attach`.

use bireme_api::answers::container::Container;

use crate::attach::{self, Ended, Session, Signals, Streams, Target};
use crate::cli::AttachArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};

pub(super) async fn attach(context: &Context, args: &AttachArgs) -> Outcome {
    let name = crate::app::resolve(context, &args.name).await?;
    let container: Container = context.client.get(format!("/containers/{name}/json")).read().await?;
    if !container.state.running {
        return Err(Failure::new("cannot attach to a stopped container, start it first")
            .hint(format!("`bireme start -a {name}` starts and attaches"))
            .into());
    }
    if container.state.paused {
        return Err(Failure::new("cannot attach to a paused container, unpause it first").into());
    }
    let id = container.id.unwrap_or(name);
    let tty = container.config.tty;
    let stdin = !args.no_stdin && container.config.open_stdin;
    super::run::check_terminal(tty && stdin)?;
    let session = Session::new(stdin, tty, args.detach_keys.as_deref())?;
    let exit = attach::begin_wait(&context.client, &id, "not-running").await?;
    let streams = Streams::with_input(stdin);
    let connection = attach::connect(&context.client, &id, streams, args.detach_keys.as_deref()).await?;
    let signals = (args.sig_proxy && !tty).then(Signals::new).transpose()?;
    match attach::converse(context, session, connection, Target::Container(id), signals).await? {
        Ended::Detached => Ok(0),
        Ended::Output => exit.await,
    }
}
