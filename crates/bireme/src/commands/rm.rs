//! `bireme rm`.

use super::each::each;
use crate::cli::RmArgs;
use crate::context::Context;
use crate::error::Outcome;

pub(super) async fn rm(context: &Context, args: &RmArgs) -> Outcome {
    let names = crate::app::resolve_all(context, &args.names).await?;
    let (mut there, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        // What is not there need not be removed, when one insists; it is told, and not as removed.
        if args.force
            && !args.link
            && let Err(error) = context.client.get(format!("/containers/{name}/json")).done().await
            && error.is_not_found()
        {
            missing.push(error.to_string());
        } else {
            there.push(name);
        }
    }
    for missing in missing {
        context.printer.note(missing)?;
    }
    each(context, &there, |name| async move {
        let answer = context
            .client
            .delete(format!("/containers/{}", name.trim_start_matches('/')))
            .query("force", u8::from(args.force))
            .query("v", u8::from(args.volumes))
            .query("link", u8::from(args.link))
            .done()
            .await;
        match answer {
            // It went meanwhile.
            Err(error) if args.force && error.is_not_found() => Ok(()),
            answer => answer,
        }
    })
    .await
}
