//! The container of `run`, which `up` neither counts nor renews.

use super::error::PlanError;
use super::variables::variables_set;
use crate::model::{Project, Service};
use crate::request::{CreateRequest, Replica, create_request};

/// The request for a container of `run`: the service with what the command line changed, under a name of its own and
/// without the service's published ports unless `service_ports`.
///
/// # Errors
/// A name that is no service; a secret or config whose variable is not set.
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
