//! The flags of `run` and `create` as the body of `POST /containers/create`.

mod mounts;
mod ports;

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use bireme_api::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigLogConfig, NetworkingConfig, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};

use crate::cli::ContainerOptions;

pub use mounts::volume;
pub use ports::publish;

/// What is sent to create a workload.
#[derive(Clone, Debug)]
pub struct CreateRequest {
    /// The name it is to have; without one, the engine invents it.
    pub name: Option<String>,
    /// `OS/ARCHITECTURE` of the image; without one, the machine's.
    pub platform: Option<String>,
    /// The body of the request.
    pub body: ContainerCreateBody,
}

/// Reads the flags. `image` stands for the one given, which may be a file; `detach` says that nobody attaches.
///
/// # Errors
/// The first flag whose value cannot be read, by name, with the form it takes.
pub fn create(options: &ContainerOptions, image: &str, detach: bool) -> anyhow::Result<CreateRequest> {
    let (binds, anonymous) = mounts::volumes(&options.volume)?;
    let (mut exposed, bindings) = ports::publish(&options.publish)?;
    for port in &options.expose {
        exposed.extend(ports::expose(port)?);
    }
    exposed.sort_unstable();
    exposed.dedup();
    let networks = networks(options)?;
    let wants = |stream: &str| options.attach.iter().any(|named| named.eq_ignore_ascii_case(stream));
    let attached = |stream: &str| !detach && (options.attach.is_empty() || wants(stream));
    let stdin = !detach && (if options.attach.is_empty() { options.interactive } else { wants("stdin") });
    let host_config = HostConfig {
        memory: options.memory,
        memory_swap: options.memory_swap,
        memory_reservation: options.memory_reservation,
        memory_swappiness: options.memory_swappiness,
        nano_cpus: options.cpus.map(|cpus| (cpus * 1e9).round() as i64),
        cpu_shares: options.cpu_shares,
        cpu_period: options.cpu_period,
        cpu_quota: options.cpu_quota,
        cpuset_cpus: options.cpuset_cpus.clone(),
        cpuset_mems: options.cpuset_mems.clone(),
        blkio_weight: options.blkio_weight,
        pids_limit: options.pids_limit,
        ulimits: some(options.ulimit.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?),
        oom_kill_disable: options.oom_kill_disable.then_some(true),
        oom_score_adj: options.oom_score_adj,
        shm_size: options.shm_size,
        init: options.init.then_some(true),
        binds: some(binds),
        mounts: some(options.mount.iter().map(|text| mounts::mount(text)).collect::<Result<_, _>>()?),
        tmpfs: some_map(options.tmpfs.iter().map(|text| pair(text, ':')).collect()),
        volumes_from: some(options.volumes_from.clone()),
        volume_driver: options.volume_driver.clone(),
        readonly_rootfs: options.read_only.then_some(true),
        storage_opt: some_map(pairs("--storage-opt", &options.storage_opt)?),
        port_bindings: (!bindings.is_empty()).then_some(bindings),
        publish_all_ports: options.publish_all.then_some(true),
        network_mode: options.network.first().map(|network| network_name(network).to_owned()),
        links: some(options.link.clone()),
        extra_hosts: some(options.add_host.iter().map(|text| add_host(text)).collect::<Result<_, _>>()?),
        dns: some(options.dns.clone()),
        dns_search: some(options.dns_search.clone()),
        dns_options: some(options.dns_option.clone()),
        restart_policy: Some(restart_policy(&options.restart)?),
        auto_remove: options.rm.then_some(true),
        cap_add: some(options.cap_add.clone()),
        cap_drop: some(options.cap_drop.clone()),
        privileged: options.privileged.then_some(true),
        security_opt: some(options.security_opt.iter().map(|text| security(text)).collect::<Result<_, _>>()?),
        devices: some(options.device.iter().map(|text| device(text)).collect::<Result<_, _>>()?),
        device_cgroup_rules: some(options.device_cgroup_rule.clone()),
        sysctls: some_map(pairs("--sysctl", &options.sysctl)?),
        group_add: some(options.group_add.clone()),
        pid_mode: options.pid.clone(),
        ipc_mode: options.ipc.clone(),
        uts_mode: options.uts.clone(),
        userns_mode: options.userns.clone(),
        cgroupns_mode: options.cgroupns.as_deref().map(|mode| word("--cgroupns", mode)).transpose()?,
        cgroup_parent: options.cgroup_parent.clone(),
        runtime: options.runtime.clone(),
        annotations: some_map(pairs("--annotation", &options.annotation)?),
        log_config: log_config(options)?,
        container_id_file: options.cidfile.clone(),
        console_size: crate::terminal::size()
            .filter(|_| options.tty)
            .map(|(width, height)| vec![height.into(), width.into()]),
        ..HostConfig::default()
    };
    if options.rm && !matches!(options.restart.as_str(), "no" | "") {
        bail!("--rm and --restart exclude each other: a workload that is removed when it ends cannot be restarted");
    }
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: some(options.args().to_vec()),
        entrypoint: options.entrypoint.as_ref().map(|command| vec![command.clone()]),
        env: some(environment(&options.env, &options.env_file)?),
        working_dir: options.workdir.clone(),
        user: options.user.clone(),
        hostname: options.hostname.clone(),
        domainname: options.domainname.clone(),
        labels: some_map(labels(options)?),
        stop_signal: options.stop_signal.clone(),
        stop_timeout: options.stop_timeout,
        tty: Some(options.tty),
        open_stdin: Some(options.interactive),
        stdin_once: Some(options.interactive && !detach),
        attach_stdin: Some(stdin),
        attach_stdout: Some(attached("stdout")),
        attach_stderr: Some(attached("stderr")),
        exposed_ports: some(exposed),
        volumes: some(anonymous),
        healthcheck: health(options)?,
        host_config: Some(host_config),
        networking_config: networks,
        ..ContainerCreateBody::default()
    };
    Ok(CreateRequest { name: options.name.clone(), platform: options.platform.clone(), body })
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

fn some_map(map: HashMap<String, String>) -> Option<HashMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

/// A word of an enumeration of the wire types.
fn word<T: serde::de::DeserializeOwned>(flag: &str, text: &str) -> anyhow::Result<T> {
    serde_json::from_value(text.into()).with_context(|| format!("{flag}: {text:?} is not a mode it has"))
}

fn pair(text: &str, separator: char) -> (String, String) {
    let (key, value) = text.split_once(separator).unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// `KEY=VALUE` flags as a map.
pub fn pairs(flag: &str, texts: &[String]) -> anyhow::Result<HashMap<String, String>> {
    texts
        .iter()
        .map(|text| match pair(text, '=') {
            (key, _) if key.is_empty() => bail!("{flag}: {text:?} has no key; write KEY=VALUE"),
            pair => Ok(pair),
        })
        .collect()
}

/// The lines of a file of variables or labels, without comments.
fn lines(flag: &str, path: &str) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{flag}: cannot read {path}"))?;
    Ok(text
        .trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

/// Files first, flags over them; a key without a value is taken from our own environment, or left out.
pub fn environment(flags: &[String], files: &[String]) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    for file in files {
        texts.extend(lines("--env-file", file)?);
    }
    texts.extend(flags.iter().cloned());
    let mut environment = Vec::new();
    for text in texts {
        match text.split_once('=') {
            Some(("", _)) => bail!("--env: {text:?} has no name; write KEY=VALUE"),
            Some(_) => environment.push(text),
            None => environment.extend(std::env::var(&text).ok().map(|value| format!("{text}={value}"))),
        }
    }
    Ok(environment)
}

fn labels(options: &ContainerOptions) -> anyhow::Result<HashMap<String, String>> {
    let mut texts = Vec::new();
    for file in &options.label_file {
        texts.extend(lines("--label-file", file)?);
    }
    texts.extend(options.label.iter().cloned());
    let mut labels = pairs("--label", &texts)?;
    if !options.allow.is_empty() {
        labels.insert("bireme.allow".to_owned(), options.allow.join(","));
    }
    if options.allow_requested {
        labels.insert("bireme.allow-requested".to_owned(), "true".to_owned());
    }
    if !options.route.is_empty() {
        labels.insert("bireme.http.route".to_owned(), options.route.join(","));
    }
    Ok(labels)
}

/// Reads `--restart`.
///
/// # Errors
/// A word that is no policy.
pub fn restart_policy(text: &str) -> anyhow::Result<RestartPolicy> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => {
            let count = count
                .parse::<i64>()
                .ok()
                .filter(|count| *count >= 0)
                .with_context(|| format!("--restart: {count:?} is not a number of retries"))?;
            (name, Some(count))
        }
        None => (text, None),
    };
    let name = match name {
        "" | "no" => RestartPolicyNameEnum::NO,
        "always" => RestartPolicyNameEnum::ALWAYS,
        "unless-stopped" => RestartPolicyNameEnum::UNLESS_STOPPED,
        "on-failure" => RestartPolicyNameEnum::ON_FAILURE,
        other => bail!("--restart: {other:?} is not one of no, on-failure[:N], always, unless-stopped"),
    };
    if count.is_some() && name != RestartPolicyNameEnum::ON_FAILURE {
        bail!("--restart: only on-failure takes a number of retries");
    }
    Ok(RestartPolicy { name: Some(name), maximum_retry_count: Some(count.unwrap_or(0)) })
}

fn ulimit(text: &str) -> anyhow::Result<ResourcesUlimits> {
    let form = || format!("--ulimit: {text:?} is not NAME=SOFT[:HARD], such as nofile=1024:2048");
    let (name, limits) = text.split_once('=').with_context(form)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    Ok(ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(soft.parse().with_context(form)?),
        hard: Some(hard.parse().with_context(form)?),
    })
}

fn device(text: &str) -> anyhow::Result<DeviceMapping> {
    let parts: Vec<&str> = text.split(':').collect();
    let is_mode = |part: &str| !part.is_empty() && part.chars().all(|c| "rwm".contains(c));
    let (host, inside, mode) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, mode] if is_mode(mode) => (host, host, mode),
        [host, inside] => (host, inside, "rwm"),
        [host, inside, mode] if is_mode(mode) => (host, inside, mode),
        _ => bail!("--device: {text:?} is not HOST[:CONTAINER[:rwm]]"),
    };
    Ok(DeviceMapping {
        path_on_host: Some(host.to_owned()),
        path_in_container: Some(inside.to_owned()),
        cgroup_permissions: Some(mode.to_owned()),
    })
}

fn add_host(text: &str) -> anyhow::Result<String> {
    match text.split_once('=').or_else(|| text.split_once(':')) {
        Some((name, address)) if !name.is_empty() && !address.is_empty() => {
            Ok(format!("{name}:{}", address.trim_start_matches('[').trim_end_matches(']')))
        }
        _ => bail!("--add-host: {text:?} is not NAME:ADDRESS"),
    }
}

/// The text of a seccomp profile goes over the wire, not its path, which is ours.
fn security(text: &str) -> anyhow::Result<String> {
    match text.split_once('=') {
        Some(("seccomp", "unconfined" | "builtin")) => Ok(text.to_owned()),
        Some(("seccomp", path)) => {
            let profile = std::fs::read_to_string(path)
                .with_context(|| format!("--security-opt: cannot read the seccomp profile {path}"))?;
            let profile: serde_json::Value = serde_json::from_str(&profile)
                .with_context(|| format!("--security-opt: {path} is not a seccomp profile"))?;
            Ok(format!("seccomp={profile}"))
        }
        _ => Ok(text.to_owned()),
    }
}

fn log_config(options: &ContainerOptions) -> anyhow::Result<Option<HostConfigLogConfig>> {
    let config = pairs("--log-opt", &options.log_opt)?;
    if options.log_driver.is_none() && config.is_empty() {
        return Ok(None);
    }
    Ok(Some(HostConfigLogConfig { typ: Some(options.log_driver.clone().unwrap_or_default()), config: Some(config) }))
}

fn health(options: &ContainerOptions) -> anyhow::Result<Option<HealthConfig>> {
    let any = options.health_cmd.is_some()
        || options.health_interval.is_some()
        || options.health_timeout.is_some()
        || options.health_retries.is_some()
        || options.health_start_period.is_some()
        || options.health_start_interval.is_some();
    if options.no_healthcheck {
        if any {
            bail!("--no-healthcheck excludes every --health-* flag");
        }
        return Ok(Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() }));
    }
    Ok(any.then(|| HealthConfig {
        test: options.health_cmd.as_ref().map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]),
        interval: options.health_interval,
        timeout: options.health_timeout,
        retries: options.health_retries,
        start_period: options.health_start_period,
        start_interval: options.health_start_interval,
    }))
}

/// The name in `--network NAME` or `--network name=NAME,alias=…`.
fn network_name(text: &str) -> &str {
    text.split(',').find_map(|part| part.strip_prefix("name=")).unwrap_or(text)
}

fn networks(options: &ContainerOptions) -> anyhow::Result<Option<NetworkingConfig>> {
    let mut endpoints = HashMap::new();
    for (at, text) in options.network.iter().enumerate() {
        let mut aliases = Vec::new();
        let (mut ip, mut ip6, mut mac) = (None, None, None);
        if text.contains('=') {
            for part in text.split(',') {
                match part.split_once('=') {
                    Some(("name", _)) => {}
                    Some(("alias", value)) => aliases.push(value.to_owned()),
                    Some(("ip", value)) => ip = Some(value.to_owned()),
                    Some(("ip6", value)) => ip6 = Some(value.to_owned()),
                    Some(("mac-address", value)) => mac = Some(value.to_owned()),
                    _ => bail!("--network: {part:?} is not one of name=, alias=, ip=, ip6=, mac-address="),
                }
            }
        }
        if at == 0 {
            aliases.extend(options.network_alias.iter().cloned());
            ip = ip.or_else(|| options.ip.clone());
            ip6 = ip6.or_else(|| options.ip6.clone());
            mac = mac.or_else(|| options.mac_address.clone());
        }
        let addressed = ip.is_some() || ip6.is_some();
        endpoints.insert(
            network_name(text).to_owned(),
            EndpointSettings {
                aliases: some(aliases),
                mac_address: mac,
                ipam_config: addressed.then_some(EndpointIpamConfig {
                    ipv4_address: ip,
                    ipv6_address: ip6,
                    ..EndpointIpamConfig::default()
                }),
                ..EndpointSettings::default()
            },
        );
    }
    if endpoints.is_empty() && !(options.network_alias.is_empty() && options.ip.is_none() && options.ip6.is_none()) {
        bail!(
            "--network-alias, --ip and --ip6 need --network: the default network has neither names nor fixed addresses"
        );
    }
    let special = |name: &str| matches!(name, "host" | "none" | "bridge" | "default") || name.starts_with("container:");
    endpoints.retain(|name, settings| {
        !special(name) || settings.aliases.is_some() || settings.ipam_config.is_some() || settings.mac_address.is_some()
    });
    Ok((!endpoints.is_empty()).then_some(NetworkingConfig { endpoints_config: Some(endpoints) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn request(line: &str) -> anyhow::Result<Value> {
        use clap::Parser;
        let cli = crate::cli::Cli::try_parse_from(["bireme", "run"].into_iter().chain(line.split(' '))).unwrap();
        let crate::cli::Command::Run(run) = cli.command else { panic!("run") };
        let request = create(&run.options, run.options.image(), run.detach)?;
        Ok(serde_json::to_value(request.body)?)
    }

    fn check(line: &str, pointer: &str, expected: Value) {
        let body = request(line).unwrap();
        assert_eq!(body.pointer(pointer), Some(&expected), "{line} at {pointer}: {body}");
    }

    fn check_refused(line: &str, expected: &str) {
        assert_eq!(format!("{:#}", request(line).unwrap_err()), expected);
    }

    #[test]
    fn flags_become_dockers_fields() {
        check("-it alpine sh", "/Cmd", json!(["sh"]));
        check("-it alpine", "/Tty", json!(true));
        check("-it alpine", "/AttachStdin", json!(true));
        check("-di alpine", "/StdinOnce", json!(false));
        check("-d alpine", "/AttachStdout", json!(false));
        check("-e A=b alpine", "/Env", json!(["A=b"]));
        check("-m 64m --cpus 1.5 alpine", "/HostConfig/NanoCpus", json!(1_500_000_000));
        check("-m 64m alpine", "/HostConfig/Memory", json!(64 << 20));
        check(
            "--restart on-failure:3 alpine",
            "/HostConfig/RestartPolicy",
            json!({"Name": "on-failure", "MaximumRetryCount": 3}),
        );
        check("--ulimit nofile=1:2 alpine", "/HostConfig/Ulimits", json!([{"Name": "nofile", "Soft": 1, "Hard": 2}]));
        check("--tmpfs /t:size=1m alpine", "/HostConfig/Tmpfs", json!({"/t": "size=1m"}));
        check(
            "--health-cmd true --health-interval 2s alpine",
            "/Healthcheck",
            json!({"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000i64}),
        );
        check("--no-healthcheck alpine", "/Healthcheck/Test", json!(["NONE"]));
        check("--allow redis://r:6379 --allow *.x.org alpine", "/Labels/bireme.allow", json!("redis://r:6379,*.x.org"));
        check("--route /a --route /b/... alpine", "/Labels/bireme.http.route", json!("/a,/b/..."));
        check(
            "--network n --network-alias w --ip 10.0.0.9 alpine",
            "/NetworkingConfig/EndpointsConfig/n",
            json!({"Aliases": ["w"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}),
        );
        check("--device /dev/fuse:rw alpine", "/HostConfig/Devices/0/CgroupPermissions", json!("rw"));
        check("--add-host a=::1 alpine", "/HostConfig/ExtraHosts", json!(["a:::1"]));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        check_refused(
            "--restart sometimes x",
            "--restart: \"sometimes\" is not one of no, on-failure[:N], always, unless-stopped",
        );
        check_refused(
            "--rm --restart always x",
            "--rm and --restart exclude each other: a workload that is removed when it ends cannot be restarted",
        );
        check_refused("--ulimit nofile x", "--ulimit: \"nofile\" is not NAME=SOFT[:HARD], such as nofile=1024:2048");
        check_refused(
            "--network-alias a x",
            "--network-alias, --ip and --ip6 need --network: the default network has neither names nor fixed addresses",
        );
        check_refused("-e =x x", "--env: \"=x\" has no name; write KEY=VALUE");
    }
}
