//! `bireme`: the command line of the engine. See [`bireme`] for how it is put together.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return bireme::error::report(&anyhow::Error::new(error), None),
    };
    let code = runtime.block_on(Box::pin(bireme::main()));
    // A thread may still sit in a blocking read of standard input; nothing is left to wait for.
    runtime.shutdown_background();
    code
}
