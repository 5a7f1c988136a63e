//! The process that runs components. See `bireme-wasm` for who starts it and `bireme_wasm_host` for what it does.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use bireme_wasm::protocol::HostConfig;

/// An instance is made of some two hundred small allocations on the way in and out, from several threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            bireme_wasm_host::complain(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> anyhow::Result<()> {
    match arguments {
        ["serve", config] => {
            let config: HostConfig = serde_json::from_str(config).context("the configuration is not understood")?;
            bireme_wasm_host::serve(config)
        }
        ["spare"] => bireme_wasm_host::serve_when_told(),
        ["compile", output, memory] => {
            let memory = memory.parse().context("the memory limit is not a number")?;
            bireme_wasm_host::compile::run(&PathBuf::from(output), memory)
        }
        ["user-namespace"] => bireme_wasm_host::hold_user_namespace(),
        ["engine"] => bireme_wasm_host::compile::print_engine(),
        _ => anyhow::bail!(
            "usage: bireme-wasm-host serve CONFIG | spare | compile OUT MEMORY < IN | engine (biremed starts it; there is no need to)"
        ),
    }
}
