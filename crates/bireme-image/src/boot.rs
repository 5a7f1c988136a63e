//! Which boot of the machine this is: what was written before it may not be on the disk.

use std::sync::OnceLock;

/// Which boot of the machine this is.
///
/// Source: `random(4)`, `/proc/sys/kernel/random/boot_id`.
pub(crate) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    })
}
