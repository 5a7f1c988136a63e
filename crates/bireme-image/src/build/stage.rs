//! One stage while it is built: the configuration as its instructions change it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use bireme_core::spec::Signal;

use super::dockerfile::{self, Instruction};
use super::onbuild;
use super::words::{expand, split};
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::model::{ConfigFile, DOCUMENT_LIMIT, Descriptor, Empty, Healthcheck, History, Manifest, OCI_CONFIG};
use crate::record::{Layer, Record, make_record};
use bireme_core::WorkloadKind;

/// Where programs are looked for in images that do not say. Source: moby, `pkg/system`, `DefaultPathEnv`.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that an image may have, and ports that one instruction may name. A workload takes no more either.
const VARIABLES: usize = 10_000;
const PORTS: usize = 100_000;

/// Arguments that need no `ARG`. Source: Dockerfile reference, "Predefined ARGs".
pub(super) const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Instructions that change the configuration of an image alone. Source: moby, `builder/dockerfile`, commit commands.
const CHANGES: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Values of arguments as given with the build.
pub(super) type BuildArgs = BTreeMap<String, Option<String>>;

/// Answers the value `name` has as a build argument.
pub(super) fn given(args: &BuildArgs, name: &str) -> Option<String> {
    args.get(name).cloned().flatten()
}

/// A stage so far.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) config: ConfigFile,
    pub(crate) layers: Vec<Layer>,
    /// Arguments declared in this stage, with their values.
    args: BTreeMap<String, Option<String>>,
    cmd_set: bool,
    escape: char,
    /// Nobody said what it runs on: it is this machine's Linux unless its program says otherwise.
    pub(super) assumed: bool,
    /// The stored image that it begins with, and what stood for the state then.
    pub(super) base: Option<(ImageId, Digest)>,
}

impl Stage {
    pub(crate) fn new(config: ConfigFile, layers: Vec<Layer>, escape: char) -> Self {
        Self { config, layers, args: BTreeMap::new(), cmd_set: false, escape, assumed: false, base: None }
    }

    /// The stage as commands of a build find it: with Docker's default `PATH` where its base has none.
    pub(super) fn with_path(mut self) -> Self {
        let env = &mut self.config.config.env;
        let has_path = env.iter().any(|pair| pair.starts_with("PATH="));
        if !has_path && self.config.platform().kind() == WorkloadKind::Container {
            self.config.config.env.push(DEFAULT_PATH.to_owned());
        }
        self
    }

    /// Makes it an image of a component, which has no programs to look for.
    pub(super) fn make_component(&mut self) {
        let wasm = crate::Platform::wasm();
        self.config.os = wasm.os;
        self.config.architecture = wasm.architecture;
        self.config.variant = wasm.variant;
        self.config.config.env.retain(|pair| pair != DEFAULT_PATH);
    }

    /// Puts a layer on top.
    pub(crate) fn push(&mut self, layer: Layer) {
        self.config.rootfs.diff_ids.push(layer.diff_id.clone());
        self.layers.push(layer);
    }

    /// What stands for the state so far.
    pub(super) fn digest(&self) -> Result<Digest, ImageError> {
        Ok(Digest::of(&self.json()?))
    }

    /// Bytes that its configuration comes to.
    pub(super) fn config_bytes(&self) -> Result<usize, ImageError> {
        Ok(self.json()?.len())
    }

    /// What grows beyond a document could not be loaded or pulled by anybody.
    fn json(&self) -> Result<Vec<u8>, ImageError> {
        let json = serde_json::to_vec(&self.config)
            .map_err(|error| ImageError::malformed("configuration being built", error))?;
        if json.len() as u64 > DOCUMENT_LIMIT {
            let what = "the configuration of the image, with its variables, labels and history,".to_owned();
            return Err(ImageError::TooLarge { what, limit: DOCUMENT_LIMIT });
        }
        Ok(json)
    }

    /// The image that it is so far.
    pub(crate) fn record(&self) -> Result<Record, ImageError> {
        let config = self.json()?;
        let manifest = Manifest {
            config: Descriptor {
                media_type: OCI_CONFIG.to_owned(),
                digest: Digest::of(&config),
                size: config.len() as u64,
            },
            layers: self.layers.iter().map(|layer| layer.blob.clone()).collect(),
            artifact_type: None,
        };
        make_record(manifest.to_json(), &manifest, config, None)
    }

    /// Arguments with a value that the environment does not hide: those this stage declares, by name.
    pub(super) fn declared(&self) -> BTreeMap<&str, &str> {
        let set: HashSet<&str> = self.config.config.env.iter().filter_map(|pair| pair.split('=').next()).collect();
        let hidden = |name: &str| set.contains(name);
        let values = self.args.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)));
        values.filter(|(name, _)| !hidden(name)).collect()
    }

    /// The value of a variable: the environment before arguments.
    fn value(&self, build_args: &BuildArgs, name: &str) -> Option<String> {
        let mut env = self.config.config.env.iter().filter_map(|pair| pair.split_once('='));
        if let Some((_, value)) = env.rfind(|(own, _)| *own == name) {
            return Some(value.to_owned());
        }
        match self.args.get(name) {
            Some(value) => value.clone(),
            None if PREDEFINED.contains(&name) => given(build_args, name),
            None => None,
        }
    }

    /// A word with variables put in and quotes taken away.
    pub(super) fn word(&self, at: &Instruction, args: &BuildArgs, word: &str) -> Result<String, ImageError> {
        expand(word, self.escape, &|name| self.value(args, name)).map_err(|reason| at.fault(reason))
    }

    /// All words of an instruction, from its JSON or its plain form.
    pub(super) fn words(&self, at: &Instruction, args: &BuildArgs) -> Result<Vec<String>, ImageError> {
        let words = at.json().unwrap_or_else(|| split(&at.rest, self.escape));
        let mut sum = 0;
        words.iter().map(|word| within(at, &mut sum, self.word(at, args, word)?)).collect()
    }

    /// Notes what an instruction did without running anything, and whether it made a layer.
    pub(super) fn note(&mut self, text: &str, made_layer: bool) {
        self.note_as(format!("/bin/sh -c #(nop)  {text}"), made_layer);
    }

    pub(super) fn note_as(&mut self, created_by: String, made_layer: bool) {
        self.config.history.push(History {
            created_by: Some(created_by),
            empty_layer: !made_layer,
            author: self.config.author.clone(),
            ..History::default()
        });
    }

    /// Carries out an instruction that makes no layer. `globals` are the arguments before the first FROM.
    pub(super) fn apply(
        &mut self,
        at: &Instruction,
        args: &BuildArgs,
        globals: &BTreeMap<String, Option<String>>,
    ) -> Result<(), ImageError> {
        match at.keyword.as_str() {
            "ARG" => {
                for word in split(&at.rest, self.escape) {
                    let (name, default) = self.argument(at, args, &word)?;
                    let value = given(args, &name).or(default).or_else(|| globals.get(&name).cloned().flatten());
                    self.args.insert(name, value);
                    let sum: usize = self.args.values().flatten().map(String::len).sum();
                    too_much(at, sum)?;
                }
            }
            "ENV" => {
                let pairs = self.pairs(at, args)?;
                let env = &mut self.config.config.env;
                let named = |pair: &str| pair.split_once('=').map(|(name, _)| name.to_owned());
                let mut places: HashMap<String, usize> = HashMap::new();
                for (place, own) in env.iter().enumerate() {
                    named(own).map(|name| *places.entry(name).or_insert(place));
                }
                for (name, value) in pairs {
                    let pair = format!("{name}={value}");
                    match places.get(&name) {
                        Some(place) => env[*place] = pair,
                        None => {
                            places.insert(name, env.len());
                            env.push(pair);
                        }
                    }
                }
                if env.len() > VARIABLES {
                    return Err(at.fault(format!(
                        "the image would have {} variables, and at most {VARIABLES} are taken",
                        env.len()
                    )));
                }
            }
            "LABEL" => {
                let pairs = self.pairs(at, args)?;
                self.config.config.labels.extend(pairs);
            }
            "CMD" => {
                self.config.config.cmd = Some(self.command(at));
                self.cmd_set = true;
            }
            "ENTRYPOINT" => {
                self.config.config.entrypoint = Some(self.command(at));
                // A command of the base image is for the base image's entrypoint.
                if !self.cmd_set {
                    self.config.config.cmd = None;
                }
            }
            "SHELL" => {
                let shell = at.json().filter(|shell| !shell.is_empty());
                self.config.config.shell =
                    Some(shell.ok_or_else(|| at.fault("SHELL requires the arguments to be in JSON form"))?);
            }
            "USER" => self.config.config.user = self.single(at, args)?,
            "WORKDIR" => {
                let folder = self.single(at, args)?;
                self.config.config.working_dir = clean(&self.config.config.working_dir, &folder);
            }
            "EXPOSE" => {
                let mut ports = 0;
                for word in self.words(at, args)? {
                    ports += self.expose(at, &word)?;
                    if ports > PORTS {
                        return Err(at.fault(format!("it names more than {PORTS} ports: name each once")));
                    }
                }
            }
            "VOLUME" => {
                let paths = self.words(at, args)?;
                if paths.is_empty() {
                    return Err(at.fault("VOLUME requires at least one argument"));
                }
                for path in paths {
                    if path.trim().is_empty() {
                        return Err(at.fault("VOLUME specified can not be an empty string"));
                    }
                    self.config.config.volumes.insert(path, Empty {});
                }
            }
            "STOPSIGNAL" => {
                let signal = self.single(at, args)?;
                if Signal::parse(&signal).is_none() {
                    return Err(at.fault(format!("invalid signal: {signal}")));
                }
                self.config.config.stop_signal = Some(signal);
            }
            "ONBUILD" => {
                onbuild::read(at, &at.rest)?;
                self.config.config.on_build.push(at.rest.clone());
            }
            "MAINTAINER" => self.config.author = Some(at.rest.clone()),
            "HEALTHCHECK" => self.config.config.healthcheck = Some(self.healthcheck(at)?),
            keyword => return Err(at.lacking(keyword, "it is not known here")),
        }
        Ok(())
    }

    /// Carries out instructions that change the configuration alone.
    ///
    /// # Errors
    /// `Dockerfile` for those that are wrong or do more.
    pub(crate) fn change(&mut self, changes: &[String]) -> Result<(), ImageError> {
        for (at, line) in changes.iter().enumerate() {
            let instruction = dockerfile::instruction(at + 1, line.trim())?;
            if !CHANGES.contains(&instruction.keyword.as_str()) {
                return Err(instruction.fault(format!("{} is not a valid change command", instruction.keyword)));
            }
            self.apply(&instruction, &BuildArgs::new(), &BTreeMap::new())?;
        }
        Ok(())
    }

    /// Reads one `NAME[=default]` of ARG.
    fn argument(&self, at: &Instruction, args: &BuildArgs, word: &str) -> Result<(String, Option<String>), ImageError> {
        let (name, default) = match word.split_once('=') {
            Some((name, default)) => (name, Some(self.word(at, args, default)?)),
            None => (word, None),
        };
        if name.is_empty() {
            return Err(at.fault("ARG names can not be blank"));
        }
        Ok((name.to_owned(), default))
    }

    /// Reads `NAME=value …`, or the old `NAME value`.
    fn pairs(&self, at: &Instruction, args: &BuildArgs) -> Result<Vec<(String, String)>, ImageError> {
        let words = split(&at.rest, self.escape);
        if words.first().is_some_and(|first| !first.contains('=')) {
            let Some((name, value)) = at.rest.split_once(char::is_whitespace) else {
                return Err(at.fault(format!("{} must have two arguments: NAME=value", at.keyword)));
            };
            let value = self.word(at, args, value.trim_start())?;
            return Ok(vec![(self.word(at, args, name)?, value)]);
        }
        let (mut pairs, mut sum) = (Vec::new(), 0);
        for word in &words {
            let Some((name, value)) = word.split_once('=') else {
                return Err(
                    at.fault(format!("syntax error - can't find = in \"{word}\". Must be of the form: name=value"))
                );
            };
            let name = self.word(at, args, name)?;
            if name.is_empty() {
                return Err(at.fault(format!("{} names can not be blank", at.keyword)));
            }
            let value = within(at, &mut sum, self.word(at, args, value)?)?;
            pairs.push((name, value));
        }
        Ok(pairs)
    }

    /// The exec form as it is, or the shell form given to the shell.
    pub(super) fn command(&self, at: &Instruction) -> Vec<String> {
        at.json().unwrap_or_else(|| {
            let mut command = match &self.config.config.shell {
                Some(shell) => shell.clone(),
                None => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            };
            command.push(at.rest.clone());
            command
        })
    }

    fn single(&self, at: &Instruction, args: &BuildArgs) -> Result<String, ImageError> {
        // One argument, in which white space counts.
        let value = self.word(at, args, &at.rest)?;
        if value.is_empty() {
            return Err(at.fault(format!("{} requires exactly one argument", at.keyword)));
        }
        Ok(value)
    }

    /// Answers how many ports it was.
    fn expose(&mut self, at: &Instruction, word: &str) -> Result<usize, ImageError> {
        let bad = || at.fault(format!("invalid containerPort: {word}"));
        let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(at.fault(format!("invalid proto: {protocol}")));
        }
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
        if first == 0 || first > last {
            return Err(bad());
        }
        for port in first..=last {
            self.config.config.exposed_ports.insert(format!("{port}/{protocol}"), Empty {});
        }
        Ok(usize::from(last - first) + 1)
    }

    fn healthcheck(&self, at: &Instruction) -> Result<Healthcheck, ImageError> {
        let mut check = Healthcheck::default();
        let (kind, rest) = at.rest.split_once(char::is_whitespace).unwrap_or((&at.rest, ""));
        match kind.to_ascii_uppercase().as_str() {
            "NONE" if rest.trim().is_empty() && at.flags.is_empty() => {
                check.test = vec!["NONE".to_owned()];
                return Ok(check);
            }
            "NONE" => return Err(at.fault("HEALTHCHECK NONE takes no arguments")),
            "CMD" if rest.trim().is_empty() => return Err(at.fault("missing command after HEALTHCHECK CMD")),
            "CMD" => {
                let command = Instruction { rest: rest.trim().to_owned(), ..at.clone() };
                check.test = match command.json() {
                    Some(exec) => [vec!["CMD".to_owned()], exec].concat(),
                    None => vec!["CMD-SHELL".to_owned(), command.rest],
                };
            }
            other => return Err(at.fault(format!("unknown type \"{other}\" in HEALTHCHECK (try CMD)"))),
        }
        for (name, value) in &at.flags {
            let value = value.as_deref().unwrap_or_default();
            let time = || {
                duration(value).filter(|nanos| *nanos >= 1_000_000).ok_or_else(|| {
                    at.fault(format!("invalid duration \"{value}\" of --{name}: at least 1ms, such as 30s"))
                })
            };
            match name.as_str() {
                "interval" => check.interval = time()?,
                "timeout" => check.timeout = time()?,
                "start-period" => check.start_period = time()?,
                "start-interval" => check.start_interval = time()?,
                "retries" => {
                    let retries = value.parse().ok().filter(|retries| *retries >= 0);
                    check.retries =
                        retries.ok_or_else(|| at.fault(format!("--retries must be a number, not \"{value}\"")))?;
                }
                other => return Err(at.fault(format!("unknown flag: --{other}"))),
            }
        }
        Ok(check)
    }
}

/// Refuses an instruction whose words come to more than an image may say of itself.
pub(super) fn too_much(at: &Instruction, sum: usize) -> Result<(), ImageError> {
    if sum as u64 > DOCUMENT_LIMIT {
        return Err(
            at.fault(format!("its values come to more than {DOCUMENT_LIMIT} bytes, the most an image may hold"))
        );
    }
    Ok(())
}

/// Counts a word.
fn within(at: &Instruction, sum: &mut usize, word: String) -> Result<String, ImageError> {
    *sum += word.len();
    too_much(at, *sum).map(|()| word)
}

/// A path of WORKDIR on top of the one before, without `.` and `..`.
fn clean(before: &str, path: &str) -> String {
    let mut clean = PathBuf::from("/");
    for part in Path::new("/").join(before).join(path).components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean.to_string_lossy().into_owned()
}

/// Reads Go's durations in nanoseconds: `1m30s`, `500ms`, `1.5h`.
fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total = 0.0;
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|letter: char| letter.is_ascii_digit()).map_or(rest.len(), |at| at + digits);
        total += number
            * match &rest[digits..unit_end] {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    #[expect(clippy::cast_possible_truncation, reason = "a cast from f64 saturates")]
    Some(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_and_paths() {
        for (text, nanos) in [
            ("30s", Some(30_000_000_000)),
            ("1m30s", Some(90_000_000_000)),
            ("500ms", Some(500_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            ("x", None),
            ("5", None),
            ("", None),
        ] {
            assert_eq!(duration(text), nanos, "{text}");
        }
        for (before, path, after) in
            [("", "app", "/app"), ("/a", "b/../c", "/a/c"), ("/a", "/b/", "/b"), ("/a", "../../..", "/")]
        {
            assert_eq!(clean(before, path), after);
        }
    }
}
