//! Spin's MySQL client: `fermyon:spin/mysql@2.0.0` and `spin:mysql/mysql@3.0.0`, for servers of MySQL and MariaDB.
//!
//! A guest has a session for itself. What it leaves behind, an open transaction above all, is gone before another has it.

mod address;
mod packets;
mod session;

use std::sync::Arc;

use mysql_common::constants::{ColumnFlags, ColumnType};
use mysql_common::packets::Column;
use mysql_common::value::Value;
use mysql_common::value::convert::{FromValue, from_value_opt};
use wasmtime::component::{Access, Accessor, FutureReader, HasSelf, Resource, StreamReader};

use super::bindings::concurrent::spin::mysql::mysql as v3;
use super::bindings::sync::fermyon::spin2_0_0::{mysql as v2, rdbms_types as rdbms};
use super::rows::streams;
use crate::account::Payer;
use crate::component::{Component, Lent};
use crate::guest::Guest;

use address::Address;
use session::{Answer, Failure, Session};

/// The character set of columns that hold bytes.
const BINARY: u16 = 63;

/// A connection as a guest has it: one statement at a time.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Connection(Arc<tokio::sync::Mutex<Lent<Session>>>);

impl Connection {
    async fn open(component: &Arc<Component>, address: &str) -> Result<Self, Failure> {
        let parsed = Arc::new(Address::parse(address).map_err(Failure::Connection)?);
        let lent = component.sessions.of().lend(address, Session::connect(component, parsed)).await?;
        Ok(Self(Arc::new(tokio::sync::Mutex::new(lent))))
    }

    async fn query(&self, statement: &str, parameters: Vec<Value>, payer: &Payer) -> Result<Answer, Failure> {
        let mut lent = self.0.lock().await;
        let session = lent.session().ok_or_else(|| Failure::Other("the connection is closed".to_owned()))?;
        session.query(statement, &parameters, payer).await
    }
}

/// Conversions to and from the types of one version.
macro_rules! version {
    ($v:ident) => {
        impl From<Failure> for $v::Error {
            fn from(failure: Failure) -> Self {
                match failure {
                    Failure::Connection(text) => Self::ConnectionFailed(text),
                    Failure::Parameter(text) => Self::BadParameter(text),
                    Failure::Query(_, text) => Self::QueryFailed(text),
                    Failure::Other(text) => Self::Other(text),
                }
            }
        }

        impl From<$v::ParameterValue> for Value {
            fn from(value: $v::ParameterValue) -> Self {
                match value {
                    $v::ParameterValue::Boolean(value) => value.into(),
                    $v::ParameterValue::Int8(value) => value.into(),
                    $v::ParameterValue::Int16(value) => value.into(),
                    $v::ParameterValue::Int32(value) => value.into(),
                    $v::ParameterValue::Int64(value) => value.into(),
                    $v::ParameterValue::Uint8(value) => value.into(),
                    $v::ParameterValue::Uint16(value) => value.into(),
                    $v::ParameterValue::Uint32(value) => value.into(),
                    $v::ParameterValue::Uint64(value) => value.into(),
                    $v::ParameterValue::Floating32(value) => value.into(),
                    $v::ParameterValue::Floating64(value) => value.into(),
                    $v::ParameterValue::Str(value) => value.into(),
                    $v::ParameterValue::Binary(value) => value.into(),
                    $v::ParameterValue::DbNull => Self::NULL,
                }
            }
        }

        impl From<&Column> for $v::DbDataType {
            fn from(column: &Column) -> Self {
                let is_unsigned = column.flags().contains(ColumnFlags::UNSIGNED_FLAG);
                match column.column_type() {
                    ColumnType::MYSQL_TYPE_TINY if is_unsigned => Self::Uint8,
                    ColumnType::MYSQL_TYPE_TINY => Self::Int8,
                    ColumnType::MYSQL_TYPE_SHORT if is_unsigned => Self::Uint16,
                    ColumnType::MYSQL_TYPE_YEAR => Self::Uint16,
                    ColumnType::MYSQL_TYPE_SHORT => Self::Int16,
                    ColumnType::MYSQL_TYPE_INT24 | ColumnType::MYSQL_TYPE_LONG if is_unsigned => Self::Uint32,
                    ColumnType::MYSQL_TYPE_INT24 | ColumnType::MYSQL_TYPE_LONG => Self::Int32,
                    ColumnType::MYSQL_TYPE_LONGLONG if is_unsigned => Self::Uint64,
                    ColumnType::MYSQL_TYPE_LONGLONG => Self::Int64,
                    ColumnType::MYSQL_TYPE_FLOAT => Self::Floating32,
                    ColumnType::MYSQL_TYPE_DOUBLE => Self::Floating64,
                    ColumnType::MYSQL_TYPE_JSON => Self::Str,
                    ColumnType::MYSQL_TYPE_VARCHAR
                    | ColumnType::MYSQL_TYPE_VAR_STRING
                    | ColumnType::MYSQL_TYPE_STRING
                    | ColumnType::MYSQL_TYPE_TINY_BLOB
                    | ColumnType::MYSQL_TYPE_MEDIUM_BLOB
                    | ColumnType::MYSQL_TYPE_LONG_BLOB
                    | ColumnType::MYSQL_TYPE_BLOB => {
                        if column.character_set() == BINARY {
                            Self::Binary
                        } else {
                            Self::Str
                        }
                    }
                    _ => Self::Other,
                }
            }
        }

        impl $v::DbValue {
            fn read(value: Value, ty: $v::DbDataType) -> Result<Self, $v::Error> {
                fn as_is<T: FromValue>(value: Value) -> Result<T, $v::Error> {
                    from_value_opt(value).map_err(|error| $v::Error::ValueConversionFailed(error.to_string()))
                }
                if value == Value::NULL {
                    return Ok(Self::DbNull);
                }
                Ok(match ty {
                    $v::DbDataType::Boolean => Self::Boolean(as_is(value)?),
                    $v::DbDataType::Int8 => Self::Int8(as_is(value)?),
                    $v::DbDataType::Int16 => Self::Int16(as_is(value)?),
                    $v::DbDataType::Int32 => Self::Int32(as_is(value)?),
                    $v::DbDataType::Int64 => Self::Int64(as_is(value)?),
                    $v::DbDataType::Uint8 => Self::Uint8(as_is(value)?),
                    $v::DbDataType::Uint16 => Self::Uint16(as_is(value)?),
                    $v::DbDataType::Uint32 => Self::Uint32(as_is(value)?),
                    $v::DbDataType::Uint64 => Self::Uint64(as_is(value)?),
                    $v::DbDataType::Floating32 => Self::Floating32(as_is(value)?),
                    $v::DbDataType::Floating64 => Self::Floating64(as_is(value)?),
                    $v::DbDataType::Str => Self::Str(as_is(value)?),
                    $v::DbDataType::Binary => Self::Binary(as_is(value)?),
                    // Of dates and decimal numbers, which have no form in the interface.
                    $v::DbDataType::Other => Self::Unsupported,
                })
            }
        }

        impl $v::Column {
            fn all(columns: &[Column]) -> Vec<Self> {
                let read = |column: &Column| Self { name: column.name_str().into_owned(), data_type: column.into() };
                columns.iter().map(read).collect()
            }
        }
    };
}
version!(rdbms);
version!(v3);

/// The values of all rows.
macro_rules! rows {
    ($v:ident, $columns:expr, $rows:expr) => {{
        let types: Vec<$v::DbDataType> = $columns.iter().map(|column| column.data_type).collect();
        let row = |values: Vec<Value>| -> Result<Vec<$v::DbValue>, $v::Error> {
            values.into_iter().zip(&types).map(|(value, ty)| $v::DbValue::read(value, *ty)).collect()
        };
        $rows.into_iter().map(row).collect::<Result<Vec<_>, _>>()
    }};
}

fn find(guest: &mut Guest, connection: &Resource<Connection>) -> Result<Connection, Failure> {
    guest.held(connection).map_err(Failure::Other)
}

impl rdbms::Host for Guest {}
impl v2::Host for Guest {}
impl v3::Host for Guest {}

impl v2::HostConnection for Guest {
    async fn open(&mut self, address: String) -> Result<Resource<Connection>, v2::Error> {
        let connection = Connection::open(&self.component, &address).await?;
        Ok(self.table.push(connection).map_err(|error| Failure::Other(error.to_string()))?)
    }

    async fn query(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<rdbms::ParameterValue>,
    ) -> Result<v2::RowSet, v2::Error> {
        let (connection, payer) = (find(self, &connection)?, Payer::new(&self.account));
        let parameters = parameters.into_iter().map(Into::into).collect();
        let answer = connection.query(&statement, parameters, &payer).await?;
        let columns = rdbms::Column::all(&answer.columns);
        let rows = rows!(rdbms, columns, answer.rows)?;
        Ok(v2::RowSet { columns, rows })
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<rdbms::ParameterValue>,
    ) -> Result<(), v2::Error> {
        let (connection, payer) = (find(self, &connection)?, Payer::new(&self.account));
        connection.query(&statement, parameters.into_iter().map(Into::into).collect(), &payer).await?;
        Ok(())
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl v3::HostConnection for Guest {
    fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

/// Columns, rows, and whether these are all.
type Streams = (Vec<v3::Column>, StreamReader<Vec<v3::DbValue>>, FutureReader<Result<(), v3::Error>>);

async fn ask<T: Send>(
    guest: &Accessor<T, HasSelf<Guest>>,
    connection: &Resource<Connection>,
    statement: &str,
    parameters: Vec<v3::ParameterValue>,
) -> Result<Answer, v3::Error> {
    let (found, payer) = guest.with(|mut access| {
        let guest = access.get();
        (find(guest, connection), Payer::new(&guest.account))
    });
    Ok(found?.query(statement, parameters.into_iter().map(Into::into).collect(), &payer).await?)
}

impl<T: Send> v3::HostConnectionWithStore<T> for HasSelf<Guest> {
    async fn open(guest: &Accessor<T, Self>, address: String) -> Result<Resource<Connection>, v3::Error> {
        let component = guest.with(|mut access| Arc::clone(&access.get().component));
        let connection = Connection::open(&component, &address).await?;
        let pushed = guest.with(|mut access| access.get().table.push(connection));
        Ok(pushed.map_err(|error| Failure::Other(error.to_string()))?)
    }

    async fn query(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<v3::ParameterValue>,
    ) -> wasmtime::Result<Result<Streams, v3::Error>> {
        let read = ask(guest, &connection, &statement, parameters).await.and_then(|answer| {
            let columns = v3::Column::all(&answer.columns);
            let rows = rows!(v3, columns, answer.rows)?;
            Ok((columns, rows, answer.charges))
        });
        let (columns, rows, charges) = match read {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        guest.with(|mut access: Access<'_, T, Self>| {
            let (rows, end) = streams(&mut access, rows, charges)?;
            Ok(Ok((columns, rows, end)))
        })
    }

    async fn execute(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<v3::ParameterValue>,
    ) -> Result<(), v3::Error> {
        ask(guest, &connection, &statement, parameters).await?;
        Ok(())
    }
}
