//! The files that COPY and ADD may take, and the texts of the build among them.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use bireme_core::ignore::Ignore;
use tempfile::TempDir;
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::dockerfile::Dockerfile;
use crate::blocking::blocking;
use crate::error::{ImageError, StoreContext as _};
use crate::store::ImageStore;
use crate::unpack::{Options, open_sent, unpack};
use crate::view::View;
use crate::wanted::while_wanted;

/// Largest Dockerfile or `.dockerignore` that is read, in bytes.
pub(super) const TEXT_LIMIT: u64 = 1 << 20;

/// Where the files of the context are.
pub(super) enum Context {
    Folder(PathBuf),
    /// Deleted with the build.
    Unpacked(TempDir),
}

impl Context {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(path) => path,
            Self::Unpacked(folder) => folder.path(),
        }
    }
}

/// A context that is nothing but a Dockerfile.
pub(super) async fn of_dockerfile(store: &ImageStore, dockerfile: Vec<u8>) -> Result<Context, ImageError> {
    let ingest = store.inner.ingest();
    blocking("write a Dockerfile", move || {
        let folder = aside(&ingest, "context-")?;
        let path = folder.path().join("Dockerfile");
        std::fs::write(&path, dockerfile).during("write", &path)?;
        Ok(Context::Unpacked(folder))
    })
    .await
}

/// The context that `archive` holds, which may be compressed.
pub(super) async fn unpacked(
    store: &ImageStore,
    archive: Box<dyn AsyncRead + Send + Unpin>,
) -> Result<Context, ImageError> {
    let inner = store.inner.clone();
    while_wanted("unpack the build context", move |wanted| {
        let folder = aside(&inner.ingest(), "context-")?;
        let limits = &inner.settings.limits;
        let archive = open_sent(SyncIoBridge::new(archive), limits).map_err(|source| ImageError::Input { source })?;
        let options = Options {
            name: "(the build context)",
            whiteouts: false,
            owners: false,
            max_bytes: limits.layer_bytes,
            max_entries: limits.entries,
        };
        unpack(archive, wanted, folder.path(), &options)?;
        Ok(Context::Unpacked(folder))
    })
    .await
}

/// A new folder for what is being made.
pub(super) fn aside(ingest: &Path, prefix: &str) -> Result<TempDir, ImageError> {
    tempfile::Builder::new().prefix(prefix).tempdir_in(ingest).during("create a folder in", ingest)
}

/// Reads the Dockerfile and the list of what is hidden.
pub(super) fn read_texts(context: &Path, name: &str) -> Result<(Dockerfile, Ignore), ImageError> {
    let view = View::new(vec![context.to_owned()])?;
    let read = |name: &str| -> Result<Option<String>, ImageError> {
        let Ok(file) = view.open_file(&Path::new("/").join(name)) else { return Ok(None) };
        let mut text = String::new();
        file.take(TEXT_LIMIT + 1)
            .read_to_string(&mut text)
            .map_err(|error| ImageError::BuildRequest { reason: format!("{name} cannot be read: {error}") })?;
        if text.len() as u64 > TEXT_LIMIT {
            return Err(ImageError::TooLarge { what: name.to_owned(), limit: TEXT_LIMIT });
        }
        Ok(Some(text))
    };
    let Some(text) = read(name)? else {
        return Err(ImageError::NoDockerfile { name: name.to_owned() });
    };
    if text.trim().is_empty() {
        return Err(ImageError::EmptyDockerfile { name: name.to_owned() });
    }
    let own = format!("{name}.dockerignore");
    let ignore = match read(&own)? {
        Some(text) => Some(text),
        None => read(".dockerignore")?,
    };
    let ignore = Ignore::parse(&ignore.unwrap_or_default())
        .map_err(|error| ImageError::BuildRequest { reason: format!(".dockerignore: {error}") })?;
    Ok((Dockerfile::parse(&text)?, ignore))
}
