//! `bireme load`, `save` and `export`.

use std::fs::OpenOptions;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

use anyhow::Context as _;
use bireme_api::answers::progress::Message;
use futures::{StreamExt, TryStreamExt};
use tokio_util::io::ReaderStream;

use crate::cli::{ExportArgs, LoadArgs, SaveArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::progress::{Bars, stream_error};

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
    let mut messages = call.objects::<Message>().await?;
    // What is told of layers and components, beside the names of what was loaded.
    let mut bars = Bars::new(&context.printer, None, "", args.quiet);
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Some(error) = stream_error(&message) {
            return Err(error);
        }
        match &message.stream {
            Some(text) => bars.beside(|| context.printer.raw(text.as_bytes()))?,
            None => bars.show(&message)?,
        }
    }
    bars.leave();
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
    if let Some(path) = output {
        check(path)?;
    }
    let mut chunks = call.stream().await?;
    match output {
        None => {
            while let Some(chunk) = chunks.try_next().await? {
                context.printer.raw(&chunk)?;
            }
        }
        Some(path) => {
            // Written beside the target first: an archive that is there is whole.
            let partial = format!("{path}.partial-{:016x}", RandomState::new().build_hasher().finish());
            // New, so that nothing which others have put there is followed; what an image holds may be secret.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial);
            let file = file.with_context(|| format!("cannot create {partial}"))?;
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

/// Takes a file alone, or a name that is free: a link may be somebody else's, and a device or a pipe would be exchanged for a
/// file. As Docker's client does.
pub(super) fn check(path: &str) -> anyhow::Result<()> {
    let kind = match std::fs::symlink_metadata(path) {
        Ok(about) if about.is_file() => return Ok(()),
        Ok(about) if about.is_dir() => "a folder",
        Ok(about) if about.is_symlink() => "a symbolic link",
        Ok(about) if about.file_type().is_fifo() => "a named pipe",
        Ok(about) if about.file_type().is_socket() => "a socket",
        Ok(_) => "a device",
        // Whatever it is, creating the file tells it.
        Err(_) => return Ok(()),
    };
    Err(Failure::new(format!("cannot write to {path}: it is {kind}")).hint("name a file").into())
}

async fn write(mut file: std::fs::File, path: &str, mut chunks: bireme_api::ByteStream) -> anyhow::Result<()> {
    while let Some(chunk) = chunks.try_next().await? {
        file.write_all(&chunk).with_context(|| format!("cannot write {path}"))?;
    }
    Ok(())
}
