//! Names of things that are made by the engine.

use std::fmt;

/// Identifies one workload for as long as it exists: 64 lower-case hexadecimal digits, as Docker's container IDs.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadId(String);

impl WorkloadId {
    /// # Errors
    /// When `text` is not 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(text.to_owned()))
        }
    }

    /// Makes an ID of 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, as Docker prints IDs and names hosts by default.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

/// A network place: one network namespace that one or more workloads share.
///
/// A Linux container has one of its own; the components of an app share the one of their host process. Starts with a
/// letter or digit, then letters, digits, `_`, `.`, `-`; at most 96 bytes, so that it is a safe file name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

impl SandboxId {
    /// # Errors
    /// When `text` is empty, too long or has a character that a sandbox's name may not have.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let plain = |b: u8| b.is_ascii_alphanumeric();
        let inner = |b: u8| plain(b) || matches!(b, b'_' | b'.' | b'-');
        if !text.is_empty() && text.len() <= 96 && plain(text.as_bytes()[0]) && text.bytes().all(inner) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(text.to_owned()))
        }
    }

    /// The name, as it stands in names of files.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&WorkloadId> for SandboxId {
    fn from(id: &WorkloadId) -> Self {
        Self(id.0.clone())
    }
}

/// The text is not an identifier of this type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid identifier")]
pub struct InvalidId(pub String);

macro_rules! text_id {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $type {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }
        impl From<$type> for String {
            fn from(id: $type) -> String {
                id.0
            }
        }
    };
}
text_id!(WorkloadId);
text_id!(SandboxId);
