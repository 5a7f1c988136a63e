//! HEALTHCHECK: how to tell whether a workload is well.
//!
//! Source: docs.docker.com/reference/dockerfile, "HEALTHCHECK"; github.com/moby/buildkit,
//! `frontend/dockerfile/instructions/parse.go`, `parseHealthcheck`.

use crate::error::ParseError;
use crate::instruction::Instruction;

use super::duration::nanoseconds;

/// Docker's engine takes no shorter ones.
const SHORTEST: i64 = 1_000_000;

/// What HEALTHCHECK says. Times are in nanoseconds; 0 is whatever the engine does by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `NONE`; or `CMD` and the program with its arguments; or `CMD-SHELL` and a line for the shell.
    pub test: Vec<String>,
    /// Between two checks.
    pub interval: i64,
    /// A check that takes longer has failed.
    pub timeout: i64,
    /// How long after the start failures do not count.
    pub start_period: i64,
    /// Between two checks during that time.
    pub start_interval: i64,
    /// Failures in a row.
    pub retries: i64,
}

/// Reads HEALTHCHECK.
///
/// # Errors
/// When the command is missing, or a flag is wrong.
pub fn healthcheck(at: &Instruction) -> Result<Healthcheck, ParseError> {
    if at.rest.is_empty() {
        return Err(at.fault("HEALTHCHECK requires at least one argument"));
    }
    let (kind, command) = at.rest.split_once(char::is_whitespace).unwrap_or((&at.rest, ""));
    let kind = kind.to_uppercase();
    let command = command.trim_start();
    if kind == "NONE" {
        if !command.is_empty() {
            return Err(at.fault("HEALTHCHECK NONE takes no arguments"));
        }
        return Ok(Healthcheck { test: vec![kind], ..Healthcheck::default() });
    }
    at.check_flags()?;
    if kind != "CMD" {
        return Err(at.fault(format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)")));
    }
    let mut test = match &at.json {
        Some(list) => list.clone(),
        None if command.is_empty() => Vec::new(),
        None => vec![command.to_owned()],
    };
    if test.is_empty() {
        return Err(at.fault("Missing command after HEALTHCHECK CMD"));
    }
    test.insert(0, if at.json.is_some() { kind } else { "CMD-SHELL".to_owned() });
    let time = |name: &str| -> Result<i64, ParseError> {
        let Some(value) = at.flag(name).filter(|value| !value.is_empty()) else { return Ok(0) };
        let time = nanoseconds(value).map_err(|reason| at.fault(reason))?;
        if time != 0 && time < SHORTEST {
            return Err(at.fault(format!("Interval {name:?} cannot be less than 1ms")));
        }
        Ok(time)
    };
    Ok(Healthcheck {
        test,
        interval: time("interval")?,
        timeout: time("timeout")?,
        start_period: time("start-period")?,
        start_interval: time("start-interval")?,
        retries: retries(at)?,
    })
}

fn retries(at: &Instruction) -> Result<i64, ParseError> {
    let Some(value) = at.flag("retries").filter(|value| !value.is_empty()) else { return Ok(0) };
    let digits = value.strip_prefix(['+', '-']).unwrap_or(value);
    let number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse::<i32>() {
        Ok(retries) if retries < 0 => Err(at.fault(format!("--retries cannot be negative ({retries})"))),
        Ok(retries) => Ok(i64::from(retries)),
        Err(_) => {
            let reason = if number { "value out of range" } else { "invalid syntax" };
            Err(at.fault(format!("strconv.ParseInt: parsing {value:?}: {reason}")))
        }
    }
}
