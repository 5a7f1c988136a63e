//! Volumes.

use std::collections::BTreeMap;

use super::answers;

answers! {
    /// The list of volumes.
    ///
    /// Source: Docker Engine API, `VolumeList`.
    #[serde(rename_all = "PascalCase")]
    pub struct Volumes {
        /// In no order.
        volumes: Vec<Volume>,
    }

    /// A volume.
    ///
    /// Source: Docker Engine API, `VolumeInspect`.
    #[serde(rename_all = "PascalCase")]
    pub struct Volume {
        /// Its only identity; 64 hexadecimal digits when it is anonymous.
        name: String,
        /// `local` for this machine's.
        driver: String,
        /// `local` or `global`.
        scope: String,
        /// Its folder on the machine.
        mountpoint: String,
        /// After RFC 3339.
        created_at: String,
        /// What it was given at create.
        labels: BTreeMap<String, String>,
        /// Only in the answer about disk usage.
        usage_data: VolumeUsage,
    }

    /// How much a volume is used.
    #[serde(rename_all = "PascalCase")]
    pub struct VolumeUsage {
        /// Bytes; -1 when it is not known.
        size: i64,
        /// How many containers have it; -1 when it is not known.
        ref_count: i64,
    }
}
