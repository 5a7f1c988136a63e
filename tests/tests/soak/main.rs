//! Many clients at once, each with one story after the other: containers, commands, builds, networks, volumes, components,
//! apps, and clients that go away in the middle. At the end nothing is left, no request was stuck on the way, and the engine
//! costs what it did at the beginning.
//!
//! `./x soak --clients 200 --seconds 300` runs it in full, `--everything` with all stories; by themselves they are short.
//! `BIREME_SOAK=CLIENTSxSECONDS` says how long, which is what the chore sets.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod lives;
mod meter;
mod stories;

use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bireme_testing::{Engine, binaries, eventually, workspace};

use meter::{COLUMNS, Cost, Meter, Reading};
use stories::text;

/// Clients and seconds.
fn asked(otherwise: &str) -> (usize, u64) {
    let asked = std::env::var("BIREME_SOAK").unwrap_or_else(|_| otherwise.to_owned());
    let (clients, seconds) = asked.split_once('x').expect("CLIENTSxSECONDS");
    (clients.parse().unwrap(), seconds.parse().unwrap())
}

/// No container, no folder of one, and no descriptor more than `before`.
fn assert_nothing_left(engine: &Engine, before: Cost) {
    assert_eq!(engine.docker(["ps", "-aq"]).stdout(), "");
    let folders = |root: &Path, name: &str| std::fs::read_dir(root.join(name)).unwrap().count();
    // Beside them lies the folder of those that are being removed.
    assert_eq!(folders(&engine.data_root(), "containers") + folders(&engine.exec_root(), "c"), 1);
    eventually("removed folders", || (folders(&engine.data_root(), "containers/.removed") == 0).then_some(()));
    eventually("closed descriptors", || (Cost::of(engine.pid()).descriptors <= before.descriptors + 8).then_some(()));
}

#[test]
fn many_clients_leave_nothing_and_wait_for_nothing() {
    let (clients, seconds) = asked("24x15");
    let engine = Engine::start();
    engine.load("busybox");
    let socket = engine.socket();
    lives::one_life(&socket, "first", 0);
    let before = Cost::of(engine.pid());
    let until = Instant::now() + Duration::from_secs(seconds);
    let lives: Mutex<Vec<Duration>> = Mutex::default();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (socket, lives) = (&socket, &lives);
            scope.spawn(move || {
                for round in 0.. {
                    if Instant::now() >= until {
                        break;
                    }
                    let longest = lives::one_life(socket, &format!("soak-{client}-{round}"), client + round);
                    lives.lock().unwrap().push(longest);
                }
            });
        }
    });
    let mut longest = lives.into_inner().unwrap();
    longest.sort_unstable();
    assert!(longest.len() >= clients, "every client went round: {}", longest.len());
    assert_nothing_left(&engine, before);
    let at = |part: usize| longest[(longest.len() - 1) * part / 100];
    println!(
        "{clients} clients, {seconds} s: {} lives, {:.1}/s; longest request of a life: median {:?}, p99 {:?}, most {:?}; \
         memory {} -> {} KiB",
        longest.len(),
        longest.len() as f64 / seconds as f64,
        at(50),
        at(99),
        at(100),
        before.resident_kib,
        Cost::of(engine.pid()).resident_kib,
    );
    engine.finish();
}

/// Below this time the example app is not played, and no slope is looked for: what grows has not grown yet.
const LONG: u64 = 300;

#[test]
fn everything_at_once_leaves_nothing_and_costs_the_same_in_the_end() {
    let (clients, seconds) = asked("6x20");
    let engine = Engine::start();
    engine.load("busybox");
    for guest in ["hello", "command", "keyvalue"] {
        engine.build_guest(guest, guest);
    }
    for (number, (_, story)) in stories::ALL.iter().enumerate() {
        if seconds >= LONG || number < 4 {
            story(&engine, &format!("first-{number}"));
        }
    }
    let before = Cost::of(engine.pid());
    let images = engine.docker(["images", "-aq"]).stdout().lines().count();
    let game = (seconds >= LONG).then(|| Game::begin(&engine));
    let meter = Meter::of(&engine, game.as_ref().map(|game| game.host));

    let until = Instant::now() + Duration::from_secs(seconds);
    let (rounds, failures) = (AtomicUsize::new(0), Mutex::<Vec<String>>::default());
    let longest: Mutex<Vec<(Duration, &str)>> = Mutex::default();
    let mut readings = Vec::new();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (engine, rounds, failures, longest) = (&engine, &rounds, &failures, &longest);
            scope.spawn(move || {
                // Some go through the stories from elsewhere, so that all are told at any moment.
                for round in 0.. {
                    // What fails once is told and gone on from; what fails everywhere is not repeated for an hour.
                    if Instant::now() >= until || failures.lock().unwrap().len() > 20 {
                        break;
                    }
                    let (what, story) = stories::ALL[(client * 5 + round) % stories::ALL.len()];
                    let name = format!("soak-{client}-{round}");
                    let began = Instant::now();
                    if let Err(failure) = catch_unwind(AssertUnwindSafe(|| story(engine, &name))) {
                        let text = failure.downcast_ref::<String>().cloned();
                        let text = text.or_else(|| failure.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                        failures.lock().unwrap().push(format!("{what} ({name}): {}", text.unwrap_or_default()));
                        engine.docker(["rm", "-f", "-v", &name]);
                    }
                    longest.lock().unwrap().push((began.elapsed(), what));
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let pause = Duration::from_secs((seconds / 60).max(1));
        println!("{COLUMNS}");
        while Instant::now() + pause < until {
            std::thread::sleep(pause);
            let reading = meter.read(rounds.load(Ordering::Relaxed));
            println!("{reading}");
            readings.push(reading);
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {rounds:?} stories failed:\n{}", failures.len(), failures.join("\n\n"));
    if let Some(game) = game {
        game.end(&engine);
    }
    assert_nothing_left(&engine, before);
    assert_eq!(engine.docker(["network", "ls", "-q", "--filter", "type=custom"]).stdout(), "");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "");
    assert_eq!(engine.docker(["images", "-aq"]).stdout().lines().count(), images);
    if seconds >= LONG {
        assert_flat(&readings);
    }
    let mut longest = longest.into_inner().unwrap();
    longest.sort_unstable();
    println!(
        "{clients} clients, {seconds} s: {} stories; the longest {:?}; memory {} -> {} KiB",
        longest.len(),
        longest.last(),
        before.resident_kib,
        Cost::of(engine.pid()).resident_kib
    );
    engine.finish();
}

/// The middle of the last quarter is no more than that of the second, but for what a fuller moment makes of it.
fn assert_flat(readings: &[Reading]) {
    let quarter = readings.len() / 4;
    let middle = |part: &[Reading], what: fn(&Reading) -> u64| {
        let mut values: Vec<u64> = part.iter().map(what).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    type Measure = fn(&Reading) -> u64;
    let measures: [(&str, Measure, u64); 8] = [
        ("KiB of biremed", |reading| reading.daemon.resident_kib, 16 << 10),
        ("descriptors of biremed", |reading| reading.daemon.descriptors as u64, 32),
        ("threads of biremed", |reading| reading.daemon.threads as u64, 16),
        ("KiB of the host", |reading| reading.host.resident_kib, 16 << 10),
        ("descriptors of the host", |reading| reading.host.descriptors as u64, 32),
        ("processes", |reading| reading.processes as u64, 32),
        ("files below the exec root", |reading| reading.exec_files as u64, 64),
        ("KiB of databases", |reading| reading.state_kib, 8 << 10),
    ];
    for (name, measure, slack) in measures {
        let (early, late) =
            (middle(&readings[quarter..2 * quarter], measure), middle(&readings[3 * quarter..], measure));
        assert!(late <= early + early / 10 + slack, "{name} grow: {early} in the second quarter, {late} in the last");
    }
}

/// Whiskers with its Redis, played all the while; afterwards every score is what was acknowledged.
struct Game {
    bots: std::process::Child,
    host: u32,
    port: String,
    goes_on: PathBuf,
}

impl Game {
    fn begin(engine: &Engine) -> Self {
        engine.load("redis");
        // None of those that connections are given for a moment, as the app's start takes a while.
        let free = |port: &u16| TcpListener::bind(("0.0.0.0", *port)).is_ok();
        let port = (18_000..19_000).find(free).expect("a port is free").to_string();
        Self::bireme(engine, &port, &["up", "--detach", "--build", "--wait"]);
        let folder = engine.folder().to_string_lossy().into_owned();
        let host = meter::processes_of(&folder).into_iter().find(|(_, line)| line.contains("\"app-whiskers\""));
        let goes_on = engine.folder().join("game");
        std::fs::write(&goes_on, "").unwrap();
        let bots = std::process::Command::new("sh")
            // Bots play for five minutes at most; while the file is there, they begin again.
            .args(["-ec", "while [ -e \"$2\" ]; do \"$0\" play --players 2 --seconds 60 --port \"$1\"; done"])
            .arg(binaries().join("whiskers-bots"))
            .args([&port, text(&goes_on)])
            .env_remove("BIREME_HOST")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { bots, host: host.expect("a component host of the app").0, port, goes_on }
    }

    fn bireme(engine: &Engine, port: &str, words: &[&str]) {
        let mut command = engine.command(binaries().join("bireme"), words);
        command.env("WHISKERS_PORT", port).env("WHISKERS_OPERATOR_TOKEN", "soak");
        command.current_dir(workspace().join("examples/whiskers"));
        engine.run(command).stdout();
    }

    /// Ends within a minute, when the game of that moment is over.
    fn end(mut self, engine: &Engine) {
        std::fs::remove_file(&self.goes_on).unwrap();
        assert!(self.bots.wait().unwrap().success(), "a game failed on the way");
        Self::bireme(engine, &self.port, &["down", "--volumes", "--rmi", "all"]);
    }
}
