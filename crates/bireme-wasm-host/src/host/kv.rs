//! Spin's key-value interface: `fermyon:spin/key-value@2.0.0` and `spin:key-value/key-value@3.0.0`.

use wasmtime::component::{Access, Accessor, FutureReader, HasSelf, Resource, StreamReader};

use super::bindings::concurrent::spin::key_value::key_value as v3;
use super::bindings::sync::fermyon::spin2_0_0::key_value as v2;
use super::store::{OpenError, Store};
use crate::account::Payer;
use crate::guest::Guest;

impl From<OpenError> for v2::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::AccessDenied => Self::AccessDenied,
            OpenError::Other(text) => Self::Other(text),
        }
    }
}

impl From<OpenError> for v3::Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::AccessDenied => Self::AccessDenied,
            OpenError::Other(text) => Self::Other(text),
        }
    }
}

/// The store behind a handle.
pub(super) fn find(guest: &mut Guest, store: &Resource<Store>) -> Result<Store, String> {
    guest.held(store)
}

impl v2::Host for Guest {}

impl v2::HostStore for Guest {
    async fn open(&mut self, label: String) -> Result<Resource<Store>, v2::Error> {
        let store = Store::open(&self.component, &label).await?;
        self.table.push(store).map_err(|_| v2::Error::StoreTableFull)
    }

    async fn get(&mut self, store: Resource<Store>, key: String) -> Result<Option<Vec<u8>>, v2::Error> {
        let payer = Payer::new(&self.account);
        find(self, &store).map_err(v2::Error::Other)?.get(key, payer).await.map_err(v2::Error::Other)
    }

    async fn set(&mut self, store: Resource<Store>, key: String, value: Vec<u8>) -> Result<(), v2::Error> {
        find(self, &store).map_err(v2::Error::Other)?.set(key, value).await.map_err(v2::Error::Other)
    }

    async fn delete(&mut self, store: Resource<Store>, key: String) -> Result<(), v2::Error> {
        find(self, &store).map_err(v2::Error::Other)?.delete(key).await.map_err(v2::Error::Other)
    }

    async fn exists(&mut self, store: Resource<Store>, key: String) -> Result<bool, v2::Error> {
        find(self, &store).map_err(v2::Error::Other)?.exists(key).await.map_err(v2::Error::Other)
    }

    async fn get_keys(&mut self, store: Resource<Store>) -> Result<Vec<String>, v2::Error> {
        let payer = Payer::new(&self.account);
        find(self, &store).map_err(v2::Error::Other)?.keys(payer).await.map_err(v2::Error::Other)
    }

    async fn drop(&mut self, store: Resource<Store>) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

impl v3::Host for Guest {}

impl v3::HostStore for Guest {
    fn drop(&mut self, store: Resource<Store>) -> wasmtime::Result<()> {
        self.table.delete(store)?;
        Ok(())
    }
}

/// The store behind a handle of a concurrent call, and who pays for what is read or written.
fn find3<T: Send>(guest: &Accessor<T, HasSelf<Guest>>, store: &Resource<Store>) -> Result<(Store, Payer), v3::Error> {
    guest.with(|mut access| {
        let guest = access.get();
        Ok((find(guest, store).map_err(v3::Error::Other)?, Payer::new(&guest.account)))
    })
}

impl<T: Send> v3::HostStoreWithStore<T> for HasSelf<Guest> {
    async fn open(guest: &Accessor<T, Self>, label: String) -> Result<Resource<Store>, v3::Error> {
        let component = guest.with(|mut access| std::sync::Arc::clone(&access.get().component));
        let store = Store::open(&component, &label).await?;
        guest.with(|mut access| access.get().table.push(store)).map_err(|_| v3::Error::StoreTableFull)
    }

    async fn get(guest: &Accessor<T, Self>, store: Resource<Store>, key: String) -> Result<Option<Vec<u8>>, v3::Error> {
        let (store, payer) = find3(guest, &store)?;
        // Any number of calls may be under way at once.
        let _charge = payer.pay(key.len()).map_err(v3::Error::Other)?;
        store.get(key, payer).await.map_err(v3::Error::Other)
    }

    async fn set(
        guest: &Accessor<T, Self>,
        store: Resource<Store>,
        key: String,
        value: Vec<u8>,
    ) -> Result<(), v3::Error> {
        let (store, payer) = find3(guest, &store)?;
        let _charge = payer.pay(key.len() + value.len()).map_err(v3::Error::Other)?;
        store.set(key, value).await.map_err(v3::Error::Other)
    }

    async fn delete(guest: &Accessor<T, Self>, store: Resource<Store>, key: String) -> Result<(), v3::Error> {
        let (store, payer) = find3(guest, &store)?;
        let _charge = payer.pay(key.len()).map_err(v3::Error::Other)?;
        store.delete(key).await.map_err(v3::Error::Other)
    }

    async fn exists(guest: &Accessor<T, Self>, store: Resource<Store>, key: String) -> Result<bool, v3::Error> {
        let (store, payer) = find3(guest, &store)?;
        let _charge = payer.pay(key.len()).map_err(v3::Error::Other)?;
        store.exists(key).await.map_err(v3::Error::Other)
    }

    async fn get_keys(
        guest: &Accessor<T, Self>,
        store: Resource<Store>,
    ) -> wasmtime::Result<(StreamReader<String>, FutureReader<Result<(), v3::Error>>)> {
        let found = match find3(guest, &store) {
            Ok((store, payer)) => store.keys(payer).await.map_err(v3::Error::Other),
            Err(error) => Err(error),
        };
        let (keys, end) = match found {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        };
        guest.with(|mut access: Access<'_, T, Self>| {
            // Neither can be made once the guest holds as many handles as it may.
            let stream = StreamReader::new(&mut access, keys)?;
            let end = FutureReader::new(&mut access, async move { wasmtime::error::Ok(end) })?;
            Ok((stream, end))
        })
    }
}
