//! How values are written: as `docker compose config` does.

use std::time::Duration;

use serde::Serializer;

pub(super) fn is_false(value: &bool) -> bool {
    !*value
}

pub(super) fn go_duration<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(duration) => serializer.serialize_str(&crate::scalar::format_duration(*duration)),
        None => serializer.serialize_none(),
    }
}

pub(super) fn bytes<S: Serializer>(value: &Option<i64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(bytes) => serializer.serialize_str(&bytes.to_string()),
        None => serializer.serialize_none(),
    }
}

/// `2` rather than `2.0`.
pub(super) fn short_number<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        #[expect(clippy::cast_possible_truncation, reason = "decode bounds the number of processors")]
        Some(number) if number.fract() == 0.0 => serializer.serialize_i64(*number as i64),
        Some(number) => serializer.serialize_f64(*number),
        None => serializer.serialize_none(),
    }
}

pub(super) fn file_mode<S: Serializer>(value: &Option<u32>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(mode) => serializer.serialize_str(&format!("0{mode:o}")),
        None => serializer.serialize_none(),
    }
}
