//! Image names and registry credentials, as far as a client needs them.

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

fn config() -> Value {
    let folder = std::env::var_os("DOCKER_CONFIG")
        .map(std::path::PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".docker")));
    folder
        .and_then(|folder| std::fs::read(folder.join("config.json")).ok())
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or(Value::Null)
}

fn credentials(config: &Value, domain: &str) -> Option<Value> {
    let keys: &[&str] = match domain {
        "docker.io" => &["https://index.docker.io/v1/", "docker.io"],
        _ => &[domain],
    };
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
}
