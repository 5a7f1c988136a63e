//! What a `hosts.toml` says: where a registry's images may be fetched from, in which order, and how each place is spoken to.
//!
//! Source: containerd, `docs/hosts.md` and `core/remotes/docker/config`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// Places that one file may name.
const MOST_PLACES: usize = 32;

/// What may be asked of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Can {
    /// Content by its digest.
    pub(crate) pull: bool,
    /// What a tag stands for: such a place is believed what a name means.
    pub(crate) resolve: bool,
    pub(crate) push: bool,
}

impl Can {
    pub(crate) const ALL: Self = Self { pull: true, resolve: true, push: true };
}

/// How a place is spoken to, whatever its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Files of certificates that are trusted beside the machine's own.
    pub(crate) ca: Vec<PathBuf>,
    /// Certificate and key, which may stand in one file.
    pub(crate) client: Vec<(PathBuf, Option<PathBuf>)>,
    pub(crate) skip_verify: bool,
    pub(crate) header: Vec<(String, String)>,
    pub(crate) dial_timeout: Option<Duration>,
}

/// One place of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// Where its interface begins, such as `https://mirror.example/v2/`; `None` is the registry's own address.
    pub(crate) root: Option<Url>,
    pub(crate) can: Can,
    pub(crate) manner: Manner,
}

/// A file, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// Asked first, in this order.
    pub(crate) mirrors: Vec<Listed>,
    /// Asked last.
    pub(crate) server: Listed,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    server: String,
    host: InOrder,
    #[serde(flatten)]
    own: RawPlace,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawPlace {
    capabilities: Vec<String>,
    ca: Option<Several>,
    client: Option<Pairs>,
    skip_verify: bool,
    header: BTreeMap<String, Several>,
    override_path: bool,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Several {
    One(String),
    More(Vec<String>),
}

impl Several {
    fn all(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Pairs {
    One(String),
    More(Vec<Pair>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    Together(String),
    Apart([String; 2]),
}

/// A table in the order in which it is written: mirrors are asked in that order.
#[derive(Default)]
struct InOrder(Vec<(String, RawPlace)>);

impl<'de> Deserialize<'de> for InOrder {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Taking;
        impl<'de> Visitor<'de> for Taking {
            type Value = InOrder;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of addresses")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<InOrder, A::Error> {
                let mut places = Vec::new();
                while let Some(place) = all.next_entry()? {
                    places.push(place);
                }
                Ok(InOrder(places))
            }
        }
        from.deserialize_map(Taking)
    }
}

impl Hosts {
    /// Reads a file that lies in `folder`.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| error.to_string().trim().replace('\n', " "))?;
        if raw.host.0.len() > MOST_PLACES {
            return Err(format!("it names {} hosts, and at most {MOST_PLACES} are asked", raw.host.0.len()));
        }
        let mirrors = raw.host.0.into_iter().map(|(address, place)| place.listed(&address, folder));
        let mirrors = mirrors.collect::<Result<_, _>>()?;
        Ok(Self { mirrors, server: raw.own.listed(&raw.server, folder)? })
    }
}

impl RawPlace {
    fn listed(self, address: &str, folder: &Path) -> Result<Listed, String> {
        let root = if address.is_empty() { None } else { Some(root(address, self.override_path)?) };
        // What stands beside no address is the registry itself, of which everything may be asked.
        let can = if root.is_none() { Can::ALL } else { capabilities(&self.capabilities)? };
        let beside = |path: String| folder.join(path);
        let client = match self.client {
            None => Vec::new(),
            Some(Pairs::One(file)) => vec![(beside(file), None)],
            Some(Pairs::More(pairs)) => pairs
                .into_iter()
                .map(|pair| match pair {
                    Pair::Together(file) => (beside(file), None),
                    Pair::Apart([certificate, key]) => (beside(certificate), Some(beside(key))),
                })
                .collect(),
        };
        let header = self.header.into_iter().flat_map(|(name, values)| {
            let values = values.all();
            values.into_iter().map(move |value| (name.clone(), value))
        });
        let manner = Manner {
            ca: self.ca.map(Several::all).unwrap_or_default().into_iter().map(beside).collect(),
            client,
            skip_verify: self.skip_verify,
            header: header.collect(),
            dial_timeout: self.dial_timeout.as_deref().map(duration).transpose()?,
        };
        Ok(Listed { root, can, manner })
    }
}

fn capabilities(words: &[String]) -> Result<Can, String> {
    if words.is_empty() {
        return Ok(Can::ALL);
    }
    let mut can = Can { pull: false, resolve: false, push: false };
    for word in words {
        match word.to_ascii_lowercase().as_str() {
            "pull" => can.pull = true,
            "resolve" => can.resolve = true,
            "push" => can.push = true,
            _ => return Err(format!("\"{word}\" is no capability: write pull, resolve or push")),
        }
    }
    Ok(can)
}

/// Where the interface of an address begins.
fn root(address: &str, as_it_is: bool) -> Result<Url, String> {
    let bad = |reason: &str| format!("\"{address}\" is no address of a registry: {reason}");
    let text = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let mut url = Url::parse(&text).map_err(|error| bad(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(bad("write http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Without the address, which holds a secret.
        let reason = "an address in it has a name or password, which has no place there: log in, or set a header";
        return Err(reason.to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("it ends with the path"));
    }
    let mut path = url.path().trim_end_matches('/').to_owned();
    if !as_it_is && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    path.push('/');
    url.set_path(&path);
    Ok(url)
}

/// A time as Go writes it: `300ms`, `1.5s`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    // Longer than a day is a slip of the pen.
    let read = bireme_core::labels::duration(text).ok().filter(|time| *time <= Duration::from_secs(86_400));
    read.ok_or_else(|| format!("\"{text}\" is no time: write one such as 300ms, 5s or 1m30s"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Hosts, String> {
        Hosts::parse(text, Path::new("/certs/a"))
    }

    fn roots(hosts: &Hosts) -> Vec<&str> {
        hosts.mirrors.iter().map(|place| place.root.as_ref().unwrap().as_str()).collect()
    }

    #[test]
    fn a_file_of_containerds_page_is_read() {
        let hosts = parse(
            r#"
            server = "https://registry-1.docker.io"
            ca = "server.crt"

            [host."https://z.example:5000/proxy/v2"]
              capabilities = ["pull"]
              ca = ["/etc/certs/one.pem", "two.pem"]
              client = [["client.cert", "client.key"], "both.pem"]
              skip_verify = true
              dial_timeout = "1m1.5s"
              [host."https://z.example:5000/proxy/v2".header]
                x-custom-1 = ["a", "b"]
                authorization = "Basic x"

            [host."http://a.example/deep"]
              override_path = true
              capabilities = ["resolve", "PULL"]

            [host."b.example"]
            "#,
        )
        .unwrap();
        // In the order of the file, not of the alphabet.
        assert_eq!(
            roots(&hosts),
            ["https://z.example:5000/proxy/v2/", "http://a.example/deep/", "https://b.example/v2/"]
        );
        assert_eq!(hosts.server.root.as_ref().unwrap().as_str(), "https://registry-1.docker.io/v2/");
        assert_eq!(hosts.server.manner.ca, [PathBuf::from("/certs/a/server.crt")]);
        let first = &hosts.mirrors[0];
        assert_eq!(first.can, Can { pull: true, resolve: false, push: false });
        assert_eq!(first.manner.ca, [PathBuf::from("/etc/certs/one.pem"), PathBuf::from("/certs/a/two.pem")]);
        let pair = (PathBuf::from("/certs/a/client.cert"), Some(PathBuf::from("/certs/a/client.key")));
        assert_eq!(first.manner.client, [pair, (PathBuf::from("/certs/a/both.pem"), None)]);
        assert!(first.manner.skip_verify);
        assert_eq!(first.manner.dial_timeout, Some(Duration::from_millis(61_500)));
        let header = [("authorization", "Basic x"), ("x-custom-1", "a"), ("x-custom-1", "b")];
        assert_eq!(first.manner.header, header.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(hosts.mirrors[1].can, Can { pull: true, resolve: true, push: false });
        assert_eq!(hosts.mirrors[2].can, Can::ALL);
    }

    #[test]
    fn without_a_server_it_is_the_registry_itself() {
        let hosts = parse("skip_verify = true").unwrap();
        assert_eq!((hosts.server.root, hosts.server.manner.skip_verify), (None, true));
        assert!(hosts.mirrors.is_empty());
        assert_eq!(parse("").unwrap().server.can, Can::ALL);
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, words) in [
            ("server = 3", "server"),
            ("server = \"ftp://a\"", "write http:// or https://"),
            ("server = \"https://me:secret@a\"", "has a name or password"),
            ("server = \"https://a/?x\"", "ends with the path"),
            ("[host.\"https://\"]", "no address of a registry"),
            ("[host.\"a\"]\ncapabilities = [\"fly\"]", "\"fly\" is no capability"),
            ("[host.\"a\"]\ndial_timeout = \"soon\"", "\"soon\" is no time"),
            ("[host.\"a\"]\ndial_timeout = \"\"", "is no time"),
            ("[host.\"a\"]\nclient = [[\"a\", \"b\", \"c\"]]", "client"),
            ("a = ", "a = "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(!parse("server = \"https://me:secret@a\"").unwrap_err().contains("secret"));
        let many: String = (0..40).map(|at| format!("[host.\"a{at}\"]\n")).collect();
        assert!(parse(&many).unwrap_err().contains("at most 32"));
    }

    proptest! {
        #[test]
        fn whatever_stands_in_a_file_ends_in_places_or_a_sentence(text in "\\PC{0,80}|(server|host|ca|\\[|\\]|=|\"|\n|a\\.b|https://){0,20}") {
            if let Ok(hosts) = parse(&text) {
                for place in hosts.mirrors.iter().chain([&hosts.server]) {
                    prop_assert!(place.root.as_ref().is_none_or(|root| root.path().ends_with('/')));
                }
            }
        }

        #[test]
        fn times_are_as_go_writes_them(minutes in 0_u64..60, millis in 1_u64..60_000) {
            let text = format!("{minutes}m{}.{:03}s", millis / 1000, millis % 1000);
            let read = duration(&text).unwrap();
            prop_assert_eq!(read.as_millis(), u128::from(minutes * 60_000 + millis));
        }
    }
}
