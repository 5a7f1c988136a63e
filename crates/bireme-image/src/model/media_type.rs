//! Media types of what registries hold, and what they say of layers.
//!
//! Source: OCI image specification, `media-types.md`; distribution, "Image Manifest Version 2, Schema 2"; CNCF TAG Runtime, "WASM
//! OCI Artifact Layout".

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
    /// How a layer of that media type is wrapped; `None` for what is no layer we know.
    pub(super) fn of(media_type: &str) -> Option<Self> {
        Some(match media_type {
            OCI_LAYER | "application/vnd.docker.image.rootfs.diff.tar" => Self::Tar,
            OCI_LAYER_GZIP | "application/vnd.docker.image.rootfs.diff.tar.gzip" => Self::Gzip,
            OCI_LAYER_ZSTD | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Self::Zstd,
            _ if WASM_LAYERS.contains(&media_type) => Self::Wasm,
            _ => return None,
        })
    }

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
