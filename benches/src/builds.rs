//! Builds: one with nothing to do, one that does everything, and one with many small files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use bireme_testing::Engine;

use crate::Peers;
use crate::images::Place;
use crate::sample::{Samples, figure, print_table};

/// Files of the context of the third table.
const FILES: usize = 1000;

/// Twenty steps of the kinds that people write.
fn dockerfile() -> String {
    let mut text =
        "FROM busybox\nWORKDIR /app\nENV ONE=1 TWO=2\nCOPY package.txt .\nRUN cp package.txt lock.txt\n".to_owned();
    for number in 0..6 {
        text += &format!("COPY part{number}.txt src/\nRUN cat src/part{number}.txt >> all.txt\n");
    }
    text + "LABEL a=b\nEXPOSE 80\nCMD [\"cat\", \"all.txt\"]\n"
}

/// One way to build: an engine, and the protocol that its client speaks.
struct Way {
    name: &'static str,
    host: String,
    /// `DOCKER_CONFIG` with buildx; without it the classic endpoint is spoken to.
    buildx: Option<PathBuf>,
}

impl Way {
    /// Builds `context` and answers how many milliseconds that took, or what is wrong.
    fn build(&self, context: &Path, flags: &[&str]) -> Result<f64, String> {
        let began = Instant::now();
        let output = client(self.buildx.as_deref())
            .args(["-H", &self.host, "build", "-q", "-t", "bench"])
            .args(flags)
            .arg(context)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())?;
        let took = began.elapsed().as_secs_f64() * 1e3;
        if output.status.success() { Ok(took) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    fn must_build(&self, context: &Path, flags: &[&str]) -> f64 {
        self.build(context, flags).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// Makes a context of many small files, which has no file of another number.
fn write_many(folder: &Path, context: usize) {
    let write = |path: PathBuf, text: &str| std::fs::write(path, text).expect("target/ can be written to");
    write(folder.join("Dockerfile"), "FROM scratch\nCOPY . /\n");
    for number in 0..FILES {
        let folder = folder.join(format!("d{}", number / 50));
        std::fs::create_dir_all(&folder).expect("target/ can be written to");
        write(folder.join(format!("file{number}.js")), &format!("export const n = {number} + {context};\n").repeat(40));
    }
}

/// Docker's command line.
fn client(buildx: Option<&Path>) -> Command {
    let mut command = Command::new("docker");
    match buildx {
        Some(config) => command.env("DOCKER_BUILDKIT", "1").env("DOCKER_CONFIG", config),
        None => command.env("DOCKER_BUILDKIT", "0"),
    };
    command
}

pub(crate) fn run(peers: &Peers) {
    let place = Place::new();
    let engine = Engine::on(&place.folder("bireme"));
    engine.load("busybox");
    let steps = place.folder("steps");
    let write = |path: PathBuf, text: &str| std::fs::write(path, text).expect("target/ can be written to");
    write(steps.join("Dockerfile"), &dockerfile());
    for name in ["package", "part0", "part1", "part2", "part3", "part4", "part5"] {
        write(steps.join(format!("{name}.txt")), name);
    }
    let many = place.folder("many");
    write_many(&many, 0);

    let mut ways = Vec::new();
    let dockerd = peers.dockerd.as_ref().map(|socket| format!("unix://{}", socket.display()));
    for buildx in [None].into_iter().chain(peers.buildx.clone().map(Some)) {
        let name = if buildx.is_some() { "Bireme, buildx" } else { "Bireme, classic endpoint" };
        ways.push(Way { name, host: engine.host(), buildx: buildx.clone() });
        if let Some(host) = dockerd.clone() {
            let with = ["dockerd 26.1.5, classic endpoint", "dockerd 26.1.5, its BuildKit by buildx"];
            ways.push(Way { name: with[usize::from(buildx.is_some())], host, buildx });
        }
    }
    // Not every engine takes every protocol on every machine; what it says is told below the tables.
    let mut left_out = Vec::new();
    ways.retain(|way| match way.build(&steps, &[]) {
        Ok(_) => true,
        Err(error) => {
            left_out.push(format!("{}: {}", way.name, error.lines().last().unwrap_or_default()));
            false
        }
    });

    let mut own = Samples::default();
    let [mut cold, mut warm, mut context, mut first] = [(); 4].map(|()| {
        let mut all = Vec::new();
        all.resize_with(ways.len(), Samples::default);
        all
    });
    for round in 0..peers.rounds {
        let start: &[&str] = if peers.buildx.is_some() { &["buildx", "version"] } else { &["--version"] };
        let began = Instant::now();
        let _ = client(peers.buildx.as_deref()).args(start).stdout(Stdio::null()).status();
        own.add(began.elapsed().as_secs_f64() * 1e3);
        // So that there is something to do each time.
        write(many.join("d0/file0.js"), &format!("export const round = {round};\n"));
        for (at, way) in ways.iter().enumerate() {
            warm[at].add(way.must_build(&steps, &[]));
            context[at].add(way.must_build(&many, &[]));
            if round % 3 == 0 {
                cold[at].add(way.must_build(&steps, &["--no-cache"]));
                // What the next build finds is that of this round.
                way.must_build(&steps, &[]);
                // A folder that nobody has built from, with files that nobody has.
                let new = place.folder(&format!("new-{round}-{at}"));
                write_many(&new, round * ways.len() + at + 1);
                first[at].add(way.must_build(&new, &[]));
            }
        }
    }
    let start = own.median();
    let own = vec!["the client's own start".to_owned(), own.told(), figure(0.0)];
    let table = |title: &str, samples: &[Samples]| {
        let mut rows = vec![own.clone()];
        rows.extend(ways.iter().zip(samples).map(|(way, samples)| {
            vec![way.name.to_owned(), samples.told(), figure((samples.median() - start).max(0.0))]
        }));
        print_table(title, &["what", "ms: median (least–most)", "above the client's own start"], &rows);
    };
    let rounds = peers.rounds;
    table(&format!("`docker build` of a Dockerfile of 20 steps, nothing changed, {rounds} rounds"), &warm);
    table(&format!("The same with `--no-cache`, {} rounds", rounds.div_ceil(3)), &cold);
    table(&format!("`docker build` with {FILES} files of context, one of them changed, {rounds} rounds"), &context);
    table(&format!("The same with {FILES} files that were never there, {} rounds", rounds.div_ceil(3)), &first);
    for line in left_out {
        println!("Left out: {line}\n");
    }
    engine.finish();
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_dockerfile_has_twenty_steps() {
        assert_eq!(super::dockerfile().lines().count(), 20);
    }
}
