//! `run --rm` of `true`: from the command line's start to its end, beside Docker's engine and podman.

use std::process::{Command, Stdio};
use std::time::Instant;

use bireme_testing::Engine;

use crate::Peers;
use crate::sample::{Samples, figure, print_table};

pub(crate) fn run(peers: &Peers) {
    let engine = Engine::start();
    engine.load("busybox");
    let bireme = bireme_testing::binaries().join("bireme").to_string_lossy().into_owned();
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let run = |mut line: Vec<String>, rest: &str| {
        line.extend(words(rest));
        line
    };
    let docker = |host: &str| words(&format!("docker -H {host} run --rm"));
    let ours = engine.host();
    let mut contenders = vec![
        ("`docker --version`: the command line's own start", words("docker --version")),
        ("`docker run`, Bireme, bridge", run(docker(&ours), "busybox true")),
        ("`docker run`, Bireme, no network", run(docker(&ours), "--network none busybox true")),
        ("`bireme run`, bridge", words(&format!("{bireme} -H {ours} run --rm busybox true"))),
    ];
    if let Some(socket) = &peers.dockerd {
        let theirs = format!("unix://{}", socket.display());
        contenders.push(("`docker run`, dockerd 26.1.5, bridge", run(docker(&theirs), "busybox true")));
        contenders
            .push(("`docker run`, dockerd 26.1.5, no network", run(docker(&theirs), "--network none busybox true")));
    }
    if let Some(podman) = &peers.podman {
        // Its defaults ask for more open files than this machine grants anyone.
        let podman = || run(words(podman), "run --rm --ulimit nofile=1024:1024 --ulimit nproc=1024:1024");
        contenders.push(("`podman run` 4.3.1 with runc, bridge", run(podman(), "busybox true")));
        contenders.push(("`podman run` 4.3.1 with runc, no network", run(podman(), "--network none busybox true")));
    }
    let mut samples: Vec<Samples> = contenders.iter().map(|_| Samples::default()).collect();
    for round in 0..peers.rounds + 2 {
        for ((name, line), samples) in contenders.iter().zip(&mut samples) {
            let began = Instant::now();
            let status = Command::new(&line[0])
                .args(&line[1..])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .status()
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            let took = began.elapsed();
            assert!(status.success(), "{name} ended with {status}: {}", line.join(" "));
            // The first two rounds warm caches and start what the contenders start once.
            if round >= 2 {
                samples.add(took.as_secs_f64() * 1e3);
            }
        }
    }
    let own = samples[0].median();
    let rows: Vec<_> = contenders
        .iter()
        .zip(&samples)
        .map(|((name, _), samples)| vec![(*name).to_owned(), samples.told(), figure((samples.median() - own).max(0.0))])
        .collect();
    print_table(
        &format!("`run --rm` of busybox's `true`, {} rounds", peers.rounds),
        &["what", "ms: median (least–most)", "above the command line's own start"],
        &rows,
    );
    many(&engine);
    engine.finish();
}

/// Fifty at once, as a test suite or a build farm would.
fn many(engine: &Engine) {
    const AT_ONCE: usize = 50;
    let mut samples = Samples::default();
    for _ in 0..3 {
        let began = Instant::now();
        let children: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let mut command = engine.command("docker", ["run", "--rm", "busybox", "true"]);
                command.stdout(Stdio::null()).spawn().unwrap_or_else(|error| panic!("docker: {error}"))
            })
            .collect();
        for mut child in children {
            let status = child.wait().unwrap_or_else(|error| panic!("docker: {error}"));
            assert!(status.success(), "one of {AT_ONCE} ended with {status}");
        }
        samples.add(began.elapsed().as_secs_f64());
    }
    print_table(
        "Fifty `docker run --rm busybox true` started at once, until the last has ended",
        &["what", "s: median (least–most)"],
        &[vec!["Bireme, bridge".to_owned(), samples.told()]],
    );
}
