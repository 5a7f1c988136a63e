//! Names of content: `sha256:` and 64 hexadecimal digits.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The SHA-256 digest of some content. No other algorithm is taken: none is in use for images.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// Sums up what is read through it.
pub(crate) struct Summed<'a, R> {
    pub(crate) from: R,
    pub(crate) sum: &'a mut Sha256,
}

impl<R: std::io::Read> std::io::Read for Summed<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.from.read(buffer)?;
        self.sum.update(&buffer[..got]);
        Ok(got)
    }
}

/// A text that is not a digest this engine takes.
#[derive(Debug, thiserror::Error)]
#[error("invalid digest \"{0}\": expected \"sha256:\" and 64 lower-case hexadecimal digits")]
pub struct DigestError(pub String);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_hash(Sha256::new_with_prefix(bytes))
    }

    /// The digest of all that is read from `content`.
    ///
    /// # Errors
    /// Those of reading it.
    pub(crate) fn of_all(mut content: impl std::io::Read) -> std::io::Result<Self> {
        let mut hash = Sha256::new();
        std::io::copy(&mut content, &mut hash)?;
        Ok(Self::from_hash(hash))
    }

    pub(crate) fn from_hash(hash: Sha256) -> Self {
        Self(format!("sha256:{}", hex::encode(hash.finalize())))
    }

    /// `sha256:…`
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 64 digits alone; safe as a file name.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The first twelve digits, as Docker prints them.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let digits = text.strip_prefix("sha256:").ok_or_else(|| DigestError(text.to_owned()))?;
        let good = digits.len() == 64 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if good { Ok(Self(text.to_owned())) } else { Err(DigestError(text.to_owned())) }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which image: the digest of its configuration, as Docker has it; for a Wasm artifact, whose configuration many
/// artifacts may share, the digest of its manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ImageId(pub Digest);

impl ImageId {
    /// `sha256:…`
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The first twelve digits, as Docker prints them.
    pub fn short(&self) -> &str {
        self.0.short()
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ImageId {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_only_whole_sha256() {
        let good = Digest::of(b"");
        assert_eq!(good.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(good.as_str().parse::<Digest>().unwrap(), good);
        assert_eq!(good.short(), "e3b0c44298fc");
        for bad in ["", "sha256:", "sha256:ABC", "sha512:00", "../../etc/passwd", &good.as_str().to_uppercase()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
