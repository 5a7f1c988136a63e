//! `bireme.redis.subscribe`: where messages come from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `redis://host:port/CHANNEL`, or `redis://host:port?stream=NAME&group=GROUP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// As given, without the channel: `redis://[user:password@]host[:port]`. May hold a password: never log it.
    pub server: String,
    /// The name of the channel, or of the stream.
    pub channel: String,
    /// Of a stream, the group of consumers that it is read by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
}

/// A group of consumers of a Redis stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The name of the group.
    pub name: String,
    /// How often an entry is tried: at least once.
    pub attempts: u32,
    /// The stream that has the entries of which all attempts failed.
    pub dead: String,
}

/// How often an entry of a stream is tried where the label does not say.
const ATTEMPTS: u32 = 5;

pub(super) fn subscription(value: &str) -> Result<Subscription, String> {
    let form = "must be redis://host:port/CHANNEL or redis://host:port?stream=NAME&group=GROUP";
    let (scheme, rest) = value.split_once("://").ok_or(form)?;
    if !matches!(scheme, "redis" | "rediss") {
        return Err(form.to_owned());
    }
    if let Some((server, query)) = rest.split_once('?') {
        let server = server.strip_suffix('/').unwrap_or(server);
        if server.is_empty() || server.contains('/') {
            return Err(form.to_owned());
        }
        let (channel, group) = stream(query)?;
        return Ok(Subscription { server: format!("{scheme}://{server}"), channel, group: Some(group) });
    }
    let (server, channel) = rest.split_once('/').ok_or(form)?;
    if server.is_empty() || channel.is_empty() {
        return Err(form.to_owned());
    }
    Ok(Subscription { server: format!("{scheme}://{server}"), channel: channel.to_owned(), group: None })
}

fn stream(query: &str) -> Result<(String, Group), String> {
    let mut known = BTreeMap::new();
    for part in query.split('&') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        if !["stream", "group", "attempts", "dead"].contains(&key) || value.is_empty() {
            return Err(format!("{part:?} must be stream=NAME, group=GROUP, attempts=NUMBER or dead=NAME"));
        }
        if known.insert(key, value.to_owned()).is_some() {
            return Err(format!("{key} is named twice"));
        }
    }
    let (Some(name), Some(group)) = (known.remove("stream"), known.remove("group")) else {
        return Err("a stream needs a name and a group: ?stream=NAME&group=GROUP".to_owned());
    };
    let attempts = known.remove("attempts").map_or(Ok(ATTEMPTS), |text| text.parse()).ok().filter(|n| *n > 0);
    let attempts = attempts.ok_or("attempts must be a number from 1")?;
    let dead = known.remove("dead").unwrap_or_else(|| format!("{name}.dead"));
    if dead == name {
        return Err("dead must be another stream".to_owned());
    }
    Ok((name, Group { name: group, attempts, dead }))
}
