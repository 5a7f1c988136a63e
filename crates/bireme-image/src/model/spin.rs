//! Apps of Spin as they lie in registries: a locked app for a configuration, a layer per component and per file.
//!
//! One with a single component and no files is a component like any other. What the others need, several components behind one
//! address and files beside them, an artifact has no form for here; a Compose file or an image does.
//!
//! Source: Spin, `crates/oci/src/client.rs` and `crates/locked-app`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::config::{ConfigFile, ImageConfig};
use super::first::First;
use crate::error::ImageError;

/// The media type of a locked app.
pub(crate) const SPIN_CONFIG: &str = "application/vnd.fermyon.spin.application.v1+config";

/// Components of an app that are told of.
const MOST_COMPONENTS: usize = 100;

/// Refuses an app that is not one component: of its layers, so many are `components` and so many are files.
pub(super) fn check(components: usize, files: usize, what: &str) -> Result<(), ImageError> {
    let refuse = |reason: String| Err(ImageError::NotOneComponent { what: what.to_owned(), reason });
    match (components, files) {
        (1, 0) => Ok(()),
        (0, _) => refuse("it is a Spin app without a component".to_owned()),
        (1, _) => refuse(
            "it is a Spin app with files beside its component: build an image of both, in a Dockerfile that begins with FROM scratch"
                .to_owned(),
        ),
        (many, _) => refuse(format!(
            "it is a Spin app of {many} components: push each by itself, and name them in a Compose file"
        )),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct App {
    components: First<Component, MOST_COMPONENTS>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Component {
    env: BTreeMap<String, String>,
}

/// What a workload of the app's component starts with.
pub(crate) fn config(app: &[u8]) -> ConfigFile {
    let app: App = serde_json::from_slice(app).unwrap_or_default();
    let first = app.components.0.into_iter().next().unwrap_or_default();
    let env = first.env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    ConfigFile { config: ImageConfig { env, ..ImageConfig::default() }, ..ConfigFile::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_locked_app_says_of_its_component_is_read() {
        let app = br#"{"spin_lock_version":1,"metadata":{"name":"x"},"triggers":[{"id":"t","trigger_type":"http"}],
            "components":[{"id":"c","source":{"content_type":"application/wasm","digest":"sha256:00"},"env":{"B":"2","A":"1"}}]}"#;
        assert_eq!(config(app).config.env, ["A=1", "B=2"]);
        for other in [&b"{}"[..], b"null", b"[]", b"{\"components\":[]}", b"no"] {
            assert!(config(other).config.env.is_empty());
        }
    }
}
