//! Image names and registry credentials, as far as a client needs them.

mod file;
mod helper;

use std::path::PathBuf;

use base64::Engine as _;
use serde_json::Value;

/// Whether a reference names a tag or a digest already.
fn has_tag(reference: &str) -> bool {
    reference.contains('@') || reference.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// The reference with `:latest` where nothing else is said.
pub fn with_tag(reference: &str) -> String {
    if has_tag(reference) { reference.to_owned() } else { format!("{reference}:latest") }
}

/// The registry a reference is fetched from. Source: distribution/reference, `splitDockerDomain`.
fn domain(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains('.') || first.contains(':') || first == "localhost" => first,
        _ => "docker.io",
    }
}

/// The `X-Registry-Auth` header for a reference, from Docker's configuration file; `e30=` (an empty object) when it
/// has nothing for that registry.
pub fn auth_header(reference: &str) -> String {
    header(credentials(&file::read(), domain(reference)))
}

fn header(credentials: Option<Value>) -> String {
    let credentials = credentials.unwrap_or_else(|| serde_json::json!({}));
    base64::engine::general_purpose::URL_SAFE.encode(credentials.to_string())
}

fn credentials(config: &Value, domain: &str) -> Option<Value> {
    let keys: &[&str] = match domain {
        "docker.io" => &[DOCKER_IO, "docker.io"],
        _ => &[domain],
    };
    if let Some(helper) = helper::named(config, keys[0])
        && let Some(found) = helper::get(helper, keys[0])
    {
        return Some(found);
    }
    let entry = entry(config, keys)?;
    if let Some(token) = entry["identitytoken"].as_str().filter(|token| !token.is_empty()) {
        return Some(serde_json::json!({"identitytoken": token, "serveraddress": keys[0]}));
    }
    let auth = base64::engine::general_purpose::STANDARD.decode(entry["auth"].as_str()?).ok()?;
    let auth = String::from_utf8(auth).ok()?;
    let (user, password) = auth.trim_end_matches('\0').split_once(':')?;
    Some(serde_json::json!({"username": user, "password": password, "serveraddress": keys[0]}))
}

/// What stands in the file under a key; people and other clients write some with a scheme or a path.
fn entry<'a>(config: &'a Value, keys: &[&str]) -> Option<&'a Value> {
    let auths = config["auths"].as_object()?;
    let by_host = || auths.iter().find(|(key, _)| server_key(Some(key)) == server_key(Some(keys[0])));
    keys.iter().find_map(|key| auths.get(*key)).or_else(|| by_host().map(|(_, entry)| entry))
}

/// What is known of a server that somebody logged in to.
pub fn known(server: &str) -> Option<Value> {
    credentials(&file::read(), if server == DOCKER_IO { "docker.io" } else { server })
}

/// The `X-Registry-Config` header of a build, whose base images may lie in any registry.
pub fn every_login() -> String {
    let config = file::read();
    let names = |section: &str| config[section].as_object().into_iter().flatten().map(|(key, _)| key.clone());
    let mut keys: std::collections::BTreeSet<String> = names("auths").chain(names("credHelpers")).collect();
    // What the helper for everything knows need not stand in the file.
    keys.extend(config["credsStore"].as_str().into_iter().flat_map(helper::list));
    let known = keys.into_iter().filter_map(|key| {
        let host = server_key(Some(&key));
        let found = credentials(&config, if host == DOCKER_IO { "docker.io" } else { &host })?;
        Some((key, found))
    });
    let known: serde_json::Map<String, Value> = known.collect();
    base64::engine::general_purpose::URL_SAFE.encode(Value::Object(known).to_string())
}

/// What Docker's file calls its own registry.
const DOCKER_IO: &str = "https://index.docker.io/v1/";

/// The key under which credentials of a registry are kept. Source: docker/cli, `config/credentials`.
pub fn server_key(server: Option<&str>) -> String {
    let Some(server) = server else { return DOCKER_IO.to_owned() };
    let host = server.split_once("://").map_or(server, |(_, rest)| rest).split('/').next().unwrap_or_default();
    match host {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_IO.to_owned(),
        host => host.to_owned(),
    }
}

/// What is remembered after a login.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// The account at the registry.
    pub username: &'a str,
    /// Its password, or a token that is used as one.
    pub password: &'a str,
    /// What the registry gave in exchange for the password.
    pub token: Option<&'a str>,
}

/// Keeps credentials where Docker's client finds them; answers the file when they stand in it unencrypted.
///
/// # Errors
/// A file that cannot be read or written; a helper that fails.
pub fn remember(key: &str, login: Login<'_>) -> anyhow::Result<Option<PathBuf>> {
    file::change(|config| {
        let name = helper::named(config, key).map(str::to_owned);
        if !config["auths"].is_object() {
            config["auths"] = serde_json::json!({});
        }
        let auths = &mut config["auths"];
        let Some(name) = name else {
            // A token stands for the password, which is not kept then.
            let password = if login.token.is_some() { "" } else { login.password };
            let pair = format!("{}:{password}", login.username);
            let auth = base64::engine::general_purpose::STANDARD.encode(pair);
            auths[key] = match login.token {
                Some(token) => serde_json::json!({"auth": auth, "identitytoken": token}),
                None => serde_json::json!({"auth": auth}),
            };
            return Ok(true);
        };
        let (user, secret) = login.token.map_or((login.username, login.password), |token| ("<token>", token));
        let wish = serde_json::json!({"ServerURL": key, "Username": user, "Secret": secret});
        helper::run(&name, "store", wish.to_string().as_bytes())?;
        auths[key] = serde_json::json!({});
        Ok(false)
    })
    .map(|(path, plain)| plain.then_some(path))
}

/// Forgets credentials; answers whether there were any.
///
/// # Errors
/// As [`remember`].
pub fn forget(key: &str) -> anyhow::Result<bool> {
    let known = file::read();
    let listed = entry(&known, &[key]).is_some();
    if let Some(name) = helper::named(&known, key) {
        helper::run(name, "erase", key.as_bytes())?;
    }
    if listed {
        file::change(|config| {
            if let Some(auths) = config.get_mut("auths").and_then(Value::as_object_mut) {
                auths.retain(|known, _| server_key(Some(known)) != key);
            }
            Ok(())
        })?;
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_understood() {
        assert_eq!(with_tag("alpine"), "alpine:latest");
        assert_eq!(with_tag("localhost:5000/a"), "localhost:5000/a:latest");
        assert_eq!(with_tag("a/b:1"), "a/b:1");
        assert_eq!(domain("a/b"), "docker.io");
        assert_eq!(domain("localhost:5000/a"), "localhost:5000");
        assert_eq!(domain("ghcr.io/a/b"), "ghcr.io");
    }

    #[test]
    fn credentials_come_from_dockers_file() {
        let config = serde_json::json!({"auths": {"ghcr.io": {"auth": "bWU6c2VjcmV0"}}});
        assert_eq!(credentials(&config, "ghcr.io").unwrap()["username"], "me");
        assert_eq!(credentials(&config, "docker.io"), None);
        // As other clients write them.
        for key in ["https://a.b:5000", "https://a.b:5000/v2/", "http://a.b:5000/v1/", "a.b:5000"] {
            let config = serde_json::json!({"auths": {key: {"auth": "bWU6c2VjcmV0"}}});
            assert_eq!(credentials(&config, "a.b:5000").unwrap()["password"], "secret", "{key}");
            assert_eq!(credentials(&config, "a.b"), None, "{key}");
        }
        let config = serde_json::json!({"auths": {"docker.io": {"auth": "bWU6c2VjcmV0", "identitytoken": "t"}}});
        assert_eq!(credentials(&config, "docker.io").unwrap()["identitytoken"], "t");
        // What Docker's own client sends when it has nothing to say.
        assert_eq!(header(None), "e30=");
    }

    #[test]
    fn a_server_has_one_key_however_it_is_written() {
        for (server, key) in [
            (None, DOCKER_IO),
            (Some("docker.io"), DOCKER_IO),
            (Some("https://index.docker.io/v1/"), DOCKER_IO),
            (Some("ghcr.io"), "ghcr.io"),
            (Some("http://localhost:5000/v2/"), "localhost:5000"),
        ] {
            assert_eq!(server_key(server), key, "{server:?}");
        }
    }
}
