//! How registries are spoken to, and what is refused as too large.

use std::path::PathBuf;

/// How registries are spoken to, and what is refused as too large.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Registries (`host[:port]`) reached over plain HTTP, beside `localhost` and `127.0.0.0/8`.
    pub insecure: Vec<String>,
    /// Mirrors of `docker.io`, asked first and in order: `https://mirror.example`, `http://127.0.0.1:5000`, `host:port`.
    pub mirrors: Vec<String>,
    /// Folders in which a registry may have one of its own, called by its host and port, with a `hosts.toml` or certificates.
    /// The first that has something for a registry counts. They are read anew for each pull.
    pub config_dirs: Vec<PathBuf>,
    /// Layers that one pull fetches at once.
    pub downloads: usize,
    /// Layers that one push sends at once.
    pub uploads: usize,
    /// What is refused as too large.
    pub limits: Limits,
}

impl Default for RegistrySettings {
    /// No folders, mirrors or insecure registries; as many layers at once as moby's `max-concurrent-uploads`, and one more than
    /// its `max-concurrent-downloads`.
    fn default() -> Self {
        Self {
            insecure: Vec::new(),
            mirrors: Vec::new(),
            config_dirs: Vec::new(),
            downloads: 4,
            uploads: 5,
            limits: Limits::default(),
        }
    }
}

/// Bounds on what an image may make this machine write.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes one layer may unpack to.
    pub layer_bytes: u64,
    /// How many times its packed size a layer may unpack to, once it is larger than `ratio_floor`.
    pub ratio: u64,
    /// Bytes below which the ratio does not count.
    pub ratio_floor: u64,
    /// Files, folders and links in one layer.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes: 128 << 30, ratio: 200, ratio_floor: 1 << 30, entries: 2_000_000 }
    }
}

impl Limits {
    /// The most bytes that `packed` bytes of an archive with many files in it may unpack to.
    pub(crate) fn sent(&self, packed: u64) -> u64 {
        packed.saturating_mul(self.ratio).max(self.ratio_floor)
    }

    /// The most bytes a layer of `packed` bytes may unpack to.
    pub(crate) fn unpacked(&self, packed: u64) -> u64 {
        packed.saturating_mul(self.ratio).max(self.ratio_floor).min(self.layer_bytes)
    }
}
