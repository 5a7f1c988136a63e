//! What the tests of the image library share: images made by hand, a real registry, and proxies that misbehave.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bireme_image::{Digest, ImageStore, Progress, Reference, RegistrySettings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A store in a folder of its own, on a filesystem that keeps extended attributes.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: ImageStore,
}

pub(crate) async fn place() -> Place {
    place_with(RegistrySettings::default()).await
}

pub(crate) async fn place_with(settings: RegistrySettings) -> Place {
    let folder = tempfile::Builder::new().prefix("bireme-image-").tempdir_in("/var/tmp").unwrap();
    let store = ImageStore::open(folder.path(), settings).await.unwrap();
    Place { folder, store }
}

impl Place {
    /// How many files or folders are kept in one part of the store.
    pub(crate) fn count(&self, part: &str) -> usize {
        std::fs::read_dir(self.folder.path().join(part)).unwrap().count()
    }
}

/// A tar of regular files and folders (names ending in `/`).
pub(crate) fn tar_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        }
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// The busybox of the machine as a root filesystem.
pub(crate) fn busybox() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    let program = std::fs::read("/bin/busybox").unwrap();
    header.set_mode(0o755);
    header.set_size(program.len() as u64);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, "bin/busybox", program.as_slice()).unwrap();
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    tar.append_link(&mut link, "bin/sh", "busybox").unwrap();
    tar.into_inner().unwrap()
}

/// Content and its media type.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) media_type: String,
    pub(crate) bytes: Vec<u8>,
}

impl Blob {
    pub(crate) fn new(media_type: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { media_type: media_type.to_owned(), bytes: bytes.into() }
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    pub(crate) fn descriptor(&self) -> serde_json::Value {
        serde_json::json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

/// An image of one platform with all its parts.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub(crate) config: Blob,
    pub(crate) layers: Vec<Blob>,
    pub(crate) manifest: Blob,
    pub(crate) platform: String,
}

/// An image whose layers are gzipped tars.
pub(crate) fn image(platform: &str, tars: &[Vec<u8>], config: serde_json::Value) -> TestImage {
    let parts: Vec<&str> = platform.split('/').collect();
    let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let mut file = serde_json::json!({
        "created": "2024-01-02T03:04:05Z", "os": parts[0], "architecture": parts[1], "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": [],
    });
    if let Some(variant) = parts.get(2) {
        file["variant"] = (*variant).into();
    }
    let layers = tars.iter().map(|tar| Blob::new(GZIP, gzip(tar))).collect();
    with_manifest(platform, Blob::new(OCI_CONFIG, file.to_string()), layers, None)
}

pub(crate) fn with_manifest(platform: &str, config: Blob, layers: Vec<Blob>, artifact_type: Option<&str>) -> TestImage {
    let mut manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config.descriptor(),
        "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
    });
    if let Some(artifact_type) = artifact_type {
        manifest["artifactType"] = artifact_type.into();
    }
    let manifest = Blob::new(OCI_MANIFEST, manifest.to_string());
    TestImage { config, layers, manifest, platform: platform.to_owned() }
}

pub(crate) fn index(images: &[TestImage]) -> Blob {
    let entries: Vec<_> = images
        .iter()
        .map(|image| {
            let parts: Vec<&str> = image.platform.split('/').collect();
            let mut entry = image.manifest.descriptor();
            entry["platform"] = serde_json::json!({ "os": parts[0], "architecture": parts[1] });
            if let Some(variant) = parts.get(2) {
                entry["platform"]["variant"] = (*variant).into();
            }
            entry
        })
        .collect();
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    Blob::new(OCI_INDEX, index.to_string())
}

/// An OCI layout in a tar: `top` is what its index.json names.
pub(crate) fn oci_archive(top: &[(&Blob, Option<&str>)], blobs: &[&Blob]) -> Vec<u8> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    for blob in blobs.iter().copied().chain(top.iter().map(|(blob, _)| *blob)) {
        files.insert(format!("blobs/sha256/{}", blob.digest().hex()), blob.bytes.clone());
    }
    let manifests: Vec<_> = top
        .iter()
        .map(|(blob, name)| {
            let mut entry = blob.descriptor();
            if let Some(name) = name {
                entry["annotations"] = serde_json::json!({ "io.containerd.image.name": name });
            }
            entry
        })
        .collect();
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": manifests });
    files.insert("index.json".to_owned(), index.to_string().into_bytes());
    raw_tar(&files)
}

/// The archive of one image.
pub(crate) fn oci_archive_of(image: &TestImage, name: Option<&str>) -> Vec<u8> {
    let blobs: Vec<&Blob> = image.layers.iter().chain([&image.config]).collect();
    oci_archive(&[(&image.manifest, name)], &blobs)
}

/// The old form of `docker save`.
pub(crate) fn docker_archive(image: &TestImage, tars: &[Vec<u8>], names: &[&str]) -> Vec<u8> {
    let mut files = BTreeMap::new();
    let config = format!("{}.json", image.config.digest().hex());
    files.insert(config.clone(), image.config.bytes.clone());
    let mut layers = Vec::new();
    for (at, tar) in tars.iter().enumerate() {
        files.insert(format!("layer{at}/layer.tar"), tar.clone());
        layers.push(format!("layer{at}/layer.tar"));
    }
    let manifest = serde_json::json!([{ "Config": config, "RepoTags": names, "Layers": layers }]);
    files.insert("manifest.json".to_owned(), manifest.to_string().into_bytes());
    raw_tar(&files)
}

pub(crate) fn raw_tar(files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Collects progress lines.
#[derive(Clone, Default)]
pub(crate) struct Lines(pub(crate) Arc<Mutex<Vec<Progress>>>);

impl Lines {
    pub(crate) fn taker(&self) -> impl Fn(Progress) + Send + Sync + use<> {
        let lines = self.0.clone();
        move |line| lines.lock().unwrap().push(line)
    }

    pub(crate) fn has(&self, status: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.status.contains(status))
    }
}

pub(crate) fn quiet(_: Progress) {}

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

/// What a proxy does to what passes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mischief {
    /// Cuts the first answers to blob requests off after so many bytes, so many times.
    Cut { after: usize, times: usize },
    /// As `Cut` once, and does not understand Range.
    CutWithoutRange { after: usize },
    /// Changes the last byte of blobs larger than 1000 bytes.
    Lie,
    /// Adds a byte to blobs larger than 1000 bytes.
    Longer,
    /// Answers so many requests with 503.
    Busy { times: usize },
    /// Asks for a bearer token, which it hands out to the user `USER` itself.
    Bearer,
    /// Answers any manifest with an endless one.
    Endless,
    /// Asks for a bearer token, and answers endlessly where it is asked for.
    EndlessToken,
    /// Answers any manifest with an endless failure.
    EndlessError,
}

/// An HTTP proxy in front of a registry.
pub(crate) struct Proxy {
    pub(crate) host: String,
    /// Requests with a Range that does not begin at 0.
    pub(crate) resumed: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn start(registry: &Registry, mischief: Mischief) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let upstream: SocketAddr = registry.host.parse().unwrap();
        let (resumed, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counter = resumed.clone();
        let task = tokio::spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (counter, done) = (counter.clone(), done.clone());
                serving.spawn(async move {
                    let _ = serve(client, upstream, address, mischief, &counter, &done).await;
                });
            }
        });
        Self { host: address.to_string(), resumed, task }
    }
}

async fn serve(
    mut client: tokio::net::TcpStream,
    upstream: SocketAddr,
    own: SocketAddr,
    mischief: Mischief,
    resumed: &AtomicUsize,
    done: &AtomicUsize,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let range = head.lines().find(|line| line.to_ascii_lowercase().starts_with("range:")).map(str::to_owned);
    if range.as_ref().is_some_and(|range| !range.contains("bytes=0-")) {
        resumed.fetch_add(1, Ordering::SeqCst);
    }
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_blob = path.contains("/blobs/");
    let lower = head.to_ascii_lowercase();
    match mischief {
        Mischief::Busy { times } if done.fetch_add(1, Ordering::SeqCst) < times => {
            return client.write_all(b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
        Mischief::Bearer if path.starts_with("/token") => {
            let known = lower.contains("authorization: basic bwu6vspv");
            let answer = if known { "HTTP/1.1 200 OK" } else { "HTTP/1.1 401 Unauthorized" };
            let body = if known { r#"{"token":"good"}"# } else { "{}" };
            let answer = format!("{answer}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            return client.write_all(answer.as_bytes()).await;
        }
        Mischief::EndlessToken if path.starts_with("/token") => {
            client.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{\"token\":\"").await?;
            loop {
                client.write_all(&[b'a'; 1 << 16]).await?;
            }
        }
        Mischief::EndlessError if path.contains("/manifests/") => {
            client.write_all(b"HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n").await?;
            loop {
                client.write_all(&[b'a'; 1 << 16]).await?;
            }
        }
        Mischief::Bearer | Mischief::EndlessToken if !lower.contains("authorization: bearer good") => {
            let answer = format!(
                "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"http://{own}/token\",service=\"test\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            return client.write_all(answer.as_bytes()).await;
        }
        Mischief::Endless if path.contains("/manifests/") => {
            client.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
            loop {
                client.write_all(&[b' '; 1 << 16]).await?;
            }
        }
        _ => {}
    }
    let mut server = tokio::net::TcpStream::connect(upstream).await?;
    let mut forwarded = String::new();
    for line in head.trim_end().lines() {
        let name = line.to_ascii_lowercase();
        let drop_range = name.starts_with("range:") && matches!(mischief, Mischief::CutWithoutRange { .. });
        let drop_auth = name.starts_with("authorization:") && mischief == Mischief::Bearer;
        if !(name.starts_with("connection:") || drop_range || drop_auth) {
            forwarded.push_str(line);
            forwarded.push_str("\r\n");
        }
    }
    forwarded.push_str("connection: close\r\n\r\n");
    server.write_all(forwarded.as_bytes()).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    let body = answer.windows(4).position(|window| window == b"\r\n\r\n").map_or(answer.len(), |at| at + 4);
    let large = is_blob && answer.len() - body > 1000;
    match mischief {
        Mischief::Cut { after, times } if large && done.fetch_add(1, Ordering::SeqCst) < times => {
            answer.truncate(body + after);
        }
        Mischief::CutWithoutRange { after } if large && done.fetch_add(1, Ordering::SeqCst) < 1 => {
            answer.truncate(body + after);
        }
        Mischief::Lie if large => *answer.last_mut().unwrap() ^= 1,
        Mischief::Longer if large => {
            let head = String::from_utf8_lossy(&answer[..body]).into_owned();
            let length = answer.len() - body;
            let head = head.replace(&format!("Content-Length: {length}"), &format!("Content-Length: {}", length + 1));
            let content = answer.split_off(body);
            answer = head.into_bytes();
            answer.extend(content);
            answer.push(0);
        }
        _ => {}
    }
    client.write_all(&answer).await?;
    client.shutdown().await
}

/// A request: its path, and its head in lower case.
pub(crate) type Asked = (String, String);

/// A server that answers what it is told to, and remembers what it was asked.
pub(crate) struct Fake {
    pub(crate) host: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    /// `answer` is given path and head, and answers status line, further headers and body.
    pub(crate) async fn start(
        answer: impl Fn(&str, &str) -> (&'static str, String, Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (asked, answer) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let list = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let (list, answer) = (list.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = client.read_u8().await else { return };
                        head.push(byte);
                    }
                    let head = String::from_utf8_lossy(&head).into_owned();
                    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    list.lock().unwrap().push((path.clone(), head.to_ascii_lowercase()));
                    let (status, headers, body) = answer(&path, &head);
                    let head = format!(
                        "HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = client.write_all(head.as_bytes()).await;
                    let _ = client.write_all(&body).await;
                });
            }
        });
        Self { host, asked, task }
    }

    /// A registry with these manifests, by tag or digest and with their types, and these blobs.
    pub(crate) async fn registry(manifests: Vec<(String, Blob)>, blobs: Vec<Blob>) -> Self {
        let manifests: BTreeMap<_, _> = manifests.into_iter().collect();
        let blobs: BTreeMap<_, _> = blobs.into_iter().map(|blob| (blob.digest().to_string(), blob.bytes)).collect();
        Self::start(move |path, _| {
            if path == "/v2/" {
                return ("200 OK", String::new(), b"{}".to_vec());
            }
            let name = path.rsplit('/').next().unwrap_or_default();
            let absent = ("404 Not Found", String::new(), b"{}".to_vec());
            if path.contains("/manifests/") {
                let Some(manifest) = manifests.get(name) else { return absent };
                return ("200 OK", format!("content-type: {}\r\n", manifest.media_type), manifest.bytes.clone());
            }
            match blobs.get(name) {
                Some(bytes) => ("200 OK", String::new(), bytes.clone()),
                None => absent,
            }
        })
        .await
    }

    pub(crate) fn name(&self) -> Reference {
        Reference::parse(&format!("{}/x:1", self.host)).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Reads a file of an unpacked image, the uppermost layer first.
pub(crate) fn read(layers: &[PathBuf], path: &str) -> Option<String> {
    layers.iter().rev().find_map(|layer| std::fs::read_to_string(layer.join(path)).ok())
}

/// The smallest core module: magic and version.
pub(crate) const WASM: &[u8] = b"\0asm\x01\0\0\0";

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
