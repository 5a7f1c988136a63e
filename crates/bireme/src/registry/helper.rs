//! Programs that keep credentials: `docker-credential-NAME`, which Docker's file names.
//!
//! Source: the protocol of docker-credential-helpers.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// Bytes that a helper may say.
const MOST: u64 = 1 << 20;

/// How long a helper may take: one may ask its user to unlock something.
const PATIENCE: Duration = Duration::from_mins(2);

/// The helper for a key, where the file names one.
pub(super) fn named<'a>(config: &'a Value, key: &str) -> Option<&'a str> {
    let name = config["credHelpers"].get(key).or_else(|| config.get("credsStore"))?.as_str()?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// Has a helper do something, and answers what it says.
///
/// # Errors
/// When it is not there, fails, says too much or takes too long.
pub(super) fn run(name: &str, verb: &str, input: &[u8]) -> anyhow::Result<Vec<u8>> {
    let program = format!("docker-credential-{name}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {program}, which Docker's configuration file names"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let input = input.to_vec();
    let (sender, said) = mpsc::channel();
    // Beside, as one that reads nothing and says nothing would hold everything up.
    std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // One that reads nothing has no need of it.
            let _ = stdin.write_all(&input);
        }
        let mut output = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(MOST + 1).read_to_end(&mut output));
        // Nobody waits any more if it took too long.
        let _ = sender.send(read.map(|_| output));
    });
    let Ok(output) = said.recv_timeout(PATIENCE) else {
        end(&mut child);
        bail!("{program} {verb} said nothing for {} seconds, and was ended", PATIENCE.as_secs());
    };
    let output = output.with_context(|| format!("cannot read what {program} says"))?;
    if output.len() as u64 > MOST {
        end(&mut child);
        bail!("{program} {verb} says more than {MOST} bytes");
    }
    let status = child.wait()?;
    // What it says when it fails is a sentence; what it says otherwise is a secret.
    let words: String = String::from_utf8_lossy(&output).trim().chars().take(500).collect();
    ensure!(status.success(), "{program} {verb}: {words}");
    Ok(output)
}

fn end(child: &mut Child) {
    // One that ended meanwhile needs no ending.
    let _ = child.kill();
    let _ = child.wait();
}

/// The credentials that a helper has for a key.
pub(super) fn get(name: &str, key: &str) -> Option<Value> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Kept {
        username: String,
        secret: String,
    }
    let Kept { username, secret } = serde_json::from_slice(&run(name, "get", key.as_bytes()).ok()?).ok()?;
    if secret.is_empty() {
        return None;
    }
    Some(match username.as_str() {
        "<token>" => serde_json::json!({"identitytoken": secret, "serveraddress": key}),
        user => serde_json::json!({"username": user, "password": secret, "serveraddress": key}),
    })
}

/// The keys for which a helper has something.
pub(super) fn list(name: &str) -> Vec<String> {
    if name.is_empty() || name.contains('/') {
        return Vec::new();
    }
    let said = run(name, "list", b"").ok().and_then(|said| serde_json::from_slice::<Value>(&said).ok());
    said.and_then(|said| Some(said.as_object()?.keys().cloned().collect())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path() {
        for (name, good) in [("box", true), ("", false), ("../box", false), ("/bin/sh", false)] {
            let config = serde_json::json!({ "credsStore": name });
            assert_eq!(named(&config, "a").is_some(), good, "{name}");
        }
        let config = serde_json::json!({ "credsStore": "all", "credHelpers": { "a": "one" } });
        assert_eq!((named(&config, "a"), named(&config, "b")), (Some("one"), Some("all")));
    }

    #[test]
    fn a_helper_that_is_not_there_is_named() {
        let error = run("of-nobody", "get", b"a").unwrap_err();
        assert!(error.to_string().contains("cannot run docker-credential-of-nobody"), "{error}");
    }
}
