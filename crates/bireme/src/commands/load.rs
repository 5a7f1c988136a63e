//! `bireme load`, `save` and `export`.

use std::io::{IsTerminal, Write};

use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;
use tokio_util::io::ReaderStream;

use crate::cli::{ExportArgs, LoadArgs, SaveArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::progress::stream_error;

pub(super) async fn load(context: &Context, args: &LoadArgs) -> Outcome {
    let call =
        context.client.post("/images/load").query("quiet", u8::from(args.quiet || !context.printer.err_is_terminal));
    let call = match &args.input {
        Some(path) => {
            let file = tokio::fs::File::open(path).await.with_context(|| format!("cannot open {path}"))?;
            call.archive(ReaderStream::with_capacity(file, 128 * 1024))
        }
        None if std::io::stdin().is_terminal() => {
            return Err(Failure::new("requested load from stdin, but stdin is a terminal")
                .hint("name the archive with --input, or send it with <")
                .into());
        }
        None => call.archive(ReaderStream::with_capacity(tokio::io::stdin(), 128 * 1024)),
    };
    let mut messages = call.objects::<Value>().await?;
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Some(error) = stream_error(&message) {
            return Err(error);
        }
        if let Some(text) = message["stream"].as_str() {
            context.printer.raw(text.as_bytes())?;
        }
    }
    Ok(0)
}

pub(super) async fn save(context: &Context, args: &SaveArgs) -> Outcome {
    let mut call = context.client.get("/images/get");
    for image in &args.images {
        call = call.query("names", image);
    }
    receive(context, call, args.output.as_deref(), "save").await
}

pub(super) async fn export(context: &Context, args: &ExportArgs) -> Outcome {
    let container = crate::app::resolve(context, &args.container).await?;
    let call = context.client.get(format!("/containers/{container}/export"));
    receive(context, call, args.output.as_deref(), "export").await
}

/// Writes an archive to a file, or to standard output.
async fn receive(context: &Context, call: bireme_api::Call, output: Option<&str>, what: &str) -> Outcome {
    if output.is_none() && context.printer.out_is_terminal {
        return Err(Failure::new(format!("cowardly refusing to {what} to a terminal"))
            .hint("name a file with --output, or redirect")
            .into());
    }
    let mut chunks = call.stream().await?;
    match output {
        None => {
            while let Some(chunk) = chunks.try_next().await? {
                context.printer.raw(&chunk)?;
            }
        }
        // A device or a pipe is written to, not replaced.
        Some(path) if std::fs::metadata(path).is_ok_and(|about| !about.is_file()) => {
            let file = std::fs::OpenOptions::new().write(true).open(path);
            write(file.with_context(|| format!("cannot write {path}"))?, path, chunks).await?;
        }
        Some(path) => {
            // Where a link leads, it stays.
            let real = std::fs::canonicalize(path).ok().and_then(|path| path.to_str().map(str::to_owned));
            let path = real.as_deref().unwrap_or(path);
            // Written beside the target first: an archive that is there is whole.
            let partial = format!("{path}.partial-{}", std::process::id());
            let file = std::fs::File::create(&partial).with_context(|| format!("cannot create {partial}"))?;
            let written = write(file, &partial, chunks)
                .await
                .and_then(|()| std::fs::rename(&partial, path).with_context(|| format!("cannot write {path}")));
            if written.is_err() {
                let _ = std::fs::remove_file(&partial);
            }
            written?;
        }
    }
    Ok(0)
}

async fn write(mut file: std::fs::File, path: &str, mut chunks: bireme_api::ByteStream) -> anyhow::Result<()> {
    while let Some(chunk) = chunks.try_next().await? {
        file.write_all(&chunk).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}
