//! A hello component over HTTP, a fresh instance for each request, beside `wasmtime serve` of the same version with the
//! pool flags that serve it best.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use bireme_testing::{Engine, eventually, free_port, guest};

use crate::Peers;
use crate::sample::{Samples, figure, print_plot, print_table};

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

/// At once, for whole runs of each contender.
const CONNECTIONS: [u16; 4] = [1, 16, 32, 128];
const SECONDS: &str = "3";

struct Contender {
    name: String,
    port: u16,
    pid: u32,
    /// For each number of connections.
    measured: [Measured; CONNECTIONS.len()],
    _child: Option<Served>,
}

#[derive(Default)]
struct Measured {
    rate: Samples,
    processor: Samples,
    /// The latency that one request of a hundred exceeds, in milliseconds.
    slow: Samples,
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
    for (generation, name) in [("0.2", "hello"), ("0.3", "hello3")] {
        engine.build_guest(name, name);
        let port = free_port();
        let publish = format!("127.0.0.1:{port}:80");
        engine.bireme(["run", "-d", "--name", name, "-p", &publish, name]).stdout();
        let mut contenders = vec![Contender::new("Bireme".to_owned(), port, host_of(), None)];
        if let Some(wasmtime) = &peers.wasmtime {
            for (flags, with) in [(&[][..], ""), (&["-Wtimeout=30s"][..], ", with a time limit as ours has")] {
                let (port, child) = serve(wasmtime, &guest(name), flags);
                let name = format!("`wasmtime serve` 48, best pool flags{with}");
                contenders.push(Contender::new(name, port, child.id(), Some(Served(child))));
            }
        }
        for round in 0..=rounds {
            for at in 0..CONNECTIONS.len() {
                for contender in &mut contenders {
                    contender.turn(at, round > 0);
                }
            }
        }
        tell(generation, rounds, &contenders);
        engine.docker(["rm", "-f", name]).stdout();
    }
    engine.finish();
}

fn tell(generation: &str, rounds: usize, contenders: &[Contender]) {
    let mut rows = Vec::new();
    for (at, connections) in CONNECTIONS.iter().enumerate() {
        let least = |one: &Contender| one.measured[at].processor.median();
        for contender in contenders {
            let measured = &contender.measured[at];
            // Of Bireme, beside the better of its peers.
            let peers = contenders.iter().skip(1).map(least).fold(f64::INFINITY, f64::min);
            let share = if std::ptr::eq(contender, &contenders[0]) && peers.is_finite() {
                figure(least(contender) / peers)
            } else {
                String::new()
            };
            let (slow, rate) = (figure(measured.slow.median()), figure(measured.rate.median()));
            rows.push(vec![
                connections.to_string(),
                contender.name.clone(),
                measured.processor.told(),
                share,
                rate,
                slow,
            ]);
        }
    }
    let title = format!(
        "A hello component of `wasi:http` {generation}, a fresh instance for each request, {rounds} rounds of {SECONDS} s"
    );
    let columns = [
        "connections",
        "what",
        "processor time of a request, µs: median (least–most)",
        "of the better peer's",
        "requests/s, median",
        "99 of 100 within, ms",
    ];
    print_table(&title, &columns, &rows);
    let lines: Vec<(&str, Vec<f64>)> = contenders
        .iter()
        .map(|one| (one.name.as_str(), one.measured.iter().map(|measured| measured.processor.median()).collect()))
        .collect();
    let title = format!("Processor time of a request, wasi:http {generation}, by connections");
    print_plot(&title, &CONNECTIONS.map(|count| count.to_string()), "µs", &lines);
}

impl Contender {
    fn new(name: String, port: u16, pid: u32, child: Option<Served>) -> Self {
        eventually("an answer of 200", || {
            let answer = bireme_testing::client::tcp(port, "GET", "/", "", b"").ok()?;
            (answer.status == 200).then_some(())
        });
        Self { name, port, pid, measured: Default::default(), _child: child }
    }

    fn turn(&mut self, at: usize, counts: bool) {
        let before = processor_time(self.pid);
        let url = format!("http://127.0.0.1:{}/", self.port);
        let output = Command::new("wrk")
            .args(["-c", &CONNECTIONS[at].to_string(), "-t", "1", "-d", SECONDS, "--latency", &url])
            .output()
            .unwrap_or_else(|error| panic!("wrk: {error}; ./x bench installs it"));
        let spent = processor_time(self.pid) - before;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{}: {text}", self.name);
        let line = |marker: &str| text.lines().find(|line| line.contains(marker)).unwrap_or_default();
        let number = |line: &str| line.split_whitespace().find_map(|word| word.parse::<f64>().ok()).unwrap_or(f64::NAN);
        if counts {
            let measured = &mut self.measured[at];
            measured.rate.add(number(line("Requests/sec:")));
            measured.processor.add(spent * 1e6 / number(line("requests in")));
            measured.slow.add(milliseconds(line("99%").split_whitespace().last().unwrap_or_default()));
        }
    }
}

/// A duration as wrk writes it, such as `1.20ms`.
fn milliseconds(text: &str) -> f64 {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let value: f64 = digits.parse().unwrap_or(f64::NAN);
    match &text[digits.len()..] {
        "us" => value / 1000.0,
        "s" => value * 1000.0,
        _ => value,
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

/// The process in which the components of an engine with one app run. Nobody else has a host of these binaries meanwhile.
pub(crate) fn host_of() -> u32 {
    let program = bireme_testing::binaries().join("bireme-wasm-host").display().to_string();
    let hosts = std::fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
        let resident: u64 = resident.split_whitespace().next()?.parse().ok()?;
        String::from_utf8_lossy(&line).starts_with(&program).then_some((resident, pid))
    });
    // Others are kept ready, and have less.
    hosts.max().expect("the component runs in a host").1
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
