//! The configuration file, which Docker's client has too.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::Context as _;
use bireme_core::env;
use serde_json::Value;

/// Bytes of the file that are read.
const LIMIT: u64 = 4 << 20;

/// Where it is: in the folder that the environment names, else where Docker has it.
fn path() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folder = named(env::BIREME_CONFIG).or_else(|| named(env::DOCKER_CONFIG));
    let folder = folder.or_else(|| std::env::home_dir().map(|home| home.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// What stands in it; nothing, if it is not there or no JSON.
pub(super) fn read() -> Value {
    let content = || {
        let path = path()?;
        if std::fs::metadata(&path).ok()?.len() > LIMIT {
            return None;
        }
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    };
    content().unwrap_or(Value::Null)
}

/// Changes the file, which nobody else may read; what else stands in it stays.
pub(super) fn change<T>(change: impl FnOnce(&mut Value) -> anyhow::Result<T>) -> anyhow::Result<(PathBuf, T)> {
    let path = path().context("cannot tell where Docker's configuration file is: HOME is not set")?;
    // A link to the file is kept, and the file behind it changed.
    let path = path.canonicalize().unwrap_or(path);
    let shown = path.display().to_string();
    let mut config = match std::fs::read(&path) {
        Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => serde_json::json!({}),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .ok()
            .filter(Value::is_object)
            .with_context(|| format!("{shown} is not a JSON object; mend or remove it"))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => serde_json::json!({}),
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    let answer = change(&mut config)?;
    let folder = path.parent().context("Docker's configuration file has no folder")?;
    let write = || -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // A temporary file is its owner's alone, and the file is whole whenever somebody reads it.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(crate::listing::indent(&config.to_string(), 8).as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {shown}"))?;
    Ok((path, answer))
}
