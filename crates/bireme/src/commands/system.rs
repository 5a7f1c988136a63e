//! `bireme info`, `events`, `daemon` and `completion`.

use std::os::unix::process::CommandExt;

use anyhow::Context as _;
use bireme_api::answers::system::{Event, Info};
use bireme_api::v1::{Verified, VerifyLine};
use bireme_core::size;
use futures::StreamExt;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::cli::{CompletionArgs, DaemonArgs, EventsArgs, InfoArgs, VerifyArgs};
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::{daemon, listing};

pub(super) async fn info(context: &Context, args: &InfoArgs) -> Outcome {
    let bytes = context.client.get("/info").bytes().await?;
    match args.format.as_deref() {
        Some("json") => context.printer.line(String::from_utf8_lossy(&bytes).trim())?,
        // A template may name any field, also those that only this engine has.
        Some(format) => {
            let info: Value = serde_json::from_slice(&bytes)?;
            context.printer.line(listing::parse(format)?.render(&info)?)?;
        }
        None => {
            let info: Info = serde_json::from_slice(&bytes)?;
            context.printer.line(described(&info))?;
            if let Ok(capabilities) = context.client.capabilities().await {
                context.printer.line(format!("Runs:             {}", capabilities.kinds.join(", ")))?;
                context.printer.line(format!("Labels:           {}", capabilities.labels.join(", ")))?;
            }
            for warning in info.warnings {
                context.printer.note(warning)?;
            }
        }
    }
    Ok(0)
}

/// A line for each thing that is worth knowing.
fn described(info: &Info) -> String {
    fn known(value: &Option<impl std::fmt::Display>) -> String {
        value.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string)
    }
    format!(
        "Name:             {}\nVersion:          {}\nContainers:       {}\n Running:         {}\n Paused:          {}\n Stopped:         {}\nImages:           {}\nStorage:          {}\nCgroups:          {} (version {})\nRoot folder:      {}\nKernel:           {}\nSystem:           {} ({})\nProcessors:       {}\nMemory:           {}",
        known(&info.name),
        known(&info.server_version),
        known(&info.containers),
        known(&info.containers_running),
        known(&info.containers_paused),
        known(&info.containers_stopped),
        known(&info.images),
        known(&info.driver),
        known(&info.cgroup_driver),
        known(&info.cgroup_version),
        known(&info.docker_root_dir),
        known(&info.kernel_version),
        known(&info.operating_system),
        known(&info.architecture),
        known(&info.ncpu),
        size::binary(info.mem_total as f64),
    )
}

pub(super) async fn events(context: &Context, args: &EventsArgs) -> Outcome {
    let template = match args.format.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(listing::parse(format)?),
    };
    let mut events = context
        .client
        .get("/events")
        .query_some("filters", listing::filters(&args.filter.filter)?)
        .query_some("since", args.since.as_deref())
        .query_some("until", args.until.as_deref())
        .objects::<Value>()
        .await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let line = match (&template, args.format.format.is_some()) {
            (Some(template), _) => template.render(&fields(&Event::deserialize(event)?))?,
            (None, true) => event.to_string(),
            (None, false) => plain(&Event::deserialize(event)?),
        };
        context.printer.line(line)?;
    }
    Ok(0)
}

pub(super) async fn verify(context: &Context, args: &VerifyArgs) -> Outcome {
    let mut call = context.client.post("/bireme/v1/images/verify");
    if args.refetch {
        call = call.query("refetch", true);
    }
    let mut lines = call.objects::<VerifyLine>().await?;
    while let Some(line) = lines.next().await {
        match line? {
            VerifyLine::Damaged(damaged) => context.printer.line(damaged.message)?,
            VerifyLine::Failed { error } => return Err(Failure::new(error).into()),
            VerifyLine::Verified(Verified { checked, size, damaged_count }) => {
                #[expect(clippy::cast_precision_loss, reason = "a size for people, with three digits")]
                let size = size::binary(size as f64);
                let words = match damaged_count {
                    0 => "nothing is damaged".to_owned(),
                    count => format!("{count} damaged"),
                };
                context.printer.line(format!("Verified {checked} files, {size}: {words}"))?;
                return Ok(u8::from(damaged_count > 0));
            }
        }
    }
    Err(Failure::new("the engine broke off before it had looked at everything").into())
}

/// What templates name: the fields of moby's `events.Message`, all of them there whatever the event has.
fn fields(event: &Event) -> Value {
    json!({
        "Status": event.status,
        "ID": event.id,
        "From": event.from,
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.actor.id, "Attributes": event.actor.attributes},
        "Scope": event.scope,
        "Time": event.time,
        "TimeNano": event.time_nano,
    })
}

/// Source: docker's `prettyPrintEvent`.
fn plain(event: &Event) -> String {
    let time = chrono::DateTime::from_timestamp_nanos(event.time_nano).with_timezone(&chrono::Local);
    let attributes: Vec<String> = event.actor.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!(
        "{} {} {} {}{attributes}",
        time.format("%Y-%m-%dT%H:%M:%S%.9f%:z"),
        event.kind,
        event.action,
        event.actor.id,
    )
}

pub(super) fn daemon(args: &DaemonArgs) -> Outcome {
    let program = daemon::find()?;
    // Only returns when it could not become the daemon.
    let error = std::process::Command::new(&program).args(&args.args).exec();
    Err(error).with_context(|| format!("cannot run {}", program.display()))
}

pub(super) fn completion(context: &Context, args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::cli::command(), "bireme", &mut script);
    context.printer.raw(&script)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(value: Value) -> Event {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn events_print_as_dockers() {
        let event = event(json!({"Type": "container", "Action": "start", "timeNano": 0,
            "Actor": {"ID": "abc", "Attributes": {"image": "x", "name": "y"}}}));
        assert!(plain(&event).ends_with(" container start abc (image=x, name=y)"), "{}", plain(&event));
    }
    #[test]
    fn every_field_of_an_event_has_its_name_in_templates() {
        let started = event(
            json!({"Type": "container", "Action": "start", "status": "start", "id": "abc", "from": "x",
            "scope": "local", "time": 1, "timeNano": 1_000_000_000, "Actor": {"ID": "abc", "Attributes": {"name": "y"}}}),
        );
        let text = "{{.Status}} {{.ID}} {{.From}} {{.Type}} {{.Action}} {{.Actor.ID}} {{.Actor.Attributes.name}} {{.Scope}} \
                    {{.Time}} {{.TimeNano}}";
        let rendered = listing::parse(text).unwrap().render(&fields(&started)).unwrap();
        assert_eq!(rendered, "start abc x container start abc y local 1 1000000000");
        let event = event(json!({"Type": "volume", "Action": "create", "Actor": {"ID": "v", "Attributes": {}}}));
        assert_eq!(listing::parse("[{{.ID}}]").unwrap().render(&fields(&event)).unwrap(), "[]");
    }
}
