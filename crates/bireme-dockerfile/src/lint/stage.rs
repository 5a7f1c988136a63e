//! Rules about what stands in a stage: what BuildKit finds while it carries the stage's instructions out.

use std::collections::{BTreeMap, BTreeSet};

use super::rules::*;
use super::{Found, Ignored, LintContext};
use crate::dockerfile::Dockerfile;
use crate::error::Lines;
use crate::graph::{self, Source};
use crate::instruction::Instruction;
use crate::keyword::Keyword;
use crate::read;
use crate::scope::{Globals, MOST_VARIABLES, Variables};
use crate::suggest;
use crate::words::Expander;

/// What BuildKit gives to images that have none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Variables that are no environment.
const NO_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// All stages, those that no target needs among them.
pub(super) fn all(file: &Dockerfile, globals: &Globals, context: &LintContext<'_>, found: &mut Found) {
    let value = |name: &str| globals.values.get(name).map(str::to_owned);
    let mut done: Vec<State> = Vec::new();
    for (number, stage) in file.stages.iter().enumerate() {
        let mut expander = Expander::new(stage.from.instruction.escape, &value);
        let state = match graph::base(file, number, &mut expander) {
            Ok(Source::Stage(before)) => done[before].clone(),
            Ok(Source::Other(name)) => State::on(&name, context),
            Err(_) => State::default(),
        };
        let mut stage_rules = Rules { state, once: BTreeMap::new(), globals, context, found };
        for at in &stage.body {
            // A stage with more variables is refused when it is built.
            let many = stage_rules.state.env.as_ref().is_some_and(|env| env.len() > MOST_VARIABLES);
            if many || stage_rules.found.full() {
                break;
            }
            stage_rules.look_at(at);
        }
        done.push(stage_rules.state);
    }
}

/// What holds at one place in a stage.
#[derive(Clone, Default)]
struct State {
    /// `None` where the base image is not known.
    env: Option<Variables>,
    shell: Option<bool>,
    /// Declared by ARG.
    arguments: BTreeSet<String>,
    workdir_set: bool,
}

impl State {
    fn on(name: &str, context: &LintContext<'_>) -> Self {
        let image = if name == "scratch" { Some(super::BaseImage::default()) } else { (context.base)(name) };
        let Some(image) = image else { return Self::default() };
        let mut env = image.env;
        if env.get("PATH").is_none() {
            env.set("PATH", PATH);
        }
        Self { env: Some(env), shell: Some(image.shell), ..Self::default() }
    }
}

struct Rules<'a> {
    state: State,
    /// Where the instructions stand of which only the last one counts.
    once: BTreeMap<Keyword, Lines>,
    globals: &'a Globals,
    context: &'a LintContext<'a>,
    found: &'a mut Found,
}

impl Rules<'_> {
    fn look_at(&mut self, at: &Instruction) {
        match at.keyword {
            Keyword::Arg => self.argument(at),
            Keyword::Env | Keyword::Label => self.pairs(at),
            Keyword::Copy | Keyword::Add => self.copy(at),
            Keyword::Run => {
                for field in read::run(at)
                    .map(|run| run.mounts)
                    .unwrap_or_default()
                    .iter()
                    .flat_map(|mount| read::mount_words(mount))
                {
                    self.word(at, &field);
                }
            }
            Keyword::Workdir => {
                let path = self.word(at, &at.rest);
                // Where the value is not known, neither is whether it begins with a slash.
                if let Some(path) = path
                    && !self.state.workdir_set
                    && !path.starts_with('/')
                {
                    let detail =
                        format!("Relative workdir {path:?} can have unexpected results if the base image changes");
                    self.found.warn(&WORKDIR_RELATIVE_PATH, at.lines, detail);
                }
                self.state.workdir_set = true;
            }
            Keyword::User | Keyword::Stopsignal => {
                self.word(at, &at.rest);
            }
            Keyword::Volume => {
                for word in at.arguments() {
                    self.word(at, &word);
                }
            }
            Keyword::Shell => self.state.shell = Some(true),
            Keyword::Cmd | Keyword::Entrypoint => {
                self.once(at);
                if at.json.is_none() && self.state.shell == Some(false) {
                    let detail = format!(
                        "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                        at.written
                    );
                    self.found.warn(&JSON_ARGS_RECOMMENDED, at.lines, detail);
                }
            }
            Keyword::Healthcheck => self.once(at),
            Keyword::Expose => self.expose(at),
            _ => {}
        }
    }

    /// Expands one word; `None` where it cannot be, or what it stands on is not known.
    fn word(&mut self, at: &Instruction, word: &str) -> Option<String> {
        self.expand(at, |expander| expander.word(word))
    }

    fn expand<T>(&mut self, at: &Instruction, expand: impl Fn(&mut Expander<'_>) -> Result<T, String>) -> Option<T> {
        if self.found.full() {
            return None;
        }
        let env = self.state.env.as_ref();
        let value = |name: &str| env.and_then(|env| env.get(name)).map(str::to_owned);
        let mut expander = Expander::new(at.escape, &value);
        let expanded = expand(&mut expander).ok();
        self.found.cost += expander.cost();
        if env.is_none() {
            let plain = expander.used().is_empty() && expander.unset().is_empty();
            return expanded.filter(|_| plain);
        }
        for name in expander.unset() {
            if self.state.arguments.contains(name) || NO_ENVIRONMENT.contains(&name.as_str()) {
                continue;
            }
            let names = env.into_iter().flat_map(Variables::names).filter(|name| !name.is_empty());
            let mut detail = format!("Usage of undefined variable '${name}'");
            if let Some(near) = suggest::nearest(name, names, true) {
                detail = format!("{detail} (did you mean ${near}?)");
            }
            self.found.warn(&UNDEFINED_VAR, at.lines, detail);
        }
        expanded
    }

    fn set(&mut self, name: String, value: String) {
        if let Some(env) = &mut self.state.env {
            env.set(name, value);
        }
    }

    fn argument(&mut self, at: &Instruction) {
        for argument in read::arguments(at).unwrap_or_default() {
            let name = argument.name;
            self.secret(at, &name);
            let given = self.context.build_args.get(&name).cloned();
            let value = match (given, argument.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => self.word(at, &default),
                (None, None) => self.globals.values.get(&name).map(str::to_owned),
            };
            if let Some(value) = value.filter(|_| !NO_ENVIRONMENT.contains(&name.as_str())) {
                self.set(name.clone(), value);
            }
            self.state.arguments.insert(name);
        }
    }

    fn pairs(&mut self, at: &Instruction) {
        let pairs = read::pairs(at).unwrap_or_default();
        let mut set = Vec::new();
        for pair in &pairs {
            let (name, value) = (self.word(at, &pair.name), self.word(at, &pair.value));
            set.push((name.unwrap_or_else(|| pair.name.clone()), value.unwrap_or_default(), pair.legacy));
        }
        for (name, value, legacy) in set {
            if legacy {
                let word = &at.written;
                let detail =
                    format!("\"{word} key=value\" should be used instead of legacy \"{word} key value\" format");
                self.found.warn(&LEGACY_KEY_VALUE_FORMAT, at.lines, detail);
            }
            if at.keyword == Keyword::Env {
                self.secret(at, &name);
                self.set(name, value);
            }
        }
    }

    fn secret(&mut self, at: &Instruction, name: &str) {
        if is_secret(name) {
            let detail =
                format!("Do not use ARG or ENV instructions for sensitive data ({} {name:?})", at.keyword.as_str());
            self.found.warn(&SECRETS_USED_IN_ARG_OR_ENV, at.lines, detail);
        }
    }

    fn copy(&mut self, at: &Instruction) {
        let Ok(copy) = read::copy(at) else { return };
        for word in [&copy.chown, &copy.chmod, &copy.checksum].into_iter().flatten() {
            self.word(at, word);
        }
        let sources: Vec<Option<String>> = copy.sources.iter().map(|word| self.word(at, word)).collect();
        self.word(at, &copy.dest);
        for file in copy.heredocs.iter().filter(|file| file.expand) {
            self.expand(at, |expander| expander.heredoc(&file.content));
        }
        if let Some(ignored) = self.context.ignored.filter(|_| copy.from.is_none()) {
            for source in sources.iter().flatten() {
                self.ignored(at, &ignored, source);
            }
        }
    }

    fn ignored(&mut self, at: &Instruction, ignored: &Ignored<'_>, source: &str) {
        if ignored.exceptions || is_elsewhere(source) {
            return;
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in source.split('/').filter(|part| !matches!(*part, "" | ".")) {
            if part == ".." {
                parts.pop();
            } else {
                parts.push(part);
            }
        }
        let path = parts.join("/");
        let out = if path.is_empty() { ignored.everything } else { (ignored.path)(&path) };
        if out {
            let word = if at.keyword == Keyword::Add { "Add" } else { "Copy" };
            let path = if path.is_empty() { "." } else { &path };
            let detail = format!("Attempting to {word} file {path:?} that is excluded by .dockerignore");
            self.found.warn(&COPY_IGNORED_FILE, at.lines, detail);
        }
    }

    fn once(&mut self, at: &Instruction) {
        if let Some(before) = self.once.insert(at.keyword, at.lines) {
            let detail = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                at.written
            );
            self.found.warn(&MULTIPLE_INSTRUCTIONS_DISALLOWED, before, detail);
        }
    }

    fn expose(&mut self, at: &Instruction) {
        let Some(env) = &self.state.env else { return };
        let value = |name: &str| env.get(name).map(str::to_owned);
        let mut expander = Expander::new(at.escape, &value);
        let ports = read::ports(at, &mut expander).unwrap_or_default();
        self.found.cost += expander.cost();
        for port in ports {
            let written = &port.written;
            let protocol = written.rsplit_once('/').map_or("", |(_, protocol)| protocol);
            if protocol != protocol.to_lowercase() {
                let detail = format!("Defined protocol '{written}' in EXPOSE instruction should be lowercase");
                self.found.warn(&EXPOSE_PROTO_CASING, at.lines, detail);
            }
            if port.mapped {
                let detail = format!(
                    "EXPOSE instruction should not define an IP address or host-port mapping, found '{written}'"
                );
                self.found.warn(&EXPOSE_INVALID_FORMAT, at.lines, detail);
            }
        }
    }
}

/// Whether ADD fetches it from elsewhere.
fn is_elsewhere(source: &str) -> bool {
    source.contains("://") || source.starts_with("git@")
}

/// Whether a name tells of a secret: one of its words does, and none says that it is only about one.
fn is_secret(name: &str) -> bool {
    const TELLING: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let name = name.to_lowercase();
    let has = |words: &[&str]| name.split('_').any(|word| words.contains(&word));
    has(&TELLING) && !has(&HARMLESS)
}
