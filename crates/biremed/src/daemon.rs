//! The daemon's life: validate, build, bind, announce; then stop accepting, drain, report.
//!
//! Workloads live in processes of their own: they go on when the daemon ends, however it ends, and the next one finds
//! them again.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bireme_buildkit::Results;
use bireme_core::{Executor, env};
use bireme_engine::{Engine, EngineOptions};
use bireme_image::{ImageStore, RegistrySettings};
use bireme_linux::{LinuxExecutor, LinuxOptions};
use bireme_net::{KernelNet, NetOptions};
use bireme_wasm::{WasmExecutor, WasmOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::host::Host;
use crate::settings::Settings;
use crate::{home, routes, server, socket};

/// Bytes of the exec root: paths of sockets below it must fit into 108.
const EXEC_ROOT_LIMIT: usize = 60;
/// Threads that answer requests. The work itself is done by other processes.
const WORKERS: usize = 2;
/// Threads that answer the DNS questions of workloads and pass on what comes to published ports: no request waits for
/// them, nor they for one.
const NET_WORKERS: usize = 1;
/// How long changes that are under way may take once the daemon is to stop.
const CHANGES: Duration = Duration::from_secs(5);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting, in a sentence.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    start_log(&settings)?;
    // As dockerd has it: whatever the shell or the service manager left, files made for containers have the modes that
    // programs expect, and what others must not read is closed by a mode of its own.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Systemd hands over no sockets here, and what a shell left open is nothing for those who run containers.
    if let Err(error) = bireme_sys::fds::close_on_exec_from(3) {
        tracing::debug!(%error, "descriptors of whoever started biremed go on to what it starts");
    }
    raise_file_limit();
    let runtime = |name: &str, workers: usize| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(workers).thread_name(name).enable_all().build().context("cannot start the runtime")
    };
    let (requests, net) = (runtime("biremed", WORKERS)?, runtime("biremed-net", NET_WORKERS)?);
    let ended = requests.block_on(serve(settings, net.handle().clone()));
    // Whatever still blocks a thread must not keep the process.
    requests.shutdown_timeout(Duration::from_secs(1));
    net.shutdown_timeout(Duration::from_secs(1));
    ended
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log_filter)
        .with_context(|| format!("cannot read the log filter {:?}", settings.log_filter))?;
    let colours = std::io::stderr().is_terminal() && std::env::var_os(env::NO_COLOR).is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    Ok(())
}

/// Each workload, client and published port costs descriptors: take all that are allowed.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

async fn serve(settings: Settings, net: Handle) -> anyhow::Result<()> {
    let length = settings.exec_root.as_os_str().len();
    if length > EXEC_ROOT_LIMIT {
        bail!(
            "the exec root {} has {length} bytes, and at most {EXEC_ROOT_LIMIT} leave room for the sockets below it: choose a shorter --exec-root",
            settings.exec_root.display()
        );
    }
    // Asked for before anything is built, so that a signal during a long recovery is not lost.
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

    socket::make_closed_folder(&settings.data_root)?;
    // The socket lies in it, which a group may use: others pass through.
    socket::make_own_folder(&settings.exec_root, 0o711)?;
    let _locks = (
        socket::lock(socket::Root::Data, &settings.data_root)?,
        socket::lock(socket::Root::Exec, &settings.exec_root)?,
    );
    home::claim(&settings.data_root, &settings.exec_root, &settings.instance, |instance| {
        let folders = std::fs::read_dir(settings.data_root.join("containers")).into_iter().flatten().flatten();
        let ids = folders.filter_map(|folder| folder.file_name().into_string().ok()).collect();
        bireme_linux::runs(instance, &ids) || bireme_wasm::runs(instance)
    })?;
    for folder in ["wasm", "images"] {
        socket::make_closed_folder(&settings.data_root.join(folder))?;
    }
    for folder in ["net", "filters"] {
        socket::make_closed_folder(&settings.exec_root.join(folder))?;
    }
    let engine = open_engine(&settings, &net).await?;
    let mut listeners = Vec::new();
    let mut files = Vec::new();
    for path in &settings.sockets {
        let socket = socket::listen(path, settings.group.as_deref())?;
        listeners.push(socket.listener);
        files.push(socket.file);
        tracing::info!(path = %path.display(), "API listens");
    }
    let pidfile = settings.pidfile.clone();
    if let Some(path) = &pidfile {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .with_context(|| format!("cannot write the process ID to {}", path.display()))?;
    }

    let stop = CancellationToken::new();
    let changes = TaskTracker::new();
    let app = App {
        images: engine.images().clone(),
        engine: engine.clone(),
        host: Arc::new(Host::read()),
        stop: stop.clone(),
        changes: changes.clone(),
        build_results: Results::default(),
        collecting: Arc::default(),
        settings: Arc::new(settings),
    };
    app.collect_soon();
    let serving = tokio::spawn(server::serve(listeners, routes::router(app), stop.clone()));
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping; workloads go on running"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping; workloads go on running"),
    }
    stop.cancel();
    let cut = serving.await.context("the server ended badly")?;
    if cut > 0 {
        tracing::warn!(connections = cut, "clients were cut off: their requests took too long to end");
    }
    changes.close();
    if tokio::time::timeout(CHANGES, changes.wait()).await.is_err() {
        tracing::warn!(
            changes = changes.len(),
            "changes are left unfinished: the next start goes on from what is there"
        );
    }
    engine.close().await;
    drop(files);
    if let Some(path) = &pidfile {
        let _ = std::fs::remove_file(path);
    }
    tracing::info!("stopped");
    Ok(())
}

/// Images, networks and both executors, and the engine over them, which finds again what an earlier daemon left.
async fn open_engine(settings: &Settings, net: &Handle) -> anyhow::Result<Engine> {
    let instance = settings.instance.clone();
    let registries = RegistrySettings {
        insecure: settings.insecure_registries.clone(),
        mirrors: settings.registry_mirrors.clone(),
        config_dirs: settings.registry_config_dirs.clone(),
        downloads: settings.max_concurrent_downloads,
        uploads: settings.max_concurrent_uploads,
        ..RegistrySettings::default()
    };
    let images =
        ImageStore::open(&settings.data_root.join("images"), registries).await.context("cannot open the images")?;
    let options =
        NetOptions { instance: instance.clone(), run_dir: settings.exec_root.join("net"), upstream_dns: None };
    // Whose runtime it is opened in answers for it.
    let opened = net.spawn(KernelNet::open(options)).await.context("cannot open the networks")?;
    let net = opened.context("cannot open the networks")?;
    let linux = LinuxExecutor::new(LinuxOptions::new(&settings.runner, &instance, settings.exec_root.join("filters")))?;
    let wasm = WasmExecutor::new(WasmOptions {
        host: settings.wasm_host.clone(),
        data_root: settings.data_root.clone(),
        exec_root: settings.exec_root.clone(),
        instance: instance.clone(),
    });
    let executors: Vec<Arc<dyn Executor>> = vec![Arc::new(linux), Arc::new(wasm)];
    Engine::open(EngineOptions {
        data_root: settings.data_root.clone(),
        exec_root: settings.exec_root.clone(),
        instance,
        images,
        net: Arc::new(net),
        executors,
        log: settings.log.clone(),
    })
    .await
    .context("cannot open the engine")
}
