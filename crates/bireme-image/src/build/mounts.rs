//! `RUN --mount`: what a command finds beside the image's files.
//!
//! Source: the Dockerfile reference, "RUN --mount"; BuildKit, `frontend/dockerfile/dockerfile2llb/convert_runmount.go`.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bireme_core::BoxFuture;
use bireme_dockerfile::Instruction;
use bireme_dockerfile::read::{Mount, MountKind, Sharing};

use super::base_image::Elsewhere;
use super::copy::{self, CopyRequest};
use super::graph::{Graph, Place};
use super::run::{Access, Hidden, StepMount, StepMountSource, Stub};
use super::source::AgentSocket;
use super::stage::{Stage, fault};
use crate::blocking::blocking;
use crate::error::{ImageError, StoreContext as _};
use crate::events::StepId;
use crate::folders;
use crate::model::CacheKind;
use crate::unpack::{Options, unpack};
use crate::view::View;
use crate::wanted::while_wanted;

/// The mounts of one command, before anything of them is opened.
pub(super) struct Mounts {
    mounts: Vec<Mounted>,
    working_dir: String,
    /// What of them makes another layer.
    pub(super) keys: Vec<String>,
    /// The steps that made what is mounted.
    pub(super) inputs: Vec<StepId>,
}

struct Mounted {
    mount: Mount,
    files: Option<Elsewhere>,
}

/// The mounts of one command while it runs.
#[derive(Default)]
pub(super) struct Opened {
    pub(super) mounts: Vec<StepMount>,
    pub(super) env: Vec<String>,
    pub(super) secret_env: Vec<String>,
    pub(super) keep: Vec<Arc<dyn Any + Send + Sync>>,
}

impl<'a> Graph<'a> {
    /// Finds what a command has mounted, and by what its cache knows it.
    pub(super) async fn mounts(
        &'a self,
        stage: &Stage,
        at: &Instruction,
        place: &Place,
        mounts: Vec<Mount>,
    ) -> Result<Mounts, ImageError> {
        let working_dir = stage.config.config.working_dir.clone();
        let mut found = Mounts { mounts: Vec::new(), working_dir, keys: Vec::new(), inputs: Vec::new() };
        for mount in mounts {
            let takes_files = mount.kind == MountKind::Bind || (mount.kind == MountKind::Cache && mount.from.is_some());
            let files = match &mount.from {
                _ if !takes_files => None,
                Some(name) => Some(self.other(at, place.stage, name).await?),
                None => Some(self.main_context(place).await?),
            };
            let source = mount.source.clone().unwrap_or_default();
            let content = match &files {
                // Files of the client are known by what is in them, layers by their names.
                Some(files) if files.of_client && mount.kind == MountKind::Bind => {
                    self.content(at, files, &source).await?
                }
                Some(files) => format!("{:?} {source}", files.folders),
                _ => String::new(),
            };
            // What is in a secret or an agent does not make another layer; what a cache holds neither.
            found.keys.push(format!(
                "{} {:?} {content} {:?}",
                mount.kind.as_str(),
                (&mount.target, &mount.env, mount.read_only, &mount.size, &mount.id, &mount.source),
                (mount.mode, mount.uid, mount.gid, mount.sharing),
            ));
            found.inputs.extend(files.iter().filter_map(|files| files.step.clone()));
            found.mounts.push(Mounted { mount, files });
        }
        Ok(found)
    }

    async fn content(&self, at: &Instruction, files: &Elsewhere, source: &str) -> Result<String, ImageError> {
        let order = CopyRequest::whole(at.keyword.as_str(), at.lines.first, source, "/mounted/", true);
        let jobs = copy::Jobs {
            orders: vec![(order, files.folders.clone(), false)],
            below: Vec::new(),
            ignore: Arc::default(),
        };
        let inner = self.shared.store.inner.clone();
        while_wanted("look at files to be mounted", move |wanted| jobs.sum(&inner, wanted)).await
    }

    /// Opens what a command has mounted. Caches that are locked are waited for.
    pub(super) async fn open_mounts(
        &'a self,
        stage: &Stage,
        at: &Instruction,
        mounts: Mounts,
        command: &str,
    ) -> Result<Opened, ImageError> {
        let mut opened = Opened::default();
        let Mounts { mut mounts, working_dir, .. } = mounts;
        // What the client is asked for first: it may take its time, and others wait for caches.
        let mut lent = Vec::new();
        for Mounted { mount, .. } in &mounts {
            lent.push(match mount.kind {
                MountKind::Secret => Loan::Secret(self.shared.sources.secret(mount.secret_id()).await?),
                MountKind::Ssh => Loan::Agent(self.shared.sources.ssh(mount.ssh_id()).await?),
                _ => Loan::Nothing,
            });
        }
        // Always in one order, and each once: two commands that wait for each other's cache would wait for ever.
        let mut caches: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (number, mounted) in mounts.iter().enumerate().filter(|(_, one)| one.mount.kind == MountKind::Cache) {
            caches.entry(cache_key(at, mounted, &working_dir)?).or_default().push(number);
        }
        let mut folders: Vec<Option<Arc<folders::HeldFolder>>> = mounts.iter().map(|_| None).collect();
        for (key, numbers) in caches {
            let mounted = &mounts[numbers[0]];
            // One that begins with something is made of that, and stays.
            if stage.no_cache && key == mounted.mount.cache_id(&working_dir).map_err(|reason| fault(at, reason))? {
                self.shared.renew_cache(&key).await?;
            }
            let target = mounted.mount.target_in(&working_dir).map_err(|reason| fault(at, reason))?;
            let folder = Arc::new(self.cache_folder(at, mounted, &key, &target, command).await?);
            numbers.into_iter().for_each(|number| folders[number] = Some(Arc::clone(&folder)));
        }
        let mut agents = 0;
        for ((Mounted { mount, files }, folder), loan) in mounts.drain(..).zip(folders).zip(lent) {
            let target = || mount.target_in(&working_dir).map_err(|reason| fault(at, reason));
            let access = |mode: u32| Access {
                mode: mount.mode.unwrap_or(mode),
                uid: mount.uid.unwrap_or(0),
                gid: mount.gid.unwrap_or(0),
            };
            let (target, source) = match mount.kind {
                MountKind::Bind => {
                    let Some(files) = files else { continue };
                    let source = mount.source.clone().unwrap_or_default();
                    let subpath = self.subpath(at, &files, &source)?;
                    opened.keep.extend(files.keep);
                    let source = match files.folders.is_empty() {
                        // Nothing, which stays so.
                        true => StepMountSource::Tmpfs { size: None },
                        false => StepMountSource::Layers { lower: files.folders, subpath },
                    };
                    (target()?, source)
                }
                MountKind::Cache => {
                    let Some(folder) = folder else { continue };
                    let source = mount.source.as_deref().filter(|_| mount.from.is_none()).unwrap_or_default();
                    let path = within(at, folder.path(), source)?;
                    opened.keep.push(folder);
                    (target()?, StepMountSource::Folder(path))
                }
                MountKind::Tmpfs => (target()?, StepMountSource::Tmpfs { size: mount.size }),
                MountKind::Secret => {
                    let id = mount.secret_id();
                    let Loan::Secret(Some(content)) = loan else {
                        if mount.required {
                            return Err(fault(
                                at,
                                format!("secret {id}: not found: give it to the build with --secret id={id}"),
                            ));
                        }
                        continue;
                    };
                    if let Some(name) = &mount.env {
                        let text = String::from_utf8(content.clone()).map_err(|_| {
                            fault(at, format!("secret {id}: it is no text, which a variable has to be"))
                        })?;
                        opened.secret_env.push(format!("{name}={text}"));
                    }
                    let Some(target) = mount.secret_target() else { continue };
                    let target = absolute(&working_dir, &target);
                    (target, StepMountSource::Secret { content: Hidden(content), access: access(0o400) })
                }
                MountKind::Ssh => {
                    let id = mount.ssh_id();
                    let Loan::Agent(Some(socket)) = loan else {
                        if mount.required {
                            return Err(fault(
                                at,
                                format!("ssh key {id}: not found: lend it to the build with --ssh {id}"),
                            ));
                        }
                        continue;
                    };
                    let target = match &mount.target {
                        Some(target) => absolute(&working_dir, target),
                        None => format!("/run/buildkit/ssh_agent.{agents}"),
                    };
                    if agents == 0 {
                        opened.env.push(format!("SSH_AUTH_SOCK={target}"));
                    }
                    agents += 1;
                    opened.keep.push(socket.keep());
                    (target, StepMountSource::Socket { path: socket.path.clone(), access: access(0o600) })
                }
            };
            let read_only = mount.read_only && mount.kind != MountKind::Ssh;
            let stub = self.stub(stage, &target)?;
            opened.mounts.push(StepMount { target, read_only, source, stub });
        }
        Ok(opened)
    }

    /// Where a file or folder is that is mounted, without links on the way.
    fn subpath(&self, at: &Instruction, files: &Elsewhere, source: &str) -> Result<PathBuf, ImageError> {
        let view = View::new(files.folders.clone())?;
        let (place, found) = view
            .resolve(&Path::new("/").join(source), true)
            .map_err(|error| fault(at, format!("cannot mount {source}: {error}")))?;
        if found.is_none() && place != Path::new("/") {
            return Err(fault(
                at,
                format!("cannot mount {source}: \"/{}\": not found", source.trim_start_matches('/')),
            ));
        }
        Ok(place.strip_prefix("/").unwrap_or(&place).to_owned())
    }

    async fn cache_folder(
        &'a self,
        at: &Instruction,
        mounted: &Mounted,
        key: &str,
        target: &str,
        command: &str,
    ) -> Result<folders::HeldFolder, ImageError> {
        let mount = &mounted.mount;
        let id = key.lines().next().unwrap_or_default();
        let sharing = match mount.sharing {
            Sharing::Shared => folders::Sharing::Shared,
            Sharing::Private => folders::Sharing::Private,
            Sharing::Locked => folders::Sharing::Locked,
        };
        let (mode, uid, gid) = (mount.mode.unwrap_or(0o755), mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
        let base =
            mounted.files.as_ref().map(|files| (files.folders.clone(), mount.source.clone().unwrap_or_default()));
        let store = self.shared.store.clone();
        let line = at.lines.first;
        let fill = move |folder: PathBuf| -> BoxFuture<'static, Result<(), ImageError>> {
            let (store, base) = (store.clone(), base.clone());
            Box::pin(async move {
                if let Some((lower, source)) = base {
                    copy_into(&store, lower, source, folder.clone(), line).await?;
                }
                blocking("make a folder of builds", move || {
                    std::os::unix::fs::chown(&folder, Some(uid), Some(gid)).during("set the owner of", &folder)?;
                    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode & 0o7777);
                    std::fs::set_permissions(&folder, mode).during("set the mode of", &folder)
                })
                .await
            })
        };
        let description = format!("cached mount {target} from exec {command} with id \"/{id}\"");
        self.shared.store.take_folder(CacheKind::Mount, key, &description, sharing, &fill).await
    }

    /// What is made in the image's files to mount something at `target`.
    pub(super) fn stub(&self, stage: &Stage, target: &str) -> Result<Option<Stub>, ImageError> {
        let view = View::new(self.shared.folders(&stage.layers))?;
        let Ok((place, None)) = view.resolve(Path::new(target), true) else { return Ok(None) };
        let mut first = place.clone();
        for above in place.ancestors().skip(1) {
            match view.look(above) {
                Ok(None) if above.parent().is_some() => above.clone_into(&mut first),
                _ => break,
            }
        }
        Ok(Some(Stub { place, first }))
    }
}

/// What a client lends for a mount.
enum Loan {
    Nothing,
    Secret(Option<Vec<u8>>),
    Agent(Option<AgentSocket>),
}

/// By what a cache is known: its name, and what it begins with, a folder of somebody's own or files.
fn cache_key(at: &Instruction, mounted: &Mounted, working_dir: &str) -> Result<String, ImageError> {
    let id = mounted.mount.cache_id(working_dir).map_err(|reason| fault(at, reason))?;
    let Mount { mode, uid, gid, source, .. } = &mounted.mount;
    let own = match (mode, uid, gid) {
        (None, None, None) => String::new(),
        _ => format!("\n{:o} {} {}", mode.unwrap_or(0o755), uid.unwrap_or(0), gid.unwrap_or(0)),
    };
    Ok(match &mounted.files {
        Some(files) => format!("{id}{own}\n{:?}\n{source:?}", files.folders),
        None => format!("{id}{own}"),
    })
}

/// Copies what stands at `source` in layers into an empty folder.
async fn copy_into(
    store: &crate::store::ImageStore,
    lower: Vec<PathBuf>,
    source: String,
    folder: PathBuf,
    line: usize,
) -> Result<(), ImageError> {
    let inner = store.inner.clone();
    while_wanted("copy files into a folder of builds", move |wanted| {
        let order = CopyRequest::whole("RUN", line, &source, "/", false);
        let copied = copy::copy(&inner, wanted, order, lower, Vec::new())?;
        let archive = std::fs::File::open(&copied.layer.path).during("open", &copied.layer.path)?;
        let limits = &inner.settings.limits;
        let options = Options {
            name: "(a cache of builds)",
            whiteouts: false,
            owners: true,
            max_bytes: limits.layer_bytes,
            max_entries: limits.entries,
        };
        unpack(Box::new(archive), wanted, &folder, &options).map(drop)
    })
    .await
}

/// A folder below a cache's, which its users fill with what they like.
fn within(at: &Instruction, folder: &Path, source: &str) -> Result<PathBuf, ImageError> {
    let source = source.trim_matches('/');
    if source.is_empty() {
        return Ok(folder.to_owned());
    }
    Err(fault(at, format!("a cache is mounted whole: source={source} needs from= beside it")))
}

/// A path on top of the working directory.
fn absolute(working_dir: &str, path: &str) -> String {
    Path::new("/").join(working_dir).join(path).to_string_lossy().into_owned()
}
