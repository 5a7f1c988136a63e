//! Values between the interface and the server's binary form.

use bytes::{BufMut as _, BytesMut};
use chrono::{DateTime, Datelike as _, NaiveDate, NaiveDateTime, NaiveTime, Timelike as _};
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::types as wire;
use tokio_postgres::types::{FromSql, IsNull, Kind, ToSql, Type};

use super::numeric;
use crate::host::bindings::concurrent::spin::postgres4_2_0::postgres::{
    DbDataType, DbValue, Interval, ParameterValue, RangeBoundKind,
};

/// The version byte of `jsonb`.
const JSONB: u8 = 1;

/// A bound of a range, where it has one.
type Bound<T> = Option<(T, RangeBoundKind)>;

/// What the interface calls a type of the server.
pub(super) fn data_type(ty: &Type) -> DbDataType {
    match *ty {
        Type::BOOL => DbDataType::Boolean,
        Type::CHAR => DbDataType::Int8,
        Type::INT2 => DbDataType::Int16,
        Type::INT4 => DbDataType::Int32,
        Type::INT8 => DbDataType::Int64,
        Type::FLOAT4 => DbDataType::Floating32,
        Type::FLOAT8 => DbDataType::Floating64,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::XML => DbDataType::Str,
        Type::BYTEA => DbDataType::Binary,
        Type::DATE => DbDataType::Date,
        Type::TIME => DbDataType::Time,
        Type::TIMESTAMP | Type::TIMESTAMPTZ => DbDataType::Datetime,
        Type::UUID => DbDataType::Uuid,
        Type::JSONB => DbDataType::Jsonb,
        Type::NUMERIC => DbDataType::Decimal,
        Type::INT4_RANGE => DbDataType::RangeInt32,
        Type::INT8_RANGE => DbDataType::RangeInt64,
        Type::NUM_RANGE => DbDataType::RangeDecimal,
        Type::INT4_ARRAY => DbDataType::ArrayInt32,
        Type::INT8_ARRAY => DbDataType::ArrayInt64,
        Type::NUMERIC_ARRAY => DbDataType::ArrayDecimal,
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => DbDataType::ArrayStr,
        Type::INTERVAL => DbDataType::Interval,
        _ => DbDataType::Other(ty.name().to_owned()),
    }
}

/// A value as it came, of whatever type.
pub(super) struct Raw<'a>(pub &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, bytes: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(bytes))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Pays for bytes that a value takes beside those that it has on the way.
type Pay<'a> = &'a dyn Fn(usize) -> Result<(), String>;

/// Reads a value. What takes more in memory than on its way is paid by `pay` before it is made.
///
/// # Errors
/// A sentence where the bytes are not of that type, or a value has no form in the interface; those of `pay`.
pub(super) fn decode(ty: &Type, bytes: Option<&[u8]>, pay: Pay<'_>) -> Result<DbValue, String> {
    let Some(bytes) = bytes else { return Ok(DbValue::DbNull) };
    let text = |error: Box<dyn std::error::Error + Sync + Send>| format!("a value of type {ty}: {error}");
    let decimal = |bytes: &[u8]| {
        pay(numeric::text_length(bytes)?)?;
        numeric::to_text(bytes)
    };
    fn read<'a, T: FromSql<'a>>(ty: &Type, bytes: &'a [u8]) -> Result<T, String> {
        T::from_sql(ty, bytes).map_err(|error| format!("a value of type {ty}: {error}"))
    }
    Ok(match *ty {
        Type::BOOL => DbValue::Boolean(wire::bool_from_sql(bytes).map_err(text)?),
        Type::CHAR => DbValue::Int8(wire::char_from_sql(bytes).map_err(text)?),
        Type::INT2 => DbValue::Int16(wire::int2_from_sql(bytes).map_err(text)?),
        Type::INT4 => DbValue::Int32(wire::int4_from_sql(bytes).map_err(text)?),
        Type::INT8 => DbValue::Int64(wire::int8_from_sql(bytes).map_err(text)?),
        Type::FLOAT4 => DbValue::Floating32(wire::float4_from_sql(bytes).map_err(text)?),
        Type::FLOAT8 => DbValue::Floating64(wire::float8_from_sql(bytes).map_err(text)?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::JSON | Type::XML => {
            DbValue::Str(wire::text_from_sql(bytes).map_err(text)?.to_owned())
        }
        Type::BYTEA => DbValue::Binary(bytes.to_vec()),
        Type::DATE => DbValue::Date(of_date(read(ty, bytes)?)),
        Type::TIME => DbValue::Time(of_time(read(ty, bytes)?)),
        Type::TIMESTAMP => DbValue::Datetime(of_moment(read(ty, bytes)?)),
        Type::TIMESTAMPTZ => DbValue::Datetime(of_moment(read::<DateTime<chrono::Utc>>(ty, bytes)?.naive_utc())),
        Type::UUID => DbValue::Uuid(uuid_text(wire::uuid_from_sql(bytes).map_err(text)?)),
        Type::JSONB => match bytes.split_first() {
            Some((&JSONB, json)) => DbValue::Jsonb(json.to_vec()),
            _ => return Err("a value of type jsonb in a version that is not known".to_owned()),
        },
        Type::NUMERIC => DbValue::Decimal(decimal(bytes)?),
        Type::INT4_RANGE => DbValue::RangeInt32(range(bytes, 0, |bytes| wire::int4_from_sql(bytes).map_err(text))?),
        Type::INT8_RANGE => DbValue::RangeInt64(range(bytes, 0, |bytes| wire::int8_from_sql(bytes).map_err(text))?),
        Type::NUM_RANGE => DbValue::RangeDecimal(range(bytes, "0".to_owned(), decimal)?),
        Type::INT4_ARRAY => {
            DbValue::ArrayInt32(array(ty, bytes, pay, |bytes| wire::int4_from_sql(bytes).map_err(text))?)
        }
        Type::INT8_ARRAY => {
            DbValue::ArrayInt64(array(ty, bytes, pay, |bytes| wire::int8_from_sql(bytes).map_err(text))?)
        }
        Type::NUMERIC_ARRAY => DbValue::ArrayDecimal(array(ty, bytes, pay, decimal)?),
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY | Type::BPCHAR_ARRAY => {
            DbValue::ArrayStr(array(ty, bytes, pay, |bytes| {
                wire::text_from_sql(bytes).map(str::to_owned).map_err(text)
            })?)
        }
        Type::INTERVAL => DbValue::Interval(interval(bytes)?),
        _ => DbValue::Unsupported(bytes.to_vec()),
    })
}

/// `none` is a value for both bounds of a range that holds nothing: neither of them is in it.
fn range<T: Clone>(
    bytes: &[u8],
    none: T,
    read: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<(Bound<T>, Bound<T>), String> {
    let bound = |bound: wire::RangeBound<Option<&[u8]>>| -> Result<Bound<T>, String> {
        let (value, kind) = match bound {
            wire::RangeBound::Inclusive(value) => (value, RangeBoundKind::Inclusive),
            wire::RangeBound::Exclusive(value) => (value, RangeBoundKind::Exclusive),
            wire::RangeBound::Unbounded => return Ok(None),
        };
        value.map(|bytes| read(bytes).map(|value| (value, kind))).transpose()
    };
    match wire::range_from_sql(bytes).map_err(|error| format!("a range: {error}"))? {
        wire::Range::Empty => {
            let outside = Some((none, RangeBoundKind::Exclusive));
            Ok((outside.clone(), outside))
        }
        wire::Range::Nonempty(lower, upper) => Ok((bound(lower)?, bound(upper)?)),
    }
}

fn array<T>(
    ty: &Type,
    bytes: &[u8],
    pay: Pay<'_>,
    read: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<Vec<Option<T>>, String> {
    let malformed = |error: Box<dyn std::error::Error + Sync + Send>| format!("a value of type {ty}: {error}");
    let array = wire::array_from_sql(bytes).map_err(malformed)?;
    if array.dimensions().count().map_err(malformed)? > 1 {
        return Err(format!("a value of type {ty} has several dimensions, for which there is no form"));
    }
    let mut found = Vec::new();
    let mut values = array.values();
    while let Some(value) = values.next().map_err(malformed)? {
        // Doubled where the list grows.
        pay(2 * size_of::<Option<T>>())?;
        found.push(value.map(&read).transpose()?);
    }
    Ok(found)
}

/// Source: PostgreSQL's `interval_send`: microseconds, days, months.
fn interval(bytes: &[u8]) -> Result<Interval, String> {
    let part = |from: usize, to: usize| bytes.get(from..to).ok_or("a value of type interval is cut short");
    let micros = part(0, 8)?.try_into().map(i64::from_be_bytes).map_err(|_| "no interval")?;
    let days = part(8, 12)?.try_into().map(i32::from_be_bytes).map_err(|_| "no interval")?;
    let months = part(12, 16)?.try_into().map(i32::from_be_bytes).map_err(|_| "no interval")?;
    Ok(Interval { micros, days, months })
}

fn of_date(date: NaiveDate) -> (i32, u8, u8) {
    // A month has at most 31 days, and a year twelve months.
    (date.year(), date.month() as u8, date.day() as u8)
}

fn of_time(time: NaiveTime) -> (u8, u8, u8, u32) {
    (time.hour() as u8, time.minute() as u8, time.second() as u8, time.nanosecond())
}

fn of_moment(moment: NaiveDateTime) -> (i32, u8, u8, u8, u8, u8, u32) {
    let ((year, month, day), (hour, minute, second, nanosecond)) = (of_date(moment.date()), of_time(moment.time()));
    (year, month, day, hour, minute, second, nanosecond)
}

fn to_date((year, month, day): (i32, u8, u8)) -> Result<NaiveDate, String> {
    let date = NaiveDate::from_ymd_opt(year, month.into(), day.into());
    date.ok_or_else(|| format!("there is no day {year}-{month}-{day}"))
}

fn to_time((hour, minute, second, nanosecond): (u8, u8, u8, u32)) -> Result<NaiveTime, String> {
    let time = NaiveTime::from_hms_nano_opt(hour.into(), minute.into(), second.into(), nanosecond);
    time.ok_or_else(|| format!("there is no time {hour}:{minute}:{second} and {nanosecond} ns"))
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let hex = format!("{:032x}", u128::from_be_bytes(bytes));
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn to_uuid(text: &str) -> Result<[u8; 16], String> {
    let plain: String = text.chars().filter(|character| *character != '-').collect();
    let is_hex = plain.len() == 32 && plain.bytes().all(|byte| byte.is_ascii_hexdigit());
    let value = is_hex.then(|| u128::from_str_radix(&plain, 16).ok()).flatten();
    value.map(u128::to_be_bytes).ok_or_else(|| format!("{text:?} is no UUID"))
}

/// A parameter as the server takes it.
#[derive(Debug)]
pub(super) struct Encoded(Option<BytesMut>);

impl ToSql for Encoded {
    fn to_sql(&self, _: &Type, into: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        let Some(bytes) = &self.0 else { return Ok(IsNull::Yes) };
        into.extend_from_slice(bytes);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    tokio_postgres::types::to_sql_checked!();
}

/// # Errors
/// A sentence, without the value where it may be long, when the value does not fit `ty`, the type that the statement has
/// there.
pub(super) fn encode(value: &ParameterValue, ty: &Type) -> Result<Encoded, String> {
    // A type with conditions is sent as the type below it.
    if let Kind::Domain(below) = ty.kind() {
        return encode(value, below);
    }
    let mut bytes = BytesMut::new();
    let into = &mut bytes;
    let unfit = |what: &str| format!("{what} is no value for the type {ty}, which the statement has there");
    let fits = |fitting: &[Type], what: &str| if fitting.contains(ty) { Ok(()) } else { Err(unfit(what)) };
    let write = |value: &dyn ToSql, into: &mut BytesMut| -> Result<(), String> {
        value.to_sql_checked(ty, into).map(drop).map_err(|error| error.to_string())
    };
    match value {
        ParameterValue::DbNull => return Ok(Encoded(None)),
        ParameterValue::Boolean(value) => {
            fits(&[Type::BOOL], "a boolean")?;
            wire::bool_to_sql(*value, into);
        }
        ParameterValue::Int8(value) => integer(i64::from(*value), ty, into)?,
        ParameterValue::Int16(value) => integer(i64::from(*value), ty, into)?,
        ParameterValue::Int32(value) => integer(i64::from(*value), ty, into)?,
        ParameterValue::Int64(value) => integer(*value, ty, into)?,
        ParameterValue::Floating32(value) => {
            fits(&[Type::FLOAT4, Type::FLOAT8], "a 32-bit floating point number")?;
            if *ty == Type::FLOAT4 {
                wire::float4_to_sql(*value, into);
            } else {
                wire::float8_to_sql(f64::from(*value), into);
            }
        }
        ParameterValue::Floating64(value) => {
            fits(&[Type::FLOAT8], "a 64-bit floating point number")?;
            wire::float8_to_sql(*value, into);
        }
        ParameterValue::Str(value) => {
            let is_text = <&str as ToSql>::accepts(ty)
                || matches!(*ty, Type::JSON | Type::XML)
                || matches!(ty.kind(), Kind::Enum(_));
            if !is_text {
                return Err(unfit("a text"));
            }
            if <&str as ToSql>::accepts(ty) { write(value, into)? } else { into.extend_from_slice(value.as_bytes()) }
        }
        ParameterValue::Binary(value) => {
            fits(&[Type::BYTEA], "a list of bytes")?;
            into.extend_from_slice(value);
        }
        ParameterValue::Date(value) => {
            fits(&[Type::DATE], "a date")?;
            write(&to_date(*value)?, into)?;
        }
        ParameterValue::Time(value) => {
            fits(&[Type::TIME], "a time")?;
            write(&to_time(*value)?, into)?;
        }
        ParameterValue::Datetime((year, month, day, hour, minute, second, nanosecond)) => {
            fits(&[Type::TIMESTAMP, Type::TIMESTAMPTZ], "a date with a time")?;
            let moment = to_date((*year, *month, *day))?.and_time(to_time((*hour, *minute, *second, *nanosecond))?);
            if *ty == Type::TIMESTAMP { write(&moment, into)? } else { write(&moment.and_utc(), into)? }
        }
        ParameterValue::Timestamp(seconds) => {
            fits(&[Type::TIMESTAMP, Type::TIMESTAMPTZ], "a timestamp")?;
            let moment = DateTime::from_timestamp(*seconds, 0);
            let moment = moment.ok_or_else(|| format!("there is no moment {seconds} seconds after 1970"))?;
            if *ty == Type::TIMESTAMP { write(&moment.naive_utc(), into)? } else { write(&moment, into)? }
        }
        ParameterValue::Uuid(value) => {
            fits(&[Type::UUID], "a UUID")?;
            wire::uuid_to_sql(to_uuid(value)?, into);
        }
        ParameterValue::Jsonb(value) => {
            fits(&[Type::JSONB, Type::JSON], "JSON")?;
            if *ty == Type::JSONB {
                into.put_u8(JSONB);
            }
            into.extend_from_slice(value);
        }
        ParameterValue::Decimal(value) => {
            fits(&[Type::NUMERIC], "a decimal number")?;
            numeric::from_text(value, into)?;
        }
        ParameterValue::RangeInt32(value) => {
            fits(&[Type::INT4_RANGE], "a range of 32-bit integers")?;
            put_range(value, into, |value, into| {
                wire::int4_to_sql(*value, into);
                Ok(())
            })?;
        }
        ParameterValue::RangeInt64(value) => {
            fits(&[Type::INT8_RANGE], "a range of 64-bit integers")?;
            put_range(value, into, |value, into| {
                wire::int8_to_sql(*value, into);
                Ok(())
            })?;
        }
        ParameterValue::RangeDecimal(value) => {
            fits(&[Type::NUM_RANGE], "a range of decimal numbers")?;
            put_range(value, into, |value, into| numeric::from_text(value, into))?;
        }
        ParameterValue::ArrayInt32(values) => {
            fits(&[Type::INT4_ARRAY], "an array of 32-bit integers")?;
            put_array(values, ty, into, |value, into| {
                wire::int4_to_sql(*value, into);
                Ok(())
            })?;
        }
        ParameterValue::ArrayInt64(values) => {
            fits(&[Type::INT8_ARRAY], "an array of 64-bit integers")?;
            put_array(values, ty, into, |value, into| {
                wire::int8_to_sql(*value, into);
                Ok(())
            })?;
        }
        ParameterValue::ArrayDecimal(values) => {
            fits(&[Type::NUMERIC_ARRAY], "an array of decimal numbers")?;
            put_array(values, ty, into, |value, into| numeric::from_text(value, into))?;
        }
        ParameterValue::ArrayStr(values) => {
            fits(&[Type::TEXT_ARRAY, Type::VARCHAR_ARRAY, Type::BPCHAR_ARRAY], "an array of texts")?;
            put_array(values, ty, into, |value, into| {
                into.extend_from_slice(value.as_bytes());
                Ok(())
            })?;
        }
        ParameterValue::Interval(Interval { micros, days, months }) => {
            fits(&[Type::INTERVAL], "an interval")?;
            into.put_i64(*micros);
            into.put_i32(*days);
            into.put_i32(*months);
        }
    }
    Ok(Encoded(Some(bytes)))
}

fn integer(value: i64, ty: &Type, into: &mut BytesMut) -> Result<(), String> {
    let too_large = |_| format!("{value} is too large for the type {ty}, which the statement has there");
    match *ty {
        Type::CHAR => wire::char_to_sql(value.try_into().map_err(too_large)?, into),
        Type::INT2 => wire::int2_to_sql(value.try_into().map_err(too_large)?, into),
        Type::INT4 => wire::int4_to_sql(value.try_into().map_err(too_large)?, into),
        Type::INT8 => wire::int8_to_sql(value, into),
        Type::OID => wire::oid_to_sql(value.try_into().map_err(too_large)?, into),
        Type::NUMERIC => numeric::from_text(&value.to_string(), into)?,
        _ => return Err(format!("an integer is no value for the type {ty}, which the statement has there")),
    }
    Ok(())
}

type Boxed = Box<dyn std::error::Error + Sync + Send>;

fn put_range<T>(
    (lower, upper): &(Bound<T>, Bound<T>),
    into: &mut BytesMut,
    put: impl Fn(&T, &mut BytesMut) -> Result<(), String>,
) -> Result<(), String> {
    let bound = |bound: &Bound<T>, into: &mut BytesMut| -> Result<wire::RangeBound<postgres_protocol::IsNull>, Boxed> {
        let Some((value, kind)) = bound else { return Ok(wire::RangeBound::Unbounded) };
        put(value, into)?;
        Ok(match kind {
            RangeBoundKind::Inclusive => wire::RangeBound::Inclusive(postgres_protocol::IsNull::No),
            RangeBoundKind::Exclusive => wire::RangeBound::Exclusive(postgres_protocol::IsNull::No),
        })
    };
    wire::range_to_sql(|into| bound(lower, into), |into| bound(upper, into), into).map_err(|error| error.to_string())
}

fn put_array<T>(
    values: &[Option<T>],
    ty: &Type,
    into: &mut BytesMut,
    put: impl Fn(&T, &mut BytesMut) -> Result<(), String>,
) -> Result<(), String> {
    let Kind::Array(member) = ty.kind() else { return Err(format!("the type {ty} is no array")) };
    let length = i32::try_from(values.len()).map_err(|_| "an array of too many values")?;
    let dimension = wire::ArrayDimension { len: length, lower_bound: 1 };
    let put_one = |value: &Option<T>, into: &mut BytesMut| -> Result<postgres_protocol::IsNull, Boxed> {
        let Some(value) = value else { return Ok(postgres_protocol::IsNull::Yes) };
        put(value, into)?;
        Ok(postgres_protocol::IsNull::No)
    };
    wire::array_to_sql(Some(dimension), member.oid(), values, put_one, into).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes back of a value that was sent as `ty`.
    fn through(value: &ParameterValue, ty: &Type) -> Result<DbValue, String> {
        let encoded = encode(value, ty)?;
        decode(ty, encoded.0.as_deref(), &|_| Ok(()))
    }

    #[test]
    fn values_come_back_as_they_were_sent() {
        let inclusive = |value| Some((value, RangeBoundKind::Inclusive));
        let decimal = |text: &str| Some((text.to_owned(), RangeBoundKind::Exclusive));
        let texts = vec![Some("a".to_owned()), None];
        for (sent, ty, expected) in [
            (ParameterValue::Boolean(true), Type::BOOL, DbValue::Boolean(true)),
            (ParameterValue::Int8(-3), Type::CHAR, DbValue::Int8(-3)),
            (ParameterValue::Int8(-3), Type::INT8, DbValue::Int64(-3)),
            (ParameterValue::Int64(7), Type::INT4, DbValue::Int32(7)),
            (ParameterValue::Int32(7), Type::NUMERIC, DbValue::Decimal("7".to_owned())),
            (ParameterValue::Floating32(0.5), Type::FLOAT8, DbValue::Floating64(0.5)),
            (ParameterValue::Str("ä".to_owned()), Type::VARCHAR, DbValue::Str("ä".to_owned())),
            (ParameterValue::Binary(vec![0, 255]), Type::BYTEA, DbValue::Binary(vec![0, 255])),
            (ParameterValue::Date((1999, 12, 31)), Type::DATE, DbValue::Date((1999, 12, 31))),
            (ParameterValue::Time((23, 59, 58, 7_000)), Type::TIME, DbValue::Time((23, 59, 58, 7_000))),
            (
                ParameterValue::Datetime((2026, 1, 2, 3, 4, 5, 6_000)),
                Type::TIMESTAMP,
                DbValue::Datetime((2026, 1, 2, 3, 4, 5, 6_000)),
            ),
            (ParameterValue::Timestamp(-1), Type::TIMESTAMPTZ, DbValue::Datetime((1969, 12, 31, 23, 59, 59, 0))),
            (
                ParameterValue::Uuid("0123456789abcdef0123456789ABCDEF".to_owned()),
                Type::UUID,
                DbValue::Uuid("01234567-89ab-cdef-0123-456789abcdef".to_owned()),
            ),
            (ParameterValue::Jsonb(b"{}".to_vec()), Type::JSONB, DbValue::Jsonb(b"{}".to_vec())),
            (
                ParameterValue::RangeInt32((inclusive(1), None)),
                Type::INT4_RANGE,
                DbValue::RangeInt32((inclusive(1), None)),
            ),
            (
                ParameterValue::RangeDecimal((decimal("1.5"), decimal("2"))),
                Type::NUM_RANGE,
                DbValue::RangeDecimal((decimal("1.5"), decimal("2"))),
            ),
            (
                ParameterValue::ArrayInt64(vec![Some(1), None]),
                Type::INT8_ARRAY,
                DbValue::ArrayInt64(vec![Some(1), None]),
            ),
            (ParameterValue::ArrayStr(texts.clone()), Type::TEXT_ARRAY, DbValue::ArrayStr(texts)),
            (ParameterValue::DbNull, Type::UUID, DbValue::DbNull),
        ] {
            assert_eq!(format!("{:?}", through(&sent, &ty).unwrap()), format!("{expected:?}"), "{sent:?} as {ty}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for (sent, ty) in [
            (ParameterValue::Int64(1 << 40), Type::INT4),
            (ParameterValue::Str("1".to_owned()), Type::INT4),
            (ParameterValue::Int32(1), Type::TEXT),
            (ParameterValue::Floating64(0.1), Type::FLOAT4),
            (ParameterValue::Date((2026, 2, 30)), Type::DATE),
            (ParameterValue::Time((24, 0, 0, 0)), Type::TIME),
            (ParameterValue::Uuid("nonsense".to_owned()), Type::UUID),
            (ParameterValue::Decimal("1e3".to_owned()), Type::NUMERIC),
            (ParameterValue::ArrayInt32(vec![]), Type::INT8_ARRAY),
        ] {
            let error = encode(&sent, &ty).unwrap_err();
            assert!(!error.is_empty(), "{sent:?}");
        }
    }

    #[test]
    fn an_empty_range_holds_nothing() {
        let DbValue::RangeInt32((lower, upper)) = decode(&Type::INT4_RANGE, Some(&[1]), &|_| Ok(())).unwrap() else {
            panic!()
        };
        assert!(matches!(lower, Some((0, RangeBoundKind::Exclusive))));
        assert!(matches!(upper, Some((0, RangeBoundKind::Exclusive))));
    }
}
