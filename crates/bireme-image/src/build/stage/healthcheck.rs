//! HEALTHCHECK: how to tell whether a workload is well.
//!
//! Source: Dockerfile reference, "HEALTHCHECK"; github.com/moby/buildkit, `frontend/dockerfile/instructions`, `parseHealthcheck`.

use crate::build::dockerfile::Instruction;
use crate::error::ImageError;
use crate::model::Healthcheck;

/// Reads what follows HEALTHCHECK.
pub(super) fn healthcheck(at: &Instruction) -> Result<Healthcheck, ImageError> {
    let mut check = Healthcheck::default();
    let (kind, rest) = at.rest.split_once(char::is_whitespace).unwrap_or((&at.rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if rest.trim().is_empty() && at.flags.is_empty() => {
            check.test = vec!["NONE".to_owned()];
            return Ok(check);
        }
        "NONE" => return Err(at.fault("HEALTHCHECK NONE takes no arguments")),
        "CMD" if rest.trim().is_empty() => return Err(at.fault("missing command after HEALTHCHECK CMD")),
        "CMD" => {
            let command = Instruction { rest: rest.trim().to_owned(), ..at.clone() };
            check.test = match command.json() {
                Some(exec) => [vec!["CMD".to_owned()], exec].concat(),
                None => vec!["CMD-SHELL".to_owned(), command.rest],
            };
        }
        other => return Err(at.fault(format!("unknown type \"{other}\" in HEALTHCHECK (try CMD)"))),
    }
    for (name, value) in &at.flags {
        let value = value.as_deref().unwrap_or_default();
        let time = || {
            duration(value)
                .filter(|nanos| *nanos >= 1_000_000)
                .ok_or_else(|| at.fault(format!("invalid duration \"{value}\" of --{name}: at least 1ms, such as 30s")))
        };
        match name.as_str() {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            "retries" => {
                let retries = value.parse().ok().filter(|retries| *retries >= 0);
                check.retries =
                    retries.ok_or_else(|| at.fault(format!("--retries must be a number, not \"{value}\"")))?;
            }
            other => return Err(at.fault(format!("unknown flag: --{other}"))),
        }
    }
    Ok(check)
}

/// Reads Go's durations in nanoseconds: `1m30s`, `500ms`, `1.5h`.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|letter: char| letter.is_ascii_digit()).map_or(rest.len(), |at| at + digits);
        total += number
            * match &rest[digits..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    #[expect(clippy::cast_possible_truncation, reason = "a cast from f64 saturates")]
    Some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, nanos) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("500ms", Some(500_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("x", None),
            ("5", None),
            ("", None),
        ] {
            assert_eq!(duration(text), nanos, "{text}");
        }
    }
}
