//! Named and anonymous volumes: folders under the data root.
//!
//! ```text
//! <data_root>/volumes/<name>/_data
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bireme_core::WorkloadId;
use bireme_core::clock::now_nanos;
use bireme_sys::removal;
use parking_lot::{Mutex, MutexGuard};

use crate::container::Handle;
use crate::event::Event;
use crate::refusal::{ContainerRefusal, OptionFault, VolumeRefusal};
use crate::request::CreateVolume;
use crate::services::Services;
use crate::state_store::Unread;
use crate::view::{MountKind, Volume};
use crate::{EngineError, dirs, error, names, rootfs, size, volume_source};

/// The label of volumes that were made without a name.
const ANONYMOUS: &str = "com.docker.volume.anonymous";

/// The volumes that exist, by name.
pub(crate) struct Volumes {
    services: Arc<Services>,
    list: Mutex<BTreeMap<String, Volume>>,
    /// Names of those whose records cannot be read.
    unreadable: Mutex<BTreeSet<String>>,
    /// The workloads for which a volume that is a mount is mounted, by its name.
    mounted: Arc<Mounted>,
    /// Held while one is made or removed, so that two requests for one name are one after the other.
    making: tokio::sync::Mutex<()>,
}

/// By the name of a volume, the workloads for which it is mounted. What is there of one volume is held while that one is
/// mounted or unmounted, which may take as long as its server likes.
#[derive(Default)]
struct Mounted(Mutex<HashMap<String, Arc<Mutex<HashSet<String>>>>>);

impl Mounted {
    fn users(&self, volume: &str) -> Arc<Mutex<HashSet<String>>> {
        let mut all = self.0.lock();
        if !all.contains_key(volume) {
            // What somebody has in hand, or uses, stays.
            all.retain(|_, users| {
                Arc::strong_count(users) > 1 || users.try_lock().is_none_or(|users| !users.is_empty())
            });
        }
        all.entry(volume.to_owned()).or_default().clone()
    }
}

fn no_volume(name: &str) -> EngineError {
    VolumeRefusal::NotFound { name: name.to_owned() }.into()
}

impl Volumes {
    /// # Errors
    /// `Conflict` for one whose record cannot be read: it may be a mount of another disk.
    fn check_readable(&self, name: &str) -> Result<(), EngineError> {
        if !self.unreadable.lock().contains(name) {
            return Ok(());
        }
        Err(VolumeRefusal::Unreadable { name: name.to_owned() }.into())
    }

    /// `unread` are those whose records cannot be read: what they are is not known, only that they are.
    pub(crate) fn new(services: Arc<Services>, (volumes, unread): (Vec<Volume>, Vec<Unread>)) -> Self {
        Self {
            services,
            unreadable: Mutex::new(unread.into_iter().map(|one| one.name).collect()),
            list: Mutex::new(volumes.into_iter().map(|volume| (volume.name.clone(), volume)).collect()),
            mounted: Arc::default(),
            making: tokio::sync::Mutex::default(),
        }
    }

    fn list(&self) -> MutexGuard<'_, BTreeMap<String, Volume>> {
        self.list.lock()
    }
}

/// Makes a volume's folder, closed to all others, and the one for its data in it. Answers whether nothing was there.
fn make_folders(mountpoint: &Path) -> std::io::Result<bool> {
    let folder = mountpoint.parent().unwrap_or(mountpoint);
    let mut new = true;
    for (path, mode) in [(folder, 0o700), (mountpoint, 0o755)] {
        match std::fs::DirBuilder::new().mode(mode).create(path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => new = false,
            Err(error) => return Err(error),
        }
    }
    Ok(new)
}

impl Volumes {
    /// Makes a volume; the same name again answers the one that exists.
    ///
    /// # Errors
    /// `Invalid` for a bad name, `Unsupported` for drivers and options we do not have, `Conflict` when it exists with
    /// another driver or other options.
    pub(crate) async fn create(self: &Arc<Self>, request: CreateVolume) -> Result<Volume, EngineError> {
        let anonymous = request.name.is_empty();
        self.make(request, anonymous, None).await.map(|(volume, _)| volume)
    }

    /// Also answers whether it is new. It counts as used by a workload `of` which is being created, from the moment it is
    /// there.
    ///
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped: whoever gives a create up removes what came of it.
    pub(crate) async fn make(
        self: &Arc<Self>,
        request: CreateVolume,
        anonymous: bool,
        of: Option<&WorkloadId>,
    ) -> Result<(Volume, bool), EngineError> {
        let (volumes, of) = (Arc::clone(self), of.cloned());
        self.services.tasks.completed(async move { volumes.make_whole(request, anonymous, of).await }).await
    }

    async fn make_whole(
        &self,
        request: CreateVolume,
        anonymous: bool,
        of: Option<WorkloadId>,
    ) -> Result<(Volume, bool), EngineError> {
        if !matches!(request.driver.as_str(), "" | "local") {
            return Err(VolumeRefusal::NoDriver { driver: request.driver }.into());
        }
        let name = if request.name.is_empty() { names::random_hex() } else { request.name };
        volume_source::check(&request.options).map_err(|fault| match fault {
            OptionFault::Size => VolumeRefusal::SizeOption,
            fault => VolumeRefusal::Option { name: name.clone(), fault },
        })?;
        if !dirs::is_volume_name(&name) {
            return Err(VolumeRefusal::NameInvalid { name }.into());
        }
        let _making = self.making.lock().await;
        if let Some(id) = &of {
            // Its create was given up meanwhile, and what there was of it is removed already.
            if !self.services.claims.add_volume(id, &name) {
                return Err(ContainerRefusal::ClientLeft { name }.into());
            }
        }
        if let Some(existing) = self.list().get(&name) {
            return Ok((existing.clone(), false));
        }
        self.check_readable(&name)?;
        let mut labels = request.labels;
        if anonymous {
            // By this label Docker's clients know it.
            labels.insert(ANONYMOUS.to_owned(), String::new());
        }
        let mountpoint = self.path(&name).join("_data");
        // What is there already is somebody's: it becomes the volume, and is not removed with a create that is refused.
        let new = make_folders(&mountpoint).map_err(|source| EngineError::File { path: mountpoint.clone(), source })?;
        let volume = Volume {
            name: name.clone(),
            driver: "local".to_owned(),
            mountpoint,
            created: now_nanos(),
            options: request.options,
            labels,
            anonymous,
        };
        // Listed first: where the engine ends before the record is known to stand, whoever clears up finds it.
        self.list().insert(name.clone(), volume.clone());
        if let Err(error) = self.services.store.put_volume(&volume).await {
            self.list().remove(&name);
            if new {
                // Empty, or it stays.
                let _ = std::fs::remove_dir(&volume.mountpoint);
                let _ = std::fs::remove_dir(self.path(&name));
            }
            return Err(error);
        }
        self.emit_volume("create", &volume);
        Ok((volume, new))
    }

    /// Has volumes that other workloads have count as used by one that is being created.
    pub(crate) async fn claim(&self, id: &WorkloadId, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        let _making = self.making.lock().await;
        names.iter().for_each(|name| {
            self.services.claims.add_volume(id, name);
        });
    }

    /// Copies what the image has at the mount's place into a volume that is still empty.
    pub(crate) async fn fill(&self, volume: &Volume, layers: &[PathBuf], target: &str) -> Result<(), EngineError> {
        let (into, layers, target) = (volume.mountpoint.clone(), layers.to_vec(), target.to_owned());
        let path = into.clone();
        let (copying, user) = (vec![volume.clone()], names::random_hex());
        self.mount_for(&user, copying.clone()).await?;
        let copy = tokio::task::spawn_blocking(move || {
            let empty = std::fs::read_dir(&into)?.next().is_none();
            if empty { rootfs::copy_up(&layers, &target, &into) } else { Ok(()) }
        });
        let copied = copy.await;
        self.unmount_for(&user, copying).await;
        copied.map_err(|_| EngineError::Stopping)?.map_err(|source| EngineError::File { path, source })
    }

    /// The volumes of a workload that are mounts.
    fn mounts_of(&self, handle: &Handle) -> Vec<Volume> {
        let points = handle.config.mounts.iter().filter(|point| point.kind == MountKind::Volume);
        points.filter_map(|point| self.get(&point.name).ok()).filter(|volume| !volume.options.is_empty()).collect()
    }

    /// Mounts what a workload's volumes are mounts of, before it starts.
    pub(crate) async fn mount(&self, handle: &Handle) -> Result<(), EngineError> {
        let mut points = handle.config.mounts.iter().filter(|point| point.kind == MountKind::Volume);
        points.try_for_each(|point| self.check_readable(&point.name))?;
        self.mount_for(handle.id(), self.mounts_of(handle)).await
    }

    /// Does `work` while the volumes of a workload that may not run are mounted as it would have them. The work goes on
    /// when nobody waits for it any more, so that what is mounted is unmounted.
    pub(crate) async fn with_mounted<T: Send + 'static>(
        self: &Arc<Self>,
        handle: &Handle,
        work: impl Future<Output = Result<T, EngineError>> + Send + 'static,
    ) -> Result<T, EngineError> {
        let volumes = self.mounts_of(handle);
        if volumes.is_empty() {
            return work.await;
        }
        let (mounting, user) = (Arc::clone(self), names::random_hex());
        let working = tokio::spawn(async move {
            mounting.mount_for(&user, volumes.clone()).await?;
            let done = work.await;
            mounting.unmount_for(&user, volumes).await;
            done
        });
        working.await.map_err(|_| EngineError::Stopping)?
    }

    /// Undoes [`Volumes::mount`] for those volumes that nobody else has.
    pub(crate) async fn unmount(&self, handle: &Handle) {
        self.unmount_for(handle.id(), self.mounts_of(handle)).await;
    }

    async fn mount_for(&self, user: &str, volumes: Vec<Volume>) -> Result<(), EngineError> {
        let volumes: Vec<Volume> = volumes.into_iter().filter(|volume| !volume.options.is_empty()).collect();
        if volumes.is_empty() {
            return Ok(());
        }
        let (mounted, user) = (self.mounted.clone(), user.to_owned());
        let mount = tokio::task::spawn_blocking(move || {
            for volume in volumes {
                let users = mounted.users(&volume.name);
                let mut users = users.lock();
                volume_source::mount(&volume.options, &volume.mountpoint).map_err(|source| VolumeRefusal::Mount {
                    at: volume.mountpoint.clone(),
                    device: volume.options.get("device").cloned().unwrap_or_default(),
                    source,
                })?;
                users.insert(user.clone());
            }
            Ok(())
        });
        mount.await.map_err(|_| EngineError::Stopping)?
    }

    async fn unmount_for(&self, user: &str, volumes: Vec<Volume>) {
        let volumes: Vec<Volume> = volumes.into_iter().filter(|volume| !volume.options.is_empty()).collect();
        if volumes.is_empty() {
            return;
        }
        let (mounted, user) = (self.mounted.clone(), user.to_owned());
        let unmount = tokio::task::spawn_blocking(move || {
            for volume in volumes {
                let users = mounted.users(&volume.name);
                let mut users = users.lock();
                users.remove(&user);
                if users.is_empty()
                    && let Err(error) = volume_source::unmount(&volume.mountpoint)
                {
                    tracing::warn!(volume = volume.name, %error, "a volume could not be unmounted");
                }
            }
        });
        let _ = unmount.await;
    }

    /// Knows again for whom volumes are mounted, after the engine was started anew.
    pub(crate) fn has_mounted(&self, handle: &Handle) {
        for volume in self.mounts_of(handle) {
            self.mounted.users(&volume.name).lock().insert(handle.id().to_owned());
        }
    }

    pub(crate) fn all(&self) -> Vec<Volume> {
        self.list().values().cloned().collect()
    }

    /// # Errors
    /// `NotFound` in Docker's words.
    pub(crate) fn get(&self, name: &str) -> Result<Volume, EngineError> {
        self.list().get(name).cloned().map_or_else(|| self.check_readable(name).and(Err(no_volume(name))), Ok)
    }

    /// IDs of the workloads that mount it, running, not running, or being created.
    pub(crate) fn users(&self, name: &str) -> Vec<String> {
        let uses = |view: &crate::view::WorkloadView| {
            view.config.mounts.iter().any(|m| m.kind == MountKind::Volume && m.name == name)
        };
        let mut users = self.services.claims.of_volume(name);
        users.extend(self.services.registry.unreadable().mentioning(name));
        users.extend(
            self.services
                .registry
                .handles()
                .iter()
                .map(|handle| handle.view())
                .filter(|view| uses(view))
                .map(|view| view.id().to_owned()),
        );
        users.sort_unstable();
        users.dedup();
        users
    }

    /// # Errors
    /// `NotFound`, unless `force`; `Conflict` while a workload mounts it.
    pub(crate) async fn remove(&self, name: &str, force: bool) -> Result<(), EngineError> {
        // Under the lock under which a create claims what it mounts, or it would lose it in that moment.
        let making = self.making.lock().await;
        let volume = match self.get(name) {
            Ok(volume) => volume,
            // What is mounted there is seen below.
            Err(_) if force && self.unreadable.lock().contains(name) => Volume {
                name: name.to_owned(),
                driver: "local".to_owned(),
                mountpoint: self.path(name).join("_data"),
                created: 0,
                options: BTreeMap::new(),
                labels: BTreeMap::new(),
                anonymous: false,
            },
            Err(_) if force => return Ok(()),
            Err(error) => return Err(error),
        };
        let users = self.users(name);
        if !users.is_empty() {
            return Err(VolumeRefusal::InUse { name: name.to_owned(), users }.into());
        }
        let (folder, aside) =
            (self.path(name), self.services.data_root().join("volumes").join(dirs::REMOVED).join(name));
        let (to, removed) = (aside.clone(), name.to_owned());
        let (mounted_by_us, mountpoint) = (!volume.options.is_empty(), volume.mountpoint.clone());
        let moved = tokio::task::spawn_blocking(move || {
            let file = |path: PathBuf| move |source| EngineError::File { path, source };
            if mounted_by_us {
                // What is mounted there is not the volume's own, and must not be removed with it.
                volume_source::unmount(&mountpoint).map_err(file(mountpoint.clone()))?;
            }
            if let Some(at) = removal::mounted_below(&folder).map_err(file(folder.clone()))? {
                return Err(EngineError::from(VolumeRefusal::MountedBelow { name: removed, at }));
            }
            // An earlier one of this name that is still being cleared away makes room.
            let earlier = to.with_added_extension(names::random_hex());
            let earlier = std::fs::rename(&to, &earlier).is_ok().then_some(earlier);
            // Out of the way first and at once: what is half removed is never taken for whole, and the next start goes on.
            dirs::set_aside(&folder, &to)?;
            Ok(earlier)
        });
        if let Some(earlier) = moved.await.map_err(|_| EngineError::Stopping)?? {
            self.services.clear_later(earlier);
        }
        let forgotten = self.services.store.delete_volume(name).await;
        self.list().remove(name);
        self.unreadable.lock().remove(name);
        self.emit_volume("destroy", &volume);
        // What takes time keeps nobody from making another volume.
        drop(making);
        let path = aside.clone();
        let emptied = tokio::task::spawn_blocking(move || {
            removal::empty_tree_until(&path, Instant::now() + dirs::CLEARED_WITHIN)
                .map_err(|source| EngineError::File { path, source })
        });
        let emptied = emptied.await.map_err(|_| EngineError::Stopping)??;
        // The mark of it goes last.
        if forgotten {
            self.services.end_removal(aside, emptied);
        }
        Ok(())
    }

    /// Removes those of the `wanted` volumes that nobody mounts: the anonymous ones, with `all` named ones too. Answers
    /// their names, and how many bytes they held.
    ///
    /// # Errors
    /// `Conflict` that names each that stays, after all others were removed.
    pub(crate) async fn prune(
        &self,
        all: bool,
        wanted: impl Fn(&Volume) -> bool,
    ) -> Result<(Vec<String>, u64), EngineError> {
        let mut removed = Vec::new();
        let mut staying = Vec::new();
        let mut freed = 0;
        for volume in self.all() {
            if (all || volume.anonymous) && wanted(&volume) && self.users(&volume.name).is_empty() {
                let size = size::of(&volume.mountpoint).await;
                match self.remove(&volume.name, false).await {
                    Ok(()) => {
                        freed += size;
                        removed.push(volume.name);
                    }
                    // Gone, or taken meanwhile.
                    Err(EngineError::Volume(VolumeRefusal::NotFound { .. })) => {}
                    Err(_) if !self.users(&volume.name).is_empty() => {}
                    Err(error) => staying.push(error),
                }
            }
        }
        error::all_removed("volumes", removed.len(), staying)?;
        Ok((removed, freed))
    }

    /// Bytes in the files of a volume.
    pub(crate) async fn size(&self, volume: &Volume) -> u64 {
        size::of(&volume.mountpoint).await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.services.data_root().join("volumes").join(name)
    }

    /// Tells that a workload's volumes come into use or out of it.
    pub(crate) fn emit_mounts(&self, action: &str, handle: &Handle) {
        for point in handle.config.mounts.iter().filter(|point| point.kind == MountKind::Volume) {
            let mut attributes = BTreeMap::from([
                ("container".to_owned(), handle.id().to_owned()),
                ("driver".to_owned(), "local".to_owned()),
            ]);
            if action == "mount" {
                attributes.insert("destination".to_owned(), point.target.clone());
                attributes.insert("propagation".to_owned(), point.propagation.clone());
                attributes.insert("read/write".to_owned(), (!point.read_only).to_string());
            }
            let time = now_nanos();
            self.services.events.emit(Event {
                kind: "volume",
                action: action.to_owned(),
                id: point.name.clone(),
                attributes,
                time,
            });
        }
    }

    fn emit_volume(&self, action: &str, volume: &Volume) {
        let attributes = BTreeMap::from([("driver".to_owned(), volume.driver.clone())]);
        self.services.events.emit(Event {
            kind: "volume",
            action: action.to_owned(),
            id: volume.name.clone(),
            attributes,
            time: now_nanos(),
        });
    }
}
