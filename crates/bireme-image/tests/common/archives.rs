//! Archives of images, in both forms.

use std::collections::BTreeMap;

use bireme_image::{ImageError, Loaded};

use super::images::{Blob, TestImage};
use super::{Place, quiet};

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

/// Loads an archive.
pub(crate) async fn load(place: &Place, archive: Vec<u8>) -> Result<Vec<Loaded>, ImageError> {
    place.store.load(std::io::Cursor::new(archive), &quiet).await
}
