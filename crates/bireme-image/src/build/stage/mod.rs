//! One stage while it is built: the configuration as its instructions change it.

mod apply;
mod history;

use std::collections::{BTreeMap, HashSet};

use bireme_core::WorkloadKind;
use bireme_dockerfile::{Expander, Instruction, ParseError};

use super::style::BuildStyle;
use crate::digest::{Digest, ImageId};
use crate::error::ImageError;
use crate::events::StepId;
use crate::model::{ConfigFile, DOCUMENT_LIMIT, Descriptor, History, Manifest, OCI_CONFIG};
use crate::platform::Platform;
use crate::record::{Layer, Record, make_record};

/// Where programs are looked for in images that do not say. Source: moby, `pkg/system`, `DefaultPathEnv`.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Arguments that need no `ARG`. Source: Dockerfile reference, "Predefined ARGs".
pub(in crate::build) const PREDEFINED: [&str; 10] = [
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

/// Values of arguments as given with the build.
pub(in crate::build) type BuildArgs = BTreeMap<String, Option<String>>;

/// Answers the value `name` has as a build argument.
pub(in crate::build) fn given(args: &BuildArgs, name: &str) -> Option<String> {
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
    style: BuildStyle,
    /// Nobody said what it runs on: it is this machine's Linux unless its program says otherwise.
    pub(in crate::build) assumed: bool,
    /// Its steps are taken from no earlier build.
    pub(in crate::build) no_cache: bool,
    /// The stored image that it begins with, and what stood for the state then.
    pub(in crate::build) base: Option<(ImageId, Digest)>,
    /// The step that made what there is so far.
    pub(in crate::build) last: Option<StepId>,
    /// By what each step is known that was carried out, or need not be, and which layer it made.
    pub(in crate::build) keys: Vec<(Digest, Option<usize>)>,
}

impl Stage {
    pub(crate) fn new(config: ConfigFile, layers: Vec<Layer>) -> Self {
        Self {
            config,
            layers,
            args: BTreeMap::new(),
            cmd_set: false,
            style: BuildStyle::Classic,
            assumed: false,
            no_cache: false,
            base: None,
            last: None,
            keys: Vec::new(),
        }
    }

    /// A stage that begins where another one ended.
    pub(in crate::build) fn on(&self) -> Self {
        let mut stage = Self::new(self.config.clone(), self.layers.clone());
        (stage.style, stage.assumed, stage.last) = (self.style, self.assumed, self.last.clone());
        stage.keys.clone_from(&self.keys);
        if self.style == BuildStyle::Steps {
            // Docker's classic builder has each stage declare its own.
            stage.args.clone_from(&self.args);
        }
        stage
    }

    /// Whose histories are written.
    pub(in crate::build) fn with_style(mut self, style: BuildStyle) -> Self {
        self.style = style;
        self
    }

    /// The stage as commands of a build find it: with Docker's default `PATH` where its base has none.
    pub(in crate::build) fn with_path(mut self) -> Self {
        let env = &mut self.config.config.env;
        let has_path = env.iter().any(|pair| pair.starts_with("PATH="));
        if !has_path && self.config.platform().kind() == WorkloadKind::Container {
            self.config.config.env.push(DEFAULT_PATH.to_owned());
        }
        self
    }

    /// Makes it an image of a component, which has no programs to look for.
    pub(in crate::build) fn make_component(&mut self) {
        let wasm = Platform::wasm();
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

    /// Notes a step that is known by `key`, and puts its layer on top if it made one.
    pub(in crate::build) fn stepped(&mut self, key: Digest, layer: Option<Layer>) {
        self.keys.push((key, layer.as_ref().map(|_| self.layers.len())));
        if let Some(layer) = layer {
            self.push(layer);
        }
    }

    /// Its steps, with what they made.
    pub(in crate::build) fn made(&self) -> Vec<(Digest, Option<Layer>)> {
        let layer = |at: usize| self.layers.get(at).cloned();
        self.keys.iter().map(|(key, at)| (key.clone(), at.and_then(layer))).collect()
    }

    /// What stands for the state so far.
    pub(in crate::build) fn digest(&self) -> Result<Digest, ImageError> {
        Ok(Digest::of(&self.json()?))
    }

    /// What of the state a command's result depends on: the files, and how it is run.
    pub(in crate::build) fn run_key(&self) -> String {
        let ConfigFile { config, rootfs, .. } = &self.config;
        format!(
            "{} {:?} {:?} {:?} {:?}",
            self.config.platform(),
            rootfs.diff_ids,
            config.env,
            config.user,
            config.working_dir
        )
    }

    /// Bytes that its configuration comes to.
    pub(in crate::build) fn config_bytes(&self) -> Result<usize, ImageError> {
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
    pub(in crate::build) fn declared(&self) -> BTreeMap<&str, &str> {
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
    pub(in crate::build) fn word(&self, at: &Instruction, args: &BuildArgs, word: &str) -> Result<String, ImageError> {
        let value = |name: &str| self.value(args, name);
        Expander::new(at.escape, &value).word(word).map_err(|reason| fault(at, reason))
    }

    /// An instruction as its step is called: with the beginning of its heredoc.
    pub(in crate::build) fn shown(&self, at: &Instruction, args: &BuildArgs) -> String {
        let value = |name: &str| self.value(args, name);
        let shown = bireme_dockerfile::read::shown(at, &value);
        match bireme_dockerfile::read::RunFlags::summary(at) {
            Some(summary) => format!("{shown} {summary}"),
            None => shown,
        }
    }

    /// Reads an instruction in whose words variables may stand.
    pub(in crate::build) fn expanding<T>(
        &self,
        at: &Instruction,
        args: &BuildArgs,
        read: impl FnOnce(&mut Expander<'_>) -> Result<T, ParseError>,
    ) -> Result<T, ImageError> {
        let value = |name: &str| self.value(args, name);
        read(&mut Expander::new(at.escape, &value)).map_err(|error| fault(at, error.message))
    }

    /// Notes what an instruction did without running anything, and whether it made a layer.
    pub(in crate::build) fn note(&mut self, at: &Instruction, made_layer: bool) {
        self.note_as(self.created_by(at), made_layer);
    }

    /// What the history says of an instruction that runs nothing.
    pub(in crate::build) fn created_by(&self, at: &Instruction) -> String {
        match self.style {
            BuildStyle::Classic => format!("/bin/sh -c #(nop)  {}", at.text),
            BuildStyle::Steps => history::created_by(at, &self.config.config),
        }
    }

    pub(in crate::build) fn note_as(&mut self, created_by: String, made_layer: bool) {
        let comment = (self.style == BuildStyle::Steps).then(|| "buildkit.dockerfile.v0".to_owned());
        self.config.history.push(History {
            created_by: Some(created_by),
            empty_layer: !made_layer,
            author: self.config.author.clone(),
            comment,
            ..History::default()
        });
    }

    /// What the shell form of a command is given to.
    pub(in crate::build) fn shell(&self) -> Vec<String> {
        self.config.config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
    }

    /// The exec form as it is, or the shell form given to the shell.
    pub(in crate::build) fn command(&self, at: &Instruction) -> Vec<String> {
        at.json.clone().unwrap_or_else(|| {
            let mut command = self.shell();
            command.push(at.rest.clone());
            command
        })
    }
}

/// What is wrong with an instruction, and where it stands.
pub(in crate::build) fn fault(at: &Instruction, reason: impl Into<String>) -> ImageError {
    let message = format!("dockerfile parse error on line {}: {}", at.lines.first, reason.into());
    ImageError::Dockerfile(ParseError::at(at.lines, message))
}

/// What this builder lacks.
pub(in crate::build) fn lacking(at: &Instruction, what: &str, reason: impl Into<String>) -> ImageError {
    ImageError::Instruction { line: at.lines.first, instruction: what.to_owned(), reason: reason.into() }
}

/// Refuses an instruction whose words come to more than an image may say of itself.
pub(in crate::build) fn too_much(at: &Instruction, sum: usize) -> Result<(), ImageError> {
    if sum as u64 > DOCUMENT_LIMIT {
        return Err(fault(
            at,
            format!("its values come to more than {DOCUMENT_LIMIT} bytes, the most an image may hold"),
        ));
    }
    Ok(())
}
