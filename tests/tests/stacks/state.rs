//! What an engine holds of one project, without what differs from run to run.

use std::collections::BTreeMap;

use bireme_testing::Subject;
use serde_json::{Map, Value, json};

/// Looks at one project again and again, and knows its containers again.
pub(crate) struct Witness<'a> {
    project: &'a str,
    subject: &'a Subject,
    /// The containers seen under each name, oldest first: a container made anew shows.
    seen: BTreeMap<String, Vec<String>>,
}

/// What of a container's configuration is compared.
const CONFIG: &[&str] = &[
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Cmd",
    "Domainname",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Image",
    "OpenStdin",
    "StdinOnce",
    "StopSignal",
    "StopTimeout",
    "Tty",
    "User",
    "Volumes",
    "WorkingDir",
];

/// What of a container's place on the machine is compared.
const HOST: &[&str] = &[
    "AutoRemove",
    "Binds",
    "CapAdd",
    "CapDrop",
    "CgroupParent",
    "CpuPeriod",
    "CpuQuota",
    "CpuShares",
    "CpusetCpus",
    "Dns",
    "DnsOptions",
    "DnsSearch",
    "ExtraHosts",
    "GroupAdd",
    "Init",
    "IpcMode",
    "Links",
    "LogConfig",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "NanoCpus",
    "NetworkMode",
    "OomScoreAdj",
    "PidMode",
    "PidsLimit",
    "PortBindings",
    "Privileged",
    "PublishAllPorts",
    "ReadonlyRootfs",
    "RestartPolicy",
    "SecurityOpt",
    "ShmSize",
    "Sysctls",
    "Tmpfs",
    "UTSMode",
    "Ulimits",
    "UsernsMode",
    "VolumesFrom",
];

/// Labels of Compose that name paths, hashes and versions.
const PASSING_LABELS: &[&str] = &[
    "com.docker.compose.config-hash",
    "com.docker.compose.image",
    "com.docker.compose.project.config_files",
    "com.docker.compose.project.working_dir",
    "com.docker.compose.project.environment_file",
    "com.docker.compose.replace",
    "com.docker.compose.version",
    "com.docker.compose.slug",
];

impl<'a> Witness<'a> {
    pub(crate) fn new(project: &'a str, subject: &'a Subject) -> Self {
        Self { project, subject, seen: BTreeMap::new() }
    }

    /// The containers, networks and volumes of the project, as readable JSON.
    pub(crate) fn look(&mut self) -> String {
        let networks = self.networks();
        let mut containers = Map::new();
        for id in self.ours("/containers/json?all=1") {
            let container = self.get(&format!("/containers/{id}/json"));
            let name = text(&container["Name"]).trim_start_matches('/').to_owned();
            let known = self.seen.entry(name.clone()).or_default();
            let number = known.iter().position(|seen| *seen == id).unwrap_or_else(|| {
                known.push(id.clone());
                known.len() - 1
            });
            // `run` calls its containers at random.
            let name = name.split_once("-run-").map_or(name.clone(), |(service, _)| format!("{service}-run"));
            containers.insert(name, container_state(&container, number + 1, &networks));
        }
        let networks: Map<String, Value> =
            networks.iter().map(|(name, network)| (name.clone(), network_state(network))).collect();
        let state = json!({ "Containers": containers, "Networks": networks, "Volumes": self.volumes() });
        serde_json::to_string_pretty(&state).expect("JSON can be written")
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.subject.request("GET", path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// The ids of the project's own in a listing.
    fn ours(&self, path: &str) -> Vec<String> {
        let all = self.get(path);
        all.as_array()
            .into_iter()
            .flatten()
            .filter(|entry| self.is_ours(entry))
            .map(|entry| text(&entry["Id"]).to_owned())
            .collect()
    }

    fn is_ours(&self, entry: &Value) -> bool {
        let named = |name: &Value| {
            text(name)
                .trim_start_matches('/')
                .strip_prefix(self.project)
                .is_some_and(|rest| rest.starts_with(['-', '_']))
        };
        entry["Labels"]["com.docker.compose.project"] == self.project
            || named(&entry["Name"])
            || named(&entry["Names"][0])
    }

    fn networks(&self) -> BTreeMap<String, Value> {
        let ids = self.ours("/networks");
        ids.iter()
            .map(|id| self.get(&format!("/networks/{id}")))
            .map(|network| (text(&network["Name"]).to_owned(), network))
            .collect()
    }

    fn volumes(&self) -> Map<String, Value> {
        let all = self.get("/volumes");
        all["Volumes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|volume| self.is_ours(volume))
            .map(|volume| {
                let state = json!({
                    "Driver": volume["Driver"],
                    "Labels": labels(&volume["Labels"]),
                    "Options": volume["Options"],
                    "Scope": volume["Scope"],
                });
                (text(&volume["Name"]).to_owned(), state)
            })
            .collect()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn labels(labels: &Value) -> Value {
    let mut kept = labels.clone();
    if let Some(kept) = kept.as_object_mut() {
        kept.retain(|key, _| !PASSING_LABELS.contains(&key.as_str()));
        // In no order either.
        if let Some(depends) = kept.get_mut("com.docker.compose.depends_on") {
            let mut sorted: Vec<&str> = text(depends).split(',').collect();
            sorted.sort_unstable();
            *depends = json!(sorted.join(","));
        }
    }
    kept
}

fn container_state(container: &Value, number: usize, networks: &BTreeMap<String, Value>) -> Value {
    let id = text(&container["Id"]);
    let short = id.get(..12).unwrap_or(id);
    let (config, host, state) = (&container["Config"], &container["HostConfig"], &container["State"]);
    let some = |from: &Value, keys: &[&str]| -> Value {
        let kept: Map<String, Value> = keys
            .iter()
            .filter(|key| matters(&from[**key]))
            .map(|key| ((*key).to_owned(), from[*key].clone()))
            .collect();
        Value::Object(kept)
    };
    let mut config_kept = some(config, CONFIG);
    // Compose sends it in no order.
    if let Some(env) = config_kept["Env"].as_array_mut() {
        env.sort_by_key(Value::to_string);
    }
    config_kept["Labels"] = labels(&config["Labels"]);
    config_kept["Hostname"] = match text(&config["Hostname"]) {
        own if own == short => json!("<id>"),
        other => json!(other),
    };
    json!({
        "Number": number,
        "State": {
            "Status": state["Status"],
            "ExitCode": state["ExitCode"],
            "Health": state["Health"]["Status"],
            "OOMKilled": state["OOMKilled"],
            "Error": !text(&state["Error"]).is_empty(),
        },
        "RestartCount": container["RestartCount"],
        "Config": config_kept,
        "HostConfig": host_state(some(host, HOST)),
        "Mounts": mounts(&container["Mounts"]),
        "Networks": endpoints(container, short, networks),
    })
}

/// Nothing, in whichever way it is written, is nothing.
fn matters(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => number.as_i64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(entries) => !entries.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        Value::Bool(true) => true,
    }
}

/// Names of other containers, which Compose resolves to their ids, and lists without an order.
fn host_state(mut host: Value) -> Value {
    for key in ["NetworkMode", "IpcMode", "PidMode"] {
        if let Some((kind, id)) = text(&host[key]).split_once(':').filter(|(_, id)| id.len() == 64) {
            let _ = id;
            host[key] = json!(format!("{kind}:<id>"));
        }
    }
    for key in ["Binds", "CapAdd", "CapDrop", "ExtraHosts", "Ulimits"] {
        if let Some(list) = host[key].as_array_mut() {
            list.sort_by_key(Value::to_string);
        }
    }
    if let Some(entries) = host.as_object_mut() {
        entries.retain(|_, value| matters(value));
    }
    host
}

fn mounts(mounts: &Value) -> Value {
    let mut kept: Vec<Value> = mounts
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| {
            let mut kept = mount.clone();
            if mount["Type"] == "volume" {
                kept.as_object_mut().map(|kept| kept.remove("Source"));
                if text(&mount["Name"]).len() == 64 {
                    kept["Name"] = json!("<anonymous>");
                }
            }
            kept
        })
        .collect();
    kept.sort_by_key(|mount| text(&mount["Destination"]).to_owned());
    Value::Array(kept)
}

fn endpoints(container: &Value, short: &str, networks: &BTreeMap<String, Value>) -> Value {
    let running = container["State"]["Running"] == true;
    let all = container["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    let kept: Map<String, Value> = all
        .into_iter()
        .map(|(name, endpoint)| {
            let list = |key: &str| -> Vec<String> {
                let mut list: Vec<String> = endpoint[key]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|name| if text(name) == short { "<id>".to_owned() } else { text(name).to_owned() })
                    .collect();
                list.sort();
                list
            };
            let address = match (text(&endpoint["IPAddress"]), text(&endpoint["IPAMConfig"]["IPv4Address"])) {
                ("", _) => json!(""),
                (address, wanted) if address == wanted => json!(address),
                (address, _) => {
                    let subnet = networks.get(&name).map(|network| text(&network["IPAM"]["Config"][0]["Subnet"]));
                    json!(subnet.map_or("<somewhere>", |subnet| {
                        if holds(subnet, address) { "<in the subnet>" } else { "<not in the subnet>" }
                    }))
                }
            };
            let state = json!({
                "Address": address,
                "Aliases": list("Aliases"),
                "DNSNames": list("DNSNames"),
                "IPAMConfig": if matters(&endpoint["IPAMConfig"]) { endpoint["IPAMConfig"].clone() } else { json!(null) },
                "Links": endpoint["Links"],
                "MAC": running && !text(&endpoint["MacAddress"]).is_empty(),
            });
            (name, state)
        })
        .collect();
    Value::Object(kept)
}

fn number(address: &str) -> Option<u32> {
    address.parse::<std::net::Ipv4Addr>().ok().map(u32::from)
}

fn holds(subnet: &str, address: &str) -> bool {
    let parts = subnet.split_once('/').and_then(|(base, length)| Some((number(base)?, length.parse::<u32>().ok()?)));
    match (parts, number(address)) {
        (Some((base, length)), Some(address)) => (base ^ address).checked_shr(32 - length).unwrap_or(0) == 0,
        _ => false,
    }
}

fn network_state(network: &Value) -> Value {
    let ipam: Vec<Value> = network["IPAM"]["Config"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|config| {
            // Stacks choose their subnets below 10.0.0.0; the engines' own pools are elsewhere.
            if text(&config["Subnet"]).starts_with("10.") { config.clone() } else { json!("<of the pool>") }
        })
        .collect();
    json!({
        "Attachable": network["Attachable"],
        "Driver": network["Driver"],
        "IPAM": ipam,
        "Internal": network["Internal"],
        "Labels": labels(&network["Labels"]),
        "Members": network["Containers"].as_object().map(|members| {
            let mut names: Vec<&str> = members.values().map(|member| text(&member["Name"])).collect();
            names.sort_unstable();
            names.into_iter().map(str::to_owned).collect::<Vec<_>>()
        }),
        "Options": network["Options"],
        "Scope": network["Scope"],
    })
}
