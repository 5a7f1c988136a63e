//! `bireme.schedule`: when a command runs.

use std::str::FromStr;

use cronexpr::{Crontab, FallbackTimezoneOption, MakeTimestamp, ParseOptions};
use serde::{Deserialize, Serialize};

/// Times at which something happens, again and again, in the clock of a time zone.
///
/// Source: crontab(5).
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    crontab: Crontab,
}

/// Shorthands, as crontab(5) has them.
const NAMED: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

impl Schedule {
    /// The first time after `now`, both in nanoseconds since 1970; `None` where there is none, as of a 30th of February.
    pub fn next_after(&self, now: i64) -> Option<i64> {
        let next = self.crontab.find_next(MakeTimestamp::from_nanosecond(i128::from(now)).ok()?).ok()?;
        i64::try_from(next.timestamp().as_nanosecond()).ok()
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, zone) = text.split_once(' ').unwrap_or((text, ""));
        let named = NAMED.iter().find(|(name, _)| *name == first);
        let whole = named.map_or_else(|| text.to_owned(), |(_, fields)| format!("{fields} {zone}"));
        let mut options = ParseOptions::default();
        options.fallback_timezone_option = FallbackTimezoneOption::UTC;
        let crontab = cronexpr::parse_crontab_with(whole.trim(), options).map_err(|_| {
            format!(
                "{text:?} is not five fields (minute, hour, day of the month, month, day of the week) and a time zone, such as \
                 30 4 * * 1-5 Europe/Berlin"
            )
        })?;
        let schedule = Self { text: text.to_owned(), crontab };
        // Looked for from any time on, for some years.
        match schedule.next_after(0) {
            Some(_) => Ok(schedule),
            None => Err(format!("{text:?} names a day that no year has")),
        }
    }
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Schedule {}

impl Serialize for Schedule {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_clock_of_the_zone() {
        const HOUR: i64 = 3_600_000_000_000;
        let at = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_nanos_opt().unwrap();
        for (schedule, now, next) in [
            ("* * * * *", "2026-11-30T23:59:59Z", Some("2026-12-01T00:00:00Z")),
            ("* * * * *", "2026-11-30T23:59:00Z", Some("2026-12-01T00:00:00Z")),
            ("30 4 * * 1-5 Europe/Berlin", "2026-11-28T00:00:00Z", Some("2026-11-30T03:30:00Z")),
            ("@daily Asia/Tokyo", "2026-11-30T00:00:00Z", Some("2026-11-30T15:00:00Z")),
            ("@hourly", "2026-11-30T00:00:00.5Z", Some("2026-11-30T01:00:00Z")),
            // In summer it is another hour of UTC.
            ("0 12 * * * Europe/Berlin", "2026-07-01T00:00:00Z", Some("2026-07-01T10:00:00Z")),
            ("0 0 29 2 *", "2026-11-30T00:00:00Z", Some("2028-02-29T00:00:00Z")),
        ] {
            let schedule: Schedule = schedule.parse().unwrap();
            assert_eq!(schedule.next_after(at(now)), next.map(at), "{schedule:?} {now}");
        }
        let hourly: Schedule = "@hourly".parse().unwrap();
        let first = hourly.next_after(at("2026-11-30T00:00:00Z")).unwrap();
        assert_eq!(hourly.next_after(first), Some(first + HOUR), "not the same one again");
        for text in ["", "@reboot", "* * * *", "* * * * * * UTC", "61 * * * *", "0 0 * * * Europe/Nowhere"] {
            assert!(text.parse::<Schedule>().unwrap_err().contains("five fields"), "{text}");
        }
        assert!("0 0 30 2 *".parse::<Schedule>().unwrap_err().contains("a day that no year has"));
        let read: Schedule = serde_json::from_str(&serde_json::to_string(&hourly).unwrap()).unwrap();
        assert_eq!(read, hourly);
    }
}
