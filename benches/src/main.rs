//! Whole-product timings. Every contender takes its turn in every round, so that whatever else the machine does meets all
//! of them; what is told is the median, with the least and the most beside it.
//!
//! `./x bench` builds the release binaries, sets the peers up and runs this.

#![expect(clippy::print_stdout, reason = "a program whose output is its purpose")]

mod builds;
mod components;
mod containers;
mod cost;
mod density;
mod growth;
mod http;
mod images;
mod registry;
mod rest;
mod sample;
mod starts;

use std::path::PathBuf;

use clap::Parser;

/// Where the peers are; one that is not given is left out.
#[derive(Parser)]
struct Peers {
    /// Socket of Docker's own engine, with the test images loaded
    #[arg(long)]
    dockerd: Option<PathBuf>,
    /// Its process ID
    #[arg(long)]
    dockerd_pid: Option<u32>,
    /// A podman command with its flags, the test images loaded
    #[arg(long)]
    podman: Option<String>,
    /// `DOCKER_CONFIG` of a docker command line that has buildx
    #[arg(long)]
    buildx: Option<PathBuf>,
    /// The wasmtime binary
    #[arg(long)]
    wasmtime: Option<PathBuf>,
    /// Rounds of each table
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Only these tables: run, start, http, density, rest, images, builds, components
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// The table of growth instead, for these numbers
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=2000))]
    growth: Vec<u16>,
}

impl Peers {
    fn wants(&self, table: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|one| one == table)
    }
}

fn main() {
    let peers = Peers::parse();
    println!("{}\n", machine());
    if !peers.growth.is_empty() {
        growth::run(&peers.growth.iter().map(|size| usize::from(*size)).collect::<Vec<_>>());
        return;
    }
    if peers.wants("run") {
        containers::run(&peers);
    }
    if peers.wants("start") {
        starts::run(&peers);
    }
    if peers.wants("http") {
        http::run(&peers);
    }
    if peers.wants("density") {
        density::run();
    }
    if peers.wants("rest") {
        rest::run();
    }
    if peers.wants("images") {
        images::run(&peers);
    }
    if peers.wants("builds") {
        builds::run(&peers);
    }
    if peers.wants("components") {
        components::run(&peers);
    }
}

/// What all of this was measured on.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let memory =
        read("/proc/meminfo").split_whitespace().nth(1).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.split(['-', '\n']).next().unwrap_or_default();
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or_default();
    let groups =
        if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "cgroup v2" } else { "cgroup v1" };
    format!(
        "Machine: {processors} virtual {} cores shared with other machines, {:.0} GiB, Linux {kernel}, {groups}; load {load} before \
         the first round.",
        std::env::consts::ARCH,
        memory / f64::from(1 << 20),
    )
}
