//! Addresses of MySQL servers: `mysql://USER:PASSWORD@HOST:PORT/DATABASE?ssl-mode=REQUIRED`.

use percent_encoding::percent_decode_str;
use url::Url;

use crate::host::server::LONGEST_ADDRESS;

const DEFAULT_PORT: u16 = 3306;

/// What an address says.
#[cfg_attr(test, derive(Debug, PartialEq, Eq))]
pub(super) struct Address {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: Option<String>,
    /// The connection is to be secured. Source: Spin's documentation, "MySQL": any mode but `disabled` asks for it.
    pub is_secured: bool,
}

impl Address {
    /// # Errors
    /// A sentence, without the address, which may hold a password.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let malformed = |why: &str| format!("the address is not mysql://USER:PASSWORD@HOST/DATABASE: {why}");
        if text.len() > LONGEST_ADDRESS {
            return Err(malformed("it is too long"));
        }
        let url = Url::parse(text).map_err(|error| malformed(&error.to_string()))?;
        if url.scheme() != "mysql" {
            return Err(malformed("its scheme is another"));
        }
        let decoded = |text: &str| {
            let text = percent_decode_str(text).decode_utf8();
            text.map(std::borrow::Cow::into_owned).map_err(|_| malformed("a part of it is not UTF-8"))
        };
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| malformed("it names no host"))?;
        let database = decoded(url.path().trim_start_matches('/'))?;
        let mode = url
            .query_pairs()
            .find(|(name, _)| name.eq_ignore_ascii_case("ssl-mode") || name.eq_ignore_ascii_case("sslmode"));
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(DEFAULT_PORT),
            user: decoded(url.username())?,
            password: decoded(url.password().unwrap_or_default())?,
            database: (!database.is_empty()).then_some(database),
            is_secured: mode.is_some_and(|(_, mode)| !mode.eq_ignore_ascii_case("disabled")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_who_where_and_how() {
        let plain = Address::parse("mysql://me:p%40ss@db:3307/my%20base?pool_max=3").unwrap();
        assert_eq!(
            plain,
            Address {
                host: "db".to_owned(),
                port: 3307,
                user: "me".to_owned(),
                password: "p@ss".to_owned(),
                database: Some("my base".to_owned()),
                is_secured: false,
            }
        );
        let least = Address::parse("mysql://[::1]").unwrap();
        assert_eq!((least.host.as_str(), least.port, least.database), ("::1", 3306, None));
        for (query, expected) in [("sslMode=VERIFY_CA", true), ("ssl-mode=DISABLED", false), ("SSLMODE=required", true)]
        {
            assert_eq!(Address::parse(&format!("mysql://a@b/c?{query}")).unwrap().is_secured, expected, "{query}");
        }
        for text in ["", "db:3306", "postgres://a@b", "mysql:///x", "mysql://a@b:99999/"] {
            let error = Address::parse(text).unwrap_err();
            assert!(error.contains("mysql://USER"), "{error}");
        }
    }
}
