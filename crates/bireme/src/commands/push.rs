//! `bireme push`.

use bireme_api::answers::progress::Message;

use crate::cli::PushArgs;
use crate::context::Context;
use crate::error::Outcome;
use crate::progress::Bars;
use crate::registry;

pub(super) async fn push(context: &Context, args: &PushArgs) -> Outcome {
    let tagged = registry::with_tag(&args.image);
    if tagged != args.image && !args.quiet && !args.all_tags {
        context.printer.note("Using default tag: latest")?;
    }
    let (name, tag) = tagged.rsplit_once(':').unwrap_or((&tagged, "latest"));
    let messages = context
        .client
        .post(format!("/images/{name}/push"))
        .query_some("tag", (!args.all_tags).then_some(tag))
        .query_some("platform", args.platform.as_deref())
        .query_some("compression", args.compression.as_deref())
        .query_some("compression-level", args.compression_level)
        .query_some("artifact", args.artifact.then_some(1))
        .header("x-registry-auth", registry::auth_header(&tagged))
        .objects::<Message>()
        .await?;
    Bars::new(&context.printer, None, "", args.quiet).follow(messages).await?;
    context.printer.line(if args.all_tags { name } else { &tagged })?;
    Ok(0)
}
