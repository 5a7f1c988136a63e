//! `bireme run` and `bireme create`.

use std::io::Write as _;

use anyhow::Context as _;
use bireme_api::ClientError;
use bireme_api::answers::container::Created;
use bireme_api::answers::progress::Message;
use bytes::Bytes;

use crate::archive;
use crate::attach::{self, Ended, Session, Signals, Streams, Target};
use crate::cli::{ContainerOptions, CreateArgs, RunArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::progress::Bars;
use crate::registry;
use crate::request::{self, CreateRequest};

pub(super) async fn run(context: &Context, args: &RunArgs) -> Outcome {
    let options = &args.options;
    if args.detach && !options.attach.is_empty() {
        return Err(Failure::new("--detach and --attach exclude each other; leave one out").code(125).into());
    }
    check_terminal(options.tty && options.interactive && !args.detach)?;
    let id = make(context, options, args.detach).await?;
    let started = start(context, args, &id).await;
    if started.is_err() && options.rm {
        // The engine removes what it has started; what never started is ours to clear away.
        let _ = context.client.delete(format!("/containers/{id}")).query("force", 1).query("v", 1).done().await;
    }
    started
}

async fn start(context: &Context, args: &RunArgs, id: &str) -> Outcome {
    let options = &args.options;
    let begin = || context.client.post(format!("/containers/{id}/start")).done();
    if args.detach {
        begin().await?;
        context.printer.line(id)?;
        return Ok(0);
    }
    // Whoever interrupts means what is being started. With a terminal, that is what the workload reads.
    let mut signals = (args.sig_proxy && !options.tty).then(Signals::new).transpose()?;
    let all = options.attach.is_empty();
    let wants = |stream: &str| options.attach.iter().any(|named| named.eq_ignore_ascii_case(stream));
    let stdin = if all { options.interactive } else { wants("stdin") };
    let session = Session::new(stdin, options.tty, args.detach_keys.as_deref())?;
    let streams = Streams { stdin, stdout: all || wants("stdout"), stderr: all || wants("stderr") };
    let condition = if options.rm { "removed" } else { "next-exit" };
    let begun = async {
        let connection = attach::connect(&context.client, id, streams, args.detach_keys.as_deref()).await?;
        // The wait is registered before the start: however quickly the workload ends, its exit code is not missed.
        let exit = attach::begin_wait(&context.client, id, condition).await?;
        begin().await?;
        Ok::<_, ClientError>((connection, exit))
    };
    let (connection, exit) = attach::kept_during(signals.as_mut(), begun).await?;
    let ended = attach::converse(context, session, connection, Target::Container(id.to_owned()), signals).await?;
    match ended {
        Ended::Detached => Ok(0),
        Ended::Output => exit.await,
    }
}

pub(super) async fn create(context: &Context, args: &CreateArgs) -> Outcome {
    let id = make(context, &args.options, false).await?;
    context.printer.line(id)?;
    Ok(0)
}

/// Docker refuses a terminal without one, before anything is created.
pub(super) fn check_terminal(wanted: bool) -> anyhow::Result<()> {
    use std::io::IsTerminal;
    if wanted && !std::io::stdin().is_terminal() {
        return Err(Failure::new("the input device is not a TTY")
            .hint("leave out -t, or run it in a terminal")
            .code(1)
            .into());
    }
    Ok(())
}

/// Creates a workload as the flags say, fetching or loading its image where need be, and answers its id.
async fn make(context: &Context, options: &ContainerOptions, detach: bool) -> anyhow::Result<String> {
    let refused = |error: anyhow::Error| match error.downcast::<Failure>() {
        Ok(failure) => anyhow::Error::new(failure),
        Err(error) => Failure::new(format!("{error:#}")).code(125).into(),
    };
    if let Some(path) = &options.cidfile
        && std::fs::symlink_metadata(path).is_ok()
    {
        return Err(Failure::new(format!(
            "container ID file found, make sure the other container isn't running or delete {path}"
        ))
        .code(125)
        .into());
    }
    let image = if archive::is_wasm_file(options.image()) {
        load_wasm(context, options.image()).await?
    } else {
        options.image().to_owned()
    };
    let mut request = request::create(options, &image, detach).map_err(refused)?;
    if options.tty {
        request.body.host_config.get_or_insert_default().console_size = crate::terminal::console_size();
    }
    if options.pull == "always" && image == options.image() {
        fetch(context, &image, options).await?;
    }
    let created = match submit(context, &request).await {
        Err(error) if error.is_not_found() && options.pull == "missing" && is_missing_image(&error) => {
            let reference = registry::with_tag(&image);
            if !options.quiet {
                context.printer.note(format!("Unable to find image '{reference}' locally"))?;
            }
            fetch(context, &image, options).await?;
            submit(context, &request).await?
        }
        answer => answer?,
    };
    for warning in &created.warnings {
        context.printer.note(format!("WARNING: {warning}"))?;
    }
    if let Some(path) = &options.cidfile {
        let file = std::fs::File::create_new(path).and_then(|mut file| file.write_all(created.id.as_bytes()));
        file.with_context(|| format!("cannot write the id to {path}"))?;
    }
    Ok(created.id)
}

async fn fetch(context: &Context, image: &str, options: &ContainerOptions) -> anyhow::Result<()> {
    let reference = registry::with_tag(image);
    super::pull::fetch(context, &reference, options.platform.as_deref(), options.quiet, None, "").await
}

fn is_missing_image(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { message, .. } if message.to_ascii_lowercase().contains("image"))
}

async fn submit(context: &Context, request: &CreateRequest) -> Result<Created, ClientError> {
    context
        .client
        .post("/containers/create")
        .query_some("name", request.name.as_deref())
        .query_some("platform", request.platform.as_deref())
        .json(&request.body)
        .read()
        .await
}

/// Loads a local module as an image named after its content, unless the engine has it.
pub(crate) async fn load_wasm(context: &Context, path: &str) -> anyhow::Result<String> {
    let image = archive::read_wasm(path)?;
    match context.client.get(format!("/images/{}/json", image.reference)).done().await {
        Ok(()) => return Ok(image.reference),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let body = futures::stream::once(async move { Ok(Bytes::from(image.archive)) });
    let messages = context.client.post("/images/load").query("quiet", 1).archive(body).objects::<Message>().await?;
    Bars::new(&context.printer, None, "", true)
        .follow(messages)
        .await
        .with_context(|| format!("cannot load {path} as an image"))?;
    Ok(image.reference)
}
