//! Requests for networks, volumes, exec sessions, files and images: passed on to what answers them, so that clients of the
//! engine see one type.

use std::io::{Read, Write};
use std::path::PathBuf;

use bireme_core::executor::Interface;
use bireme_core::{BoxFuture, ExecSpec};
use bireme_image::{Image, ImageId};

use super::Engine;
use crate::archive::{PathStat, Unpack};
use crate::changes::Change;
use crate::commit::CommitRequest;
use crate::exec::{ExecAttach, ExecSession, ExecView};
use crate::preparing::OnPreparation;
use crate::request::{CreateNetwork, CreateVolume};
use crate::view::{Network, NetworkMember, Volume};
use crate::{EngineError, archive, changes, commit, programs};

impl Engine {
    /// Where what the commands of builds are lent is put, for as long as they run.
    pub fn secrets_folder(&self) -> std::path::PathBuf {
        self.services().options.exec_root.join(super::SECRETS)
    }

    /// Makes a network.
    ///
    /// # Errors
    /// `Conflict` when the name is taken or no subnet is free, `Denied` for a subnet in use or a predefined name, `Invalid`
    /// for bad addresses, `NotFound` for other drivers, `Unsupported` for other gateway modes.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `NetworkCreate`.
    pub async fn create_network(&self, request: CreateNetwork) -> Result<Network, EngineError> {
        self.parts.networks.create(request).await
    }

    /// All networks, the predefined ones included.
    pub fn networks(&self) -> Vec<Network> {
        self.parts.networks.all()
    }

    /// By name, ID, or the beginning of an ID.
    ///
    /// # Errors
    /// `NotFound` in Docker's words; `Invalid` when several match.
    pub fn network(&self, name: &str) -> Result<Network, EngineError> {
        self.parts.networks.get(name)
    }

    /// The workloads that stand on a network now.
    pub fn network_members(&self, id: &str) -> Vec<NetworkMember> {
        self.parts.networks.members(id)
    }

    /// Removes a network, by name, ID, or the beginning of an ID.
    ///
    /// # Errors
    /// `NotFound`; `Denied` for the predefined ones and for networks with workloads on them.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `NetworkDelete`.
    pub async fn remove_network(&self, name: &str) -> Result<(), EngineError> {
        self.parts.networks.remove(name).await
    }

    /// Removes those of the `wanted` networks that no workload is on, running or not. Answers their names.
    ///
    /// # Errors
    /// `Conflict` that names each that stays, after all others were removed.
    /// # Cancel safety
    /// A dropped future leaves those that were not come to yet.
    ///
    /// Source: Docker Engine API, `NetworkPrune`.
    pub async fn prune_networks(&self, wanted: impl Fn(&Network) -> bool) -> Result<Vec<String>, EngineError> {
        self.parts.networks.prune(wanted).await
    }

    /// Makes a volume; the same name again answers the one that exists.
    ///
    /// # Errors
    /// `Invalid` for a bad name or bad options, `NotFound` for drivers and `Unsupported` for options that are not offered,
    /// `Conflict` when it exists with another driver or other options.
    /// # Cancel safety
    /// Once begun it is completed, also when the future is dropped.
    ///
    /// Source: Docker Engine API, `VolumeCreate`.
    pub async fn create_volume(&self, request: CreateVolume) -> Result<Volume, EngineError> {
        self.parts.volumes.create(request).await
    }

    /// All volumes whose records can be read.
    pub fn volumes(&self) -> Vec<Volume> {
        self.parts.volumes.all()
    }

    /// A volume by its name.
    ///
    /// # Errors
    /// `NotFound` in Docker's words.
    ///
    /// Source: Docker Engine API, `VolumeInspect`.
    pub fn volume(&self, name: &str) -> Result<Volume, EngineError> {
        self.parts.volumes.get(name)
    }

    /// IDs of the workloads that mount it, running, not running, or being created.
    pub fn volume_users(&self, name: &str) -> Vec<String> {
        self.parts.volumes.users(name)
    }

    /// Removes a volume with what is stored in it; with `force` also one whose record cannot be read.
    ///
    /// # Errors
    /// `NotFound`, unless `force`; `Conflict` while a workload mounts it, or something else is mounted in it.
    /// # Cancel safety
    /// A dropped future may leave it set aside and still listed: see it to its end.
    ///
    /// Source: Docker Engine API, `VolumeDelete`.
    pub async fn remove_volume(&self, name: &str, force: bool) -> Result<(), EngineError> {
        self.parts.volumes.remove(name, force).await
    }

    /// Removes those of the `wanted` volumes that nobody mounts: the anonymous ones, with `all` named ones too. Answers
    /// their names, and how many bytes they held.
    ///
    /// # Errors
    /// `Conflict` that names each that stays, after all others were removed.
    /// # Cancel safety
    /// As [`Engine::remove_volume`], and those that were not come to yet stay.
    ///
    /// Source: Docker Engine API, `VolumePrune`.
    pub async fn prune_volumes(
        &self,
        all: bool,
        wanted: impl Fn(&Volume) -> bool,
    ) -> Result<(Vec<String>, u64), EngineError> {
        self.parts.volumes.prune(all, wanted).await
    }

    /// Bytes in the files of a volume; what cannot be read does not count.
    pub async fn volume_size(&self, volume: &Volume) -> u64 {
        self.parts.volumes.size(volume).await
    }

    /// Prepares a session; nothing runs yet. Answers its ID, 64 hexadecimal digits.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the workload does not run, `Unsupported` when its kind has no processes to join, `Invalid`
    /// without a command.
    ///
    /// Source: Docker Engine API, `ContainerExec`.
    pub async fn exec_create(&self, name: &str, spec: ExecSpec, attach: ExecAttach) -> Result<String, EngineError> {
        self.parts.execs.create(name, spec, attach).await
    }

    /// The session, when it may be started now.
    ///
    /// # Errors
    /// `NotFound` for an unknown session; `Conflict` when it was started before or its workload does not run.
    pub fn exec_ready(&self, exec_id: &str) -> Result<ExecView, EngineError> {
        self.parts.execs.ready(exec_id)
    }

    /// Starts a session once. `size` is columns and rows of its terminal.
    ///
    /// # Errors
    /// `NotFound` for an unknown session; `Conflict` when it was started before or its workload does not run; what the executor
    /// answers otherwise, with exit code 126 recorded.
    /// # Cancel safety
    /// None: dropped before the executor has answered, it leaves the session as one that runs and whose end nobody records.
    ///
    /// Source: Docker Engine API, `ExecStart`.
    pub async fn exec_start(
        &self,
        exec_id: &str,
        detach: bool,
        size: Option<(u16, u16)>,
    ) -> Result<ExecSession, EngineError> {
        self.parts.execs.start(exec_id, detach, size).await
    }

    /// A session as it is at this moment.
    ///
    /// # Errors
    /// `NotFound` for an unknown or forgotten session.
    ///
    /// Source: Docker Engine API, `ExecInspect`.
    pub fn exec_inspect(&self, exec_id: &str) -> Result<ExecView, EngineError> {
        self.parts.execs.inspect(exec_id)
    }

    /// Waits until the session's end is recorded, so that whoever inspects it then sees the exit code.
    /// Answers at once for a session that is unknown or could not be started, and when one is forgotten.
    pub fn exec_recorded(&self, exec_id: &str) -> BoxFuture<'static, ()> {
        self.parts.execs.recorded(exec_id)
    }

    /// Sets the terminal size of a running session, in characters. One that is about to begin is waited for.
    ///
    /// # Errors
    /// `NotFound` for an unknown session; `Conflict` when its workload does not run; what the executor answers.
    ///
    /// Source: Docker Engine API, `ExecResize`.
    pub async fn exec_resize(&self, exec_id: &str, columns: u16, rows: u16) -> Result<(), EngineError> {
        self.parts.execs.resize(exec_id, columns, rows).await
    }

    /// What stands at `path`, from the workload's root.
    ///
    /// # Errors
    /// `NotFound` for the workload or the path; `Unsupported` for kinds without a file tree.
    ///
    /// Source: Docker Engine API, `ContainerArchiveInfo`.
    pub async fn stat_path(&self, name: &str, path: &str) -> Result<PathStat, EngineError> {
        archive::stat_path(&self.parts, name, path).await
    }

    /// Writes what stands at `path` to `out` as a tar archive whose entries begin with its base name.
    ///
    /// # Errors
    /// As [`Engine::stat_path`]; an `Internal` one may come when part of the archive is written.
    /// # Cancel safety
    /// A dropped future does not end the writing: an error of `out` does.
    ///
    /// Source: Docker Engine API, `ContainerArchive`.
    pub async fn read_archive(
        &self,
        name: &str,
        path: &str,
        out: impl Write + Send + 'static,
    ) -> Result<(), EngineError> {
        archive::read_archive(&self.parts, name, path, out).await
    }

    /// Unpacks a tar archive, which may be compressed, into the folder at `path`. Owners are those of the archive.
    ///
    /// # Errors
    /// `NotFound` for the workload or the path; `Invalid` when `path` is no folder, and for an archive that is damaged or names
    /// paths outside; `Denied` for what is mounted read-only; `Unsupported` for kinds without a file tree.
    /// # Cancel safety
    /// Dropping the future ends the unpacking, unless volumes had to be mounted for it. What was unpacked stays.
    ///
    /// Source: Docker Engine API, `PutContainerArchive`.
    pub async fn write_archive(
        &self,
        name: &str,
        path: &str,
        archive: impl Read + Send + 'static,
        how: Unpack,
    ) -> Result<(), EngineError> {
        archive::write_archive(&self.parts, name, path, archive, how).await
    }

    /// Every path that a container added, modified or deleted, in order.
    ///
    /// # Errors
    /// `NotFound` for the container; `Unsupported` for a component.
    ///
    /// Source: Docker Engine API, `ContainerChanges`.
    pub async fn changes(&self, name: &str) -> Result<Vec<Change>, EngineError> {
        changes::changes(self.registry(), name).await
    }

    /// Writes all files of a container to `out` as a tar archive, without those of its volumes and mounts.
    ///
    /// # Errors
    /// As [`Engine::changes`]; an `Internal` one may come when part of the archive is written.
    /// # Cancel safety
    /// A dropped future does not end the writing: an error of `out` does.
    ///
    /// Source: Docker Engine API, `ContainerExport`.
    pub async fn export(&self, name: &str, out: impl Write + Send + 'static) -> Result<(), EngineError> {
        changes::export(self.services(), name, out).await
    }

    /// Whether [`Engine::export`] would begin, for whoever has to answer before the first byte.
    ///
    /// # Errors
    /// Those that [`Engine::export`] begins with.
    pub fn can_export(&self, name: &str) -> Result<(), EngineError> {
        changes::can_export(self.registry(), name)
    }

    /// Makes an image of a container: its image's layers, and one of what it changed.
    ///
    /// # Errors
    /// `NotFound` for the container; `Unsupported` for a component; what [`bireme_image::ImageStore::commit`] refuses.
    /// # Cancel safety
    /// Dropping the future records nothing, and lets the container go on.
    ///
    /// Source: Docker Engine API, `ImageCommit`.
    pub async fn commit(&self, request: CommitRequest) -> Result<ImageId, EngineError> {
        commit::commit(self.services(), request).await
    }

    /// Does ahead what the first create of a workload of the image would wait for: a component is compiled. To be called
    /// when an image was stored, by whatever way. `tell` hears how far that is, and of nothing where there is nothing to
    /// do; what is refused is told, too, and no failure of whoever brought the image. Returns when it has ended, or has
    /// taken five minutes.
    ///
    /// # Cancel safety
    /// Once begun it goes on when the future is dropped, and ends with the engine.
    pub async fn prepare_image(&self, image: &ImageId, tell: OnPreparation<'_>) {
        programs::prepare(self.services(), image, tell).await;
    }

    /// Begins what [`Engine::prepare_image`] does, for whoever does not wait.
    pub fn prepare_image_later(&self, image: &ImageId) {
        drop(programs::begin(self.services(), image));
    }

    /// Has executors forget what they prepared of images that are gone: code of components takes several times their size.
    ///
    /// # Errors
    /// When it cannot be read which images there are.
    /// # Cancel safety
    /// Dropping the future leaves the rest for the next call.
    pub async fn forget_unused_programs(&self) -> Result<(), EngineError> {
        programs::forget_unused(self.services()).await
    }

    /// What the program of an image imports and exports; `None` for an image of another kind than components, and for one
    /// that names no program.
    ///
    /// # Errors
    /// `Invalid` when the program is none; what [`bireme_image::ImageStore::component`] refuses.
    pub async fn interface(&self, image: &Image) -> Result<Option<Interface>, EngineError> {
        programs::interface(self.services(), image).await
    }

    /// The layers below a container's own files, and the folder of those.
    pub(crate) fn folders_of(&self, name: &str) -> Result<(Vec<PathBuf>, PathBuf), EngineError> {
        changes::folders_of(self.registry(), name)
    }
}
