//! The versions of before 4, which have fewer types: in terms of those of 4.

use wasmtime::component::Resource;

use super::{Answer, Connection, v4};
use crate::guest::Guest;
use crate::host::bindings::sync::fermyon::spin2_0_0::{postgres as v2, rdbms_types as rdbms};
use crate::host::bindings::sync::spin::postgres3_0_0::postgres as v3;

/// The text of a failure of a statement.
fn text(error: v4::QueryError) -> String {
    match error {
        v4::QueryError::Text(text) => text,
        v4::QueryError::DbError(error) => error.as_text,
    }
}

/// Conversions to the types of one version.
macro_rules! version {
    ($v:ident { $($more:ident),* } { $($missing:ident),* }) => {
        impl From<v4::Error> for $v::Error {
            fn from(error: v4::Error) -> Self {
                match error {
                    v4::Error::ConnectionFailed(text) => Self::ConnectionFailed(text),
                    v4::Error::BadParameter(text) => Self::BadParameter(text),
                    v4::Error::QueryFailed(error) => Self::QueryFailed(text(error)),
                    v4::Error::ValueConversionFailed(text) => Self::ValueConversionFailed(text),
                    v4::Error::Other(text) => Self::Other(text),
                }
            }
        }

        impl From<v4::DbDataType> for $v::DbDataType {
            fn from(ty: v4::DbDataType) -> Self {
                match ty {
                    v4::DbDataType::Boolean => Self::Boolean,
                    v4::DbDataType::Int8 => Self::Int8,
                    v4::DbDataType::Int16 => Self::Int16,
                    v4::DbDataType::Int32 => Self::Int32,
                    v4::DbDataType::Int64 => Self::Int64,
                    v4::DbDataType::Floating32 => Self::Floating32,
                    v4::DbDataType::Floating64 => Self::Floating64,
                    v4::DbDataType::Str => Self::Str,
                    v4::DbDataType::Binary => Self::Binary,
                    $(v4::DbDataType::$more => Self::$more,)*
                    _ => Self::Other,
                }
            }
        }

        impl From<v4::DbValue> for $v::DbValue {
            fn from(value: v4::DbValue) -> Self {
                match value {
                    v4::DbValue::Boolean(value) => Self::Boolean(value),
                    v4::DbValue::Int8(value) => Self::Int8(value),
                    v4::DbValue::Int16(value) => Self::Int16(value),
                    v4::DbValue::Int32(value) => Self::Int32(value),
                    v4::DbValue::Int64(value) => Self::Int64(value),
                    v4::DbValue::Floating32(value) => Self::Floating32(value),
                    v4::DbValue::Floating64(value) => Self::Floating64(value),
                    v4::DbValue::Str(value) => Self::Str(value),
                    v4::DbValue::Binary(value) => Self::Binary(value),
                    $(v4::DbValue::$more(value) => Self::$more(value),)*
                    v4::DbValue::DbNull => Self::DbNull,
                    _ => Self::Unsupported,
                }
            }
        }

        impl From<Answer> for $v::RowSet {
            fn from(answer: Answer) -> Self {
                let columns = answer.columns.into_iter();
                Self {
                    columns: columns
                        .map(|column| $v::Column { name: column.name, data_type: column.data_type.into() })
                        .collect(),
                    rows: answer.rows.into_iter().map(|row| row.into_iter().map(Into::into).collect()).collect(),
                }
            }
        }

        impl TryFrom<$v::ParameterValue> for v4::ParameterValue {
            type Error = v4::Error;

            fn try_from(value: $v::ParameterValue) -> Result<Self, v4::Error> {
                Ok(match value {
                    $v::ParameterValue::Boolean(value) => Self::Boolean(value),
                    $v::ParameterValue::Int8(value) => Self::Int8(value),
                    $v::ParameterValue::Int16(value) => Self::Int16(value),
                    $v::ParameterValue::Int32(value) => Self::Int32(value),
                    $v::ParameterValue::Int64(value) => Self::Int64(value),
                    $v::ParameterValue::Floating32(value) => Self::Floating32(value),
                    $v::ParameterValue::Floating64(value) => Self::Floating64(value),
                    $v::ParameterValue::Str(value) => Self::Str(value),
                    $v::ParameterValue::Binary(value) => Self::Binary(value),
                    $($v::ParameterValue::$more(value) => Self::$more(value),)*
                    $v::ParameterValue::DbNull => Self::DbNull,
                    $($v::ParameterValue::$missing(_) => {
                        return Err(v4::Error::BadParameter("PostgreSQL has no unsigned integers".to_owned()));
                    })*
                })
            }
        }
    };
}
version!(rdbms {} { Uint8, Uint16, Uint32, Uint64 });
version!(v3 { Date, Time, Datetime, Timestamp } {});

fn converted<P>(parameters: Vec<P>) -> Result<Vec<v4::ParameterValue>, v4::Error>
where
    v4::ParameterValue: TryFrom<P, Error = v4::Error>,
{
    parameters.into_iter().map(TryInto::try_into).collect()
}

impl v2::Host for Guest {}
impl v3::Host for Guest {}

impl v2::HostConnection for Guest {
    async fn open(&mut self, address: String) -> Result<Resource<Connection>, v2::Error> {
        Ok(self.open_postgres(&address, None).await?)
    }

    async fn query(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<rdbms::ParameterValue>,
    ) -> Result<v2::RowSet, v2::Error> {
        Ok(self.query_postgres(&connection, &statement, &converted(parameters)?).await?.into())
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<rdbms::ParameterValue>,
    ) -> Result<u64, v2::Error> {
        Ok(self.execute_postgres(&connection, &statement, &converted(parameters)?).await?)
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.drop_postgres(connection)
    }
}

impl v3::HostConnection for Guest {
    async fn open(&mut self, address: String) -> Result<Resource<Connection>, v3::Error> {
        Ok(self.open_postgres(&address, None).await?)
    }

    async fn query(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<v3::ParameterValue>,
    ) -> Result<v3::RowSet, v3::Error> {
        Ok(self.query_postgres(&connection, &statement, &converted(parameters)?).await?.into())
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<v3::ParameterValue>,
    ) -> Result<u64, v3::Error> {
        Ok(self.execute_postgres(&connection, &statement, &converted(parameters)?).await?)
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.drop_postgres(connection)
    }
}
