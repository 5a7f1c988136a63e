//! Spin's PostgreSQL client: `fermyon:spin/postgres@2.0.0`, `spin:postgres/postgres@3.0.0` and `@4.x`.
//!
//! A guest has a session for itself. What it leaves behind, an open transaction above all, is gone before another has it.

#![expect(clippy::result_large_err, reason = "the error of the interface, with all that a server says of a failure")]

mod frames;
mod numeric;
mod session;
mod value;
mod versions;

use std::sync::Arc;

use tokio_rustls::rustls::ClientConfig;
use wasmtime::component::{Access, Accessor, FutureReader, HasSelf, Resource, StreamReader};

use super::bindings::concurrent::spin::postgres4_2_0::postgres as v4;
use super::rows::streams;
use super::server::LONGEST_ADDRESS;
use super::tls;
use crate::account::Payer;
use crate::component::{Component, Lent};
use crate::guest::Guest;

use session::{Answer, Session};
use v4::{Column, Error, ParameterValue};

/// A connection as a guest has it: one statement at a time.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Connection(Arc<tokio::sync::Mutex<Lent<Session>>>);

/// A connection that is not made yet.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Builder {
    /// Cut, where it is longer than an address may be, and still longer than that.
    address: String,
    roots: Option<Roots>,
}

/// Whom to trust instead of those that the workload trusts.
#[derive(Clone)]
struct Roots {
    /// Certificates in PEM form.
    pem: Arc<str>,
    config: Arc<ClientConfig>,
}

/// Most bytes of certificates that a guest names: a handle keeps them.
const LONGEST_PEM: usize = 12 << 10;

impl Connection {
    async fn open(component: &Arc<Component>, address: &str, roots: Option<&Roots>) -> Result<Self, Error> {
        // Sessions with other authorities are other sessions.
        let key = roots.map_or_else(|| address.to_owned(), |roots| format!("{address}\n{}", roots.pem));
        let config = roots.map_or(&component.tls, |roots| &roots.config);
        let connect = Session::connect(component, address, config, roots.is_some());
        let lent = component.sessions.of().lend(&key, connect).await?;
        Ok(Self(Arc::new(tokio::sync::Mutex::new(lent))))
    }

    async fn query(&self, statement: &str, parameters: &[ParameterValue], payer: &Payer) -> Result<Answer, Error> {
        let mut lent = self.0.lock().await;
        lent.session().ok_or_else(closed)?.query(statement, parameters, payer).await
    }

    async fn execute(&self, statement: &str, parameters: &[ParameterValue]) -> Result<u64, Error> {
        let mut lent = self.0.lock().await;
        lent.session().ok_or_else(closed)?.execute(statement, parameters).await
    }
}

fn closed() -> Error {
    Error::Other("the connection is closed".to_owned())
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Self::ConnectionFailed(text)
    }
}

impl From<wasmtime::component::ResourceTableError> for Error {
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        Self::Other(error.to_string())
    }
}

impl Guest {
    async fn open_postgres(&mut self, address: &str, roots: Option<&Roots>) -> Result<Resource<Connection>, Error> {
        let connection = Connection::open(&self.component, address, roots).await?;
        Ok(self.table.push(connection)?)
    }

    async fn query_postgres(
        &mut self,
        connection: &Resource<Connection>,
        statement: &str,
        parameters: &[ParameterValue],
    ) -> Result<Answer, Error> {
        let connection = self.table.get(connection)?.clone();
        connection.query(statement, parameters, &Payer::new(&self.account)).await
    }

    async fn execute_postgres(
        &mut self,
        connection: &Resource<Connection>,
        statement: &str,
        parameters: &[ParameterValue],
    ) -> Result<u64, Error> {
        let connection = self.table.get(connection)?.clone();
        connection.execute(statement, parameters).await
    }

    fn drop_postgres(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.table.delete(connection)?;
        Ok(())
    }
}

impl v4::Host for Guest {}

impl v4::HostConnection for Guest {
    async fn open(&mut self, address: String) -> Result<Resource<Connection>, Error> {
        self.open_postgres(&address, None).await
    }

    async fn query(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<v4::RowSet, Error> {
        let Answer { columns, rows, .. } = self.query_postgres(&connection, &statement, &parameters).await?;
        Ok(v4::RowSet { columns, rows })
    }

    async fn execute(
        &mut self,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<u64, Error> {
        self.execute_postgres(&connection, &statement, &parameters).await
    }

    fn drop(&mut self, connection: Resource<Connection>) -> wasmtime::Result<()> {
        self.drop_postgres(connection)
    }
}

impl v4::HostConnectionBuilder for Guest {
    fn new(&mut self, address: String) -> wasmtime::Result<Resource<Builder>> {
        let mut address = address;
        address.truncate(address.floor_char_boundary(LONGEST_ADDRESS + 4));
        Ok(self.table.push(Builder { address, roots: None })?)
    }

    fn set_ca_root(&mut self, builder: Resource<Builder>, certificate: String) -> Result<(), Error> {
        if certificate.len() > LONGEST_PEM {
            return Err(Error::Other(format!("the certificates have more than {} KiB", LONGEST_PEM >> 10)));
        }
        let config = tls::trusting(certificate.as_bytes()).map_err(Error::Other)?;
        self.table.get_mut(&builder)?.roots = Some(Roots { pem: certificate.into(), config });
        Ok(())
    }

    async fn build(&mut self, builder: Resource<Builder>) -> Result<Resource<Connection>, Error> {
        let Builder { address, roots } = self.table.get(&builder)?.clone();
        self.open_postgres(&address, roots.as_ref()).await
    }

    fn drop(&mut self, builder: Resource<Builder>) -> wasmtime::Result<()> {
        self.table.delete(builder)?;
        Ok(())
    }
}

async fn open_beside<T: Send>(
    guest: &Accessor<T, HasSelf<Guest>>,
    address: &str,
    roots: Option<&Roots>,
) -> Result<Resource<Connection>, Error> {
    let component = guest.with(|mut access| Arc::clone(&access.get().component));
    let connection = Connection::open(&component, address, roots).await?;
    Ok(guest.with(|mut access| access.get().table.push(connection))?)
}

impl<T: Send> v4::HostConnectionBuilderWithStore<T> for HasSelf<Guest> {
    async fn build_async(guest: &Accessor<T, Self>, builder: Resource<Builder>) -> Result<Resource<Connection>, Error> {
        let Builder { address, roots } = guest.with(|mut access| access.get().table.get(&builder).cloned())?;
        open_beside(guest, &address, roots.as_ref()).await
    }
}

/// Columns, rows, and whether these are all.
type Streams = (Vec<Column>, StreamReader<Vec<v4::DbValue>>, FutureReader<Result<(), Error>>);

impl<T: Send> v4::HostConnectionWithStore<T> for HasSelf<Guest> {
    async fn open_async(guest: &Accessor<T, Self>, address: String) -> Result<Resource<Connection>, Error> {
        open_beside(guest, &address, None).await
    }

    async fn query_async(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> wasmtime::Result<Result<Streams, Error>> {
        let (found, payer) = guest.with(|mut access| {
            let guest = access.get();
            (guest.table.get(&connection).cloned(), Payer::new(&guest.account))
        });
        let answer = match found {
            Ok(connection) => connection.query(&statement, &parameters, &payer).await,
            Err(error) => Err(error.into()),
        };
        let Answer { columns, rows, charges } = match answer {
            Ok(answer) => answer,
            Err(error) => return Ok(Err(error)),
        };
        guest.with(|mut access: Access<'_, T, Self>| {
            let (rows, end) = streams(&mut access, rows, charges)?;
            Ok(Ok((columns, rows, end)))
        })
    }

    async fn execute_async(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        statement: String,
        parameters: Vec<ParameterValue>,
    ) -> Result<u64, Error> {
        let connection = guest.with(|mut access| access.get().table.get(&connection).cloned())?;
        connection.execute(&statement, &parameters).await
    }
}
