//! One build while it runs: what it has made so far, and what all its steps need.

use std::collections::BTreeMap;
use std::path::PathBuf;

use bireme_core::ignore::Ignore;

use super::cache::Cache;
use super::context::Context;
use super::dockerfile::Instruction;
use super::request::BuildRequest;
use super::stage::Stage;
use super::words;
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::events::{BuildEvent, OnBuildEvent};
use crate::guard::GcGuard;
use crate::made::NewLayer;
use crate::record::{Layer, Record};
use crate::store::ImageStore;

/// One build under way.
pub(super) struct Build<'a> {
    pub(super) store: &'a ImageStore,
    pub(super) request: &'a BuildRequest,
    pub(super) context: &'a Context,
    pub(super) ignore: Ignore,
    /// Arguments before the first FROM, and the platform's.
    pub(super) globals: BTreeMap<String, Option<String>>,
    /// By position in the Dockerfile; `None` for those not needed.
    pub(super) stages: Vec<Option<Stage>>,
    pub(super) cache: Cache,
    /// Keeps new layers until they are recorded.
    pub(super) claim: GcGuard,
    pub(super) log: OnBuildEvent<'a>,
    pub(super) step: usize,
    pub(super) steps: usize,
}

impl Build<'_> {
    pub(super) fn say(&self, text: impl Into<String>) {
        (self.log)(BuildEvent::Stream(text.into()));
    }

    pub(super) fn announce(&mut self, instruction: &Instruction) {
        self.step += 1;
        self.say(format!("Step {}/{} : {}\n", self.step, self.steps, instruction.text()));
    }

    pub(super) fn global_word(&self, at: &Instruction, escape: char, word: &str) -> Result<String, ImageError> {
        words::expand(word, escape, &|name| self.globals.get(name).cloned().flatten())
            .map_err(|reason| at.fault(reason))
    }

    /// Prints what stands for the state so far, as Docker does after each step.
    pub(super) fn show(&self, stage: &Stage) -> Result<(), ImageError> {
        self.say(format!(" ---> {}\n", stage.digest()?.short()));
        Ok(())
    }

    /// An image whose layers stay until the build is over, whoever removes it meanwhile.
    pub(super) fn hold(&mut self, id: &ImageId) -> Result<Record, ImageError> {
        let record = self.store.inner.record(id)?;
        record.layers.iter().for_each(|layer| self.claim.both(layer));
        // It may have gone before they were claimed.
        self.store.inner.record(id)
    }

    pub(super) fn folders(&self, layers: &[Layer]) -> Vec<PathBuf> {
        layers.iter().map(|layer| self.store.inner.layer_path(&layer.diff_id)).collect()
    }

    /// Puts a new layer on top of a stage.
    pub(super) async fn add_layer(&mut self, stage: &mut Stage, new: NewLayer) -> Result<(), ImageError> {
        let layer = self.store.import(new, &mut self.claim).await?;
        stage.push(layer);
        Ok(())
    }
}
