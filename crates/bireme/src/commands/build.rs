//! `bireme build`, and building for apps.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use bireme_api::answers::progress::Message;
use futures::StreamExt;
use serde_json::{Map, Value};
use tokio::io::AsyncReadExt as _;
use tokio_util::io::ReaderStream;

use crate::archive::BuildContext;
use crate::cli::BuildArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::progress::stream_error;
use crate::registry;

/// What the engine is asked to build, whoever asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    pub tags: Vec<String>,
    pub platform: Option<String>,
    pub target: Option<String>,
    pub args: Map<String, Value>,
    pub labels: Map<String, Value>,
    pub extra_hosts: Vec<String>,
    pub network: Option<String>,
    pub shm_size: Option<i64>,
    pub cache_from: Vec<String>,
    pub no_cache: bool,
    pub pull: bool,
    pub quiet: bool,
    /// Keep the containers of the steps.
    pub keep: bool,
    /// An address that the engine fetches the context from, in place of what is sent.
    pub remote: Option<String>,
}

/// Whether a context is an address, as Docker tells it from a folder.
pub(crate) fn is_remote(context: &str) -> bool {
    ["http://", "https://", "git://", "git@", "github.com/"].iter().any(|start| context.starts_with(start))
}

pub(super) async fn build(context: &Context, args: &BuildArgs) -> Outcome {
    if let Some(path) = &args.iidfile {
        super::load::check(path)?;
    }
    let wish = Wish {
        tags: args.tag.iter().map(|tag| registry::with_tag(tag)).collect(),
        platform: args.platform.clone(),
        target: args.target.clone(),
        args: build_args(&args.build_arg),
        labels: crate::request::pairs("--label", &args.label)?
            .into_iter()
            .map(|(key, value)| (key, value.into()))
            .collect(),
        extra_hosts: args.add_host.clone(),
        network: args.network.clone(),
        no_cache: args.no_cache,
        pull: args.pull,
        quiet: args.quiet,
        keep: !args.rm,
        remote: is_remote(&args.context).then(|| args.context.clone()),
        ..Wish::default()
    };
    let quiet = args.quiet;
    let mut said = String::new();
    let say = |text: &str| {
        if quiet {
            said.push_str(text);
            Ok(())
        } else {
            context.printer.raw(text.as_bytes())
        }
    };
    let id = if args.context == "-" {
        let mut input = tokio::io::stdin();
        let mut first = Vec::new();
        (&mut input).take(BLOCK).read_to_end(&mut first).await.context("cannot read standard input")?;
        let rest = std::io::Cursor::new(first.clone()).chain(input);
        if is_archive(&first) {
            let dockerfile = args.file.as_deref().unwrap_or("Dockerfile");
            submit(context, &wish, dockerfile, ReaderStream::new(rest), say).await
        } else {
            let mut text = Vec::new();
            rest.take(MOST_TEXT + 1).read_to_end(&mut text).await.context("cannot read standard input")?;
            if text.len() as u64 > MOST_TEXT {
                return Err(Failure::new("standard input is neither an archive nor a Dockerfile: it is too long")
                    .hint("send a tar archive, which may be compressed")
                    .into());
            }
            let body = futures::stream::iter([std::io::Result::Ok(bytes::Bytes::from(alone(&text)?))]);
            submit(context, &wish, "Dockerfile", body, say).await
        }
    } else if wish.remote.is_some() {
        submit(context, &wish, args.file.as_deref().unwrap_or("Dockerfile"), futures::stream::empty(), say).await
    } else if args.context.contains("://") {
        return Err(Failure::new(format!("cannot build from {}: it is neither a folder nor an address", args.context))
            .hint("name a folder, - for an archive or a Dockerfile on standard input, or an address of http, https or git")
            .into());
    } else {
        let folder = BuildContext::open(Path::new(&args.context), args.file.as_deref(), None)?;
        let dockerfile = folder.dockerfile.clone();
        submit(context, &wish, &dockerfile, folder.stream(), say).await
    };
    let id = match id {
        Ok(id) => id,
        Err(error) => {
            // A quiet build that fails says what it would have said.
            context.printer.raw_error(said.as_bytes())?;
            return Err(error);
        }
    };
    if args.quiet {
        context.printer.line(id.as_deref().unwrap_or(said.trim()))?;
    }
    // Of a quiet build all that is said is the ID.
    let id = id.as_deref().or_else(|| Some(said.trim()).filter(|id| args.quiet && !id.is_empty()));
    if let (Some(path), Some(id)) = (&args.iidfile, id) {
        // What is there gives way, and nothing is followed that others have put there.
        let _ = std::fs::remove_file(path);
        let file = std::fs::File::create_new(path).and_then(|mut file| file.write_all(id.as_bytes()));
        file.with_context(|| format!("cannot write the id to {path}"))?;
    }
    Ok(0)
}

/// Bytes of the first block of an archive.
const BLOCK: u64 = 512;
/// Bytes of a Dockerfile that comes by itself.
const MOST_TEXT: u64 = 4 << 20;

/// Whether what begins so is a tar archive, compressed or not, rather than a Dockerfile.
///
/// Source: `DetectArchiveReader` of github.com/docker/cli.
fn is_archive(first: &[u8]) -> bool {
    const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
    let is_tar = || {
        let header = first.first_chunk::<{ BLOCK as usize }>().map(|block| tar::Header::from_byte_slice(block));
        // The first name is there, or nothing but zeros: an archive without entries.
        header.is_some_and(|header| {
            first.iter().all(|byte| *byte == 0) || header.cksum().is_ok_and(|told| told == checksum(first))
        })
    };
    COMPRESSED.iter().any(|magic| first.starts_with(magic)) || is_tar()
}

/// The sum of a header's bytes, those of the sum itself counted as spaces.
fn checksum(header: &[u8]) -> u32 {
    header.iter().enumerate().map(|(at, byte)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte })).sum()
}

/// The archive of a context that is a Dockerfile and nothing else.
fn alone(text: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, "Dockerfile", text)?;
    Ok(archive.into_inner()?)
}

/// `KEY=VALUE`, or `KEY` from our environment; a key that is not set there stays unset.
fn build_args(flags: &[String]) -> Map<String, Value> {
    flags
        .iter()
        .map(|flag| match flag.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.into()),
            None => (flag.clone(), std::env::var(flag).map_or(Value::Null, Value::String)),
        })
        .collect()
}

/// Sends the context and shows the output; answers the image's id.
pub(crate) async fn submit<S>(
    context: &Context,
    wish: &Wish,
    dockerfile: &str,
    body: S,
    mut say: impl FnMut(&str) -> std::io::Result<()>,
) -> anyhow::Result<Option<String>>
where
    S: futures::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static,
{
    let json = |map: &Map<String, Value>| (!map.is_empty()).then(|| Value::Object(map.clone()));
    let mut call = context
        .client
        .post("/build")
        .query("dockerfile", dockerfile)
        .query("rm", u8::from(!wish.keep))
        // Also that of a command that failed: what it said is told.
        .query("forcerm", u8::from(!wish.keep))
        .query("version", 1);
    for tag in &wish.tags {
        call = call.query("t", tag);
    }
    for host in &wish.extra_hosts {
        call = call.query("extrahosts", host);
    }
    if !wish.cache_from.is_empty() {
        call = call.query("cachefrom", serde_json::to_string(&wish.cache_from)?);
    }
    let mut messages = call
        .header("x-registry-config", registry::every_login())
        .query_some("remote", wish.remote.as_deref())
        .query_some("platform", wish.platform.as_deref())
        .query_some("target", wish.target.as_deref())
        .query_some("buildargs", json(&wish.args))
        .query_some("labels", json(&wish.labels))
        .query_some("networkmode", wish.network.as_deref())
        .query_some("shmsize", wish.shm_size)
        .query("nocache", u8::from(wish.no_cache))
        .query("pull", u8::from(wish.pull))
        .query("q", u8::from(wish.quiet))
        .archive(body)
        .objects::<Message>()
        .await?;
    let mut id = None;
    while let Some(message) = messages.next().await {
        let message = message?;
        if let Some(error) = stream_error(&message) {
            return Err(error);
        }
        if let Some(text) = message.stream {
            say(&text)?;
        } else if let Some(status) = message.status
            && message.progress_detail.current.is_none()
        {
            let layer = message.id.map(|id| format!("{id}: ")).unwrap_or_default();
            say(&format!("{layer}{status}\n"))?;
        }
        if message.aux.id.is_some() {
            id = message.aux.id;
        }
    }
    Ok(id)
}
