//! `bireme-wasm-host compile OUT`: validates and compiles the component on standard input, and tells what it is.
//!
//! Runs as a process of its own without privileges: both files are open before anything of the input is looked at.

use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use bireme_core::ErrorKind;
use bireme_wasm::protocol::{CompileAnswer, Facts, Refusal, Trigger};
use bireme_wasm::takes_too_much;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::engine::{self, Size};
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
        let engine = engine::new(Size::Compiling).map_err(anyhow::Error::from).context("cannot set up the engine")?;
        match compile(&engine, &bytes, memory) {
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
    let engine = engine::new(Size::Compiling).map_err(anyhow::Error::from).context("cannot set up the engine")?;
    writeln!(std::io::stdout(), "{}", engine::compatibility(&engine))?;
    Ok(())
}

fn compile(engine: &Engine, bytes: &[u8], memory: u64) -> Result<(Facts, Vec<u8>), Refusal> {
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
        let module = Module::new(engine, bytes).map_err(invalid)?;
        let facts = module_facts(engine, &module)?;
        return Ok((facts, module.serialize().map_err(failed)?));
    }
    let component = Component::new(engine, bytes).map_err(invalid)?;
    let facts = component_facts(engine, &component)?;
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
    let missing: Vec<String> = imports.iter().filter(|import| !offered_p1(import)).cloned().collect();
    if !missing.is_empty() {
        return Err(missing_imports(&missing));
    }
    link.instantiate_pre(module).map_err(|error| {
        Refusal::new(
            ErrorKind::Invalid,
            format!("an import of the module has another type than WASI gives it: {error:#}"),
        )
    })?;
    if !exports.iter().any(|name| name == "_start") {
        let text = "the module exports no _start, so there is nothing to run; build it as a command or as a component";
        return Err(Refusal::new(ErrorKind::Invalid, text));
    }
    Ok(Facts { trigger: Trigger::CommandP1, imports, exports })
}

fn missing_imports(missing: &[String]) -> Refusal {
    let text = format!(
        "the component imports what this engine does not offer: {}; build it without, or for an interface that is \
         offered",
        missing.join(", ")
    );
    Refusal::new(ErrorKind::Unsupported, text)
}

fn component_facts(engine: &Engine, component: &Component) -> Result<Facts, Refusal> {
    let ty = component.component_type();
    let imports: Vec<String> = ty.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let missing: Vec<String> =
        imports.iter().filter(|import| !linker::offers(import)).map(|import| linker::hint(import)).collect();
    if !missing.is_empty() {
        return Err(missing_imports(&missing));
    }
    let trigger = trigger(&exports)?;
    let pre = linker::new(engine).and_then(|linker| linker.instantiate_pre(component)).map_err(|error| {
        let text = format!("an import of the component has another type than this engine offers: {error:#}");
        Refusal::new(ErrorKind::Unsupported, text)
    })?;
    Program::new(trigger, pre).map_err(|error| {
        Refusal::new(ErrorKind::Invalid, format!("the component's {} export is malformed: {error:#}", trigger.name()))
    })?;
    Ok(Facts { trigger, imports, exports })
}

/// What starts instances, from the exports.
fn trigger(exports: &[String]) -> Result<Trigger, Refusal> {
    const KNOWN: &[(&str, &str, Trigger)] = &[
        ("wasi:http/incoming-handler", "0.2.", Trigger::HttpP2),
        ("wasi:http/handler", "0.3.0", Trigger::HttpP3),
        ("fermyon:spin/inbound-redis", "", Trigger::RedisP2),
        ("spin:redis/inbound-redis", "3.", Trigger::RedisP3),
        ("wasi:cli/run", "0.2.", Trigger::CommandP2),
        ("wasi:cli/run", "0.3.0", Trigger::CommandP3),
    ];
    let found: Vec<(&String, Trigger)> = exports
        .iter()
        .filter_map(|export| {
            let (name, version) = export.split_once('@').unwrap_or((export, ""));
            let known = KNOWN
                .iter()
                .find(|(known, want, _)| *known == name && version.starts_with(want) && !version.contains('-'));
            known.map(|(_, _, trigger)| (export, *trigger))
        })
        .collect();
    let Some(newest) = found.iter().map(|(_, trigger)| *trigger).max_by_key(|trigger| trigger.generation()) else {
        let has = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
        let text = format!(
            "the component exports none of wasi:http/incoming-handler@0.2, wasi:http/handler@0.3.0, wasi:cli/run and \
             Spin's inbound-redis, so nothing would ever start it (it exports {has})"
        );
        return Err(Refusal::new(ErrorKind::Unsupported, text));
    };
    // The same trigger in several versions is one: tool chains export the old for hosts that know no better.
    if found.iter().all(|(_, trigger)| trigger.name() == newest.name()) {
        return Ok(newest);
    }
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let text = format!("the component exports {}: one trigger each is offered; split it", names.join(" and "));
    Err(Refusal::new(ErrorKind::Unsupported, text))
}

fn offered_p1(import: &str) -> bool {
    import.strip_prefix("wasi_snapshot_preview1.").is_some_and(|name| P1.contains(&name))
}

/// The functions of WASI preview 1.
const P1: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_trigger_in_several_versions_the_newest_is_taken() {
        let check = |exports: &[&str], expected: Option<Trigger>| {
            let exports: Vec<String> = exports.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(trigger(&exports).ok(), expected, "{exports:?}");
        };
        check(&["wasi:cli/run@0.2.6", "wasi:cli/run@0.3.0"], Some(Trigger::CommandP3));
        check(&["wasi:cli/run@0.3.0", "wasi:cli/run@0.2.0"], Some(Trigger::CommandP3));
        check(&["wasi:cli/run@0.2.0", "wasi:cli/run@0.2.6"], Some(Trigger::CommandP2));
        check(&["wasi:http/handler@0.3.0", "wasi:http/incoming-handler@0.2.6"], Some(Trigger::HttpP3));
        check(&["fermyon:spin/inbound-redis", "spin:redis/inbound-redis@3.0.0"], Some(Trigger::RedisP3));
        // A draft of 0.3 is none: the release beside it is taken.
        check(&["wasi:cli/run@0.3.0-rc-2025-09-16", "wasi:cli/run@0.2.6"], Some(Trigger::CommandP2));
        check(&["wasi:cli/run@0.2.6", "wasi:http/incoming-handler@0.2.6"], None);
        check(&[], None);
    }
}
