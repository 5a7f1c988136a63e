//! What the configuration file says of the cache of builds: its key `builder`, as in Docker's daemon.json.
//!
//! Source: moby, `daemon/config/builder.go`.

use std::fmt::{self, Display};

use anyhow::Context as _;
use bireme_core::size::parse_binary;
use bireme_image::CachePolicy;
use serde::Deserialize;

/// The key `builder` of the file. What is not known in it is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BuilderKey {
    #[serde(default)]
    gc: Gc,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Gc {
    enabled: Option<bool>,
    default_keep_storage: Option<String>,
    /// The newer name of the same.
    default_reserved_space: Option<String>,
    /// More than that is never kept, whatever is reserved.
    default_max_used_space: Option<String>,
}

/// What is kept of the cache of builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildCache {
    /// Whether it is cleared up by itself.
    collected: bool,
    /// The most that it may have, in bytes; `None` for a part of the disk.
    most_bytes: Option<u64>,
}

impl BuildCache {
    /// # Errors
    /// A size that is none.
    pub(crate) fn of(key: BuilderKey) -> anyhow::Result<Self> {
        let Gc { enabled, default_keep_storage, default_reserved_space, default_max_used_space } = key.gc;
        let size = default_max_used_space.or(default_reserved_space).or(default_keep_storage);
        let parse = |size: String| parse_binary(&size).with_context(|| format!("builder.gc: {size:?} is no size"));
        Ok(Self {
            collected: enabled.unwrap_or(true),
            most_bytes: size.map(parse).transpose()?.filter(|size| *size > 0),
        })
    }

    /// The policy on a disk of so many bytes; `None` where nothing is cleared up by itself.
    pub(crate) fn policy(self, disk: u64) -> Option<CachePolicy> {
        let usual = CachePolicy::for_disk(disk);
        let most_bytes = self.most_bytes.unwrap_or(usual.most_bytes);
        self.collected.then_some(CachePolicy { most_bytes, ..usual })
    }
}

impl Display for BuildCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.collected, self.most_bytes) {
            (false, _) => f.write_str("off"),
            (true, Some(bytes)) => write!(f, "at most {bytes} bytes"),
            (true, None) => f.write_str("a tenth of the disk"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> anyhow::Result<BuildCache> {
        BuildCache::of(serde_json::from_str(text)?)
    }

    #[test]
    fn the_keys_of_docker_are_read() {
        let disk = 1 << 40;
        let usual = CachePolicy::for_disk(disk);
        assert_eq!(of("{}").unwrap().policy(disk), Some(usual));
        for text in [
            r#"{"gc":{"defaultKeepStorage":"20GB"}}"#,
            r#"{"gc":{"enabled":true,"defaultReservedSpace":"20GB"}}"#,
            r#"{"gc":{"defaultReservedSpace":"1GB","defaultMaxUsedSpace":"20GB"}}"#,
        ] {
            let policy = of(text).unwrap().policy(disk).unwrap();
            assert_eq!(policy, CachePolicy { most_bytes: 20 << 30, ..usual }, "{text}");
        }
        assert_eq!(of(r#"{"gc":{"enabled":false}}"#).unwrap().policy(disk), None);
        for (text, said) in [
            (r#"{"gc":{"defaultKeepStorage":"much"}}"#, "\"much\" is no size"),
            (r#"{"gc":{"policy":[]}}"#, "unknown field `policy`"),
            (r#"{"entitlements":{}}"#, "unknown field `entitlements`"),
        ] {
            let refused = format!("{:#}", of(text).unwrap_err());
            assert!(refused.contains(said), "{text}: {refused}");
        }
    }
}
