//! A real registry.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bireme_image::Digest;

use super::images::{Blob, OCI_INDEX, OCI_MANIFEST, TestImage};
use super::tls::Certificates;

/// Debian's docker-registry on a port of this machine, with a folder of its own.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
    folder: tempfile::TempDir,
    auth: Option<(&'static str, &'static str)>,
    /// Whom to trust, and what to show.
    tls: Option<(Vec<u8>, Vec<u8>)>,
}

/// A user the registry knows; the hash is one of crypt_blowfish's published test vectors.
pub(crate) const USER: (&str, &str) = ("me", "U*U");

const HASH: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

/// What a registry asks of whoever comes.
#[derive(Default)]
pub(crate) struct Asks<'a> {
    pub(crate) password: bool,
    /// Speaks TLS, with these certificates.
    pub(crate) tls: Option<&'a Certificates>,
    /// Wants to see a client's certificate.
    pub(crate) client: bool,
    /// Is a cache of the registry at that address.
    pub(crate) cache_of: Option<&'a str>,
}

impl Registry {
    pub(crate) async fn start(with_auth: bool) -> Self {
        Self::asking(Asks { password: with_auth, ..Asks::default() }).await
    }

    pub(crate) async fn asking(asks: Asks<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            // Free a moment ago; taken in between only by bad luck, then another one is tried.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let root = folder.path().display();
            let tls = asks.tls.map_or_else(String::new, |tls| {
                let file = |name: &str| tls.file(name).display().to_string();
                let clients = if asks.client { format!(", clientcas: [ {} ]", file("ca.pem")) } else { String::new() };
                format!(", tls: {{ certificate: {}, key: {}{clients} }}", file("server.pem"), file("server.key"))
            });
            let mut config = format!(
                "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {root} }}, delete: {{ enabled: true }} }}\nhttp: {{ addr: '{address}', secret: x{tls} }}\n"
            );
            if asks.password {
                let users = folder.path().join("htpasswd");
                std::fs::write(&users, format!("{}:{HASH}\n", USER.0)).unwrap();
                config.push_str(&format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", users.display()));
            }
            if let Some(origin) = asks.cache_of {
                config.push_str(&format!("proxy: {{ remoteurl: 'http://{origin}' }}\n"));
            }
            let file = folder.path().join("config.yml");
            std::fs::write(&file, config).unwrap();
            let mut child = Command::new("docker-registry")
                .arg("serve")
                .arg(&file)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let until = Instant::now() + Duration::from_secs(30);
            while Instant::now() < until && child.try_wait().unwrap().is_none() {
                if tokio::net::TcpStream::connect(address).await.is_ok() {
                    let auth = asks.password.then_some(USER);
                    let tls = asks.tls.map(|tls| (tls.content("ca.pem"), tls.content("client.both")));
                    return Self { child, host: address.to_string(), folder, auth, tls };
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry did not start");
    }

    fn url(&self, rest: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/v2/{rest}", self.host)
    }

    fn client(&self) -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder();
        if let Some((ca, identity)) = &self.tls {
            let ca = reqwest::Certificate::from_pem(ca).unwrap();
            builder = builder.tls_certs_only([ca]).identity(reqwest::Identity::from_pem(identity).unwrap());
        }
        builder.build().unwrap()
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Response {
        let request = match self.auth {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer
    }

    pub(crate) async fn push_blob(&self, repository: &str, blob: &Blob) {
        let client = self.client();
        let start = self.send(client.post(self.url(&format!("{repository}/blobs/uploads/")))).await;
        let place = start.headers()["location"].to_str().unwrap().to_owned();
        let place = match place.strip_prefix("/v2/") {
            Some(rest) => self.url(rest),
            None => place,
        };
        let joint = if place.contains('?') { '&' } else { '?' };
        self.send(client.put(format!("{place}{joint}digest={}", blob.digest())).body(blob.bytes.clone())).await;
    }

    pub(crate) async fn push_manifest(&self, repository: &str, tag: &str, manifest: &Blob) {
        let put = self
            .client()
            .put(self.url(&format!("{repository}/manifests/{tag}")))
            .header("content-type", &manifest.media_type)
            .body(manifest.bytes.clone());
        self.send(put).await;
    }

    pub(crate) async fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(repository, blob).await;
        }
        self.push_manifest(repository, tag, &image.manifest).await;
    }

    /// The manifest or index of that tag or digest, as it is sent.
    pub(crate) async fn manifest(&self, repository: &str, version: &str) -> Vec<u8> {
        let get = self.client().get(self.url(&format!("{repository}/manifests/{version}")));
        let get = get.header("accept", format!("{OCI_INDEX}, {OCI_MANIFEST}"));
        self.send(get).await.bytes().await.unwrap().to_vec()
    }

    /// Where the registry keeps a blob.
    pub(crate) fn stored(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.folder.path().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program that `./x setup` brings, if it is not installed: of the machine, else beside what is compiled.
pub(crate) fn tool(name: &str) -> PathBuf {
    let on_path = std::env::var_os("PATH").and_then(|paths| {
        std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|program| program.is_file())
    });
    let own = std::env::current_exe().unwrap();
    let brought = own.ancestors().map(|folder| folder.join("setup/registry-tools/usr/bin").join(name));
    let found = on_path.or_else(|| brought.into_iter().find(|program| program.is_file()));
    found.unwrap_or_else(|| panic!("{name} is missing: run ./x setup"))
}
