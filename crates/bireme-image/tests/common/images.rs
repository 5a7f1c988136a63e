//! Images made by hand.

use std::io::Write as _;

use bireme_image::{Digest, Platform};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The smallest core module: magic and version.
pub(crate) const WASM: &[u8] = b"\0asm\x01\0\0\0";

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

/// An image of one layer with one file, for this machine.
pub(crate) fn one_layer() -> TestImage {
    image(&Platform::host().to_string(), &[tar_of(&[("a", "b")])], serde_json::json!({}))
}

/// An image of two layers, of which the upper deletes a file of the lower; also the two as they are unpacked.
pub(crate) fn two_layers() -> (TestImage, Vec<Vec<u8>>) {
    let tars =
        vec![tar_of(&[("etc/", ""), ("etc/one", "1"), ("gone", "x")]), tar_of(&[(".wh.gone", ""), ("etc/two", "2")])];
    (image(&Platform::host().to_string(), &tars, serde_json::json!({ "Env": ["A=b"], "Labels": { "k": "v" } })), tars)
}
