//! What an image runs on: `os/architecture[/variant]`.

use std::fmt;
use std::str::FromStr;

use bireme_core::WorkloadKind;
use serde::{Deserialize, Serialize};

/// Operating system, architecture and variant in the words of the OCI image specification.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    /// Such as `v7`; for Wasm `wasip1` or `wasip2`. Empty if there is none.
    #[serde(default)]
    pub variant: String,
}

/// A text that is not a platform.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\": unknown operating system or architecture: invalid argument; write os/architecture, such as linux/amd64 or wasi/wasm"
)]
pub struct PlatformError(pub String);

impl Platform {
    /// Linux on this machine's processor.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self { os: "linux".to_owned(), architecture: architecture.to_owned(), variant: String::new() }
    }

    /// `wasi/wasm`
    pub fn wasm() -> Self {
        Self { os: "wasi".to_owned(), architecture: "wasm".to_owned(), variant: String::new() }
    }

    /// As an index lists it.
    pub(crate) fn to_oci(&self) -> serde_json::Value {
        let mut listed = serde_json::json!({ "architecture": self.architecture, "os": self.os });
        if !self.variant.is_empty() {
            listed["variant"] = self.variant.clone().into();
        }
        listed
    }

    /// A component for `wasi/wasm` in any of its spellings, a container for all else.
    pub fn kind(&self) -> WorkloadKind {
        let wasm = self.architecture.starts_with("wasm") || self.os.starts_with("wasi");
        if wasm { WorkloadKind::Component } else { WorkloadKind::Container }
    }

    /// Whether an image of this platform serves a request for `wanted`.
    ///
    /// All spellings of Wasm are one (`wasi/wasm`, `wasip1/wasm`, `wasi/wasm/wasip2`), unless the request names a
    /// variant. Elsewhere a variant counts only if both have one; `arm64` is `arm64/v8`.
    pub fn serves(&self, wanted: &Self) -> bool {
        if self.kind() != wanted.kind() {
            return false;
        }
        if self.kind() == WorkloadKind::Component {
            let generation = |platform: &Self| {
                let name = if platform.variant.is_empty() { &platform.os } else { &platform.variant };
                (name != "wasi").then(|| name.clone())
            };
            return match (generation(self), generation(wanted)) {
                (Some(own), Some(wanted)) => own == wanted,
                _ => true,
            };
        }
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (self.variant == wanted.variant || self.variant.is_empty() || wanted.variant.is_empty())
    }

    fn normal(mut self) -> Self {
        self.architecture = match self.architecture.as_str() {
            "x86_64" | "x86-64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            "i386" => "386".to_owned(),
            "wasm32" => "wasm".to_owned(),
            _ => self.architecture,
        };
        if self.architecture == "arm64" && self.variant == "v8" {
            self.variant.clear();
        }
        self
    }

    pub(crate) fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }.normal()
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Reads `os/architecture[/variant]`; also `linux`, `amd64` and the like alone, completed from this machine.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let fault = || PlatformError(text.to_owned());
        let lower = text.to_ascii_lowercase();
        let good = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        };
        let parts: Vec<&str> = lower.split('/').collect();
        if !parts.iter().all(|part| good(part)) {
            return Err(fault());
        }
        match parts[..] {
            ["linux"] => Ok(Self::host()),
            ["wasm" | "wasi" | "wasm32"] => Ok(Self::wasm()),
            [
                architecture @ ("amd64" | "x86_64" | "arm64" | "aarch64" | "386" | "arm" | "riscv64" | "s390x"
                | "ppc64le"),
            ] => Ok(Self::new("linux", architecture, "")),
            [os, architecture] => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::new(os, architecture, variant)),
            _ => Err(fault()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_which_serves_which() {
        for (own, wanted, serves) in [
            ("linux/amd64", "linux/amd64", true),
            ("linux/amd64", "linux/arm64", false),
            ("linux/arm64", "linux/arm64/v8", true),
            ("linux/arm/v7", "linux/arm/v6", false),
            ("wasi/wasm", "wasi/wasm", true),
            ("wasip1/wasm", "wasi/wasm", true),
            ("wasi/wasm/wasip2", "wasi/wasm", true),
            ("wasi/wasm/wasip2", "wasi/wasm/wasip1", false),
            ("wasip2/wasm", "wasi/wasm/wasip2", true),
            ("wasi/wasm", "linux/amd64", false),
        ] {
            let (own, wanted): (Platform, Platform) = (own.parse().unwrap(), wanted.parse().unwrap());
            assert_eq!(own.serves(&wanted), serves, "{own} for {wanted}");
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "li nux/amd64", "toaster"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }
}
