//! Creating a workload: everything that can be refused is refused before anything is made, and what was made is unmade
//! where it comes to no end.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bireme_core::clock::now_nanos;
use bireme_core::executor::Power;
use bireme_core::spec::{MountSource, NamespaceMode, Namespaces, NetworkMode, WorkloadKind};
use bireme_core::{Executor, Program, WorkloadId};
use bireme_image::Image;
use bireme_sys::removal;

use super::Engine;
use crate::actor::WorkloadActor;
use crate::container::{Handle, MutableState};
use crate::dirs::{Dirs, make_dir};
use crate::network::keep_addresses;
use crate::refusal::{ContainerRefusal, Countable, RequestRefusal};
use crate::registry::NameReservation;
use crate::request::{CreateRequest, CreateVolume, ModeRequest, NetworkModeRequest};
use crate::resolve::{self, Identity, VolumeNeed};
use crate::state_store::Sync;
use crate::view::{Config, MountKind, MountPoint, State, Status};
use crate::{EngineError, bounds, health, link, log_options, platform};

/// A workload that was just created.
#[derive(Clone, Debug)]
pub struct Created {
    /// 64 hexadecimal digits.
    pub id: WorkloadId,
    /// What was asked for and has no effect, in sentences for the client.
    pub warnings: Vec<String>,
}

/// What a create made so far that a refusal has to unmake.
#[derive(Default)]
struct Made {
    volumes: Vec<String>,
    /// Volumes of its own, which may be in the making.
    own: Vec<String>,
    dirs: bool,
    /// A note tells of it, for a next engine.
    noted: bool,
    /// The database may know of it.
    recorded: bool,
}

/// Unmakes what a create made when it is dropped in the middle.
struct Undo {
    engine: Engine,
    id: WorkloadId,
    /// `None` once it has come to its end.
    made: Option<Made>,
    reservation: Option<NameReservation>,
}

impl Drop for Undo {
    fn drop(&mut self) {
        let Some(made) = self.made.take() else { return };
        let (engine, id) = (self.engine.clone(), self.id.clone());
        engine.services().claims.remove(&id);
        drop(self.reservation.take());
        // Without a runtime the engine is ending, and the next one finds its note.
        let services = Arc::clone(engine.services());
        services.tasks.spawn_anywhere(async move { engine.unmake(&id, made).await });
    }
}

impl Engine {
    /// Creates a workload; nothing runs yet.
    ///
    /// # Errors
    /// `NotFound` for the image, a network or a workload it joins; `Conflict` for a name in use or routes that clash;
    /// `Invalid` and `Unsupported` for what cannot be done. Nothing is left behind then.
    ///
    /// # Cancel safety
    /// Dropping the future unmakes in the background what was made.
    ///
    /// Source: Docker Engine API, `ContainerCreate`.
    pub async fn create(&self, request: CreateRequest) -> Result<Created, EngineError> {
        let id = WorkloadId::from_bytes(rand::random());
        let name = match &request.name {
            Some(name) => name.strip_prefix('/').unwrap_or(name).to_owned(),
            None => self.registry().free_name(),
        };
        resolve::check_name(&name)?;
        let reservation = self.registry().reserve(&name, id.as_str())?;
        let reservation = Some(reservation);
        let mut undo = Undo { engine: self.clone(), id: id.clone(), made: Some(Made::default()), reservation };
        let result = self.create_named(request, id, &name, &mut undo).await;
        self.services().claims.remove(&undo.id);
        let (made, reservation) = (undo.made.take(), undo.reservation.take());
        match made {
            Some(made) if result.is_err() => {
                drop(reservation);
                self.unmake(&undo.id, made).await;
            }
            made => {
                reservation.into_iter().for_each(NameReservation::keep);
                if made.is_some_and(|made| made.noted) {
                    self.end_note(undo.id.as_str());
                }
            }
        }
        result
    }

    async fn create_named(
        &self,
        mut request: CreateRequest,
        id: WorkloadId,
        name: &str,
        undo: &mut Undo,
    ) -> Result<Created, EngineError> {
        let made = undo.made.get_or_insert_default();
        let of_build = request.unfinished.as_ref().is_some_and(|unfinished| !unfinished.keep);
        let (image, unfinished) = match request.unfinished.take() {
            Some(unfinished) => (unfinished.image, Some(unfinished.layers)),
            None => {
                let asked = request.platform.as_deref();
                let image = platform::image_for(self.services(), &request.image, asked, &request.labels);
                (Box::pin(image).await?, None)
            }
        };
        let claim = || self.services().claims.add_image(&id, image.id.to_string());
        match unfinished {
            // Its build holds it.
            Some(_) => claim(),
            None => self.images().claim(&image.id, claim)?,
        }
        let kind = image.kind();
        let executor = self
            .services()
            .executor(kind)
            .ok_or_else(|| RequestRefusal::NoExecutor { platform: image.platform.clone() })?;
        // Most clients start at once what they create.
        executor.prewarm();
        let namespaces = self.namespaces(&request)?;
        let mut endpoints = match namespaces.network {
            NetworkMode::Attached => self.parts.networks.wanted_endpoints(&request.networks)?,
            _ => Vec::new(),
        };
        keep_addresses(self.registry(), &request.labels, &mut endpoints);
        if let NetworkMode::Workload(other) = &namespaces.network {
            let other = self.registry().with_id(other)?;
            request.hostname = Some(other.config.spec.hostname.clone());
            request.domainname = Some(other.config.spec.domainname.clone());
        }
        let links = link::links(self.registry(), &request.links)?;
        let inherited = self.inherited_mounts(&request.volumes_from)?;
        let volumes = inherited.iter().filter(|(_, point)| point.kind == MountKind::Volume);
        let volumes = volumes.map(|(_, point)| point.name.clone()).collect();
        self.parts.volumes.claim(&id, volumes).await;
        if matches!(namespaces.network, NetworkMode::Host) && request.hostname.is_none() {
            request.hostname = rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
        }
        if let (NetworkMode::Workload(other), None) = (&namespaces.network, &request.hostname) {
            request.hostname = Some(self.registry().with_id(other)?.config.spec.hostname.clone());
        }
        let gateway = self.parts.networks.host_gateway(&endpoints);
        let identity = Identity { id: id.clone(), name };
        let resolved = resolve::resolve(&request, &image, &*executor, identity, namespaces, gateway, inherited)?;
        let mut spec = resolved.spec;
        if !executor.offers_exec() && health::runs_command(resolved.health.as_ref(), spec.bireme.health.is_some()) {
            return Err(executor.lacks(name, Power::ProbeCommand).into());
        }
        let log = log_options::effective(&request.log, &self.services().options.log)?;
        self.check_routes(&spec, &executor, &request)?;
        resolve::check_binds(resolved.mounts.binds).await?;
        let dirs = self.services().dirs(&id);
        let program = self.program(&image, unfinished, &spec.args, &dirs).await?;
        spec.mounts = resolved.mounts.mounts;
        for (number, mount) in spec.mounts.iter_mut().enumerate() {
            if let MountSource::Layers { scratch, .. } = &mut mount.source {
                *scratch = dirs.state.join("mounts").join(number.to_string());
            }
        }
        let mut points = resolved.mounts.points;
        // The check comes before anything is made that a refusal would have to unmake.
        tokio::select! {
            checked = executor.check(&spec, &program) => checked?,
            // A component may take minutes to compile, and others wait for their turn.
            () = request.given_up.cancelled() => {
                return Err(ContainerRefusal::ClientLeft { name: name.to_owned() }.into());
            }
        }
        if !request.publish.is_empty() || request.publish_all {
            executor.check_ports(&spec, &program).await?;
        }
        let mut warnings = executor.warnings(&spec);
        warnings.extend(spec.bireme.request_sentence());
        let mut needs = resolved.mounts.volumes;
        // Named before they are made, so that what is left of a create that is cut short is found by its note.
        let own: Vec<&mut VolumeNeed> = needs.iter_mut().filter(|need| need.name.is_none()).collect();
        if !own.is_empty() {
            made.own = own.into_iter().map(|need| need.own_name()).collect();
            made.noted = true;
            self.note_create(id.as_str(), &made.own.join("\n"))?;
        }
        for need in needs {
            let (mount, point) = self.mount_volume(need, &program, &id, made).await?;
            spec.mounts.push(mount);
            points.push(point);
        }
        made.dirs = true;
        make_dir(&dirs.state, 0o700)?;
        if let Some(layers) = program.layers() {
            // The root of the container's tree takes its mode from here.
            make_dir(layers.upper, 0o755)?;
            make_dir(layers.work, 0o700)?;
        }
        let log_path = (log.driver != "none").then(|| dirs.state.join(format!("{id}-json.log")));
        let config = Config {
            spec,
            image_id: image.id.to_string(),
            platform: image.platform.to_string(),
            created: now_nanos(),
            auto_remove: request.auto_remove,
            of_build,
            mounts: points,
            publish: request.publish,
            publish_all: request.publish_all,
            health: resolved.health,
            program,
            log,
            log_path,
            as_asked: request.as_asked,
            links,
            entrypoint: resolved.entrypoint,
            command: resolved.command,
        };
        let state = State::new(Status::Created);
        let mutable = MutableState {
            unlinked: BTreeSet::new(),
            held: false,
            state,
            restart: request.restart,
            restart_count: 0,
            endpoints,
            ports: Vec::new(),
            stopped: false,
            resources: None,
            health: None,
            written: now_nanos(),
        };
        let sync = if config.auto_remove || of_build { Sync::Normal } else { Sync::Full };
        made.recorded = true;
        self.services().store.insert_workload(id.as_str(), name, &config, &mutable, sync).await?;
        let (handle, commands) = Handle::new(Arc::new(config), name, &mutable, executor, None);
        handle.set_secret_env(request.secret_env);
        self.registry().add(handle.clone());
        self.spawn_actor(
            WorkloadActor::new(Arc::clone(&self.parts), handle.clone(), name.to_owned(), mutable),
            commands,
        );
        handle.emit(&self.services().events, "create", []);
        Ok(Created { id, warnings })
    }

    async fn program(
        &self,
        image: &Image,
        unfinished: Option<Vec<PathBuf>>,
        args: &[String],
        dirs: &Dirs,
    ) -> Result<Program, EngineError> {
        match image.kind() {
            WorkloadKind::Component if unfinished.is_some() => Err(RequestRefusal::CommandInComponent.into()),
            WorkloadKind::Container => {
                let lower = match unfinished {
                    Some(layers) => layers,
                    None => self.images().layers(&image.id).await?,
                };
                let program = args.first().map_or("", String::as_str);
                if bireme_image::is_wasm(&lower, &image.config.working_dir, program) {
                    return Err(RequestRefusal::ComponentInLinuxImage {
                        program: program.to_owned(),
                        platform: image.platform.clone(),
                    }
                    .into());
                }
                Ok(Program::Layers { lower, upper: dirs.state.join("diff"), work: dirs.state.join("work") })
            }
            WorkloadKind::Component => {
                let (path, digest) =
                    self.images().component(&image.id, args.first().map_or("", String::as_str)).await?;
                let files = self.images().files_beside_component(&image.id).await?;
                Ok(Program::Component { path, digest, files })
            }
        }
    }

    async fn mount_volume(
        &self,
        need: VolumeNeed,
        program: &Program,
        id: &WorkloadId,
        made: &mut Made,
    ) -> Result<(bireme_core::spec::Mount, MountPoint), EngineError> {
        let anonymous = need.own;
        let request = CreateVolume {
            name: need.name.unwrap_or_default(),
            driver: need.driver,
            options: need.options,
            labels: need.labels,
        };
        let (volume, new) = self.parts.volumes.make(request, anonymous, Some(id)).await?;
        // Those of its own are known already.
        if new && !anonymous {
            made.volumes.push(volume.name.clone());
        }
        // What stands at the mount's place belongs into the part that is mounted, which is to be there already.
        let part = !need.subpath.as_os_str().is_empty();
        if let (Some(layers), false) = (program.layers(), need.no_copy || part) {
            self.parts.volumes.fill(&volume, layers.lower, &need.target).await?;
        }
        let point = MountPoint {
            kind: MountKind::Volume,
            name: volume.name.clone(),
            anonymous,
            declared: need.declared,
            inherited: false,
            source: volume.mountpoint.clone(),
            target: need.target.clone(),
            read_only: need.read_only,
            propagation: String::new(),
        };
        let source = if part {
            MountSource::Subpath { volume: volume.mountpoint, subpath: need.subpath }
        } else {
            MountSource::Bind { path: volume.mountpoint, propagation: Default::default(), recursive: true }
        };
        Ok((bireme_core::spec::Mount { source, target: need.target, read_only: need.read_only }, point))
    }

    /// The mounts of other workloads that a new one gets too. What they keep in memory stays theirs.
    fn inherited_mounts(&self, from: &[(String, bool)]) -> Result<Vec<resolve::Inherited>, EngineError> {
        let mut all = Vec::new();
        for (name, read_only) in from {
            let handle = self.registry().find(name).map_err(RequestRefusal::reference)?;
            for point in handle.config.mounts.iter().filter(|point| point.kind != MountKind::Tmpfs) {
                let Some(mount) = handle.config.spec.mounts.iter().find(|mount| mount.target == point.target) else {
                    continue;
                };
                let (mut mount, mut point) = (mount.clone(), point.clone());
                mount.read_only |= read_only;
                point.read_only |= read_only;
                (point.declared, point.inherited) = (false, true);
                all.push((mount, point));
            }
            bounds::within(Countable::Inherited, None, all.len(), bounds::MOUNTS)?;
        }
        Ok(all)
    }

    fn namespaces(&self, request: &CreateRequest) -> Result<Namespaces, EngineError> {
        // Not "not found": Docker's client takes that for a missing image, and pulls it.
        let join = |name: &str| match self.registry().find(name) {
            Ok(handle) => Ok(handle.config.spec.id.clone()),
            Err(error) => Err(RequestRefusal::reference(error)),
        };
        let mode = |wanted: &ModeRequest| {
            Ok::<_, EngineError>(match wanted {
                ModeRequest::Private => NamespaceMode::Private,
                ModeRequest::Host => NamespaceMode::Host,
                ModeRequest::Workload(name) => NamespaceMode::Workload(join(name)?),
            })
        };
        let network = match &request.network_mode {
            NetworkModeRequest::Default => NetworkMode::Attached,
            NetworkModeRequest::None => NetworkMode::None,
            NetworkModeRequest::Host => NetworkMode::Host,
            NetworkModeRequest::Workload(name) => NetworkMode::Workload(join(name)?),
        };
        if network != NetworkMode::Attached && !request.publish.is_empty() && network != NetworkMode::Host {
            return Err(RequestRefusal::PublishWithoutNetwork.into());
        }
        Ok(Namespaces {
            network,
            pid: mode(&request.pid_mode)?,
            ipc: mode(&request.ipc_mode)?,
            uts: mode(&request.uts_mode)?,
            cgroup: if request.cgroup_host { NamespaceMode::Host } else { NamespaceMode::Private },
        })
    }

    /// Refuses routes that could not be told apart from those of another workload on the same host port.
    fn check_routes(
        &self,
        spec: &bireme_core::WorkloadSpec,
        executor: &Arc<dyn Executor>,
        request: &CreateRequest,
    ) -> Result<(), EngineError> {
        if !executor.takes_listeners() {
            return Ok(());
        }
        let ports = |publish: &[crate::request::Publish]| -> Vec<(Option<IpAddr>, u16)> {
            let config = publish
                .iter()
                .filter_map(|p| p.host_ports.filter(|(a, b)| a == b && *a != 0).map(|(port, _)| (p.host_ip, port)));
            config.collect()
        };
        let ours = ports(&request.publish);
        for handle in self.registry().handles() {
            let view = handle.view();
            let (other, status) = (&view.config.spec, view.state.status);
            let replaced = spec.app.is_some()
                && spec.service.is_some()
                && (&spec.app, &spec.service) == (&other.app, &other.service);
            let counts = matches!(status, Status::Created | Status::Running | Status::Paused | Status::Restarting);
            if !handle.executor.takes_listeners() || replaced || !counts {
                continue;
            }
            let theirs = ports(&view.config.publish);
            let shared = ours.iter().find(|(ip, port)| {
                theirs.iter().any(|(other, number)| number == port && (ip.is_none() || other.is_none() || ip == other))
            });
            let Some((_, port)) = shared else { continue };
            let clash = spec
                .bireme
                .routes
                .iter()
                .find_map(|route| other.bireme.routes.iter().find(|o| o.clashes_with(route)).map(|o| (route, o)));
            if let Some((route, taken)) = clash {
                return Err(ContainerRefusal::RouteTaken {
                    route: route.to_string(),
                    port: *port,
                    taken: taken.to_string(),
                    name: view.name.clone(),
                }
                .into());
            }
        }
        Ok(())
    }

    async fn unmake(&self, id: &WorkloadId, made: Made) {
        for volume in made.volumes.into_iter().chain(made.own) {
            if let Err(error) = self.parts.volumes.remove(&volume, true).await {
                tracing::warn!(
                    volume,
                    error = &error as &dyn std::error::Error,
                    "a volume of a refused create could not be removed"
                );
            }
        }
        if made.recorded {
            // Nothing is known of it unless the create was dropped in that very moment.
            self.services().store.delete_workload(id.as_str()).await;
        }
        if made.dirs {
            let dirs = self.services().dirs(id);
            let _ = tokio::task::spawn_blocking(move || removal::remove_tree(&dirs.state)).await;
        }
        if made.noted {
            self.end_note(id.as_str());
        }
    }

    fn note_create(&self, id: &str, volumes: &str) -> Result<(), EngineError> {
        let path = self.data_root().join(super::CREATING).join(id);
        let write = || {
            let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            std::io::Write::write_all(&mut file, volumes.as_bytes())
        };
        write().map_err(|source| EngineError::File { path: path.clone(), source })
    }

    pub(super) fn end_note(&self, id: &str) {
        let path = self.data_root().join(super::CREATING).join(id);
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a note on a create that has ended cannot be removed");
        }
    }
}
