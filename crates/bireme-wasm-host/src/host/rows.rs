//! Rows as a stream to a guest: paid for until it has them.

use std::pin::Pin;
use std::task::{Context, Poll};

use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, StreamProducer, StreamResult, VecBuffer};

use crate::account::Charge;

/// Rows, and what is paid for them. Given to a stream, which drops them when the guest has read all, or reads no more.
pub(super) struct Paid<T> {
    pub rows: Vec<T>,
    pub charges: Vec<Option<Charge>>,
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
