//! What a build needs of its client, over the client's session.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bireme_buildkit::{Build, FilesRequest, Folder, Frontend, Limits, Session, SessionError};
use bireme_core::BoxFuture;
use bireme_image::pull::RegistryAuth;
use bireme_image::{
    AgentSocket, BuildSources, CacheKind, Definition, Digest, FileFilter, Files, ImageError, ImageStore, MAIN_CONTEXT,
    OnArrival, SECRET_LIMIT, Sharing, TEXT_LIMIT, read_definition, read_text,
};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// The names of a context's files with their client, where they differ from the name that the build knows it by.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys {
    pub(super) context: String,
    pub(super) dockerfile: String,
    pub(super) filename: String,
    pub(super) named: BTreeMap<String, String>,
    /// What tells the contexts of one project from those of another.
    pub(super) known: String,
}

/// How often it is told how much has arrived.
const TOLD_EVERY: Duration = Duration::from_millis(100);

/// The client of one build.
pub(super) struct ClientSources {
    build: Arc<Build>,
    frontend: Frontend,
    keys: Keys,
    /// Where files are received, and kept for the next build of the same.
    images: ImageStore,
    /// By what they are known again: the Dockerfile.
    known_by: OnceLock<String>,
    /// Where sockets are made.
    run: PathBuf,
}

impl ClientSources {
    pub(super) fn new(build: Arc<Build>, frontend: Frontend, keys: Keys, images: ImageStore, run: PathBuf) -> Self {
        Self { build, frontend, keys, images, known_by: OnceLock::new(), run }
    }

    async fn session(&self) -> Result<Arc<Session>, ImageError> {
        self.build.session().await.map_err(|error| refused(&error))
    }

    async fn session_of(&self, name: &str) -> Result<Arc<Session>, ImageError> {
        let session = match self.frontend.session_of(name) {
            Some(id) => self.build.other_session(id).await,
            None => self.build.session().await,
        };
        session.map_err(|error| refused(&error))
    }

    /// Receives some small files of one of the client's folders.
    async fn texts_of(&self, name: &str, follow: Vec<String>, arrived: OnArrival<'_>) -> Result<TempDir, ImageError> {
        let folder = folder(&self.images.ingest_folder())?;
        let limits = Limits { bytes: 4 * TEXT_LIMIT, entries: 64 };
        let request = FilesRequest { name: name.to_owned(), follow, limits, ..FilesRequest::default() };
        self.receive(request, open(folder.path())?, None, arrived).await?;
        Ok(folder)
    }

    async fn receive(
        &self,
        mut request: FilesRequest,
        into: OwnedFd,
        previous: Option<OwnedFd>,
        arrived: OnArrival<'_>,
    ) -> Result<(), ImageError> {
        let session = self.session_of(&request.name).await?;
        let limit = request.limits.bytes;
        let what = match request.follow.is_empty() {
            true => format!("the client's folder {}", request.name),
            false => request.follow.join(", "),
        };
        let count = Arc::new(AtomicU64::new(0));
        request.transferred = Some(Arc::clone(&count));
        let mut receiving = std::pin::pin!(session.files(request, Folder::new(into, previous)));
        let mut ticks = tokio::time::interval(TOLD_EVERY);
        loop {
            tokio::select! {
                received = &mut receiving => {
                    let count = count.load(Ordering::Relaxed);
                    arrived(count);
                    return match received {
                        Ok(_) => Ok(()),
                        Err(_) if count > limit => Err(ImageError::TooLarge { what, limit }),
                        Err(error) => Err(refused(&error)),
                    };
                }
                _ = ticks.tick() => arrived(count.load(Ordering::Relaxed)),
            }
        }
    }

    /// Receives a context, of which only what is new since the last build of the same is sent.
    async fn context(&self, name: &str, filter: FileFilter, arrived: OnArrival<'_>) -> Result<Files, ImageError> {
        let shared = self.session_of(name).await?.shared_key().to_owned();
        let known_by = self.known_by.get().map(String::as_str).unwrap_or_default();
        let key = format!("{name}\n{shared}\n{known_by}");
        let description = format!("local source for {name}");
        let made = |_| -> BoxFuture<'static, Result<(), ImageError>> { Box::pin(async { Ok(()) }) };
        let held = self.images.take_folder(CacheKind::Context, &key, &description, Sharing::Private, &made).await?;
        let held = Arc::new(held);
        let new = folder(held.path())?;
        let tree = held.path().join("tree");
        let previous = open(&tree).ok();
        let request = FilesRequest {
            name: name.to_owned(),
            exclude: filter.exclude,
            follow: filter.follow,
            ..FilesRequest::default()
        };
        self.receive(request, open(new.path())?, previous, arrived).await?;
        let (folder, ingest) = (Arc::clone(&held), self.images.ingest_folder());
        let swapped = tokio::task::spawn_blocking(move || swap(folder.path(), new, &ingest)).await;
        let kept = |reason: String| ImageError::BuildRequest {
            reason: format!("the client's files cannot be kept: {reason}"),
        };
        let tree = swapped.map_err(|error| kept(error.to_string()))?.map_err(|error| kept(error.to_string()))?;
        Ok(Files::new(tree, held))
    }

    /// The Dockerfile, and the list of what is hidden that is its own.
    async fn text(&self, arrived: OnArrival<'_>) -> Result<Definition, ImageError> {
        let name = self.keys.filename.clone();
        let follow = vec![name.clone(), format!("{name}.dockerignore"), name.to_lowercase()];
        let folder = self.texts_of(&self.keys.dockerfile, follow, arrived).await?;
        let definition = in_folder(folder, move |path| match read_definition(path, &name, None) {
            // Docker's clients take the lower case where there is no other.
            Err(ImageError::NoDockerfile { .. }) if name == "Dockerfile" => {
                read_definition(path, "dockerfile", None).map_err(|_| ImageError::NoDockerfile { name })
            }
            other => other,
        })
        .await?;
        let known = format!("{} {}", self.keys.known, bases(&definition.text));
        let _ = self.known_by.set(Digest::of(known.as_bytes()).to_string());
        Ok(definition)
    }

    async fn hidden(&self, arrived: OnArrival<'_>) -> Result<Option<Vec<u8>>, ImageError> {
        // A context that is not there is told when somebody needs it.
        match self.texts_of(&self.keys.context, vec![".dockerignore".to_owned()], arrived).await {
            Ok(folder) => in_folder(folder, |path| read_text(path, ".dockerignore")).await,
            Err(error @ ImageError::TooLarge { .. }) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

/// Puts what was received in the place of what an earlier build received, within the folder that is kept of them. Nobody waits
/// for the removal of that: it is moved to `ingest` first, where the next start of the daemon finishes it.
fn swap(kept: &Path, new: TempDir, ingest: &Path) -> std::io::Result<PathBuf> {
    let tree = kept.join("tree");
    let aside = tempfile::Builder::new().prefix("context-").tempdir_in(ingest)?;
    match std::fs::rename(&tree, aside.path().join("tree")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::rename(new.path(), &tree)?;
    // It is no longer there to be deleted.
    let _ = new.keep();
    // What an earlier build was kept from removing.
    for left in std::fs::read_dir(kept)?.flatten().filter(|left| left.path() != tree) {
        std::fs::remove_dir_all(left.path())?;
    }
    tokio::task::spawn_blocking(move || drop(aside));
    Ok(tree)
}

/// Reads in a folder of texts, which goes then.
async fn in_folder<T: Send + 'static>(
    folder: TempDir,
    read: impl FnOnce(&Path) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let stopped = |_| ImageError::BuildRequest { reason: "the daemon stops".to_owned() };
    tokio::task::spawn_blocking(move || read(folder.path())).await.map_err(stopped)?
}

/// What the images of stages are, which tells one project from another better than what is edited all the time.
fn bases(dockerfile: &[u8]) -> String {
    let text = String::from_utf8_lossy(dockerfile);
    let from = text.lines().filter(|line| line.get(..5).is_some_and(|start| start.eq_ignore_ascii_case("from ")));
    from.collect::<Vec<_>>().join("\n")
}

impl BuildSources for ClientSources {
    fn definition<'a>(&'a self, arrived: OnArrival<'a>) -> BoxFuture<'a, Result<Definition, ImageError>> {
        Box::pin(self.text(arrived))
    }

    fn ignore<'a>(&'a self, arrived: OnArrival<'a>) -> BoxFuture<'a, Result<Option<Vec<u8>>, ImageError>> {
        Box::pin(self.hidden(arrived))
    }

    fn files<'a>(
        &'a self,
        name: &'a str,
        filter: &'a FileFilter,
        arrived: OnArrival<'a>,
    ) -> BoxFuture<'a, Result<Files, ImageError>> {
        Box::pin(async move {
            let key = match name {
                MAIN_CONTEXT => &self.keys.context,
                other => self.keys.named.get(other).map_or(name, String::as_str),
            };
            let mut filter = filter.clone();
            if name != MAIN_CONTEXT {
                // A named context has a list of its own.
                let folder = self.texts_of(key, vec![".dockerignore".to_owned()], &|_| {}).await?;
                if let Some(text) = in_folder(folder, |path| read_text(path, ".dockerignore")).await? {
                    let ignore = bireme_core::ignore::Ignore::parse(&String::from_utf8_lossy(&text));
                    filter.exclude = ignore.map(|ignore| ignore.patterns()).unwrap_or_default();
                }
            }
            self.context(key, filter, arrived).await
        })
    }

    fn secret<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<Vec<u8>>, ImageError>> {
        Box::pin(async move {
            let secret = match self.session().await?.secret(id).await {
                Err(SessionError::NotOffered { .. }) => None,
                other => other.map_err(|error| refused(&error))?,
            };
            match secret {
                Some(secret) if secret.len() > SECRET_LIMIT => {
                    Err(ImageError::TooLarge { what: format!("the secret {id}"), limit: SECRET_LIMIT as u64 })
                }
                other => Ok(other),
            }
        })
    }

    fn ssh<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<AgentSocket>, ImageError>> {
        Box::pin(async move {
            let session = self.session().await?;
            match session.check_ssh(id).await {
                Ok(()) => {}
                Err(SessionError::Closed) => return Err(refused(&SessionError::Closed)),
                // The client lends none of that name.
                Err(_) => return Ok(None),
            }
            agent(session, id.to_owned(), &self.run).map(Some)
        })
    }

    fn credentials<'a>(&'a self, registry: &'a str) -> BoxFuture<'a, Result<Option<RegistryAuth>, ImageError>> {
        Box::pin(async move {
            let session = self.session().await?;
            // A client without credentials, or without the means to give them, pulls what everybody may.
            Ok(credentials(&session, registry).await.ok().flatten())
        })
    }
}

/// What a client shows a registry, `docker.io` being Docker Hub.
pub(super) async fn credentials(session: &Session, registry: &str) -> Result<Option<RegistryAuth>, SessionError> {
    let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
    let found = match session.credentials(host).await {
        Err(SessionError::NotOffered { .. }) => None,
        other => other?,
    };
    Ok(found.and_then(|found| match (found.username.is_empty(), found.secret.is_empty()) {
        (true, true) => None,
        // Of a login that left a token.
        (true, false) => Some(RegistryAuth::Identity(found.secret)),
        _ => Some(RegistryAuth::Basic(found.username, found.secret)),
    }))
}

/// Makes a socket on which the client's agent answers, as long as what is answered is there.
fn agent(session: Arc<Session>, id: String, run: &Path) -> Result<AgentSocket, ImageError> {
    let failed = |error: std::io::Error| ImageError::BuildRequest {
        reason: format!("the SSH agent {id} cannot be lent: {error}"),
    };
    let folder = tempfile::Builder::new().prefix("ssh-").tempdir_in(run).map_err(failed)?;
    let path = folder.path().join("agent");
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let ended = CancellationToken::new();
    let over = ended.clone();
    tokio::spawn(async move {
        loop {
            let socket = tokio::select! {
                accepted = listener.accept() => accepted,
                () = over.cancelled() => break,
            };
            let Ok((mut socket, _)) = socket else { break };
            let (session, id, over) = (Arc::clone(&session), id.clone(), over.clone());
            tokio::spawn(async move {
                let Ok(mut agent) = session.ssh(&id).await else {
                    let _ = socket.shutdown().await;
                    return;
                };
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut socket, &mut agent) => {}
                    () = over.cancelled() => {}
                }
            });
        }
    });
    Ok(AgentSocket::new(path, Arc::new((folder, ended.drop_guard()))))
}

/// A new folder for what is received, closed to others.
fn folder(ingest: &Path) -> Result<TempDir, ImageError> {
    let failed = |error: std::io::Error| ImageError::BuildRequest {
        reason: format!("cannot make a folder for the client's files: {error}"),
    };
    DirBuilder::new().recursive(true).mode(0o700).create(ingest).map_err(failed)?;
    tempfile::Builder::new().prefix("context-").tempdir_in(ingest).map_err(failed)
}

fn open(path: &Path) -> Result<OwnedFd, ImageError> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
        ImageError::BuildRequest { reason: format!("cannot open a folder for the client's files: {error}") }
    })
}

fn refused(error: &SessionError) -> ImageError {
    ImageError::BuildRequest { reason: error.to_string() }
}
