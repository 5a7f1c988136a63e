//! Blocking work that ends when nobody waits for it any more.
//!
//! A future can be dropped, a thread cannot. So long work looks, at every piece that it reads or writes, whether the future
//! that waits for it is still there; where it is not, reading and writing fail, and the work ends as with any other failure
//! and clears away what it made.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::blocking::blocking;
use crate::error::ImageError;

/// Whether somebody waits for a piece of work. Clones are one.
#[derive(Clone, Default)]
pub struct Wanted(Arc<AtomicBool>);

/// Tells the work that nobody waits any more, when it is dropped.
pub struct Waiting(Wanted);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl Wanted {
    /// For work that goes on until it is done, or what is answered beside it is dropped.
    pub fn until_dropped() -> (Self, Waiting) {
        let wanted = Self::default();
        (wanted.clone(), Waiting(wanted))
    }

    /// Nobody waits any more.
    pub(crate) fn give_up(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// When nobody waits any more.
    pub fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::Relaxed) { Err(io::Error::other("nobody waits for it any more")) } else { Ok(()) }
    }

    /// `inner` for as long as somebody waits.
    pub(crate) fn lend<T>(&self, inner: T) -> Lent<T> {
        Lent { inner, wanted: self.clone() }
    }
}

/// A reader or writer that fails when nobody waits for the work any more.
pub(crate) struct Lent<T> {
    inner: T,
    wanted: Wanted,
}

impl<T: Read> Read for Lent<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wanted.check()?;
        self.inner.read(buffer)
    }
}

impl<T: Write> Write for Lent<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wanted.check()?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// As [`blocking`], for work that takes long.
///
/// # Cancel safety
/// Dropping the future has the work end at the next piece that it reads or writes through what it was lent.
pub(crate) async fn while_wanted<T: Send + 'static>(
    attempt: &'static str,
    act: impl FnOnce(&Wanted) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let (wanted, _waiting) = Wanted::until_dropped();
    blocking(attempt, move || act(&wanted)).await
}
