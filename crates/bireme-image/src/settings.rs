//! How registries are spoken to, and what is refused as too large.

/// How registries are spoken to, and what is refused as too large.
#[derive(Clone, Debug, Default)]
pub struct RegistrySettings {
    /// Registries (`host[:port]`) reached over plain HTTP, beside `localhost` and `127.0.0.0/8`.
    pub insecure: Vec<String>,
    /// Mirrors of `docker.io`, asked first and in order: `https://mirror.example`, `http://127.0.0.1:5000`, `host:port`.
    pub mirrors: Vec<String>,
    /// What is refused as too large.
    pub limits: Limits,
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
