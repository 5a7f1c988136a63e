//! Opening the store: what is on the disk and what the database knows are made to agree.

use std::path::Path;
use std::sync::Arc;

use crate::apart::place_apart;
use crate::blocking::blocking;
use crate::database::Found;
use crate::db::Db;
use crate::error::{ImageError, StoreContext as _};
use crate::settings::RegistrySettings;
use crate::store::{ImageStore, Inner, sweep};
use crate::{generation, mend};

impl ImageStore {
    /// Opens the store in `root`, making it if it is not there, and sweeps what a crash may have left.
    ///
    /// Only one engine may have a `root` open at a time.
    ///
    /// # Errors
    /// `Store`, `NoSpace`, `Database`, `Open` or `Schema`.
    /// # Cancel safety
    /// Dropping the future does not end the work: the folder counts as open until that is done.
    pub async fn open(root: &Path, settings: RegistrySettings) -> Result<Self, ImageError> {
        // There is one TLS stack in this program, and its provider is chosen here; a second choice is the same one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root = root.to_owned();
        blocking("open the image store", move || {
            for folder in ["blobs/sha256", "layers/sha256", "components"] {
                let path = root.join(folder);
                std::fs::create_dir_all(&path).during("create", &path)?;
            }
            let ingest = root.join("ingest");
            sweep::clear_leftovers(&root, &ingest);
            std::fs::create_dir_all(&ingest).during("create", &ingest)?;
            place_apart(&ingest);
            // Layers hold setuid programs of strangers: no user of this machine may reach them but through a container.
            for folder in [&ingest, &root.join("layers")] {
                let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                std::fs::set_permissions(folder, closed).during("set the mode of", folder)?;
            }
            let (db, found) = Db::open(&root.join("images.db"))?;
            let inner = Inner::new(&root, db, settings);
            sweep::close_to_others(&inner);
            let lost = generation::was_rolled_back(&inner)? || found != Found::Whole;
            sweep::keep_what_a_lost_database_knew(&inner, lost)?;
            sweep::sweep(&inner)?;
            if let Err(error) = inner.sweep_folders() {
                tracing::warn!(error = &error as &dyn std::error::Error, "folders of builds cannot be looked through");
            }
            if let Err(error) = inner.db.back_up() {
                tracing::warn!(error = &error as &dyn std::error::Error, "no copy of the image database could be made");
            }
            let inner = Arc::new(inner);
            mend::layers(&inner);
            Ok(Self { inner })
        })
        .await
    }
}
