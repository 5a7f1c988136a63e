//! `bireme logs`.

use bireme_api::Client;
use bireme_api::answers::container::Container;
use futures::StreamExt;

use crate::app;
use crate::app::follow::{Lines, Prefix};
use crate::attach::Demux;
use crate::cli::LogsArgs;
use crate::context::Context;
use crate::error::Outcome;

pub(super) async fn logs(context: &Context, args: &LogsArgs) -> Outcome {
    let targets = app::log_targets(context, &args.names, &args.project).await?;
    if let ([(id, _)], false) = (targets.as_slice(), args.names.is_empty()) {
        return one(context, args, id).await;
    }
    let width = targets.iter().map(|(_, name)| name.chars().count()).max().unwrap_or(0);
    let mut readers: Vec<_> = targets
        .iter()
        .enumerate()
        .map(|(at, (id, name))| {
            let prefix =
                if args.no_log_prefix { Prefix::none() } else { Prefix::new(&context.printer, at, name, width) };
            Box::pin(prefixed(context, args, id, prefix))
        })
        .collect();
    if args.follow {
        futures::future::try_join_all(readers).await?;
    } else {
        for reader in readers.drain(..) {
            reader.await?;
        }
    }
    Ok(0)
}

async fn open(client: &Client, args: &LogsArgs, id: &str) -> anyhow::Result<(bool, bireme_api::ByteStream)> {
    let container: Container = client.get(format!("/containers/{id}/json")).read().await?;
    let stream = client
        .get(format!("/containers/{id}/logs"))
        .query("stdout", 1)
        .query("stderr", 1)
        .query("follow", u8::from(args.follow))
        .query("timestamps", u8::from(args.timestamps))
        .query("details", u8::from(args.details))
        .query("tail", if args.tail.starts_with('-') { "all" } else { &args.tail })
        .query_some("since", args.since.as_deref())
        .query_some("until", args.until.as_deref())
        .stream()
        .await?;
    Ok((container.config.tty, stream))
}

async fn one(context: &Context, args: &LogsArgs, id: &str) -> Outcome {
    let (tty, mut stream) = open(&context.client, args, id).await?;
    let mut demux = Demux::default();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        if tty {
            context.printer.raw(&chunk)?;
        } else {
            demux.feed(&chunk, |stream, bytes| match stream {
                2 => context.printer.raw_error(bytes),
                _ => context.printer.raw(bytes),
            })?;
        }
    }
    Ok(0)
}

async fn prefixed(context: &Context, args: &LogsArgs, id: &str, prefix: Prefix) -> anyhow::Result<()> {
    let (tty, mut stream) = open(&context.client, args, id).await?;
    let mut lines = Lines::new(context.printer, prefix, tty);
    while let Some(chunk) = stream.next().await {
        lines.feed(&chunk?)?;
    }
    Ok(lines.finish()?)
}
