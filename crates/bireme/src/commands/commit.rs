//! `bireme commit`, `diff` and `import`: what a container changed, and images made of it or of any file tree.

use anyhow::Context as _;
use bireme_api::answers::container::{Change, Created};
use bireme_api::answers::progress::Message;
use futures::StreamExt as _;
use serde_json::json;
use tokio_util::io::ReaderStream;

use crate::cli::{CommitArgs, DiffArgs, ImportArgs};
use crate::context::Context;
use crate::error::Outcome;
use crate::progress::stream_error;
use crate::registry;

/// The two halves of a name as the engine takes them.
fn halves(name: Option<&str>) -> Option<(String, String)> {
    let tagged = registry::with_tag(name?);
    Some(
        tagged
            .rsplit_once(':')
            .map_or((tagged.clone(), "latest".to_owned()), |(name, tag)| (name.to_owned(), tag.to_owned())),
    )
}

pub(super) async fn commit(context: &Context, args: &CommitArgs) -> Outcome {
    let mut call = context
        .client
        .post("/commit")
        .query("container", crate::app::resolve(context, &args.container).await?)
        .query("pause", u8::from(args.pause))
        .query_some("author", args.author.as_deref())
        .query_some("comment", args.message.as_deref());
    if let Some((name, tag)) = halves(args.name.as_deref()) {
        call = call.query("repo", name).query("tag", tag);
    }
    for change in &args.change {
        call = call.query("changes", change);
    }
    let made: Created = call.json(&json!({})).read().await?;
    context.printer.line(made.id)?;
    Ok(0)
}

pub(super) async fn diff(context: &Context, args: &DiffArgs) -> Outcome {
    let container = crate::app::resolve(context, &args.container).await?;
    let changes: Option<Vec<Change>> = context.client.get(format!("/containers/{container}/changes")).read().await?;
    for change in changes.unwrap_or_default() {
        let kind = match change.kind {
            1 => 'A',
            2 => 'D',
            _ => 'C',
        };
        context.printer.line(format!("{kind} {}", change.path))?;
    }
    Ok(0)
}

pub(super) async fn import(context: &Context, args: &ImportArgs) -> Outcome {
    let fetched = args.source.contains("://");
    let mut call = context
        .client
        .post("/images/create")
        .query("fromSrc", if fetched { args.source.as_str() } else { "-" })
        .query_some("message", args.message.as_deref())
        .query_some("platform", args.platform.as_deref());
    if let Some((name, tag)) = halves(args.name.as_deref()) {
        call = call.query("repo", name).query("tag", tag);
    }
    for change in &args.change {
        call = call.query("changes", change);
    }
    let call = match args.source.as_str() {
        _ if fetched => call,
        "-" => call.archive(ReaderStream::with_capacity(tokio::io::stdin(), 128 * 1024)),
        path => {
            let file = tokio::fs::File::open(path).await.with_context(|| format!("cannot open {path}"))?;
            call.archive(ReaderStream::with_capacity(file, 128 * 1024))
        }
    };
    let mut messages = call.objects::<Message>().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Some(error) = stream_error(&message) {
            return Err(error);
        }
        if let Some(id) = message.status {
            context.printer.line(id)?;
        }
    }
    Ok(0)
}
