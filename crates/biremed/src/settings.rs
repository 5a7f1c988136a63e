//! What the daemon runs with: flags over environment over file over default, resolved once into [`Settings`].

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use bireme_core::env;
use bireme_core::nearest::nearest;
use bireme_engine::request::LogRequest;
use clap::Parser;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::build_cache::{BuildCache, BuilderKey};

/// The flags, dockerd's own where it has them.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "biremed", version, about = "Runs Linux containers and WebAssembly components side by side")]
pub struct Flags {
    /// Folder of what is kept: images, volumes, state [default: /var/lib/bireme, or below XDG_DATA_HOME]
    #[arg(long, value_name = "DIR")]
    pub data_root: Option<PathBuf>,
    /// Folder of what a restart of the machine empties: sockets, namespaces [default: /run/bireme, or below XDG_RUNTIME_DIR]
    #[arg(long, value_name = "DIR")]
    pub exec_root: Option<PathBuf>,
    /// Where to listen, repeatable [default: unix://EXEC_ROOT/bireme.sock]
    #[arg(short = 'H', long = "host", value_name = "unix://PATH")]
    pub hosts: Vec<String>,
    /// Group that may use the socket; whoever is in it is as good as root [default: bireme, if there is one]
    #[arg(short = 'G', long, value_name = "NAME")]
    pub group: Option<String>,
    /// debug, info, warn, error or fatal; BIREME_LOG has finer filters [default: info]
    #[arg(short = 'l', long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// File to write the process ID to
    #[arg(short = 'p', long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// Log driver of containers that name none: json-file, local or none [default: json-file]
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// Option of that driver, repeatable: max-size=10m, max-file=3
    #[arg(long = "log-opt", value_name = "KEY=VALUE")]
    pub log_opts: Vec<String>,
    /// Registry to reach without TLS, repeatable
    #[arg(long = "insecure-registry", value_name = "HOST[:PORT]")]
    pub insecure_registries: Vec<String>,
    /// Mirror of docker.io to ask first, repeatable
    #[arg(long = "registry-mirror", value_name = "URL")]
    pub registry_mirrors: Vec<String>,
    /// Folder with a hosts.toml or certificates per registry, repeatable [default: /etc/bireme/certs.d, and those of containerd and Docker]
    #[arg(long = "registry-config-dir", value_name = "DIR")]
    pub registry_config_dirs: Vec<String>,
    /// Layers that one pull fetches at once [default: 4]
    #[arg(long, value_name = "N")]
    pub max_concurrent_downloads: Option<usize>,
    /// Layers that one push sends at once [default: 5]
    #[arg(long, value_name = "N")]
    pub max_concurrent_uploads: Option<usize>,
    /// Configuration file [default: /etc/bireme/daemon.json, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Print every setting with its origin, and exit
    #[arg(long)]
    pub print_config: bool,
}

/// The file, with the keys of Docker's daemon.json.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    data_root: Option<PathBuf>,
    exec_root: Option<PathBuf>,
    hosts: Option<Vec<String>>,
    group: Option<String>,
    log_level: Option<String>,
    pidfile: Option<PathBuf>,
    log_driver: Option<String>,
    log_opts: Option<BTreeMap<String, String>>,
    insecure_registries: Option<Vec<String>>,
    registry_mirrors: Option<Vec<String>>,
    registry_config_dirs: Option<Vec<String>>,
    max_concurrent_downloads: Option<usize>,
    max_concurrent_uploads: Option<usize>,
    builder: Option<BuilderKey>,
}

const FILE_KEYS: [&str; 14] = [
    "data-root",
    "exec-root",
    "hosts",
    "group",
    "log-level",
    "pidfile",
    "log-driver",
    "log-opts",
    "insecure-registries",
    "registry-mirrors",
    "registry-config-dirs",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "builder",
];

/// Where registries are looked for that name none themselves: ours first, then what containerd and Docker were told.
const REGISTRY_CONFIG_DIRS: [&str; 3] = ["/etc/bireme/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"];

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Environment(&'static str),
    File(PathBuf),
    Default,
}

impl Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// What the daemon runs with. Every path is absolute.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    /// Paths of sockets.
    pub sockets: Vec<PathBuf>,
    /// `None`: the group of the daemon's own process.
    pub group: Option<String>,
    /// A filter as `tracing_subscriber::EnvFilter` reads it.
    pub log_filter: String,
    pub pidfile: Option<PathBuf>,
    pub log: LogRequest,
    pub insecure_registries: Vec<String>,
    pub registry_mirrors: Vec<String>,
    /// Folders with a folder per registry.
    pub registry_config_dirs: Vec<PathBuf>,
    /// Layers that one pull fetches at once.
    pub max_concurrent_downloads: usize,
    /// Layers that one push sends at once.
    pub max_concurrent_uploads: usize,
    pub build_cache: BuildCache,
    /// Eight hexadecimal digits that mark everything of this engine on the machine.
    pub instance: String,
    pub runner: PathBuf,
    pub wasm_host: PathBuf,
    origins: Vec<(&'static str, String, Origin)>,
}

impl Settings {
    /// Resolves everything, touching nothing.
    ///
    /// # Errors
    /// In a sentence: unknown keys of the file, hosts that are not offered, helpers that are not found.
    pub fn resolve(flags: Flags) -> anyhow::Result<Self> {
        let (file, path) = read_file(flags.config_file.as_deref())?;
        let mut resolver = Resolver { file: path, origins: Vec::new() };
        let data_root = resolver.pick("data-root", flags.data_root, file.data_root, default_data_root)?;
        // As the kernel names them: later checks compare with what it says.
        let data_root = canonical(&absolute(&data_root)?);
        let exec_root = resolver.pick("exec-root", flags.exec_root, file.exec_root, default_exec_root)?;
        let exec_root = canonical(&absolute(&exec_root)?);
        let default_host = || Ok(vec![format!("unix://{}", exec_root.join("bireme.sock").display())]);
        let hosts = resolver.pick_list("hosts", flags.hosts, file.hosts, default_host)?;
        let group = resolver.pick("group", flags.group, file.group, || Ok(default_group()))?;
        let log_level = match std::env::var(env::BIREME_LOG) {
            Ok(filter) if !filter.is_empty() => {
                resolver.note("log-level", &filter, Origin::Environment(env::BIREME_LOG));
                filter
            }
            _ => filter(&resolver.pick("log-level", flags.log_level, file.log_level, || Ok("info".to_owned()))?)?,
        };
        let pidfile = flags.pidfile.or(file.pidfile).map(|path| absolute(&path)).transpose()?;
        let driver = resolver.pick("log-driver", flags.log_driver, file.log_driver, || Ok("json-file".to_owned()))?;
        if !["json-file", "local", "none"].contains(&driver.as_str()) {
            bail!("log driver {driver:?} is not offered: use json-file, local or none");
        }
        let mut options = file.log_opts.unwrap_or_default();
        for option in flags.log_opts {
            let (key, value) =
                option.split_once('=').with_context(|| format!("--log-opt {option:?} must be KEY=VALUE"))?;
            options.insert(key.to_owned(), value.to_owned());
        }
        let none = || Ok(Vec::new());
        let insecure_registries =
            resolver.pick_list("insecure-registries", flags.insecure_registries, file.insecure_registries, none)?;
        let registry_mirrors =
            resolver.pick_list("registry-mirrors", flags.registry_mirrors, file.registry_mirrors, none)?;
        let certs = || Ok(REGISTRY_CONFIG_DIRS.map(str::to_owned).to_vec());
        let config_dirs =
            resolver.pick_list("registry-config-dirs", flags.registry_config_dirs, file.registry_config_dirs, certs)?;
        let registry_config_dirs =
            config_dirs.iter().map(|dir| absolute(Path::new(dir))).collect::<anyhow::Result<_>>()?;
        let (down, up) = (file.max_concurrent_downloads, file.max_concurrent_uploads);
        let max_concurrent_downloads =
            resolver.pick_number("max-concurrent-downloads", flags.max_concurrent_downloads, down, 4)?;
        let max_concurrent_uploads =
            resolver.pick_number("max-concurrent-uploads", flags.max_concurrent_uploads, up, 5)?;
        let origin = if file.builder.is_some() { resolver.named_file() } else { Origin::Default };
        let build_cache = BuildCache::of(file.builder.unwrap_or_default())?;
        resolver.note("builder.gc", build_cache, origin);
        let sockets = hosts.iter().map(|host| socket(host)).collect::<anyhow::Result<_>>()?;
        let instance = instance(&data_root, &exec_root);
        resolver.note("instance", &instance, Origin::Default);
        let runner = helper("bireme-runner")?;
        resolver.note("runner", runner.display(), Origin::Default);
        let wasm_host = helper("bireme-wasm-host")?;
        resolver.note("wasm-host", wasm_host.display(), Origin::Default);
        Ok(Self {
            data_root,
            exec_root,
            sockets,
            group: Some(group).filter(|group| !group.is_empty()),
            log_filter: log_level,
            pidfile,
            log: LogRequest { driver, options },
            insecure_registries,
            registry_mirrors,
            registry_config_dirs,
            max_concurrent_downloads,
            max_concurrent_uploads,
            build_cache,
            instance,
            runner,
            wasm_host,
            origins: resolver.origins,
        })
    }

    /// One line per setting: name, value, origin.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        for (name, value, origin) in &self.origins {
            let _ = writeln!(text, "{name} = {value}  ({origin})");
        }
        text
    }
}

struct Resolver {
    file: Option<PathBuf>,
    origins: Vec<(&'static str, String, Origin)>,
}

impl Resolver {
    fn note(&mut self, name: &'static str, value: impl Display, origin: Origin) {
        self.origins.push((name, value.to_string(), origin));
    }

    fn pick<T: Clone + AsRef<std::ffi::OsStr>>(
        &mut self,
        name: &'static str,
        flag: Option<T>,
        file: Option<T>,
        default: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let (value, origin) = match (flag, file) {
            (Some(value), _) => (value, Origin::Flag),
            (None, Some(value)) => (value, self.named_file()),
            (None, None) => (default()?, Origin::Default),
        };
        self.note(name, Path::new(value.as_ref()).display(), origin);
        Ok(value)
    }

    fn pick_number(
        &mut self,
        name: &'static str,
        flag: Option<usize>,
        file: Option<usize>,
        default: usize,
    ) -> anyhow::Result<usize> {
        let (value, origin) = match (flag, file) {
            (Some(value), _) => (value, Origin::Flag),
            (None, Some(value)) => (value, self.named_file()),
            (None, None) => (default, Origin::Default),
        };
        if !(1..=64).contains(&value) {
            bail!("{name} is {value} ({origin}): give a number from 1 to 64");
        }
        self.note(name, value, origin);
        Ok(value)
    }

    fn pick_list(
        &mut self,
        name: &'static str,
        flags: Vec<String>,
        file: Option<Vec<String>>,
        default: impl FnOnce() -> anyhow::Result<Vec<String>>,
    ) -> anyhow::Result<Vec<String>> {
        let (value, origin) = match file {
            _ if !flags.is_empty() => (flags, Origin::Flag),
            Some(value) => (value, self.named_file()),
            None => (default()?, Origin::Default),
        };
        self.note(name, value.join(" "), origin);
        Ok(value)
    }

    fn named_file(&self) -> Origin {
        Origin::File(self.file.clone().unwrap_or_default())
    }
}

const DEFAULT_FILE: &str = "/etc/bireme/daemon.json";

/// The file that was named, or the default one if it is there.
fn read_file(named: Option<&Path>) -> anyhow::Result<(File, Option<PathBuf>)> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
            return Ok((File::default(), None));
        }
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read the configuration file {}", path.display()));
        }
    };
    let file = parse_file(&text).with_context(|| format!("configuration file {}", path.display()))?;
    Ok((file, Some(path.to_owned())))
}

fn parse_file(text: &str) -> anyhow::Result<File> {
    let keys: BTreeMap<String, serde_json::Value> = serde_json::from_str(text)?;
    if let Some(unknown) = keys.keys().find(|key| !FILE_KEYS.contains(&key.as_str())) {
        match nearest(unknown, FILE_KEYS) {
            Some(near) => bail!("unknown key {unknown:?}: did you mean {near:?}?"),
            None => bail!("unknown key {unknown:?}: known are {}", FILE_KEYS.join(", ")),
        }
    }
    Ok(serde_json::from_str(text)?)
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot make the path {:?} absolute", path.display()))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn default_data_root() -> anyhow::Result<PathBuf> {
    if is_root() {
        return Ok("/var/lib/bireme".into());
    }
    match (std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME")) {
        (Some(data), _) if !data.is_empty() => Ok(PathBuf::from(data).join("bireme")),
        (_, Some(home)) if !home.is_empty() => Ok(PathBuf::from(home).join(".local/share/bireme")),
        _ => bail!("there is no home directory to keep data in: name a folder with --data-root"),
    }
}

fn default_exec_root() -> anyhow::Result<PathBuf> {
    if is_root() {
        return Ok("/run/bireme".into());
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(run) if !run.is_empty() => Ok(PathBuf::from(run).join("bireme")),
        _ => bail!("XDG_RUNTIME_DIR is not set: name a folder for sockets with --exec-root"),
    }
}

const GROUP: &str = "bireme";

fn default_group() -> String {
    match nix::unistd::Group::from_name(GROUP) {
        Ok(Some(_)) => GROUP.to_owned(),
        _ => String::new(),
    }
}

/// Docker's levels as a filter.
fn filter(level: &str) -> anyhow::Result<String> {
    match level {
        "trace" | "debug" | "info" | "warn" | "error" => Ok(level.to_owned()),
        "fatal" | "panic" => Ok("error".to_owned()),
        _ => bail!("unknown log level {level:?}: use debug, info, warn, error or fatal"),
    }
}

fn socket(host: &str) -> anyhow::Result<PathBuf> {
    match host.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(path.into()),
        Some(("unix", _)) => {
            bail!("cannot listen on {host:?}: the path of a socket must be absolute, as in unix:///run/x.sock")
        }
        Some(("tcp" | "http" | "https", _)) => bail!(
            "cannot listen on {host:?}: whoever reaches the API is root on this machine, and TLS with client certificates is not offered yet; use unix://PATH, and ssh to reach it from elsewhere"
        ),
        Some(("fd", _)) => bail!("cannot listen on {host:?}: sockets of systemd are not offered; use unix://PATH"),
        _ => bail!("cannot listen on {host:?}: expected unix://PATH"),
    }
}

/// The short name of an engine: the same for the same two folders, whatever links lead there.
fn instance(data_root: &Path, exec_root: &Path) -> String {
    let canonical = |path: &Path| canonical(path).into_os_string().into_encoded_bytes();
    let mut hash = Sha256::new();
    hash.update(canonical(data_root));
    hash.update([0]);
    hash.update(canonical(exec_root));
    let digest = hash.finalize();
    digest[..4].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The path with links resolved as far as it exists: the folders may not have been made yet.
fn canonical(path: &Path) -> PathBuf {
    match (path.canonicalize(), path.parent(), path.file_name()) {
        (Ok(found), ..) => found,
        (Err(_), Some(parent), Some(name)) => canonical(parent).join(name),
        _ => path.to_owned(),
    }
}

/// Finds a program that belongs to us.
fn helper(name: &str) -> anyhow::Result<PathBuf> {
    let mut places: Vec<PathBuf> = Vec::new();
    if let Some(folder) = std::env::var_os(env::BIREME_LIBEXEC).filter(|folder| !folder.is_empty()) {
        places.push(folder.into());
    }
    if let Ok(own) = std::env::current_exe().and_then(|path| path.canonicalize())
        && let Some(folder) = own.parent()
    {
        places.push(folder.to_owned());
        places.push(folder.join("../libexec/bireme"));
    }
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let found = places.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    match found {
        Some(path) => Ok(path.canonicalize().unwrap_or(path)),
        None => bail!(
            "cannot find {name}: it must stand beside biremed, in ../libexec/bireme, on the PATH, or in the folder that {} names",
            env::BIREME_LIBEXEC
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_sound() {
        <Flags as clap::CommandFactory>::command().debug_assert();
    }

    fn check_host(host: &str, expected: Result<&str, &str>) {
        let got = socket(host).map_err(|error| error.to_string());
        match expected {
            Ok(path) => assert_eq!(got.as_deref().ok(), Some(Path::new(path)), "{host}"),
            Err(part) => assert!(got.unwrap_err().contains(part), "{host}"),
        }
    }

    #[test]
    fn only_sockets_are_listened_on() {
        check_host("unix:///run/x.sock", Ok("/run/x.sock"));
        check_host("unix://x.sock", Err("must be absolute"));
        check_host("tcp://0.0.0.0:2375", Err("TLS with client certificates is not offered yet"));
        check_host("/run/x.sock", Err("expected unix://PATH"));
    }

    #[test]
    fn unknown_keys_of_the_file_are_errors() {
        let refused = |text: &str| parse_file(text).unwrap_err().to_string();
        assert_eq!(refused(r#"{"data-rot":"/x"}"#), "unknown key \"data-rot\": did you mean \"data-root\"?");
        assert!(refused(r#"{"zzzzzzzzzzzzzzzzzzzz":1}"#).contains("known are data-root"));
        assert!(parse_file(r#"{"data-root":"/x","log-opts":{"max-size":"1m"}}"#).is_ok());
    }

    #[test]
    fn instances_follow_the_folders() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let exec = root.path().join("exec");
        assert_eq!(instance(&real, &exec), instance(&link, &exec));
        assert_ne!(instance(&real, &exec), instance(&exec, &real));
        assert_eq!(instance(&link.join("new"), &exec), instance(&real.join("new"), &exec));
        assert_eq!(instance(&real, &exec).len(), 8);
        let real = real.canonicalize().unwrap();
        assert_eq!(canonical(&link), real);
        assert_eq!(canonical(&link.join("new/below")), real.join("new/below"), "what is not there yet");
    }
}
