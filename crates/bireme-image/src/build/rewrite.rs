//! Layers whose files are given no later time than the build's own, so that the same inputs make the same bytes.
//!
//! Source: docs.docker.com/build/ci/github-actions/reproducible-builds, `rewrite-timestamp`; BuildKit,
//! `util/converter/tarconverter`.

use std::io::{self, Read, Write};

use tar::EntryType;

use super::stage::Stage;
use crate::error::{ImageError, StoreContext as _};
use crate::guard::GcGuard;
use crate::made;
use crate::record::Layer;
use crate::store::ImageStore;
use crate::wanted::while_wanted;

/// Gives all files of the layers that were made here no later time than `epoch`, in seconds. Those of other people stay as
/// they are.
pub(super) async fn clamp(store: &ImageStore, stage: &mut Stage, epoch: u64) -> Result<GcGuard, ImageError> {
    let mut claim = GcGuard::new(&store.inner);
    for at in 0..stage.layers.len() {
        let layer = &stage.layers[at];
        // What came packed is other people's.
        if layer.blob.digest != layer.diff_id {
            continue;
        }
        let (inner, layer) = (store.inner.clone(), layer.clone());
        let new = while_wanted("give the files of a layer another time", move |wanted| {
            let path = inner.blob_path(&layer.blob.digest);
            let from = std::fs::File::open(&path).during("open the layer", &path)?;
            made::layer(&inner, wanted, |out| {
                rewrite(io::BufReader::new(from), out, epoch).map_err(|source| ImageError::Pack { source })
            })
        })
        .await?;
        let layer: Layer = store.import(new, &mut claim).await?;
        stage.config.rootfs.diff_ids[at] = layer.diff_id.clone();
        stage.layers[at] = layer;
    }
    Ok(claim)
}

/// Copies an archive, entry by entry, as it is but for the times.
fn rewrite(from: impl Read, out: &mut dyn Write, epoch: u64) -> io::Result<()> {
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        let mut header = entry.header().clone();
        let extends = matches!(
            header.entry_type(),
            EntryType::XHeader | EntryType::XGlobalHeader | EntryType::GNULongName | EntryType::GNULongLink
        );
        if !extends && header.mtime().is_ok_and(|time| time > epoch) {
            header.set_mtime(epoch);
            header.set_cksum();
        }
        out.write_all(header.as_bytes())?;
        let size = io::copy(&mut entry, out)?;
        let padding = (512 - size % 512) % 512;
        out.write_all(&[0; 512][..usize::try_from(padding).unwrap_or(0)])?;
    }
    out.write_all(&[0; 1024])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_that_are_later_change() {
        let archive = |times: [u64; 3]| {
            let mut tar = tar::Builder::new(Vec::new());
            tar.append_pax_extensions([("SCHILY.xattr.user.a", b"b".as_slice())]).unwrap();
            for (name, time) in [("early", times[0]), ("late", times[1])] {
                let mut header = tar::Header::new_gnu();
                header.set_size(3);
                header.set_mode(0o4755);
                header.set_mtime(time);
                tar.append_data(&mut header, name, b"abc".as_slice()).unwrap();
            }
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(EntryType::Directory);
            header.set_size(0);
            header.set_mtime(times[2]);
            tar.append_data(&mut header, "n/".repeat(100), io::empty()).unwrap();
            tar.into_inner().unwrap()
        };
        let mut out = Vec::new();
        rewrite(archive([5, 100, 70]).as_slice(), &mut out, 50).unwrap();
        assert!(out == archive([5, 50, 50]), "all but the times is as it was");
    }
}
