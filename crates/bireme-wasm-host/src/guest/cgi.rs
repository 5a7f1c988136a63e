//! What a program is given of one request that it answers as a CGI program.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use crate::account::{Account, Charge};
use crate::body::Kept;

/// Bytes that a program may print at a time.
const CHUNK: usize = 64 << 10;

/// Arguments, environment, standard input, and what it prints.
pub(crate) struct Cgi {
    args: Vec<String>,
    env: Vec<(String, String)>,
    input: Bytes,
    output: Printed,
}

impl Cgi {
    /// `account` pays for what is printed; `charges` are for the input.
    pub(crate) fn new(
        args: Vec<String>,
        env: Vec<(String, String)>,
        input: Bytes,
        account: &Arc<Account>,
        charges: Vec<Charge>,
    ) -> Self {
        let output = Output { kept: Mutex::new(Kept::new(account)), _input: charges };
        Self { args, env, input, output: Printed(Arc::new(output)) }
    }

    pub(super) fn args(&self) -> &[String] {
        &self.args
    }

    pub(super) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    pub(super) fn input(&self) -> MemoryInputPipe {
        MemoryInputPipe::new(self.input.clone())
    }

    pub(crate) fn output(&self) -> Printed {
        self.output.clone()
    }
}

/// What a program has printed.
#[derive(Clone)]
pub(crate) struct Printed(Arc<Output>);

struct Output {
    kept: Mutex<Kept>,
    /// Of what the program reads.
    _input: Vec<Charge>,
}

impl Printed {
    /// All of it, once the program has ended.
    pub(crate) fn take(&self) -> (Bytes, Vec<Charge>) {
        let (bytes, charges) = self.0.kept.lock().take();
        (Bytes::from(bytes), charges)
    }
}

impl IsTerminal for Printed {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printed {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for Printed {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.kept.lock().add(&bytes).map_err(|why| StreamError::Trap(wasmtime::Error::msg(why)))
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Printed {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Printed {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.0.kept.lock().add(bytes).map(|()| bytes.len()).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
