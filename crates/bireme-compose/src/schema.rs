//! Which keys there are: what we do, and what the Compose specification has and we refuse, each with its reason.
//!
//! A test holds these tables against the specification's JSON schema: every key of the schema is in one of the two
//! columns, so that a key can be refused but never be ignored.

use bireme_core::nearest::nearest;

use crate::error::ComposeError;
use crate::yaml::{Map, Node};

/// The keys of one kind of mapping.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// What the mapping is, for refusals.
    pub what: &'static str,
    /// Read and obeyed.
    pub done: &'static [&'static str],
    /// Known and refused: key and what to do instead.
    pub refused: &'static [(&'static str, &'static str)],
}

const BUILDKIT: &str = "needs BuildKit; leave it out, or build with another tool and name the image";
const SWARM: &str = "belongs to Swarm; leave it out";
const WINDOWS: &str = "exists on Windows only; leave it out";

pub const TOP: Keys = Keys {
    what: "a Compose file",
    done: &["version", "name", "include", "services", "networks", "volumes", "secrets", "configs"],
    refused: &[("models", "AI models are not run by this engine; run the model as a service")],
};

pub const INCLUDE: Keys = Keys { what: "an include", done: &["path", "project_directory", "env_file"], refused: &[] };

pub const EXTENDS: Keys = Keys { what: "extends", done: &["service", "file"], refused: &[] };

pub const SERVICE: Keys = Keys {
    what: "a service",
    done: &[
        "annotations",
        "attach",
        "blkio_config",
        "build",
        "cap_add",
        "cap_drop",
        "cgroup",
        "cgroup_parent",
        "command",
        "configs",
        "container_name",
        "cpu_period",
        "cpu_quota",
        "cpu_shares",
        "cpus",
        "cpuset",
        "depends_on",
        "deploy",
        "device_cgroup_rules",
        "devices",
        "dns",
        "dns_opt",
        "dns_search",
        "domainname",
        "entrypoint",
        "env_file",
        "environment",
        "expose",
        "extends",
        "external_links",
        "extra_hosts",
        "group_add",
        "healthcheck",
        "hostname",
        "image",
        "init",
        "ipc",
        "label_file",
        "labels",
        "links",
        "logging",
        "mac_address",
        "mem_limit",
        "mem_reservation",
        "mem_swappiness",
        "memswap_limit",
        "network_mode",
        "networks",
        "oom_kill_disable",
        "oom_score_adj",
        "pid",
        "pids_limit",
        "platform",
        "ports",
        "privileged",
        "profiles",
        "pull_policy",
        "read_only",
        "restart",
        "runtime",
        "scale",
        "secrets",
        "security_opt",
        "shm_size",
        "stdin_open",
        "stop_grace_period",
        "stop_signal",
        "sysctls",
        "tmpfs",
        "tty",
        "ulimits",
        "user",
        "userns_mode",
        "uts",
        "volumes",
        "volumes_from",
        "working_dir",
    ],
    refused: &[
        ("cpu_count", WINDOWS),
        ("cpu_percent", WINDOWS),
        ("cpu_rt_period", "real-time scheduling of groups is not offered; leave it out"),
        ("cpu_rt_runtime", "real-time scheduling of groups is not offered; leave it out"),
        ("credential_spec", WINDOWS),
        ("develop", "watching files is not offered; mount the folder under `volumes`"),
        ("gpus", "graphics processors are not handed to containers; name the device files under `devices`"),
        ("isolation", WINDOWS),
        ("models", "AI models are not run by this engine; run the model as a service"),
        ("post_start", "hooks are not offered; put the command into the image's entrypoint"),
        ("pre_stop", "hooks are not offered; let the program react to `stop_signal`"),
        ("provider", "providers are not run by this engine; start what it provides by hand"),
        ("pull_refresh_after", "refreshing images by age is not offered; use `pull_policy: always`"),
        ("storage_opt", "options of the image storage are not offered; leave it out"),
        (
            "use_api_socket",
            "mount the engine's socket under `volumes` yourself, if the service may have all its rights",
        ),
    ],
};

pub const BLKIO: Keys = Keys {
    what: "blkio_config",
    done: &["device_read_bps", "device_read_iops", "device_write_bps", "device_write_iops", "weight"],
    refused: &[("weight_device", "weights of single devices are not offered; limit its rates")],
};

pub const BLKIO_LIMIT: Keys = Keys { what: "a limit of a device", done: &["path", "rate"], refused: &[] };

pub const BUILD: Keys = Keys {
    what: "build",
    done: &[
        "args",
        "cache_from",
        "context",
        "dockerfile",
        "dockerfile_inline",
        "extra_hosts",
        "labels",
        "network",
        "no_cache",
        "platforms",
        "pull",
        "shm_size",
        "tags",
        "target",
    ],
    refused: &[
        ("additional_contexts", BUILDKIT),
        ("cache_to", BUILDKIT),
        ("entitlements", BUILDKIT),
        ("isolation", WINDOWS),
        ("privileged", BUILDKIT),
        ("provenance", BUILDKIT),
        ("sbom", BUILDKIT),
        ("secrets", BUILDKIT),
        ("ssh", BUILDKIT),
        ("ulimits", "limits of build steps are not offered; leave it out"),
    ],
};

pub const DEPENDENCY: Keys = Keys { what: "a dependency", done: &["condition", "restart", "required"], refused: &[] };

pub const HEALTHCHECK: Keys = Keys {
    what: "healthcheck",
    done: &["disable", "interval", "retries", "start_interval", "start_period", "test", "timeout"],
    refused: &[],
};

pub const DEPLOY: Keys = Keys {
    what: "deploy",
    done: &["labels", "mode", "replicas", "resources", "restart_policy"],
    refused: &[
        ("endpoint_mode", SWARM),
        ("placement", "there is one machine, so nothing to place; leave it out"),
        ("rollback_config", SWARM),
        ("update_config", SWARM),
    ],
};

pub const RESOURCES: Keys = Keys { what: "resources", done: &["limits", "reservations"], refused: &[] };

pub const LIMITS: Keys = Keys { what: "limits", done: &["cpus", "memory", "pids"], refused: &[] };

pub const RESERVATIONS: Keys = Keys {
    what: "reservations",
    done: &["cpus", "memory"],
    refused: &[
        ("devices", "graphics processors are not handed to containers; name the device files under `devices`"),
        ("generic_resources", SWARM),
    ],
};

pub const RESTART_POLICY: Keys = Keys {
    what: "restart_policy",
    done: &["condition", "max_attempts"],
    refused: &[
        ("delay", "the wait between restarts is the engine's own, growing from 100 ms to a minute; leave it out"),
        ("window", "the engine counts a start as good after ten seconds; leave it out"),
    ],
};

pub const PORT: Keys = Keys {
    what: "a port",
    done: &["app_protocol", "host_ip", "mode", "name", "protocol", "published", "target"],
    refused: &[],
};

pub const MOUNT: Keys = Keys {
    what: "a mount",
    done: &["bind", "consistency", "read_only", "source", "target", "tmpfs", "type", "volume"],
    refused: &[("image", "images cannot be mounted; copy the files into a volume")],
};

pub const BIND: Keys =
    Keys { what: "bind", done: &["create_host_path", "propagation", "recursive", "selinux"], refused: &[] };

pub const VOLUME_OPTIONS: Keys = Keys { what: "volume", done: &["labels", "nocopy", "subpath"], refused: &[] };

pub const TMPFS: Keys = Keys { what: "tmpfs", done: &["mode", "size"], refused: &[] };

pub const SERVICE_NETWORK: Keys = Keys {
    what: "a network of a service",
    done: &[
        "aliases",
        "driver_opts",
        "gw_priority",
        "ipv4_address",
        "ipv6_address",
        "link_local_ips",
        "mac_address",
        "priority",
    ],
    refused: &[("interface_name", "interfaces are named by the engine; leave it out")],
};

pub const FILE_REFERENCE: Keys =
    Keys { what: "a secret or config of a service", done: &["gid", "mode", "source", "target", "uid"], refused: &[] };

pub const ENV_FILE: Keys = Keys { what: "env_file", done: &["format", "path", "required"], refused: &[] };

pub const DEVICE: Keys = Keys { what: "a device", done: &["permissions", "source", "target"], refused: &[] };

pub const LOGGING: Keys = Keys { what: "logging", done: &["driver", "options"], refused: &[] };

pub const ULIMIT: Keys = Keys { what: "a limit", done: &["hard", "soft"], refused: &[] };

pub const NETWORK: Keys = Keys {
    what: "a network",
    done: &[
        "attachable",
        "driver",
        "driver_opts",
        "enable_ipv4",
        "enable_ipv6",
        "external",
        "internal",
        "ipam",
        "labels",
        "name",
    ],
    refused: &[],
};

pub const IPAM: Keys = Keys { what: "ipam", done: &["config", "driver", "options"], refused: &[] };

pub const IPAM_POOL: Keys =
    Keys { what: "an address pool", done: &["aux_addresses", "gateway", "ip_range", "subnet"], refused: &[] };

pub const VOLUME: Keys =
    Keys { what: "a volume", done: &["driver", "driver_opts", "external", "labels", "name"], refused: &[] };

const STORE: &str = "secrets and configs come from files, variables or the Compose file; use `file` or `environment`";

pub const SECRET: Keys = Keys {
    what: "a secret",
    done: &["environment", "file", "labels", "name"],
    refused: &[("driver", STORE), ("driver_opts", STORE), ("external", STORE), ("template_driver", STORE)],
};

pub const CONFIG: Keys = Keys {
    what: "a config",
    done: &["content", "environment", "file", "labels", "name"],
    refused: &[("external", STORE), ("template_driver", STORE)],
};

/// Checks the keys of the mapping at `path`; `x-…` may stand anywhere.
///
/// # Errors
/// The first key that is refused or unknown.
pub(crate) fn check_keys(map: &Map, keys: &Keys, path: &str) -> Result<(), ComposeError> {
    for (key, node) in map {
        if key.starts_with("x-") || keys.done.contains(&key.as_str()) {
            continue;
        }
        return Err(refusal(node, key, keys, path));
    }
    Ok(())
}

fn refusal(node: &Node, key: &str, keys: &Keys, path: &str) -> ComposeError {
    let at = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    if let Some((_, instead)) = keys.refused.iter().find(|(refused, _)| *refused == key) {
        return node.unsupported(at, format!("is not offered by this engine: {instead}"));
    }
    let known = keys.done.iter().copied().chain(keys.refused.iter().map(|(key, _)| *key));
    let hint = match nearest(key, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "remove it, or begin it with x- if another program reads it".to_owned(),
    };
    node.invalid(at, format!("is not a key of {}; {hint}", keys.what))
}
