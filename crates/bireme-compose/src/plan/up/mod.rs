//! The second stride of `up`: networks and volumes ([`ground`]), then the containers of each service in the order of
//! their dependencies.

mod ground;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::error::PlanError;
use super::observed::{ContainerState, Observed, ObservedContainer};
use super::options::UpOptions;
use super::platform::image_of;
use super::step::{ContainerRef, Plan, Removal, Step, stop_and_remove};
use super::variables::variables_set;
use crate::model::{Condition, Healthcheck, Project, Service};
use crate::request::{Replica, config_hash, container_name, create_request};

/// The second stride of `up`: networks, volumes and containers. `observed` must have been read after
/// [`images`](super::images()) was carried out.
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
            let condition = if service.healthcheck.as_ref().is_some_and(Healthcheck::is_on) {
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

    fn stop_and_remove(
        &mut self,
        container: &ObservedContainer,
        reason: Removal,
        timeout: Option<Duration>,
        after: &[usize],
    ) -> usize {
        stop_and_remove(&mut self.plan, container, reason, timeout, false, after)
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
        let image_id = image_of(self.observed, service, &image).cloned();
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
