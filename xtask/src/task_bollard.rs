//! `bollard`: the integration tests of the Docker client library bollard, from its published package, against Bireme or
//! against Docker's own engine.
//!
//! They want a registry with a few images. It is Debian's, made for the run, and the images are built and pushed through
//! the engine under test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bireme_testing::{Engine, client, free_port};
use clap::Parser;

use crate::{house, task_oracle};

const VERSION: &str = "0.21.1";

/// Those that need a swarm, by the name of their file.
const OF_SWARMS: [&str; 5] = ["config_test", "node_test", "secret_test", "service_test", "task_test"];

/// What fails on this machine, whichever engine, and why.
const BEYOND: [(&str, &str); 2] = [
    ("integration_test_search_images", "searches Docker Hub, which is not to be reached from where tests run"),
    ("test_downversioning", "speaks to /var/run/docker.sock, whatever DOCKER_HOST says"),
];

/// What stands in for the images that the tests' authors publish.
const UHTTPD: &str = r#"FROM busybox
RUN mkdir -p /usr/sbin /etc/config /www \
 && printf '#!/bin/sh\nexec httpd "$@"\n' > /usr/sbin/run_uhttpd && chmod 755 /usr/sbin/run_uhttpd \
 && printf '\nconfig uhttpd main\n' > /etc/config/uhttpd && echo hello > /www/index.html
EXPOSE 80
"#;

#[derive(Parser, Default)]
pub(crate) struct Args {
    /// Docker's own engine in place of Bireme
    #[arg(long)]
    oracle: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let tests = build()?;
    let outcomes = if args.oracle {
        task_oracle::start()?;
        let pid = house::read(&house::made("oracle/pid"))?;
        // Its own network namespace: the registry must be on its side.
        let registry = Registry::start(Some(pid.trim()))?;
        let outcomes = run_all(&tests, &format!("unix://{}", task_oracle::socket().display()), &registry);
        task_oracle::stop()?;
        outcomes?
    } else {
        let engine = Engine::start();
        let registry = Registry::start(None)?;
        let outcomes = run_all(&tests, &engine.host(), &registry)?;
        engine.finish();
        outcomes
    };
    judge(&outcomes)
}

/// Compiles the published package's tests; answers their binaries by name.
fn build() -> Result<BTreeMap<String, PathBuf>> {
    let source = house::made("bollard/source");
    house::once("bollard's tests, as published", VERSION, &source.join("Cargo.toml"), || unpack(&source))?;
    let target = house::made("bollard/build");
    let built = house::output(
        house::cargo(&["test", "--locked", "--tests", "--no-run", "--message-format", "json", "--target-dir"])
            .arg(&target)
            .current_dir(&source),
    )?;
    let mut tests = BTreeMap::new();
    for line in built.lines() {
        let message: serde_json::Value =
            serde_json::from_str(line).context("cargo printed something that is no JSON")?;
        if let (Some(name), Some(path)) = (message["target"]["name"].as_str(), message["executable"].as_str()) {
            tests.insert(name.to_owned(), PathBuf::from(path));
        }
    }
    if tests.is_empty() {
        bail!("the package bollard {VERSION} has no tests");
    }
    Ok(tests)
}

/// Fetches the package as any dependency is fetched, and copies it to where it can be built.
fn unpack(source: &Path) -> Result<()> {
    let user = house::made("bollard/fetch");
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[lib]\npath = \"lib.rs\"\n\n\
         [dependencies]\nbollard = \"={VERSION}\"\n\n[workspace]\n"
    );
    house::write(&user.join("Cargo.toml"), manifest)?;
    house::write(&user.join("lib.rs"), "")?;
    let metadata = house::output(house::cargo(&["metadata", "--format-version", "1"]).current_dir(&user))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
    let package = metadata["packages"].as_array().into_iter().flatten().find(|package| package["name"] == "bollard");
    let manifest = package.and_then(|package| package["manifest_path"].as_str()).context("bollard was not fetched")?;
    let folder = Path::new(manifest).parent().context("a manifest lies in a folder")?;
    let _ = fs::remove_dir_all(source);
    house::run(house::program("cp").arg("-r").arg(folder).arg(source))?;
    // It must not take itself for a part of the workspace that it is built in.
    let manifest = source.join("Cargo.toml");
    house::write(&manifest, format!("{}\n[workspace]\n", house::read(&manifest)?))
}

struct Registry {
    process: Child,
    folder: PathBuf,
    address: String,
}

impl Registry {
    /// `beside`: the process in whose network it shall be.
    fn start(beside: Option<&str>) -> Result<Self> {
        let folder = house::made("bollard/registry");
        let _ = fs::remove_dir_all(&folder);
        let port = free_port();
        let address = format!("localhost:{port}");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            folder.join("data").display()
        );
        house::write(&folder.join("config.yml"), config)?;
        let mut command = match beside {
            None => house::program("docker-registry"),
            Some(pid) => {
                let mut command = house::program("nsenter");
                command.arg(format!("--net=/proc/{pid}/ns/net")).arg("docker-registry");
                command
            }
        };
        let log = fs::File::create(folder.join("log")).context("cannot create the registry's log")?;
        let process = command
            .arg("serve")
            .arg(folder.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start docker-registry")?;
        let registry = Self { process, folder, address };
        if beside.is_none() {
            let answers = || client::tcp(port, "GET", "/v2/", "", b"").is_ok();
            let since = Instant::now();
            while !answers() {
                if since.elapsed() > Duration::from_secs(20) {
                    bail!("the registry does not answer; see {}", registry.folder.join("log").display());
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// How each test ended, by name: `ok`, `FAILED` or `ignored`.
type Outcomes = BTreeMap<String, String>;

fn run_all(tests: &BTreeMap<String, PathBuf>, host: &str, registry: &Registry) -> Result<Outcomes> {
    publish(host, registry)?;
    let mut outcomes = Outcomes::new();
    let log = house::made("bollard/log");
    let mut told = String::new();
    for (name, program) in tests {
        if OF_SWARMS.contains(&name.as_str()) {
            continue;
        }
        let output = Command::new(program)
            .current_dir(house::made("bollard/source"))
            .args(["--test-threads", "1"])
            .env("DOCKER_HOST", host)
            .env("REGISTRY_HTTP_ADDR", &registry.address)
            .env("REGISTRY_PASSWORD", "none is asked for")
            .output()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        told.push_str(&text);
        told.push_str(&String::from_utf8_lossy(&output.stderr));
        for line in text.lines() {
            if let Some((test, outcome)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... ")) {
                // A test that prints has its outcome on a later line, where nothing names it.
                let outcome = if outcome.starts_with("ignored") { "ignored" } else { outcome };
                outcomes.insert(test.to_owned(), outcome.to_owned());
            }
        }
    }
    house::write(&log, told)?;
    Ok(outcomes)
}

/// Puts the images where the tests look for them.
fn publish(host: &str, registry: &Registry) -> Result<()> {
    let docker = |arguments: &[&str]| {
        let mut command = house::program("docker");
        command.args(["-H", host]).args(arguments).env("DOCKER_BUILDKIT", "0").stdout(Stdio::null());
        command
    };
    for image in ["busybox", "alpine", "hello-world"] {
        let archive = house::made("images").join(format!("{image}.tar")).display().to_string();
        house::run(&mut docker(&["load", "--quiet", "-i", &archive]))?;
    }
    let context = house::made("bollard/uhttpd");
    house::write(&context.join("Dockerfile"), UHTTPD)?;
    house::run(docker(&["build", "--quiet", "-t", "uhttpd", &context.display().to_string()]).stderr(Stdio::null()))?;
    let address = &registry.address;
    for (image, name) in
        [("uhttpd", "fussybeaver/uhttpd:latest"), ("alpine", "alpine:latest"), ("hello-world", "hello-world:linux")]
    {
        let name = format!("{address}/{name}");
        house::run(&mut docker(&["tag", image, &name]))?;
        house::run(&mut docker(&["push", "--quiet", &name]))?;
        house::run(&mut docker(&["rmi", &name]))?;
    }
    Ok(())
}

/// # Errors
/// When a test fails that should pass, or passes although it is known to fail.
fn judge(outcomes: &Outcomes) -> Result<()> {
    let known = |test: &str| BEYOND.iter().any(|(name, _)| *name == test);
    let mut faults = Vec::new();
    for (test, outcome) in outcomes {
        match (outcome.as_str(), known(test)) {
            ("ok", true) => faults.push(format!("{test} passes: take it off the list of those that cannot")),
            ("ok" | "ignored", false) | ("FAILED", true) => {}
            (outcome, _) => faults.push(format!("{test}: {outcome}")),
        }
    }
    for (test, why) in BEYOND {
        eprintln!("x: {test} cannot pass here: it {why}");
    }
    let passed = outcomes.values().filter(|outcome| *outcome == "ok").count();
    println!("bollard {VERSION}: {passed} of the {} tests without swarm pass", outcomes.len());
    if faults.is_empty() {
        return Ok(());
    }
    bail!("of bollard's tests:\n  {}\nsee {}", faults.join("\n  "), house::made("bollard/log").display());
}
