//! Times and ids as Docker prints and reads them.

use bireme_core::duration;
use chrono::{DateTime, Utc};

/// `3 minutes ago`, from seconds since 1970.
pub fn ago(created: i64) -> String {
    format!("{} ago", duration::human(Utc::now().timestamp() - created))
}

/// Twelve digits of an id, without its algorithm.
pub fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(12).collect()
}

/// `text` cut to `width` with an ellipsis. Source: `formatter.Ellipsis`.
pub fn ellipsis(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width - 1).collect();
    cut.push('…');
    cut
}

/// Seconds since 1970 of an RFC 3339 time; `None` for Docker's year 1, which means never.
pub fn seconds(time: &str) -> Option<i64> {
    DateTime::parse_from_rfc3339(time).ok().map(|time| time.timestamp()).filter(|seconds| *seconds > 0)
}

/// A moment as Docker's lists print it, from seconds since 1970: `2026-01-02 15:04:05 +0000 UTC`.
pub fn local_time(created: i64) -> String {
    let Some(time) = DateTime::from_timestamp(created, 0) else { return String::new() };
    let local = time.with_timezone(&chrono::Local);
    let zone = if local.offset().local_minus_utc() == 0 { "UTC" } else { "" };
    format!("{} {zone}", local.format("%Y-%m-%d %H:%M:%S %z")).trim_end().to_owned()
}

/// What `--since` and `--until` take: `10m` before now, an RFC 3339 time or a date, or seconds since 1970.
pub fn parse_moment(text: &str) -> Result<String, String> {
    if text.parse::<f64>().is_ok() {
        return Ok(text.to_owned());
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(format!("{}.{:09}", time.timestamp(), time.timestamp_subsec_nanos()));
    }
    for form in ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"] {
        if let Ok(time) = chrono::NaiveDateTime::parse_from_str(text, form) {
            return Ok(time.and_utc().timestamp().to_string());
        }
    }
    if let Ok(date) = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        let midnight = date.and_hms_opt(0, 0, 0).expect("midnight is a time of every day");
        return Ok(midnight.and_utc().timestamp().to_string());
    }
    let back = match text {
        "0s" | "0m" | "0h" => Ok(std::time::Duration::ZERO),
        text => bireme_core::labels::duration(text),
    };
    match back {
        Ok(back) => {
            let moment = Utc::now() - chrono::Duration::from_std(back).map_err(|error| error.to_string())?;
            Ok(format!("{}.{:09}", moment.timestamp(), moment.timestamp_subsec_nanos()))
        }
        Err(_) => {
            Err(format!("{text:?} is neither a time (2026-01-02T15:04:05Z), seconds since 1970 nor a duration (10m)"))
        }
    }
}

/// A duration as Docker's flags take it, in nanoseconds.
pub fn parse_nanos(text: &str) -> Result<i64, String> {
    if text == "0" || text == "0s" {
        return Ok(0);
    }
    bireme_core::labels::duration(text).map(|duration| duration.as_nanos() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_read() {
        assert_eq!(parse_moment("1700000000"), Ok("1700000000".to_owned()));
        assert_eq!(parse_moment("2023-11-14T22:13:20Z"), Ok("1700000000.000000000".to_owned()));
        assert_eq!(parse_moment("2023-11-14"), Ok("1699920000".to_owned()));
        assert!(parse_moment("10m").is_ok());
        assert!(parse_moment("soon").is_err());
    }

    #[test]
    fn long_text_is_cut() {
        assert_eq!(ellipsis("abcdef", 6), "abcdef");
        assert_eq!(ellipsis("abcdefg", 6), "abcde…");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
