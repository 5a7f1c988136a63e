//! Git repositories as contexts and as sources of ADD, fetched by the machine's own `git`, as BuildKit does.
//!
//! Source: docs.docker.com/build/concepts/context, "Git repositories"; BuildKit, `util/gitutil/git_ref.go`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use super::run::Hidden;
use super::source::{AgentSocket, BuildSources};
use crate::blocking::blocking;
use crate::error::ImageError;
use crate::folders::measure;
use crate::store::ImageStore;

/// How long a repository may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// How often the size of what has arrived is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Bytes of what git complains of that are passed on.
const COMPLAINT: u64 = 8 << 10;

/// A repository, and which part of it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GitSource {
    pub(super) remote: String,
    /// A branch, tag or commit; `None` is what the repository checks out itself.
    pub(super) reference: Option<String>,
    /// Below the root; empty is all of it.
    pub(super) subdir: String,
}

/// Reads an address; `None` if it leads to no repository.
///
/// # Errors
/// What is wrong with one that does, as a sentence.
pub(super) fn parse(address: &str) -> Result<Option<GitSource>, String> {
    let (place, fragment) = address.split_once('#').unwrap_or((address, ""));
    let lower = place.to_ascii_lowercase();
    let web = lower.starts_with("http://") || lower.starts_with("https://");
    let (plain, query) = match place.split_once('?') {
        Some((plain, query)) if web => (plain, query),
        _ => (place, ""),
    };
    let remote = if web {
        if !plain.to_ascii_lowercase().ends_with(".git") {
            return Ok(None);
        }
        plain.to_owned()
    } else if lower.starts_with("git://") || lower.starts_with("ssh://") || is_scp(place) {
        place.to_owned()
    } else if lower.starts_with("github.com/") {
        format!("https://{place}")
    } else {
        return Ok(None);
    };
    if remote.contains(|letter: char| letter.is_control()) {
        return Err("the address has characters that no address has".to_owned());
    }
    let (mut reference, mut subdir) = match fragment.split_once(':') {
        Some((reference, subdir)) => (reference.to_owned(), subdir.to_owned()),
        None => (fragment.to_owned(), String::new()),
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("ref" | "branch" | "tag" | "commit", value)) if reference.is_empty() => {
                value.clone_into(&mut reference)
            }
            Some(("subdir", value)) if subdir.is_empty() => value.clone_into(&mut subdir),
            _ => return Err(format!("\"{pair}\" in its query is not known: ref and subdir are")),
        }
    }
    // What git would take for an option is no name of anything.
    if reference.starts_with('-') || remote.starts_with('-') {
        return Err(format!("\"{reference}\" is no branch, tag or commit"));
    }
    let subdir = subdir.trim_matches('/').to_owned();
    if Path::new(&subdir).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
        return Err(format!("the folder \"{subdir}\" does not lie in the repository"));
    }
    let reference = Some(reference).filter(|reference| !reference.is_empty());
    Ok(Some(GitSource { remote, reference, subdir }))
}

/// `user@host:path`
fn is_scp(place: &str) -> bool {
    let Some((user, rest)) = place.split_once('@') else { return false };
    let plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let path = rest.split_once(':');
    !user.is_empty()
        && plain(user)
        && path.is_some_and(|(host, path)| !host.is_empty() && plain(host) && !path.is_empty())
}

/// Where a repository lies that was fetched.
pub(super) struct Checkout {
    folder: TempDir,
    subdir: String,
}

impl Checkout {
    /// The folder that is meant.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join(&self.subdir)
    }
}

/// What a client lends to fetch its repositories.
#[derive(Default)]
pub(super) struct GitAccess {
    /// Shown to the server that the address names, and to no other.
    token: Option<Hidden<String>>,
    agent: Option<AgentSocket>,
}

/// The secret that servers of git repositories are shown. Source: docs.docker.com/build/building/secrets, "Git authentication".
const GIT_TOKEN: &str = "GIT_AUTH_TOKEN";

impl GitAccess {
    /// Asks a client what it lends.
    pub(super) async fn of(client: &dyn BuildSources) -> Result<Self, ImageError> {
        let token = client.secret(GIT_TOKEN).await?.and_then(|token| String::from_utf8(token).ok());
        let agent = client.ssh("default").await?;
        Ok(Self { token: token.map(|token| Hidden(token.trim().to_owned())), agent })
    }
}

/// An address without the name and the password in it.
pub(super) fn redacted(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) if scheme != "ssh" => format!("{scheme}://{}", &rest[at + 1..]),
        _ => address.to_owned(),
    }
}

/// The name and the password in an address, as `NAME:PASSWORD`.
fn credentials(address: &str) -> Option<&str> {
    let (scheme, rest) = address.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let at = rest[..end].rfind('@')?;
    (scheme != "ssh").then(|| &rest[..at])
}

/// Fetches a repository as shallowly as it lets itself be. `keep_git_dir`: its `.git` stays, without what was shown to its
/// server.
///
/// # Errors
/// `Fetch`, with git's own words; when the machine has no git; `TooLarge`.
/// # Cancel safety
/// Dropping the future ends git and deletes what it fetched.
pub(super) async fn fetch(
    store: &ImageStore,
    source: &GitSource,
    keep_git_dir: bool,
    access: &GitAccess,
) -> Result<Checkout, ImageError> {
    let folder = store.inner.aside("git-")?;
    let place = folder.path().to_owned();
    let url = redacted(&source.remote);
    let header = header(&source.remote, access);
    let git = Git { folder: &place, url: &url, header, agent: access.agent.as_ref() };
    let all = async {
        git.run(&["init", "--quiet", "--initial-branch=main", "."]).await?;
        git.run(&["remote", "add", "--", "origin", &url]).await?;
        let wanted = source.reference.as_deref().unwrap_or("HEAD");
        let shallow = git.run(&["fetch", "--quiet", "--depth=1", "--no-tags", "--", "origin", wanted]).await;
        let checked_out = match shallow {
            Ok(()) => "FETCH_HEAD",
            // A commit that the server does not give alone, or a shortened one.
            Err(_) if is_commit(wanted) => {
                git.run(&["fetch", "--quiet", "--tags", "origin"]).await?;
                wanted
            }
            Err(error) => return Err(error),
        };
        git.run(&["checkout", "--quiet", "--force", "--detach", checked_out]).await?;
        git.run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]).await
    };
    let limit = store.inner.settings.limits.layer_bytes;
    let too_large = async {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let looked = place.clone();
            let bytes = blocking("measure a repository", move || Ok(measure(&looked))).await?;
            if bytes > limit {
                return Err(ImageError::TooLarge { what: url.clone(), limit });
            }
        }
    };
    tokio::select! {
        done = all => done?,
        broken = too_large => return broken,
        () = tokio::time::sleep(PATIENCE) => {
            return Err(git.failed(format!("it did not arrive within {} minutes", PATIENCE.as_secs() / 60)));
        }
    }
    let checkout = Checkout { folder, subdir: source.subdir.clone() };
    let path = checkout.path();
    // A link in the repository must not lead out of it.
    let inside = path.canonicalize().is_ok_and(|real| {
        checkout.folder.path().canonicalize().is_ok_and(|root| real.starts_with(root)) && real.is_dir()
    });
    if !inside {
        return Err(git.failed(format!("it has no folder {}", source.subdir)));
    }
    if !keep_git_dir {
        let git_dir = checkout.folder.path().join(".git");
        std::fs::remove_dir_all(&git_dir).map_err(|error| ImageError::store("delete", &git_dir, error))?;
    }
    Ok(checkout)
}

/// What the server of an address is shown: the name and the password in it, or the client's token where nobody listens.
fn header(remote: &str, access: &GitAccess) -> Option<(String, Hidden<String>)> {
    let (scheme, rest) = remote.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..end].rsplit('@').next().unwrap_or_default();
    let shown = match (credentials(remote), &access.token) {
        (Some(own), _) if scheme == "http" || scheme == "https" => own.to_owned(),
        (None, Some(token)) if scheme == "https" => format!("x-access-token:{}", token.0),
        _ => return None,
    };
    let basic = STANDARD.encode(shown);
    let key = format!("http.{scheme}://{host}/.extraHeader");
    Some((key, Hidden(format!("Authorization: Basic {basic}"))))
}

fn is_commit(name: &str) -> bool {
    (7..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

struct Git<'a> {
    folder: &'a Path,
    url: &'a str,
    /// A key of its configuration, and what stands there.
    header: Option<(String, Hidden<String>)>,
    agent: Option<&'a AgentSocket>,
}

/// Kills git with all that it started.
struct Group(Option<rustix::process::Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0.take() {
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

impl Git<'_> {
    fn failed(&self, reason: impl Into<String>) -> ImageError {
        ImageError::Fetch { url: self.url.to_owned(), reason: reason.into() }
    }

    /// Runs git with nothing of this machine's configuration, and without asking anybody anything.
    async fn run(&self, arguments: &[&str]) -> Result<(), ImageError> {
        let mut command = Command::new("git");
        command
            .args(["-c", "protocol.file.allow=never", "-c", "protocol.ext.allow=never"])
            .args(["-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=true", "-c", "advice.detachedHead=false"])
            .args(arguments)
            .current_dir(self.folder)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(
                ["http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"]
                    .into_iter()
                    .filter_map(|name| Some((name, std::env::var_os(name)?))),
            )
            .env("HOME", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "/bin/false")
            // None of the machine's own keys: only those of the client's agent.
            .env(
                "GIT_SSH_COMMAND",
                "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes -o IdentityFile=none -o UserKnownHostsFile=/dev/null",
            )
            .envs(self.agent.map(|agent| ("SSH_AUTH_SOCK", &agent.path)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .process_group(0);
        if let Some((key, value)) = &self.header {
            // By its environment: others see the arguments of a process.
            command.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", key).env("GIT_CONFIG_VALUE_0", &value.0);
        }
        let mut child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => self.failed(
                "it is a git repository, and this machine has no git: install it (Debian: apt-get install git)",
            ),
            _ => self.failed(format!("git cannot be started: {error}")),
        })?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let mut group = Group(leader);
        let complaint = child.stderr.take();
        let listen = async {
            let mut text = Vec::new();
            if let Some(mut from) = complaint {
                let _ = (&mut from).take(COMPLAINT).read_to_end(&mut text).await;
                let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
            }
            String::from_utf8_lossy(&text).trim().to_owned()
        };
        let (text, ended) = tokio::join!(listen, child.wait());
        // It is reaped: its number may be somebody else's by now.
        group.0 = None;
        match ended {
            Ok(status) if status.success() => Ok(()),
            Ok(status) if text.is_empty() => Err(self.failed(format!("git ended with {status}"))),
            Ok(_) => Err(self.failed(text)),
            Err(error) => Err(self.failed(error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_is_shown_goes_to_no_other() {
        let access = GitAccess { token: Some(Hidden("t".to_owned())), agent: None };
        let key = |remote: &str| header(remote, &access).map(|(key, value)| (key, value.0));
        let basic = |text: &str| format!("Authorization: Basic {}", STANDARD.encode(text));
        assert_eq!(
            key("https://a.b/c.git"),
            Some(("http.https://a.b/.extraHeader".to_owned(), basic("x-access-token:t")))
        );
        assert_eq!(key("https://u:p@a.b:8/c.git"), Some(("http.https://a.b:8/.extraHeader".to_owned(), basic("u:p"))));
        assert_eq!(key("http://a.b/c.git"), None);
        assert_eq!(key("ssh://git@a.b/c"), None);
        assert_eq!(redacted("https://u:p@a.b/c.git#x"), "https://a.b/c.git#x");
        assert_eq!(redacted("https://a.b/c@d"), "https://a.b/c@d");
    }

    #[test]
    fn addresses_of_repositories_are_told_from_others() {
        let source = |remote: &str, reference: Option<&str>, subdir: &str| {
            let (remote, reference) = (remote.to_owned(), reference.map(str::to_owned));
            Some(GitSource { remote, reference, subdir: subdir.to_owned() })
        };
        for (address, expected) in [
            ("https://a.b/c.git", source("https://a.b/c.git", None, "")),
            ("https://a.b/c.git#main", source("https://a.b/c.git", Some("main"), "")),
            ("https://a.b/c.git#v1:docker/app/", source("https://a.b/c.git", Some("v1"), "docker/app")),
            ("https://a.b/c.git#:sub", source("https://a.b/c.git", None, "sub")),
            ("https://a.b/c.git?ref=v2&subdir=x", source("https://a.b/c.git", Some("v2"), "x")),
            ("git@a.b:c/d", source("git@a.b:c/d", None, "")),
            ("ssh://git@a.b/c", source("ssh://git@a.b/c", None, "")),
            ("github.com/c/d#x", source("https://github.com/c/d", Some("x"), "")),
            ("https://a.b/c.tar.gz", None),
            ("./folder", None),
            ("a@b", None),
        ] {
            assert_eq!(parse(address).unwrap(), expected, "{address}");
        }
        for bad in [
            "https://a.b/c.git#--upload-pack=x",
            "https://a.b/c.git#main:../..",
            "https://a.b/c.git#main:a/../../b",
            "https://a.b/c.git?what=x",
            "git@a.b:c\nd",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
