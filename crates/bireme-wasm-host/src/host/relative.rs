//! Requests of WASI 0.2 that name no server: they are for the app itself, as in Spin.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::WasiHttpView as _;
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Host as _, RequestOptions, Scheme};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};

use super::http::ITSELF;
use crate::guest::Guest;

/// In the version that the WASI crate links, which stands for all of 0.2.
const INTERFACE: &str = "wasi:http/outgoing-handler@0.2.12";

type Asked = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
type Answered = (Result<Resource<HostFutureIncomingResponse>, ErrorCode>,);

/// Has the function of the WASI crate called with a server in each request.
pub(crate) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(INTERFACE)?.func_wrap(
        "handle",
        |mut store: StoreContextMut<'_, Guest>, (request, options): Asked| -> wasmtime::Result<Answered> {
            let mut http = store.data_mut().http();
            let asked = http.table.get_mut(&request)?;
            if asked.authority.as_deref().is_none_or(str::is_empty) {
                asked.authority = Some(ITSELF.to_owned());
                asked.scheme.get_or_insert(Scheme::Http);
            }
            match http.handle(request, options) {
                Ok(answer) => Ok((Ok(answer),)),
                Err(error) => Ok((Err(http.convert_error_code(error)?),)),
            }
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
