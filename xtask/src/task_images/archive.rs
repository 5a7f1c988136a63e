//! An image as `docker save` writes it since version 25: an OCI layout, with Docker's own `manifest.json` beside it.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(super) struct Image {
    pub(super) name: &'static str,
    /// Tar archives, the lowest first.
    pub(super) layers: Vec<Vec<u8>>,
    /// The `config` of the image's configuration: command, user, environment.
    pub(super) config: Value,
}

impl Image {
    /// Writes `NAME.tar` into `folder`, in one step: a reader never sees half of it.
    ///
    /// # Errors
    /// Names the file.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(format!("{}.tar", self.name));
        let unfinished = folder.join(format!(".{}.tar.new", self.name));
        let file = File::create(&unfinished).with_context(|| format!("cannot create {}", unfinished.display()))?;
        self.pack(tar::Builder::new(file)).with_context(|| format!("cannot write {}", path.display()))?;
        std::fs::rename(&unfinished, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn pack(&self, mut archive: tar::Builder<File>) -> Result<()> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let digests: Vec<String> = self.layers.iter().map(|layer| hex_digest(layer)).collect();
        let config = serde_json::to_vec(&json!({
            "architecture": architecture,
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": digests.iter().map(|digest| format!("sha256:{digest}")).collect::<Vec<_>>() },
            "history": digests.iter().map(|_| json!({ "created": "1970-01-01T00:00:00Z", "created_by": "x images" })).collect::<Vec<_>>(),
        }))?;
        let config_digest = hex_digest(&config);
        let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": format!("sha256:{}", hex_digest(bytes)), "size": bytes.len() });
        let layers: Vec<Value> =
            self.layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect();
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers,
        }))?;
        let mut listed = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        listed["platform"] = json!({ "architecture": architecture, "os": "linux" });
        listed["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/{}:latest", self.name),
            "org.opencontainers.image.ref.name": "latest",
        });
        let index = json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [listed] });
        let docker = json!([{
            "Config": blob(&config_digest),
            "RepoTags": [format!("{}:latest", self.name)],
            "Layers": digests.iter().map(|digest| blob(digest)).collect::<Vec<_>>(),
        }]);

        put(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        put(&mut archive, "index.json", &serde_json::to_vec(&index)?)?;
        put(&mut archive, "manifest.json", &serde_json::to_vec(&docker)?)?;
        put(&mut archive, &blob(&hex_digest(&manifest)), &manifest)?;
        put(&mut archive, &blob(&config_digest), &config)?;
        for (digest, layer) in digests.iter().zip(&self.layers) {
            put(&mut archive, &blob(digest), layer)?;
        }
        archive.into_inner()?.flush()?;
        Ok(())
    }
}

fn put(archive: &mut tar::Builder<File>, path: &str, contents: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_size(contents.len() as u64);
    header.set_entry_type(tar::EntryType::Regular);
    Ok(archive.append_data(&mut header, path, contents)?)
}

fn blob(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
