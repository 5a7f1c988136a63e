//! The `bireme.*` keys: what a workload may ask for beyond Docker's words.
//!
//! The same keys are read from the image's labels, the container's labels and, in Kubernetes, annotations. They are
//! parsed once, at create; an unknown or malformed key is refused there, never ignored.

mod schedule;
mod subscription;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::schedule::Schedule;
use self::subscription::subscription;
pub use self::subscription::{Group, Subscription};
use crate::nearest::nearest;
use crate::{AllowList, Route};

/// Every key with its meaning and default, for refusals and the generated reference page.
pub const KEYS: &[(&str, &str, &str)] = &[
    (
        "bireme.http.route",
        "routes served, comma-separated: `/tally`, `/api/...` (subtree), `/users/:id`; an optional host before the path. \
         `none` serves none: the component is asked by others of its app, as `http://NAME.spin.internal`",
        "`/...`",
    ),
    (
        "bireme.redis.subscribe",
        "`redis://host:port/CHANNEL`: one instance per message. `redis://host:port?stream=NAME&group=GROUP`: one per entry of \
         a stream, at least once, acknowledged when it was handled; after `&attempts=5` that failed it is put aside in \
         `&dead=NAME.dead`",
        "none",
    ),
    (
        "bireme.schedule",
        "when a command runs, again and again: five fields as crontab(5) has them and a time zone, such as `30 4 * * 1-5 \
         Europe/Berlin`; UTC where none is named. `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. It does not run \
         while it still does; a time that clocks pass over is left out, and one that they have twice comes twice",
        "none: it runs once",
    ),
    (
        "bireme.allow",
        "outbound permissions, comma-separated `scheme://host[:port]`: the scheme is `http`, `https`, `redis`, `tcp` \
         (sockets) or `udp` and allows that alone, none or `*` allows all; the host is a name, `*.domain`, an address, a \
         CIDR range (`tcp://10.1.0.0/16:5432`) or `*`. In an image only a request",
        "none: components are denied everything",
    ),
    (
        "bireme.allow-requested",
        "`true` grants what the image requests by `bireme.allow`, `bireme.kv` and `bireme.redis.subscribe`; without \
         effect in an image",
        "`false`",
    ),
    (
        "bireme.timeout",
        "wall time of one invocation, such as `30s` or `1m30s`; more than the default is in an image only a request",
        "`30s`; none for commands",
    ),
    ("bireme.cpu-time", "processor time of one invocation", "none"),
    ("bireme.instances", "instances alive at once; more than the default is in an image only a request", "1000"),
    (
        "bireme.queue",
        "requests waiting for a free instance before 503; more than the default is in an image only a request",
        "1000",
    ),
    ("bireme.kv", "key-value stores: `default`, or `NAME=redis://…`, comma-separated", "`default` (embedded)"),
    ("bireme.sqlite", "SQLite databases of the engine's own, by name, comma-separated, such as `default`", "none"),
    ("bireme.health", "path of an HTTP component probed by GET with the timing of Docker's health check", "none"),
    (
        "bireme.wagi",
        "a program of WASI preview 1 answers each request as a CGI program (Spin's executor `wagi`), with this command line: \
         `${SCRIPT_NAME}` stands for the path, `${ARGS}` for the words of the query",
        "none: it is a command that runs once",
    ),
    (
        "bireme.class",
        "when one image has both platforms: `wasm`, `linux`, or `auto` for the lightest that runs here. Whoever asks for a \
         platform gets that",
        "that of the image; else `linux` when it has one",
    ),
];

/// The `bireme.*` labels of one workload, parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// None where the component is asked by name alone.
    pub routes: Vec<Route>,
    /// `bireme.redis.subscribe`; `None` subscribes to nothing.
    pub subscribe: Option<Box<Subscription>>,
    /// `bireme.schedule`: when a command runs; `None` is once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Box<Schedule>>,
    /// `None` when the label is absent: everything for containers, nothing for components.
    pub allow: Option<AllowList>,
    /// `bireme.timeout`: wall-clock time of one invocation.
    pub timeout: Duration,
    /// `bireme.cpu-time`: processor time of one invocation; `None` is unlimited.
    pub cpu_time: Option<Duration>,
    /// `bireme.instances`: how many may be alive at once.
    pub instances: u32,
    /// `bireme.queue`: how many requests may wait for a free instance.
    pub queue: u32,
    /// `bireme.kv`: by the names that the component opens them by.
    pub stores: BTreeMap<String, StoreBackend>,
    /// `bireme.sqlite`: the databases that the component may open.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub databases: BTreeSet<String>,
    /// `bireme.health`: the path that is probed by GET; `None` is not probed.
    pub health: Option<String>,
    /// `bireme.wagi`: the command line of a program that answers each request as a CGI program; `None` is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wagi: Option<String>,
    /// `bireme.class`; `None` where the label is absent.
    pub class: Option<Class>,
    /// Rights that the image asks for and that nobody granted, as key and value. A value may hold a password.
    #[serde(default)]
    pub requested: BTreeMap<String, String>,
}

/// What keeps one key-value store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoreBackend {
    /// SQLite in the engine's state folder, one per app and store name.
    Embedded,
    /// A Redis server's URL. May hold a password: never log it.
    Redis(String),
}

/// Which platform of an image that has both is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The component.
    Wasm,
    /// The Linux container.
    Linux,
    /// The component, where there is one that runs here; else the Linux container.
    Auto,
}

impl FromStr for Class {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wasm" => Ok(Self::Wasm),
            "linux" => Ok(Self::Linux),
            "auto" => Ok(Self::Auto),
            other => Err(format!("{other:?} is not one of wasm, linux, auto")),
        }
    }
}

impl Class {
    /// What `labels` say, read before an image is chosen and so before all other labels.
    ///
    /// # Errors
    /// `Malformed` for another value than the three.
    pub fn of(labels: &BTreeMap<String, String>) -> Result<Option<Self>, LabelError> {
        let class = labels.get(CLASS).map(|value| value.trim().parse());
        class.transpose().map_err(|reason| LabelError::Malformed { key: CLASS, reason })
    }
}

/// Why a `bireme.*` label was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A key that nobody knows.
    #[error("unknown label {key:?}{}", .nearest.map(|near| format!(": did you mean {near:?}?")).unwrap_or_default())]
    Unknown {
        /// As it was written.
        key: String,
        /// A key that may have been meant.
        nearest: Option<&'static str>,
    },
    /// A value that cannot be read.
    #[error("label {key}: {reason}")]
    Malformed {
        /// One of [`KEYS`].
        key: &'static str,
        /// What is wrong with its value.
        reason: String,
    },
}

impl LabelError {
    /// Always `Invalid`.
    pub fn kind(&self) -> crate::ErrorKind {
        crate::ErrorKind::Invalid
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self {
            routes: vec![Route::everything()],
            subscribe: None,
            schedule: None,
            allow: None,
            timeout: Duration::from_secs(30),
            cpu_time: None,
            instances: 1000,
            queue: 1000,
            stores: BTreeMap::from([("default".to_owned(), StoreBackend::Embedded)]),
            databases: BTreeSet::new(),
            health: None,
            wagi: None,
            class: None,
            requested: BTreeMap::new(),
        }
    }
}

/// Segments of a route: tables of routes are as deep.
const MOST_SEGMENTS: usize = 64;
/// Chooses among the platforms of an image.
const CLASS: &str = "bireme.class";
/// Grants the image's requests; only where whoever runs it says so.
const CONFIRM: &str = "bireme.allow-requested";
/// The keys that let a component reach something.
const RIGHTS: [&str; 3] = ["bireme.allow", "bireme.kv", "bireme.redis.subscribe"];

impl Labels {
    /// Reads the `bireme.*` keys of `labels` and leaves every other key alone.
    ///
    /// # Errors
    /// The first key, in the order of the alphabet, that is unknown or malformed.
    pub fn parse<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Self, LabelError> {
        let mut parsed = Self::default();
        let ours: BTreeMap<&str, &str> = labels
            .into_iter()
            .filter(|(key, _)| key.starts_with("bireme."))
            .map(|(key, value)| (key.as_str(), value.trim()))
            .collect();
        for (key, value) in ours {
            let known = KEYS.iter().map(|(known, ..)| *known);
            let Some(key) = known.clone().find(|known| *known == key) else {
                return Err(LabelError::Unknown { key: key.to_owned(), nearest: nearest(key, known) });
            };
            parsed.set(key, value)?;
        }
        if parsed.routes.is_empty() && parsed.health.is_some() {
            let reason = "cannot be probed where bireme.http.route is none: leave one of the two out".to_owned();
            return Err(LabelError::Malformed { key: "bireme.health", reason });
        }
        Ok(parsed)
    }

    /// The labels of a component, whose rights come from `own`, the labels of whoever runs it. What `image` says of rights
    /// is a request: it counts where `own` confirms it by `bireme.allow-requested`, and is found in `requested` where
    /// `own` does not speak of the key at all.
    ///
    /// # Errors
    /// As [`Labels::parse`].
    pub fn of_component(image: &BTreeMap<String, String>, own: &BTreeMap<String, String>) -> Result<Self, LabelError> {
        let mut merged = image.clone();
        merged.remove(CONFIRM);
        merged.extend(own.clone());
        // A request must be well-formed too, or nobody could confirm it.
        let confirmed = own.contains_key(CONFIRM) && flag(CONFIRM, own[CONFIRM].trim())?;
        let all = Self::parse(&merged)?;
        if confirmed {
            if let (Some(asked), Some(given)) = (image.get("bireme.allow"), own.get("bireme.allow")) {
                merged.insert("bireme.allow".to_owned(), format!("{given},{asked}"));
                return Self::parse(&merged);
            }
            return Ok(all);
        }
        let mut requested = BTreeMap::new();
        for key in RIGHTS.into_iter().filter(|key| !own.contains_key(*key)) {
            let Some(asked) = image.get(key) else { continue };
            if key == "bireme.kv" {
                // Stores of the engine's own reach nothing.
                let (ours, theirs): (Vec<&str>, Vec<&str>) = parts(asked).partition(|part| !part.contains('='));
                if !theirs.is_empty() {
                    merged.insert(key.to_owned(), ours.join(","));
                    requested.insert(key.to_owned(), theirs.join(","));
                }
            } else if parts(asked).next().is_some() {
                merged.remove(key);
                requested.insert(key.to_owned(), asked.clone());
            }
        }
        let (mut parsed, limits) = (Self::parse(&merged)?, Self::default());
        // An image may lower what it takes of the machine, and ask for more.
        if parsed.timeout > limits.timeout
            && !own.contains_key("bireme.timeout")
            && let Some(asked) = image.get("bireme.timeout")
        {
            parsed.timeout = limits.timeout;
            requested.insert("bireme.timeout".to_owned(), asked.clone());
        }
        for (key, set, limit) in [
            ("bireme.instances", &mut parsed.instances, limits.instances),
            ("bireme.queue", &mut parsed.queue, limits.queue),
        ] {
            if *set > limit
                && !own.contains_key(key)
                && let Some(asked) = image.get(key)
            {
                *set = limit;
                requested.insert(key.to_owned(), asked.clone());
            }
        }
        Ok(Self { requested, ..parsed })
    }

    /// What to tell whoever runs a component whose image asks for more than it was given; `None` where it does not.
    pub fn request_sentence(&self) -> Option<String> {
        let asked: Vec<String> = self
            .requested
            .iter()
            .map(|(key, value)| {
                // Other values may hold passwords.
                if key == "bireme.allow" { format!("{key}={value}") } else { key.clone() }
            })
            .collect();
        (!asked.is_empty()).then(|| {
            format!(
                "the image requests {}, which is not granted: confirm it with {CONFIRM}=true (bireme run \
                 --allow-requested), or set the label to what it may have",
                asked.join(" and ")
            )
        })
    }

    fn set(&mut self, key: &'static str, value: &str) -> Result<(), LabelError> {
        let malformed = |reason: String| LabelError::Malformed { key, reason };
        match key {
            // Asked by others of its app, and by nobody else.
            "bireme.http.route" if value == "none" => self.routes = Vec::new(),
            "bireme.http.route" => {
                let routes: Vec<Route> = parts(value)
                    .map(|part| part.parse::<Route>().map_err(|error| malformed(error.to_string())))
                    .collect::<Result<_, _>>()?;
                if routes.is_empty() {
                    return Err(malformed("names no route; leave the label out to serve every path".to_owned()));
                }
                if let Some(deep) = routes.iter().find(|route| route.depth() > MOST_SEGMENTS) {
                    let reason = format!("route {deep} has more than {MOST_SEGMENTS} segments");
                    return Err(malformed(reason));
                }
                for (at, route) in routes.iter().enumerate() {
                    if let Some(other) = routes[..at].iter().find(|other| other.clashes_with(route)) {
                        return Err(malformed(format!("routes {other} and {route} cannot be told apart")));
                    }
                }
                self.routes = routes;
            }
            "bireme.redis.subscribe" => self.subscribe = Some(Box::new(subscription(value).map_err(malformed)?)),
            "bireme.schedule" => self.schedule = Some(Box::new(value.parse().map_err(malformed)?)),
            "bireme.allow" => {
                self.allow =
                    Some(value.parse().map_err(|error: crate::allow::AllowError| malformed(error.to_string()))?)
            }
            CONFIRM => {
                flag(key, value)?;
            }
            "bireme.timeout" => self.timeout = duration(value).map_err(malformed)?,
            "bireme.cpu-time" => self.cpu_time = Some(duration(value).map_err(malformed)?),
            "bireme.instances" => self.instances = count(value, 1).map_err(malformed)?,
            "bireme.queue" => self.queue = count(value, 0).map_err(malformed)?,
            "bireme.kv" => self.stores = stores(value).map_err(malformed)?,
            "bireme.sqlite" => {
                self.databases = parts(value)
                    .map(|name| store_name(name).map(str::to_owned))
                    .collect::<Result<_, _>>()
                    .map_err(malformed)?;
            }
            "bireme.health" => {
                if !value.starts_with('/') || value.bytes().any(|b| b <= b' ' || b == 0x7f) {
                    return Err(malformed(format!("{value:?} is not a path such as /healthz")));
                }
                self.health = Some(value.to_owned());
            }
            "bireme.wagi" => {
                if value.is_empty() || value.bytes().any(|b| b.is_ascii_control()) {
                    return Err(malformed(format!(
                        "{value:?} is not a command line such as ${{SCRIPT_NAME}} ${{ARGS}}"
                    )));
                }
                self.wagi = Some(value.to_owned());
            }
            CLASS => self.class = Some(value.parse().map_err(malformed)?),
            _ => unreachable!("every key of KEYS is set above"),
        }
        Ok(())
    }
}

fn parts(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn flag(key: &'static str, value: &str) -> Result<bool, LabelError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(LabelError::Malformed { key, reason: format!("{other:?} is neither true nor false") }),
    }
}

fn count(value: &str, least: u32) -> Result<u32, String> {
    value
        .parse()
        .ok()
        .filter(|count| (least..=1_000_000).contains(count))
        .ok_or_else(|| format!("{value:?} is not a whole number from {least} to 1000000"))
}

/// Reads a duration as Docker and Go write it: `300ms`, `30s`, `1m30s`, `1.5h`.
pub fn duration(value: &str) -> Result<Duration, String> {
    let refuse = || format!("{value:?} is not a duration such as 500ms, 30s or 1m30s");
    let mut rest = value;
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(refuse)?;
        let number: f64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let scale = match &rest[..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(refuse()),
        };
        total += number * scale;
        rest = &rest[unit_end..];
    }
    if total > 0.0 && total <= 366.0 * 86_400.0 { Ok(Duration::from_secs_f64(total)) } else { Err(refuse()) }
}

fn stores(value: &str) -> Result<BTreeMap<String, StoreBackend>, String> {
    let mut stores = BTreeMap::new();
    for part in parts(value) {
        let (name, backend) = match part.split_once('=') {
            None => (part, StoreBackend::Embedded),
            Some((name, url)) if url.starts_with("redis://") || url.starts_with("rediss://") => {
                (name, StoreBackend::Redis(url.to_owned()))
            }
            Some((name, _)) => return Err(format!("store {name:?} must be NAME or NAME=redis://host:port")),
        };
        store_name(name)?;
        if stores.insert(name.to_owned(), backend).is_some() {
            return Err(format!("store {name:?} is named twice"));
        }
    }
    Ok(stores)
}

/// A name that a store or a database may have.
fn store_name(name: &str) -> Result<&str, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(format!("store name {name:?} may have letters, digits, _, - and . only"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
