//! A real executor with real host processes below a temporary folder.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bireme_core::executor::Known;
use bireme_core::executor::LogTarget;
use bireme_core::spec::{
    Dns, Mount, Namespaces, NetworkMode, Port, Protocol, Resources, Security, Signal, WorkloadKind, WorkloadSpec,
};
use bireme_core::{
    ExecError, Executor as _, Labels, Listener, NamedNetwork, Names, NamesChange, NetworkPlace, Prepared, Program,
    Workload, WorkloadId,
};
use bireme_wasm::{WasmExecutor, WasmOptions};
use sha2::{Digest as _, Sha256};

/// Longest wait for anything in a test.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) executor: WasmExecutor,
    pub(crate) options: WasmOptions,
    /// `max-size` and `max-file` of the logs.
    pub(crate) log_limits: (Option<u64>, u32),
}

impl Rig {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let dir = tempfile::Builder::new().prefix("bwt").tempdir().unwrap();
        let options = WasmOptions {
            host: PathBuf::from(env!("CARGO_BIN_EXE_bireme-wasm-host")),
            data_root: dir.path().join("data"),
            exec_root: dir.path().join("exec"),
            instance: format!("wasmtest-{}-{number}", std::process::id()),
        };
        Self { executor: WasmExecutor::new(options.clone()), options, dir, log_limits: (None, 1) }
    }

    /// What a daemon that was restarted would have.
    pub(crate) fn second_executor(&self) -> WasmExecutor {
        WasmExecutor::new(self.options.clone())
    }

    pub(crate) fn spec(&self, name: &str, labels: &[(&str, &str)]) -> WorkloadSpec {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut id = [0u8; 32];
        id[..4].copy_from_slice(&std::process::id().to_be_bytes());
        id[4..8].copy_from_slice(&NUMBER.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let labels: BTreeMap<String, String> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        WorkloadSpec {
            id: WorkloadId::from_bytes(id),
            name: name.to_owned(),
            kind: WorkloadKind::Component,
            app: None,
            service: None,
            image: "test".to_owned(),
            args: vec![name.to_owned()],
            env: Vec::new(),
            cwd: "/".to_owned(),
            user: String::new(),
            hostname: String::new(),
            domainname: String::new(),
            tty: false,
            console_size: None,
            open_stdin: false,
            stdin_once: false,
            mounts: Vec::<Mount>::new(),
            resources: Resources::default(),
            security: Security::default(),
            namespaces: Namespaces { network: NetworkMode::Attached, ..Namespaces::default() },
            extra_hosts: Vec::new(),
            dns: Dns::default(),
            shm_size: 64 << 20,
            init: false,
            stop_signal: Signal::TERM,
            stop_timeout: Duration::from_secs(10),
            ports: vec![Port { number: 80, protocol: Protocol::Tcp }],
            bireme: Labels::parse(&labels).unwrap(),
            labels,
        }
    }

    /// Creates and starts `guest` as `spec` says, published on a port of its own.
    pub(crate) async fn run(&self, spec: WorkloadSpec, guest: &str) -> Deployed {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        self.run_on(spec, &program(guest), address, Some(socket)).await.unwrap()
    }

    pub(crate) async fn run_on(
        &self,
        spec: WorkloadSpec,
        program: &Program,
        address: SocketAddr,
        socket: Option<TcpListener>,
    ) -> Result<Deployed, ExecError> {
        self.run_in(spec, program, address, socket, None, Names::new()).await
    }

    /// Sets all names that a workload finds on its network.
    pub(crate) async fn names(&self, spec: &WorkloadSpec, names: Names) {
        let resolver = self.executor.as_resolver().unwrap();
        resolver.names_changed(spec.id.as_str(), NamesChange::All(names)).await;
    }

    /// The same in a network of its own.
    pub(crate) async fn run_in(
        &self,
        spec: WorkloadSpec,
        program: &Program,
        address: SocketAddr,
        socket: Option<TcpListener>,
        network: Option<NetworkPlace>,
        names: Names,
    ) -> Result<Deployed, ExecError> {
        self.executor.check(&spec, program).await?;
        self.names(&spec, names).await;
        let prepared = self.prepared(&spec, program, address, socket, network);
        let (state_dir, run_dir, log) =
            (prepared.state_dir.clone(), prepared.run_dir.clone(), prepared.log.path.clone().unwrap());
        let workload = self.executor.create(prepared).await?;
        workload.start().await?;
        Ok(Deployed { workload, address, log, spec, state_dir, run_dir })
    }

    /// What the executor is handed of a workload, whose folders are made.
    pub(crate) fn prepared(
        &self,
        spec: &WorkloadSpec,
        program: &Program,
        address: SocketAddr,
        socket: Option<TcpListener>,
        network: Option<NetworkPlace>,
    ) -> Prepared {
        let state_dir = self.dir.path().join("state").join(spec.id.short());
        let run_dir = self.dir.path().join("run").join(spec.id.short());
        std::fs::create_dir_all(&state_dir).unwrap();
        std::fs::create_dir_all(&run_dir).unwrap();
        let log = state_dir.join("log.json");
        let container = Port { number: 80, protocol: Protocol::Tcp };
        Prepared {
            spec: spec.clone(),
            program: program.clone(),
            state_dir,
            run_dir,
            log: LogTarget { path: Some(log), max_size: self.log_limits.0, max_files: self.log_limits.1 },
            network,
            listeners: vec![Listener { host: address, container, socket: socket.map(Into::into) }],
            networks: networks(spec),
            etc: Vec::new(),
        }
    }
}

/// Each workload finds names on a network of its own, called as it is.
fn networks(spec: &WorkloadSpec) -> Vec<NamedNetwork> {
    vec![NamedNetwork { id: spec.id.as_str().to_owned(), links: BTreeMap::new() }]
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Ends the hosts of tests that failed half-way.
        let root = Path::new("/sys/fs/cgroup");
        let name = format!("bireme-{}-w", self.options.instance);
        for hierarchy in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let Ok(sandboxes) = std::fs::read_dir(hierarchy.path().join(&name)) else { continue };
            for sandbox in sandboxes.flatten().filter(|entry| entry.path().is_dir()) {
                let procs = std::fs::read_to_string(sandbox.path().join("cgroup.procs")).unwrap_or_default();
                for pid in procs.lines().filter_map(|pid| pid.parse().ok()).filter_map(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                let since = Instant::now();
                while std::fs::remove_dir(sandbox.path()).is_err() && since.elapsed() < Duration::from_secs(2) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            let _ = std::fs::remove_dir(hierarchy.path().join(&name));
        }
    }
}

pub(crate) struct Deployed {
    pub(crate) workload: Box<dyn Workload>,
    pub(crate) address: SocketAddr,
    pub(crate) log: PathBuf,
    pub(crate) spec: WorkloadSpec,
    pub(crate) state_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
}

impl Deployed {
    pub(crate) fn known(&self) -> Known<'_> {
        Known {
            spec: &self.spec,
            state_dir: self.state_dir.clone(),
            run_dir: self.run_dir.clone(),
            networks: networks(&self.spec),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.address, path)
    }

    /// The log's text, without the frames.
    pub(crate) fn log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        text.split_inclusive(|b| *b == b'\n')
            .filter_map(bireme_core::log_line::decode)
            .map(|record| record.text)
            .collect()
    }

    /// Waits until the log holds `text`.
    pub(crate) fn logged(&self, text: &str) {
        until(&format!("{text:?} in the log"), || self.log().contains(text));
    }
}

/// Waits until `done`, with a limit.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(since.elapsed() < LIMIT, "{what} did not come to pass");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for a future from a thread of a multi-threaded runtime.
pub(crate) fn futures_now<T>(future: impl Future<Output = Result<T, bireme_core::ExecError>>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future)).unwrap()
}

/// The guest called `name`, built by `cargo xtask guests`.
pub(crate) fn program(name: &str) -> Program {
    let folder = std::env::var("BIREME_GUESTS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/guests").to_owned());
    let path = Path::new(&folder).join(format!("{name}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| {
        panic!("the guest {} is not there ({error}); build the guests with `cargo xtask guests`", path.display())
    });
    Program::Component { digest: format!("sha256:{:x}", Sha256::digest(&bytes)), path, files: Vec::new() }
}

/// A component written as text.
pub(crate) fn text(rig: &Rig, text: &str) -> Program {
    bytes(rig, text.as_bytes())
}

/// A component or module, or what claims to be one.
pub(crate) fn bytes(rig: &Rig, bytes: &[u8]) -> Program {
    let digest = format!("{:x}", Sha256::digest(bytes));
    let path = rig.dir.path().join(format!("{digest}.wasm"));
    std::fs::write(&path, bytes).unwrap();
    Program::Component { path, digest: format!("sha256:{digest}"), files: Vec::new() }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    try_get(address, path).unwrap()
}

pub(crate) fn try_get(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    send(address, &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))
}

pub(crate) fn send(address: SocketAddr, request: &str) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(request.as_bytes())?;
    read_answer(stream)
}

/// Everything that comes back, and whether the connection was cut rather than closed.
pub(crate) fn raw(address: SocketAddr, request: &str) -> (String, bool) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut got = Vec::new();
    let end = stream.read_to_end(&mut got);
    (String::from_utf8_lossy(&got).into_owned(), end.is_err())
}

pub(crate) fn read_answer(stream: TcpStream) -> std::io::Result<Answer> {
    let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(invalid)?;
    let mut body = Vec::new();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let length = usize::from_str_radix(line.trim(), 16).map_err(|_| invalid())?;
            let mut chunk = vec![0; length + 2];
            reader.read_exact(&mut chunk)?;
            if length == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..length]);
        }
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
}

/// A line of `/proc/PID/status`, without its name.
pub(crate) fn status(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim().to_owned()
}

/// What the host processes of a rig said on their standard error.
pub(crate) fn host_said(rig: &Rig) -> String {
    let hosts = std::fs::read_dir(rig.options.exec_root.join("w")).into_iter().flatten().flatten();
    hosts.map(|host| std::fs::read_to_string(host.path().join("host.log")).unwrap_or_default()).collect()
}

/// The most memory that a process ever had, in MiB.
pub(crate) fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM").trim_end_matches(" kB").trim().parse::<u64>().unwrap() >> 10
}

/// The most memory that a host process of a rig ever had, in MiB. One outlives what it runs until that is deleted.
pub(crate) fn host_peak(rig: &Rig) -> u64 {
    let folder = rig.options.exec_root.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|process| process.file_name().to_str()?.parse::<u32>().ok());
    let hosts = pids.filter(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        words.contains("\0serve\0") && words.contains(folder)
    });
    hosts.map(peak).max().expect("a host process runs")
}
