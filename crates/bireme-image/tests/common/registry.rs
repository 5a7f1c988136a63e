//! A real registry.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bireme_image::Digest;

use super::images::{Blob, TestImage};

/// Debian's docker-registry on a port of this machine, with a folder of its own.
pub(crate) struct Registry {
    child: Child,
    pub(crate) host: String,
    folder: tempfile::TempDir,
    auth: Option<(&'static str, &'static str)>,
}

/// A user the registry knows; the hash is one of crypt_blowfish's published test vectors.
pub(crate) const USER: (&str, &str) = ("me", "U*U");

const HASH: &str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

impl Registry {
    pub(crate) async fn start(with_auth: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..5 {
            // Free a moment ago; taken in between only by bad luck, then another one is tried.
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let root = folder.path().display();
            let mut config = format!(
                "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {root} }} }}\nhttp: {{ addr: '{address}', secret: x }}\n"
            );
            if with_auth {
                let users = folder.path().join("htpasswd");
                std::fs::write(&users, format!("{}:{HASH}\n", USER.0)).unwrap();
                config.push_str(&format!("auth: {{ htpasswd: {{ realm: test, path: {} }} }}\n", users.display()));
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
                    let auth = with_auth.then_some(USER);
                    return Self { child, host: address.to_string(), folder, auth };
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("docker-registry did not start");
    }

    fn client(&self) -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().build().unwrap()
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
        let start = self.send(client.post(format!("http://{}/v2/{repository}/blobs/uploads/", self.host))).await;
        let place = start.headers()["location"].to_str().unwrap().to_owned();
        let place = if place.starts_with('/') { format!("http://{}{place}", self.host) } else { place };
        let joint = if place.contains('?') { '&' } else { '?' };
        self.send(client.put(format!("{place}{joint}digest={}", blob.digest())).body(blob.bytes.clone())).await;
    }

    pub(crate) async fn push_manifest(&self, repository: &str, tag: &str, manifest: &Blob) {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.host);
        let put = self.client().put(url).header("content-type", &manifest.media_type).body(manifest.bytes.clone());
        self.send(put).await;
    }

    pub(crate) async fn push(&self, repository: &str, tag: &str, image: &TestImage) {
        for blob in image.layers.iter().chain([&image.config]) {
            self.push_blob(repository, blob).await;
        }
        self.push_manifest(repository, tag, &image.manifest).await;
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
