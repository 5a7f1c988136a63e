//! Spin's MQTT client: `fermyon:spin/mqtt@2.0.0` and `spin:mqtt/mqtt@3.0.0`.

mod session;

use std::sync::Arc;

use rumqttc::mqttbytes::QoS;
use wasmtime::component::{Accessor, HasSelf, Resource};

use super::bindings::concurrent::spin::mqtt::mqtt as v3;
use super::bindings::sync::fermyon::spin2_0_0::mqtt as v2;
use crate::component::{Component, Lent, Session as _};
use crate::guest::Guest;

use session::{Account, Failure, Session};

/// A connection as a guest has it: one message at a time.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "generated code re-exports it")]
pub struct Connection {
    component: Arc<Component>,
    account: Arc<Account>,
    lent: Arc<tokio::sync::Mutex<Lent<Session>>>,
}

impl Connection {
    async fn open(
        component: &Arc<Component>,
        address: &str,
        user: String,
        password: String,
        keep_alive: u64,
    ) -> Result<Self, Failure> {
        let account = Arc::new(Account::parse(address, user, password, keep_alive)?);
        let lent = lend(component, &account).await?;
        Ok(Self { component: Arc::clone(component), account, lent: Arc::new(tokio::sync::Mutex::new(lent)) })
    }

    async fn publish(&self, topic: &str, payload: Vec<u8>, qos: QoS) -> Result<(), Failure> {
        let mut lent = self.lent.lock().await;
        // Brokers leave whoever said nothing for a while.
        if !lent.session().is_some_and(|session| session.is_at_rest()) {
            lent.close();
            *lent = lend(&self.component, &self.account).await?;
        }
        let session = lent.session().ok_or_else(|| Failure::Other("the connection is closed".to_owned()))?;
        session.publish(topic, payload, qos).await
    }
}

async fn lend(component: &Arc<Component>, account: &Account) -> Result<Lent<Session>, Failure> {
    component.sessions.of().lend(&account.key(), Session::connect(component, account)).await
}

/// Conversions to the types of one version.
macro_rules! version {
    ($v:ident) => {
        impl From<Failure> for $v::Error {
            fn from(failure: Failure) -> Self {
                match failure {
                    Failure::Address => Self::InvalidAddress,
                    Failure::Connection(text) => Self::ConnectionFailed(text),
                    Failure::Other(text) => Self::Other(text),
                }
            }
        }

        impl From<$v::Qos> for QoS {
            fn from(qos: $v::Qos) -> Self {
                match qos {
                    $v::Qos::AtMostOnce => Self::AtMostOnce,
                    $v::Qos::AtLeastOnce => Self::AtLeastOnce,
                    $v::Qos::ExactlyOnce => Self::ExactlyOnce,
                }
            }
        }

        impl $v::Host for Guest {}
    };
}
version!(v2);
version!(v3);

fn find(guest: &mut Guest, connection: &Resource<Connection>) -> Result<Connection, Failure> {
    guest.held(connection).map_err(Failure::Other)
}

impl v2::HostConnection for Guest {
    async fn open(
        &mut self,
        address: String,
        user: String,
        password: String,
        keep_alive: u64,
    ) -> Result<Resource<Connection>, v2::Error> {
        let connection = Connection::open(&self.component, &address, user, password, keep_alive).await?;
        self.table.push(connection).map_err(|_| v2::Error::TooManyConnections)
    }

    async fn publish(
        &mut self,
        connection: Resource<Connection>,
        topic: String,
        payload: Vec<u8>,
        qos: v2::Qos,
    ) -> Result<(), v2::Error> {
        Ok(find(self, &connection)?.publish(&topic, payload, qos.into()).await?)
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

impl<T: Send> v3::HostConnectionWithStore<T> for HasSelf<Guest> {
    async fn open(
        guest: &Accessor<T, Self>,
        address: String,
        user: String,
        password: String,
        keep_alive: u64,
    ) -> Result<Resource<Connection>, v3::Error> {
        let component = guest.with(|mut access| Arc::clone(&access.get().component));
        let connection = Connection::open(&component, &address, user, password, keep_alive).await?;
        guest.with(|mut access| access.get().table.push(connection)).map_err(|_| v3::Error::TooManyConnections)
    }

    async fn publish(
        guest: &Accessor<T, Self>,
        connection: Resource<Connection>,
        topic: String,
        payload: Vec<u8>,
        qos: v3::Qos,
    ) -> Result<(), v3::Error> {
        let found = guest.with(|mut access| find(access.get(), &connection));
        Ok(found?.publish(&topic, payload, qos.into()).await?)
    }
}
