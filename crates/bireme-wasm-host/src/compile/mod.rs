//! `bireme-wasm-host compile OUT`: validates and compiles the component on standard input, and tells what it is.
//!
//! Runs as a process of its own without privileges: both files are open before anything of the input is looked at.

mod encode;

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use bireme_core::ErrorKind;
use bireme_wasm::interface::{module_trigger, refuse_imports, trigger};
use bireme_wasm::protocol::{CompileAnswer, Facts, Refusal};
use bireme_wasm::takes_too_much;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::engine::{self, Engines, Size};
use crate::host::spin1;
use crate::linker;
use crate::program::Program;

/// Largest component that is compiled, in bytes.
const MAX_INPUT: u64 = 512 << 20;

/// Compiles standard input into `output` with at most `memory` bytes and prints a [`CompileAnswer`]. A process that needs more
/// mostly aborts, which whoever started it takes for that answer.
///
/// # Errors
/// When the answer cannot be given at all; a component that is refused is an answer.
pub fn run(output: &Path, memory: u64) -> anyhow::Result<()> {
    let mut target = std::fs::File::create(output).with_context(|| format!("cannot make {}", output.display()))?;
    // An absolute path, as the engine gives it.
    let folder = output.parent().filter(|folder| folder.is_absolute()).unwrap_or(Path::new("/"));
    crate::confine::compiler(memory, folder)?;
    let mut bytes = Vec::new();
    let source = std::io::stdin().lock();
    source.take(MAX_INPUT + 1).read_to_end(&mut bytes).context("cannot read the component")?;
    let answer = if bytes.len() as u64 > MAX_INPUT {
        let text = format!("the component is larger than {} MiB", MAX_INPUT >> 20);
        CompileAnswer::Refused(Refusal::new(ErrorKind::Invalid, text))
    } else {
        let engines = engines()?;
        match compile(&engines, &bytes, memory) {
            Ok((facts, code)) => {
                target.write_all(&code).with_context(|| format!("cannot write {}", output.display()))?;
                CompileAnswer::Ready(facts)
            }
            Err(refusal) => CompileAnswer::Refused(refusal),
        }
    };
    let answer = bounded(answer);
    let mut stdout = std::io::stdout().lock();
    serde_json::to_writer(&mut stdout, &answer)?;
    stdout.flush()?;
    Ok(())
}

/// Bytes of all names of imports and exports: some thousand times what a component has.
const MOST_NAMES: usize = 256 << 10;
/// Bytes of a refusal, which may list what a stranger named.
const LONGEST_REFUSAL: usize = 4 << 10;

/// The daemon keeps what it is told of a component: names of a hundred megabytes are no component's.
fn bounded(answer: CompileAnswer) -> CompileAnswer {
    match answer {
        CompileAnswer::Ready(facts) => {
            let names: usize = facts.imports.iter().chain(&facts.exports).map(|name| name.len() + 8).sum();
            if names <= MOST_NAMES {
                return CompileAnswer::Ready(facts);
            }
            let text = format!(
                "the names of the component's imports and exports take {names} bytes: at most {MOST_NAMES} are taken"
            );
            CompileAnswer::Refused(Refusal::new(ErrorKind::Invalid, text))
        }
        CompileAnswer::Refused(mut refusal) => {
            if refusal.message.len() > LONGEST_REFUSAL {
                let end = (0..=LONGEST_REFUSAL).rev().find(|at| refusal.message.is_char_boundary(*at));
                refusal.message.truncate(end.unwrap_or(0));
                refusal.message.push('…');
            }
            CompileAnswer::Refused(refusal)
        }
    }
}

/// Prints what tells this build's compiled code apart from others'.
///
/// # Errors
/// When the engine cannot be set up on this machine.
pub fn print_engine() -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{}", engine::compatibility(&engines()?))?;
    Ok(())
}

fn engines() -> anyhow::Result<Engines> {
    Engines::new(Size::Compiling).map_err(anyhow::Error::from).context("cannot set up the engines")
}

fn compile(engines: &Engines, bytes: &[u8], memory: u64) -> Result<(Facts, Vec<u8>), Refusal> {
    let invalid = |error: wasmtime::Error| {
        if root(&error).contains("(os error 12)") {
            return takes_too_much(memory);
        }
        Refusal::new(ErrorKind::Invalid, format!("this is not a valid WebAssembly component: {}", root(&error)))
    };
    let failed = |error: wasmtime::Error| {
        Refusal::new(ErrorKind::Internal, format!("the compiled code cannot be stored: {error:#}"))
    };
    // Bytes 4 to 7 of a binary are its version and layer; layer 0 is a core module.
    if bytes.get(..8) == Some(b"\0asm\x01\0\0\0") {
        if let Some(component) = encode::component(bytes)? {
            return compile(engines, &component, memory);
        }
        let module = Module::new(&engines.sequential, bytes).map_err(invalid)?;
        let facts = module_facts(&engines.sequential, &module)?;
        return Ok((facts, module.serialize().map_err(failed)?));
    }
    // One with asynchronous functions is not valid there, which is found before anything of it is compiled.
    if let Ok(component) = Component::new(&engines.sequential, bytes)
        && let Ok(facts) = component_facts(&engines.sequential, false, &component)
    {
        return Ok((facts, component.serialize().map_err(failed)?));
    }
    let component = Component::new(&engines.concurrent, bytes).map_err(invalid)?;
    let facts = component_facts(&engines.concurrent, true, &component)?;
    Ok((facts, component.serialize().map_err(failed)?))
}

/// The innermost cause, in one line.
pub(crate) fn root(error: &wasmtime::Error) -> String {
    let text = error.root_cause().to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

fn module_facts(engine: &Engine, module: &Module) -> Result<Facts, Refusal> {
    let imports: Vec<String> =
        module.imports().map(|import| format!("{}.{}", import.module(), import.name())).collect();
    let exports: Vec<String> = module.exports().map(|export| export.name().to_owned()).collect();
    let link = linker::new_p1(engine).map_err(|error| Refusal::new(ErrorKind::Internal, format!("{error:#}")))?;
    if let Some(refusal) = refuse_imports(&imports, true) {
        return Err(refusal);
    }
    link.instantiate_pre(module).map_err(|error| {
        Refusal::new(
            ErrorKind::Invalid,
            format!("an import of the module has another type than WASI gives it: {error:#}"),
        )
    })?;
    let trigger = module_trigger(&exports)?;
    if let Some(lacks) = spin1::lacks(module, trigger) {
        let text = format!(
            "the module exports no {lacks}, as Spin before version 2 has it: build it with an SDK of then, or as a component"
        );
        return Err(Refusal::new(ErrorKind::Invalid, text));
    }
    Ok(Facts { trigger, concurrent: false, imports, exports })
}

fn component_facts(engine: &Engine, concurrent: bool, component: &Component) -> Result<Facts, Refusal> {
    let ty = component.component_type();
    let imports: Vec<String> = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    if let Some(refusal) = refuse_imports(&imports, false) {
        return Err(refusal);
    }
    let trigger = trigger(&exports)?;
    let pre = linker::new(engine, concurrent).and_then(|linker| linker::link(&linker, component)).map_err(|error| {
        let text = format!("an import of the component has another type than this engine offers: {error:#}");
        Refusal::new(ErrorKind::Unsupported, text)
    })?;
    Program::new(trigger, concurrent, pre).map_err(|error| {
        Refusal::new(ErrorKind::Invalid, format!("the component's {} export is malformed: {error:#}", trigger.name()))
    })?;
    Ok(Facts { trigger, concurrent, imports, exports })
}
