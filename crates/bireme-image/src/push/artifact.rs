//! A component as a Wasm artifact: one layer that is the component, and a configuration that tells what it needs.
//!
//! Source: CNCF TAG Runtime, "Wasm OCI Artifact layout".

use serde_json::{Value, json};

use super::Pushing;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::events::Progress;
use crate::model::{Descriptor, OCI_MANIFEST};
use crate::record::Record;
use crate::world::{World, world};

/// The configuration's media type.
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const WASM_LAYER: &str = "application/wasm";

impl Pushing<'_> {
    /// Sends the component of an image as an artifact. One that is an artifact goes as it is.
    pub(super) async fn artifact(&self, record: &Record, version: Option<&str>) -> Result<Descriptor, ImageError> {
        if record.artifact_type.is_some() {
            return self.image(record, version).await;
        }
        let file = record.config_file()?;
        let entrypoint = file.config.entrypoint.iter().flatten().chain(file.config.cmd.iter().flatten()).next();
        let entrypoint = entrypoint.cloned().unwrap_or_default();
        let (path, digest) = self.store.component(&record.id, &entrypoint).await?;
        let digest: Digest = digest.parse()?;
        let (size, world) = {
            let mut file = std::fs::File::open(&path).during("open the component", &path)?;
            (file.metadata().during("look at", &path)?.len(), world(&mut file).during("read the component", &path)?)
        };
        let Some(world) = world else {
            let reason = format!("its entrypoint \"{entrypoint}\" is no WebAssembly");
            return Err(ImageError::NoComponent { image: record.id.to_string(), reason });
        };
        let component = Descriptor { media_type: WASM_LAYER.to_owned(), digest, size };
        let id = component.digest.short();
        (self.progress)(Progress::of(id, "Preparing"));
        if !self.has(&component.digest).await? {
            self.send(id, &component, &path, None).await?;
        }
        (self.progress)(Progress::of(id, "Pushed"));
        let config = config(&component.digest, &world, file.created.map(|at| at.to_rfc3339()), file.author.as_deref());
        let config_digest = Digest::of(&config);
        self.document(&config_digest, &config).await?;
        let annotations = file.config.labels.iter().filter(|(name, _)| name.starts_with("org.opencontainers.image."));
        let annotations: serde_json::Map<String, Value> =
            annotations.map(|(name, value)| (name.clone(), value.clone().into())).collect();
        let config =
            Descriptor { media_type: WASM_CONFIG.to_owned(), size: config.len() as u64, digest: config_digest };
        self.manifest(manifest(&config, &component, annotations), version).await
    }
}

fn manifest(config: &Descriptor, component: &Descriptor, annotations: serde_json::Map<String, Value>) -> Vec<u8> {
    let descriptor = |one: &Descriptor| json!({ "mediaType": one.media_type, "digest": one.digest, "size": one.size });
    let mut manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": descriptor(config), "layers": [descriptor(component)],
    });
    if !annotations.is_empty() {
        manifest["annotations"] = annotations.into();
    }
    manifest.to_string().into_bytes()
}

fn config(component: &Digest, world: &World, created: Option<String>, author: Option<&str>) -> Vec<u8> {
    let mut config = json!({
        "architecture": "wasm",
        "os": if world.component { "wasip2" } else { "wasip1" },
        "layerDigests": [component],
    });
    if world.component {
        config["component"] = json!({ "imports": world.imports, "exports": world.exports });
    }
    if let Some(created) = created {
        config["created"] = created.into();
    }
    if let Some(author) = author {
        config["author"] = author.into();
    }
    config.to_string().into_bytes()
}
