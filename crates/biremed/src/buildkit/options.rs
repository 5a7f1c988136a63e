//! What a client asks of the front end `dockerfile.v0`, from its options: pure.
//!
//! Source: BuildKit, `frontend/dockerui/config.go` and `frontend/dockerfile/dockerfile2llb/convert.go`.

use std::collections::BTreeMap;

use bireme_buildkit::BuildError;
use bireme_core::ErrorKind;
use bireme_core::go::parse_bool;
use bireme_image::build::is_built_in;
use bireme_image::{Allowed, Platform};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

/// The options of one solve.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Options {
    /// Of the Dockerfile, within the context that has it.
    pub(super) filename: String,
    pub(super) target: Option<String>,
    pub(super) platforms: Vec<Platform>,
    pub(super) args: BTreeMap<String, Option<String>>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) no_cache: bool,
    pub(super) no_cache_stages: Vec<String>,
    pub(super) pull: bool,
    /// Where the main context is, if the client does not have its files itself.
    pub(super) context: Option<String>,
    /// Below its root.
    pub(super) subdir: String,
    /// By which names the client knows the files of the main context, and those that the Dockerfile is among.
    pub(super) context_key: String,
    pub(super) dockerfile_key: String,
    /// What names stand for.
    pub(super) named: BTreeMap<String, Named>,
    /// How commands are run, as the host configuration of a container.
    pub(super) host: Map<String, Value>,
    /// Of a context that is a git repository, its `.git` stays.
    pub(super) keep_git_dir: bool,
    /// What the machine of commands is called.
    pub(super) hostname: Option<String>,
    pub(super) epoch: Option<DateTime<Utc>>,
    /// A question about the Dockerfile, in place of a build.
    pub(super) request: Option<String>,
    /// Whether the image carries the cache of its steps.
    pub(super) inline_cache: bool,
    /// Whether the answer is an index even for one platform.
    pub(super) multi: bool,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Files of the client, by the name that it knows them by.
    Files(String),
    Image(String),
    Address(String),
    /// An image in a folder of the client that is an OCI layout.
    Layout {
        /// The name that the client knows the folder by.
        store: String,
        /// Of the image's manifest or index.
        digest: String,
    },
    /// What another build came to, by the name among the inputs.
    Input(String),
}

/// Always the same, so that what a command makes of it is, too.
pub(super) const HOSTNAME: &str = "buildkitsandbox";

/// Arguments that speak to the front end. Source: the Dockerfile reference, "BuildKit built-in build args".
const SYNTAX: &str = "BUILDKIT_SYNTAX";

impl Options {
    /// # Errors
    /// What this builder does not offer, by name; what is no value of an option.
    pub(super) fn read(options: &BTreeMap<String, String>) -> Result<Self, BuildError> {
        let mut read = Self {
            filename: "Dockerfile".to_owned(),
            context_key: "context".to_owned(),
            dockerfile_key: "dockerfile".to_owned(),
            ..Self::default()
        };
        for (key, value) in options {
            read.option(key, value)?;
        }
        if let Some(syntax) = read.args.get(SYNTAX).cloned().flatten() {
            check_syntax(&syntax)?;
        }
        let built_in = |name: &str| read.args.get(name).cloned().flatten();
        read.inline_cache |= built_in("BUILDKIT_INLINE_CACHE").is_some_and(|value| parse_bool(&value) == Some(true));
        read.keep_git_dir =
            built_in("BUILDKIT_CONTEXT_KEEP_GIT_DIR").is_some_and(|value| parse_bool(&value) == Some(true));
        read.multi |= built_in("BUILDKIT_MULTI_PLATFORM").is_some_and(|value| parse_bool(&value) == Some(true));
        read.hostname = read.hostname.clone().or_else(|| built_in("BUILDKIT_SANDBOX_HOSTNAME"));
        if let Some(epoch) = built_in("SOURCE_DATE_EPOCH").filter(|epoch| !epoch.is_empty()) {
            let seconds = epoch.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
            read.epoch = Some(seconds.ok_or_else(|| {
                invalid(format!("invalid SOURCE_DATE_EPOCH \"{epoch}\": it is seconds since 1970, as a whole number"))
            })?);
        }
        Ok(read)
    }

    fn option(&mut self, key: &str, value: &str) -> Result<(), BuildError> {
        let bad = |why: &str| invalid(format!("invalid value \"{value}\" for {key}: {why}"));
        match key {
            "filename" if value.is_empty() => {}
            "filename" => value.clone_into(&mut self.filename),
            "target" => self.target = Some(value.to_owned()).filter(|target| !target.is_empty()),
            "platform" => {
                let platforms = value.split(',').map(str::trim).filter(|platform| !platform.is_empty());
                for platform in platforms {
                    let platform: Platform = platform.parse().map_err(|error| invalid(format!("{error}")))?;
                    if !self.platforms.contains(&platform) {
                        self.platforms.push(platform);
                    }
                }
            }
            "no-cache" if value.is_empty() => self.no_cache = true,
            "no-cache" => self.no_cache_stages = value.split(',').map(str::to_owned).collect(),
            "image-resolve-mode" => self.pull = value == "pull",
            "context" => self.context = Some(value.to_owned()).filter(|context| !context.is_empty()),
            "contextsubdir" => value.clone_into(&mut self.subdir),
            "contextkey" => value.clone_into(&mut self.context_key),
            "dockerfilekey" => value.clone_into(&mut self.dockerfile_key),
            "requestid" => self.request = Some(value.to_owned()),
            "multi-platform" => self.multi = parse_bool(value) == Some(true),
            "add-hosts" => {
                let hosts: Vec<String> = value
                    .split(',')
                    .filter(|host| !host.is_empty())
                    .map(|host| match host.split_once('=') {
                        Some((name, address)) => Ok(format!("{name}:{address}")),
                        None => Err(bad("a host is written as NAME=ADDRESS")),
                    })
                    .collect::<Result<_, _>>()?;
                self.host.insert("ExtraHosts".to_owned(), json!(hosts));
            }
            "force-network-mode" => {
                let mode = match value {
                    "" | "default" | "sandbox" => "default",
                    "host" | "none" => value,
                    _ => return Err(bad("it is default, host or none")),
                };
                self.host.insert("NetworkMode".to_owned(), json!(mode));
            }
            "hostname" => self.hostname = Some(value.to_owned()).filter(|name| !name.is_empty()),
            "cgroup-parent" => {
                self.host.insert("CgroupParent".to_owned(), json!(value));
            }
            "shm-size" => {
                let bytes: i64 = value.parse().map_err(|_| bad("it is a number of bytes"))?;
                self.host.insert("ShmSize".to_owned(), json!(bytes));
            }
            "ulimit" => {
                let limits: Vec<Value> = value
                    .split(',')
                    .filter(|limit| !limit.is_empty())
                    .map(|limit| {
                        let (name, values) = limit.split_once('=').ok_or_else(|| bad("it is NAME=SOFT[:HARD]"))?;
                        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
                        let number = |text: &str| text.parse::<i64>().map_err(|_| bad("it is NAME=SOFT[:HARD]"));
                        Ok(json!({ "Name": name, "Soft": number(soft)?, "Hard": number(hard)? }))
                    })
                    .collect::<Result<_, BuildError>>()?;
                self.host.insert("Ulimits".to_owned(), json!(limits));
            }
            _ => return self.prefixed(key, value),
        }
        Ok(())
    }

    /// Options that have a name of their own behind a colon. Others are hints, of no consequence for what is built.
    fn prefixed(&mut self, key: &str, value: &str) -> Result<(), BuildError> {
        let Some((prefix, name)) = key.split_once(':') else { return Ok(()) };
        match prefix {
            "build-arg" => drop(self.args.insert(name.to_owned(), Some(value.to_owned()))),
            "label" => drop(self.labels.insert(name.to_owned(), value.to_owned())),
            "context" => {
                let key = match name.split_once("::") {
                    None => name.to_owned(),
                    Some((plain, platform)) => {
                        let platform: Platform =
                            platform.parse().map_err(|error| invalid(format!("context {name}: {error}")))?;
                        format!("{plain}::{platform}")
                    }
                };
                drop(self.named.insert(key, named(name, value)?));
            }
            "attest" if name == "sbom" && value != "false" && value != "disabled=true" => {
                return Err(BuildError::new(
                    ErrorKind::Unsupported,
                    "an SBOM attestation is not offered by this builder: it runs no scanner; leave --sbom and --attest type=sbom out",
                ));
            }
            // Provenance that nobody asked for is left out; whoever asks by name is told.
            "attest" if name == "provenance" && asks_for_provenance(value) => {
                return Err(BuildError::new(
                    ErrorKind::Unsupported,
                    "provenance attestations are not offered by this builder: leave --provenance and --attest type=provenance out",
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether attestations are asked for by name: clients themselves ask for the least, or for inline ones, where nobody says
/// anything.
fn asks_for_provenance(value: &str) -> bool {
    let mut parts = value.split(',');
    parts.any(|part| part == "mode=max") || value == "true"
}

fn named(name: &str, value: &str) -> Result<Named, BuildError> {
    let split = value.split_once(':');
    Ok(match split {
        Some(("local", key)) => Named::Files(key.to_owned()),
        Some(("input", key)) => Named::Input(key.to_owned()),
        Some(("docker-image", rest)) => Named::Image(rest.trim_start_matches("//").to_owned()),
        Some(("oci-layout", rest)) => {
            let (store, digest) = rest.trim_start_matches("//").split_once('@').ok_or_else(|| {
                invalid(format!(
                    "the context {name} is \"{value}\", which names no digest: oci-layout://FOLDER[:TAG]@DIGEST"
                ))
            })?;
            let store = store.split(':').next().unwrap_or_default();
            Named::Layout { store: store.to_owned(), digest: digest.to_owned() }
        }
        Some(("http" | "https" | "git" | "ssh", _)) => Named::Address(value.to_owned()),
        _ if value.contains('@') => Named::Address(value.to_owned()),
        _ => {
            return Err(invalid(format!(
                "the context {name} is \"{value}\", which is none that this builder knows: a folder, docker-image://, target:, an address or a git repository"
            )));
        }
    })
}

/// Whether a front end is the one that is built in.
///
/// # Errors
/// `Unsupported`, by name, for another one: its image would be run to read the Dockerfile.
pub(super) fn check_syntax(syntax: &str) -> Result<(), BuildError> {
    let image = syntax.split_whitespace().next().unwrap_or_default();
    if is_built_in(image) {
        return Ok(());
    }
    Err(BuildError::new(
        ErrorKind::Unsupported,
        format!(
            "the front end {image} is not offered: docker/dockerfile:1 is built in, and no other is run; leave the line # syntax= out"
        ),
    ))
}

fn invalid(message: String) -> BuildError {
    BuildError::new(ErrorKind::Invalid, message)
}

/// What commands may ask for where the client allowed it.
pub(super) fn allowed(entitlements: &[String]) -> Allowed {
    let has = |name: &str| entitlements.iter().any(|one| one == name);
    Allowed { host_network: has("network.host"), insecure: has("security.insecure") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Options, BuildError> {
        let options = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Options::read(&options)
    }

    #[test]
    fn options_of_real_clients_are_read() {
        let options = read(&[
            ("filename", "Dockerfile.b"),
            ("image-resolve-mode", "local"),
            ("platform", "linux/amd64,wasi/wasm"),
            ("label:com.docker.compose.service", "web"),
            ("build-arg:A", "1"),
            ("build-arg:SOURCE_DATE_EPOCH", "7"),
            ("add-hosts", "h=1.2.3.4,six=::1"),
            ("ulimit", "nofile=10:20"),
            ("shm-size", "67108864"),
            ("force-network-mode", "host"),
            ("context:other", "local:other"),
            ("context:basex", "input:0-a"),
            ("context:laid", "oci-layout://key:1@sha256:d"),
            ("context:img::linux/amd64", "docker-image://busybox"),
            ("no-cache", ""),
            ("frontend.caps", "x"),
            ("attest:provenance", "mode=min,inline-only=true"),
        ])
        .unwrap();
        assert_eq!(options.filename, "Dockerfile.b");
        assert_eq!(options.platforms.iter().map(ToString::to_string).collect::<Vec<_>>(), ["linux/amd64", "wasi/wasm"]);
        assert!(options.no_cache && !options.pull && options.no_cache_stages.is_empty());
        assert_eq!(options.epoch.unwrap().timestamp(), 7);
        assert_eq!(
            Value::Object(options.host),
            json!({
                "ExtraHosts": ["h:1.2.3.4", "six:::1"], "NetworkMode": "host", "ShmSize": 67_108_864,
                "Ulimits": [{ "Name": "nofile", "Soft": 10, "Hard": 20 }],
            })
        );
        assert_eq!(options.named["other"], Named::Files("other".to_owned()));
        assert_eq!(options.named["basex"], Named::Input("0-a".to_owned()));
        let laid = Named::Layout { store: "key".to_owned(), digest: "sha256:d".to_owned() };
        assert_eq!(options.named["laid"], laid);
        assert_eq!(options.named["img::linux/amd64"], Named::Image("busybox".to_owned()));
        assert!(read(&[("image-resolve-mode", "pull")]).unwrap().pull);
        assert_eq!(read(&[("no-cache", "a,b")]).unwrap().no_cache_stages, ["a", "b"]);
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        for (key, value, part) in [
            ("attest:sbom", "", "SBOM"),
            ("attest:provenance", "mode=max", "provenance"),
            ("build-arg:BUILDKIT_SYNTAX", "docker/dockerfile:0.9", "docker/dockerfile:0.9"),
            ("context:x", "oci-layout://y", "names no digest"),
            ("context:x", "what", "none that this builder knows"),
            ("context:x::what", "docker-image://busybox", "what"),
            ("platform", "linux/what", "linux/what"),
            ("build-arg:SOURCE_DATE_EPOCH", "now", "SOURCE_DATE_EPOCH"),
            ("ulimit", "x", "NAME=SOFT"),
        ] {
            let error = read(&[(key, value)]).unwrap_err();
            assert!(error.message().contains(part), "{key}: {error}");
        }
    }
}
