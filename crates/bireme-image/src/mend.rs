//! Unpacking layers anew that a power cut may have left without their content.

use std::sync::Arc;

use crate::boot::boot;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::store::Inner;
use crate::wanted::Wanted;
use crate::{durable, layers};

/// Unpacks those layers anew that an earlier boot of the machine may have left without their content. Those where that
/// fails stay noted: they count as not unpacked, and the next start tries again. Blocking.
pub(crate) fn layers(inner: &Arc<Inner>) {
    let noted = match inner.db.unsynced() {
        Ok(noted) => noted,
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "it is not known which layers a power cut may have damaged"
            );
            return;
        }
    };
    for (diff_id, of) in noted {
        if of == boot() {
            continue;
        }
        if let Err(error) = layer(inner, &diff_id, of) {
            tracing::error!(
                layer = %diff_id,
                error = &error as &dyn std::error::Error,
                "a layer may be damaged and could not be unpacked anew: make room, or pull or load its images again, \
                 and start the engine again"
            );
        }
    }
    durable::sync_layers_later(inner);
}

fn layer(inner: &Arc<Inner>, diff_id: &Digest, of: String) -> Result<(), ImageError> {
    let Some(layer) = inner.db.layer_of(diff_id)? else {
        // Nobody has it any more.
        inner.db.forget_unpacked(diff_id)?;
        return inner.db.synced(&[(diff_id.clone(), of)]);
    };
    tracing::warn!(layer = %diff_id, "the machine went down before a layer was on its disk: it is unpacked anew");
    layers::unpack_blocking(inner, &layer, &Wanted::default()).map(drop)
}
