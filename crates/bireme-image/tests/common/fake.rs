//! Servers that answer what a test tells them to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bireme_image::Reference;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::images::Blob;

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
            let path = path.split('?').next().unwrap_or_default();
            if path.ends_with("/v2/") || path == "/deep/" {
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
