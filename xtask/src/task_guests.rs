//! `guests`: the test guests, a small component or module per behaviour, into `target/guests/NAME.wasm`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{house, task_setup};

pub(crate) fn run() -> Result<()> {
    let cargo = task_setup::wasm_compiler()?;
    let workspace = house::root().join("guests");
    let target = house::made("guests-build");
    let (ours, theirs) = (workspace.display().to_string(), target.display().to_string());
    let manifest = format!("{ours}/Cargo.toml");
    let metadata = house::output(&mut house::cargo(&[
        "metadata",
        "--format-version=1",
        "--no-deps",
        "--manifest-path",
        &manifest,
    ]))?;
    for target in ["wasm32-wasip2", "wasm32-wasip1"] {
        let packages = packages_for(&serde_json::from_str(&metadata)?, target);
        if packages.is_empty() {
            continue;
        }
        let mut build = cargo.cargo(&[
            "build",
            "--release",
            "--locked",
            "--manifest-path",
            &manifest,
            "--target-dir",
            &theirs,
            "--target",
            target,
        ]);
        for package in &packages {
            build.args(["--package", package]);
        }
        // From its own folder, so that its cargo settings are read.
        house::run(build.current_dir(&workspace))?;
    }
    let folder = house::made("guests");
    for target_name in ["wasm32-wasip2", "wasm32-wasip1"] {
        for wasm in modules(&target.join(target_name).join("release"))? {
            house::copy_into(&folder, &wasm)?;
        }
    }
    Ok(())
}

/// The packages built for `target`: all for WASI 0.2, but those that say `package.metadata.guest.target = "wasm32-wasip1"`.
fn packages_for(metadata: &Value, target: &str) -> Vec<String> {
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|package| package["metadata"]["guest"]["target"].as_str().unwrap_or("wasm32-wasip2") == target)
        .filter_map(|package| Some(package["name"].as_str()?.to_owned()))
        .collect()
}

fn modules(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "wasm"))
        .collect())
}
