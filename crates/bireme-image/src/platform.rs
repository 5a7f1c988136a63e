//! What an image runs on: `os/architecture[/variant]`.

use std::fmt;
use std::str::FromStr;

use bireme_core::WorkloadKind;
use bireme_core::nearest::nearest;
use serde::{Deserialize, Serialize};

/// Operating system, architecture and variant in the words of the OCI image specification.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `linux`; for Wasm `wasi`.
    pub os: String,
    /// In the words of Go, such as `amd64` or `arm64`; for Wasm `wasm`.
    pub architecture: String,
    /// Such as `v7`; for Wasm `wasip1` or `wasip2`. Empty if there is none.
    #[serde(default)]
    pub variant: String,
}

/// A text that is not a platform.
#[derive(Debug, thiserror::Error)]
#[error("\"{0}\": unknown operating system or architecture: invalid argument; {1}")]
pub struct PlatformError(String, String);

/// Operating systems and architectures that images are made for. Source: containerd, `platforms`; Go's `GOOS`, `GOARCH`.
const SYSTEMS: [&str; 19] = [
    "linux",
    "wasi",
    "wasip1",
    "wasip2",
    "wasip3",
    "windows",
    "darwin",
    "macos",
    "freebsd",
    "openbsd",
    "netbsd",
    "dragonfly",
    "solaris",
    "illumos",
    "aix",
    "android",
    "plan9",
    "js",
    "zos",
];
const ARCHITECTURES: [&str; 24] = [
    "amd64", "arm64", "arm", "386", "wasm", "wasm32", "riscv64", "s390x", "ppc64le", "ppc64", "mips", "mipsle",
    "mips64", "mips64le", "loong64", "riscv", "sparc64", "x86_64", "x86-64", "aarch64", "i386", "armhf", "armel",
    "s390",
];
/// What is most likely meant.
const LIKELY: [&str; 8] = [
    "linux/amd64",
    "linux/arm64",
    "wasi/wasm",
    "linux/arm/v7",
    "linux/386",
    "linux/riscv64",
    "linux/s390x",
    "linux/ppc64le",
];

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

    /// As it was recorded, whatever the image said of itself: what is stored must be read, listed and removed.
    pub(crate) fn recorded(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Self { os: next(), architecture: next(), variant: next() }
    }

    /// Whether each part is a plain word, as all that are in use are, also those that nobody here has heard of.
    pub(crate) fn is_plain(&self) -> bool {
        let plain = |part: &str| {
            let letter = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
            part.len() <= 64 && part.bytes().all(letter)
        };
        plain(&self.os) && plain(&self.architecture) && plain(&self.variant)
    }

    pub(crate) fn new(os: &str, architecture: &str, variant: &str) -> Self {
        Self { os: os.to_owned(), architecture: architecture.to_owned(), variant: variant.to_owned() }.normal()
    }
}

/// Whether there is such a machine: a component runs on no operating system, and a system on no component.
fn known(os: &str, architecture: &str, variant: Option<&str>) -> bool {
    if os.starts_with("wasi") || architecture.starts_with("wasm") {
        let generation = |variant: &str| SYSTEMS.contains(&variant) && variant.starts_with("wasip");
        return SYSTEMS.contains(&os)
            && os.starts_with("wasi")
            && matches!(architecture, "wasm" | "wasm32")
            && variant.is_none_or(generation);
    }
    SYSTEMS.contains(&os) && ARCHITECTURES.contains(&architecture)
}

impl FromStr for Platform {
    type Err = PlatformError;

    /// Reads `os/architecture[/variant]`; also `linux`, `amd64` and the like alone, completed from this machine.
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let fault = || {
            let lower = text.to_ascii_lowercase();
            // Half a platform has no near word; what it is half of is known.
            let near = if lower.contains("wasm") || lower.contains("wasi") {
                Some("wasi/wasm")
            } else {
                nearest(&lower, LIKELY)
            };
            let hint = match near {
                Some(near) => format!("did you mean {near}?"),
                None => "write os/architecture, such as linux/amd64 or wasi/wasm".to_owned(),
            };
            PlatformError(text.to_owned(), hint)
        };
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
            ["wasm" | "wasi"] => Ok(Self::wasm()),
            [
                architecture @ ("amd64" | "x86_64" | "arm64" | "aarch64" | "386" | "arm" | "riscv64" | "s390x"
                | "ppc64le"),
            ] => Ok(Self::new("linux", architecture, "")),
            [os, architecture] if known(os, architecture, None) => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] if known(os, architecture, Some(variant)) => {
                Ok(Self::new(os, architecture, variant))
            }
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
    fn what_is_recorded_is_read_whatever_it_is() {
        for text in ["linux/amd64", "linux/arm/v7", "linux/alpha", "linux/loongarch64", "wasip1/amd64", "/", "a"] {
            let read = Platform::recorded(text);
            assert_eq!(Platform::recorded(&read.to_string()), read, "{text}");
        }
        assert_eq!(Platform::recorded("linux/alpha").architecture, "alpha");
        assert!(Platform::new("linux", "loongarch64", "v1.0").is_plain());
        for odd in ["../../x", "amd64/v1", "a b", "a\n", &"x".repeat(65)] {
            assert!(!Platform::new("linux", odd, "").is_plain(), "{odd:?}");
        }
    }

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
        for (bad, near) in [
            ("wasm32", "did you mean wasi/wasm?"),
            ("wasm32/wasi", "did you mean wasi/wasm?"),
            ("wasi/amd64", "did you mean wasi/wasm?"),
            ("wasi/wasm64", "did you mean wasi/wasm?"),
            ("wasi/wasm/v1", "did you mean wasi/wasm?"),
            ("js/wasm", "did you mean wasi/wasm?"),
            ("linux/wasm", "did you mean wasi/wasm?"),
            ("linux/amd46", "did you mean linux/amd64?"),
            ("linus/arm64", "did you mean linux/arm64?"),
            ("??", "write os/architecture, such as linux/amd64 or wasi/wasm"),
        ] {
            let error = bad.parse::<Platform>().unwrap_err().to_string();
            assert_eq!(error, format!("\"{bad}\": unknown operating system or architecture: invalid argument; {near}"));
        }
        assert_eq!("wasi/wasm32".parse::<Platform>().unwrap(), Platform::wasm());
    }
}
