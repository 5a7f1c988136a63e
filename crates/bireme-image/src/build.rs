//! Building images from Dockerfiles.
//!
//! ```text
//! Dockerfile ──parse──> stages ──those the target needs──> FROM: resolve or pull, instructions in order ──> record
//! context ──unpacked aside, read through .dockerignore──> COPY, ADD: one layer each, written, unpacked
//! RUN ──on the layers so far, by whoever asked for the build (see [`run`])──> what it changed: one layer
//! ```
//!
//! The same files, arguments and base give the same image: layers are written in a fixed order, a command is not run
//! again where nothing before it changed, and a build whose result would differ from a stored image only in its times
//! answers with that image.

mod cache;
mod copy;
mod dockerfile;
mod onbuild;
mod patterns;
mod remote;
pub mod run;
mod run_step;
pub(crate) mod stage;
mod substitution;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{SubsecRound as _, Utc};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::io::SyncIoBridge;

use crate::admit::Candidate;
use crate::auth::RegistryAuth;
use crate::blocking::blocking;
use crate::digest::{Digest, ImageId};
use crate::error::{ImageError, StoreContext as _};
use crate::events::{BuildEvent, OnBuildEvent};
use crate::guard::GcGuard;
use crate::made::NewLayer;
use crate::model::ConfigFile;
use crate::platform::Platform;
use crate::record::{Layer, Record};
use crate::reference::Reference;
use crate::store::ImageStore;
use crate::unpack::{Options, open_sent, unpack};
use crate::view::View;
use crate::wanted::while_wanted;
use cache::Cache;
use copy::CopyRequest;
use dockerfile::{Dockerfile, Instruction, StageText};
use patterns::Ignore;
use remote::Remote;
use run::RunSteps;
use stage::{Stage, given, too_much};

/// Largest Dockerfile or `.dockerignore` that is read, in bytes.
const TEXT_LIMIT: u64 = 1 << 20;

/// Bytes of the configurations of all stages, each of which is there until the build is over.
const MOST_CONFIGURATION: usize = 64 << 20;

/// What an image is to be built from.
pub struct BuildRequest {
    pub context: BuildContext,
    /// Path of the Dockerfile inside the context; Docker's default is `Dockerfile`.
    pub dockerfile: String,
    /// Names to give to the image.
    pub tags: Vec<Reference>,
    /// Values of `ARG`; `None` stands for an argument named without a value, which is as if it were not named.
    pub args: BTreeMap<String, Option<String>>,
    /// Added to the image's labels.
    pub labels: BTreeMap<String, String>,
    /// `None` is Linux on this machine.
    pub platform: Option<Platform>,
    /// The stage to end with, by name or number; `None` is the last.
    pub target: Option<String>,
    /// Ask the registry for newer base images even if they are stored.
    pub pull: bool,
    /// Never take an image or a step from an earlier build.
    pub no_cache: bool,
    /// Take steps of earlier builds only where one of these images has them, stored names or IDs; empty is any.
    pub cache_from: Vec<String>,
    /// Carries out RUN; `None` refuses it.
    pub runner: Option<Arc<dyn RunSteps>>,
    /// Which containers of commands are left there when the commands have ended.
    pub keep_containers: KeepContainers,
    /// Credentials by registry host, `docker.io` for Docker Hub.
    pub auth: BTreeMap<String, RegistryAuth>,
}

/// Which containers of a build are left there when it is done with them. Those of a build that is given up never are.
///
/// Source: moby, `builder/dockerfile/evaluator.go`, `dispatch`: `rm` and `forcerm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepContainers {
    /// None at all.
    None,
    /// That of a command that failed, so that somebody can look at it.
    #[default]
    Failed,
    /// All.
    All,
}

/// The files that COPY and ADD may take.
pub enum BuildContext {
    /// A tar stream, possibly compressed.
    Archive(Box<dyn AsyncRead + Send + Unpin>),
    /// What stands at an address, `http://` or `https://`: such a stream, or a Dockerfile and nothing else.
    Address(String),
    /// A folder of this machine. Read, never written to.
    Folder(PathBuf),
}

impl BuildRequest {
    /// A request with Docker's defaults.
    pub fn new(context: BuildContext) -> Self {
        Self {
            context,
            dockerfile: "Dockerfile".to_owned(),
            tags: Vec::new(),
            args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: None,
            target: None,
            pull: false,
            no_cache: false,
            cache_from: Vec::new(),
            runner: None,
            keep_containers: KeepContainers::default(),
            auth: BTreeMap::new(),
        }
    }
}

impl ImageStore {
    /// Builds an image from a Dockerfile and gives it its names.
    ///
    /// Only the stages that the target needs are built. Events end with [`BuildEvent::Built`] and Docker's
    /// `Successfully built` and `Successfully tagged` lines.
    ///
    /// # Errors
    /// `Dockerfile`, `Instruction` (what this builder lacks, by name and line), `Copy`, `BuildRequest`; whatever pulling
    /// a base image gives. Nothing is recorded then.
    /// # Cancel safety
    /// Dropping the future records nothing and deletes what was made.
    pub async fn build(&self, mut request: BuildRequest, log: OnBuildEvent<'_>) -> Result<ImageId, ImageError> {
        request.tags.iter().try_for_each(Reference::check_tag)?;
        let context = std::mem::replace(&mut request.context, BuildContext::Folder(PathBuf::new()));
        let context = match context {
            BuildContext::Address(address) => match remote::open(&address).await? {
                Remote::Archive(archive) => self.open_context(BuildContext::Archive(archive)).await?,
                Remote::Dockerfile(text) => {
                    "Dockerfile".clone_into(&mut request.dockerfile);
                    self.context_of(text).await?
                }
            },
            other => self.open_context(other).await?,
        };
        let (folder, name) = (context.path().to_owned(), request.dockerfile.clone());
        let (dockerfile, ignore) = blocking("read the Dockerfile", move || read_texts(&folder, &name)).await?;
        let mut build = Build {
            store: self,
            request: &request,
            context: &context,
            ignore,
            globals: BTreeMap::new(),
            stages: Vec::new(),
            cache: Cache::open(self, &request)?,
            claim: GcGuard::new(&self.inner),
            log,
            step: 0,
            steps: 0,
        };
        let stage = Box::pin(build.run(&dockerfile)).await?;
        build.finish(stage).await
    }

    /// A context that is nothing but a Dockerfile.
    async fn context_of(&self, dockerfile: Vec<u8>) -> Result<Context, ImageError> {
        let ingest = self.inner.ingest();
        blocking("write a Dockerfile", move || {
            let folder = aside(&ingest, "context-")?;
            let path = folder.path().join("Dockerfile");
            std::fs::write(&path, dockerfile).during("write", &path)?;
            Ok(Context::Unpacked(folder))
        })
        .await
    }

    async fn open_context(&self, context: BuildContext) -> Result<Context, ImageError> {
        let archive = match context {
            BuildContext::Folder(path) => return Ok(Context::Folder(path)),
            BuildContext::Archive(archive) => archive,
            BuildContext::Address(address) => {
                return Err(ImageError::Fetch { url: address, reason: "it leads to another address".to_owned() });
            }
        };
        let inner = self.inner.clone();
        while_wanted("unpack the build context", move |wanted| {
            let folder = aside(&inner.ingest(), "context-")?;
            let limits = &inner.settings.limits;
            let archive =
                open_sent(SyncIoBridge::new(archive), limits).map_err(|source| ImageError::Input { source })?;
            let options = Options {
                name: "(the build context)",
                whiteouts: false,
                owners: false,
                max_bytes: limits.layer_bytes,
                max_entries: limits.entries,
            };
            unpack(archive, wanted, folder.path(), &options)?;
            Ok(Context::Unpacked(folder))
        })
        .await
    }
}

/// A new folder for what is being made.
fn aside(ingest: &Path, prefix: &str) -> Result<TempDir, ImageError> {
    tempfile::Builder::new().prefix(prefix).tempdir_in(ingest).during("create a folder in", ingest)
}

/// Where the files of the context are.
enum Context {
    Folder(PathBuf),
    /// Deleted with the build.
    Unpacked(TempDir),
}

impl Context {
    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) => path,
            Self::Unpacked(folder) => folder.path(),
        }
    }
}

/// Reads the Dockerfile and the list of what is hidden.
fn read_texts(context: &Path, name: &str) -> Result<(Dockerfile, Ignore), ImageError> {
    let view = View::new(vec![context.to_owned()])?;
    let read = |name: &str| -> Result<Option<String>, ImageError> {
        let Ok(file) = view.open_file(&Path::new("/").join(name)) else { return Ok(None) };
        let mut text = String::new();
        file.take(TEXT_LIMIT + 1)
            .read_to_string(&mut text)
            .map_err(|error| ImageError::BuildRequest { reason: format!("{name} cannot be read: {error}") })?;
        if text.len() as u64 > TEXT_LIMIT {
            return Err(ImageError::TooLarge { what: name.to_owned(), limit: TEXT_LIMIT });
        }
        Ok(Some(text))
    };
    let Some(text) = read(name)? else {
        return Err(ImageError::NoDockerfile { name: name.to_owned() });
    };
    if text.trim().is_empty() {
        return Err(ImageError::EmptyDockerfile { name: name.to_owned() });
    }
    let own = format!("{name}.dockerignore");
    let ignore = match read(&own)? {
        Some(text) => Some(text),
        None => read(".dockerignore")?,
    };
    let ignore = Ignore::parse(&ignore.unwrap_or_default())
        .map_err(|reason| ImageError::BuildRequest { reason: format!(".dockerignore: {reason}") })?;
    Ok((Dockerfile::parse(&text)?, ignore))
}

struct Build<'a> {
    store: &'a ImageStore,
    request: &'a BuildRequest,
    context: &'a Context,
    ignore: Ignore,
    /// Arguments before the first FROM, and the platform's.
    globals: BTreeMap<String, Option<String>>,
    /// By position in the Dockerfile; `None` for those not needed.
    stages: Vec<Option<Stage>>,
    cache: Cache,
    /// Keeps new layers until they are recorded.
    claim: GcGuard,
    log: OnBuildEvent<'a>,
    step: usize,
    steps: usize,
}

impl Build<'_> {
    async fn run(&mut self, dockerfile: &Dockerfile) -> Result<Stage, ImageError> {
        let target = self.target(dockerfile)?;
        let needed = needed(dockerfile, target);
        self.steps =
            dockerfile.globals.len() + needed.iter().map(|at| 1 + dockerfile.stages[*at].body.len()).sum::<usize>();
        self.predefine();
        for argument in &dockerfile.globals {
            self.announce(argument);
            for word in words::split(&argument.rest, dockerfile.escape) {
                let (name, default) = match word.split_once('=') {
                    Some((name, default)) => (name, Some(self.global_word(argument, dockerfile.escape, default)?)),
                    None => (word.as_str(), None),
                };
                if name.is_empty() {
                    return Err(argument.fault("ARG names can not be blank"));
                }
                let value = given(&self.request.args, name).or(default);
                self.globals.insert(name.to_owned(), value);
                too_much(argument, self.globals.values().flatten().map(String::len).sum())?;
            }
        }
        let mut kept = 0;
        for (at, text) in dockerfile.stages.iter().enumerate() {
            let stage = if needed.contains(&at) { Some(Box::pin(self.stage(dockerfile, text)).await?) } else { None };
            if let Some(stage) = &stage {
                kept += stage.config_bytes()?;
                if kept > MOST_CONFIGURATION {
                    let most = MOST_CONFIGURATION >> 20;
                    return Err(text.from.fault(format!(
                        "the configurations of the stages so far come to more than {most} MiB: use fewer stages, or shorter \
                         labels and variables"
                    )));
                }
            }
            self.stages.push(stage);
        }
        self.warn_of_unused(dockerfile);
        if makes_nothing(&dockerfile.stages[target]) {
            return Err(ImageError::NothingBuilt);
        }
        self.stages.swap_remove(target).ok_or_else(|| ImageError::BuildRequest {
            reason: "internal error: the target stage was not built".to_owned(),
        })
    }

    /// The stage to end with.
    fn target(&self, dockerfile: &Dockerfile) -> Result<usize, ImageError> {
        let Some(target) = self.request.target.as_deref().filter(|target| !target.is_empty()) else {
            return Ok(dockerfile.stages.len() - 1);
        };
        let by_number = target.parse().ok().filter(|at| *at < dockerfile.stages.len());
        position(dockerfile, target, dockerfile.stages.len()).or(by_number).ok_or_else(|| ImageError::BuildRequest {
            reason: format!("target stage \"{target}\" could not be found in the Dockerfile"),
        })
    }

    /// Sets the arguments that tell the platforms.
    fn predefine(&mut self) {
        let platforms =
            [("TARGET", self.request.platform.clone().unwrap_or_else(Platform::host)), ("BUILD", Platform::host())];
        for (prefix, platform) in platforms {
            for (suffix, value) in [
                ("PLATFORM", platform.to_string()),
                ("OS", platform.os),
                ("ARCH", platform.architecture),
                ("VARIANT", platform.variant),
            ] {
                self.globals.insert(format!("{prefix}{suffix}"), Some(value));
            }
        }
    }

    fn say(&self, text: impl Into<String>) {
        (self.log)(BuildEvent::Stream(text.into()));
    }

    fn announce(&mut self, instruction: &Instruction) {
        self.step += 1;
        self.say(format!("Step {}/{} : {}\n", self.step, self.steps, instruction.text()));
    }

    fn global_word(&self, at: &Instruction, escape: char, word: &str) -> Result<String, ImageError> {
        words::expand(word, escape, &|name| self.globals.get(name).cloned().flatten())
            .map_err(|reason| at.fault(reason))
    }

    async fn stage(&mut self, dockerfile: &Dockerfile, text: &StageText) -> Result<Stage, ImageError> {
        self.announce(&text.from);
        let mut stage = self.from(dockerfile, text).await?;
        self.show(&stage)?;
        let triggers = std::mem::take(&mut stage.config.config.on_build);
        if !triggers.is_empty() {
            let plural = if triggers.len() == 1 { "" } else { "s" };
            self.say(format!("# Executing {} build trigger{plural}\n", triggers.len()));
            for trigger in &triggers {
                tokio::task::yield_now().await;
                let instruction = onbuild::read(&text.from, trigger)?;
                self.carry_out(dockerfile, &mut stage, &instruction).await?;
                self.show(&stage)?;
            }
        }
        for instruction in &text.body {
            // Many do nothing that waits: here the build ends when nobody wants it any more.
            tokio::task::yield_now().await;
            self.announce(instruction);
            self.carry_out(dockerfile, &mut stage, instruction).await?;
            self.show(&stage)?;
        }
        Ok(stage)
    }

    async fn carry_out(
        &mut self,
        dockerfile: &Dockerfile,
        stage: &mut Stage,
        instruction: &Instruction,
    ) -> Result<(), ImageError> {
        match instruction.keyword.as_str() {
            "COPY" | "ADD" => return self.copy(dockerfile, stage, instruction).await,
            "RUN" => return self.run_command(stage, instruction).await,
            "WORKDIR" => {
                stage.apply(instruction, &self.request.args, &self.globals)?;
                let made = self.work_folder(stage).await?;
                stage.note(&instruction.text(), made);
            }
            _ => {
                stage.apply(instruction, &self.request.args, &self.globals)?;
                stage.note(&instruction.text(), false);
            }
        }
        if self.cache.knows(&self.store.inner, stage)? {
            self.say(cache::USING);
        }
        Ok(())
    }

    /// Prints what stands for the state so far, as Docker does after each step.
    fn show(&self, stage: &Stage) -> Result<(), ImageError> {
        self.say(format!(" ---> {}\n", stage.digest()?.short()));
        Ok(())
    }

    /// An image whose layers stay until the build is over, whoever removes it meanwhile.
    fn hold(&mut self, id: &ImageId) -> Result<Record, ImageError> {
        let record = self.store.inner.record(id)?;
        record.layers.iter().for_each(|layer| self.claim.both(layer));
        // It may have gone before they were claimed.
        self.store.inner.record(id)
    }

    async fn from(&mut self, dockerfile: &Dockerfile, text: &StageText) -> Result<Stage, ImageError> {
        let from = &text.from;
        let mut platform = self.request.platform.clone();
        for (name, value) in &from.flags {
            match (name.as_str(), value) {
                ("platform", Some(value)) => {
                    let value = self.global_word(from, dockerfile.escape, value)?;
                    platform = Some(value.parse().map_err(|error| from.fault(format!("{error}")))?);
                }
                _ => return Err(from.fault(format!("unknown flag: --{name}"))),
            }
        }
        let base = from.rest.split_whitespace().next().unwrap_or_default();
        let base = self.global_word(from, dockerfile.escape, base)?;
        if base.is_empty() {
            return Err(from.fault(format!("base name ({}) should not be blank", from.rest)));
        }
        if base == "scratch" {
            let assumed = platform.is_none();
            let config = ConfigFile::empty(platform.unwrap_or_else(Platform::host));
            let mut stage = Stage::new(config, Vec::new(), dockerfile.escape).with_path();
            stage.assumed = assumed;
            return Ok(stage);
        }
        if let Some(at) = position(dockerfile, &base, self.stages.len()) {
            let Some(earlier) = &self.stages[at] else {
                return Err(from.fault(format!("the stage {base} was not built")));
            };
            let mut stage = Stage::new(earlier.config.clone(), earlier.layers.clone(), dockerfile.escape);
            stage.assumed = earlier.assumed && platform.is_none();
            return Ok(stage);
        }
        let image = self.image(from, &base, platform.as_ref()).await?;
        let record = self.hold(&image)?;
        if record.artifact_type.is_some() {
            return Err(from.fault(format!("{base} is a Wasm artifact, which has no root filesystem to build on; COPY its file into an image FROM scratch")));
        }
        let mut config = record.config_file()?;
        config.created = None;
        config.comment = None;
        let own = config.config.env.len();
        let mut stage = Stage::new(config, record.layers, dockerfile.escape).with_path();
        if stage.config.config.env.len() == own {
            stage.base = Some((image, stage.digest()?));
        }
        Ok(stage)
    }

    /// A stored image, pulled if it is not there or a newer one is asked for.
    async fn image(&self, at: &Instruction, name: &str, platform: Option<&Platform>) -> Result<ImageId, ImageError> {
        if !self.request.pull {
            match self.store.inner.find(name, platform) {
                Ok(id) => return Ok(id),
                Err(ImageError::NotFound { .. } | ImageError::NoPlatform { .. }) => {}
                Err(ImageError::Reference(error)) => {
                    return Err(at.fault(format!("failed to parse stage name \"{name}\": {error}")));
                }
                Err(other) => return Err(other),
            }
        }
        let reference = Reference::parse(name)
            .map_err(|error| at.fault(format!("failed to parse stage name \"{name}\": {error}")))?;
        let auth = self.request.auth.get(reference.registry()).cloned();
        let log = self.log;
        let pulled =
            Box::pin(self.store.pull(&reference, platform, auth, &move |line| log(BuildEvent::Progress(line)))).await?;
        Ok(pulled.id)
    }

    async fn copy(&mut self, dockerfile: &Dockerfile, stage: &mut Stage, at: &Instruction) -> Result<(), ImageError> {
        let args = &self.request.args;
        let (mut from, mut chown, mut chmod) = (None, None, None);
        let mut excluded = Vec::new();
        for (name, value) in &at.flags {
            let value = value.as_deref().map(|value| stage.word(at, args, value)).transpose()?;
            match (name.as_str(), value) {
                ("from", Some(value)) if at.keyword == "COPY" => from = Some(value),
                ("chown", Some(value)) if !value.is_empty() => chown = Some(value),
                ("chmod", Some(value)) => {
                    let mode = u32::from_str_radix(&value, 8).ok().filter(|mode| *mode <= 0o7777);
                    chmod = Some(mode.ok_or_else(|| {
                        at.fault(format!(
                            "invalid chmod parameter: '{value}': it should be an octal number such as 0755"
                        ))
                    })?);
                }
                // The result is the same, only made in another order.
                ("link", None) => {}
                ("exclude", Some(value)) => excluded.push(value),
                (flag @ ("link" | "parents" | "checksum" | "keep-git-dir" | "unpack"), _) => {
                    return Err(at.lacking(&format!("{} --{flag}", at.keyword), "leave the flag out"));
                }
                (flag, _) => return Err(at.fault(format!("unknown flag: --{flag}"))),
            }
        }
        let mut sources = stage.words(at, args)?;
        let Some(target) = sources.pop().filter(|_| !sources.is_empty()) else {
            return Err(at.fault(format!("{} requires at least two arguments, a source and a destination", at.keyword)));
        };
        let remote = if at.keyword == "ADD" { self.remote(at, &mut sources, &target).await? } else { None };
        let context = from.is_none() && remote.is_none();
        let source: Vec<PathBuf> = match (&from, &remote) {
            (Some(name), _) => self.other_stage(dockerfile, at, name).await?,
            (None, Some(fetched)) => vec![fetched.path().to_owned()],
            (None, None) => vec![self.context.path().to_owned()],
        };
        let shown = target.clone();
        let order = CopyRequest {
            keyword: at.keyword.clone(),
            line: at.line,
            sources,
            target,
            working_dir: stage.config.config.working_dir.clone(),
            chown,
            chmod,
            context,
            exclude: Ignore::of(&excluded).map_err(|reason| at.fault(format!("invalid --exclude: {reason}")))?,
        };
        let below = self.folders(&stage.layers);
        let inner = self.store.inner.clone();
        let ignore = std::mem::take(&mut self.ignore);
        let (copied, ignore) = while_wanted("copy files into a layer", move |wanted| {
            let copied = copy::copy(&inner, wanted, &order, View::new(source)?, &ignore, &View::new(below)?)?;
            Ok((copied, ignore))
        })
        .await?;
        self.ignore = ignore;
        let created_by = format!("/bin/sh -c #(nop) {} {} in {shown} ", at.keyword, copied.what);
        let key = Digest::of(format!("copy {} {created_by}", stage.digest()?).as_bytes());
        let layer = match self.cache.made(&self.store.inner, stage, &key, &created_by, &mut self.claim)? {
            Some(Some(layer)) => {
                self.say(cache::USING);
                crate::layers::unpacked(&self.store.inner, &layer).await?;
                layer
            }
            _ => {
                let layer = self.store.import(copied.layer, &mut self.claim).await?;
                self.store.inner.db.set_step(&key, Some(&layer))?;
                layer
            }
        };
        stage.push(layer);
        stage.note_as(created_by, true);
        Ok(())
    }

    /// Fetches what ADD names by address; the sources become the names of the files in the answer.
    async fn remote(
        &self,
        at: &Instruction,
        sources: &mut [String],
        target: &str,
    ) -> Result<Option<TempDir>, ImageError> {
        match sources.iter().filter(|source| is_remote(source)).count() {
            0 => return Ok(None),
            count if count < sources.len() => {
                return Err(at.lacking("ADD of files and addresses together", "use an instruction for each"));
            }
            _ => {}
        }
        let ingest = self.store.inner.ingest();
        let folder = aside(&ingest, "fetched-")?;
        for source in sources {
            if !["http://", "https://"].iter().any(|scheme| source.to_ascii_lowercase().starts_with(scheme)) {
                return Err(at.lacking(&format!("ADD {source}"), "clone the repository first and COPY it"));
            }
            let path = source.split(['?', '#']).next().unwrap_or_default();
            let name = path.rsplit_once("://").and_then(|(_, path)| path.split_once('/')).map_or("", |(_, path)| path);
            let name = match (name.rsplit('/').next().unwrap_or_default(), target.rsplit('/').next()) {
                ("", None | Some("")) => {
                    return Err(at.fault(format!("cannot determine filename from url: {source}")));
                }
                ("", Some(name)) | (name, _) => name.to_owned(),
            };
            let fetched = folder.path().join(&name);
            self.download(source, &fetched).await?;
            *source = name;
        }
        Ok(Some(folder))
    }

    /// Fetches a file; it is for its owner alone, as Docker has it.
    async fn download(&self, source: &str, to: &Path) -> Result<(), ImageError> {
        let limit = self.store.inner.settings.limits.layer_bytes;
        self.say("Downloading\n");
        let mut from = crate::fetch::fetch(source).await?.take(limit + 1);
        let mut file = tokio::fs::File::from_std(
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).during("create", to)?,
        );
        let failed = |error: std::io::Error| ImageError::Fetch { url: source.to_owned(), reason: error.to_string() };
        if tokio::io::copy(&mut from, &mut file).await.map_err(failed)? > limit {
            return Err(ImageError::TooLarge { what: source.to_owned(), limit });
        }
        file.flush().await.during("write", to)
    }

    /// The folders of the stage or image that COPY --from names.
    async fn other_stage(
        &mut self,
        dockerfile: &Dockerfile,
        at: &Instruction,
        name: &str,
    ) -> Result<Vec<PathBuf>, ImageError> {
        let known = self.stages.len();
        let by_number = name.parse::<usize>().ok();
        if by_number.is_some_and(|number| number >= known) {
            return Err(at.fault(format!("invalid from flag value {name}: it names no earlier stage")));
        }
        if let Some(stage) = position(dockerfile, name, known).or(by_number) {
            let stage = self.stages[stage].as_ref();
            let stage = stage.ok_or_else(|| at.fault(format!("the stage {name} was not built")))?;
            return Ok(self.folders(&stage.layers));
        }
        if name.eq_ignore_ascii_case("scratch") {
            return Err(at.fault("COPY --from=scratch has nothing to copy"));
        }
        let id = self.image(at, name, self.request.platform.as_ref()).await?;
        self.hold(&id)?;
        self.store.layers(&id).await
    }

    fn folders(&self, layers: &[Layer]) -> Vec<PathBuf> {
        layers.iter().map(|layer| self.store.inner.layer_path(&layer.diff_id)).collect()
    }

    /// Makes the working directory where the image has none; answers whether that took a layer.
    async fn work_folder(&mut self, stage: &mut Stage) -> Result<bool, ImageError> {
        let (inner, below) = (self.store.inner.clone(), self.folders(&stage.layers));
        let path = PathBuf::from(&stage.config.config.working_dir);
        let made = while_wanted("make the working directory", move |wanted| {
            copy::make_folder(&inner, wanted, &View::new(below)?, &path)
        })
        .await?;
        match made {
            Some(layer) => self.add_layer(stage, layer).await.map(|()| true),
            None => Ok(false),
        }
    }

    /// Puts a new layer on top of a stage.
    async fn add_layer(&mut self, stage: &mut Stage, new: NewLayer) -> Result<(), ImageError> {
        let layer = self.store.import(new, &mut self.claim).await?;
        stage.push(layer);
        Ok(())
    }

    /// Says which of the given arguments nothing asked for.
    fn warn_of_unused(&self, dockerfile: &Dockerfile) {
        let stages = dockerfile.stages.iter().flat_map(|stage| &stage.body);
        let declared: BTreeSet<String> = dockerfile
            .globals
            .iter()
            .chain(stages.filter(|instruction| instruction.keyword == "ARG"))
            .flat_map(|argument| words::split(&argument.rest, dockerfile.escape))
            .map(|word| word.split('=').next().unwrap_or_default().to_owned())
            .collect();
        let unused: Vec<&str> = self
            .request
            .args
            .keys()
            .map(String::as_str)
            .filter(|name| !declared.contains(*name) && !name.to_ascii_lowercase().ends_with("_proxy"))
            .collect();
        if !unused.is_empty() {
            self.say(format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" ")));
        }
    }

    /// An image that nobody gave a platform is known by what it starts: a component makes it one of components.
    async fn recognise(&self, stage: &mut Stage) -> Result<(), ImageError> {
        let config = &stage.config.config;
        let program = [&config.entrypoint, &config.cmd].into_iter().flatten().flatten().next().cloned();
        let (true, Some(program)) = (stage.assumed, program) else { return Ok(()) };
        let (folders, working_dir) = (self.folders(&stage.layers), config.working_dir.clone());
        let name = program.clone();
        let found = blocking("look at the program of an image", move || {
            Ok(crate::component::is_wasm(&folders, &working_dir, &name))
        })
        .await?;
        if found {
            stage.make_component();
            let platform = Platform::wasm();
            self.say(format!(" ---> {program} is a WebAssembly component: the platform of the image is {platform}\n"));
        }
        Ok(())
    }

    /// Records the image.
    async fn finish(mut self, mut stage: Stage) -> Result<ImageId, ImageError> {
        stage.config.config.labels.extend(self.request.labels.clone());
        self.recognise(&mut stage).await?;
        let key = stage.digest()?;
        let stored = if self.request.no_cache { None } else { self.store.inner.db.built(&key)? };
        let names: Vec<_> = self.request.tags.iter().map(|tag| (tag.clone(), None)).collect();
        let record = match stored {
            Some(id) => self.store.inner.record(&id)?,
            None => {
                let now = Utc::now().trunc_subsecs(3);
                stage.config.created = Some(now);
                for step in &mut stage.config.history {
                    step.created.get_or_insert(now);
                }
                stage.record()?
            }
        };
        let id = record.id.clone();
        self.store.admit(vec![Candidate { record, names }], &mut self.claim).await?;
        self.store.inner.db.set_built(&key, &id)?;
        (self.log)(BuildEvent::Built(id.clone()));
        self.say(format!("Successfully built {}\n", id.short()));
        for tag in &self.request.tags {
            self.say(format!("Successfully tagged {}\n", tag.familiar()));
        }
        Ok(id)
    }
}

/// Which of the first `before` stages has that name.
fn position(dockerfile: &Dockerfile, name: &str, before: usize) -> Option<usize> {
    let name = name.to_ascii_lowercase();
    dockerfile.stages[..before].iter().rposition(|stage| stage.name.as_deref() == Some(name.as_str()))
}

/// Whether a stage is neither based on anything nor does anything.
fn makes_nothing(stage: &StageText) -> bool {
    let base = stage.from.rest.split_whitespace().find(|word| !word.starts_with("--"));
    stage.body.is_empty() && base == Some("scratch")
}

/// The stages that `target` is made of, itself included.
fn needed(dockerfile: &Dockerfile, target: usize) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut open = vec![target];
    while let Some(at) = open.pop() {
        if !needed.insert(at) {
            continue;
        }
        let stage = &dockerfile.stages[at];
        // Names with variables in them may mean any earlier stage.
        let mut reach = |name: &str, numbers: bool| {
            if name.contains('$') {
                open.extend(0..at);
                return;
            }
            let number = name.parse().ok().filter(|number| numbers && *number < at);
            open.extend(position(dockerfile, name, at).or(number));
        };
        reach(stage.from.rest.split_whitespace().next().unwrap_or_default(), false);
        for instruction in &stage.body {
            for (flag, value) in &instruction.flags {
                if flag == "from" {
                    reach(value.as_deref().unwrap_or_default(), true);
                }
            }
        }
    }
    needed
}

/// Whether ADD would have to fetch it.
fn is_remote(source: &str) -> bool {
    let lower = source.to_ascii_lowercase();
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|start| lower.starts_with(start))
}
