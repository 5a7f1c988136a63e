//! Removes a workload for good: its record, its folders, its names, and its own volumes where that is asked for.

use std::sync::Arc;
use std::time::Instant;

use bireme_core::{SandboxId, WorkloadId};
use bireme_sys::removal;

use crate::EngineError;
use crate::container::{Handle, MutableState};
use crate::dirs::{CLEARED_WITHIN, set_aside};
use crate::parts::Parts;
use crate::unreadable::Unreadable;

/// Forgets a workload and removes everything of it: folders, record, and its anonymous volumes where asked.
pub(crate) async fn purge(parts: &Parts, handle: &Arc<Handle>, volumes: bool) -> Result<(), EngineError> {
    let dirs = parts.services.dirs(&handle.config.spec.id);
    let view = handle.view();
    let aside = parts.services.set_aside_at(handle.id());
    // Out of the way first and at once: what is half removed is never taken for whole, and the next start goes on.
    // Then what takes space, so that a full disk has room to remember in; the mark of it goes last.
    let (run, state, mark) = (dirs.run, dirs.state, aside.clone());
    let removal = tokio::task::spawn_blocking(move || {
        set_aside(&state, &aside)?;
        removal::remove_tree(&run).map_err(|source| EngineError::File { path: run, source })?;
        removal::empty_tree_until(&aside, Instant::now() + CLEARED_WITHIN)
            .map_err(|source| EngineError::File { path: aside, source })
    });
    let emptied = removal.await.map_err(|_| EngineError::Stopping)??;
    if parts.services.store.delete_workload(handle.id()).await {
        parts.services.end_removal(mark, emptied);
    }
    parts.services.registry.remove(handle.id());
    parts.execs.forget(handle.id());
    if volumes {
        for point in view.config.mounts.iter().filter(|point| point.anonymous) {
            if let Err(error) = parts.volumes.remove(&point.name, true).await {
                tracing::debug!(volume = point.name, %error, "an anonymous volume stays");
            }
        }
    }
    Ok(())
}

/// Ends and forgets a workload that nothing is known of but its ID. Its volumes stay.
pub(crate) async fn remove_unreadable(parts: &Parts, one: &Unreadable) -> Result<(), EngineError> {
    let services = &parts.services;
    let Ok(id) = WorkloadId::parse(&one.id) else {
        // Nothing can have such an ID: only the row is there.
        services.store.delete_workload(&one.id).await;
        services.registry.release_name(&one.name, &one.id);
        services.registry.unreadable().remove(&one.id);
        return Ok(());
    };
    for executor in &services.options.executors {
        executor.end(&id).await?;
    }
    let dirs = services.dirs(&id);
    let aside = services.set_aside_at(id.as_str());
    let (mark, state) = (aside.clone(), dirs.state);
    tokio::task::spawn_blocking(move || set_aside(&state, &aside)).await.map_err(|_| EngineError::Stopping)??;
    services.clear_later(dirs.run);
    if services.store.delete_workload(id.as_str()).await {
        services.clear_later(mark);
    }
    services.registry.release_name(&one.name, id.as_str());
    services.registry.unreadable().remove(id.as_str());
    parts.networks.detach_unreadable(&id, &mut MutableState::as_far_as_it_goes(&one.mutable)).await;
    if let Err(error) = services.net().remove_sandbox(&SandboxId::from(&id)).await {
        tracing::debug!(workload.id = id.as_str(), %error, "a sandbox that nothing was known of stays");
    }
    Ok(())
}
