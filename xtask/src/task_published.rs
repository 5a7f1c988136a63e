//! `published`: the tests of client libraries, from their published packages, against Bireme; those of bollard also against
//! Docker's own engine.
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

use crate::{task_oracle, workspace};

/// A package and what its tests need.
struct Suite {
    name: &'static str,
    version: &'static str,
    features: &'static str,
    /// Files of tests that need a swarm.
    of_swarms: &'static [&'static str],
    /// What cannot pass on a machine like this, whichever engine, and why.
    beyond: &'static [(&'static str, &'static str)],
    /// Images that stand in for those which the tests' authors publish: a name, and how it is built.
    built: &'static [(&'static str, &'static str)],
    /// Names under which the registry has images.
    published: &'static [(&'static str, &'static str)],
    /// Files beside the package's folder, which the package leaves out.
    beside: &'static [(&'static str, &'static str)],
    /// Folders among those that some tests build and others take for built.
    first: &'static [&'static str],
    /// Tests that may run at once.
    threads: &'static str,
    /// The registry is a mirror of Docker Hub.
    mirror: bool,
}

const SUITES: [Suite; 2] = [BOLLARD, TESTCONTAINERS];

const BOLLARD: Suite = Suite {
    name: "bollard",
    version: "0.21.1",
    features: "",
    of_swarms: &["config_test", "node_test", "secret_test", "service_test", "task_test"],
    beyond: &[
        ("integration_test_search_images", "searches Docker Hub, which is not to be reached from where tests run"),
        ("test_downversioning", "speaks to /var/run/docker.sock, whatever DOCKER_HOST says"),
        (
            "integration_test_get_plugin_privileges",
            "installs a plugin from Docker Hub; Docker's engine fails it here too",
        ),
        ("integration_test_plugin_lifecycle", "installs a plugin from Docker Hub; Docker's engine fails it here too"),
        ("integration_test_plugin_push", "installs a plugin from Docker Hub; Docker's engine fails it here too"),
        ("integration_test_plugin_upgrade", "installs a plugin from Docker Hub; Docker's engine fails it here too"),
    ],
    built: &[(
        "uhttpd",
        r#"FROM busybox
RUN mkdir -p /usr/sbin /etc/config /www \
 && printf '#!/bin/sh\nexec httpd "$@"\n' > /usr/sbin/run_uhttpd && chmod 755 /usr/sbin/run_uhttpd \
 && printf '\nconfig uhttpd main\n' > /etc/config/uhttpd && echo hello > /www/index.html
EXPOSE 80
"#,
    )],
    published: &[
        ("uhttpd", "fussybeaver/uhttpd:latest"),
        ("alpine", "alpine:latest"),
        ("hello-world", "hello-world:linux"),
    ],
    beside: &[],
    first: &[],
    threads: "1",
    mirror: false,
};

/// A server that says what the tests wait for, and ends well when it is told to.
macro_rules! server {
    ($port:literal, $page:literal, $said:literal) => {
        concat!(
            "#!/bin/sh\nmkdir -p /www && printf ",
            $page,
            " > /www/index.html\ntrap 'exit 0' TERM\nhttpd -p ",
            $port,
            " -h /www\n",
            $said,
            "\nwhile true; do sleep 1 & wait $!; done\n"
        )
    };
}

const TESTCONTAINERS: Suite = Suite {
    name: "testcontainers",
    version: "0.28.0",
    features: "blocking,http_wait_plain,reusable-containers",
    of_swarms: &[],
    beyond: &[
        (
            "core::client::tests::test_client_pull_image_with_platform",
            "pulls hello-world for linux/386, which is made for this machine's processor alone",
        ),
        (
            "runners::async_runner::tests::async_run_command_should_map_exposed_port_udp_sctp",
            "publishes a port of SCTP, which the kernel may not have; Docker's engine fails it here too",
        ),
        (
            "runners::async_runner::tests::async_run_command_should_map_ports_udp_sctp",
            "publishes a port of SCTP, which the kernel may not have; Docker's engine fails it here too",
        ),
    ],
    built: &[
        (
            "helloworld",
            r#"FROM alpine
RUN printf '#!/bin/sh\ntrap "exit 0" TERM\nmkdir -p /www && echo hello > /www/index.html && echo PONG > /www/ping\nhttpd -p 8080 -h /www; httpd -p 8081 -h /www\nfor line in "DELAY_START_MSEC: 0" "Sleeping for 0 ms" "Starting server on port 8080" "Sleeping for 0 ms" "Starting server on port 8081"; do echo "$line" >&2; done\necho "Ready, listening on 8080 and 8081" >&2\nwhile true; do sleep 1 & wait $!; done\n' > /server \
 && chmod 755 /server
EXPOSE 8080 8081
CMD ["/server"]
"#,
        ),
        (
            "curl",
            "FROM alpine\nRUN printf '#!/bin/sh\\nexec wget -q -O - \"$@\"\\n' > /bin/curl && chmod 755 /bin/curl\n",
        ),
    ],
    published: &[
        ("alpine", "library/alpine:latest"),
        ("alpine", "library/alpine:3.19"),
        ("alpine", "library/alpine:3.20"),
        ("busybox", "library/busybox:latest"),
        ("hello-world", "library/hello-world:latest"),
        ("hello-world", "library/hello-world:linux"),
        ("helloworld", "testcontainers/helloworld:1.2.0"),
        ("helloworld", "testcontainers/helloworld:1.3.0"),
        ("curl", "curlimages/curl:latest"),
    ],
    beside: &[
        (
            "testimages/simple_web_server/Dockerfile",
            "FROM alpine\nRUN printf '#!/bin/sh\\nexec sh \"$@\"\\n' > /bin/bash && chmod 755 /bin/bash\nWORKDIR /app\nCOPY foo bar ./\n\
             RUN chmod 755 foo bar\nEXPOSE 80\nENTRYPOINT [\"./foo\"]\n",
        ),
        (
            "testimages/simple_web_server/foo",
            server!(
                "80",
                "foo",
                "echo server will be listening to port 80 >&2; echo server is ready; echo server is ready"
            ),
        ),
        ("testimages/simple_web_server/bar", server!("80", "bar", "echo server is ready; echo server is ready")),
        (
            "testimages/no_expose_port/Dockerfile",
            "FROM alpine\nCOPY serve /serve\nRUN chmod 755 /serve\nCMD [\"/serve\"]\n",
        ),
        ("testimages/no_expose_port/serve", server!("8080", "hidden", "echo listening on 0.0.0.0:8080")),
    ],
    first: &["testimages/simple_web_server"],
    threads: "4",
    mirror: true,
};

#[derive(Parser, Default)]
pub(crate) struct Args {
    /// One package alone
    #[arg(value_parser = SUITES.map(|suite| suite.name))]
    package: Option<String>,
    /// Docker's own engine in place of Bireme
    #[arg(long)]
    oracle: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    for suite in SUITES.iter().filter(|suite| args.package.as_deref().is_none_or(|name| name == suite.name)) {
        suite.run(args.oracle)?;
    }
    Ok(())
}

impl Suite {
    fn folder(&self) -> PathBuf {
        workspace::made("published").join(self.name)
    }

    fn run(&self, oracle: bool) -> Result<()> {
        let tests = build(self)?;
        let outcomes = if oracle {
            task_oracle::start()?;
            let pid = workspace::read(&workspace::made("oracle/pid"))?;
            // Its own network namespace: the registry must be on its side.
            let registry = Registry::start(self, Some(pid.trim()))?;
            let outcomes = run_all(self, &tests, &format!("unix://{}", task_oracle::socket().display()), &registry);
            task_oracle::stop()?;
            outcomes?
        } else {
            let registry = Registry::start(self, None)?;
            let mirror = format!("http://{}", registry.address);
            let flags = ["--registry-mirror", mirror.as_str()];
            let engine = Engine::with_flags(if self.mirror { &flags } else { &[] });
            let outcomes = run_all(self, &tests, &engine.host(), &registry)?;
            engine.finish();
            outcomes
        };
        judge(self, &outcomes)
    }
}

/// Compiles the published package's tests; answers their binaries by name.
fn build(suite: &Suite) -> Result<BTreeMap<String, PathBuf>> {
    let source = suite.folder().join("source");
    let what = format!("the tests of {}, as published", suite.name);
    workspace::once(&what, suite.version, &source.join("Cargo.toml"), || unpack(suite, &source))?;
    for (name, contents) in suite.beside {
        workspace::write(&suite.folder().join(name), contents)?;
    }
    let target = suite.folder().join("build");
    let built = workspace::output(
        workspace::cargo(&["test", "--locked", "--tests", "--no-run", "--message-format", "json", "--features"])
            .arg(suite.features)
            .arg("--target-dir")
            .arg(&target)
            // Nobody steps through them: what a debugger would want takes most of the disk.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_INCREMENTAL", "0")
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
        bail!("the package {} {} has no tests", suite.name, suite.version);
    }
    Ok(tests)
}

/// Fetches the package as any dependency is fetched, and copies it to where it can be built.
fn unpack(suite: &Suite, source: &Path) -> Result<()> {
    let user = suite.folder().join("fetch");
    let manifest = format!(
        "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[lib]\npath = \"lib.rs\"\n\n\
         [dependencies]\n{} = \"={}\"\n\n[workspace]\n",
        suite.name, suite.version
    );
    workspace::write(&user.join("Cargo.toml"), manifest)?;
    workspace::write(&user.join("lib.rs"), "")?;
    let metadata = workspace::output(workspace::cargo(&["metadata", "--format-version", "1"]).current_dir(&user))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
    let package = metadata["packages"].as_array().into_iter().flatten().find(|package| package["name"] == suite.name);
    let manifest = package
        .and_then(|package| package["manifest_path"].as_str())
        .with_context(|| format!("{} was not fetched", suite.name))?;
    let folder = Path::new(manifest).parent().context("a manifest lies in a folder")?;
    let _ = fs::remove_dir_all(source);
    workspace::run(workspace::program("cp").arg("-r").arg(folder).arg(source))?;
    // It must not take itself for a part of the workspace that it is built in.
    let manifest = source.join("Cargo.toml");
    workspace::write(&manifest, format!("{}\n[workspace]\n", workspace::read(&manifest)?))
}

struct Registry {
    process: Child,
    folder: PathBuf,
    address: String,
}

impl Registry {
    /// `beside`: the process in whose network it shall be.
    fn start(suite: &Suite, beside: Option<&str>) -> Result<Self> {
        let folder = suite.folder().join("registry");
        let _ = fs::remove_dir_all(&folder);
        let port = free_port();
        let address = format!("localhost:{port}");
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"{address}\"}}\n",
            folder.join("data").display()
        );
        workspace::write(&folder.join("config.yml"), config)?;
        let mut command = match beside {
            None => workspace::program("docker-registry"),
            Some(pid) => {
                let mut command = workspace::program("nsenter");
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

fn run_all(suite: &Suite, tests: &BTreeMap<String, PathBuf>, host: &str, registry: &Registry) -> Result<Outcomes> {
    publish(suite, host, registry)?;
    let mut outcomes = Outcomes::new();
    let log = suite.folder().join("log");
    let mut told = String::new();
    for (name, program) in tests {
        if suite.of_swarms.contains(&name.as_str()) {
            continue;
        }
        let output = Command::new(program)
            .current_dir(suite.folder().join("source"))
            .args(["--test-threads", suite.threads])
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
    workspace::write(&log, told)?;
    Ok(outcomes)
}

/// Puts the images where the tests look for them.
fn publish(suite: &Suite, host: &str, registry: &Registry) -> Result<()> {
    let docker = |arguments: &[&str]| {
        let mut command = workspace::program("docker");
        command.args(["-H", host]).args(arguments).env("DOCKER_BUILDKIT", "0").stdout(Stdio::null());
        command
    };
    for image in ["busybox", "alpine", "hello-world"] {
        let archive = workspace::made("images").join(format!("{image}.tar")).display().to_string();
        workspace::run(&mut docker(&["load", "--quiet", "-i", &archive]))?;
    }
    for (name, dockerfile) in suite.built {
        let context = suite.folder().join("images").join(name);
        workspace::write(&context.join("Dockerfile"), dockerfile)?;
        let context = context.display().to_string();
        workspace::run(docker(&["build", "--quiet", "-t", name, &context]).stderr(Stdio::null()))?;
    }
    for folder in suite.first {
        let name = folder.rsplit('/').next().unwrap_or(folder);
        let context = suite.folder().join(folder).display().to_string();
        workspace::run(docker(&["build", "--quiet", "-t", name, &context]).stderr(Stdio::null()))?;
    }
    let address = &registry.address;
    for (image, name) in suite.published {
        let name = format!("{address}/{name}");
        workspace::run(&mut docker(&["tag", image, &name]))?;
        workspace::run(&mut docker(&["push", "--quiet", &name]))?;
        workspace::run(&mut docker(&["rmi", &name]))?;
    }
    Ok(())
}

/// # Errors
/// When a test fails that should pass, or passes although it is known to fail.
fn judge(suite: &Suite, outcomes: &Outcomes) -> Result<()> {
    let known = |test: &str| suite.beyond.iter().any(|(name, _)| *name == test);
    let mut faults = Vec::new();
    for (test, outcome) in outcomes {
        match (outcome.as_str(), known(test)) {
            ("ok", true) => faults.push(format!("{test} passes: take it off the list of those that cannot")),
            ("ok" | "ignored", false) | ("FAILED", true) => {}
            (outcome, _) => faults.push(format!("{test}: {outcome}")),
        }
    }
    for (test, why) in suite.beyond {
        eprintln!("x: {test} cannot pass here: it {why}");
    }
    let passed = outcomes.values().filter(|outcome| *outcome == "ok").count();
    println!("{} {}: {passed} of {} tests pass that need no swarm", suite.name, suite.version, outcomes.len());
    if faults.is_empty() {
        return Ok(());
    }
    bail!("of {}:\n  {}\nsee {}", suite.name, faults.join("\n  "), suite.folder().join("log").display());
}
