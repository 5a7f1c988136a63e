//! Options of log drivers: what is asked for, what it becomes, and where the log of a workload goes. Pure.

use bireme_core::executor::LogTarget;
use bireme_core::size;

use crate::refusal::{LogFault, RequestRefusal};
use crate::request::LogRequest;
use crate::view::Config;
use crate::{EngineError, log_details};

pub(crate) fn target(config: &Config) -> LogTarget {
    let option = |key: &str| config.log.options.get(key);
    LogTarget {
        path: config.log_path.clone(),
        max_size: option("max-size").and_then(|text| parse_size(text)),
        max_files: option("max-file").and_then(|text| text.parse().ok()).unwrap_or(1),
    }
}

/// Bytes of `10m`, `1g`, `500k`, `1024`, in powers of 1000; nothing for no size at all.
///
/// Source: `FromHumanSize` of go-units, which Docker's drivers `json-file` and `local` read it by.
fn parse_size(text: &str) -> Option<u64> {
    size::parse_decimal(text).ok().filter(|bytes| *bytes > 0)
}

/// What a workload that asks for `asked` gets, where `default` is that of all who ask for nothing.
///
/// # Errors
/// `Unsupported` for a driver that is not offered, `Invalid` for an option that the driver does not have or read.
pub(crate) fn effective(asked: &LogRequest, default: &LogRequest) -> Result<LogRequest, EngineError> {
    let log = if asked.driver.is_empty() && asked.options.is_empty() { default.clone() } else { asked.clone() };
    let driver = if log.driver.is_empty() { "json-file".to_owned() } else { log.driver };
    if !matches!(driver.as_str(), "json-file" | "local" | "none") {
        return Err(RequestRefusal::NoLogDriver { driver }.into());
    }
    for (key, value) in &log.options {
        let fits = match key.as_str() {
            "max-size" if parse_size(value).is_none() => Err(LogFault::Size(value.clone())),
            "max-file" if !value.parse::<u32>().is_ok_and(|count| count > 0) => Err(LogFault::MaxFile),
            "max-size" | "max-file" => Ok(()),
            // Output never waits for the log here, and what is rotated is kept as it is: nothing is to be set.
            "mode" if !matches!(value.as_str(), "blocking" | "non-blocking") => Err(LogFault::Mode(value.clone())),
            "mode" | "max-buffer-size" | "compress" => Ok(()),
            option if driver == "json-file" && log_details::OPTIONS.contains(&option) => {
                log_details::check(option, value)
            }
            _ => Err(LogFault::Unknown { key: key.clone(), driver: driver.clone() }),
        };
        fits.map_err(RequestRefusal::from)?;
    }
    Ok(LogRequest { driver, options: log.options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, bytes) in
            [("10m", Some(10_000_000)), ("1k", Some(1000)), ("1024", Some(1024)), ("2GB", Some(2_000_000_000))]
        {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        for text in ["", "0", "m", "-1m", "99999999999999999999g", "large"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
