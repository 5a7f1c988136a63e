//! COPY, ADD and WORKDIR: from files of a context, stage or image to one new layer.
//!
//! A layer is planned first, as an ordered list of what it will hold, and written as a tar afterwards: the same sources
//! give the same bytes. Folders that lead to what is copied stand in the layer with the attributes they have below, for
//! in an overlay the uppermost folder's attributes count.

mod job;
mod mode;
mod owner;
mod parents;
mod plan;
mod write;

use std::cell::Cell;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bireme_core::ignore::Ignore;
use rustix::fs::FileType;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::made::NewLayer;
use crate::store::Inner;
use crate::view::View;
use crate::wanted::Wanted;
pub(super) use job::literal;
use job::{Job, Planned};
pub(super) use mode::Mode;
use plan::{Attributes, Content, Plan};
use write::{sum, write};

/// What one COPY or ADD is told, with variables already put in.
pub(super) struct CopyRequest {
    /// `COPY` or `ADD`.
    pub(super) keyword: String,
    pub(super) line: usize,
    pub(super) sources: Vec<String>,
    pub(super) target: String,
    pub(super) working_dir: String,
    pub(super) chown: Option<String>,
    pub(super) chmod: Option<Mode>,
    /// The sources are files of a client: owners are not taken from it, and parts may be hidden.
    pub(super) context: bool,
    /// Files that are archives are unpacked.
    pub(super) unpack: bool,
    /// The folders that lead to a source are made below the target.
    pub(super) parents: bool,
    /// As BuildKit has it: patterns may fit nothing at all.
    pub(super) lenient: bool,
    /// What is left out: names within the folders that are copied, and names of files.
    pub(super) exclude: Ignore,
}

impl CopyRequest {
    /// All that stands at `source`, which is no pattern, as it is. Nothing is the root.
    pub(super) fn whole(keyword: &str, line: usize, source: &str, target: &str, context: bool) -> Self {
        Self {
            keyword: keyword.to_owned(),
            line,
            sources: vec![literal(if source.is_empty() { "/" } else { source })],
            target: target.to_owned(),
            working_dir: String::new(),
            chown: None,
            chmod: None,
            context,
            unpack: false,
            parents: false,
            lenient: false,
            exclude: Ignore::default(),
        }
    }
}

/// What a COPY or ADD made.
pub(super) struct Copied {
    pub(super) layer: NewLayer,
    /// What was copied, by its content: `file:…`, `dir:…` or `multi:…` and a digest that times do not change.
    pub(super) what: String,
}

/// What one instruction copies, from however many places, on top of layers.
pub(super) struct Jobs {
    /// What is copied; the folders that it is copied from, lowest first; whether parts of them may be hidden.
    pub(super) orders: Vec<(CopyRequest, Vec<PathBuf>, bool)>,
    /// The folders of the layers, lowest first.
    pub(super) below: Vec<PathBuf>,
    /// What is hidden.
    pub(super) ignore: Arc<Ignore>,
}

impl Jobs {
    /// What would be copied, by its content, as [`Copied::what`]. Nothing is written.
    pub(super) fn sum(&self, inner: &Inner, wanted: &Wanted) -> Result<String, ImageError> {
        self.with_plan(inner, wanted, |kind, plan, trees| Ok(format!("{kind}:{}", sum(wanted, plan, trees)?.hex())))
    }

    /// Copies into a new layer.
    pub(super) fn write(&self, inner: &Inner, wanted: &Wanted) -> Result<Copied, ImageError> {
        self.with_plan(inner, wanted, |kind, plan, trees| {
            let (layer, sum) = write(inner, wanted, plan, trees)?;
            Ok(Copied { layer, what: format!("{kind}:{}", sum.hex()) })
        })
    }

    fn with_plan<T>(
        &self,
        inner: &Inner,
        wanted: &Wanted,
        act: impl FnOnce(&str, &Plan<'_>, &[View]) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let below = View::new(self.below.clone())?;
        let nothing = Ignore::default();
        let mut planned = Planned::on(&below);
        let mut kinds = Vec::new();
        for (order, folders, hiding) in &self.orders {
            let ignore = if *hiding { &*self.ignore } else { &nothing };
            let job = Job {
                inner,
                wanted,
                order,
                ignore,
                several: self.orders.len() > 1,
                main: Cell::new(0),
                names: Cell::new(0),
            };
            kinds.push(job.run(View::new(folders.clone())?, &mut planned)?);
        }
        let kind = if let [kind] = kinds[..] { kind } else { "multi" };
        act(kind, &planned.plan, &planned.trees)
    }
}

/// Carries out a COPY or ADD on top of `below`.
pub(super) fn copy(
    inner: &Inner,
    wanted: &Wanted,
    order: CopyRequest,
    source: Vec<PathBuf>,
    below: Vec<PathBuf>,
) -> Result<Copied, ImageError> {
    let orders = vec![(order, source, false)];
    Jobs { orders, below, ignore: Arc::default() }.write(inner, wanted)
}

/// A folder with those above it, as WORKDIR makes them.
pub(super) struct WorkFolder {
    /// The folders of the layers, lowest first.
    pub(super) below: Vec<PathBuf>,
    pub(super) path: PathBuf,
    /// Whose it will be, of the accounts of the image; empty is root.
    pub(super) user: String,
}

impl WorkFolder {
    /// By what the layer with it is known; `None` if it is there. Nothing is written.
    pub(super) fn sum(&self, wanted: &Wanted) -> Result<Option<Digest>, ImageError> {
        self.with_plan(|plan| sum(wanted, plan, &[]))
    }

    /// Makes a layer with it; `None` if it is there.
    pub(super) fn write(&self, inner: &Inner, wanted: &Wanted) -> Result<Option<NewLayer>, ImageError> {
        self.with_plan(|plan| Ok(write(inner, wanted, plan, &[])?.0))
    }

    fn with_plan<T>(&self, act: impl FnOnce(&Plan<'_>) -> Result<T, ImageError>) -> Result<Option<T>, ImageError> {
        let refused =
            |reason: String| ImageError::BuildRequest { reason: format!("WORKDIR {}: {reason}", self.path.display()) };
        let failed = |error: io::Error| refused(error.to_string());
        let below = View::new(self.below.clone())?;
        let (place, found) = below.resolve(&self.path, true).map_err(failed)?;
        match found {
            Some(found) if found.kind() == FileType::Directory => return Ok(None),
            Some(_) => return Err(refused("it is not a folder".to_owned())),
            None => {}
        }
        let (uid, gid) = if self.user.is_empty() { (0, 0) } else { owner::of(&self.user, &below).map_err(refused)? };
        let mut plan = Plan::on(&below);
        plan.parents(&place, uid, gid).map_err(failed)?;
        plan.add(place, Content::Folder(None), Attributes::made(0o755, uid, gid)).map_err(failed)?;
        act(&plan).map(Some)
    }
}
