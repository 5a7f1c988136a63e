//! The steps of a plan and their order.

use std::path::PathBuf;
use std::time::Duration;

use bollard_stubs::models::{NetworkCreateRequest, VolumeCreateRequest};

use super::observed::{ContainerState, ObservedContainer};
use crate::model::{Build, Condition};
use crate::request::CreateRequest;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Fetch an image from its registry.
    Pull {
        /// The key of the service in the file.
        service: String,
        /// The name of the image, as the project has it.
        image: String,
        /// The service's; absent: the machine's.
        platform: Option<String>,
        /// A platform that is taken instead, where the registry has it and the engine can run it.
        prefers: Option<String>,
        /// Whether failure ends the plan: the store has no older copy.
        required: bool,
    },
    /// Load an image that is a file.
    Load {
        /// The key of the service in the file.
        service: String,
        /// The name it is given.
        image: String,
        /// Absolute.
        file: PathBuf,
    },
    /// Build an image.
    Build {
        /// The key of the service in the file.
        service: String,
        /// The name it is given.
        image: String,
        /// The service's, or several that the name stands for, with commas between them; absent: the machine's.
        platform: Option<String>,
        /// From what.
        build: Box<Build>,
    },
    /// `POST /networks/create`.
    CreateNetwork {
        /// Its key in the file.
        key: String,
        /// The body.
        request: Box<NetworkCreateRequest>,
    },
    /// `POST /volumes/create`.
    CreateVolume {
        /// Its key in the file.
        key: String,
        /// The body.
        request: Box<VolumeCreateRequest>,
    },
    /// Create a container and put its files into it.
    CreateContainer {
        /// The key of the service in the file.
        service: String,
        /// Which of its containers, from 1.
        number: u32,
        /// Query, body and files.
        request: Box<CreateRequest>,
    },
    /// Create the new one under a passing name, stop and remove the old one, give the new one its name; anonymous
    /// volumes of the old one go over to the new one.
    RecreateContainer {
        /// The key of the service in the file.
        service: String,
        /// Which of its containers, from 1.
        number: u32,
        /// The one that is replaced.
        old: ContainerRef,
        /// Whether it must be stopped first.
        old_running: bool,
        /// For its stop; `None`: what it was created with.
        timeout: Option<Duration>,
        /// Query, body and files of the new one.
        request: Box<CreateRequest>,
    },
    /// Start a container that is there or that a step before creates.
    StartContainer {
        /// The key of the service in the file.
        service: String,
        /// Which.
        container: ContainerRef,
    },
    /// Restart it, because a service it depends on with `restart: true` was recreated.
    RestartContainer {
        /// The key of the service in the file.
        service: String,
        /// Which.
        container: ContainerRef,
        /// For its stop; `None`: what it was created with.
        timeout: Option<Duration>,
    },
    /// Until every container of `service` meets `condition`. When it is not `required`, failure is a warning.
    WaitFor {
        /// Whose containers are waited for.
        service: String,
        /// What they must reach.
        condition: Condition,
        /// Whether failure ends the plan.
        required: bool,
        /// The service that waits; empty: whoever asked for the plan.
        by: String,
    },
    /// `timeout` `None`: what the container was created with.
    StopContainer {
        /// The key of the service in the file.
        service: String,
        /// Which.
        container: ContainerRef,
        /// From the stop signal to SIGKILL.
        timeout: Option<Duration>,
    },
    /// Remove a container that is not running.
    RemoveContainer {
        /// The key of the service in the file.
        service: String,
        /// Which.
        container: ContainerRef,
        /// Why, for the person who reads along.
        reason: Removal,
        /// Whether its anonymous volumes go with it.
        volumes: bool,
    },
    /// Remove a network, on which no container is any more.
    RemoveNetwork {
        /// The engine's.
        id: String,
        /// The engine's name for it.
        name: String,
    },
    /// Remove a volume with its data.
    RemoveVolume {
        /// The engine's name for it.
        name: String,
    },
    /// Remove an image from the store, or this name of it.
    RemoveImage {
        /// The name of the image, as the project has it.
        image: String,
    },
}

/// A container: by its name always (a step before creates it), by its id when it exists already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    /// Without the leading slash.
    pub name: String,
    /// `None`: a step before creates it.
    pub id: Option<String>,
}

impl ContainerRef {
    pub(super) fn of(container: &ObservedContainer) -> Self {
        Self { name: container.name.clone(), id: Some(container.id.clone()) }
    }

    /// What to put into an API path.
    pub fn reference(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }
}

/// Why a container is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The service wants fewer.
    ScaledDown,
    /// Its service is no longer in the file.
    Orphan,
    /// A network it is on has changed in the file and must be made anew; so is the container.
    NetworkChanged,
    /// `down` was asked for.
    Down,
}

/// A step and the indices of the steps it must come after; all of them are smaller than its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// What is done.
    pub step: Step,
    /// Indices in [`Plan::steps`].
    pub after: Vec<usize>,
}

/// Steps in an order in which they may be carried out one by one, and what else is to be told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Each comes after those it names.
    pub steps: Vec<Planned>,
    /// Containers of services that the file does not have and that nobody asked to remove: worth a warning.
    pub orphans: Vec<String>,
    /// Other things worth a warning, such as a missing dependency that is not required.
    pub warnings: Vec<String>,
}

impl Plan {
    pub(super) fn push(&mut self, step: Step, after: impl IntoIterator<Item = usize>) -> usize {
        let mut after: Vec<usize> = after.into_iter().collect();
        after.sort_unstable();
        after.dedup();
        self.steps.push(Planned { step, after });
        self.steps.len() - 1
    }

    /// Takes out the waits for dependencies that no step comes after: whoever depends is up already.
    pub(super) fn drop_idle_waits(&mut self) {
        let mut needed = vec![false; self.steps.len()];
        for at in (0..self.steps.len()).rev() {
            needed[at] |= !matches!(&self.steps[at].step, Step::WaitFor { by, .. } if !by.is_empty());
            if needed[at] {
                for before in &self.steps[at].after {
                    needed[*before] = true;
                }
            }
        }
        let mut moved = vec![0; needed.len()];
        let mut kept = Vec::with_capacity(needed.len());
        for (at, mut planned) in std::mem::take(&mut self.steps).into_iter().enumerate() {
            if needed[at] {
                moved[at] = kept.len();
                planned.after.iter_mut().for_each(|before| *before = moved[*before]);
                kept.push(planned);
            }
        }
        self.steps = kept;
    }

    /// The steps in levels: all of one level may run at the same time once the level before is done.
    pub fn levels(&self) -> Vec<Vec<usize>> {
        let mut depth: Vec<usize> = Vec::with_capacity(self.steps.len());
        let mut levels: Vec<Vec<usize>> = Vec::new();
        for (at, planned) in self.steps.iter().enumerate() {
            let level = planned.after.iter().map(|before| depth[*before] + 1).max().unwrap_or(0);
            depth.push(level);
            if levels.len() <= level {
                levels.resize_with(level + 1, Vec::new);
            }
            levels[level].push(at);
        }
        levels
    }
}

pub(super) fn stop_and_remove(
    plan: &mut Plan,
    container: &ObservedContainer,
    reason: Removal,
    timeout: Option<Duration>,
    volumes: bool,
    after: &[usize],
) -> usize {
    let mut before: Vec<usize> = after.to_vec();
    if container.state.is_up() || container.state == ContainerState::Paused {
        let step =
            Step::StopContainer { service: container.service.clone(), container: ContainerRef::of(container), timeout };
        before = vec![plan.push(step, before)];
    }
    let step = Step::RemoveContainer {
        service: container.service.clone(),
        container: ContainerRef::of(container),
        reason,
        volumes,
    };
    plan.push(step, before)
}
