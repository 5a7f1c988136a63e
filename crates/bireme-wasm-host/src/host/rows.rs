//! Rows as a stream to a guest: paid for until it has them.

use std::pin::Pin;
use std::task::{Context, Poll};

use wasmtime::component::{
    Destination, FutureReader, Lift, Lower, StreamProducer, StreamReader, StreamResult, VecBuffer,
};
use wasmtime::{AsContextMut, StoreContextMut};

use crate::account::Charge;

/// Rows, and what is paid for them. Given to a stream, which drops them when the guest has read all, or reads no more.
struct Paid<T> {
    rows: Vec<T>,
    charges: Vec<Option<Charge>>,
}

/// A stream of rows, and whether these were all.
pub(super) type Streams<T, E> = (StreamReader<T>, FutureReader<Result<(), E>>);

/// # Errors
/// Where the guest holds as many handles as it may.
pub(super) fn streams<S, T, E>(
    mut store: S,
    rows: Vec<T>,
    charges: Vec<Option<Charge>>,
) -> wasmtime::Result<Streams<T, E>>
where
    S: AsContextMut,
    T: Lower + Lift + Unpin + Send + Sync + 'static,
    E: Lower + Lift + Send + Sync + 'static,
{
    let rows = StreamReader::new(&mut store, Paid { rows, charges })?;
    Ok((rows, FutureReader::new(&mut store, async { wasmtime::error::Ok(Ok(())) })?))
}

impl<T: Unpin + Send + Sync + 'static, D> StreamProducer<D> for Paid<T> {
    type Item = T;
    type Buffer = VecBuffer<T>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: StoreContextMut<'a, D>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        _: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let paid = self.get_mut();
        if paid.rows.is_empty() {
            paid.charges.clear();
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        // Asked again when the guest has taken all of them.
        destination.set_buffer(std::mem::take(&mut paid.rows).into());
        Poll::Ready(Ok(StreamResult::Completed))
    }
}
