//! Manifests and configurations as they stand in registries, and [`Image`] as the engine sees it.

use std::collections::BTreeMap;
use std::fmt;

use bireme_core::WorkloadKind;
use chrono::{DateTime, Utc};
use oci_spec::image::{ImageIndex, ImageManifest};
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::platform::Platform;

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The forms in which a registry is asked for a manifest.
pub(crate) const ACCEPT: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

/// Media types of a layer that is the component itself.
const WASM_LAYERS: [&str; 5] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
    "application/vnd.bytecodealliance.wasm.component.layer.v0+wasm",
    "application/vnd.bytecodealliance.component.layer.v0+wasm",
];

/// Largest manifest, index or configuration that is read, in bytes. Source: the limit of distribution and containerd.
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Content by name, type and length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
}

/// How the bytes of a layer are wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LayerForm {
    Tar,
    Gzip,
    Zstd,
    /// Not a file tree: the component's own bytes.
    Wasm,
}

impl LayerForm {
    /// As the database calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tar => "tar",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Wasm => "wasm",
        }
    }

    /// The media type of a layer of an image that is wrapped so.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Tar => OCI_LAYER,
            Self::Gzip => OCI_LAYER_GZIP,
            Self::Zstd => OCI_LAYER_ZSTD,
            Self::Wasm => "application/wasm",
        }
    }
}

impl Descriptor {
    /// # Errors
    /// `MediaType` for what is no layer we know.
    pub(crate) fn form(&self) -> Result<LayerForm, ImageError> {
        let name = self.media_type.as_str();
        Ok(match name {
            OCI_LAYER | "application/vnd.docker.image.rootfs.diff.tar" => LayerForm::Tar,
            OCI_LAYER_GZIP | "application/vnd.docker.image.rootfs.diff.tar.gzip" => LayerForm::Gzip,
            OCI_LAYER_ZSTD | "application/vnd.docker.image.rootfs.diff.tar.zstd" => LayerForm::Zstd,
            _ if WASM_LAYERS.contains(&name) => LayerForm::Wasm,
            _ => {
                return Err(ImageError::MediaType {
                    what: format!("layer {}", self.digest),
                    media_type: self.media_type.clone(),
                });
            }
        })
    }

    fn from_oci(oci: &oci_spec::image::Descriptor) -> Result<Self, ImageError> {
        Ok(Self {
            media_type: oci.media_type().to_string(),
            digest: oci.digest().to_string().parse()?,
            size: oci.size(),
        })
    }
}

/// A manifest or an index, read and checked.
#[derive(Clone, Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<(Descriptor, Option<Platform>)>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    /// Declared for artifacts, else the configuration's type if it is none of an image.
    pub(crate) artifact_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

impl Document {
    /// Reads a manifest or index. `what` names it in errors.
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, ImageError> {
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Err(ImageError::TooLarge { what: what.to_owned(), limit: DOCUMENT_LIMIT });
        }
        let shape: Shape = serde_json::from_slice(bytes).map_err(|error| ImageError::malformed(what, error))?;
        if shape.schema_version != Some(2) {
            let found = shape.schema_version.map_or("none".to_owned(), |version| version.to_string());
            return Err(ImageError::malformed(what, format!("schema version is {found}, only 2 is supported")));
        }
        // Two readers would see two images under one digest. Source: CVE-2021-41190.
        if shape.manifests.is_some() && (shape.config.is_some() || shape.layers.is_some()) {
            return Err(ImageError::malformed(what, "it is a manifest and an index at once"));
        }
        let is_index = match shape.media_type.as_deref() {
            Some(OCI_INDEX | DOCKER_LIST) => true,
            Some(OCI_MANIFEST | DOCKER_MANIFEST) => false,
            None => shape.manifests.is_some(),
            Some(other) => {
                return Err(ImageError::MediaType { what: what.to_owned(), media_type: other.to_owned() });
            }
        };
        if is_index {
            let index = ImageIndex::from_reader(bytes).map_err(|error| ImageError::malformed(what, error))?;
            let mut entries = Vec::new();
            for entry in index.manifests() {
                let platform = entry.platform().as_ref().map(|platform| {
                    Platform::new(
                        &platform.os().to_string(),
                        &platform.architecture().to_string(),
                        platform.variant().as_deref().unwrap_or_default(),
                    )
                });
                entries.push((Descriptor::from_oci(entry)?, platform));
            }
            return Ok(Self::Index(entries));
        }
        let manifest = ImageManifest::from_reader(bytes).map_err(|error| ImageError::malformed(what, error))?;
        let config = Descriptor::from_oci(manifest.config())?;
        let layers = manifest.layers().iter().map(Descriptor::from_oci).collect::<Result<_, _>>()?;
        let artifact_type = manifest.artifact_type().as_ref().map(ToString::to_string);
        Manifest { config, layers, artifact_type }.checked(what).map(Self::Manifest)
    }
}

impl Manifest {
    /// Whether it is a component in the form of an artifact rather than of an image with a root filesystem.
    pub(crate) fn is_wasm_artifact(&self) -> bool {
        self.config.media_type.starts_with("application/vnd.wasm.config.")
            || self.layers.iter().any(|layer| layer.form().is_ok_and(|form| form == LayerForm::Wasm))
    }

    /// The manifest of an image as bytes, always the same for the same content.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let descriptor = |descriptor: &Descriptor| {
            serde_json::json!({
                "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size,
            })
        };
        let layers: Vec<_> = self.layers.iter().map(descriptor).collect();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": descriptor(&self.config), "layers": layers,
        });
        manifest.to_string().into_bytes()
    }

    fn checked(self, what: &str) -> Result<Self, ImageError> {
        for layer in &self.layers {
            layer.form()?;
        }
        if self.config.size > DOCUMENT_LIMIT {
            return Err(ImageError::TooLarge { what: format!("the configuration of {what}"), limit: DOCUMENT_LIMIT });
        }
        if self.is_wasm_artifact() {
            if self.layers.len() != 1 {
                return Err(ImageError::malformed(
                    what,
                    format!("a Wasm artifact has one layer, the component; this one has {}", self.layers.len()),
                ));
            }
            self.layers[0].form().and_then(|form| match form {
                LayerForm::Wasm => Ok(()),
                _ => Err(ImageError::malformed(what, "the layer of a Wasm artifact must be of type application/wasm")),
            })?;
        } else if !matches!(
            self.config.media_type.as_str(),
            OCI_CONFIG | "application/vnd.docker.container.image.v1+json"
        ) {
            return Err(ImageError::MediaType {
                what: format!("the configuration of {what}"),
                media_type: self.config.media_type,
            });
        }
        Ok(self)
    }
}

pub(crate) fn null_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An image's configuration as it is stored and hashed, with Docker's additions to the OCI form.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) author: Option<String>,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) architecture: String,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) os: String,
    #[serde(default, deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub(crate) variant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) config: ImageConfig,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) rootfs: RootFs,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) history: Vec<History>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    #[serde(default, deserialize_with = "null_default")]
    pub(crate) diff_ids: Vec<Digest>,
}

impl ConfigFile {
    pub(crate) fn parse(bytes: &[u8], what: &str) -> Result<Self, ImageError> {
        serde_json::from_slice(bytes).map_err(|error| ImageError::malformed(format!("configuration of {what}"), error))
    }

    /// The configuration of an artifact may be anything; where it is an image's, it is read as one.
    pub(crate) fn of_artifact(bytes: &[u8]) -> Self {
        let counted = Counts::of(bytes).is_ok_and(|counts| counts.check().is_ok());
        if counted { serde_json::from_slice(bytes).unwrap_or_default() } else { Self::default() }
    }

    /// Of an image that has nothing yet.
    pub(crate) fn empty(platform: Platform) -> Self {
        Self {
            os: platform.os,
            architecture: platform.architecture,
            variant: platform.variant,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
            ..Self::default()
        }
    }

    pub(crate) fn platform(&self) -> Platform {
        Platform::new(&self.os, &self.architecture, &self.variant)
    }
}

/// How many things a configuration lists. They are counted before anything of it is kept: some bytes each in a document
/// are hundreds in memory.
#[derive(Default, Deserialize)]
pub(crate) struct Counts {
    #[serde(default)]
    history: Count,
    #[serde(default, deserialize_with = "null_default")]
    config: ConfigCounts,
    /// What manifests and indexes have. The digest of one is the ID of an artifact, and no image may come to have the same.
    #[serde(default, rename = "schemaVersion")]
    schema_version: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigCounts {
    exposed_ports: Count,
    env: Count,
    entrypoint: Count,
    cmd: Count,
    volumes: Count,
    labels: Count,
    #[serde(deserialize_with = "null_default")]
    healthcheck: HealthCounts,
    shell: Count,
    on_build: Count,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HealthCounts {
    test: Count,
}

impl Counts {
    pub(crate) fn of(config: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(config)
    }

    /// # Errors
    /// A sentence that names what there is too much of.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.schema_version.is_some() {
            return Err("it is a manifest: it has a schemaVersion".to_owned());
        }
        let config = &self.config;
        let words = config.entrypoint.0 + config.cmd.0 + config.shell.0 + config.healthcheck.test.0;
        // None of them hinders what people build; a workload takes no more of most of them either.
        let bounds = [
            (self.history.0, 10_000, "steps of its history"),
            (config.labels.0, 10_000, "labels"),
            (config.env.0, 10_000, "variables"),
            (words, 10_000, "words of its commands"),
            (config.on_build.0, 1_000, "ONBUILD triggers"),
            (config.exposed_ports.0, 200_000, "ports"),
            (config.volumes.0, 1_000, "volumes"),
        ];
        match bounds.iter().find(|(found, most, _)| found > most) {
            None => Ok(()),
            Some((found, most, what)) => {
                Err(format!("it has {found} {what}, and no image may have more than {most}: build it with less"))
            }
        }
    }
}

/// The first `N` of a list; the rest is read, and not kept: some bytes in a document are hundreds in memory.
#[derive(Clone, Debug)]
pub(crate) struct First<T, const N: usize>(pub(crate) Vec<T>);

impl<T, const N: usize> Default for First<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Serialize, const N: usize> Serialize for First<T, N> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(to)
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for First<T, N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Taking<T, const N: usize>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Taking<T, N> {
            type Value = First<T, N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(First::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() < N {
                    match all.next_element()? {
                        Some(one) => first.push(one),
                        None => return Ok(First(first)),
                    }
                }
                while all.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        from.deserialize_any(Taking(std::marker::PhantomData))
    }
}

/// The length of a list or the size of a map, of which nothing is kept.
#[derive(Default)]
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or a map")
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while all.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        from.deserialize_any(Counting)
    }
}

/// What a workload of an image starts with unless told otherwise. Fields are Docker's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// `user[:group]`; empty is root.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Such as `80/tcp`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// `None` if the image has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `None` if the image has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths inside that are volumes.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Empty is `/`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// By name.
    #[serde(deserialize_with = "texts", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How to tell whether it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What shell-form commands are run with; `None` is `/bin/sh -c`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Instructions for images built from this one.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
}

/// The value of a set that is spelt as a map: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Option<Braces>")]
pub struct Empty {}

/// What [`Empty`] is read from; null is as good, as in Go.
#[derive(Deserialize)]
struct Braces {}

impl From<Option<Braces>> for Empty {
    fn from(_: Option<Braces>) -> Self {
        Self {}
    }
}

/// A map of texts, of which null is the empty one, as in Go.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let map = Option::<BTreeMap<String, Option<String>>>::deserialize(from)?.unwrap_or_default();
    Ok(map.into_iter().map(|(name, text)| (name, text.unwrap_or_default())).collect())
}

/// Docker's health check; durations are in nanoseconds, 0 inherits the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// Failures in a row until it counts as unhealthy.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// One step in the making of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The step made no layer.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

/// A stored image of one platform.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: ImageId,
    /// Familiar names with tag, sorted: `alpine:3`.
    pub references: Vec<String>,
    /// Familiar names with the digest a registry knows them by: `alpine@sha256:…`.
    pub repo_digests: Vec<String>,
    pub created: Option<DateTime<Utc>>,
    /// Bytes of all layers, unpacked where they are unpacked.
    pub size: u64,
    pub platform: Platform,
    pub config: ImageConfig,
    pub author: Option<String>,
    pub comment: Option<String>,
    pub history: Vec<History>,
    /// Bytes of each layer, lowest first, as `size`; `history` entries that made a layer correspond in order.
    pub layer_sizes: Vec<u64>,
    /// Digests of the unpacked layers, lowest first; of a Wasm artifact, of the component itself.
    pub diff_ids: Vec<Digest>,
    /// Set for Wasm artifacts: the type the manifest declares, else that of its configuration.
    pub artifact_type: Option<String>,
    /// When a name was last given to it.
    pub last_tagged: Option<DateTime<Utc>>,
}

impl Image {
    /// What kind of workload it makes, decided from platform or media type alone.
    pub fn kind(&self) -> WorkloadKind {
        if self.artifact_type.is_some() { WorkloadKind::Component } else { self.platform.kind() }
    }
}

/// One line of a list of images.
#[derive(Clone, Debug)]
pub struct ImageSummary {
    pub id: ImageId,
    /// Familiar names with tag; empty for a dangling image.
    pub references: Vec<String>,
    pub repo_digests: Vec<String>,
    pub created: Option<DateTime<Utc>>,
    /// Bytes, as in [`Image::size`].
    pub size: u64,
    pub platform: Platform,
    pub labels: BTreeMap<String, String>,
    pub kind: WorkloadKind,
}

/// What the cache of builds holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedLayer {
    pub id: Digest,
    /// Bytes, unpacked.
    pub size: u64,
    /// An image has it too, so that clearing the cache frees nothing of it.
    pub shared: bool,
    /// Milliseconds since the Unix epoch.
    pub last_used: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_what_it_is_in_go() {
        let text = br#"{"os":null,"architecture":"amd64","variant":null,"history":[{"empty_layer":null}],"config":{
            "Volumes":{"/v":null},"ExposedPorts":{"80/tcp":null},"Labels":{"a":null,"b":"c"},"User":null,
            "Healthcheck":{"Test":null,"Interval":null,"Retries":null}}}"#;
        assert!(Counts::of(text).unwrap().check().is_ok());
        let file = ConfigFile::parse(text, "x").unwrap();
        assert_eq!((file.os.as_str(), file.variant.as_str(), file.history[0].empty_layer), ("", "", false));
        assert!(file.config.volumes.contains_key("/v") && file.config.exposed_ports.contains_key("80/tcp"));
        assert_eq!(file.config.labels.values().collect::<Vec<_>>(), ["", "c"]);
        assert_eq!(file.config.healthcheck, Some(Healthcheck::default()));
        for other in ["7", "\"x\"", "[1]"] {
            let text = format!("{{\"config\":{{\"Volumes\":{{\"/v\":{other}}}}}}}");
            assert!(ConfigFile::parse(text.as_bytes(), "x").is_err(), "{other}");
        }
    }

    #[test]
    fn what_a_configuration_lists_is_counted() {
        let fields: [(&str, usize, &str); 8] = [
            ("Labels", 10_000, "labels"),
            ("Env", 10_000, "variables"),
            ("Cmd", 10_000, "words of its commands"),
            ("Shell", 10_000, "words of its commands"),
            ("OnBuild", 1_000, "ONBUILD triggers"),
            ("ExposedPorts", 200_000, "ports"),
            ("Volumes", 1_000, "volumes"),
            ("", 10_000, "steps of its history"),
        ];
        for (field, most, what) in fields {
            let of = |count: usize| {
                let map = matches!(field, "Labels" | "ExposedPorts" | "Volumes");
                let member = |at| if map { format!("\"{at}\":{{}}") } else { "\"a\"".to_owned() };
                let all: Vec<String> = (0..count).map(member).collect();
                let all = all.join(",");
                let value = if map { format!("{{{all}}}") } else { format!("[{all}]") };
                let text = match field {
                    "" => format!("{{\"config\":null,\"history\":{value}}}"),
                    _ => format!("{{\"config\":{{\"{field}\":{value},\"Healthcheck\":null}},\"history\":null}}"),
                };
                Counts::of(text.as_bytes()).unwrap().check()
            };
            assert_eq!(of(most), Ok(()), "{field}");
            let refused = of(most + 1).unwrap_err();
            assert!(refused.starts_with(&format!("it has {} {what}, ", most + 1)), "{refused}");
        }
    }
}
