//! The documents of a push, made of those that are stored: what they say beside layers and platforms is kept.
//!
//! Source: OCI image specification, `manifest.md` and `image-index.md`.

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::model::{Descriptor, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use crate::platform::Platform;

/// What an image of one platform was, and what was sent of it.
pub(super) struct Entry {
    pub(super) platform: Platform,
    /// The digest of its manifest as it is stored.
    pub(super) was: Digest,
    pub(super) descriptor: Descriptor,
}

fn object(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok().filter(Value::is_object)
}

/// What a document says it is.
pub(super) fn media_type(bytes: &[u8], otherwise: &str) -> String {
    let own = object(bytes).and_then(|document| document["mediaType"].as_str().map(str::to_owned));
    own.unwrap_or_else(|| otherwise.to_owned())
}

/// What a manifest refers to.
pub(super) fn subject(manifest: &[u8]) -> Option<Digest> {
    object(manifest)?["subject"]["digest"].as_str()?.parse().ok()
}

fn bare(descriptor: &Descriptor) -> Value {
    json!({ "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size })
}

/// A manifest with other layers, which are the same unpacked. Annotations, the subject and the like stay; those of a layer that
/// is packed anew go, as they may tell where its parts lie.
pub(crate) fn repacked(manifest: &[u8], layers: &[Descriptor]) -> Vec<u8> {
    let mut document = object(manifest).unwrap_or_else(|| json!({ "schemaVersion": 2 }));
    let old = document["layers"].as_array().cloned().unwrap_or_default();
    let kept = |layer: &Descriptor| old.iter().find(|old| old["digest"].as_str() == Some(layer.digest.as_str()));
    document["layers"] = layers.iter().map(|layer| kept(layer).cloned().unwrap_or_else(|| bare(layer))).collect();
    // Docker's own form knows none of the newer compressions.
    document["mediaType"] = OCI_MANIFEST.into();
    document["config"]["mediaType"] = match document["config"]["mediaType"].as_str() {
        None | Some("application/vnd.docker.container.image.v1+json") => OCI_CONFIG.into(),
        Some(other) => other.into(),
    };
    let docker = [
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("application/vnd.docker.image.rootfs.diff.tar", "application/vnd.oci.image.layer.v1.tar"),
    ];
    for layer in document["layers"].as_array_mut().into_iter().flatten() {
        if let Some((_, oci)) = docker.iter().find(|(docker, _)| layer["mediaType"].as_str() == Some(docker)) {
            layer["mediaType"] = (*oci).into();
        }
    }
    document.to_string().into_bytes()
}

/// The manifests that an index lists.
pub(super) fn listed(index: &[u8]) -> Vec<Digest> {
    let document = object(index).unwrap_or_default();
    let entries = document["manifests"].as_array().into_iter().flatten();
    entries.filter_map(|entry| entry["digest"].as_str()?.parse().ok()).collect()
}

/// The index of a name with these platforms. Of the one that it came with (`known`) everything stays that is said of them, and
/// of the whole; byte by byte, if all that it lists is sent as it was.
pub(super) fn index(known: Option<&[u8]>, sent: &[Entry]) -> Vec<u8> {
    let unchanged = |entry: &Value| {
        let digest = entry["digest"].as_str();
        sent.iter().any(|one| digest == Some(one.was.as_str()) && one.was == one.descriptor.digest)
    };
    let known = known.and_then(|bytes| Some((bytes, object(bytes)?)));
    let entries = |document: &Value| document["manifests"].as_array().cloned().unwrap_or_default();
    if let Some((bytes, document)) = &known
        && entries(document).iter().all(unchanged)
    {
        return bytes.to_vec();
    }
    let mut document = known.map_or_else(|| json!({ "schemaVersion": 2 }), |(_, document)| document);
    let old = entries(&document);
    let entries = sent.iter().map(|one| {
        let mut entry = old.iter().find(|entry| entry["digest"].as_str() == Some(one.was.as_str())).cloned();
        let entry = entry.get_or_insert_with(|| json!({ "platform": one.platform.to_oci() }));
        entry["mediaType"] = one.descriptor.media_type.clone().into();
        entry["digest"] = one.descriptor.digest.as_str().into();
        entry["size"] = one.descriptor.size.into();
        entry.take()
    });
    document["manifests"] = entries.collect();
    document["mediaType"] = OCI_INDEX.into();
    document.to_string().into_bytes()
}

/// A list of referrers with one more; `None` if it is in it.
pub(super) fn with_referrer(known: Option<&[u8]>, manifest: &[u8], sent: &Descriptor) -> Option<Vec<u8>> {
    let mut list = known.and_then(object).unwrap_or_else(|| json!({ "schemaVersion": 2, "mediaType": OCI_INDEX }));
    let mut entries = list["manifests"].as_array().cloned().unwrap_or_default();
    if entries.iter().any(|entry| entry["digest"].as_str() == Some(sent.digest.as_str())) {
        return None;
    }
    let manifest = object(manifest)?;
    let mut entry = bare(sent);
    // Of an artifact that does not say what it is, its configuration does.
    let kind = manifest["artifactType"].as_str().or(manifest["config"]["mediaType"].as_str());
    if let Some(kind) = kind {
        entry["artifactType"] = kind.into();
    }
    if manifest["annotations"].is_object() {
        entry["annotations"] = manifest["annotations"].clone();
    }
    entries.push(entry);
    list["manifests"] = entries.into();
    Some(list.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(content: &str) -> Descriptor {
        let (digest, size) = (Digest::of(content.as_bytes()), content.len() as u64);
        Descriptor { media_type: OCI_MANIFEST.to_owned(), digest, size }
    }

    fn entry(was: &str, is: &str, platform: Platform) -> Entry {
        Entry { platform, was: Digest::of(was.as_bytes()), descriptor: descriptor(is) }
    }

    fn read(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).unwrap()
    }

    #[test]
    fn an_index_goes_as_it_came_or_says_what_it_can() {
        let (linux, wasm) = (Platform::host(), Platform::wasm());
        let mut one = bare(&descriptor("linux"));
        one["platform"] = linux.to_oci();
        one["annotations"] = json!({ "of": "linux" });
        let other = bare(&descriptor("wasm"));
        let came = json!({ "manifests": [one, other], "annotations": { "of": "all" }, "schemaVersion": 2, "mediaType": OCI_INDEX });
        // Spaces that nobody else would write.
        let came = serde_json::to_vec_pretty(&came).unwrap();
        let (same, both) = (entry("linux", "linux", linux.clone()), entry("wasm", "wasm", wasm.clone()));
        assert_eq!(index(Some(&came), &[same, both]), came);
        let half = read(&index(Some(&came), &[entry("linux", "packed", linux.clone())]));
        assert_eq!(half["annotations"]["of"], "all");
        assert_eq!(half["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(half["manifests"][0]["annotations"]["of"], "linux");
        assert_eq!(half["manifests"][0]["digest"], descriptor("packed").digest.as_str());
        let new = read(&index(None, &[entry("linux", "linux", linux.clone()), entry("wasm", "wasm", wasm)]));
        assert_eq!(new["manifests"][0]["platform"], linux.to_oci());
        assert_eq!(new["manifests"][1]["platform"]["os"], "wasi");
    }

    #[test]
    fn what_else_a_manifest_says_stays_when_its_layers_change() {
        let (kept, gone, new) = (descriptor("kept"), descriptor("gone"), descriptor("new"));
        let mut with_annotations = bare(&kept);
        with_annotations["annotations"] = json!({ "a": "b" });
        let came = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "digest": "x", "size": 1 },
            "layers": [with_annotations, bare(&gone)], "annotations": { "c": "d" }, "subject": { "digest": kept.digest },
        });
        let bytes = repacked(came.to_string().as_bytes(), &[kept.clone(), new.clone()]);
        let manifest = read(&bytes);
        assert_eq!(manifest["layers"][0]["annotations"]["a"], "b");
        assert_eq!(manifest["layers"][1], bare(&new));
        assert_eq!((&manifest["annotations"]["c"], &manifest["mediaType"]), (&json!("d"), &json!(OCI_MANIFEST)));
        assert_eq!(manifest["config"], json!({ "mediaType": OCI_CONFIG, "digest": "x", "size": 1 }));
        assert_eq!(subject(&bytes), Some(kept.digest));
    }

    #[test]
    fn a_referrer_is_listed_once() {
        let manifest = json!({ "artifactType": "application/x", "annotations": { "a": "b" } }).to_string();
        let sent = descriptor(&manifest);
        let list = with_referrer(None, manifest.as_bytes(), &sent).unwrap();
        assert_eq!(read(&list)["manifests"][0]["artifactType"], "application/x");
        assert_eq!(read(&list)["manifests"][0]["annotations"]["a"], "b");
        assert_eq!(with_referrer(Some(&list), manifest.as_bytes(), &sent), None);
        let more = with_referrer(Some(&list), br#"{"config":{"mediaType":"k"}}"#, &descriptor("other")).unwrap();
        assert_eq!(read(&more)["manifests"][1]["artifactType"], "k");
    }
}
