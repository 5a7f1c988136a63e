//! `wasi:keyvalue`, in the two drafts that SDKs speak: `0.2.0-draft2` and wasmtime's `0.2.0-draft`.

use wasmtime::component::Resource;

use super::bindings::{draft, sync};
use super::cas::Cas;
use super::kv::find;
use super::store::{OpenError, Store};
use crate::account::Payer;
use crate::guest::Guest;

use draft::wasi::keyvalue0_2_0_draft as d1;
use sync::wasi::keyvalue0_2_0_draft2 as d2;

/// The parts that differ in nothing but the names of generated types.
macro_rules! store_of {
    ($version:ident, $cursor:ty) => {
        impl From<OpenError> for $version::store::Error {
            fn from(error: OpenError) -> Self {
                match error {
                    OpenError::AccessDenied => Self::AccessDenied,
                    OpenError::Other(text) => Self::Other(text),
                }
            }
        }

        impl From<String> for $version::store::Error {
            fn from(text: String) -> Self {
                Self::Other(text)
            }
        }

        impl $version::store::Host for Guest {
            async fn open(&mut self, name: String) -> Result<Resource<Store>, $version::store::Error> {
                // An empty name is the default store.
                let name = if name.is_empty() { "default" } else { &name };
                let store = Store::open(&self.component, name).await?;
                self.table.push(store).map_err(|error| error.to_string().into())
            }
        }

        impl $version::store::HostBucket for Guest {
            async fn get(
                &mut self,
                bucket: Resource<Store>,
                key: String,
            ) -> Result<Option<Vec<u8>>, $version::store::Error> {
                let payer = Payer::new(&self.account);
                Ok(find(self, &bucket)?.get(key, payer).await?)
            }

            async fn set(
                &mut self,
                bucket: Resource<Store>,
                key: String,
                value: Vec<u8>,
            ) -> Result<(), $version::store::Error> {
                Ok(find(self, &bucket)?.set(key, value).await?)
            }

            async fn delete(&mut self, bucket: Resource<Store>, key: String) -> Result<(), $version::store::Error> {
                Ok(find(self, &bucket)?.delete(key).await?)
            }

            async fn exists(&mut self, bucket: Resource<Store>, key: String) -> Result<bool, $version::store::Error> {
                Ok(find(self, &bucket)?.exists(key).await?)
            }

            async fn list_keys(
                &mut self,
                bucket: Resource<Store>,
                cursor: Option<$cursor>,
            ) -> Result<$version::store::KeyResponse, $version::store::Error> {
                if cursor.is_some() {
                    return Err("this store answers with all keys at once and gives no cursor".to_owned().into());
                }
                let payer = Payer::new(&self.account);
                Ok($version::store::KeyResponse { keys: find(self, &bucket)?.keys(payer).await?, cursor: None })
            }

            async fn drop(&mut self, bucket: Resource<Store>) -> wasmtime::Result<()> {
                self.table.delete(bucket)?;
                Ok(())
            }
        }
    };
}
store_of!(d1, u64);
store_of!(d2, String);

impl d1::batch::Host for Guest {
    async fn get_many(
        &mut self,
        bucket: Resource<Store>,
        keys: Vec<String>,
    ) -> Result<Vec<Option<(String, Vec<u8>)>>, d1::store::Error> {
        let payer = Payer::new(&self.account);
        let found = find(self, &bucket)?.get_many(keys, payer).await?;
        Ok(found.into_iter().map(|(key, value)| value.map(|value| (key, value))).collect())
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Store>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<(), d1::store::Error> {
        Ok(find(self, &bucket)?.set_many(pairs).await?)
    }

    async fn delete_many(&mut self, bucket: Resource<Store>, keys: Vec<String>) -> Result<(), d1::store::Error> {
        Ok(find(self, &bucket)?.delete_many(keys).await?)
    }
}

impl d2::batch::Host for Guest {
    async fn get_many(
        &mut self,
        bucket: Resource<Store>,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>, d2::store::Error> {
        let payer = Payer::new(&self.account);
        Ok(find(self, &bucket)?.get_many(keys, payer).await?)
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Store>,
        pairs: Vec<(String, Vec<u8>)>,
    ) -> Result<(), d2::store::Error> {
        Ok(find(self, &bucket)?.set_many(pairs).await?)
    }

    async fn delete_many(&mut self, bucket: Resource<Store>, keys: Vec<String>) -> Result<(), d2::store::Error> {
        Ok(find(self, &bucket)?.delete_many(keys).await?)
    }
}

impl d1::atomics::Host for Guest {
    async fn increment(&mut self, bucket: Resource<Store>, key: String, delta: u64) -> Result<u64, d1::store::Error> {
        let delta = i64::try_from(delta).map_err(|_| "the step is too large".to_owned())?;
        let now = find(self, &bucket)?.increment(key, delta).await?;
        Ok(u64::try_from(now).map_err(|_| "the value is below zero".to_owned())?)
    }
}

impl d2::atomics::Host for Guest {
    async fn increment(&mut self, bucket: Resource<Store>, key: String, delta: i64) -> Result<i64, d2::store::Error> {
        Ok(find(self, &bucket)?.increment(key, delta).await?)
    }

    async fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> Result<(), d2::atomics::CasError> {
        let failed = |text: String| d2::atomics::CasError::StoreError(text.into());
        let Cas { store, key, seen, .. } = self.table.delete(cas).map_err(|error| failed(error.to_string()))?;
        if store.compare_and_swap(key.clone(), seen, value).await.map_err(failed)? {
            return Ok(());
        }
        let seen = store.get(key.clone(), Payer::new(&self.account)).await.map_err(failed)?;
        let again = Cas::new(&self.account, store, key, seen).map_err(failed)?;
        let again = self.table.push(again).map_err(|error| failed(error.to_string()))?;
        Err(d2::atomics::CasError::CasFailed(again))
    }
}

impl d2::atomics::HostCas for Guest {
    async fn new(&mut self, bucket: Resource<Store>, key: String) -> Result<Resource<Cas>, d2::store::Error> {
        let store = find(self, &bucket)?;
        let seen = store.get(key.clone(), Payer::new(&self.account)).await?;
        let cas = Cas::new(&self.account, store, key, seen)?;
        self.table.push(cas).map_err(|error| error.to_string().into())
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Result<Option<Vec<u8>>, d2::store::Error> {
        let cas = self.table.get(&cas).map_err(|error| error.to_string())?;
        Ok(cas.seen.clone())
    }

    async fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}
