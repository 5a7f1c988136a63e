//! Image names and registry credentials, as far as a client needs them.

use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
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
    header(credentials(&config(), domain(reference)))
}

fn header(credentials: Option<Value>) -> String {
    let credentials = credentials.unwrap_or_else(|| serde_json::json!({}));
    base64::engine::general_purpose::URL_SAFE.encode(credentials.to_string())
}

/// Docker's configuration file.
fn config_path() -> Option<PathBuf> {
    let folder = std::env::var_os("DOCKER_CONFIG")
        .filter(|folder| !folder.is_empty())
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".docker")))?;
    Some(folder.join("config.json"))
}

fn config() -> Value {
    config_path()
        .and_then(|path| std::fs::read(path).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or(Value::Null)
}

fn credentials(config: &Value, domain: &str) -> Option<Value> {
    let keys: &[&str] = match domain {
        "docker.io" => &[DOCKER_IO, "docker.io"],
        _ => &[domain],
    };
    if let Some(helper) = helper(config, keys[0])
        && let Some(found) = ask_helper(helper, keys[0])
    {
        return Some(found);
    }
    let entry = keys
        .iter()
        .find_map(|key| config["auths"].get(*key).or_else(|| config["auths"].get(format!("https://{key}"))))?;
    if let Some(token) = entry["identitytoken"].as_str().filter(|token| !token.is_empty()) {
        return Some(serde_json::json!({"identitytoken": token, "serveraddress": keys[0]}));
    }
    let auth = base64::engine::general_purpose::STANDARD.decode(entry["auth"].as_str()?).ok()?;
    let auth = String::from_utf8(auth).ok()?;
    let (user, password) = auth.trim_end_matches('\0').split_once(':')?;
    Some(serde_json::json!({"username": user, "password": password, "serveraddress": keys[0]}))
}

/// The `X-Registry-Config` header of a build, whose base images may lie in any registry.
pub fn every_login() -> String {
    let config = config();
    let names = |section: &str| config[section].as_object().into_iter().flatten().map(|(key, _)| key.clone());
    let keys: std::collections::BTreeSet<String> = names("auths").chain(names("credHelpers")).collect();
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

/// The program that keeps credentials, where the file names one: `docker-credential-NAME`.
fn helper<'a>(config: &'a Value, key: &str) -> Option<&'a str> {
    let name = config["credHelpers"].get(key).or_else(|| config.get("credsStore"))?.as_str()?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// Source: the protocol of docker-credential-helpers.
fn run_helper(name: &str, verb: &str, input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let program = format!("docker-credential-{name}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {program}, which Docker's configuration file names"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that reads nothing has no need of it.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output()?;
    anyhow::ensure!(output.status.success(), "{program} {verb}: {}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(output.stdout)
}

fn ask_helper(name: &str, key: &str) -> Option<Value> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Kept {
        username: String,
        secret: String,
    }
    let Kept { username, secret } = serde_json::from_slice(&run_helper(name, "get", key.as_bytes()).ok()?).ok()?;
    Some(match username.as_str() {
        "<token>" => serde_json::json!({"identitytoken": secret, "serveraddress": key}),
        user => serde_json::json!({"username": user, "password": secret, "serveraddress": key}),
    })
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
    change_config(|config| {
        let name = helper(config, key).map(str::to_owned);
        if !config["auths"].is_object() {
            config["auths"] = serde_json::json!({});
        }
        let auths = &mut config["auths"];
        let Some(name) = name else {
            let pair = format!("{}:{}", login.username, login.password);
            let auth = base64::engine::general_purpose::STANDARD.encode(pair);
            auths[key] = match login.token {
                Some(token) => serde_json::json!({"auth": auth, "identitytoken": token}),
                None => serde_json::json!({"auth": auth}),
            };
            return Ok(true);
        };
        let (user, secret) = login.token.map_or((login.username, login.password), |token| ("<token>", token));
        let wish = serde_json::json!({"ServerURL": key, "Username": user, "Secret": secret});
        run_helper(&name, "store", wish.to_string().as_bytes())?;
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
    let known = config();
    let listed = known["auths"].get(key).is_some();
    if let Some(name) = helper(&known, key) {
        run_helper(name, "erase", key.as_bytes())?;
    }
    if listed {
        change_config(|config| {
            if let Some(auths) = config.get_mut("auths").and_then(Value::as_object_mut) {
                auths.remove(key);
            }
            Ok(())
        })?;
    }
    Ok(listed)
}

/// Changes Docker's configuration file, which nobody else may read; what else stands in it stays.
fn change_config<T>(change: impl FnOnce(&mut Value) -> anyhow::Result<T>) -> anyhow::Result<(PathBuf, T)> {
    let path = config_path().context("cannot tell where Docker's configuration file is: HOME is not set")?;
    // A link to the file is kept, and the file behind it changed.
    let path = path.canonicalize().unwrap_or(path);
    let shown = path.display().to_string();
    let mut config = match std::fs::read(&path) {
        Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => serde_json::json!({}),
        Ok(bytes) => serde_json::from_slice(&bytes)
            .ok()
            .filter(Value::is_object)
            .with_context(|| format!("{shown} is not a JSON object; mend or remove it"))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => serde_json::json!({}),
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    let answer = change(&mut config)?;
    let folder = path.parent().context("Docker's configuration file has no folder")?;
    let write = || -> std::io::Result<()> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // A temporary file is its owner's alone, and the file is whole whenever somebody reads it.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(crate::listing::indent(&config.to_string(), 8).as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    };
    write().with_context(|| format!("cannot write {shown}"))?;
    Ok((path, answer))
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
