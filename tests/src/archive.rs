//! Archives of images, of `docker save` or of a build's output: an OCI layout, or Docker's own `manifest.json`.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde_json::Value;

use crate::tree::Tree;

/// One image of an archive.
pub struct Image {
    /// Its configuration, whole.
    pub config: Value,
    /// As it is stored, to look for what must not be in it.
    pub raw_config: Vec<u8>,
    /// Its layers, unpacked, the lowest first.
    pub layers: Vec<Vec<u8>>,
}

/// All images of an archive, one a platform; attestations are none.
///
/// # Errors
/// When it is no such archive, or something that it names is missing from it.
pub fn read(archive: impl Read) -> io::Result<Vec<Image>> {
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(archive).entries()? {
        let mut entry = entry?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        if entry.header().entry_type() == tar::EntryType::Symlink {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(path, content);
    }
    let files = Files(files);
    if files.0.contains_key("index.json") {
        let mut images = Vec::new();
        files.index(&files.json("index.json")?, &mut images)?;
        return Ok(images);
    }
    let mut images = Vec::new();
    for manifest in files.json("manifest.json")?.as_array().into_iter().flatten() {
        let layers = manifest["Layers"].as_array().into_iter().flatten();
        let layers: Vec<&str> = layers.filter_map(Value::as_str).collect();
        images.push(files.image(manifest["Config"].as_str().unwrap_or_default(), &layers)?);
    }
    Ok(images)
}

struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    fn get(&self, path: &str) -> io::Result<&Vec<u8>> {
        self.0.get(path).ok_or_else(|| io::Error::other(format!("the archive has no {path:?}")))
    }

    fn json(&self, path: &str) -> io::Result<Value> {
        Ok(serde_json::from_slice(self.get(path)?)?)
    }

    fn index(&self, index: &Value, images: &mut Vec<Image>) -> io::Result<()> {
        for listed in index["manifests"].as_array().into_iter().flatten() {
            let path = blob(listed);
            let attests = listed["annotations"]["vnd.docker.reference.type"] == "attestation-manifest";
            // An index may list platforms that were never fetched.
            if attests || !self.0.contains_key(&path) {
                continue;
            }
            let document = self.json(&path)?;
            if document["manifests"].is_array() {
                self.index(&document, images)?;
                continue;
            }
            let layers: Vec<String> = document["layers"].as_array().into_iter().flatten().map(blob).collect();
            let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
            images.push(self.image(&blob(&document["config"]), &layers)?);
        }
        Ok(())
    }

    fn image(&self, config: &str, layers: &[&str]) -> io::Result<Image> {
        let raw_config = self.get(config)?.clone();
        let layers = layers.iter().map(|path| unpacked(self.get(path)?)).collect::<io::Result<_>>()?;
        Ok(Image { config: serde_json::from_slice(&raw_config)?, raw_config, layers })
    }
}

fn blob(descriptor: &Value) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().unwrap_or_default().replace(':', "/"))
}

/// Without the compression, which is seen by its first bytes.
fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    match bytes {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).map(drop)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => plain = zstd::decode_all(bytes)?,
        _ => plain.extend_from_slice(bytes),
    }
    Ok(plain)
}

impl Image {
    /// The digests of its layers, unpacked.
    pub fn diff_ids(&self) -> Vec<&str> {
        self.config["rootfs"]["diff_ids"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Its files, and those of its lowest `base` layers.
    ///
    /// # Errors
    /// When a layer is no tar archive.
    pub fn trees(&self, base: usize) -> io::Result<(Tree, Tree)> {
        let mut tree = Tree::default();
        let mut below = Tree::default();
        for (at, layer) in self.layers.iter().enumerate() {
            tree.apply(layer.as_slice())?;
            if at + 1 == base {
                below = tree.clone();
            }
        }
        Ok((tree, below))
    }
}
