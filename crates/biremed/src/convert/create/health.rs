//! Health checks.

use std::time::Duration;

use bireme_api::models::HealthConfig;
use bireme_engine::request::HealthCheck;

use crate::convert::Refusal;

pub(super) fn health(wire: HealthConfig) -> Result<HealthCheck, Refusal> {
    let span = |nanos: Option<i64>, field: &str| match nanos.unwrap_or_default() {
        0 => Ok(Duration::ZERO),
        nanos if nanos < 1_000_000 => Err(Refusal::invalid(format!("{field} in Healthcheck cannot be less than 1ms"))),
        nanos => Ok(Duration::from_nanos(nanos.unsigned_abs())),
    };
    let test = wire.test.unwrap_or_default();
    match test.first().map(String::as_str) {
        None | Some("" | "NONE") => {}
        Some("CMD" | "CMD-SHELL") if test.len() > 1 => {}
        Some(word @ ("CMD" | "CMD-SHELL")) => {
            return Err(Refusal::invalid(format!("Healthcheck: {word} needs a command behind it")));
        }
        Some(other) => {
            return Err(Refusal::invalid(format!(
                "Unknown healthcheck type '{other}' in Test of Healthcheck (expected 'CMD', 'CMD-SHELL' or 'NONE')"
            )));
        }
    }
    let retries = wire.retries.unwrap_or_default();
    Ok(HealthCheck {
        test: test.into_iter().filter(|word| !word.is_empty()).collect(),
        interval: span(wire.interval, "Interval")?,
        timeout: span(wire.timeout, "Timeout")?,
        start_period: span(wire.start_period, "StartPeriod")?,
        start_interval: span(wire.start_interval, "StartInterval")?,
        retries: u32::try_from(retries).map_err(|_| Refusal::invalid("Retries in Healthcheck cannot be negative"))?,
    })
}
