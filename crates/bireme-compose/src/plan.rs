//! What to do so that the engine has what the project wants. Pure: desired project + what was observed → steps.
//!
//! `up` goes in two strides, because whether a container is out of date depends on an image that may have to be pulled
//! first: carry out [`images`], look again, carry out [`up`]. Every [`Planned`] step names the steps it must come after;
//! whatever is not so ordered may run at the same time.
//!
//! ```text
//! networks, volumes ─┐
//! stop/remove old ───┴─> create ─> (wait for what it depends on) ─> start
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bireme_core::ErrorKind;
use bireme_core::nearest::nearest;
use bollard_stubs::models::{NetworkCreateRequest, VolumeCreateRequest};

use crate::ComposeError;
use crate::model::{Build, Condition, Project, Service};
use crate::request::{
    CreateRequest, Replica, config_hash, container_name, create_request, labels, network_request, volume_request,
};

/// What the engine has of this project: everything labelled `com.docker.compose.project=<name>`, and by name the
/// networks, volumes and images that the project speaks of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    pub networks: Vec<ObservedNetwork>,
    pub volumes: Vec<ObservedVolume>,
    pub containers: Vec<ObservedContainer>,
    /// Image name as the project has it → image id. What is not in it is not in the store.
    pub images: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedNetwork {
    pub id: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedVolume {
    pub name: String,
    pub labels: BTreeMap<String, String>,
}

/// A container of the project.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObservedContainer {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    pub service: String,
    /// From 1; 0 when the label is missing.
    pub number: u32,
    pub config_hash: String,
    /// The image it was made from.
    pub image_id: String,
    pub state: ContainerState,
    pub health: Health,
    /// Made by `run`.
    pub one_off: bool,
    /// Names of the networks it is on.
    pub networks: BTreeSet<String>,
    /// Its exit code, when it has exited.
    pub exit_code: Option<i64>,
    /// When it was started last, in nanoseconds since 1970; only where namespaces are shared.
    pub started_at: Option<i64>,
    /// Ids or names of the containers whose namespaces it shares.
    pub joined: BTreeSet<String>,
}

impl ObservedContainer {
    /// Reads the labels of a container as `GET /containers/json` gives them; `None` when it belongs to no project.
    pub fn from_labels(id: &str, name: &str, labels: &BTreeMap<String, String>) -> Option<Self> {
        labels.get(labels::PROJECT)?;
        let text = |key: &str| labels.get(key).cloned().unwrap_or_default();
        Some(Self {
            id: id.to_owned(),
            name: name.trim_start_matches('/').to_owned(),
            service: text(labels::SERVICE),
            number: text(labels::NUMBER).parse().unwrap_or(0),
            config_hash: text(labels::CONFIG_HASH),
            image_id: text(labels::IMAGE),
            one_off: text(labels::ONE_OFF).eq_ignore_ascii_case("true"),
            ..Self::default()
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContainerState {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    Dead,
}

impl ContainerState {
    /// Docker's word; an unknown one is [`Self::Dead`], which is never mistaken for a running container.
    pub fn from_word(word: &str) -> Self {
        match word {
            "created" => Self::Created,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "restarting" => Self::Restarting,
            "removing" => Self::Removing,
            "exited" => Self::Exited,
            _ => Self::Dead,
        }
    }

    fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Restarting)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    #[default]
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// When to fetch an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    #[default]
    Missing,
    Never,
}

/// When to build an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BuildPolicy {
    Always,
    #[default]
    Missing,
    Never,
}

/// What `up` was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpOptions {
    /// Only these, and what they depend on; empty: all.
    pub services: Vec<String>,
    /// Containers per service, over what the file says.
    pub scale: BTreeMap<String, u32>,
    pub force_recreate: bool,
    pub no_recreate: bool,
    /// Recreate dependencies too when `force_recreate` is set.
    pub always_recreate_deps: bool,
    /// Remove containers of services that the file no longer has; otherwise they are [`Plan::orphans`].
    pub remove_orphans: bool,
    pub no_deps: bool,
    /// Create and do not start.
    pub no_start: bool,
    /// Over each service's `pull_policy`.
    pub pull: Option<PullPolicy>,
    pub build: BuildPolicy,
    /// Wait until everything started is running or healthy.
    pub wait: bool,
    /// Over each service's `stop_grace_period`.
    pub stop_timeout: Option<Duration>,
}

/// What `down` was asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DownOptions {
    /// Only these services; empty: the whole project with its networks.
    pub services: Vec<String>,
    /// Remove named volumes that are not external, and anonymous ones.
    pub volumes: bool,
    pub rmi: RemoveImages,
    pub remove_orphans: bool,
    /// Over each service's `stop_grace_period`.
    pub stop_timeout: Option<Duration>,
}

/// Which images `down` removes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemoveImages {
    #[default]
    None,
    /// Those that the project built and gave no name.
    Local,
    All,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Pull {
        service: String,
        image: String,
        platform: Option<String>,
        required: bool,
    },
    Build {
        service: String,
        image: String,
        platform: Option<String>,
        build: Box<Build>,
    },
    CreateNetwork {
        key: String,
        request: Box<NetworkCreateRequest>,
    },
    CreateVolume {
        key: String,
        request: Box<VolumeCreateRequest>,
    },
    CreateContainer {
        service: String,
        number: u32,
        request: Box<CreateRequest>,
    },
    /// Create the new one under a passing name, stop and remove the old one, give the new one its name; anonymous
    /// volumes of the old one go over to the new one.
    RecreateContainer {
        service: String,
        number: u32,
        old: ContainerRef,
        old_running: bool,
        timeout: Option<Duration>,
        request: Box<CreateRequest>,
    },
    StartContainer {
        service: String,
        container: ContainerRef,
    },
    /// Restart it, because a service it depends on with `restart: true` was recreated.
    RestartContainer {
        service: String,
        container: ContainerRef,
        timeout: Option<Duration>,
    },
    /// Until every container of `service` meets `condition`. When it is not `required`, failure is a warning.
    WaitFor {
        service: String,
        condition: Condition,
        required: bool,
        by: String,
    },
    /// `timeout` `None`: what the container was created with.
    StopContainer {
        service: String,
        container: ContainerRef,
        timeout: Option<Duration>,
    },
    RemoveContainer {
        service: String,
        container: ContainerRef,
        reason: Removal,
        volumes: bool,
    },
    RemoveNetwork {
        id: String,
        name: String,
    },
    RemoveVolume {
        name: String,
    },
    RemoveImage {
        image: String,
    },
}

/// A container: by its name always (a step before creates it), by its id when it exists already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRef {
    pub name: String,
    pub id: Option<String>,
}

impl ContainerRef {
    fn of(container: &ObservedContainer) -> Self {
        Self { name: container.name.clone(), id: Some(container.id.clone()) }
    }

    /// What to put into an API path.
    pub fn reference(&self) -> &str {
        self.id.as_deref().unwrap_or(&self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// The service wants fewer.
    ScaledDown,
    /// Its service is no longer in the file.
    Orphan,
    /// A network it is on has changed in the file and must be made anew; so is the container.
    NetworkChanged,
    Down,
}

/// A step and the indices of the steps it must come after; all of them are smaller than its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    pub step: Step,
    pub after: Vec<usize>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Planned>,
    /// Containers of services that the file does not have and that nobody asked to remove: worth a warning.
    pub orphans: Vec<String>,
    /// Other things worth a warning, such as a missing dependency that is not required.
    pub warnings: Vec<String>,
}

impl Plan {
    fn push(&mut self, step: Step, after: impl IntoIterator<Item = usize>) -> usize {
        let mut after: Vec<usize> = after.into_iter().collect();
        after.sort_unstable();
        after.dedup();
        self.steps.push(Planned { step, after });
        self.steps.len() - 1
    }

    /// Takes out the waits for dependencies that no step comes after: whoever depends is up already.
    fn drop_idle_waits(&mut self) {
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

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Project(#[from] ComposeError),
    #[error("network {name} is declared external and does not exist; create it with `bireme network create {name}`")]
    ExternalNetwork { name: String },
    #[error("volume {name} is declared external and does not exist; create it with `bireme volume create {name}`")]
    ExternalVolume { name: String },
    #[error(
        "{kind} {name} exists and belongs to {owner}; declare it `external: true` to use it, or give it another name"
    )]
    NotOurs { kind: &'static str, name: String, owner: String },
    #[error(
        "service {service} has container_name {name} and cannot have {count} containers; remove container_name or scale to 1"
    )]
    NamedScale { service: String, name: String, count: u32 },
    #[error(
        "service {service} depends on {missing}, which is not active; select its profile, add it, or set `required: false`"
    )]
    MissingDependency { service: String, missing: String },
    #[error("service {service} has neither an image in the store nor a way to get one: {why}")]
    NoImage { service: String, why: &'static str },
    #[error(
        "service {service} needs {kind} {name} from variable {variable}, which is not set; set it in the environment or in .env"
    )]
    Unset { service: String, kind: &'static str, name: String, variable: String },
    #[error("--force-recreate and --no-recreate exclude each other; leave one out")]
    Contradiction,
    #[error(
        "network {name} has changed in the file, but {container} is on it and its service was not selected; run up for the whole project"
    )]
    NetworkInUse { name: String, container: String },
}

impl PlanError {
    /// The kind of failure, for exit codes.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Project(error) => error.kind(),
            Self::ExternalNetwork { .. } | Self::ExternalVolume { .. } | Self::NoImage { .. } => ErrorKind::NotFound,
            Self::NotOurs { .. } | Self::NetworkInUse { .. } => ErrorKind::Conflict,
            Self::NamedScale { .. } | Self::MissingDependency { .. } | Self::Unset { .. } | Self::Contradiction => {
                ErrorKind::Invalid
            }
        }
    }
}

/// The first stride of `up` (and all of `pull` and `build` that `up` implies): the images to pull and to build.
///
/// # Errors
/// A name that is no service; an image that may neither be pulled nor built.
pub fn images(project: &Project, observed: &Observed, options: &UpOptions) -> Result<Plan, PlanError> {
    let project = project.select(&options.services, !options.no_deps)?;
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    for (name, service) in &project.services {
        let image = service.image_name(&project.name);
        let present = observed.images.contains_key(&image);
        let platform = service.platform.clone();
        let own = service.pull_policy.as_deref();
        let build_now = match options.build {
            BuildPolicy::Always => true,
            BuildPolicy::Missing => own == Some("build") || !present,
            BuildPolicy::Never => false,
        };
        let pull = options.pull.unwrap_or(match own {
            Some("always") => PullPolicy::Always,
            Some("never") => PullPolicy::Never,
            _ => PullPolicy::Missing,
        });
        let step = match &service.build {
            Some(build) if build_now => {
                Step::Build { service: name.clone(), image: image.clone(), platform, build: Box::new(build.clone()) }
            }
            Some(_) if present => continue,
            Some(_) => return Err(PlanError::NoImage { service: name.clone(), why: "building is switched off" }),
            None => match pull {
                PullPolicy::Never if !present => {
                    return Err(PlanError::NoImage { service: name.clone(), why: "its pull policy is never" });
                }
                PullPolicy::Never => continue,
                PullPolicy::Missing if present => continue,
                // What another service of the project builds is no registry's business.
                _ if project.services.iter().any(|(other, service)| {
                    other != name && service.build.is_some() && service.image.as_ref() == Some(&image)
                }) =>
                {
                    continue;
                }
                _ => Step::Pull { service: name.clone(), image: image.clone(), platform, required: !present },
            },
        };
        if seen.insert((image, service.build.clone().map(|build| build.context))) {
            plan.push(step, []);
        }
    }
    Ok(plan)
}

/// The second stride of `up`: networks, volumes and containers. `observed` must have been read after [`images`] was
/// carried out.
///
/// # Errors
/// See [`PlanError`]; nothing has been done when one is answered.
pub fn up(project: &Project, observed: &Observed, options: &UpOptions) -> Result<Plan, PlanError> {
    if options.force_recreate && options.no_recreate {
        return Err(PlanError::Contradiction);
    }
    for name in options.scale.keys() {
        if !project.disabled.contains_key(name) {
            project.service(name)?;
        }
    }
    let selected = project.select(&options.services, !options.no_deps)?;
    let order = selected.service_order()?;
    selected.services.values().try_for_each(|service| variables_set(&selected, service))?;
    let mut builder = Builder {
        project: &selected,
        observed,
        options,
        plan: Plan::default(),
        settled: BTreeMap::new(),
        recreated: BTreeSet::new(),
        gone: BTreeSet::new(),
        waits: BTreeMap::new(),
        first: BTreeMap::new(),
        names: BTreeMap::new(),
    };
    let orphans = builder.orphans(project);
    let ground = builder.ground(orphans)?;
    for service in order.iter().flatten() {
        builder.service(&selected.services[service], &ground)?;
    }
    if options.wait && !options.no_start {
        for (name, service) in &selected.services {
            let condition = if service.healthcheck.as_ref().is_some_and(crate::model::Healthcheck::is_on) {
                Condition::ServiceHealthy
            } else {
                Condition::ServiceStarted
            };
            let after = builder.settled.get(name).cloned().unwrap_or_default();
            builder
                .plan
                .push(Step::WaitFor { service: name.clone(), condition, required: true, by: String::new() }, after);
        }
    }
    let mut plan = builder.plan;
    plan.drop_idle_waits();
    Ok(plan)
}

struct Builder<'a> {
    project: &'a Project,
    observed: &'a Observed,
    options: &'a UpOptions,
    plan: Plan,
    /// Per service, the steps after which all its containers have been started (or left as they are).
    settled: BTreeMap<String, Vec<usize>>,
    /// Services of which a container was made anew.
    recreated: BTreeSet<String>,
    /// Containers that the plan has removed already.
    gone: BTreeSet<String>,
    /// One wait per service and condition is enough.
    waits: BTreeMap<(String, Condition), usize>,
    /// The id or name of the first container of each service, for `service:NAME` namespaces.
    first: BTreeMap<String, String>,
    /// The names of all containers of each service, for links.
    names: BTreeMap<String, Vec<String>>,
}

impl Builder<'_> {
    fn timeout(&self, service: Option<&Service>) -> Option<Duration> {
        self.options.stop_timeout.or_else(|| service.and_then(|service| service.stop_grace_period))
    }

    /// Containers whose service the file has not: removed, or named as orphans.
    fn orphans(&mut self, whole: &Project) -> Vec<usize> {
        let mut removed = Vec::new();
        for container in self.observed.containers.iter().filter(|container| !container.one_off) {
            if whole.services.contains_key(&container.service) || whole.disabled.contains_key(&container.service) {
                continue;
            }
            if self.options.remove_orphans {
                removed.push(self.stop_and_remove(container, Removal::Orphan, None, &[]));
                self.gone.insert(container.id.clone());
            } else {
                self.plan.orphans.push(container.name.clone());
            }
        }
        removed
    }

    fn stop_and_remove(
        &mut self,
        container: &ObservedContainer,
        reason: Removal,
        timeout: Option<Duration>,
        after: &[usize],
    ) -> usize {
        stop_and_remove(&mut self.plan, container, reason, timeout, false, after)
    }

    /// Networks and volumes.
    fn ground(&mut self, orphans: Vec<usize>) -> Result<Vec<usize>, PlanError> {
        let mut ground = orphans.clone();
        let used: BTreeSet<&String> =
            self.project.services.values().flat_map(|service| service.networks.keys()).collect();
        for (key, network) in self.project.networks.iter().filter(|(key, _)| used.contains(key)) {
            let there = self.observed.networks.iter().find(|there| there.name == network.name);
            match (there, network_request(self.project, key)) {
                (Some(there), Some(request)) => {
                    ours("network", &network.name, &there.labels, &self.project.name)?;
                    if changed(&there.labels, request.labels.as_ref()) {
                        let mut after = orphans.clone();
                        after.extend(self.clear_network(&network.name)?);
                        let step = Step::RemoveNetwork { id: there.id.clone(), name: there.name.clone() };
                        let removed = self.plan.push(step, after);
                        let step = Step::CreateNetwork { key: key.clone(), request: Box::new(request) };
                        ground.push(self.plan.push(step, [removed]));
                    }
                }
                (Some(_), None) => {}
                (None, None) => return Err(PlanError::ExternalNetwork { name: network.name.clone() }),
                (None, Some(request)) => {
                    let step = Step::CreateNetwork { key: key.clone(), request: Box::new(request) };
                    ground.push(self.plan.push(step, orphans.iter().copied()));
                }
            }
        }
        let used: BTreeSet<&String> = self
            .project
            .services
            .values()
            .flat_map(|service| service.volumes.iter())
            .filter(|mount| mount.kind == crate::model::MountKind::Volume)
            .filter_map(|mount| mount.source.as_ref())
            .collect();
        for (key, volume) in self.project.volumes.iter().filter(|(key, _)| used.contains(key)) {
            let there = self.observed.volumes.iter().find(|there| there.name == volume.name);
            match (there, volume_request(self.project, key)) {
                // As docker compose: a volume made by hand is used, with a word about it.
                (Some(there), Some(request)) => {
                    if changed(&there.labels, request.labels.as_ref()) {
                        self.plan.warnings.push(format!(
                            "volume {} has changed in the file and is kept as it was made; remove it (down --volumes) to make it anew",
                            volume.name
                        ));
                    }
                    if let Err(error) = ours("volume", &volume.name, &there.labels, &self.project.name) {
                        self.plan.warnings.push(error.to_string());
                    }
                }
                (Some(_), None) => {}
                (None, None) => return Err(PlanError::ExternalVolume { name: volume.name.clone() }),
                (None, Some(request)) => {
                    ground
                        .push(self.plan.push(Step::CreateVolume { key: key.clone(), request: Box::new(request) }, []));
                }
            }
        }
        Ok(ground)
    }

    /// Takes every container off a network that must be made anew.
    fn clear_network(&mut self, name: &str) -> Result<Vec<usize>, PlanError> {
        let mut removed = Vec::new();
        let observed = self.observed;
        for container in observed.containers.iter().filter(|container| container.networks.contains(name)) {
            if self.gone.contains(&container.id) {
                continue;
            }
            let Some(service) = self.project.services.get(&container.service).filter(|_| !container.one_off) else {
                return Err(PlanError::NetworkInUse { name: name.to_owned(), container: container.name.clone() });
            };
            let timeout = self.timeout(Some(service));
            removed.push(self.stop_and_remove(container, Removal::NetworkChanged, timeout, &[]));
            self.gone.insert(container.id.clone());
            self.recreated.insert(container.service.clone());
        }
        Ok(removed)
    }

    /// The waits that come before the first start of `service`.
    fn dependencies(&mut self, service: &Service) -> Result<(Vec<usize>, bool), PlanError> {
        let mut after = Vec::new();
        let mut restart = false;
        for (name, on) in &service.depends_on {
            if !self.project.services.contains_key(name) {
                if on.required && !self.options.no_deps {
                    return Err(PlanError::MissingDependency { service: service.name.clone(), missing: name.clone() });
                }
                if !self.options.no_deps {
                    let warning =
                        format!("service {} depends on {name}, which is not active: going on without it", service.name);
                    self.plan.warnings.push(warning);
                }
                continue;
            }
            restart |= on.restart && self.recreated.contains(name);
            let settled = self.settled.get(name).cloned().unwrap_or_default();
            if on.condition == Condition::ServiceStarted || self.options.no_start {
                after.extend(settled);
                continue;
            }
            let key = (name.clone(), on.condition);
            let wait = match self.waits.get(&key) {
                Some(wait) => *wait,
                None => {
                    let step = Step::WaitFor {
                        service: name.clone(),
                        condition: on.condition,
                        required: on.required,
                        by: service.name.clone(),
                    };
                    let wait = self.plan.push(step, settled);
                    self.waits.insert(key, wait);
                    wait
                }
            };
            after.push(wait);
        }
        Ok((after, restart))
    }

    fn service(&mut self, service: &Service, ground: &[usize]) -> Result<(), PlanError> {
        let wanted = self.options.scale.get(&service.name).copied().unwrap_or_else(|| service.replicas());
        if let Some(name) = &service.container_name
            && wanted > 1
        {
            return Err(PlanError::NamedScale { service: service.name.clone(), name: name.clone(), count: wanted });
        }
        let (waited, restart) = self.dependencies(service)?;
        let mut existing: Vec<&ObservedContainer> = self
            .observed
            .containers
            .iter()
            .filter(|container| container.service == service.name && !container.one_off)
            .filter(|container| container.state != ContainerState::Removing && !self.gone.contains(&container.id))
            .collect();
        existing.sort_by_key(|container| container.number);
        let image = service.image_name(&self.project.name);
        let image_id = self.observed.images.get(&image).cloned();
        let explicit = self.options.services.is_empty() || self.options.services.contains(&service.name);
        let force = self.options.force_recreate && (explicit || self.options.always_recreate_deps);
        // A container that shares the namespaces of one made anew points at one that is gone.
        let moved = service
            .depends_on
            .keys()
            .any(|name| self.recreated.contains(name) && shared(service).any(|other| other == name));
        let hash = config_hash(self.project, service);
        let timeout = self.timeout(Some(service));
        let mut settled: Vec<usize> = Vec::new();
        let mut ready: Vec<usize> = ground.to_vec();
        ready.extend(waited);

        let surplus = existing.split_off(existing.len().min(wanted as usize));
        for container in surplus {
            settled.push(self.stop_and_remove(container, Removal::ScaledDown, timeout, &[]));
        }
        let taken: BTreeSet<u32> = existing.iter().map(|container| container.number).collect();
        let missing = (wanted as usize).saturating_sub(existing.len());
        let fresh: Vec<u32> = (1..).filter(|number| !taken.contains(number)).take(missing).collect();

        let known = existing.iter().map(|container| container.number.max(1)).chain(fresh.iter().copied());
        let names = known.map(|number| container_name(self.project, service, number)).collect();
        self.names.insert(service.name.clone(), names);
        let joins = joined(self.observed, service);

        for container in existing {
            let changed = container.config_hash != hash
                || image_id.as_ref().is_some_and(|id| *id != container.image_id)
                || self.networks_differ(service, container);
            // One that shares namespaces of a container that is gone can only be made anew.
            let is = |other: &ObservedContainer, wanted: &String| other.id == *wanted || other.name == *wanted;
            let orphaned = shared(service).next().is_some()
                && container.joined.iter().any(|wanted| !joins.iter().any(|other| is(other, wanted)));
            let stale = force || moved || orphaned || (changed && !self.options.no_recreate);
            let reference = ContainerRef::of(container);
            if stale {
                let replica =
                    self.replica(service, container.number.max(1), image_id.clone(), Some(container.id.clone()));
                let request = create_request(self.project, service, &replica);
                let name = request.name.clone();
                self.recreated.insert(service.name.clone());
                self.first.entry(service.name.clone()).or_insert_with(|| name.clone());
                let made = self.plan.push(
                    Step::RecreateContainer {
                        service: service.name.clone(),
                        number: container.number.max(1),
                        old: reference,
                        old_running: container.state.is_up() || container.state == ContainerState::Paused,
                        timeout,
                        request: Box::new(request),
                    },
                    ready.iter().copied(),
                );
                settled.push(self.start(service, ContainerRef { name, id: None }, made, &ready));
                continue;
            }
            self.first.entry(service.name.clone()).or_insert_with(|| container.id.clone());
            if container.state.is_up() {
                // Its namespaces ended with the run that it joined.
                let outlived = joins.iter().any(|other| {
                    container.joined.iter().any(|wanted| is(other, wanted))
                        && other.state.is_up()
                        && container.started_at.is_some_and(|own| other.started_at.is_some_and(|their| their > own))
                });
                let begins = joins.iter().any(|other| !other.state.is_up() && !self.options.no_start);
                if restart || outlived || begins {
                    let step = Step::RestartContainer { service: service.name.clone(), container: reference, timeout };
                    settled.push(self.plan.push(step, ready.iter().copied()));
                }
            } else if !self.options.no_start {
                let step = Step::StartContainer { service: service.name.clone(), container: reference };
                settled.push(self.plan.push(step, ready.iter().copied()));
            }
        }
        for number in fresh {
            let replica = self.replica(service, number, image_id.clone(), None);
            let request = create_request(self.project, service, &replica);
            let name = request.name.clone();
            self.first.entry(service.name.clone()).or_insert_with(|| name.clone());
            // Creation needs no dependency to be up, unless it names one's namespaces, volumes or containers.
            let shares = shared(service).next().is_some()
                || !(service.links.is_empty() && service.volumes_from.is_empty() && service.external_links.is_empty());
            let before = if shares { ready.clone() } else { ground.to_vec() };
            let step = Step::CreateContainer { service: service.name.clone(), number, request: Box::new(request) };
            let made = self.plan.push(step, before);
            settled.push(self.start(service, ContainerRef { name, id: None }, made, &ready));
        }
        // A service with nothing to do still passes on what it waited for.
        if settled.is_empty() {
            settled = ready;
        }
        self.settled.insert(service.name.clone(), settled);
        Ok(())
    }

    fn start(&mut self, service: &Service, container: ContainerRef, made: usize, ready: &[usize]) -> usize {
        if self.options.no_start {
            return made;
        }
        let step = Step::StartContainer { service: service.name.clone(), container };
        self.plan.push(step, ready.iter().copied().chain([made]))
    }

    fn replica(&self, service: &Service, number: u32, image_id: Option<String>, replaces: Option<String>) -> Replica {
        let containers = service
            .depends_on
            .keys()
            .filter_map(|name| self.first.get(name).map(|id| (name.clone(), id.clone())))
            .collect();
        let names = service
            .depends_on
            .keys()
            .filter_map(|name| self.names.get(name).map(|names| (name.clone(), names.clone())))
            .collect();
        Replica { number, one_off: false, image_id, containers, names, replaces }
    }

    fn networks_differ(&self, service: &Service, container: &ObservedContainer) -> bool {
        if service.network_mode.is_some() || container.networks.is_empty() {
            return false;
        }
        service
            .networks
            .keys()
            .filter_map(|key| self.project.networks.get(key))
            .any(|network| !container.networks.contains(&network.name))
    }
}

/// The services whose namespaces a service shares.
fn shared(service: &Service) -> impl Iterator<Item = &str> {
    [&service.network_mode, &service.ipc, &service.pid]
        .into_iter()
        .flatten()
        .filter_map(|mode| mode.strip_prefix("service:"))
}

/// The containers, as they are, of the services whose namespaces `service` shares.
fn joined<'a>(observed: &'a Observed, service: &Service) -> Vec<&'a ObservedContainer> {
    let services: BTreeSet<&str> = shared(service).collect();
    let mut joined: Vec<_> = observed.containers.iter().collect();
    joined.retain(|container| !container.one_off && services.contains(container.service.as_str()));
    joined
}

/// Whether the file says something else than when the network or volume was made; one without a fingerprint of ours
/// (made by another program) is taken as it is.
fn changed(found: &BTreeMap<String, String>, wanted: Option<&std::collections::HashMap<String, String>>) -> bool {
    match (found.get(labels::FINGERPRINT), wanted.and_then(|wanted| wanted.get(labels::FINGERPRINT))) {
        (Some(found), Some(wanted)) => found != wanted,
        _ => false,
    }
}

/// A secret or config from a variable that is not set would silently be missing.
fn variables_set(project: &Project, service: &Service) -> Result<(), PlanError> {
    let secrets = service.secrets.iter().map(|reference| ("secret", reference, &project.secrets));
    let configs = service.configs.iter().map(|reference| ("config", reference, &project.configs));
    for (kind, reference, objects) in secrets.chain(configs) {
        if let Some(object) = objects.get(&reference.source)
            && let (Some(variable), None) = (&object.environment, &object.environment_value)
        {
            return Err(PlanError::Unset {
                service: service.name.clone(),
                kind,
                name: reference.source.clone(),
                variable: variable.clone(),
            });
        }
    }
    Ok(())
}

fn ours(kind: &'static str, name: &str, found: &BTreeMap<String, String>, project: &str) -> Result<(), PlanError> {
    let owner = match found.get(labels::PROJECT) {
        Some(owner) if owner == project => return Ok(()),
        Some(owner) => format!("project {owner}"),
        None => "no project".to_owned(),
    };
    Err(PlanError::NotOurs { kind, name: name.to_owned(), owner })
}

fn stop_and_remove(
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

/// Stops and removes what the project has, in the reverse of the order of its dependencies: whoever depends goes first.
/// One-off containers of `run` go too.
///
/// # Errors
/// A name that is no service, or a circle of dependencies.
pub fn down(project: &Project, observed: &Observed, options: &DownOptions) -> Result<Plan, PlanError> {
    let every = |name: &str| project.services.get(name).or_else(|| project.disabled.get(name));
    for name in &options.services {
        if every(name).is_none() {
            return Err(PlanError::Project(ComposeError::NoSuchService {
                name: name.clone(),
                nearest: nearest(name, project.services.keys().map(String::as_str)).map(str::to_owned),
            }));
        }
    }
    let mut whole = project.clone();
    whole.services.extend(project.disabled.clone());
    let mut plan = Plan::default();
    let mut removed: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for name in whole.service_order()?.into_iter().rev().flatten() {
        if !options.services.is_empty() && !options.services.contains(&name) {
            continue;
        }
        let dependants: Vec<usize> = whole
            .services
            .values()
            .filter(|service| service.depends_on.contains_key(&name))
            .filter_map(|service| removed.get(&service.name))
            .flatten()
            .copied()
            .collect();
        let timeout = options.stop_timeout.or_else(|| every(&name).and_then(|service| service.stop_grace_period));
        let mut last = Vec::new();
        for container in observed.containers.iter().filter(|container| container.service == name) {
            last.push(stop_and_remove(&mut plan, container, Removal::Down, timeout, options.volumes, &dependants));
        }
        if last.is_empty() {
            last = dependants;
        }
        removed.insert(name, last);
    }
    let mut all: Vec<usize> = removed.into_values().flatten().collect();
    for container in observed.containers.iter().filter(|container| every(&container.service).is_none()) {
        if options.remove_orphans && options.services.is_empty() {
            all.push(stop_and_remove(
                &mut plan,
                container,
                Removal::Orphan,
                options.stop_timeout,
                options.volumes,
                &[],
            ));
        } else if options.services.is_empty() && !container.one_off {
            plan.orphans.push(container.name.clone());
        }
    }
    if !options.services.is_empty() {
        return Ok(plan);
    }
    let ours = |found: &BTreeMap<String, String>| found.get(labels::PROJECT) == Some(&project.name);
    for network in observed.networks.iter().filter(|network| ours(&network.labels)) {
        plan.push(Step::RemoveNetwork { id: network.id.clone(), name: network.name.clone() }, all.iter().copied());
    }
    if options.volumes {
        for volume in observed.volumes.iter().filter(|volume| ours(&volume.labels)) {
            plan.push(Step::RemoveVolume { name: volume.name.clone() }, all.iter().copied());
        }
    }
    let mut images = BTreeSet::new();
    for service in whole.services.values() {
        let image = service.image_name(&project.name);
        let chosen = match options.rmi {
            RemoveImages::None => false,
            RemoveImages::Local => service.image.is_none(),
            RemoveImages::All => true,
        };
        if chosen && observed.images.contains_key(&image) && images.insert(image.clone()) {
            plan.push(Step::RemoveImage { image }, all.iter().copied());
        }
    }
    Ok(plan)
}

/// The request for a container of `run`: the service with what the command line changed, under a name of its own and
/// without the service's published ports unless `service_ports`.
///
/// # Errors
/// A name that is no service.
pub fn one_off(
    project: &Project,
    service: &str,
    replica: &Replica,
    service_ports: bool,
    change: impl FnOnce(&mut Service),
) -> Result<CreateRequest, PlanError> {
    let selected = project.select(&[service.to_owned()], false)?;
    variables_set(&selected, selected.service(service)?)?;
    let mut changed = selected.service(service)?.clone();
    if !service_ports {
        changed.ports.clear();
    }
    changed.container_name = None;
    changed.restart = None;
    change(&mut changed);
    let replica = Replica { one_off: true, ..replica.clone() };
    let mut request = create_request(project, &changed, &replica);
    if let Some(name) = changed.container_name {
        request.name = name;
    }
    Ok(request)
}

/// The name that `up` gives the `number`th container of a service.
pub fn name_of(project: &Project, service: &Service, number: u32) -> String {
    container_name(project, service, number)
}
