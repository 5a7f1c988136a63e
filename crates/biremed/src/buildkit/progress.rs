//! The steps of a build as BuildKit's clients see them.

use std::collections::HashMap;

use bireme_buildkit::{BuildError, Lines, LogStream, Progress, SourceFile, Task, Vertex, Warning};
use bireme_image::{BuildEvent, ImageError, StepEvent, StepId};
use parking_lot::Mutex;

/// Passes on what a build tells, and remembers where it failed.
pub(super) struct Teller<'a> {
    progress: &'a Progress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vertices: HashMap<StepId, Told>,
    file: Option<SourceFile>,
    failed: Option<(String, Vec<Lines>)>,
}

struct Told {
    vertex: Vertex,
    tasks: HashMap<String, Task>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(progress: &'a Progress) -> Self {
        Self { progress, state: Mutex::default() }
    }

    pub(super) fn tell(&self, event: BuildEvent) {
        let state = &mut *self.state.lock();
        match event {
            BuildEvent::Dockerfile { name, text } => {
                state.file =
                    Some(SourceFile { filename: name, language: "Dockerfile".to_owned(), data: text.into_bytes() });
            }
            BuildEvent::Warning(warning) => {
                let lines = warning.lines.map(|lines| lines_of(&lines));
                self.progress.warn(
                    None,
                    Warning {
                        level: 1,
                        short: format!("{}: {}", warning.rule, warning.detail),
                        detail: vec![warning.description],
                        url: warning.url,
                        place: state.file.clone().zip(lines.map(|lines| vec![lines])),
                    },
                );
            }
            BuildEvent::Step { id, event } => self.step(state, &id, event),
            BuildEvent::Stream(_) | BuildEvent::Progress(_) | BuildEvent::Built(_) => {}
        }
    }

    fn step(&self, state: &mut State, id: &StepId, event: StepEvent) {
        if let StepEvent::Started { name, inputs } = event {
            let inputs: Vec<&Vertex> =
                inputs.iter().filter_map(|input| state.vertices.get(input)).map(|told| &told.vertex).collect();
            let vertex = self.progress.vertex(&name, &inputs);
            vertex.start();
            state.vertices.insert(id.clone(), Told { vertex, tasks: HashMap::new() });
            return;
        }
        let Some(told) = state.vertices.get_mut(id) else { return };
        match event {
            StepEvent::Started { .. } => {}
            StepEvent::Output { stderr, bytes } => {
                told.vertex.log(if stderr { LogStream::Stderr } else { LogStream::Stdout }, &bytes);
            }
            StepEvent::Progress(line) => {
                let name = match &line.id {
                    Some(id) => format!("{} {id}", line.status),
                    None => line.status.clone(),
                };
                let Some(current) = line.current else { return told.vertex.task(&name).done() };
                let task = told.tasks.entry(name.clone()).or_insert_with(|| told.vertex.task(&name));
                task.set(current, line.total.unwrap_or(0));
                if line.total.is_some_and(|total| current >= total) {
                    task.done();
                }
            }
            StepEvent::Ended { cached: true, .. } => {
                told.tasks.values().for_each(Task::done);
                told.vertex.cached();
            }
            StepEvent::Ended { error: None, .. } => {
                told.tasks.values().for_each(Task::done);
                told.vertex.complete();
            }
            StepEvent::Ended { error: Some(error), .. } if error.starts_with("canceled: ") => told.vertex.cancel(),
            StepEvent::Ended { error: Some(error), lines, .. } => {
                told.vertex.fail(&error);
                let lines = lines.iter().map(lines_of).collect();
                state.failed.get_or_insert_with(|| (told.vertex.digest().to_owned(), lines));
            }
        }
    }

    /// The failure with its place: the step, and the lines of the Dockerfile.
    pub(super) fn located(&self, error: BuildError, lines: &[Lines]) -> BuildError {
        let state = self.state.lock();
        let (vertex, of_step) = match &state.failed {
            Some((vertex, lines)) => (Some(vertex), lines.as_slice()),
            None => (None, [].as_slice()),
        };
        let lines = if lines.is_empty() { of_step } else { lines };
        let error = match vertex {
            Some(vertex) => error.of_vertex(vertex),
            None => error,
        };
        match &state.file {
            Some(file) if !lines.is_empty() => error.at(file, lines),
            _ => error,
        }
    }
}

fn lines_of(lines: &std::ops::RangeInclusive<usize>) -> Lines {
    let number = |line: usize| u32::try_from(line).unwrap_or(u32::MAX);
    Lines { start: number(*lines.start()), end: number(*lines.end()) }
}

/// The lines of the Dockerfile that a failure itself names.
pub(super) fn lines(error: &ImageError) -> Vec<Lines> {
    match error {
        ImageError::Dockerfile(error) => {
            error.lines.iter().map(|lines| lines_of(&(lines.first..=lines.last))).collect()
        }
        ImageError::Instruction { line, .. } | ImageError::Copy { line, .. } => vec![lines_of(&(*line..=*line))],
        _ => Vec::new(),
    }
}
