//! FROM: a stored or pulled image, an earlier stage, a named context, or nothing.

use std::path::PathBuf;
use std::sync::Arc;

use bireme_dockerfile::{Instruction, Keyword, graph as stages};

use super::copy::{self, CopyRequest};
use super::graph::Graph;
use super::output::BuildOutput;
use super::request::NamedContext;
use super::shared::Context;
use super::source::MAIN_CONTEXT;
use super::stage::{Stage, fault};
use super::step::Step;
use super::style::BuildStyle;
use crate::content_store::ContentStore;
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::events::StepId;
use crate::guard::GcGuard;
use crate::model::ConfigFile;
use crate::platform::Platform;
use crate::pull::Origin;
use crate::record::Record;
use crate::reference::Reference;
use crate::wanted::while_wanted;

/// Files that COPY or a mount takes from elsewhere than the main context.
pub(super) struct Elsewhere {
    /// Lowest first.
    pub(super) folders: Vec<PathBuf>,
    pub(super) step: Option<StepId>,
    /// Nothing that lies there belongs to anybody: they are files of the client.
    pub(super) of_client: bool,
    /// What keeps the folders there.
    pub(super) keep: Vec<Arc<dyn std::any::Any + Send + Sync>>,
}

impl Elsewhere {
    /// Files of an image or a stage, whose layers stay by themselves.
    fn of_layers(folders: Vec<PathBuf>, step: Option<StepId>) -> Self {
        Self { folders, step, of_client: false, keep: Vec::new() }
    }
}

impl From<Context> for Elsewhere {
    fn from(context: Context) -> Self {
        let folders = vec![context.files.path().to_owned()];
        Self { folders, step: Some(context.step), of_client: true, keep: vec![Arc::new(context.files)] }
    }
}

impl<'a> Graph<'a> {
    /// The state that a stage begins with; and for an image, what it is called in full.
    pub(super) async fn from(&'a self, at: usize) -> Result<(Stage, Option<String>), ImageError> {
        let style = self.shared.request.style;
        let from = &self.dockerfile.stages[at].from;
        let instruction = &from.instruction;
        let mut platform = self.platform.clone();
        if let Some(value) = &from.platform {
            let value = self.global_word(instruction, value)?;
            platform = Some(value.parse().map_err(|error| fault(instruction, format!("{error}")))?);
        }
        let base = self.global_word(instruction, &from.image)?;
        if base.is_empty() {
            return Err(fault(instruction, format!("base name ({}) should not be blank", from.image)));
        }
        if let Some((key, context)) = self.named(&base, platform.as_ref()) {
            return self.on_named(instruction, &base, key, context, platform).await;
        }
        if base == "scratch" {
            let assumed = platform.is_none();
            let config = ConfigFile::empty(platform.unwrap_or_else(Platform::host));
            let mut stage = Stage::new(config, Vec::new()).with_style(style).with_path();
            if style == BuildStyle::Steps {
                "/".clone_into(&mut stage.config.config.working_dir);
            }
            stage.assumed = assumed;
            return Ok((stage, None));
        }
        if let Some(earlier) = stages::named(&self.dockerfile.stages[..at], &base) {
            let earlier = self.stage(earlier).await?;
            let mut stage = earlier.on();
            stage.assumed = earlier.assumed && platform.is_none();
            return Ok((stage, None));
        }
        self.on_image(instruction, &base, platform.as_ref()).await
    }

    async fn on_image(
        &'a self,
        at: &Instruction,
        base: &str,
        platform: Option<&Platform>,
    ) -> Result<(Stage, Option<String>), ImageError> {
        let full = Reference::parse(base).map_or_else(|_| base.to_owned(), |reference| reference.to_string());
        let lines = Some(at.lines.first..=at.lines.last);
        let step = Step::begin(self.shared, format!("[internal] load metadata for {full}"), Vec::new(), lines);
        let found = self.image(at, base, platform, &step).await;
        let image = step.ended_by(found)?;
        let made = self.on_record(at, base, self.shared.hold(&image)?)?;
        Ok((made, Some(full)))
    }

    /// A stage that begins with an image whose layers stay until the build is over.
    fn on_record(&self, at: &Instruction, base: &str, record: Record) -> Result<Stage, ImageError> {
        if record.artifact_type.is_some() {
            return Err(fault(
                at,
                format!(
                    "{base} is a Wasm artifact, which has no root filesystem to build on; COPY its file into an image FROM scratch"
                ),
            ));
        }
        let mut config = record.config_file()?;
        config.created = None;
        config.comment = None;
        config.steps = Vec::new();
        let own = config.config.env.len();
        let mut made = Stage::new(config, record.layers).with_style(self.shared.request.style).with_path();
        if made.config.config.env.len() == own {
            made.base = Some((record.id, made.digest()?));
        }
        Ok(made)
    }

    /// An image in a client's content store, its layers kept until the build is over.
    async fn image_of_client(
        &self,
        key: &str,
        (name, store, digest): (&str, &Arc<dyn ContentStore>, &str),
        platform: Option<&Platform>,
    ) -> Result<(Record, StepId), ImageError> {
        let step = Step::begin(self.shared, format!("[context {key}] OCI load from client"), Vec::new(), None);
        let mut claim = GcGuard::new(&self.shared.store.inner);
        let origin = Origin::Client(Arc::clone(store));
        let progress = |line| step.progress(line);
        let fetched = self.shared.store.fetch_image(&origin, name, digest, platform, &mut claim, &progress).await;
        self.shared.claims.lock().push(claim);
        step.ended(fetched.map(|record| (record, false)))
    }

    /// What a name stands for beside stages and images, on a platform or else on that of this graph. What is said for one
    /// platform alone (`NAME::PLATFORM`) goes before what is said for all.
    pub(super) fn named(&self, name: &str, platform: Option<&Platform>) -> Option<(&'a str, &'a NamedContext)> {
        let platform = platform.or(self.platform.as_ref()).cloned().unwrap_or_else(Platform::host).to_string();
        let lower = name.to_ascii_lowercase();
        let full = Reference::parse(name).ok().map(|reference| reference.familiar());
        let short = full.as_deref().and_then(|full| full.strip_suffix(":latest"));
        let of_name = |key: &str| key == lower || Some(key) == full.as_deref() || Some(key) == short;
        let mut found = None;
        for (key, context) in &self.shared.request.named {
            match key.split_once("::") {
                Some((plain, only)) if of_name(plain) && only == platform => return Some((key, context)),
                None if of_name(key) => found = Some((key.as_str(), context)),
                _ => {}
            }
        }
        found
    }

    async fn on_named(
        &'a self,
        at: &Instruction,
        name: &str,
        key: &'a str,
        context: &'a NamedContext,
        platform: Option<Platform>,
    ) -> Result<(Stage, Option<String>), ImageError> {
        let style = self.shared.request.style;
        match context {
            NamedContext::Image(image) => self.on_image(at, image, platform.as_ref()).await,
            NamedContext::Built(output) => {
                Ok((self.built(at, name, output, platform.as_ref())?.on().with_style(style), None))
            }
            NamedContext::Content { name: image, store, digest } => {
                let (record, step) = self.image_of_client(key, (image, store, digest), platform.as_ref()).await?;
                let mut stage = self.on_record(at, name, record)?;
                // It is no stored image.
                stage.base = None;
                stage.last = Some(step);
                Ok((stage, None))
            }
            NamedContext::Files | NamedContext::Address(_) => {
                let from = self.elsewhere(at, key, context).await?;
                let config = ConfigFile::empty(platform.unwrap_or_else(Platform::host));
                let mut stage = Stage::new(config, Vec::new()).with_style(style).with_path();
                let order = CopyRequest::whole("FROM", at.lines.first, "/", "/", true);
                let inner = self.shared.store.inner.clone();
                let folders = from.folders.clone();
                let copied = while_wanted("copy a context into a layer", move |wanted| {
                    copy::copy(&inner, wanted, order, folders, Vec::new())
                })
                .await?;
                stage.push(self.shared.import(copied.layer).await?);
                stage.note_as(format!("FROM {name}"), true);
                stage.last = from.step;
                Ok((stage, None))
            }
        }
    }

    /// The files that COPY --from or a mount names: a named context, an earlier stage, or an image.
    pub(super) async fn other(&'a self, at: &Instruction, stage: usize, name: &str) -> Result<Elsewhere, ImageError> {
        if let Some((key, context)) = self.named(name, None) {
            return self.elsewhere(at, key, context).await;
        }
        let by_number = name.parse::<usize>().ok();
        if by_number.is_some_and(|number| number >= stage) {
            return Err(fault(at, format!("invalid from flag value {name}: it names no earlier stage")));
        }
        if let Some(earlier) = stages::named(&self.dockerfile.stages[..stage], name).or(by_number) {
            let earlier = self.stage(earlier).await?;
            let folders = self.shared.folders(&earlier.layers);
            return Ok(Elsewhere::of_layers(folders, earlier.last.clone()));
        }
        if name.eq_ignore_ascii_case("scratch") {
            if at.keyword != Keyword::Run {
                return Err(fault(at, format!("{} --from=scratch has nothing to copy", at.keyword)));
            }
            return Ok(Elsewhere::of_layers(Vec::new(), None));
        }
        let full = Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.to_string());
        let lines = Some(at.lines.first..=at.lines.last);
        let step = Step::begin(self.shared, format!("FROM {full}"), Vec::new(), lines);
        let found = async {
            let id = self.image(at, name, self.platform.as_ref(), &step).await?;
            self.shared.hold(&id)?;
            Ok((self.shared.store.layers(&id).await?, true))
        };
        let found = found.await;
        let (folders, step) = step.ended(found)?;
        Ok(Elsewhere::of_layers(folders, Some(step)))
    }

    /// The files of a named context.
    async fn elsewhere(
        &'a self,
        at: &Instruction,
        name: &'a str,
        context: &'a NamedContext,
    ) -> Result<Elsewhere, ImageError> {
        match context {
            NamedContext::Files if name == MAIN_CONTEXT => {
                Err(fault(at, format!("no other context can be called {MAIN_CONTEXT}")))
            }
            NamedContext::Files => Ok(self.shared.context(name).await?.into()),
            NamedContext::Address(address) => Ok(self.shared.context_at(name, address).await?.into()),
            NamedContext::Built(output) => {
                let folders = output.folders(self.built(at, name, output, self.platform.as_ref())?);
                Ok(Elsewhere { folders, step: None, of_client: false, keep: vec![Arc::clone(output) as _] })
            }
            NamedContext::Content { name: image, store, digest } => {
                let (record, step) = self.image_of_client(name, (image, store, digest), self.platform.as_ref()).await?;
                Ok(Elsewhere::of_layers(self.shared.folders(&record.layers), Some(step)))
            }
            NamedContext::Image(image) => {
                let step = Step::begin(self.shared, format!("[context {name}] {image}"), Vec::new(), None);
                let id = self.image(at, image, self.platform.as_ref(), &step).await;
                let id = step.ended_by(id)?;
                self.shared.hold(&id)?;
                Ok(Elsewhere::of_layers(self.shared.store.layers(&id).await?, None))
            }
        }
    }

    /// What another build came to for a platform, else for its first; it stays until this build is recorded.
    fn built<'o>(
        &self,
        at: &Instruction,
        name: &str,
        output: &'o BuildOutput,
        platform: Option<&Platform>,
    ) -> Result<&'o Stage, ImageError> {
        let stage = output.stage(platform).or_else(|| output.stage(None));
        let stage = stage.ok_or_else(|| fault(at, format!("the context {name} was built to nothing")))?;
        self.shared.claims.lock().extend(output.claims());
        Ok(stage)
    }

    /// A stored image, pulled if it is not there or a newer one is asked for.
    pub(super) async fn image(
        &self,
        at: &Instruction,
        name: &str,
        platform: Option<&Platform>,
        step: &Step<'_>,
    ) -> Result<ImageId, ImageError> {
        let (store, request) = (self.shared.store, self.shared.request);
        if !request.pull {
            match store.inner.find(name, platform) {
                Ok(id) => return Ok(id),
                Err(ImageError::NotFound { .. } | ImageError::NoPlatform { .. }) => {}
                Err(ImageError::Reference(error)) => {
                    return Err(fault(at, format!("failed to parse stage name \"{name}\": {error}")));
                }
                Err(other) => return Err(other),
            }
        }
        let reference = Reference::parse(name)
            .map_err(|error| fault(at, format!("failed to parse stage name \"{name}\": {error}")))?;
        let auth = self.shared.auth(reference.registry()).await?;
        let pulled = Box::pin(store.pull(&reference, platform, auth, &|line| step.progress(line))).await?;
        Ok(pulled.id)
    }
}
