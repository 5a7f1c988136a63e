//! `bireme pull`, and fetching an image for other commands.

use bireme_api::answers::progress::Message;
use indicatif::MultiProgress;

use crate::cli::PullArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::progress::Bars;
use crate::registry;

pub(super) async fn pull(context: &Context, args: &PullArgs) -> Outcome {
    let reference = if args.all_tags {
        args.image.clone()
    } else {
        let tagged = registry::with_tag(&args.image);
        if tagged != args.image && !args.quiet {
            context.printer.note("Using default tag: latest")?;
        }
        tagged
    };
    fetch(context, &reference, args.platform.as_deref(), args.quiet, None, "").await?;
    context.printer.line(&reference)?;
    Ok(0)
}

/// Fetches one image; progress goes to standard error.
pub(crate) async fn fetch(
    context: &Context,
    reference: &str,
    platform: Option<&str>,
    quiet: bool,
    bars: Option<MultiProgress>,
    prefix: &str,
) -> anyhow::Result<()> {
    let messages = context
        .client
        .post("/images/create")
        .query("fromImage", reference)
        .query_some("platform", platform)
        .header("x-registry-auth", registry::auth_header(reference))
        .objects::<Message>()
        .await?;
    Bars::new(&context.printer, bars, prefix, quiet).follow(messages).await
}
