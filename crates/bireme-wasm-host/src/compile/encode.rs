//! Core modules that were made for a world of the component model, made into the components that they are meant to be.
//!
//! Tool chains of 2023 to 2025, Spin's templates among them, leave it to the host: the module has the world in a section of its
//! own, imports and exports by the names of the canonical ABI, and WASI preview 1, which an adapter turns into WASI 0.2.

use bireme_core::ErrorKind;
use bireme_wasm::interface::{WORLD, is_made_for_a_world};
use bireme_wasm::protocol::Refusal;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// The component of `module`; `None` where it was made for no world.
///
/// # Errors
/// `Invalid` where the module and its world do not fit.
pub(super) fn component(module: &[u8]) -> Result<Option<Vec<u8>>, Refusal> {
    let (mut has_world, mut exports) = (false, Vec::new());
    for payload in Parser::new(0).parse_all(module) {
        match payload {
            Ok(Payload::CustomSection(section)) => has_world |= section.name().starts_with(WORLD),
            Ok(Payload::ExportSection(section)) => {
                exports.extend(section.into_iter().map_while(Result::ok).map(|export| export.name));
            }
            Ok(_) => {}
            // Whoever compiles it tells what is wrong.
            Err(_) => return Ok(None),
        }
    }
    if !has_world || !is_made_for_a_world(&exports) {
        return Ok(None);
    }
    // A program that answers requests, too, is a library to those who call it.
    let is_program = exports.contains(&"_start") && !exports.iter().any(|name| name.contains('#'));
    let adapter =
        if is_program { WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER } else { WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER };
    let encoded = ComponentEncoder::default()
        .validate(false)
        .module(module)
        .and_then(|encoder| encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter))
        .and_then(|mut encoder| encoder.encode());
    encoded.map(Some).map_err(|error| {
        let text = format!("the module does not fit the world that it was made for: {}", error.root_cause());
        Refusal::new(ErrorKind::Invalid, text)
    })
}
