//! `down`: what is stopped and removed, in reverse.

use std::collections::{BTreeMap, BTreeSet};

use bireme_core::nearest::nearest;

use super::error::PlanError;
use super::observed::Observed;
use super::options::{DownOptions, RemoveImages};
use super::step::{Plan, Removal, Step, stop_and_remove};
use crate::ComposeError;
use crate::model::Project;
use crate::request::labels;

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
