//! Building images from Dockerfiles.
//!
//! ```text
//! sources   Dockerfile, contexts, secrets, agents: of a client, or of a context that is here whole
//!    │
//! Dockerfile ──parsed (bireme-dockerfile)──> stages ──those that the target needs──> one graph a platform
//!    │
//! graph     a stage is built once, when another needs it: FROM, then its instructions in order, each a step
//!    │        COPY, ADD   known by their content; written as one layer
//!    │        RUN         known by what it finds; run by whoever asked for the build (see [`run`])
//! output    images that are not recorded yet: kept under names, or given away as files or archives
//! ```
//!
//! The same files, arguments and base give the same image: layers are written in a fixed order, a step is not carried out
//! again where nothing that it depends on changed, and a build whose result would differ from a stored image only in its
//! times answers with that image.

mod annotations;
mod base_image;
mod cache;
mod cached;
mod caches;
mod checks;
mod context;
mod contexts;
mod copy;
mod copy_step;
mod export;
mod front_end;
mod gc;
mod git;
mod graph;
mod known;
mod mounts;
mod onbuild;
mod output;
mod packed;
mod remote;
mod request;
mod rewrite;
pub mod run;
mod run_step;
mod shared;
pub mod source;
pub(crate) mod stage;
mod step;
mod style;

use std::collections::BTreeSet;

use bireme_dockerfile::{Dockerfile, Expander, Keyword, graph as stages, read};
use chrono::{SubsecRound as _, Utc};

use crate::digest::ImageId;
use crate::error::ImageError;
use crate::events::{BuildEvent, OnBuildEvent, Progress};
use crate::reference::Reference;
use crate::store::ImageStore;
use graph::Graph;
use shared::Shared;
use source::{BuildSources, Definition};
use stage::Stage;
use step::Step;

pub use annotations::Annotations;
pub use cached::CacheImport;
pub use caches::{CacheMode, ExportedCache};
pub use checks::Answers;
pub use context::{LocalSources, TEXT_LIMIT, read_definition, read_text};
pub use export::{Tree, TreeEntry};
pub use front_end::is_built_in;
pub use gc::CachePolicy;
pub use output::{BuildOutput, BuiltImage};
pub use packed::{ArchiveFor, PackedOutput};
pub use request::{Allowed, BuildContext, BuildRequest, BuildStyle, KeepContainers, NamedContext};

impl ImageStore {
    /// Builds an image from a Dockerfile and gives it its names, telling it as Docker's classic builder does.
    ///
    /// Only the stages that the target needs are built. Events end with [`BuildEvent::Built`] and Docker's
    /// `Successfully built` and `Successfully tagged` lines.
    ///
    /// # Errors
    /// As [`Self::solve`]; nothing is recorded then.
    /// # Cancel safety
    /// Dropping the future records nothing and deletes what was made.
    pub async fn build(&self, request: BuildRequest, log: OnBuildEvent<'_>) -> Result<ImageId, ImageError> {
        request.tags.iter().try_for_each(Reference::check_tag)?;
        let context = request.take_context().ok_or(ImageError::NothingBuilt)?;
        let sources = LocalSources::open(self, context, &request.dockerfile, false, None).await?;
        let output = self.solve(&request, &sources, log).await?;
        let built = output.record(&request.tags).await?;
        let Some(image) = built.first() else { return Err(ImageError::NothingBuilt) };
        log(BuildEvent::Built(image.id.clone()));
        let say = |text: String| log(BuildEvent::Stream(text));
        say(format!("Successfully built {}\n", image.id.short()));
        for tag in &request.tags {
            say(format!("Successfully tagged {}\n", tag.familiar()));
        }
        Ok(image.id.clone())
    }

    /// Builds what a Dockerfile says, for each platform that is asked for, and records nothing yet.
    ///
    /// # Errors
    /// `Dockerfile`, `Instruction` (what this builder lacks, by name and line), `Copy`, `BuildRequest`, `Run`; whatever
    /// pulling a base image gives.
    /// # Cancel safety
    /// Dropping the future ends what is under way, and deletes what was made but the cache of its steps.
    pub async fn solve(
        &self,
        request: &BuildRequest,
        sources: &dyn BuildSources,
        log: OnBuildEvent<'_>,
    ) -> Result<BuildOutput, ImageError> {
        let shared = Shared::new(self, request, sources, log)?;
        let name = format!("[internal] load build definition from {}", request.dockerfile);
        let step = Step::begin(&shared, name, Vec::new(), None);
        let arrived = |bytes| step.progress(Progress::counted_alone("transferring dockerfile:", bytes));
        let definition = sources.definition(&arrived).await;
        let mut definition = step.ended_by(definition)?;
        let dockerfile = parse(&definition, log)?;
        if definition.ignore.is_none() && !(request.style == BuildStyle::Steps && sources.comes_whole()) {
            definition.ignore = shared.ignore_text().await?;
        }
        let ignore = contexts::hidden(&definition, request, sources)?;
        if request.style == BuildStyle::Steps {
            front_end::check(&dockerfile, &definition)?;
            self.warn(&definition, &dockerfile, request, log)?;
        }
        let target = stages::target(&dockerfile, request.target.as_deref())?;
        if request.style == BuildStyle::Steps && !request.no_cache {
            shared.import_caches().await;
        }
        let platforms = match &request.platforms[..] {
            [] => vec![None],
            platforms => platforms.iter().cloned().map(Some).collect(),
        };
        let mut graphs = Vec::new();
        let mut needed = Vec::new();
        for platform in &platforms {
            let graph = Graph::new(&shared, &dockerfile, platform.clone(), platforms.len() > 1)?;
            let value = |name: &str| graph.globals.get(name).cloned().flatten();
            let mut of = stages::needed(&dockerfile, target, &mut Expander::new(dockerfile.directives.escape, &value))?;
            // What a named context stands in for is built only where it is asked for by its number.
            of.retain(|at| {
                let name = dockerfile.stages[*at].name.as_deref();
                *at == target || name.is_none_or(|name| graph.named(name, None).is_none())
            });
            graphs.push(graph);
            needed.push(of);
        }
        let all: BTreeSet<usize> = needed.iter().flatten().copied().collect();
        let count = needed.iter().flatten().map(|at| 1 + dockerfile.stages[*at].body.len()).sum::<usize>();
        let labels = if request.style == BuildStyle::Classic { request.labels.len() } else { 0 };
        shared.expect(dockerfile.globals.len() + count + labels);
        dockerfile.globals.iter().for_each(|argument| shared.announce(&argument.text));
        shared.hide(ignore, wanted_files(&dockerfile, &all));
        let building = graphs.iter().zip(&needed).map(|(graph, needed)| graph.build(needed, target));
        let built = futures::future::try_join_all(building).await?;
        warn_of_unused(&shared, &dockerfile);
        if makes_nothing(&dockerfile, target) {
            return Err(ImageError::NothingBuilt);
        }
        let mut made = Vec::new();
        for stage in built {
            let mut stage = (*stage).clone();
            match request.style {
                BuildStyle::Steps => stage.config.config.labels.extend(request.labels.clone()),
                BuildStyle::Classic => add_labels(&shared, &mut stage)?,
            }
            if let Some(program) = output::recognise(self, &mut stage).await? {
                let platform = stage.config.platform();
                shared.say(format!(
                    " ---> {program} is a WebAssembly component: the platform of the image is {platform}\n"
                ));
            }
            made.push(stage);
        }
        let steps = graphs.iter().flat_map(Graph::made).collect();
        drop(graphs);
        Ok(BuildOutput {
            store: self.clone(),
            stages: made,
            steps,
            _claims: shared.into_claims(),
            asked: platforms,
            inline_cache: request.inline_cache,
            no_cache: request.no_cache,
            annotations: Annotations::default(),
            epoch: request.epoch,
            made: request.epoch.unwrap_or_else(Utc::now).trunc_subsecs(3),
        })
    }
}

fn parse(definition: &Definition, log: OnBuildEvent<'_>) -> Result<Dockerfile, ImageError> {
    let text = String::from_utf8_lossy(&definition.text).into_owned();
    log(BuildEvent::Dockerfile { name: definition.name.clone(), text: text.clone() });
    Ok(Dockerfile::parse(&text)?)
}

/// Which paths of the main context the stages take, where that can be told; `None` is all of it.
fn wanted_files(dockerfile: &Dockerfile, needed: &BTreeSet<usize>) -> Option<Vec<String>> {
    let mut paths = BTreeSet::new();
    for instruction in needed.iter().flat_map(|at| &dockerfile.stages[*at].body) {
        match instruction.keyword {
            Keyword::Copy | Keyword::Add => {
                let copy = read::copy(instruction).ok()?;
                if copy.from.is_none() {
                    paths.extend(copy.sources);
                }
            }
            Keyword::Run => {
                for mount in read::run(instruction).ok()?.mounts {
                    let bind = !mount.contains("type=") || mount.contains("type=bind");
                    if bind && !mount.contains("from=") {
                        // Which part of it is for the mount to say, which may have variables in it.
                        return None;
                    }
                }
            }
            // A trigger of the base image may take anything.
            _ => {}
        }
    }
    let plain = |path: &String| {
        let path = path.trim_start_matches("./").trim_matches('/');
        !path.is_empty() && path != "." && !path.contains(['$', '*', '?', '[', '\\', '"', '\'']) && !path.contains("..")
    };
    paths.iter().all(plain).then(|| paths.into_iter().collect())
}

/// Adds the labels of the request, each as a step of its own.
///
/// Source: moby, `builder/dockerfile/builder.go`, `buildLabelOptions`.
fn add_labels(shared: &Shared<'_>, stage: &mut Stage) -> Result<(), ImageError> {
    for (name, value) in &shared.request.labels {
        let text = format!("LABEL {name}={value}");
        shared.announce(&text);
        stage.config.config.labels.insert(name.clone(), value.clone());
        stage.note_as(format!("/bin/sh -c #(nop)  {text}"), false);
        shared.note_known(stage)?;
        shared.show(stage)?;
    }
    Ok(())
}

/// Whether a stage is neither based on anything nor does anything.
fn makes_nothing(dockerfile: &Dockerfile, target: usize) -> bool {
    let stage = &dockerfile.stages[target];
    stage.body.is_empty() && stage.from.image == "scratch"
}

/// Says which of the given arguments nothing asked for.
fn warn_of_unused(shared: &Shared<'_>, dockerfile: &Dockerfile) {
    let arguments = dockerfile.instructions().filter(|instruction| instruction.keyword == Keyword::Arg);
    let declared: BTreeSet<String> = arguments
        .flat_map(|argument| read::arguments(argument).unwrap_or_default())
        .map(|argument| argument.name)
        .collect();
    let unused: Vec<&str> = shared
        .request
        .args
        .keys()
        .map(String::as_str)
        .filter(|name| !declared.contains(*name) && !name.to_ascii_lowercase().ends_with("_proxy"))
        .collect();
    if !unused.is_empty() {
        shared.say(format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" ")));
    }
}
