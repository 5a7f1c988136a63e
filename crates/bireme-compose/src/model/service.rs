//! A service: the mapping with the most keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value as Json;

use super::build::Build;
use super::dependency::Dependency;
use super::deploy::Deploy;
use super::file::FileReference;
use super::form::{self, is_false};
use super::healthcheck::Healthcheck;
use super::mount::Mount;
use super::network::ServiceNetwork;
use super::port::{Port, exposed};
use super::resource::{BlkioConfig, Device, Ulimit};
use crate::keys::reason::WINDOWS;
use crate::read::value::{
    boolean, bounded, bytes, command, count, duration, integer, list_of, maybe, members_of, number, one_of, scalars,
    string, string_set, strings, texts,
};
use crate::read::{Result, keyed};
use crate::yaml::{Node, Value};

keyed! {
    /// One service, resolved. Absent means "the image's or the engine's default".
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Service = "a service" {
        /// The key in the file.
        #[serde(skip)]
        pub name: String,
        /// It is active when one of these is, or when it has none.
        #[serde(skip_serializing_if = "BTreeSet::is_empty")]
        pub profiles: BTreeSet<String> => or_default(string_set),
        /// Passed on to the runtime (`config.json` of OCI).
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub annotations: BTreeMap<String, String> => or_default(texts),
        /// Whether `up` shows its output; absent is yes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub attach: Option<bool> => opt(boolean),
        /// Shares and rates of block devices.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub blkio_config: Option<BlkioConfig> => opt(BlkioConfig::read),
        /// How its image is built; absent: it is pulled.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub build: Option<Build> => later,
        /// Capabilities over the default ones, such as `NET_ADMIN`, or `ALL`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub cap_add: Vec<String> => or_default(strings),
        /// Capabilities it goes without, or `ALL`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub cap_drop: Vec<String> => or_default(strings),
        /// `host` or `private`: the cgroup namespace.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cgroup: Option<String> => opt(one_of(&["host", "private"])),
        /// The cgroup below which those of its containers are made.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cgroup_parent: Option<String> => opt(string),
        /// `None`: the image's; empty: none at all.
        pub command: Option<Vec<String>> => opt(command),
        /// Configs of the top level that its containers see.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub configs: Vec<FileReference> => or_default(list_of(FileReference::read)),
        /// Of its only container; absent: `<project>-<service>-<number>`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub container_name: Option<String> => opt(container_name),
        /// Microseconds; with `cpu_quota`, another way of saying `cpus`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cpu_period: Option<i64> => opt(integer),
        /// Microseconds of processor time per period.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cpu_quota: Option<i64> => opt(integer),
        /// Weight among others when processors are short; 1024 is usual.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cpu_shares: Option<i64> => opt(integer),
        /// Processors; also set by `deploy.resources.limits.cpus`, which wins.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::short_number")]
        pub cpus: Option<f64> => opt(number),
        /// Processors it may run on, such as `0-3,5`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub cpuset: Option<String> => opt(string),
        /// By the name of the other service; with those that links and shared namespaces imply.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub depends_on: BTreeMap<String, Dependency> => or_default(members_of(Dependency::read)),
        /// Replicas, resources, restarts.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub deploy: Option<Deploy> => opt(Deploy::read),
        /// Rules such as `c 1:3 rmw`, as `devices.allow` of cgroup v1 has them.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub device_cgroup_rules: Vec<String> => or_default(strings),
        /// Devices of the host that its containers may use.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub devices: Vec<Device> => or_default(list_of(Device::checked)),
        /// Addresses of the resolvers that are asked for names that are not the engine's; empty: the host's.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub dns: Vec<String> => or_default(strings),
        /// Options of `resolv.conf(5)`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub dns_opt: Vec<String> => or_default(strings),
        /// Search domains of `resolv.conf(5)`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub dns_search: Vec<String> => or_default(strings),
        /// Domain part of the host name.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub domainname: Option<String> => opt(string),
        /// `None`: the image's; empty: none at all.
        pub entrypoint: Option<Vec<String>> => opt(command),
        /// With the contents of `env_file`; `None` stands for a variable that is named and nowhere set: the container
        /// goes without it, whatever its image says.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub environment: BTreeMap<String, Option<String>> => later,
        /// Ports it listens on without publishing them: `80`, `80/udp`, `80-82`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub expose: Vec<String> => or_default(list_of(exposed)),
        /// `CONTAINER` or `CONTAINER:ALIAS`, of containers outside the project.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub external_links: Vec<String> => or_default(strings),
        /// `name=address` pairs, sorted.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub extra_hosts: Vec<String> => or_default(strings),
        /// Further groups of its user, by name or number.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub group_add: Vec<String> => or_default(scalars),
        /// Absent: the image's.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub healthcheck: Option<Healthcheck> => opt(Healthcheck::read),
        /// Absent: from the container's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub hostname: Option<String> => opt(string),
        /// Absent: `<project>-<service>`, which its build makes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub image: Option<String> => opt(string),
        /// Puts an init before the program, which reaps orphans and passes signals on.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub init: Option<bool> => opt(boolean),
        /// `private`, `shareable`, `host`, `none`, `service:NAME` or `container:NAME`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub ipc: Option<String> => opt(string),
        /// Of its containers, with the contents of `label_file`; those of Bireme have been checked.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub labels: BTreeMap<String, String> => later,
        /// `SERVICE` or `SERVICE:ALIAS`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub links: Vec<String> => or_default(strings),
        /// Where its output goes.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub logging: Option<Logging> => opt(Logging::read),
        /// On its first network.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub mac_address: Option<String> => opt(string),
        /// Bytes.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub mem_limit: Option<i64> => opt(bytes),
        /// Bytes.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub mem_reservation: Option<i64> => opt(bytes),
        /// Per cent.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub mem_swappiness: Option<i64> => opt(integer),
        /// Bytes of memory and swap together; -1 is no limit.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub memswap_limit: Option<i64> => opt(bytes),
        /// `host`, `none`, `service:NAME`, `container:NAME` or a network's name; excludes `networks`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub network_mode: Option<String> => opt(string),
        /// By the key of the network; `default` when the file names none.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub networks: BTreeMap<String, Option<ServiceNetwork>> => or_default(members_of(maybe(ServiceNetwork::read))),
        /// Makes processes wait instead of being killed when memory runs out; cgroup v1 only.
        #[serde(skip_serializing_if = "is_false")]
        pub oom_kill_disable: bool => or_default(boolean),
        /// From -1000 (never killed when memory runs out) to 1000 (first).
        #[serde(skip_serializing_if = "Option::is_none")]
        pub oom_score_adj: Option<i64> => opt(bounded(-1000, 1000)),
        /// `host`, `service:NAME` or `container:NAME`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub pid: Option<String> => opt(string),
        /// 0 or -1: no limit.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub pids_limit: Option<i64> => opt(integer),
        /// `wasi/wasm` makes the service a component.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub platform: Option<String> => opt(string),
        /// Published ports.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub ports: Vec<Port> => or_default(list_of(Port::read)),
        /// Gives all capabilities and devices.
        #[serde(skip_serializing_if = "is_false")]
        pub privileged: bool => or_default(boolean),
        /// `always`, `never`, `missing`, `if_not_present` or `build`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub pull_policy: Option<String> => opt(pull_policy),
        /// Mounts the root file system read-only.
        #[serde(skip_serializing_if = "is_false")]
        pub read_only: bool => or_default(boolean),
        /// `no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub restart: Option<String> => opt(restart),
        /// Name of a runtime of the engine; absent: its default.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub runtime: Option<String> => opt(string),
        /// How many containers; `deploy.replicas` says the same.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub scale: Option<u32> => opt(count),
        /// Secrets of the top level that its containers see.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub secrets: Vec<FileReference> => or_default(list_of(FileReference::read)),
        /// Such as `no-new-privileges:true` or `seccomp=unconfined`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub security_opt: Vec<String> => or_default(strings),
        /// Bytes.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::bytes")]
        pub shm_size: Option<i64> => opt(bytes),
        /// Keeps standard input open without a client.
        #[serde(skip_serializing_if = "is_false")]
        pub stdin_open: bool => or_default(boolean),
        /// From the stop signal to SIGKILL; absent: ten seconds.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "form::go_duration")]
        pub stop_grace_period: Option<Duration> => opt(duration),
        /// Name or number; absent: the image's, else SIGTERM.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub stop_signal: Option<String> => opt(string),
        /// Parameters of the kernel that belong to its namespaces.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub sysctls: BTreeMap<String, String> => or_default(texts),
        /// `path` or `path:options`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub tmpfs: Vec<String> => or_default(strings),
        /// Gives the program a terminal.
        #[serde(skip_serializing_if = "is_false")]
        pub tty: bool => or_default(boolean),
        /// By the name without `RLIMIT_`, in lower case: `nofile`.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub ulimits: BTreeMap<String, Ulimit> => or_default(members_of(Ulimit::read)),
        /// `USER[:GROUP]`, names or numbers; absent: the image's.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub user: Option<String> => opt(string),
        /// `host`: no user namespace of its own.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub userns_mode: Option<String> => opt(string),
        /// `host`: shares the host name of the machine.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub uts: Option<String> => opt(string),
        /// Mounts, in the order of the file.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub volumes: Vec<Mount> => or_default(list_of(Mount::checked)),
        /// `SERVICE[:ro]` or `container:NAME[:ro]`.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub volumes_from: Vec<String> => or_default(list_of(volumes_from)),
        /// Absent: the image's.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub working_dir: Option<String> => opt(string),
        /// Every `x-…` key.
        #[serde(flatten)]
        pub extensions: BTreeMap<String, Json>,
    }
    elsewhere: "env_file", "extends", "label_file";
    refused:
        "cpu_count" => WINDOWS,
        "cpu_percent" => WINDOWS,
        "cpu_rt_period" => "real-time scheduling of groups is not offered; leave it out",
        "cpu_rt_runtime" => "real-time scheduling of groups is not offered; leave it out",
        "credential_spec" => WINDOWS,
        "develop" => "watching files is not offered; mount the folder under `volumes`",
        "gpus" => "graphics processors are not handed to containers; name the device files under `devices`",
        "isolation" => WINDOWS,
        "models" => "AI models are not run by this engine; run the model as a service",
        "post_start" => "hooks are not offered; put the command into the image's entrypoint",
        "pre_stop" => "hooks are not offered; let the program react to `stop_signal`",
        "provider" => "providers are not run by this engine; start what it provides by hand",
        "pull_refresh_after" => "refreshing images by age is not offered; use `pull_policy: always`",
        "storage_opt" => "options of the image storage are not offered; leave it out",
        "use_api_socket" => "mount the engine's socket under `volumes` yourself, if the service may have all its rights";
}

impl Service {
    /// How many containers it wants: `scale`, else `deploy.replicas`, else one.
    pub fn replicas(&self) -> u32 {
        self.scale.or_else(|| self.deploy.as_ref().and_then(|deploy| deploy.replicas)).unwrap_or(1)
    }

    /// The image it runs: the one it names, else `<project>-<service>`, which its build makes.
    pub fn image_name(&self, project: &str) -> String {
        self.image.clone().unwrap_or_else(|| format!("{project}-{}", self.name))
    }

    /// Whether `platform: wasi/wasm` makes it a component.
    pub fn is_wasm(&self) -> bool {
        self.platform.as_deref().is_some_and(|platform| platform == "wasi/wasm" || platform.starts_with("wasi/wasm"))
    }
}

keyed! {
    /// Where the output of a container goes.
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct Logging = "logging" {
        /// Such as `json-file` or `none`; absent: the engine's default.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub driver: Option<String> => opt(string),
        /// Options as the driver knows them.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pub options: BTreeMap<String, String> => or_default(texts),
    }
}

fn container_name(node: &Node, path: &str) -> Result<String> {
    let name = string(node, path)?;
    let fits = name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    if fits {
        Ok(name)
    } else {
        Err(node
            .invalid(path, format!("{name:?} is not a container name; use letters, digits, _, . and -, two or more")))
    }
}

fn pull_policy(node: &Node, path: &str) -> Result<String> {
    let word = string(node, path)?;
    if matches!(word.as_str(), "refresh" | "daily" | "weekly") || word.starts_with("every_") {
        return Err(
            node.unsupported(path, format!("{word:?}: refreshing images by age is not offered; use always or missing"))
        );
    }
    one_of(&["always", "never", "missing", "if_not_present", "build"])(node, path)
}

fn restart(node: &Node, path: &str) -> Result<String> {
    // A bare `no` is a string to this reader, and so is "no"; `false` is what other readers make of it.
    if node.value == Value::Bool(false) {
        return Ok("no".to_owned());
    }
    let word = string(node, path)?;
    if word.strip_prefix("on-failure:").is_some_and(|count| count.parse::<u32>().is_ok()) {
        return Ok(word);
    }
    one_of(&["no", "always", "unless-stopped", "on-failure"])(node, path)
}

/// `SERVICE[:ro|rw]` or `container:NAME[:ro|rw]`.
fn volumes_from(node: &Node, path: &str) -> Result<String> {
    let text = string(node, path)?;
    let rest = text.strip_prefix("container:").unwrap_or(&text);
    let (name, mode) = rest.split_once(':').unwrap_or((rest, "rw"));
    if !name.is_empty() && matches!(mode, "ro" | "rw") {
        Ok(text)
    } else {
        Err(node.invalid(path, format!("{text:?} is not SERVICE[:ro] or container:NAME[:ro]")))
    }
}
