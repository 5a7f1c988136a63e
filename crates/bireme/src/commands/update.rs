//! `bireme update`.

use bireme_api::ClientError;
use bireme_api::answers::container::Updated;
use bireme_core::error::chain;
use serde_json::{Value, json};

use crate::cli::UpdateArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};
use crate::{app, request};

pub(super) async fn update(context: &Context, args: &UpdateArgs) -> Outcome {
    let body = body(args)?;
    let mut failures = Vec::new();
    for name in app::resolve_all(context, &args.names).await? {
        let answer = context.client.post(format!("/containers/{name}/update")).json(&body).read::<Updated>().await;
        match answer {
            Ok(answer) => {
                for warning in answer.warnings {
                    context.printer.note(format!("WARNING: {warning}"))?;
                }
                context.printer.line(&name)?;
            }
            Err(error @ ClientError::Connect { .. }) => return Err(error.into()),
            Err(error) => failures.push(chain(&error)),
        }
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::new(failures.join("\n")).into()) }
}

/// Only what was said: everything else stays as it is.
fn body(args: &UpdateArgs) -> anyhow::Result<Value> {
    let mut body = serde_json::Map::new();
    let mut set = |key: &str, value: Option<Value>| body.extend(value.map(|value| (key.to_owned(), value)));
    set("Memory", args.memory.map(Value::from));
    set("MemorySwap", args.memory_swap.map(Value::from));
    set("MemoryReservation", args.memory_reservation.map(Value::from));
    #[expect(clippy::cast_possible_truncation, reason = "no machine has so many processors")]
    set("NanoCpus", args.cpus.map(|cpus| Value::from((cpus * 1e9).round() as i64)));
    set("CpuShares", args.cpu_shares.map(Value::from));
    set("CpuPeriod", args.cpu_period.map(Value::from));
    set("CpuQuota", args.cpu_quota.map(Value::from));
    set("CpusetCpus", args.cpuset_cpus.clone().map(Value::from));
    set("CpusetMems", args.cpuset_mems.clone().map(Value::from));
    set("BlkioWeight", args.blkio_weight.map(Value::from));
    set("PidsLimit", args.pids_limit.map(Value::from));
    set("RestartPolicy", args.restart.as_deref().map(request::restart_policy).transpose()?.map(|policy| json!(policy)));
    if body.is_empty() {
        return Err(Failure::new("you must provide one or more flags when using this command")
            .hint("`bireme update --help` lists what can be changed")
            .into());
    }
    Ok(Value::Object(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn check(line: &str, expected: Result<Value, &str>) {
        let cli = crate::cli::Cli::try_parse_from(["bireme", "update"].into_iter().chain(line.split(' '))).unwrap();
        let crate::cli::Command::Update(args) = cli.command else { panic!("update") };
        assert_eq!(body(&args).map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{line}");
    }

    #[test]
    fn only_what_is_said_is_sent() {
        check("-m 64m --memory-swap -1 x", Ok(json!({"Memory": 64 << 20, "MemorySwap": -1})));
        check("--cpus 1.5 x", Ok(json!({"NanoCpus": 1_500_000_000})));
        check("--restart on-failure:2 x", Ok(json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}})));
        check("x", Err("you must provide one or more flags when using this command"));
    }
}
