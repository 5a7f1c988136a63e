//! COPY, ADD and WORKDIR as steps of a build: where the files come from, and what the cache has of them.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bireme_core::ignore::Ignore;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::cache;
use super::context::aside;
use super::copy::{self, CopyRequest};
use super::dockerfile::{Dockerfile, Instruction};
use super::stage::Stage;
use super::state::Build;
use super::target::position;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::fetch::fetch;
use crate::layers;
use crate::view::View;
use crate::wanted::while_wanted;

impl Build<'_> {
    pub(super) async fn copy(
        &mut self,
        dockerfile: &Dockerfile,
        stage: &mut Stage,
        at: &Instruction,
    ) -> Result<(), ImageError> {
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
            exclude: Ignore::of(&excluded).map_err(|error| at.fault(format!("invalid --exclude: {error}")))?,
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
                layers::unpacked(&self.store.inner, &layer).await?;
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
        let mut from = fetch(source).await?.take(limit + 1);
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

    /// Makes the working directory where the image has none; answers whether that took a layer.
    pub(super) async fn work_folder(&mut self, stage: &mut Stage) -> Result<bool, ImageError> {
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
}

/// Whether ADD would have to fetch it.
fn is_remote(source: &str) -> bool {
    let lower = source.to_ascii_lowercase();
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|start| lower.starts_with(start))
}
