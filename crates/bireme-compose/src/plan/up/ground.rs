//! What stands before the first container: the orphans gone, the networks and volumes there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::Builder;
use crate::model::{MountKind, Project};
use crate::plan::error::PlanError;
use crate::plan::step::{Removal, Step};
use crate::request::{labels, network_request, volume_request};

impl Builder<'_> {
    /// Containers whose service the file has not: removed, or named as orphans.
    pub(super) fn orphans(&mut self, whole: &Project) -> Vec<usize> {
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

    /// Networks and volumes.
    pub(super) fn ground(&mut self, orphans: Vec<usize>) -> Result<Vec<usize>, PlanError> {
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
            .filter(|mount| mount.kind == MountKind::Volume)
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
}

/// Whether the file says something else than when the network or volume was made; one without a fingerprint of ours
/// (made by another program) is taken as it is.
fn changed(found: &BTreeMap<String, String>, wanted: Option<&HashMap<String, String>>) -> bool {
    match (found.get(labels::FINGERPRINT), wanted.and_then(|wanted| wanted.get(labels::FINGERPRINT))) {
        (Some(found), Some(wanted)) => found != wanted,
        _ => false,
    }
}

fn ours(kind: &'static str, name: &str, found: &BTreeMap<String, String>, project: &str) -> Result<(), PlanError> {
    let owner = match found.get(labels::PROJECT) {
        Some(owner) if owner == project => return Ok(()),
        Some(owner) => format!("project {owner}"),
        None => "no project".to_owned(),
    };
    Err(PlanError::NotOurs { kind, name: name.to_owned(), owner })
}
