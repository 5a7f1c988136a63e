//! A private engine: the real `biremed` in temporary folders, with its real clients.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::client::{self, Answer};
use crate::leftovers::Leftovers;
use crate::output::Output;
use crate::{binaries, eventually, image, workspace};

/// A running engine. Dropping it ends it with everything it runs.
pub struct Engine {
    folder: TempDir,
    daemon: Option<Child>,
    flags: Vec<String>,
    /// The data root is a mount of its own, which goes with the engine.
    mounted: bool,
}

/// What the data root of an engine in memory may hold: far more than the test images need.
const IN_MEMORY: u64 = 512 << 20;

impl Engine {
    /// With its data root on the disk.
    ///
    /// # Panics
    /// When it does not come up, with its log; the other constructors likewise.
    #[track_caller]
    pub fn start() -> Self {
        Self::with_flags(&[])
    }

    /// With further flags of `biremed`.
    #[track_caller]
    pub fn with_flags(flags: &[&str]) -> Self {
        let mut engine = Self::new();
        engine.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        engine.launch();
        engine
    }

    /// With its data root in memory: nothing waits for a disk, so that it is up, and has an image, in half the time. For
    /// tests of one short case each, which are not about what a crash leaves on the disk.
    #[track_caller]
    pub fn in_memory() -> Self {
        Self::on_small_disk(IN_MEMORY)
    }

    /// With a data root that holds `bytes` and no more: a tmpfs, for which the test must run as root.
    #[track_caller]
    pub fn on_small_disk(bytes: u64) -> Self {
        let mut engine = Self::new();
        std::fs::create_dir(engine.data_root()).expect("a folder can be made");
        let options = std::ffi::CString::new(format!("size={bytes}")).expect("no zero byte");
        rustix::mount::mount(
            "bireme-test",
            engine.data_root(),
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            options.as_c_str(),
        )
        .expect("tests run as root and may mount");
        engine.mounted = true;
        engine.launch();
        engine
    }

    /// With what another engine left in `data_root`, which becomes its own by a link.
    #[track_caller]
    pub fn on(data_root: &Path) -> Self {
        let mut engine = Self::new();
        std::os::unix::fs::symlink(data_root, engine.data_root()).expect("a link can be made");
        engine.launch();
        engine
    }

    /// One that is not started yet.
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("bm").tempdir().expect("a temporary folder can be made");
        Self { folder, daemon: None, flags: Vec::new(), mounted: false }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `--data-root` of the daemon: what it remembers, images, containers.
    pub fn data_root(&self) -> PathBuf {
        self.path("data")
    }

    /// `--exec-root` of the daemon: sockets and namespace files.
    pub fn exec_root(&self) -> PathBuf {
        self.path("run")
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.path("s")
    }

    /// As `DOCKER_HOST` takes it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// What the daemon has logged so far; empty where it cannot be read.
    pub fn daemon_log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The short name that marks everything of this engine on the machine.
    #[track_caller]
    pub fn instance(&self) -> String {
        let answer = self.request("GET", "/bireme/v1/capabilities", b"");
        answer.json()["Instance"].as_str().expect("capabilities name the instance").to_owned()
    }

    #[track_caller]
    fn launch(&mut self) {
        let log =
            std::fs::File::options().create(true).append(true).open(self.path("log")).expect("the log can be opened");
        let daemon = Command::new(binaries().join("biremed"))
            .arg("--data-root")
            .arg(self.data_root())
            .arg("--exec-root")
            .arg(self.exec_root())
            .arg("-H")
            .arg(self.host())
            .args(&self.flags)
            .env("BIREME_LOG", std::env::var("BIREME_LOG").unwrap_or_else(|_| "info".to_owned()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("biremed can be started");
        self.daemon = Some(daemon);
        eventually("a ready engine", || {
            let exited = self.daemon.as_mut().and_then(|daemon| daemon.try_wait().ok().flatten());
            assert!(
                exited.is_none(),
                "biremed ended at once ({exited:?}):\n{}",
                std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
            client::unix(&self.socket(), "GET", "/_ping", "", b"").ok().filter(|answer| answer.status == 200)
        });
    }

    /// The process ID of the daemon.
    ///
    /// # Panics
    /// Between [`Engine::crash`] and [`Engine::come_back`].
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Kills the daemon as a crash would; what it runs goes on. Nothing where it does not run.
    pub fn crash(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().expect("the daemon can be killed");
            daemon.wait().expect("the daemon can be waited for");
        }
    }

    /// Starts the daemon again after [`Engine::crash`], and waits until it answers.
    #[track_caller]
    pub fn come_back(&mut self) {
        assert!(self.daemon.is_none(), "crash it first");
        self.launch();
    }

    /// The `docker` command line with the newest buildx, against this engine.
    ///
    /// # Panics
    /// When `./x setup` has not installed it.
    pub fn buildx(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let config = self.path("buildx");
        if !config.exists() {
            let plugins = workspace().join("target/setup/docker-buildx/cli-plugins");
            assert!(plugins.is_dir(), "{} is missing: run `./x setup`", plugins.display());
            std::fs::create_dir(&config).expect("a folder can be made");
            std::os::unix::fs::symlink(plugins, config.join("cli-plugins")).expect("a link can be made");
        }
        let mut command = self.command("docker", args);
        command.env("DOCKER_CONFIG", &config).env("HOME", self.folder());
        command
    }

    /// Runs the `docker` command line against this engine.
    pub fn docker(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        self.run(self.command("docker", args))
    }

    /// Runs our own command line against this engine.
    pub fn bireme(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        self.run(self.command(binaries().join("bireme"), args))
    }

    /// A client command with the engine's address in its environment, not yet run.
    pub fn command(&self, program: impl AsRef<OsStr>, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_CONFIG", self.path("docker"))
            .env_remove("BIREME_HOST")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, however that is.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn run(&self, command: Command) -> Output {
        Output::of(command)
    }

    /// One request by hand; a `body` is sent as JSON.
    ///
    /// # Panics
    /// When nobody answers, with the daemon's log.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let headers = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        client::unix(&self.socket(), method, path, headers, body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.daemon_log()))
    }

    /// Loads a test image from its archive, as `docker load` does. By hand: every test does it, and a client costs more
    /// than the loading.
    ///
    /// # Panics
    /// When the engine refuses it.
    #[track_caller]
    pub fn load(&self, name: &str) {
        let archive = std::fs::read(image(name)).expect("the archive of an image can be read");
        let answer = client::unix(
            &self.socket(),
            "POST",
            "/images/load?quiet=1",
            "Content-Type: application/x-tar\r\n",
            &archive,
        )
        .unwrap_or_else(|error| panic!("{name} cannot be loaded: {error}\n{}", self.daemon_log()));
        let text = answer.text();
        assert!(
            answer.status == 200 && text.contains("Loaded image"),
            "{name} is not loaded: {} {text}",
            answer.status
        );
    }

    /// Makes the image `tag` of platform `wasi/wasm` from the guest `guest`.
    ///
    /// # Panics
    /// When the build fails.
    #[track_caller]
    pub fn build_guest(&self, guest: &str, tag: &str) {
        let context = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::copy(crate::guest(guest), context.path().join("app.wasm")).expect("the guest can be copied");
        std::fs::write(
            context.path().join("Dockerfile"),
            "FROM scratch\nCOPY app.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n",
        )
        .expect("a file can be written");
        self.bireme([
            "build",
            "-q",
            "--platform",
            "wasi/wasm",
            "-t",
            tag,
            context.path().to_str().expect("plain paths"),
        ])
        .stdout();
    }

    /// Ends the engine with everything it runs.
    ///
    /// # Panics
    /// When anything of it remains on the machine: processes, mounts, namespaces, links, rules, cgroups.
    #[track_caller]
    pub fn finish(mut self) {
        let instance = self.instance();
        self.take_down();
        eventually("nothing left behind", || {
            let left = Leftovers::of(&instance).in_folder(self.folder.path());
            if left.is_empty() {
                Some(())
            } else {
                eprint_once(&left);
                None
            }
        });
    }

    fn take_down(&mut self) {
        if self.daemon.is_none() {
            return;
        }
        let engine = &*self;
        // Side by side: one that does not end holds up no other.
        std::thread::scope(|scope| {
            for id in engine.ids("/containers/json?all=1") {
                scope.spawn(move || engine.discard(&format!("/containers/{id}?force=1&v=1")));
            }
        });
        // `{"type":["custom"]}`: those that it did not make itself.
        for id in self.ids("/networks?filters=%7B%22type%22%3A%5B%22custom%22%5D%7D") {
            self.discard(&format!("/networks/{id}"));
        }
        if let Some(mut daemon) = self.daemon.take() {
            let _ =
                rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM);
            let _ = daemon.wait();
        }
        if std::mem::take(&mut self.mounted) {
            let _ = rustix::mount::unmount(self.data_root(), rustix::mount::UnmountFlags::DETACH);
        }
    }

    /// The IDs in a list; none where the daemon does not answer.
    fn ids(&self, path: &str) -> Vec<String> {
        let list = client::unix(&self.socket(), "GET", path, "", b"").map(|answer| answer.body).unwrap_or_default();
        let list: Vec<serde_json::Value> = serde_json::from_slice(&list).unwrap_or_default();
        list.iter().filter_map(|one| one["Id"].as_str().map(str::to_owned)).collect()
    }

    /// Removes something if it is there and may be removed; what then remains is found by [`Engine::finish`].
    fn discard(&self, path: &str) {
        let _ = client::unix(&self.socket(), "DELETE", path, "", b"");
    }

    /// The engine's folder, for tests that put files beside it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

#[expect(clippy::print_stderr, reason = "a test that waits in vain shall show what for")]
fn eprint_once(left: &Leftovers) {
    use std::sync::Once;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| eprintln!("still there: {left:?}"));
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.take_down();
        if std::thread::panicking() {
            let log = self.daemon_log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            #[expect(clippy::print_stderr, reason = "a failed test shall show the daemon's last words")]
            {
                eprintln!("--- the daemon's last words\n{}", tail.join("\n"));
            }
        }
    }
}
