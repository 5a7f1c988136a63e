//! Every environment variable that Bireme reads. Their names are spelt nowhere else.

/// Where the CLI finds the engine: `unix:///path` or `tcp://host:port`.
pub const BIREME_HOST: &str = "BIREME_HOST";
/// The same, read when [`BIREME_HOST`] is not set.
pub const DOCKER_HOST: &str = "DOCKER_HOST";
/// Folder of the file with logins to registries, `config.json`.
pub const BIREME_CONFIG: &str = "BIREME_CONFIG";
/// The same, read when [`BIREME_CONFIG`] is not set; without both it is `~/.docker`.
pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
/// Filter of the log of our own processes, as `tracing_subscriber::EnvFilter` reads it.
pub const BIREME_LOG: &str = "BIREME_LOG";
/// Folder where the daemon looks for `bireme-runner` and `bireme-wasm-host` before its own.
pub const BIREME_LIBEXEC: &str = "BIREME_LIBEXEC";
/// Set to anything: no colours. See no-color.org.
pub const NO_COLOR: &str = "NO_COLOR";

/// Every variable with its meaning, for the generated reference page.
pub const ALL: &[(&str, &str)] = &[
    (BIREME_HOST, "Where the CLI finds the engine: `unix:///path` or `tcp://host:port`"),
    (DOCKER_HOST, "The same, read when `BIREME_HOST` is not set"),
    (BIREME_CONFIG, "Folder of the CLI's `config.json`, in which logins to registries are kept"),
    (DOCKER_CONFIG, "The same, read when `BIREME_CONFIG` is not set; without both it is `~/.docker`"),
    (BIREME_LOG, "Filter of our own processes' log, such as `info` or `bireme_engine=debug`"),
    (BIREME_LIBEXEC, "Folder where the daemon looks for `bireme-runner` and `bireme-wasm-host` before its own"),
    (NO_COLOR, "Set to anything: no colours"),
];
