//! What manifests and indexes say beside the configurations of images: `--annotation`.
//!
//! Source: OCI image specification, `annotations.md`; BuildKit, `docs/annotations.md`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::ImageError;
use crate::model::DOCUMENT_LIMIT;
use crate::platform::Platform;

/// Names and values.
pub(crate) type Pairs = BTreeMap<String, String>;

/// What is said of an image of each platform; `None` of all of them.
pub(crate) type OfPlatforms = Vec<(Option<Platform>, String, String)>;

/// What manifests and indexes say beside the configurations of images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// What manifests say.
    pub manifest: OfPlatforms,
    /// What the index of several platforms says of each.
    pub manifest_descriptor: OfPlatforms,
    /// What the index of several platforms says of the whole.
    pub index: Pairs,
}

impl Annotations {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn of_manifest(&self, platform: &Platform) -> Pairs {
        of(&self.manifest, platform)
    }

    pub(super) fn of_descriptor(&self, platform: &Platform) -> Pairs {
        of(&self.manifest_descriptor, platform)
    }
}

/// What is said of one platform goes before what is said of all.
fn of(said: &OfPlatforms, platform: &Platform) -> Pairs {
    let all = said.iter().filter(|(of, ..)| of.is_none());
    let own = said.iter().filter(|(of, ..)| of.as_ref() == Some(platform));
    all.chain(own).map(|(_, name, value)| (name.clone(), value.clone())).collect()
}

/// A manifest that says these things, too.
///
/// # Errors
/// `TooLarge`
pub(super) fn annotated(manifest: Vec<u8>, annotations: &Pairs) -> Result<Vec<u8>, ImageError> {
    if annotations.is_empty() {
        return Ok(manifest);
    }
    let mut document: Value =
        serde_json::from_slice(&manifest).map_err(|error| ImageError::malformed("manifest being built", error))?;
    document["annotations"] = json!(annotations);
    let manifest = document.to_string().into_bytes();
    if manifest.len() as u64 > DOCUMENT_LIMIT {
        let what = "the manifest of the image, with its annotations,".to_owned();
        return Err(ImageError::TooLarge { what, limit: DOCUMENT_LIMIT });
    }
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_a_platform_goes_before_what_is_said_of_all() {
        let text = str::to_owned;
        let wasm = Some(Platform::wasm());
        let said = vec![(wasm, text("a"), text("own")), (None, text("a"), text("all")), (None, text("b"), text("all"))];
        let pairs =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| (text(name), text(value))).collect::<Pairs>();
        assert_eq!(of(&said, &Platform::wasm()), pairs(&[("a", "own"), ("b", "all")]));
        assert_eq!(of(&said, &Platform::host()), pairs(&[("a", "all"), ("b", "all")]));
        let manifest = annotated(br#"{"schemaVersion":2}"#.to_vec(), &pairs(&[("a", "b")])).unwrap();
        assert_eq!(manifest, br#"{"annotations":{"a":"b"},"schemaVersion":2}"#);
        let large = annotated(b"{}".to_vec(), &pairs(&[("a", &"x".repeat(5 << 20))])).unwrap_err();
        assert!(large.to_string().contains("with its annotations,"), "{large}");
    }
}
