//! An engine with an image, work on it that is cut short, and what must be so afterwards.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bireme_testing::{Engine, Output, eventually};

/// What `BIREME_SEED` and the like say, or this.
pub(crate) fn said(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Numbers that look random. Source: Marsaglia, "Xorshift RNGs".
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(of: &str) -> Self {
        let start = of.bytes().fold(said("BIREME_SEED", 9) ^ 0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self(start | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound.max(1)
    }
}

/// The context of an image with some megabytes in four layers, of which one is many files.
pub(crate) fn write_context(folder: &Path, random: &mut Random) {
    for name in ["one", "two"] {
        let bytes: Vec<u8> = (0..2 << 17).flat_map(|_| random.below(u64::MAX).to_le_bytes()).collect();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    std::fs::create_dir(folder.join("many")).unwrap();
    for number in 0..400 {
        std::fs::write(folder.join("many").join(number.to_string()), format!("{number}\n")).unwrap();
    }
    let dockerfile = "FROM busybox\nCOPY one /data/\nCOPY many /data/many/\nRUN cat /data/many/* | md5sum > /data/sum\n\
                      COPY two /data/\nCMD cat $(find /data -type f | sort) | md5sum\n";
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
}

/// The context of a build of several stages, and the file of a secret that it takes.
pub(crate) struct Stages {
    pub(crate) context: tempfile::TempDir,
    pub(crate) secret: PathBuf,
    _folder: tempfile::TempDir,
}

/// Two stages that do not wait for each other, of which one reads a secret and the other has a folder that is kept. The story
/// sees from here on that nothing on the disk has the secret.
pub(crate) fn write_stages(story: &mut Story) -> Stages {
    let (context, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_context(context.path(), &mut story.random);
    let dockerfile = "FROM busybox AS one\nCOPY one /data/\n\
                      RUN --mount=type=secret,id=token md5sum < /run/secrets/token > /data/token && sleep 0.1\n\
                      FROM busybox AS two\nCOPY two /data/\n\
                      RUN --mount=type=cache,target=/kept md5sum /data/two > /kept/sum && sleep 0.1 && cp /kept/sum /data/\n\
                      FROM busybox\nCOPY many /data/many/\nCOPY --from=one /data /data\nCOPY --from=two /data /data\n\
                      CMD cat $(find /data -type f | sort) | md5sum\n";
    std::fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let secret = folder.path().join("token");
    let text = format!("secret-{:x}-{:x}", story.random.below(u64::MAX), story.random.below(u64::MAX));
    std::fs::write(&secret, &text).unwrap();
    story.secret = Some(text);
    Stages { context, secret, _folder: folder }
}

/// An engine, the image that it works on, and what that prints.
pub(crate) struct Story {
    pub(crate) engine: Engine,
    pub(crate) context: tempfile::TempDir,
    pub(crate) name: String,
    pub(crate) printed: String,
    pub(crate) random: Random,
    /// What must be in no file of the engine's.
    secret: Option<String>,
}

impl Story {
    pub(crate) fn begin(of: &str, name: &str) -> Self {
        let engine = Engine::start();
        engine.load("busybox");
        let context = tempfile::tempdir().unwrap();
        let mut random = Random::new(of);
        write_context(context.path(), &mut random);
        let mut story = Self { engine, context, name: name.to_owned(), printed: String::new(), random, secret: None };
        story.engine.run(story.build()).stdout();
        story.printed = story.run().stdout().to_owned();
        assert!(story.printed.len() > 32, "{:?}", story.printed);
        story
    }

    pub(crate) fn build(&self) -> Command {
        let mut command = self.engine.command("docker", ["build", "-q", "-t", &self.name]);
        command.arg(self.context.path()).env("DOCKER_BUILDKIT", "0");
        command
    }

    pub(crate) fn docker(&self, args: &[&str]) -> Command {
        self.engine.command("docker", args)
    }

    pub(crate) fn run(&self) -> Output {
        self.engine.docker(["run", "--rm", &self.name])
    }

    /// Does `work` many times, each after `before`; kills the daemon or the client meanwhile, and looks at what is left.
    pub(crate) fn is_cut_short(&mut self, work: impl Fn(&Self) -> Command, before: impl Fn(&Self)) {
        before(self);
        let begun = Instant::now();
        self.engine.run(work(self)).stdout();
        let whole = u64::try_from(begun.elapsed().as_micros()).unwrap();
        for turn in 0..said("BIREME_MOMENTS", 6) {
            before(self);
            let daemon = turn % 3 != 2;
            let moment = Duration::from_micros(self.random.below(whole));
            let about = format!(
                "turn {turn}, {} killed after {moment:?} of {whole} µs",
                if daemon { "daemon" } else { "client" }
            );
            let mut client = work(self).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(moment);
            if daemon {
                self.engine.crash();
                let _ = client.wait();
                self.engine.come_back();
            } else {
                let _ = client.kill();
                let _ = client.wait();
            }
            self.is_well(&about);
            // The same again, whole.
            let again = self.engine.run(work(self));
            assert_eq!(again.code, 0, "{about}: {again}");
            if self.engine.docker(["images", "-q", &self.name]).stdout() != "" {
                assert_eq!(self.run().stdout(), self.printed, "{about}");
            }
        }
    }

    /// Everything stored is whole, and nothing half-made is left.
    #[track_caller]
    pub(crate) fn is_well(&self, about: &str) {
        is_well(&self.engine, about);
        if let Some(secret) = &self.secret {
            // What it keeps and what a restart of the machine empties, its log, and what of it is mounted.
            let mut search = Command::new("grep");
            search.args(["-rlaF", "--devices=skip", "--", secret]);
            search.args([self.engine.data_root(), self.engine.exec_root(), self.engine.folder().join("log")]);
            // A build whose client went away ends on its own.
            eventually(&format!("{about}: no file has the secret"), || {
                // 1 where it could look everywhere, and found nothing.
                (search.output().unwrap().status.code() == Some(1)).then_some(())
            });
        }
    }

    /// With the last image nothing of any is left.
    pub(crate) fn end(self) {
        all_goes(&self.engine);
        self.engine.finish();
    }
}

pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[track_caller]
pub(crate) fn is_well(engine: &Engine, about: &str) {
    let images = engine.data_root().join("images");
    let half_made = || {
        let mut left = names_in(&images.join("ingest"));
        left.extend(
            names_in(&images).into_iter().filter(|name| name.starts_with("ingest-left") || name.starts_with(".tmp")),
        );
        left
    };
    let until = Instant::now() + Duration::from_secs(30);
    while !half_made().is_empty() || engine.docker(["ps", "-aq"]).stdout() != "" {
        assert!(Instant::now() < until, "{about}: {:?} and {} are left", half_made(), engine.docker(["ps", "-a"]));
        std::thread::sleep(Duration::from_millis(50));
    }
    let verified = engine.bireme(["system", "verify"]);
    assert!(verified.code == 0 && verified.raw_stdout().contains("nothing is damaged"), "{about}: {verified}");
    // Every image that is listed is whole: it can be saved, which reads all its blobs.
    for id in engine.docker(["images", "-aq", "--no-trunc"]).stdout().lines() {
        let saved = engine.request("GET", &format!("/images/{id}/get"), b"");
        assert!(saved.status == 200 && saved.body.ends_with(&[0; 512]), "{about}: {id} gives {}", saved.status);
    }
}

/// Removes all images and the cache of builds: then no file of any is left.
#[track_caller]
pub(crate) fn all_goes(engine: &Engine) {
    let ids = engine.docker(["images", "-aq"]);
    for id in ids.stdout().lines() {
        engine.docker(["rmi", "-f", id]);
    }
    engine.docker(["system", "prune", "-af"]).stdout();
    let images = engine.data_root().join("images");
    let left = || ["blobs/sha256", "layers/sha256", "ingest", "components"].map(|part| names_in(&images.join(part)));
    let until = Instant::now() + Duration::from_secs(30);
    while !left().iter().all(Vec::is_empty) {
        let kept = || engine.docker(["system", "df", "-v"]);
        assert!(Instant::now() < until, "left of images: {:?}\n{}", left(), kept());
        std::thread::sleep(Duration::from_millis(50));
    }
}
