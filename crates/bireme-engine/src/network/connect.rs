//! A workload is put on one more network, or taken off one, on request: at once where it runs, otherwise for its next start.

use std::sync::Arc;

use bireme_core::SandboxId;
use bireme_core::spec::NetworkMode;

use super::names::{finds_names, named_networks};
use super::ports::ingress_endpoint;
use super::{Networks, Sandbox};
use crate::EngineError;
use crate::container::{Handle, MutableState};
use crate::refusal::NetworkRefusal;
use crate::request::EndpointRequest;
use crate::view::{Endpoint, Network};

use super::endpoint::endpoint;

impl Networks {
    pub(crate) async fn connect_endpoint(
        &self,
        handle: &Arc<Handle>,
        name: &str,
        mutable: &mut MutableState,
        network: &Network,
        request: EndpointRequest,
        alive: bool,
    ) -> Result<(), EngineError> {
        if handle.config.spec.namespaces.network == NetworkMode::None {
            return Err(NetworkRefusal::NoneMode.into());
        }
        if handle.config.spec.namespaces.network != NetworkMode::Attached {
            return Err(NetworkRefusal::SharedNamespace.into());
        }
        if network.driver != "bridge" {
            return Err(NetworkRefusal::ModeOnly { network: network.name.clone() }.into());
        }
        if mutable.endpoints.iter().any(|endpoint| endpoint.network == network.id) {
            return Err(
                NetworkRefusal::AlreadyConnected { name: name.to_owned(), network: network.name.clone() }.into()
            );
        }
        self.check_static(network, &request)?;
        let mut new = endpoint(network, request);
        if alive {
            let id = handle.executor.sandbox(&handle.config.spec);
            let entry = self.sandbox(&id);
            let mut sandbox = entry.lock().await;
            let attached = async {
                self.attach_endpoint(handle, name, &id, &mut sandbox, &mut new).await?;
                if finds_names(std::slice::from_ref(&new)) {
                    self.services.net().serve_inside(&id).await?;
                }
                Ok(())
            };
            if let Err(error) = attached.await {
                self.leave(handle, &id, &mut sandbox, &mut new, mutable).await;
                return Err(error);
            }
            // One that lost its last way in gets its ports again with the next.
            let published = !handle.config.publish.is_empty() || handle.config.publish_all;
            let unreached = mutable.ports.is_empty() && ingress_endpoint(self, &mutable.endpoints).is_none();
            if published
                && unreached
                && !handle.executor.takes_listeners()
                && ingress_endpoint(self, &[new.clone()]).is_some()
            {
                mutable.endpoints.push(new);
                let opened = self.open_ports(handle, mutable).await;
                if let Err(error) = opened {
                    mutable.ports.clear();
                    if let Some(mut new) = mutable.endpoints.pop() {
                        self.leave(handle, &id, &mut sandbox, &mut new, mutable).await;
                    }
                    return Err(error);
                }
            } else {
                mutable.endpoints.push(new);
            }
        } else {
            mutable.endpoints.push(new);
        }
        handle.publish(name, mutable);
        self.names_changed(handle.id(), &mutable.endpoints).await;
        self.tell_networks(handle, &mutable.endpoints).await;
        Ok(())
    }

    /// Undoes what was begun of putting a workload that runs on one more network.
    pub(super) async fn leave(
        &self,
        handle: &Handle,
        id: &SandboxId,
        sandbox: &mut Sandbox,
        new: &mut Endpoint,
        mutable: &MutableState,
    ) {
        let detached = self.detach_endpoint(handle, id, new).await;
        if let Err(error) = detached.and(self.lead_out(id, sandbox, &mutable.endpoints).await) {
            tracing::warn!(
                workload.id = handle.id(),
                network = new.network_name,
                error = &error as &dyn std::error::Error,
                "what was begun of a network could not be undone"
            );
        }
    }

    /// Tells a workload that runs on which networks it finds names now.
    pub(super) async fn tell_networks(&self, handle: &Handle, endpoints: &[Endpoint]) {
        if let Some(workload) = handle.workload() {
            // Who is about to be ended need not know them.
            let _ = handle.unless_hurried(workload.networks_changed(named_networks(endpoints))).await;
        }
    }

    pub(crate) async fn disconnect_endpoint(
        &self,
        handle: &Arc<Handle>,
        mutable: &mut MutableState,
        network: &str,
    ) -> Result<(), EngineError> {
        let at = mutable.endpoints.iter().position(|endpoint| endpoint.network == network).ok_or_else(|| {
            let name = self.get(network).map_or_else(|_| network.to_owned(), |found| found.name);
            NetworkRefusal::NotConnected { id: handle.id().to_owned(), network: name }
        })?;
        let reached_by = ingress_endpoint(self, &mutable.endpoints).map(|endpoint| endpoint.network.clone());
        let loses_ports = !mutable.ports.is_empty() && reached_by.as_deref() == Some(network);
        if loses_ports && handle.executor.takes_listeners() {
            self.stays_served(handle, &mutable.endpoints, at)?;
        }
        // Before its address is anybody else's. What cannot be taken back keeps it.
        let ports = if loses_ports && !handle.executor.takes_listeners() {
            self.services.net().unpublish(handle.id()).await?;
            std::mem::take(&mut mutable.ports)
        } else {
            Vec::new()
        };
        let mut old = mutable.endpoints.remove(at);
        let id = handle.executor.sandbox(&handle.config.spec);
        let entry = self.sandbox(&id);
        let mut sandbox = entry.lock().await;
        let result = self.detach_endpoint(handle, &id, &mut old).await;
        let led = self.lead_out(&id, &mut sandbox, &mutable.endpoints).await;
        drop(sandbox);
        self.publish_again(handle, &ports, mutable).await;
        let result = result.and(led);
        let name = handle.view().name.clone();
        handle.publish(&name, mutable);
        self.names_changed(handle.id(), std::slice::from_ref(&old)).await;
        self.tell_networks(handle, &mutable.endpoints).await;
        result
    }
}
