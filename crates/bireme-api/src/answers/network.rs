//! Networks.

use std::collections::BTreeMap;

use super::answers;

answers! {
    /// A network.
    ///
    /// Source: Docker Engine API, `NetworkList`.
    #[serde(rename_all = "PascalCase")]
    pub struct Network {
        /// 64 hexadecimal digits.
        id: String,
        /// Not always unique.
        name: String,
        /// `bridge`, `host`, `none` or another.
        driver: String,
        /// `local` for this machine's.
        scope: String,
        /// When it was made, after RFC 3339.
        created: String,
        /// Its containers have addresses of IPv6.
        #[serde(rename = "EnableIPv6")]
        enable_ipv6: bool,
        /// It leads nowhere but to its own containers.
        internal: bool,
        /// What it was given at create.
        labels: BTreeMap<String, String>,
    }

    /// A network that was made.
    ///
    /// Source: Docker Engine API, `NetworkCreate`.
    #[serde(rename_all = "PascalCase")]
    pub struct NetworkCreated {
        /// `None` where the engine does not say, and the name asked for has to do.
        id: Option<String>,
        /// A sentence about what was asked for and not done; mostly empty.
        warning: String,
    }
}
