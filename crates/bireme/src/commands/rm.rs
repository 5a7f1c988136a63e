//! `bireme rm`.

use super::each::each;
use crate::cli::RmArgs;
use crate::context::Context;
use crate::error::Outcome;

pub(super) async fn rm(context: &Context, args: &RmArgs) -> Outcome {
    let names = crate::app::resolve_all(context, &args.names).await?;
    each(context, &names, |name| async move {
        let answer = context
            .client
            .delete(format!("/containers/{}", name.trim_start_matches('/')))
            .query("force", u8::from(args.force))
            .query("v", u8::from(args.volumes))
            .query("link", u8::from(args.link))
            .done()
            .await;
        match answer {
            // What is not there need not be removed, when one insists.
            Err(error) if args.force && error.is_not_found() => Ok(()),
            answer => answer,
        }
    })
    .await
}
