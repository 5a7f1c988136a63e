//! Contexts that the engine has whole: a folder, an archive that was sent, or what stands at an address.

use std::any::Any;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_core::BoxFuture;
use tempfile::TempDir;
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use super::git::{self, GitAccess};
use super::remote::{self, Remote};
use super::source::{AgentSocket, BuildSources, Definition, FileFilter, Files, MAIN_CONTEXT, OnArrival};
use crate::auth::RegistryAuth;
use crate::blocking::blocking;
use crate::build::BuildContext;
use crate::error::{ImageError, StoreContext as _};
use crate::store::ImageStore;
use crate::unpack::{Options, open_sent, unpack};
use crate::view::View;
use crate::wanted::while_wanted;

pub use super::source::TEXT_LIMIT;

/// What a build is made from where its main context is here whole.
pub struct LocalSources {
    files: Files,
    dockerfile: String,
    /// The text of the Dockerfile, where it does not lie in the context.
    text: Option<Vec<u8>>,
    /// Who has all else.
    client: Option<Arc<dyn BuildSources>>,
    whole: bool,
}

impl LocalSources {
    /// Opens a context. `dockerfile` is the path of the Dockerfile in it, `client` whoever has secrets, agents and further
    /// contexts. Of a git repository its `.git` stays with `keep_git_dir`.
    ///
    /// # Errors
    /// `Fetch`, `BuildRequest` for what cannot be fetched; what unpacking refuses.
    /// # Cancel safety
    /// Dropping the future deletes what had arrived.
    pub async fn open(
        store: &ImageStore,
        context: BuildContext,
        dockerfile: &str,
        keep_git_dir: bool,
        client: Option<Arc<dyn BuildSources>>,
    ) -> Result<Self, ImageError> {
        let mut dockerfile = dockerfile.to_owned();
        let whole = !matches!(context, BuildContext::Folder(_));
        let files = match context {
            BuildContext::Folder(path) => Files::new(path, Arc::new(())),
            BuildContext::Archive(archive) => unpacked(store, archive).await?,
            BuildContext::Address(address) => {
                let access = match &client {
                    Some(client) => GitAccess::of(&**client).await?,
                    None => GitAccess::default(),
                };
                match fetched(store, &address, keep_git_dir, &access).await? {
                    Fetched::Files(files) => files,
                    Fetched::Dockerfile(text) => {
                        "Dockerfile".clone_into(&mut dockerfile);
                        of_dockerfile(store, text).await?
                    }
                }
            }
        };
        Ok(Self { files, dockerfile, text: None, client, whole })
    }

    /// The same, with a folder of the context in its place; empty is all of it.
    #[must_use]
    pub fn below(mut self, subdir: &str) -> Self {
        let subdir = Path::new(subdir);
        if !subdir.as_os_str().is_empty() {
            self.files = self.files.below(subdir);
        }
        self
    }

    /// The same context with another Dockerfile, which does not lie in it.
    #[must_use]
    pub fn with_dockerfile(mut self, text: Vec<u8>) -> Self {
        self.text = Some(text);
        self
    }
}

enum Fetched {
    Files(Files),
    Dockerfile(Vec<u8>),
}

async fn fetched(
    store: &ImageStore,
    address: &str,
    keep_git_dir: bool,
    access: &GitAccess,
) -> Result<Fetched, ImageError> {
    let refused = |reason| {
        let shown = git::redacted(address);
        ImageError::BuildRequest { reason: format!("the context {shown} cannot be fetched: {reason}") }
    };
    if let Some(source) = git::parse(address).map_err(refused)? {
        let checkout = git::fetch(store, &source, keep_git_dir, access).await?;
        return Ok(Fetched::Files(Files::new(checkout.path(), Arc::new(checkout))));
    }
    match remote::open(address).await? {
        Remote::Archive(archive) => Ok(Fetched::Files(unpacked(store, archive).await?)),
        Remote::Dockerfile(text) => Ok(Fetched::Dockerfile(text)),
    }
}

/// The files at an address, which a named context stands for.
pub(super) async fn files_at(store: &ImageStore, address: &str, access: &GitAccess) -> Result<Files, ImageError> {
    match fetched(store, address, false, access).await? {
        Fetched::Files(files) => Ok(files),
        Fetched::Dockerfile(text) => of_dockerfile(store, text).await,
    }
}

impl BuildSources for LocalSources {
    fn comes_whole(&self) -> bool {
        self.whole
    }

    fn ignore<'a>(&'a self, _: OnArrival<'a>) -> BoxFuture<'a, Result<Option<Vec<u8>>, ImageError>> {
        Box::pin(async move {
            let folder = self.files.path().to_owned();
            blocking("read .dockerignore", move || read_text(&folder, ".dockerignore")).await
        })
    }

    fn definition<'a>(&'a self, _: OnArrival<'a>) -> BoxFuture<'a, Result<Definition, ImageError>> {
        Box::pin(async move {
            let (folder, name) = (self.files.path().to_owned(), self.dockerfile.clone());
            let text = self.text.clone();
            blocking("read the Dockerfile", move || read_definition(&folder, &name, text)).await
        })
    }

    fn files<'a>(
        &'a self,
        name: &'a str,
        filter: &'a FileFilter,
        arrived: OnArrival<'a>,
    ) -> BoxFuture<'a, Result<Files, ImageError>> {
        Box::pin(async move {
            match &self.client {
                _ if name == MAIN_CONTEXT => Ok(self.files.clone()),
                Some(client) => client.files(name, filter, arrived).await,
                None => Err(ImageError::BuildRequest { reason: format!("there is no context called {name}") }),
            }
        })
    }

    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ImageError>> {
        Box::pin(async move {
            match &self.client {
                Some(client) => client.secret(id).await,
                None => Ok(None),
            }
        })
    }

    fn ssh<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<AgentSocket>, ImageError>> {
        Box::pin(async move {
            match &self.client {
                Some(client) => client.ssh(id).await,
                None => Ok(None),
            }
        })
    }

    fn credentials<'a>(&'a self, registry: &'a str) -> BoxFuture<'a, Result<Option<RegistryAuth>, ImageError>> {
        Box::pin(async move {
            match &self.client {
                Some(client) => client.credentials(registry).await,
                None => Ok(None),
            }
        })
    }
}

/// A context that is nothing but a Dockerfile.
async fn of_dockerfile(store: &ImageStore, dockerfile: Vec<u8>) -> Result<Files, ImageError> {
    let inner = store.inner.clone();
    blocking("write a Dockerfile", move || {
        let folder = inner.aside("context-")?;
        let path = folder.path().join("Dockerfile");
        std::fs::write(&path, dockerfile).during("write", &path)?;
        Ok(kept(folder))
    })
    .await
}

/// The context that `archive` holds, which may be compressed.
pub(super) async fn unpacked(
    store: &ImageStore,
    archive: Box<dyn AsyncRead + Send + Unpin>,
) -> Result<Files, ImageError> {
    let inner = store.inner.clone();
    while_wanted("unpack the build context", move |wanted| {
        let folder = inner.aside("context-")?;
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
        Ok(kept(folder))
    })
    .await
}

fn kept(folder: TempDir) -> Files {
    let path = folder.path().to_owned();
    let keep: Arc<dyn Any + Send + Sync> = Arc::new(folder);
    Files::new(path, keep)
}

/// Reads a text of at most [`TEXT_LIMIT`] bytes from a folder with files, whose links lead nowhere else; `None` if it is not
/// there. Blocking.
///
/// # Errors
/// `TooLarge`; what cannot be read.
pub fn read_text(context: &Path, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
    let view = View::new(vec![context.to_owned()])?;
    let Ok(file) = view.open_file(&PathBuf::from("/").join(name)) else { return Ok(None) };
    let mut text = Vec::new();
    file.take(TEXT_LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(|error| ImageError::BuildRequest { reason: format!("{name} cannot be read: {error}") })?;
    if text.len() as u64 > TEXT_LIMIT {
        return Err(ImageError::TooLarge { what: name.to_owned(), limit: TEXT_LIMIT });
    }
    Ok(Some(text))
}

/// Reads the Dockerfile and the list of what is hidden from a folder with files. Blocking.
///
/// # Errors
/// `NoDockerfile`, `EmptyDockerfile`, `TooLarge`; what cannot be read.
pub fn read_definition(context: &Path, name: &str, text: Option<Vec<u8>>) -> Result<Definition, ImageError> {
    let read = |name: &str| read_text(context, name);
    let given = text.is_some();
    let Some(text) = (match text {
        Some(text) => Some(text),
        None => read(name)?,
    }) else {
        return Err(ImageError::NoDockerfile { name: name.to_owned() });
    };
    if text.trim_ascii().is_empty() {
        return Err(ImageError::EmptyDockerfile { name: name.to_owned() });
    }
    let ignore = if given { None } else { read(&format!("{name}.dockerignore"))? };
    Ok(Definition { name: name.to_owned(), text, ignore })
}
