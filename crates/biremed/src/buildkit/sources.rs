//! What a build needs of its client, over the client's session.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_buildkit::{Build, FilesRequest, Folder, FolderOptions, Frontend, Limits, Ownership, Session, SessionError};
use bireme_core::BoxFuture;
use bireme_image::pull::RegistryAuth;
use bireme_image::{
    AgentSocket, BuildSources, Definition, FileFilter, Files, ImageError, MAIN_CONTEXT, SECRET_LIMIT, TEXT_LIMIT,
    read_definition,
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
}

/// The client of one build.
pub(super) struct ClientSources {
    build: Arc<Build>,
    frontend: Frontend,
    keys: Keys,
    /// Where files are received, on the disk.
    ingest: PathBuf,
    /// Where sockets are made.
    run: PathBuf,
}

impl ClientSources {
    pub(super) fn new(build: Arc<Build>, frontend: Frontend, keys: Keys, ingest: PathBuf, run: PathBuf) -> Self {
        Self { build, frontend, keys, ingest, run }
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

    /// Receives the files of one of the client's folders.
    async fn receive(&self, name: &str, filter: &FileFilter, limits: Limits) -> Result<TempDir, ImageError> {
        let session = self.session_of(name).await?;
        let folder = folder(&self.ingest)?;
        let root = open(folder.path())?;
        let options = FolderOptions { ownership: Ownership::default(), ..FolderOptions::default() };
        let request = FilesRequest {
            name: name.to_owned(),
            include: Vec::new(),
            exclude: filter.exclude.clone(),
            follow: filter.follow.clone(),
            limits,
            transferred: None,
        };
        session.files(request, Folder::new(root, options)).await.map_err(|error| refused(&error))?;
        Ok(folder)
    }

    /// The Dockerfile and the lists of what is hidden, from whichever of the client's folders has them.
    async fn texts(&self) -> Result<Definition, ImageError> {
        let name = self.keys.filename.clone();
        let limits = Limits { bytes: 4 * TEXT_LIMIT, entries: 64 };
        let follow = vec![name.clone(), format!("{name}.dockerignore"), name.to_lowercase()];
        let filter = FileFilter { exclude: Vec::new(), follow };
        let folder = self.receive(&self.keys.dockerfile, &filter, limits).await?;
        let mut definition = read_in(folder, name).await?;
        if definition.ignore.is_none() {
            let filter = FileFilter { exclude: Vec::new(), follow: vec![".dockerignore".to_owned()] };
            // A context that is not there is told when somebody needs it.
            if let Ok(folder) = self.receive(&self.keys.context, &filter, limits).await {
                definition.ignore = std::fs::read(folder.path().join(".dockerignore")).ok();
            }
        }
        Ok(definition)
    }
}

async fn read_in(folder: TempDir, name: String) -> Result<Definition, ImageError> {
    let read = move || {
        // Docker's clients take the lower case where there is no other.
        match read_definition(folder.path(), &name, None) {
            Err(ImageError::NoDockerfile { .. }) if name == "Dockerfile" => {
                read_definition(folder.path(), "dockerfile", None).map_err(|_| ImageError::NoDockerfile { name })
            }
            other => other,
        }
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|_| ImageError::BuildRequest { reason: "the daemon stops".to_owned() })?
}

impl BuildSources for ClientSources {
    fn definition(&self) -> BoxFuture<'_, Result<Definition, ImageError>> {
        Box::pin(self.texts())
    }

    fn files<'a>(&'a self, name: &'a str, filter: &'a FileFilter) -> BoxFuture<'a, Result<Files, ImageError>> {
        Box::pin(async move {
            let key = match name {
                MAIN_CONTEXT => &self.keys.context,
                other => self.keys.named.get(other).map_or(name, String::as_str),
            };
            let mut filter = filter.clone();
            if name != MAIN_CONTEXT {
                // A named context has a list of its own.
                let list = FileFilter { exclude: Vec::new(), follow: vec![".dockerignore".to_owned()] };
                let folder = self.receive(key, &list, Limits { bytes: 4 * TEXT_LIMIT, entries: 64 }).await?;
                if let Ok(text) = std::fs::read_to_string(folder.path().join(".dockerignore")) {
                    let ignore = bireme_core::ignore::Ignore::parse(&text);
                    filter.exclude = ignore.map(|ignore| ignore.patterns()).unwrap_or_default();
                }
            }
            let folder = self.receive(key, &filter, Limits::default()).await?;
            let path = folder.path().to_owned();
            Ok(Files::new(path, Arc::new(folder)))
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
