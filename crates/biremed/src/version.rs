//! Versions of the Engine API: what is served, and how a path asks for one.

use crate::error::ApiError;

/// A version `1.N` of the API, by its `N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion(pub u32);

impl ApiVersion {
    /// The oldest that is served.
    pub const MIN: Self = Self(24);
    /// The newest: that of the wire types we are built with, and what an unversioned path means.
    pub const MAX: Self = Self(53);
    /// From here on, framed streams have a content type of their own.
    pub const MULTIPLEXED_TYPE: Self = Self(42);

    /// Takes `/v1.N` off a path. `None` when there is no such prefix.
    ///
    /// # Errors
    /// `Invalid`, in Docker's words, when the version is not served.
    pub fn split(path: &str) -> Result<Option<(Self, &str)>, ApiError> {
        let Some(rest) = path.strip_prefix("/v") else { return Ok(None) };
        let (number, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let Some((major, minor)) = number.split_once('.') else { return Ok(None) };
        let (Ok(major), Ok(minor)) = (major.parse::<u32>(), minor.parse::<u32>()) else { return Ok(None) };
        let asked = Self(minor);
        if major > 1 || asked > Self::MAX {
            return Err(ApiError::invalid(format!(
                "client version {number} is too new. Maximum supported API version is {}",
                Self::MAX
            )));
        }
        if major < 1 || asked < Self::MIN {
            return Err(ApiError::invalid(format!(
                "client version {number} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
                Self::MIN
            )));
        }
        Ok(Some((asked, path)))
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Result<Option<(u32, &str)>, &str>) {
        let got = ApiVersion::split(path).map(|found| found.map(|(version, rest)| (version.0, rest)));
        assert_eq!(got.as_ref().map_err(ApiError::message).copied(), expected, "{path}");
    }

    #[test]
    fn versions_are_read_from_paths() {
        check("/_ping", Ok(None));
        check("/volumes", Ok(None));
        check("/v1.45/info", Ok(Some((45, "/info"))));
        check("/v1.24", Ok(Some((24, "/"))));
        check("/v1.x/info", Ok(None));
        check("/v1.99/info", Err("client version 1.99 is too new. Maximum supported API version is 1.53"));
        check(
            "/v1.12/info",
            Err(
                "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version",
            ),
        );
    }
}
