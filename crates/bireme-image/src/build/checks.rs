//! What is unwise in a Dockerfile, and questions that are answered from its text alone.

use std::collections::BTreeMap;

use bireme_core::ignore::Ignore;
use bireme_dockerfile::lint::{self, BaseImage, Ignored, LintContext};
use bireme_dockerfile::scope::{PlatformWords, Variables, predefined};
use bireme_dockerfile::subrequest::{self, Answer};
use bireme_dockerfile::{Dockerfile, ParseError, graph as stages};

use super::request::BuildRequest;
use super::source::{BuildSources, Definition};
use crate::error::ImageError;
use crate::events::{BuildEvent, OnBuildEvent, Warning};
use crate::platform::Platform;
use crate::store::ImageStore;

/// What a question about a Dockerfile is answered with, by BuildKit's names.
pub type Answers = Vec<(&'static str, Vec<u8>)>;

impl ImageStore {
    /// Answers a question about a Dockerfile in place of a build: `frontend.lint`, `frontend.outline`, `frontend.targets`,
    /// `frontend.subrequests.describe`; `None` for another one.
    ///
    /// # Errors
    /// `Dockerfile` for what is wrong with the text, where the answer has no place for that; what reading it gives.
    pub async fn ask(
        &self,
        request: &BuildRequest,
        sources: &dyn BuildSources,
        question: &str,
        log: OnBuildEvent<'_>,
    ) -> Result<Option<Answers>, ImageError> {
        if !subrequest::REQUESTS.contains(&question) {
            return Ok(None);
        }
        let mut definition = sources.definition(&|_| {}).await?;
        if definition.ignore.is_none() && !sources.comes_whole() {
            definition.ignore = sources.ignore(&|_| {}).await?;
        }
        let text = String::from_utf8_lossy(&definition.text).into_owned();
        log(BuildEvent::Dockerfile { name: definition.name.clone(), text: text.clone() });
        let parsed = Dockerfile::parse(&text);
        let answer = match (question, parsed) {
            ("frontend.subrequests.describe", _) => subrequest::describe(),
            ("frontend.lint", Err(error)) => subrequest::lint(&definition.name, &text, &[], Some(&error)),
            (_, Err(error)) => return Err(error.into()),
            ("frontend.targets", Ok(file)) => subrequest::targets(&file, &text),
            (question, Ok(file)) => self.with_context(&definition, request, |context| match question {
                "frontend.outline" => {
                    let target = stages::target(&file, request.target.as_deref())?;
                    subrequest::outline(&file, &text, target, context)
                }
                _ => checked(&definition.name, &file, &text, request, context),
            })?,
        };
        Ok(Some(answer.metadata()))
    }

    /// Says what is allowed and unwise.
    ///
    /// # Errors
    /// `Dockerfile` where the file wants what is unwise refused, or says so wrongly.
    pub(super) fn warn(
        &self,
        definition: &Definition,
        file: &Dockerfile,
        request: &BuildRequest,
        log: OnBuildEvent<'_>,
    ) -> Result<(), ImageError> {
        let (found, refusal) = self.with_context(definition, request, |context| lint::lint(file, context))?;
        for one in found {
            log(BuildEvent::Warning(Warning {
                rule: one.rule.to_owned(),
                description: one.description.to_owned(),
                url: one.url,
                detail: one.detail,
                lines: Some(one.lines.first..=one.lines.last),
            }));
        }
        refusal.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    fn with_context<T>(
        &self,
        definition: &Definition,
        request: &BuildRequest,
        act: impl FnOnce(&LintContext<'_>) -> Result<T, ParseError>,
    ) -> Result<T, ImageError> {
        let given = request.args.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
        let build_args: BTreeMap<String, String> = given.collect();
        let host = Platform::host();
        let target = request.platforms.first().unwrap_or(&host);
        let stage = request.target.as_deref();
        let predefined = predefined(words(&host), words(target), stage, &build_args);
        // What is stored is known; nothing is pulled to find fault with it.
        let base = |name: &str| {
            let id = self.inner.find(name, Some(target)).ok()?;
            let config = self.inner.record(&id).ok()?.config_file().ok()?.config;
            let pair = |pair: &String| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            let env: Variables = config.env.iter().filter_map(pair).collect();
            Some(BaseImage { env, shell: config.shell.is_some() })
        };
        let ignore = definition.ignore.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        let ignore = Ignore::parse(&ignore).unwrap_or_default();
        let patterns = ignore.patterns();
        let hides = |path: &str| ignore.hides(path);
        let ignored = definition.ignore.is_some().then(|| Ignored {
            path: &hides,
            exceptions: ignore.has_exceptions(),
            everything: patterns.iter().any(|pattern| matches!(pattern.as_str(), "*" | "**" | "**/*")),
        });
        Ok(act(&LintContext { build_args: &build_args, predefined: &predefined, base: &base, ignored })?)
    }
}

fn checked(
    name: &str,
    file: &Dockerfile,
    text: &str,
    request: &BuildRequest,
    context: &LintContext<'_>,
) -> Result<Answer, ParseError> {
    let (found, refusal) = lint::lint(file, context)?;
    let wrong = refusal.or_else(|| stages::target(file, request.target.as_deref()).err());
    Ok(subrequest::lint(name, text, &found, wrong.as_ref()))
}

fn words(platform: &Platform) -> PlatformWords<'_> {
    PlatformWords { os: &platform.os, arch: &platform.architecture, variant: &platform.variant }
}
