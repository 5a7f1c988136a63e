//! Whether the variables are set from which secrets and configs take their content.

use super::error::PlanError;
use crate::model::{Project, Service};

/// A secret or config from a variable that is not set would silently be missing.
pub(super) fn variables_set(project: &Project, service: &Service) -> Result<(), PlanError> {
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
