use bireme_engine::request::NetworkModeRequest;
use serde_json::json;

use super::*;

fn read(body: Value) -> Result<CreateRequest, Refusal> {
    create(body, Some("/web"), None)
}

fn check(host: Value, expected: &str) {
    let got = match read(json!({ "Image": "busybox", "HostConfig": host })) {
        Ok(_) => "ok".to_owned(),
        Err(refusal) => format!("{:?}: {}", refusal.kind, refusal.message),
    };
    assert_eq!(got, expected, "{host}");
}

#[test]
fn the_cli_s_own_body_is_taken_whole() {
    // As docker 28.2.2 sends it for a run without options.
    let body = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": true,
        "AttachStderr": true, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": ["true"],
        "Image": "busybox", "Volumes": {}, "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
        "HostConfig": {
            "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "", "Config": {} }, "NetworkMode": "default",
            "PortBindings": {}, "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "AutoRemove": false,
            "VolumeDriver": "", "VolumesFrom": null, "ConsoleSize": [0, 0], "CapAdd": null, "CapDrop": null,
            "CgroupnsMode": "", "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null,
            "IpcMode": "", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false,
            "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
            "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
            "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [],
            "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0,
            "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
            "DeviceCgroupRules": null, "DeviceRequests": null, "MemoryReservation": 0, "MemorySwap": 0,
            "MemorySwappiness": -1, "OomKillDisable": false, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0,
            "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": null, "ReadonlyPaths": null
        },
        "NetworkingConfig": { "EndpointsConfig": { "default": {
            "IPAMConfig": null, "Links": null, "Aliases": null, "MacAddress": "", "DriverOpts": null, "GwPriority": 0,
            "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "IPPrefixLen": 0, "IPv6Gateway": "",
            "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": null
        } } }
    });
    let mut create = read(body.clone()).unwrap();
    assert_eq!(std::mem::take(&mut create.as_asked), body);
    insta::assert_debug_snapshot!(create);
}

#[test]
fn a_full_host_configuration_is_put_into_our_terms() {
    let mut create = read(json!({
        "Image": "busybox", "Cmd": "top", "Env": ["A=b", "C"], "StopSignal": "SIGINT", "StopTimeout": -1,
        "ExposedPorts": { "81/udp": {} }, "Volumes": { "/v": {} }, "Labels": { "a": "b" },
        "Healthcheck": { "Test": ["CMD-SHELL", "true"], "Interval": 1000000000, "Retries": 3 },
        "HostConfig": {
            "Binds": ["/tmp:/t:ro"], "Tmpfs": { "/q": "size=1m" }, "NetworkMode": "front",
            "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": "8080" }] },
            "RestartPolicy": { "Name": "on-failure", "MaximumRetryCount": 2 }, "Memory": 67108864, "NanoCpus": 500000000,
            "PidsLimit": 10, "CapAdd": ["cap_net_admin"], "CapDrop": ["ALL"], "ReadonlyRootfs": true, "Init": true,
            "SecurityOpt": ["no-new-privileges", "seccomp=unconfined", "systempaths=unconfined"],
            "Ulimits": [{ "Name": "nofile", "Soft": 1024, "Hard": -1 }], "ExtraHosts": ["a:10.0.0.1", "b=host-gateway"],
            "Dns": ["1.1.1.1"], "Devices": [{ "PathOnHost": "/dev/fuse" }], "IpcMode": "shareable",
            "PidMode": "container:db", "ShmSize": 1048576, "Sysctls": { "net.ipv4.ip_forward": "1" }
        },
        "NetworkingConfig": { "EndpointsConfig": { "front": { "Aliases": ["web"] }, "back": {} } }
    }))
    .unwrap();
    create.as_asked = Value::Null;
    insta::assert_debug_snapshot!(create);
}

#[test]
fn what_is_not_offered_is_refused_by_its_name() {
    check(json!({}), "ok");
    check(json!({ "VolumesFrom": ["x:odd"] }), "Invalid: invalid mode: odd");
    check(json!({ "Links": ["a:b:c"] }), "Invalid: bad format for links: a:b:c");
    check(json!({ "KernelMemory": 7 }), "Unsupported: KernelMemory is not offered: use Memory");
    check(json!({ "BlkioWeight": 5 }), "Invalid: Range of blkio weight is from 10 to 1000");
    check(json!({ "StorageOpt": { "size": "1g" } }), "Unsupported: StorageOpt is not offered: leave it out");
    check(
        json!({ "DeviceRequests": [{ "Count": -1 }] }),
        "Unsupported: could not select device driver \"\" with capabilities: []: name single devices in Devices",
    );
    check(
        json!({ "Runtime": "kata" }),
        "Invalid: unknown or invalid runtime name: kata: leave it out, the image's platform says how it runs",
    );
    check(json!({ "Runtime": "io.containerd.wasmtime.v1" }), "ok");
    check(json!({ "IpcMode": "none" }), "Unsupported: IpcMode none is not offered: use private");
    check(
        json!({ "SecurityOpt": ["apparmor=mine"] }),
        "Unsupported: security option \"apparmor=mine\" is not offered: leave it out",
    );
    check(json!({ "SecurityOpt": ["apparmor=unconfined", "label=disable", "seccomp=builtin"] }), "ok");
}

#[test]
fn what_contradicts_itself_is_refused_in_dockers_words() {
    check(
        json!({ "AutoRemove": true, "RestartPolicy": { "Name": "always" } }),
        "Invalid: can't create 'AutoRemove' container with restart policy",
    );
    check(
        json!({ "RestartPolicy": { "Name": "sometimes" } }),
        "Invalid: invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
    );
    check(json!({ "Memory": 1024 }), "Invalid: Minimum memory limit allowed is 6MB");
    check(
        json!({ "MemorySwap": 67108864 }),
        "Invalid: You should always set the Memory limit when using Memoryswap limit, see usage",
    );
    check(json!({ "CapAdd": ["FLY"] }), "Invalid: invalid capability: unknown capability: \"CAP_FLY\"");
    check(
        json!({ "SecurityOpt": ["seccomp={bad"] }),
        "Invalid: Decoding seccomp profile failed: expected unconfined, builtin, or a profile as JSON",
    );
    check(json!({ "SecurityOpt": ["nonsense"] }), "Invalid: invalid --security-opt: \"nonsense\"");
    check(json!({ "Binds": ["/a:/x", "/b:/x"] }), "Invalid: Duplicate mount point: /x");
    check(json!({ "PidMode": "odd" }), "Invalid: invalid PID mode: odd");
    check(
        json!({ "NetworkMode": "container:db", "PortBindings": { "80/tcp": [{}] } }),
        "Invalid: conflicting options: port publishing and the container type network mode",
    );
    check(
        json!({ "Ulimits": [{ "Name": "files", "Soft": 1, "Hard": 1 }] }),
        "Invalid: invalid ulimit type: files: use one of core, cpu, data, fsize, locks, memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack",
    );
    check(
        json!({ "Mounts": [{ "Type": "odd", "Target": "/x" }] }),
        "Invalid: mount type unknown: \"odd\": use bind, volume or tmpfs",
    );
    assert_eq!(
        create(json!({}), None, None).unwrap_err().message,
        "config cannot be empty in order to create a container"
    );
}

#[test]
fn network_modes_are_told_apart() {
    let networks = |mode: &str, endpoints: Value| {
        read(json!({
            "Image": "x", "HostConfig": { "NetworkMode": mode }, "NetworkingConfig": { "EndpointsConfig": endpoints }
        }))
        .map(|create| (create.network_mode, create.networks.into_keys().collect::<Vec<_>>()))
        .map_err(|refusal| refusal.message)
    };
    use NetworkModeRequest::{Default, Host, None, Workload};
    assert_eq!(networks("", json!({})), Ok((Default, vec![])));
    assert_eq!(networks("default", json!({ "default": {} })), Ok((Default, vec!["bridge".to_owned()])));
    assert_eq!(networks("app", json!({ "db": {} })), Ok((Default, vec!["app".to_owned(), "db".to_owned()])));
    assert_eq!(networks("none", json!({ "none": {} })), Ok((None, vec![])));
    assert_eq!(networks("host", json!({})), Ok((Host, vec![])));
    assert_eq!(networks("container:a", json!({})), Ok((Workload("a".to_owned()), vec![])));
    assert!(networks("host", json!({ "db": {} })).unwrap_err().starts_with("conflicting options"));
}
