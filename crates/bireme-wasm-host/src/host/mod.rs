//! What components may call, beyond what the WASI crates bring along.

pub(crate) mod http;
pub(crate) mod sockets;
