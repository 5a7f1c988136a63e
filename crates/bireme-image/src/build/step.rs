//! The steps of a build as its client sees them: each has a line of its own, begins and ends.

use std::ops::RangeInclusive;

use super::run::RunOutput;
use super::shared::Shared;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::events::{BuildEvent, Progress, StepEvent, StepId};

/// Lines of a Dockerfile, counted from 1.
pub(super) type Lines = RangeInclusive<usize>;

/// A step that has begun. Dropped before it has ended, it was given up.
pub(super) struct Step<'a> {
    shared: &'a Shared<'a>,
    id: StepId,
    lines: Option<Lines>,
    ended: bool,
}

impl<'a> Step<'a> {
    /// Begins a step. Steps of one name are told apart by the order in which they begin.
    pub(super) fn begin(shared: &'a Shared<'a>, name: String, inputs: Vec<StepId>, lines: Option<Lines>) -> Self {
        let id = Digest::of(format!("{} {name}", shared.next_number()).as_bytes());
        let step = Self { shared, id, lines, ended: false };
        step.tell(StepEvent::Started { name, inputs });
        step
    }

    fn tell(&self, event: StepEvent) {
        if self.shared.tells_steps() {
            (self.shared.log)(BuildEvent::Step { id: self.id.clone(), event });
        }
    }

    /// Tells how far a part of it has come.
    pub(super) fn progress(&self, line: Progress) {
        if self.shared.tells_steps() {
            self.tell(StepEvent::Progress(line));
        } else {
            (self.shared.log)(BuildEvent::Progress(line));
        }
    }

    /// Tells what a command of it prints.
    pub(super) fn output(&self, output: RunOutput) {
        match output {
            RunOutput::Note(text) => self.shared.say(text),
            RunOutput::Printed { stderr, text } if self.shared.tells_steps() => {
                self.tell(StepEvent::Output { stderr, bytes: text.into_bytes() });
            }
            // In red, as Docker's classic builder has it.
            RunOutput::Printed { stderr: true, text } => self.shared.say(format!("\u{1b}[91m{text}\u{1b}[0m")),
            RunOutput::Printed { stderr: false, text } => self.shared.say(text),
        }
    }

    /// Ends it, done or taken from the cache.
    pub(super) fn end(mut self, cached: bool) -> StepId {
        self.ended = true;
        self.tell(StepEvent::Ended { cached, error: None, lines: None });
        self.id.clone()
    }

    /// Ends it by what went wrong.
    pub(super) fn fail(mut self, error: &ImageError) {
        self.ended = true;
        let error = Some(error.of_step());
        self.tell(StepEvent::Ended { cached: false, error, lines: self.lines.clone() });
    }

    /// Ends it by how its work ended, which answers whether it was taken from the cache.
    pub(super) fn ended<T>(self, outcome: Result<(T, bool), ImageError>) -> Result<(T, StepId), ImageError> {
        match outcome {
            Ok((made, cached)) => Ok((made, self.end(cached))),
            Err(error) => {
                self.fail(&error);
                Err(error)
            }
        }
    }

    /// Ends it by how its work ended, which the cache had no part in.
    pub(super) fn ended_by<T>(self, outcome: Result<T, ImageError>) -> Result<T, ImageError> {
        self.ended(outcome.map(|made| (made, false))).map(|(made, _)| made)
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let error = Some("canceled: another step failed, or nobody waits for the build any more".to_owned());
            self.tell(StepEvent::Ended { cached: false, error, lines: None });
        }
    }
}
