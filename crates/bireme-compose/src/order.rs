//! Which services, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use bireme_core::nearest::nearest;

use crate::{ComposeError, Project, Service};

impl Project {
    /// The service called `name`.
    ///
    /// # Errors
    /// [`ComposeError::NoSuchService`] with the nearest name.
    pub fn service(&self, name: &str) -> Result<&Service, ComposeError> {
        self.services.get(name).ok_or_else(|| ComposeError::NoSuchService {
            name: name.to_owned(),
            nearest: nearest(name, self.services.keys().map(String::as_str)).map(str::to_owned),
        })
    }

    /// A copy with `services` alone and, if asked, everything they depend on; all services when none is named. A named
    /// service that its profile keeps inactive is brought in, as are the inactive ones it needs.
    ///
    /// # Errors
    /// A name that is no service.
    pub fn select(&self, services: &[String], with_dependencies: bool) -> Result<Self, ComposeError> {
        if services.is_empty() {
            return Ok(self.clone());
        }
        let mut wanted: BTreeSet<&str> = BTreeSet::new();
        let mut open: Vec<&str> = services.iter().map(String::as_str).collect();
        while let Some(name) = open.pop() {
            let service = match self.disabled.get(name) {
                Some(service) => service,
                None => self.service(name)?,
            };
            if wanted.insert(name) && with_dependencies {
                // An inactive service that is not required stays so.
                let wanted = |name: &String, required: bool| required || self.services.contains_key(name);
                open.extend(
                    service
                        .depends_on
                        .iter()
                        .filter(|(name, on)| wanted(name, on.required))
                        .map(|(name, _)| name.as_str()),
                );
            }
        }
        let mut selected = self.clone();
        for (name, service) in &self.disabled {
            if wanted.contains(name.as_str()) {
                selected.services.insert(name.clone(), service.clone());
                selected.disabled.remove(name);
            }
        }
        selected.services.retain(|name, _| wanted.contains(name.as_str()));
        Ok(selected)
    }

    /// The services that are restarted when `restarted` were, in order: those that depend on one of them with
    /// `restart: true`, as whoever shares its namespaces does, and those that depend on these.
    ///
    /// # Errors
    /// As [`Self::service_order`].
    pub fn restart_after(&self, restarted: &BTreeSet<String>) -> Result<Vec<String>, ComposeError> {
        let mut reached = restarted.clone();
        let mut after = Vec::new();
        for name in self.service_order()?.into_iter().flatten() {
            let Some(service) = self.services.get(&name).filter(|_| !restarted.contains(&name)) else { continue };
            if service.depends_on.iter().any(|(other, on)| on.restart && reached.contains(other)) {
                reached.insert(name.clone());
                after.push(name);
            }
        }
        Ok(after)
    }

    /// The services in levels: each level needs only the levels before it, and its members may start at the same time.
    ///
    /// # Errors
    /// [`ComposeError::Cycle`] naming the circle.
    pub fn service_order(&self) -> Result<Vec<Vec<String>>, ComposeError> {
        let mut waiting: BTreeMap<&str, BTreeSet<&str>> = self
            .services
            .iter()
            .map(|(name, service)| {
                let needs = service
                    .depends_on
                    .keys()
                    .map(String::as_str)
                    .filter(|need| self.services.contains_key(*need))
                    .collect();
                (name.as_str(), needs)
            })
            .collect();
        let mut levels = Vec::new();
        while !waiting.is_empty() {
            let level: Vec<&str> =
                waiting.iter().filter(|(_, needs)| needs.is_empty()).map(|(name, _)| *name).collect();
            if level.is_empty() {
                return Err(ComposeError::Cycle(circle(&waiting)));
            }
            waiting.retain(|name, _| !level.contains(name));
            for needs in waiting.values_mut() {
                needs.retain(|need| !level.contains(need));
            }
            levels.push(level.into_iter().map(str::to_owned).collect());
        }
        Ok(levels)
    }
}

/// Follows first needs until a name comes twice; every name left waiting has at least one.
fn circle(waiting: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let mut path: Vec<&str> = Vec::new();
    let mut at = waiting.keys().next().copied();
    while let Some(name) = at {
        if let Some(start) = path.iter().position(|seen| *seen == name) {
            path.drain(..start);
            path.push(name);
            break;
        }
        path.push(name);
        at = waiting.get(name).and_then(|needs| needs.iter().next()).copied();
    }
    path.into_iter().map(str::to_owned).collect()
}
