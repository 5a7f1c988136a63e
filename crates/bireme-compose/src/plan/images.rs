//! The first stride of `up`: which images are pulled, and which are built.

use std::collections::BTreeSet;

use super::error::PlanError;
use super::observed::Observed;
use super::options::{BuildPolicy, PullPolicy, UpOptions};
use super::platform::{built, image_of, platforms};
use super::step::{Plan, Step};
use crate::model::Project;

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
        let present = image_of(observed, service, &image).is_some();
        if let Some(file) = project.components.get(name) {
            if !present && seen.insert((image.clone(), (None, None), None)) {
                plan.push(Step::Load { service: name.clone(), image, file: file.clone() }, []);
            }
            continue;
        }
        // One that is preferred, but need not be.
        let mut wanted = platforms(service);
        let prefers = (wanted.len() > 1).then(|| wanted.remove(0)).flatten();
        let platform = service.platform.clone().or_else(|| wanted.pop().flatten());
        let step_platform = (prefers.clone(), platform.clone());
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
            Some(build) if build_now => Step::Build {
                service: name.clone(),
                image: image.clone(),
                platform: built(service, build, platform),
                build: Box::new(build.clone()),
            },
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
                _ => Step::Pull { service: name.clone(), image: image.clone(), platform, prefers, required: !present },
            },
        };
        let of = (image, step_platform, service.build.clone().map(|build| build.context));
        if seen.insert(of) {
            plan.push(step, []);
        }
    }
    Ok(plan)
}
