//! A hello component over HTTP, a fresh instance for each request, beside `wasmtime serve` of the same version with the
//! pool flags that serve it best.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use bireme_testing::{Engine, eventually, free_port, guest};

use crate::Peers;
use crate::sample::{Samples, figure, print_table};

/// As our own host has its pool; a fresh instance for each request.
const POOL: &[&str] = &[
    "-Scli",
    "-Opooling-allocator=y",
    "-Opooling-memory-keep-resident=2097152",
    "-Opooling-table-keep-resident=65536",
    "-Opooling-max-memory-size=268435456",
    "-Opooling-pagemap-scan=auto",
    "-Wcomponent-model-async=y",
    "--max-instance-reuse-count=1",
];

const CONNECTIONS: &str = "32";
const SECONDS: &str = "4";

struct Contender {
    name: String,
    port: u16,
    pid: u32,
    rate: Samples,
    processor: Samples,
    _child: Option<Served>,
}

/// `wasmtime serve`, ended with us.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(peers: &Peers) {
    let rounds = peers.rounds.div_ceil(3);
    let engine = Engine::start();
    let mut rows = Vec::new();
    for (generation, name) in [("0.2", "hello"), ("0.3", "hello3")] {
        engine.build_guest(name, name);
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:80");
        engine.bireme(["run", "-d", "--name", name, "-p", &publish, name]).stdout();
        let mut contenders =
            vec![Contender::new(format!("Bireme, `wasi:http` {generation}"), port, host_of(&engine), None)];
        if let Some(wasmtime) = &peers.wasmtime {
            for (flags, with) in [(&[][..], ""), (&["-Wtimeout=30s"][..], ", with a time limit as ours has")] {
                let (port, child) = serve(wasmtime, &guest(name), flags);
                let name = format!("`wasmtime serve` 48, best pool flags{with}, {generation}");
                contenders.push(Contender::new(name, port, child.id(), Some(Served(child))));
            }
        }
        for round in 0..=rounds {
            for contender in &mut contenders {
                contender.turn(round > 0);
            }
        }
        rows.extend(
            contenders.iter().map(|one| vec![one.name.clone(), one.processor.told(), figure(one.rate.median())]),
        );
        engine.docker(["rm", "-f", name]).stdout();
    }
    print_table(
        &format!(
            "A hello component, a fresh instance for each request, {CONNECTIONS} connections, {rounds} rounds of {SECONDS} s"
        ),
        &["what", "processor time of a request, µs: median (least–most)", "requests/s, median"],
        &rows,
    );
    engine.finish();
}

impl Contender {
    fn new(name: String, port: u16, pid: u32, child: Option<Served>) -> Self {
        eventually("an answer of 200", || {
            let answer = bireme_testing::client::tcp(port, "GET", "/", "", b"").ok()?;
            (answer.status == 200).then_some(())
        });
        Self { name, port, pid, rate: Samples::default(), processor: Samples::default(), _child: child }
    }

    fn turn(&mut self, counts: bool) {
        let before = processor_time(self.pid);
        let url = format!("http://127.0.0.1:{}/", self.port);
        let output = Command::new("wrk")
            .args(["-c", CONNECTIONS, "-t", "1", "-d", SECONDS, &url])
            .output()
            .unwrap_or_else(|error| panic!("wrk: {error}; ./x bench installs it"));
        let spent = processor_time(self.pid) - before;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{}: {text}", self.name);
        let word = |marker: &str| -> f64 {
            let line = text.lines().find(|line| line.contains(marker)).unwrap_or_default();
            line.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(f64::NAN)
        };
        if counts {
            self.rate.add(word("Requests/sec:"));
            self.processor.add(spent * 1e6 / word("requests in"));
        }
    }
}

/// Seconds of processor time that a process has used, in its own code and in the kernel.
pub(crate) fn processor_time(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<u64> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_whitespace().map(|word| word.parse().unwrap_or(0)).collect())
        .unwrap_or_default();
    // The fourteenth and fifteenth of proc_pid_stat(5), in ticks of 10 ms.
    (fields[11] + fields[12]) as f64 / 100.0
}

/// The process in which the components of an engine with one app run.
pub(crate) fn host_of(engine: &Engine) -> u32 {
    let run = engine.exec_root();
    let hosts = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).into_owned();
        (line.contains("bireme-wasm-host") && line.contains(run.to_str()?)).then_some(pid)
    });
    hosts.max().expect("the component runs in a host")
}

fn serve(wasmtime: &Path, guest: &Path, flags: &[&str]) -> (u16, Child) {
    let port = free_port();
    let child = Command::new(wasmtime)
        .arg("serve")
        .args(POOL)
        .args(flags)
        .args(["--addr", &format!("127.0.0.1:{port}")])
        .arg(guest)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", wasmtime.display()));
    (port, child)
}
