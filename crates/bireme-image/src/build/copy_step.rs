//! COPY, ADD and WORKDIR as steps of a build: where the files come from, and what the cache has of them.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_core::ignore::Ignore;
use bireme_dockerfile::read::{self, CopyFlags, HeredocFile};
use bireme_dockerfile::{Instruction, Keyword};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::base_image::Elsewhere;
use super::cache;
use super::contexts::WHOLE_CONTEXT;
use super::copy::{self, CopyRequest};
use super::git::{self, GitAccess};
use super::graph::{Graph, Place};
use super::known::Known;
use super::source::MAIN_CONTEXT;
use super::stage::{Stage, fault};
use super::style::BuildStyle;
use crate::blocking::blocking;
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::fetch::fetch;
use crate::record::Layer;
use crate::wanted::while_wanted;

/// Where the files of one COPY or ADD are.
struct Source {
    elsewhere: Elsewhere,
    /// They are the main context, parts of which are hidden.
    main: bool,
    /// Which of them are copied: paths and patterns.
    names: Vec<String>,
}

impl<'a> Graph<'a> {
    pub(super) async fn copy(
        &'a self,
        stage: &mut Stage,
        at: &Instruction,
        place: &mut Place,
    ) -> Result<(), ImageError> {
        let args = &self.shared.request.args;
        let flags = stage.expanding(at, args, |expander| read::copy(at)?.expanded(at, expander))?;
        // Files first: a step begins when all that it needs is there.
        let mut files = self.sources(at, place, &flags).await?;
        let inputs = files.iter().filter_map(|source| source.elsewhere.step.clone()).collect();
        let step = self.begin(stage, at, place, inputs);
        let copied = self.copy_files(stage, at, &flags, &mut files).await;
        let (layer, created_by, key) = self.end(stage, step, copied)?;
        stage.note_as(created_by, layer.is_some());
        stage.stepped(key, layer);
        Ok(())
    }

    /// Makes the layer, or finds it made, `None` being none; answers it, what the history says and by what it is known, and
    /// whether it was found.
    async fn copy_files(
        &'a self,
        stage: &Stage,
        at: &Instruction,
        flags: &CopyFlags,
        files: &mut [Source],
    ) -> Result<((Option<Layer>, String, Digest), bool), ImageError> {
        let target = flags.dest.as_str();
        let chmod = flags.chmod.as_deref().map(|chmod| {
            copy::Mode::parse(chmod).ok_or_else(|| {
                fault(
                    at,
                    format!(
                        "invalid chmod parameter: '{chmod}': it should be an octal number such as 0755, or symbols such as \
                         u=rw,go=r"
                    ),
                )
            })
        });
        let chmod = chmod.transpose()?;
        let mut orders = Vec::new();
        for source in files.iter_mut() {
            orders.push((
                CopyRequest {
                    keyword: at.keyword.as_str().to_owned(),
                    line: at.lines.first,
                    sources: std::mem::take(&mut source.names),
                    target: target.to_owned(),
                    working_dir: stage.config.config.working_dir.clone(),
                    chown: flags.chown.clone(),
                    chmod: chmod.clone(),
                    context: source.elsewhere.of_client,
                    unpack: at.keyword == Keyword::Add && flags.unpack.unwrap_or(source.main),
                    parents: flags.parents,
                    lenient: self.shared.request.style == BuildStyle::Steps,
                    exclude: Ignore::of(&flags.exclude)
                        .map_err(|error| fault(at, format!("invalid --exclude: {error}")))?,
                },
                source.elsewhere.folders.clone(),
                source.main,
            ));
        }
        let keep: Vec<_> = files.iter().flat_map(|source| source.elsewhere.keep.clone()).collect();
        let job =
            Arc::new(copy::Jobs { orders, below: self.shared.folders(&stage.layers), ignore: self.shared.ignore() });
        let (inner, jobs) = (self.shared.store.inner.clone(), Arc::clone(&job));
        let what = while_wanted("look at files to be copied", move |wanted| jobs.sum(&inner, wanted)).await?;
        let created_by = match self.shared.request.style {
            BuildStyle::Classic => format!("/bin/sh -c #(nop) {} {what} in {target} ", at.keyword),
            BuildStyle::Steps => format!("{} # buildkit", at.text),
        };
        // What is copied, and with which folders above it, is all that there is in the layer.
        let key = Digest::of(format!("copy {what}").as_bytes());
        let layer = match self.shared.known(stage, key.clone(), &created_by).await? {
            Known::Made(layer) => {
                self.shared.say(cache::USING);
                return Ok(((layer, created_by, key), true));
            }
            Known::Unknown(turn) => {
                let inner = self.shared.store.inner.clone();
                let copied = while_wanted("copy files into a layer", move |wanted| job.write(&inner, wanted)).await?;
                if copied.what != what {
                    return Err(fault(at, "the files changed while they were copied: build again"));
                }
                let layer = if copied.layer.is_empty() { None } else { Some(self.shared.import(copied.layer).await?) };
                turn.done(layer.as_ref(), &at.text)?;
                layer
            }
        };
        drop(keep);
        Ok(((layer, created_by, key), false))
    }

    /// Where all the files are that an instruction names.
    async fn sources(&'a self, at: &Instruction, place: &Place, flags: &CopyFlags) -> Result<Vec<Source>, ImageError> {
        let mut found = Vec::new();
        let is_fetched = |source: &String| at.keyword == Keyword::Add && is_remote(source);
        let (remote, local): (Vec<String>, Vec<String>) = flags.sources.iter().cloned().partition(is_fetched);
        if flags.checksum.is_some() && (remote.len() != 1 || !local.is_empty()) {
            return Err(fault(
                at,
                "checksum can't be specified for multiple or local sources: give it to one address alone",
            ));
        }
        if !local.is_empty() {
            let main = flags.from.is_none();
            let elsewhere = match &flags.from {
                Some(name) => self.other(at, place.stage, name).await?,
                None => self.main_context(place).await?,
            };
            found.push(Source { elsewhere, main, names: local });
        }
        for address in remote {
            found.push(self.fetched(at, flags, &address).await?);
        }
        if !flags.heredocs.is_empty() {
            found.push(self.written(at, &flags.heredocs).await?);
        }
        Ok(found)
    }

    /// The files that the build was given.
    pub(super) async fn main_context(&'a self, place: &Place) -> Result<Elsewhere, ImageError> {
        // What triggers take was not known when the Dockerfile was read.
        let context = self.shared.context(if place.trigger { WHOLE_CONTEXT } else { MAIN_CONTEXT }).await?;
        Ok(context.into())
    }

    /// Files whose text stands in the Dockerfile.
    async fn written(&self, at: &Instruction, heredocs: &[HeredocFile]) -> Result<Source, ImageError> {
        heredocs.iter().try_for_each(|heredoc| check_heredoc(at, &heredoc.name))?;
        let names = heredocs.iter().map(|heredoc| copy::literal(&heredoc.name)).collect();
        let (texts, inner) = (heredocs.to_vec(), self.shared.store.inner.clone());
        let folder = blocking("write the files of heredocs", move || {
            let folder = inner.aside("heredoc-")?;
            for heredoc in texts {
                let path = folder.path().join(heredoc.name);
                std::fs::write(&path, heredoc.content).during("write", &path)?;
                // Always the same file.
                let file = std::fs::File::options().write(true).open(&path).during("open", &path)?;
                file.set_modified(std::time::UNIX_EPOCH).during("set the time of", &path)?;
            }
            Ok(folder)
        })
        .await?;
        Ok(Source { elsewhere: temporary(folder.path().to_owned(), folder), main: false, names })
    }

    /// What stands at an address that ADD names.
    async fn fetched(&'a self, at: &Instruction, flags: &CopyFlags, address: &str) -> Result<Source, ImageError> {
        let target = flags.dest.as_str();
        let checksum = flags.checksum.as_deref().map(str::parse::<Digest>).transpose();
        let checksum = checksum.map_err(|error| fault(at, format!("invalid --checksum: {error}")))?;
        let store = self.shared.store;
        if let Some(repository) = git::parse(address).map_err(|reason| fault(at, reason))? {
            if checksum.is_some() {
                return Err(fault(at, "--checksum is for a file: name the commit in the address of a repository"));
            }
            let access = GitAccess::of(self.shared.sources).await?;
            let checkout = git::fetch(store, &repository, flags.keep_git_dir, &access).await?;
            let elsewhere = temporary(checkout.path(), checkout);
            return Ok(Source { elsewhere, main: false, names: vec!["/".to_owned()] });
        }
        let folder = store.inner.aside("fetched-")?;
        let path = address.split(['?', '#']).next().unwrap_or_default();
        let name = path.rsplit_once("://").and_then(|(_, path)| path.split_once('/')).map_or("", |(_, path)| path);
        let name = match (name.rsplit('/').next().unwrap_or_default(), target.rsplit('/').next()) {
            ("", None | Some("")) => {
                return Err(fault(at, format!("cannot determine filename from url: {address}")));
            }
            ("", Some(name)) | (name, _) => name.to_owned(),
        };
        self.download(at, address, &folder.path().join(&name), checksum.as_ref()).await?;
        let elsewhere = temporary(folder.path().to_owned(), folder);
        Ok(Source { elsewhere, main: false, names: vec![copy::literal(&name)] })
    }

    /// Fetches a file; it is for its owner alone, as Docker has it.
    async fn download(
        &self,
        at: &Instruction,
        source: &str,
        to: &Path,
        checksum: Option<&Digest>,
    ) -> Result<(), ImageError> {
        let limit = self.shared.store.inner.settings.limits.layer_bytes;
        self.shared.say("Downloading\n");
        let mut from = fetch(source).await?.take(limit + 1);
        let mut file = tokio::fs::File::from_std(
            std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).during("create", to)?,
        );
        let failed = |error: std::io::Error| ImageError::Fetch { url: source.to_owned(), reason: error.to_string() };
        let (mut sum, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 64 << 10]);
        loop {
            let got = from.read(&mut buffer).await.map_err(failed)?;
            if got == 0 {
                break;
            }
            bytes += got as u64;
            sum.update(&buffer[..got]);
            file.write_all(&buffer[..got]).await.during("write", to)?;
        }
        if bytes > limit {
            return Err(ImageError::TooLarge { what: source.to_owned(), limit });
        }
        file.flush().await.during("write", to)?;
        let actual = Digest::from_hash(sum);
        match checksum {
            Some(expected) if *expected != actual => {
                Err(fault(at, format!("digest mismatch {actual}: expected {expected} for {source}")))
            }
            _ => Ok(()),
        }
    }

    /// Makes the working directory where the image has none, or finds it made. Answers whether that took a layer, and whether it
    /// was found.
    pub(super) async fn work_folder(&'a self, stage: &mut Stage, at: &Instruction) -> Result<(bool, bool), ImageError> {
        let folder = Arc::new(copy::WorkFolder {
            below: self.shared.folders(&stage.layers),
            path: PathBuf::from(&stage.config.config.working_dir),
            // Docker's classic builder leaves it to root.
            user: match self.shared.request.style {
                BuildStyle::Classic => String::new(),
                BuildStyle::Steps => stage.config.config.user.clone(),
            },
        });
        let looking = Arc::clone(&folder);
        let sum = while_wanted("look for the working directory", move |wanted| looking.sum(wanted)).await?;
        let Some(sum) = sum else { return Ok((false, true)) };
        let key = Digest::of(format!("workdir {}", sum.hex()).as_bytes());
        let (layer, found) = match self.shared.known(stage, key.clone(), &stage.created_by(at)).await? {
            Known::Made(layer) => (layer, true),
            Known::Unknown(turn) => {
                let inner = self.shared.store.inner.clone();
                let new =
                    while_wanted("make the working directory", move |wanted| folder.write(&inner, wanted)).await?;
                let layer = match new {
                    Some(new) => Some(self.shared.import(new).await?),
                    None => None,
                };
                turn.done(layer.as_ref(), &at.text)?;
                (layer, false)
            }
        };
        let took_layer = layer.is_some();
        stage.stepped(key, layer);
        Ok((took_layer, found))
    }
}

/// # Errors
/// Where the name of a heredoc is none that a file can have.
pub(super) fn check_heredoc(at: &Instruction, name: &str) -> Result<(), ImageError> {
    if name.contains(['/', '\0']) || matches!(name, "." | "..") {
        return Err(fault(at, format!("the heredoc {name:?} cannot be a file's name")));
    }
    Ok(())
}

/// Files that are there for one instruction.
fn temporary(folder: PathBuf, keep: impl std::any::Any + Send + Sync) -> Elsewhere {
    Elsewhere { folders: vec![folder], step: None, of_client: true, keep: vec![Arc::new(keep)] }
}

/// Whether ADD would have to fetch it.
fn is_remote(source: &str) -> bool {
    let lower = source.to_ascii_lowercase();
    ["http://", "https://", "git://", "ssh://", "git@"].iter().any(|start| lower.starts_with(start))
}
