//! Times as Docker reads and writes them. Ours are nanoseconds since the Unix epoch.

use chrono::{DateTime, Utc};

use super::Refusal;

/// What Go writes for a time that never was.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// RFC 3339 in UTC with as many digits of fraction as are not zero, as Go's `RFC3339Nano`.
pub fn rfc3339(time: i64) -> String {
    utc(DateTime::from_timestamp_nanos(time))
}

/// As [`rfc3339`], with Go's zero time for `None`.
pub fn rfc3339_or_never(time: Option<i64>) -> String {
    time.map_or_else(|| NEVER.to_owned(), rfc3339)
}

/// As [`rfc3339`], of a `chrono` time.
pub fn utc(time: DateTime<Utc>) -> String {
    let text = time.format("%Y-%m-%dT%H:%M:%S%.9f").to_string();
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}Z")
}

/// Whole seconds, as in Docker's `Created`.
pub fn seconds(time: i64) -> i64 {
    time.div_euclid(1_000_000_000)
}

/// Reads Unix seconds with an optional fraction, RFC 3339, or the beginning of it: `2006-01-02`, `2006-01-02T15`,
/// `2006-01-02T15:04`, each with or without a zone. Without one it is UTC.
///
/// Source: `GetTimestamp` of moby, `api/types/time`.
pub fn parse(text: &str) -> Result<i64, Refusal> {
    let malformed =
        || Refusal::invalid(format!("invalid time {text:?}: expected Unix seconds such as 1700000000.5, or RFC 3339"));
    if let Some(whole) = whole_rfc3339(text) {
        let time = DateTime::parse_from_rfc3339(&whole).map_err(|_| malformed())?;
        return time.timestamp_nanos_opt().ok_or_else(malformed);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| malformed())?;
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let nanos: i64 = format!("{fraction:0<9}").parse().map_err(|_| malformed())?;
    seconds.checked_mul(1_000_000_000).and_then(|time| time.checked_add(nanos)).ok_or_else(malformed)
}

/// What is left out of a date and time put in; `None` for what does not begin with a date.
fn whole_rfc3339(text: &str) -> Option<String> {
    let date = text.get(..10).filter(|date| date.as_bytes()[4] == b'-' && date.as_bytes()[7] == b'-')?;
    let rest = &text[10..];
    let zone_at = rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len());
    let (time, zone) = rest.split_at(zone_at);
    let zone = if zone.is_empty() { "Z" } else { zone };
    let time = match (time.len(), time.matches(':').count()) {
        (0, 0) => "T00:00:00".to_owned(),
        (3, 0) => format!("{time}:00:00"),
        (6, 1) => format!("{time}:00"),
        _ => time.to_owned(),
    };
    Some(format!("{date}{time}{zone}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_go_writes_them() {
        assert_eq!(rfc3339(1_700_000_000_000_000_000), "2023-11-14T22:13:20Z");
        assert_eq!(rfc3339(1_700_000_000_120_000_000), "2023-11-14T22:13:20.12Z");
        assert_eq!(rfc3339_or_never(None), NEVER);
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(parse("1700000000"), Ok(1_700_000_000_000_000_000));
        assert_eq!(parse("1700000000.5"), Ok(1_700_000_000_500_000_000));
        assert_eq!(parse("1700000000.000000001"), Ok(1_700_000_000_000_000_001));
        assert_eq!(parse("2023-11-14T22:13:20Z"), Ok(1_700_000_000_000_000_000));
        for (text, seconds) in [
            ("2023-11-14", 1_699_920_000),
            ("2023-11-14Z", 1_699_920_000),
            ("2023-11-14+01:00", 1_699_916_400),
            ("2023-11-14T22", 1_699_999_200),
            ("2023-11-14T22:13", 1_699_999_980),
            ("2023-11-14T22:13Z", 1_699_999_980),
            ("2023-11-14T22:13-01:00", 1_700_003_580),
            ("2023-11-14T22:13:20", 1_700_000_000),
            ("2023-11-14T22:13:20.000", 1_700_000_000),
        ] {
            assert_eq!(parse(text), Ok(seconds * 1_000_000_000), "{text}");
        }
        assert!(parse("2023-11-1é").is_err() && parse("2023-11-14T").is_err() && parse("2023-11-14T22:1").is_err());
        assert!(parse("yesterday").is_err() && parse("1.x").is_err() && parse("9999999999999").is_err());
    }
}
