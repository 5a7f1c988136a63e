//! `guests`: the test guests, a small component or module per behaviour, into `target/guests/NAME.wasm`.

use std::path::Path;

use anyhow::{Context, Result};

use crate::{task_setup, workspace};

/// Guests built for WASI preview 1 too, as `NAME-p1.wasm`.
const PREVIEW1: (&str, &str) = ("guests-p2", "command");
/// Guests built as core modules, too, which the host makes into components: as Spin's templates had them.
const OF_A_WORLD: &str = "guests-spin2";
/// Guests that are core modules, with imports that no component has.
const MODULES: &str = "guests-spin1";

pub(crate) fn run() -> Result<()> {
    build("wasm32-wasip2", &["--workspace", "--exclude", MODULES, "--bins", "--examples"])?;
    let (package, name) = PREVIEW1;
    build("wasm32-wasip1", &["--package", package, "--bin", name])?;
    build("wasm32-wasip1", &["--package", MODULES, "--package", OF_A_WORLD, "--bins", "--examples"])?;

    let built = workspace::made("guests-build");
    collect(&built.join("wasm32-wasip1/release"), "-p1")?;
    collect(&built.join("wasm32-wasip1/release/examples"), "")?;
    // Those that were built as components, too, are these.
    collect(&built.join("wasm32-wasip2/release"), "")?;
    collect(&built.join("wasm32-wasip2/release/examples"), "")?;
    let (module, guest) = (built.join("wasm32-wasip1/release/examples/spin2.wasm"), "guests/spin2-p1.wasm");
    let copied = std::fs::copy(&module, workspace::made(guest));
    copied.map(drop).with_context(|| format!("cannot copy {}", module.display()))
}

fn build(target: &str, which: &[&str]) -> Result<()> {
    let workspace = workspace::root().join("guests");
    let mut cargo = task_setup::wasm_compiler()?.cargo(&["build", "--release", "--locked", "--target", target]);
    cargo.args(which).arg("--target-dir").arg(workspace::made("guests-build"));
    workspace::run(cargo.current_dir(workspace))
}

/// Copies what cargo left in `folder`: a library is called after its crate, `a_b`, the guest is `a-b`. Copies with a
/// hash in their name are cargo's own.
fn collect(folder: &Path, suffix: &str) -> Result<()> {
    let guests = workspace::made("guests");
    std::fs::create_dir_all(&guests).with_context(|| format!("cannot create {}", guests.display()))?;
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
        let hashed =
            name.rsplit_once('-').is_some_and(|(_, end)| end.len() == 16 && end.bytes().all(|b| b.is_ascii_hexdigit()));
        if path.extension().is_some_and(|ending| ending == "wasm") && !hashed {
            let guest = guests.join(format!("{name}{suffix}.wasm"));
            std::fs::copy(&path, &guest).with_context(|| format!("cannot copy {}", path.display()))?;
        }
    }
    Ok(())
}
