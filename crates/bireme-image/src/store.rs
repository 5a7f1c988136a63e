//! The store: where images lie on disk, what names they have, and how they go.
//!
//! ```text
//! ROOT/images.db          names, manifests, configurations; an image is in it whole or not at all
//! ROOT/blobs/sha256/HEX   layers as they were fetched, verified
//! ROOT/layers/sha256/HEX  layers unpacked, by diff ID, in overlayfs's form; shared, never written to
//! ROOT/components/HEX     components taken out of images with a root filesystem
//! ROOT/ingest/            whatever is being made; emptied at every open
//! ```
//!
//! Files come first and are renamed into place, the database row comes last. What a crash leaves between the two is
//! swept at the next open.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use chrono::Utc;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};

use crate::database::Found;
use crate::db::{Db, Garbage, Naming, Record, time};
use crate::digest::{Digest, ImageId};
use crate::error::{ImageError, StoreContext as _};
use crate::model::{Image, ImageSummary};
use crate::platform::Platform;
use crate::reference::Reference;

/// The file by which nothing is swept.
const KEPT: &str = "kept";

/// How registries are spoken to, and what is refused as too large.
#[derive(Clone, Debug, Default)]
pub struct RegistrySettings {
    /// Registries (`host[:port]`) reached over plain HTTP, beside `localhost` and `127.0.0.0/8`.
    pub insecure: Vec<String>,
    /// Mirrors of `docker.io`, asked first and in order: `https://mirror.example`, `http://127.0.0.1:5000`, `host:port`.
    pub mirrors: Vec<String>,
    /// What is refused as too large.
    pub limits: Limits,
}

/// Bounds on what an image may make this machine write.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes one layer may unpack to.
    pub layer_bytes: u64,
    /// How many times its packed size a layer may unpack to, once it is larger than `ratio_floor`.
    pub ratio: u64,
    /// Bytes below which the ratio does not count.
    pub ratio_floor: u64,
    /// Files, folders and links in one layer.
    pub entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { layer_bytes: 128 << 30, ratio: 200, ratio_floor: 1 << 30, entries: 2_000_000 }
    }
}

impl Limits {
    /// The most bytes that `packed` bytes of an archive with many files in it may unpack to.
    pub(crate) fn sent(&self, packed: u64) -> u64 {
        packed.saturating_mul(self.ratio).max(self.ratio_floor)
    }

    /// The most bytes a layer of `packed` bytes may unpack to.
    pub(crate) fn unpacked(&self, packed: u64) -> u64 {
        packed.saturating_mul(self.ratio).max(self.ratio_floor).min(self.layer_bytes)
    }
}

/// What became of one image when names were removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A familiar name.
    Untagged(String),
    /// The ID of an image that is gone.
    Deleted(String),
}

/// All images of one engine. Clones share everything.
#[derive(Clone)]
pub struct ImageStore {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) db: Db,
    pub(crate) settings: RegistrySettings,
    /// Blobs and diff IDs that running work relies on and that no removal may delete.
    pins: Mutex<HashMap<Digest, usize>>,
    /// One unpacking per layer at a time; the others wait for it.
    pub(crate) unpacking: Mutex<HashMap<Digest, Arc<OnceCell<u64>>>>,
    /// Unpacking is bound by processor and disk: as many at once as there are processors.
    pub(crate) unpack_slots: Arc<Semaphore>,
    /// Layers fetched at once from one registry, over all pulls: a slow one holds up nobody else's.
    download_slots: Mutex<HashMap<String, Arc<Semaphore>>>,
    /// Held from the question who uses an image to its end, and while somebody says that he does.
    removing: Mutex<()>,
    /// Layers will be brought to the disk soon.
    pub(crate) syncing: AtomicBool,
}

/// Layers fetched at once from one registry.
const DOWNLOADS: usize = 4;

impl Inner {
    /// The places for downloads from `registry`.
    pub(crate) fn download_slots(&self, registry: &str) -> Arc<Semaphore> {
        let mut known = self.download_slots.lock();
        // Registries of which nothing is fetched now are forgotten.
        known.retain(|name, slots| name == registry || Arc::strong_count(slots) > 1);
        let slots = known.entry(registry.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(DOWNLOADS)));
        Arc::clone(slots)
    }
}

/// Clears away what an earlier run left half-made. A layer may be of millions of folders, which nobody waits for.
fn clear_leftovers(root: &Path, ingest: &Path) {
    const ASIDE: &str = "ingest-left-";
    let aside = root.join(format!("{ASIDE}{}", Utc::now().timestamp_micros()));
    if let Err(error) = std::fs::rename(ingest, &aside)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        // Names in there are never used twice; what cannot be deleted only takes space.
        tracing::warn!(path = %ingest.display(), %error, "cannot move away what an earlier run left half-made");
    }
    let left = std::fs::read_dir(root).into_iter().flatten().flatten();
    let left: Vec<PathBuf> = left
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            name.starts_with(ASIDE.as_bytes()) || name.starts_with(b".tmp")
        })
        .map(|entry| entry.path())
        .collect();
    let clear = move || {
        for path in left {
            let cleared = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            if let Err(error) = cleared {
                tracing::warn!(path = %path.display(), %error, "cannot delete what an earlier run left half-made");
            }
        }
    };
    // Not of the runtime, which waits for its own at its end.
    if let Err(error) = std::thread::Builder::new().name("clearing".to_owned()).spawn(clear) {
        tracing::warn!(%error, "what an earlier run left half-made is deleted at the next start");
    }
}

/// Keeps a blob or layer from being deleted while it lives.
pub(crate) struct Pin {
    inner: Arc<Inner>,
    digest: Digest,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.inner.pins.lock();
        if let Some(count) = pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

impl ImageStore {
    /// Opens the store in `root`, making it if it is not there, and sweeps what a crash may have left.
    ///
    /// Only one engine may have a `root` open at a time.
    ///
    /// # Errors
    /// `Store`, `Database` or `Schema`.
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
            clear_leftovers(&root, &ingest);
            std::fs::create_dir_all(&ingest).during("create", &ingest)?;
            // Layers hold setuid programs of strangers: no user of this machine may reach them but through a container.
            for folder in [&ingest, &root.join("layers")] {
                let closed = std::os::unix::fs::PermissionsExt::from_mode(0o700);
                std::fs::set_permissions(folder, closed).during("set the mode of", folder)?;
            }
            let (db, found) = Db::open(&root.join("images.db"))?;
            let processors = std::thread::available_parallelism().map_or(2, usize::from);
            let inner = Inner {
                root,
                db,
                settings,
                pins: Mutex::default(),
                unpacking: Mutex::default(),
                unpack_slots: Arc::new(Semaphore::new(processors)),
                download_slots: Mutex::default(),
                removing: Mutex::default(),
                syncing: AtomicBool::default(),
            };
            inner.close_to_others();
            let lost = inner.was_rolled_back()? || found != Found::Whole;
            inner.keep_what_a_lost_database_knew(lost)?;
            if !inner.root.join(KEPT).exists() {
                inner.sweep()?;
            }
            if let Err(error) = inner.db.back_up() {
                tracing::warn!(error = &error as &dyn std::error::Error, "no copy of the image database could be made");
            }
            let inner = Arc::new(inner);
            inner.mend_layers();
            Ok(Self { inner })
        })
        .await
    }

    /// Writes a copy of the database, which stands in for it should it be lost. Blocking.
    ///
    /// # Errors
    /// `Open`.
    pub fn back_up(&self) -> Result<(), ImageError> {
        self.inner.db.back_up()
    }

    /// Finds one image by reference, ID, prefix of an ID, or digest.
    ///
    /// With `platform` `None`, a name that has several platforms means Linux on this machine, else `wasi/wasm`, else
    /// whatever it has.
    ///
    /// # Errors
    /// `NotFound`, `NoPlatform`, `Ambiguous`, `Reference`.
    pub async fn resolve(&self, name: &str, platform: Option<&Platform>) -> Result<Image, ImageError> {
        let id = self.inner.find(name, platform)?;
        self.image(&id)
    }

    /// The image of that ID.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn image(&self, id: &ImageId) -> Result<Image, ImageError> {
        let record = self.inner.record(id)?;
        self.inner.image(record)
    }

    /// Does `claim`, by which the `in_use` of [`Self::remove`] comes to know of a user, while no image can go.
    ///
    /// # Errors
    /// `NotFound` where the image has gone already; nothing was done then.
    pub fn claim(&self, id: &ImageId, claim: impl FnOnce()) -> Result<(), ImageError> {
        let _removing = self.inner.removing.lock();
        self.inner.record(id)?;
        claim();
        Ok(())
    }

    /// How many images there are.
    ///
    /// # Errors
    /// `Database`.
    pub fn count(&self) -> Result<usize, ImageError> {
        Ok(self.inner.db.ids()?.len())
    }

    /// All images, the newest first. One that cannot be read costs no other its place.
    ///
    /// # Errors
    /// `Database`.
    pub async fn list(&self) -> Result<Vec<ImageSummary>, ImageError> {
        let inner = self.inner.clone();
        // Each is read whole, and there may be many.
        blocking("list images", move || {
            let mut images = Vec::new();
            for id in inner.db.ids()? {
                let read = inner.db.record(&id).and_then(|found| found.map(|record| inner.image(record)).transpose());
                let image = match read {
                    Ok(Some(image)) => image,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::warn!(image = %id, error = &error as &dyn std::error::Error, "an image cannot be read");
                        continue;
                    }
                };
                images.push(ImageSummary {
                    kind: image.kind(),
                    id: image.id,
                    references: image.references,
                    repo_digests: image.repo_digests,
                    created: image.created,
                    size: image.size,
                    platform: image.platform,
                    labels: image.config.labels,
                });
            }
            images.sort_by(|one, other| other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id)));
            Ok(images)
        })
        .await
    }

    /// Gives `reference` to an image. A name with several platforms is given with all of them.
    ///
    /// # Errors
    /// As [`Self::resolve`]; `BuildRequest` if `reference` has a digest.
    pub async fn tag(&self, image: &str, reference: &Reference) -> Result<(), ImageError> {
        if reference.digest().is_some() {
            return Err(ImageError::BuildRequest {
                reason: "refusing to create a tag with a digest reference".to_owned(),
            });
        }
        reference.check_tag()?;
        let by_name = match Reference::parse(image) {
            Ok(source) => self.inner.db.by_name(&source)?,
            Err(_) => Vec::new(),
        };
        let images = if by_name.is_empty() {
            let id = self.inner.find(image, None)?;
            vec![(self.inner.record(&id)?.platform, id)]
        } else {
            by_name
        };
        let namings: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(at, (platform, image))| Naming { reference, platform, image, digest: None, keep_others: at > 0 })
            .collect();
        self.inner.db.add(&[], &namings)
    }

    /// Removes a name, or by ID an image with all its names; deletes what nothing refers to any more.
    ///
    /// `in_use` answers which workload needs an image, in words such as `running container 1234567890ab`.
    /// An image in use keeps its files: with `force` it loses its name only.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is in use, or has several names and was given by ID, without `force`.
    pub async fn remove(
        &self,
        name: &str,
        force: bool,
        in_use: &(dyn Fn(&ImageId) -> Option<String> + Send + Sync),
    ) -> Result<Vec<Removed>, ImageError> {
        let (removed, garbage) = self.forget(name, force, in_use)?;
        let inner = self.inner.clone();
        blocking("delete the files of an image", move || {
            for rubbish in garbage {
                inner.discard(&rubbish);
            }
            Ok(())
        })
        .await?;
        Ok(removed)
    }

    /// What [`Self::remove`] does of the database alone.
    fn forget(
        &self,
        name: &str,
        force: bool,
        in_use: &(dyn Fn(&ImageId) -> Option<String> + Send + Sync),
    ) -> Result<(Vec<Removed>, Vec<Garbage>), ImageError> {
        let _removing = self.inner.removing.lock();
        let db = &self.inner.db;
        let reference = Reference::parse(name).ok();
        let named = match &reference {
            Some(reference) => db.by_name(reference)?,
            None => Vec::new(),
        };
        let mut removed = Vec::new();
        let mut garbage = Vec::new();
        if let (Some(reference), false) = (&reference, named.is_empty()) {
            for (_, id) in &named {
                let last = self.references_to(id)? <= 1;
                if let (true, false, Some(user)) = (last, force, in_use(id)) {
                    return Err(ImageError::Conflict {
                        reason: format!(
                            "unable to remove repository reference \"{name}\" (must force) - {user} is using its referenced image {}",
                            id.short()
                        ),
                    });
                }
            }
            for (_, id) in &named {
                if reference.digest().is_some() {
                    db.drop_repo_digest(reference, id)?;
                } else {
                    db.untag(reference, id)?;
                }
                let line = Removed::Untagged(reference.familiar());
                if !removed.contains(&line) {
                    removed.push(line);
                }
                // With the last tag of a repository goes what the image is called there by digest.
                let repository = format!("{}/{}", reference.registry(), reference.repository());
                let tagged = |name: &String| name.strip_prefix(&*repository).is_some_and(|rest| rest.starts_with(':'));
                if reference.digest().is_none() && !db.names(id)?.iter().any(|(name, _)| tagged(name)) {
                    for digest in db.repo_digests(id)? {
                        let named = digest.strip_prefix(&*repository).is_some_and(|rest| rest.starts_with('@'));
                        if let (true, Ok(by_digest)) = (named, Reference::parse(&digest)) {
                            db.drop_repo_digest(&by_digest, id)?;
                            removed.push(Removed::Untagged(by_digest.familiar()));
                        }
                    }
                }
                if db.names(id)?.is_empty() && in_use(id).is_none() {
                    self.delete(id, &mut removed, &mut garbage)?;
                }
            }
        } else {
            let id = self.inner.find(name, None)?;
            if let Some(user) = in_use(&id) {
                let how = if force { "cannot be forced" } else { "must be forced" };
                return Err(ImageError::Conflict {
                    reason: format!("unable to delete {} ({how}) - image is being used by {user}", id.short()),
                });
            }
            let names = db.names(&id)?;
            if names.len() > 1 && !force {
                return Err(ImageError::Conflict {
                    reason: format!(
                        "unable to delete {} (must be forced) - image is referenced in multiple repositories",
                        id.short()
                    ),
                });
            }
            for (name, _) in names {
                removed.push(Removed::Untagged(familiar(&name)));
            }
            self.delete(&id, &mut removed, &mut garbage)?;
        }
        Ok((removed, garbage))
    }

    fn references_to(&self, id: &ImageId) -> Result<usize, ImageError> {
        Ok(self.inner.db.names(id)?.len())
    }

    fn delete(&self, id: &ImageId, removed: &mut Vec<Removed>, garbage: &mut Vec<Garbage>) -> Result<(), ImageError> {
        for digest in self.inner.db.repo_digests(id)? {
            removed.push(Removed::Untagged(familiar(&digest)));
        }
        garbage.push(self.inner.db.delete(id)?);
        removed.push(Removed::Deleted(id.to_string()));
        Ok(())
    }
}

impl Inner {
    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// The folder of an unpacked layer.
    pub(crate) fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers/sha256").join(diff_id.hex())
    }

    pub(crate) fn component_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("components").join(format!("{}.wasm", digest.hex()))
    }

    pub(crate) fn record(&self, id: &ImageId) -> Result<Record, ImageError> {
        self.db.record(id)?.ok_or_else(|| ImageError::NotFound { name: id.to_string() })
    }

    /// Keeps `digest` from being deleted until the answer is dropped. Pin first, then look whether the file is there.
    pub(crate) fn pin(self: &Arc<Self>, digest: &Digest) -> Pin {
        let mut pins = self.pins.lock();
        *pins.entry(digest.clone()).or_default() += 1;
        Pin { inner: self.clone(), digest: digest.clone() }
    }

    pub(crate) fn find(&self, name: &str, platform: Option<&Platform>) -> Result<ImageId, ImageError> {
        // Docker names what it looked for in full: `busybox` is `busybox:latest`.
        let absent = || ImageError::NotFound {
            name: Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar()),
        };
        let candidates = self.candidates(name)?;
        if let Some(wanted) = platform {
            let found = candidates.iter().find(|(own, _)| own.serves(wanted));
            return match found {
                Some((_, id)) => Ok(id.clone()),
                None if candidates.is_empty() => Err(absent()),
                None => Err(ImageError::NoPlatform {
                    name: name.to_owned(),
                    wanted: wanted.clone(),
                    offered: offered(candidates.iter().map(|(own, _)| own)),
                }),
            };
        }
        [Platform::host(), Platform::wasm()]
            .iter()
            .find_map(|wanted| candidates.iter().find(|(own, _)| own.serves(wanted)))
            .or(candidates.first())
            .map(|(_, id)| id.clone())
            .ok_or_else(absent)
    }

    fn candidates(&self, name: &str) -> Result<Vec<(Platform, ImageId)>, ImageError> {
        let digits = name.strip_prefix("sha256:").unwrap_or(name);
        let is_hex =
            (1..=64).contains(&digits.len()) && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if !(name.starts_with("sha256:") || is_hex && digits.len() == 64) {
            let reference = match Reference::parse(name) {
                Ok(reference) => reference,
                Err(_) if name.is_empty() => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let found = self.db.by_name(&reference)?;
            if !found.is_empty() || !is_hex {
                return Ok(found);
            }
        }
        if !is_hex {
            return Err(crate::reference::ReferenceError::Format.into());
        }
        let found = self.db.by_prefix(digits)?;
        if found.len() > 1 {
            return Err(ImageError::Ambiguous { prefix: name.to_owned() });
        }
        Ok(found)
    }

    pub(crate) fn image(&self, record: Record) -> Result<Image, ImageError> {
        let config = record.config_file()?;
        let names = self.db.names(&record.id)?;
        let mut layer_sizes = Vec::with_capacity(record.layers.len());
        for layer in &record.layers {
            layer_sizes.push(self.db.unpacked(&layer.diff_id)?.unwrap_or(layer.blob.size));
        }
        Ok(Image {
            last_tagged: names.iter().map(|(_, tagged)| *tagged).max().and_then(time),
            references: names.iter().map(|(name, _)| familiar(name)).collect(),
            repo_digests: self.db.repo_digests(&record.id)?.iter().map(|name| familiar(name)).collect(),
            created: config.created,
            size: layer_sizes.iter().sum(),
            platform: record.platform,
            config: config.config,
            author: config.author,
            comment: config.comment,
            history: config.history,
            layer_sizes,
            diff_ids: record.layers.into_iter().map(|layer| layer.diff_id).collect(),
            artifact_type: record.artifact_type,
            id: record.id,
        })
    }

    /// Deletes files that nothing refers to. What another task has pinned or recorded meanwhile stays; what cannot be
    /// deleted is swept at the next open.
    pub(crate) fn discard(&self, garbage: &Garbage) {
        // Held throughout, so that nobody finds a file and then loses it.
        let pins = self.pins.lock();
        let mut doomed = Vec::new();
        for digest in &garbage.blobs {
            if !pins.contains_key(digest) && matches!(self.db.uses_blob(digest), Ok(false)) {
                let path = self.blob_path(digest);
                if let Err(error) = std::fs::remove_file(&path)
                    && error.kind() != std::io::ErrorKind::NotFound
                {
                    tracing::warn!(path = %path.display(), %error, "cannot delete a layer that is no longer used");
                }
            }
        }
        for digest in &garbage.diff_ids {
            if !pins.contains_key(digest) && matches!(self.db.uses_diff_id(digest), Ok(false)) {
                // Renamed first: a folder half deleted must never be found under its name. A row without its folder is
                // no unpacked layer, and the next open removes it.
                let doom = self.ingest().join(format!("gone-{}", digest.hex()));
                if std::fs::rename(self.layer_path(digest), &doom).is_ok() {
                    doomed.push(doom);
                }
                if let Err(error) = self.db.forget_unpacked(digest) {
                    tracing::warn!(%digest, %error, "cannot forget an unpacked layer that is no longer used");
                }
            }
        }
        for digest in &garbage.components {
            let _ = std::fs::remove_file(self.component_path(digest));
        }
        drop(pins);
        for path in doomed {
            if let Err(error) = std::fs::remove_dir_all(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot delete an unpacked layer that is no longer used");
            }
        }
    }

    /// Files that an older version left open to all users of the machine.
    fn close_to_others(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        let open = |path: &Path| std::fs::metadata(path).is_ok_and(|about| about.permissions().mode() & 0o077 != 0);
        for folder in ["blobs", "blobs/sha256", "components"] {
            let _ = std::fs::set_permissions(self.root.join(folder), std::fs::Permissions::from_mode(0o700));
        }
        for folder in ["blobs/sha256", "components"] {
            let files = std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten();
            for path in files.map(|file| file.path()).filter(|path| open(path)) {
                if let Err(error) = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)) {
                    tracing::warn!(path = %path.display(), %error, "a file of the image store cannot be closed to others");
                }
            }
        }
    }

    /// Where the database was lost, layers that it knew nothing of may be in use by containers: they are kept, now and at
    /// later starts, until somebody removes the mark.
    fn keep_what_a_lost_database_knew(&self, lost: bool) -> Result<(), ImageError> {
        let layers: Vec<_> =
            std::fs::read_dir(self.root.join("layers/sha256")).into_iter().flatten().flatten().collect();
        let blobs = std::fs::read_dir(self.root.join("blobs/sha256")).into_iter().flatten().next();
        if !lost || (layers.is_empty() && blobs.is_none()) {
            return Ok(());
        }
        let mark = self.root.join(KEPT);
        let text = "The image database was lost, or is older than it was, and layers are kept that it may not know. Remove this file to have those \
                    removed that no image has, when the engine starts next.\n";
        std::fs::write(&mark, text).during("write", &mark)?;
        tracing::warn!(mark = %mark.display(), "the image database was lost, or is older than it was: layers are kept that it may not know");
        for layer in layers {
            let digest = layer.file_name().to_str().and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            if let Some(digest) = digest {
                self.db.adopt_unpacked(&digest)?;
            }
        }
        Ok(())
    }

    /// Makes files and database agree after a crash: files without a row go, rows without a file go.
    fn sweep(&self) -> Result<(), ImageError> {
        let known = self.db.referenced()?;
        let blobs: std::collections::HashSet<&str> = known.blobs.iter().map(Digest::hex).collect();
        let layers: std::collections::HashSet<&str> = known.diff_ids.iter().map(Digest::hex).collect();
        let components: std::collections::HashSet<String> =
            known.components.iter().map(|digest| format!("{}.wasm", digest.hex())).collect();
        let sweep = |folder: &str, keep: &dyn Fn(&str) -> bool| -> Result<(), ImageError> {
            let folder = self.root.join(folder);
            for entry in std::fs::read_dir(&folder).during("list", &folder)? {
                let entry = entry.during("list", &folder)?;
                if entry.file_name().to_str().is_some_and(keep) {
                    continue;
                }
                let path = entry.path();
                let gone = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                if let Err(error) = gone {
                    tracing::warn!(path = %path.display(), %error, "what no image has any more cannot be deleted");
                }
            }
            Ok(())
        };
        sweep("blobs/sha256", &|name| blobs.contains(name))?;
        sweep("layers/sha256", &|name| layers.contains(name))?;
        sweep("components", &|name| components.contains(name))?;
        // On a full disk the engine starts all the same: what is not forgotten now is at the next open.
        let lost = known.diff_ids.iter().filter(|diff_id| !self.layer_path(diff_id).is_dir());
        let forgotten =
            self.db.forget_unused().and_then(|()| lost.into_iter().try_for_each(|one| self.db.forget_unpacked(one)));
        if let Err(error) = forgotten {
            tracing::warn!(error = &error as &dyn std::error::Error, "what is no longer unpacked cannot be forgotten");
        }
        Ok(())
    }
}

/// A complete name in the form Docker shows.
pub(crate) fn familiar(name: &str) -> String {
    Reference::parse(name).map_or_else(|_| name.to_owned(), |reference| reference.familiar())
}

/// Platforms as a list for a sentence.
pub(crate) fn offered<'a>(platforms: impl Iterator<Item = &'a Platform>) -> String {
    let mut seen = BTreeMap::new();
    for platform in platforms {
        seen.insert(platform.to_string(), ());
    }
    if seen.is_empty() { "none".to_owned() } else { seen.into_keys().collect::<Vec<_>>().join(", ") }
}

/// Runs blocking work off the runtime's own threads.
pub(crate) async fn blocking<T: Send + 'static>(
    attempt: &'static str,
    act: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    match tokio::task::spawn_blocking(act).await {
        Ok(answer) => answer,
        Err(source) => match source.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(source) => Err(ImageError::Task { attempt, source }),
        },
    }
}
