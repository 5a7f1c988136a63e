//! As much of Docker's API as the clients need before they speak BuildKit's protocol, on a socket of its own.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use bireme_buildkit::{Results, Server, SessionHeaders};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::UnixListener;

use crate::fake::Fake;

/// Which of the clients that `./x setup` installs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    /// The newest buildx that Debian has, and Compose beside it.
    New,
    /// The buildx of a stable Debian, and Compose beside it.
    Old,
    /// Compose alone, which builds by its own means then.
    ComposeAlone,
}

impl Client {
    fn config(self) -> PathBuf {
        let setup = match self {
            Self::New => "docker-buildx",
            Self::Old => "docker-buildx-old",
            Self::ComposeAlone => "docker",
        };
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/setup").join(setup);
        let plugin = match self {
            Self::ComposeAlone => "cli-plugins/docker-compose",
            _ => "cli-plugins/docker-buildx",
        };
        assert!(config.join(plugin).is_file(), "{} is missing: run `./x setup`", config.join(plugin).display());
        config
    }
}

/// An engine that only builds, and a folder for its client.
pub(crate) struct Engine {
    pub(crate) fake: Arc<Fake>,
    pub(crate) folder: tempfile::TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Engine {
    /// Serves until dropped.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let fake = Arc::new(Fake::default());
        let server = Server::new(fake.clone(), Results::default());
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(folder.path().join("docker.sock")).unwrap()
        };
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(server.clone(), request));
                    let connection = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service)
                        .with_upgrades();
                    let _ = connection.await;
                });
            }
        });
        Self { fake, folder, _runtime: runtime }
    }

    /// Writes a file of the client's.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join("work").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The client's `docker ARGS`, in its folder.
    pub(crate) fn command(&self, client: Client, args: &[&str]) -> Command {
        std::fs::create_dir_all(self.folder.path().join("work")).unwrap();
        let mut command = Command::new("docker");
        let config = self.folder.path().join("config");
        let plugins = config.join("cli-plugins");
        if !plugins.exists() {
            std::fs::create_dir_all(&config).unwrap();
            std::os::unix::fs::symlink(client.config().join("cli-plugins"), &plugins).unwrap();
        }
        command
            .args(args)
            .current_dir(self.folder.path().join("work"))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("DOCKER_CONFIG", config)
            .env("DOCKER_HOST", format!("unix://{}", self.folder.path().join("docker.sock").display()))
            .env("BUILDKIT_PROGRESS", "plain");
        command
    }

    /// Runs `docker ARGS` to its end.
    pub(crate) fn run(&self, client: Client, args: &[&str]) -> Ran {
        Ran(self.command(client, args).output().expect("the docker command line is needed"))
    }

    /// Writes the client's configuration.
    pub(crate) fn configure(&self, json: &str) {
        let config = self.folder.path().join("config");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("config.json"), json).unwrap();
    }

    /// Lets the client believe that all exporters are there.
    pub(crate) fn snapshotter(&self) {
        self.fake.snapshotter.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// What became of a command.
pub(crate) struct Ran(pub(crate) Output);

impl Ran {
    pub(crate) fn text(&self) -> String {
        format!("{}{}", String::from_utf8_lossy(&self.0.stdout), String::from_utf8_lossy(&self.0.stderr))
    }

    /// # Panics
    /// When it failed, or does not say each of `words`.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) {
        assert!(self.0.status.success(), "it failed:\n{}", self.text());
        self.told(words);
    }

    /// # Panics
    /// When it succeeded, or does not say each of `words`.
    #[track_caller]
    pub(crate) fn fails(&self, words: &[&str]) {
        assert!(!self.0.status.success(), "it did not fail:\n{}", self.text());
        self.told(words);
    }

    #[track_caller]
    fn told(&self, words: &[&str]) {
        let text = self.text();
        for word in words {
            assert!(text.contains(word), "{word:?} is missing in:\n{text}");
        }
    }
}

async fn answer(server: Server, mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    // `/v1.45/version` is `/version`.
    let path = match path.strip_prefix("/v1.").and_then(|rest| rest.find('/').map(|at| rest[at..].to_owned())) {
        Some(rest) => rest,
        None => path.to_owned(),
    };
    let json = |text: &'static str| {
        let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
        response.body(Full::from(text)).unwrap()
    };
    Ok(match (request.method(), path.as_str()) {
        (_, "/_ping") => Response::builder()
            .header("Api-Version", "1.45")
            .header("Builder-Version", "2")
            .header("Ostype", "linux")
            .body(Full::default())
            .unwrap(),
        (&Method::GET, "/version") => {
            json(r#"{"Version":"26.1.5","ApiVersion":"1.45","MinAPIVersion":"1.24","Os":"linux","Arch":"amd64"}"#)
        }
        (&Method::GET, "/info") => json(r#"{"ServerVersion":"26.1.5","OSType":"linux","Architecture":"x86_64"}"#),
        (&Method::POST, "/grpc" | "/session") => {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let io = TokioIo::new(upgrade.await.unwrap());
                if path == "/grpc" {
                    let _ = server.serve(io).await;
                } else {
                    let headers = SessionHeaders::from_http(request.headers()).unwrap();
                    server.sessions().attach(headers, io).await.unwrap();
                }
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "h2c")
                .body(Full::default())
                .unwrap()
        }
        _ => {
            let missing = format!(r#"{{"message":"no such page: {path}"}}"#);
            Response::builder().status(StatusCode::NOT_FOUND).body(Full::from(missing)).unwrap()
        }
    })
}
