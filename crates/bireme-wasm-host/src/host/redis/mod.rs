//! Spin's Redis client: `fermyon:spin/redis@2.0.0` and `spin:redis/redis@3.0.0`; and the connections behind it.

pub(crate) mod connection;
pub(crate) mod dial;

use std::sync::Arc;

use wasmtime::component::{Accessor, HasSelf, Resource};

use super::bindings::concurrent::spin::redis::redis as v3;
use super::bindings::sync::fermyon::spin2_0_0::redis as v2;
use crate::guest::Guest;

use connection::{Answer, Argument, Connection, Failure, open};

/// Conversions to the types of one version.
macro_rules! version {
    ($v:ident) => {
        impl From<Failure> for $v::Error {
            fn from(failure: Failure) -> Self {
                match failure {
                    Failure::InvalidAddress => Self::InvalidAddress,
                    Failure::TypeError => Self::TypeError,
                    Failure::Other(text) => Self::Other(text),
                }
            }
        }

        impl From<$v::RedisParameter> for Argument {
            fn from(parameter: $v::RedisParameter) -> Self {
                match parameter {
                    $v::RedisParameter::Int64(n) => Self::Number(n),
                    $v::RedisParameter::Binary(bytes) => Self::Bytes(bytes),
                }
            }
        }

        impl From<Answer> for $v::RedisResult {
            fn from(answer: Answer) -> Self {
                match answer {
                    Answer::Nil => Self::Nil,
                    Answer::Status(text) => Self::Status(text),
                    Answer::Number(n) => Self::Int64(n),
                    Answer::Bytes(bytes) => Self::Binary(bytes),
                }
            }
        }
    };
}
version!(v2);
version!(v3);

fn find(guest: &mut Guest, connection: &Resource<Connection>) -> Result<Connection, Failure> {
    guest.held(connection).map_err(Failure::Other)
}

impl v2::Host for Guest {}

impl v2::HostConnection for Guest {
    async fn open(&mut self, address: String) -> Result<Resource<Connection>, v2::Error> {
        let connection = open(&self.component, &address).await?;
        self.table.push(connection).map_err(|_| v2::Error::TooManyConnections)
    }

    async fn publish(
        &mut self,
        connection: Resource<Connection>,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<(), v2::Error> {
        Ok(find(self, &connection)?.publish(channel, payload).await?)
    }

    async fn get(&mut self, connection: Resource<Connection>, key: String) -> Result<Option<Vec<u8>>, v2::Error> {
        Ok(find(self, &connection)?.get(key).await?)
    }

    async fn set(&mut self, connection: Resource<Connection>, key: String, value: Vec<u8>) -> Result<(), v2::Error> {
        Ok(find(self, &connection)?.set(key, value).await?)
    }

    async fn incr(&mut self, connection: Resource<Connection>, key: String) -> Result<i64, v2::Error> {
        Ok(find(self, &connection)?.incr(key).await?)
    }

    async fn del(&mut self, connection: Resource<Connection>, keys: Vec<String>) -> Result<u32, v2::Error> {
        Ok(find(self, &connection)?.del(keys).await?)
    }

    async fn sadd(
        &mut self,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, v2::Error> {
        Ok(find(self, &connection)?.sadd(key, values).await?)
    }

    async fn smembers(&mut self, connection: Resource<Connection>, key: String) -> Result<Vec<String>, v2::Error> {
        Ok(find(self, &connection)?.smembers(key).await?)
    }

    async fn srem(
        &mut self,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, v2::Error> {
        Ok(find(self, &connection)?.srem(key, values).await?)
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        command: String,
        arguments: Vec<v2::RedisParameter>,
    ) -> Result<Vec<v2::RedisResult>, v2::Error> {
        let arguments = arguments.into_iter().map(Argument::from).collect();
        let answers = find(self, &connection)?.execute(command, arguments).await?;
        Ok(answers.into_iter().map(Into::into).collect())
    }

    async fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl v3::Host for Guest {}

impl v3::HostConnection for Guest {
    fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

fn find3<T: Send>(
    guest: &Accessor<T, HasSelf<Guest>>,
    connection: &Resource<Connection>,
) -> Result<Connection, Failure> {
    guest.with(|mut access| find(access.get(), connection))
}

impl<T: Send> v3::HostConnectionWithStore<T> for HasSelf<Guest> {
    async fn open(guest: &Accessor<T, Self>, address: String) -> Result<Resource<Connection>, v3::Error> {
        let component = guest.with(|mut access| Arc::clone(&access.get().component));
        let connection = open(&component, &address).await?;
        guest.with(|mut access| access.get().table.push(connection)).map_err(|_| v3::Error::TooManyConnections)
    }

    async fn publish(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        channel: String,
        payload: Vec<u8>,
    ) -> Result<(), v3::Error> {
        Ok(find3(guest, &connection)?.publish(channel, payload).await?)
    }

    async fn get(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
    ) -> Result<Option<Vec<u8>>, v3::Error> {
        Ok(find3(guest, &connection)?.get(key).await?)
    }

    async fn set(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), v3::Error> {
        Ok(find3(guest, &connection)?.set(key, value).await?)
    }

    async fn incr(guest: &Accessor<T, Self>, connection: Resource<Connection>, key: String) -> Result<i64, v3::Error> {
        Ok(find3(guest, &connection)?.incr(key).await?)
    }

    async fn del(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        keys: Vec<String>,
    ) -> Result<u32, v3::Error> {
        Ok(find3(guest, &connection)?.del(keys).await?)
    }

    async fn sadd(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, v3::Error> {
        Ok(find3(guest, &connection)?.sadd(key, values).await?)
    }

    async fn smembers(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
    ) -> Result<Vec<String>, v3::Error> {
        Ok(find3(guest, &connection)?.smembers(key).await?)
    }

    async fn srem(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        key: String,
        values: Vec<String>,
    ) -> Result<u32, v3::Error> {
        Ok(find3(guest, &connection)?.srem(key, values).await?)
    }

    async fn execute(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        command: String,
        arguments: Vec<v3::RedisParameter>,
    ) -> Result<Vec<v3::RedisResult>, v3::Error> {
        let arguments = arguments.into_iter().map(Argument::from).collect();
        let answers = find3(guest, &connection)?.execute(command, arguments).await?;
        Ok(answers.into_iter().map(Into::into).collect())
    }
}
