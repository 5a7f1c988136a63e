//! `bireme profile` and `bireme core`: looking into a component that runs.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bireme_api::v1::Profile;
use futures::TryStreamExt as _;

use crate::cli::{CoreArgs, ProfileArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::flame;

/// The header of a core dump that says why the instance trapped.
const REASON: &str = "Bireme-Reason";

pub(super) async fn profile(context: &Context, args: &ProfileArgs) -> Outcome {
    let name = crate::app::resolve(context, &args.name).await?;
    let call = context.client.get(format!("/bireme/v1/workloads/{name}/profile")).query("seconds", args.seconds);
    let found: Profile = call.read().await?;
    if found.samples == 0 {
        return Err(Failure::new(format!("nothing of {name} was seen to compute in {} s", args.seconds))
            .hint("send it requests meanwhile, or look longer with --seconds")
            .into());
    }
    let folded = || {
        let lines = found.stacks.iter().map(|(stack, count)| format!("{stack} {count}\n"));
        lines.collect::<String>()
    };
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.svg")));
    if path.as_os_str() == "-" {
        context.printer.raw(folded().as_bytes())?;
        return Ok(0);
    }
    let text = match path.extension() {
        Some(ending) if ending == "svg" => {
            let (samples, millis) = (found.samples, found.samples * found.interval / 1000);
            let title = format!("{name}: {samples} samples, some {millis} ms of processor time in {} s", args.seconds);
            flame::graph(&title, &found.stacks)
        }
        _ => folded(),
    };
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    context.printer.line(format!("{} samples of {name} are in {}", found.samples, path.display()))?;
    Ok(0)
}

pub(super) async fn core(context: &Context, args: &CoreArgs) -> Outcome {
    let name = crate::app::resolve(context, &args.name).await?;
    let path = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.core")));
    context.printer.note(format!("waiting {} s for an instance of {name} to trap", args.seconds))?;
    let call = context.client.get(format!("/bireme/v1/workloads/{name}/core")).query("seconds", args.seconds);
    let (reason, mut pieces) = call.with_header(REASON).await?;
    let mut file = new_file(&path)?;
    let mut size = 0;
    while let Some(piece) = pieces.try_next().await.context("the core dump broke off")? {
        size += piece.len();
        file.write_all(&piece).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // A header is one line.
    let reason = reason.unwrap_or_default().replace("     at ", "\n    at ");
    context.printer.line(format!("{size} bytes are in {}: {reason}", path.display()))?;
    Ok(0)
}

/// What a guest had in memory is for whoever asked alone.
fn new_file(path: &Path) -> anyhow::Result<std::fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut how = std::fs::OpenOptions::new();
    how.write(true).create(true).truncate(true).mode(0o600);
    how.open(path).with_context(|| format!("cannot write {}", path.display()))
}
