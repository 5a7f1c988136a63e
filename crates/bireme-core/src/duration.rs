//! Spans of time as people read them.

/// How long something took or how long ago it was, roughly, from whole seconds: `5 seconds`, `About an hour`, `2 weeks`.
///
/// Source: `HumanDuration` of github.com/docker/go-units.
pub fn human(seconds: i64) -> String {
    let minutes = seconds / 60;
    // Hours are rounded, half away from zero; everything else is cut off.
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_told_as_docker_tells_them() {
        const DAY: i64 = 86_400;
        for (seconds, expected) in [
            (i64::MIN, "Less than a second"),
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (7200, "2 hours"),
            (2 * DAY - 1801, "47 hours"),
            (2 * DAY - 1800, "2 days"),
            (3 * DAY, "3 days"),
            (14 * DAY, "2 weeks"),
            (21 * DAY, "3 weeks"),
            (60 * DAY, "2 months"),
            (90 * DAY, "3 months"),
            (730 * DAY, "2 years"),
            (800 * DAY, "2 years"),
        ] {
            assert_eq!(human(seconds), expected, "{seconds}");
        }
    }
}
