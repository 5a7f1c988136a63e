//! What the stories need: an executor of its own, an image, and ways to run something to its end.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bireme_core::executor::{Known, LogTarget};
use bireme_core::log_line;
use bireme_core::spec::{Dns, Namespaces, NetworkMode, Resources, Security, Signal, WorkloadKind};
use bireme_core::{ExecError, Executor, Exit, Labels, Prepared, Program, Workload, WorkloadId, WorkloadSpec};
use bireme_linux::cgroup::Cgroup;
use bireme_linux::{LinuxExecutor, LinuxOptions};

/// An engine's worth of folders, gone with the test.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) instance: String,
    pub(crate) executor: LinuxExecutor,
    next: AtomicU32,
}

pub(crate) fn options(instance: &str, dir: &Path) -> LinuxOptions {
    let mut options = LinuxOptions::new(env!("CARGO_BIN_EXE_bireme-runner"), instance, dir.join("filters"));
    options.attach_stall = Duration::from_secs(2);
    options
}

impl Bench {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let instance = format!("test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = tempfile::Builder::new().prefix("bireme-linux-").tempdir().unwrap();
        busybox(&dir.path().join("image"));
        let executor = LinuxExecutor::new(options(&instance, dir.path())).unwrap();
        Self { dir, instance, executor, next: AtomicU32::new(1) }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// A container that runs `args`, with all of Docker's defaults and no network.
    pub(crate) fn spec(&self, args: &[&str]) -> WorkloadSpec {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0u8; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        bytes[4..8].copy_from_slice(&std::process::id().to_be_bytes());
        let id = WorkloadId::from_bytes(bytes);
        WorkloadSpec {
            name: format!("test-{number}"),
            kind: WorkloadKind::Container,
            app: None,
            service: None,
            image: "busybox".into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: Vec::new(),
            cwd: "/".into(),
            user: String::new(),
            hostname: id.short().to_owned(),
            domainname: String::new(),
            tty: false,
            console_size: None,
            open_stdin: false,
            stdin_once: false,
            mounts: Vec::new(),
            resources: Resources::default(),
            security: Security::default(),
            namespaces: Namespaces { network: NetworkMode::None, ..Namespaces::default() },
            extra_hosts: Vec::new(),
            dns: Dns::default(),
            shm_size: 64 << 20,
            init: false,
            stop_signal: Signal::TERM,
            stop_timeout: Duration::from_secs(10),
            ports: Vec::new(),
            labels: Default::default(),
            bireme: Labels::default(),
            id,
        }
    }

    pub(crate) fn sh(&self, script: &str) -> WorkloadSpec {
        self.spec(&["sh", "-c", script])
    }

    pub(crate) fn folder(&self, spec: &WorkloadSpec) -> PathBuf {
        self.dir.path().join(spec.id.short())
    }

    pub(crate) fn prepare(&self, spec: &WorkloadSpec) -> Prepared {
        let base = self.folder(spec);
        for name in ["upper", "work", "state", "run"] {
            std::fs::create_dir_all(base.join(name)).unwrap();
        }
        Prepared {
            spec: spec.clone(),
            program: Program::Layers { lower: vec![self.image()], upper: base.join("upper"), work: base.join("work") },
            state_dir: base.join("state"),
            run_dir: base.join("run"),
            log: LogTarget { path: Some(base.join("log")), max_size: None, max_files: 1 },
            network: None,
            listeners: Vec::new(),
            networks: Vec::new(),
            etc: vec![("/etc/hosts".into(), "127.0.0.1\tlocalhost\n".into())],
        }
    }

    pub(crate) fn known<'a>(&self, spec: &'a WorkloadSpec) -> Known<'a> {
        let base = self.folder(spec);
        Known { spec, state_dir: base.join("state"), run_dir: base.join("run"), networks: Vec::new() }
    }

    pub(crate) async fn create(&self, spec: &WorkloadSpec) -> Result<Box<dyn Workload>, ExecError> {
        self.executor.create(self.prepare(spec)).await
    }

    pub(crate) async fn start(&self, spec: &WorkloadSpec) -> Box<dyn Workload> {
        let workload =
            self.create(spec).await.unwrap_or_else(|error| panic!("create: {error:?} {}", self.runner_log(spec)));
        workload.start().await.unwrap_or_else(|error| panic!("start: {error:?} {}", self.runner_log(spec)));
        workload
    }

    /// Runs to the end; answers how it ended and what it wrote.
    pub(crate) async fn run(&self, spec: &WorkloadSpec) -> (Exit, String) {
        let workload = self.start(spec).await;
        let exit = end(&*workload).await;
        let output = self.log(spec);
        workload.delete().await.unwrap();
        (exit, output)
    }

    /// Runs a script to its end; answers its output, which must end well.
    pub(crate) async fn output(&self, spec: &WorkloadSpec) -> String {
        let (exit, output) = self.run(spec).await;
        assert_eq!(exit.code, 0, "{output} {exit:?}");
        output
    }

    pub(crate) fn log(&self, spec: &WorkloadSpec) -> String {
        read_log(&self.folder(spec).join("log"))
    }

    pub(crate) fn runner_log(&self, spec: &WorkloadSpec) -> String {
        std::fs::read_to_string(self.folder(spec).join("run/runner.log")).unwrap_or_default()
    }

    pub(crate) fn cgroup(&self, spec: &WorkloadSpec) -> Cgroup {
        Cgroup::new(&format!("/bireme-{}/{}", self.instance, spec.id))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let parent = Cgroup::new(&format!("/bireme-{}", self.instance));
        let _ = parent.kill(Duration::from_secs(5));
        let _ = parent.remove();
    }
}

pub(crate) async fn end(workload: &dyn Workload) -> Exit {
    tokio::time::timeout(Duration::from_secs(60), workload.wait()).await.expect("the container does not end").unwrap()
}

pub(crate) fn read_log(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(|line| log_line::decode(line).expect("a whole record").text)
        .collect()
}

/// Polls until `probe` gives something.
pub(crate) async fn until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < limit, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The connection for use on a plain thread.
pub(crate) fn blocking(stream: UnixStream) -> UnixStream {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream
}

/// Takes Docker's frames apart: standard output and standard error.
pub(crate) fn frames(mut bytes: &[u8]) -> (String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    while bytes.len() >= 8 {
        let length = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
        let text = &bytes[8..8 + length];
        match bytes[0] {
            1 => out.extend_from_slice(text),
            2 => err.extend_from_slice(text),
            other => panic!("stream {other}"),
        }
        bytes = &bytes[8 + length..];
    }
    assert!(bytes.is_empty());
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
}

fn busybox(image: &Path) {
    for folder in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "home/bob"] {
        std::fs::create_dir_all(image.join(folder)).unwrap();
    }
    std::fs::copy("/bin/busybox", image.join("bin/busybox")).unwrap();
    let list = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
    for applet in String::from_utf8(list.stdout).unwrap().lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", image.join("bin").join(applet)).unwrap();
    }
    std::fs::write(image.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n")
        .unwrap();
    std::fs::write(image.join("etc/group"), "root:x:0:\nbob:x:1001:\nwheel:x:10:bob\n").unwrap();
}
