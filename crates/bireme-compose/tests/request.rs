//! What the API is asked for, and by what a change is noticed.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails fails the test")]

mod text;

use std::collections::BTreeMap;

use bireme_compose::plan::{Observed, Step, UpOptions, up};
use bireme_compose::{Replica, config_hash, create_request, labels};
use text::{SHARED, project};

#[test]
fn a_request_says_what_the_file_says() {
    let project = project(
        "
services:
  a:
    image: x
    platform: wasi/wasm
    command: [run]
    environment: {A: 1, UNSET: }
    ports: ['127.0.0.1:8080:80', '53:53/udp', '90']
    expose: ['7000', 9000-9001]
    volumes: ['data:/d:ro', './b:/b', /anon, {type: tmpfs, target: /t, tmpfs: {size: 1m}}, {type: bind, source: /s, target: /s}]
    tmpfs: ['/run:size=1m', /x]
    networks: {n: {aliases: [al], ipv4_address: 10.0.0.5}}
    healthcheck: {test: ping, interval: 2s, retries: 3}
    restart: on-failure:4
    stop_grace_period: 4s
    deploy: {resources: {limits: {cpus: '0.5', memory: 64m, pids: 9}, reservations: {memory: 32m}}}
    ulimits: {nofile: 5, nproc: {soft: 1, hard: 2}}
    labels: {bireme.http.route: /a}
    secrets: [{source: s, uid: '5', mode: 0400}]
    configs: [{source: c, target: /etc/c}]
    depends_on: [b]
    extra_hosts: ['h=1.2.3.4']
    logging: {driver: json-file, options: {max-size: 1m}}
    init: true
  b: {image: y, network_mode: 'service:c', scale: 2}
  c: {image: z}
networks: {n: {ipam: {config: [{subnet: 10.0.0.0/24}]}}}
volumes: {data: }
secrets: {s: {environment: TOKEN}}
configs: {c: {content: hello}}
",
    );
    let service = project.service("a").unwrap();
    let request = create_request(
        &project,
        service,
        &Replica { number: 2, image_id: Some("sha256:1".into()), ..Replica::default() },
    );
    let mut value = serde_json::to_value(&request.body).unwrap();
    value.sort_all_objects();
    insta::assert_json_snapshot!(value);
    assert_eq!((request.name.as_str(), request.platform.as_deref()), ("shop-a-2", Some("wasi/wasm")));
    let files: Vec<_> = request.files.iter().map(|f| (f.path.as_str(), f.content.as_slice(), f.uid, f.mode)).collect();
    assert_eq!(files, [("/run/secrets/s", &b"secret"[..], 5, 0o400), ("/etc/c", &b"hello"[..], 0, 0o444)]);
    assert!(!format!("{request:?}").contains("secret\""));

    let b = project.service("b").unwrap();
    let containers = BTreeMap::from([("c".to_owned(), "c0ffee".to_owned())]);
    let request = create_request(&project, b, &Replica { number: 1, containers, ..Replica::default() });
    assert_eq!(request.body.host_config.unwrap().network_mode.as_deref(), Some("container:c0ffee"));
    assert_eq!(request.body.labels.unwrap()[labels::DEPENDS_ON], "c:service_started:true");
}

#[test]
fn the_fingerprint_follows_the_container_and_nothing_else() {
    let hash = |text: &str| {
        let project = project(text);
        config_hash(&project, project.service("a").unwrap())
    };
    let plain = hash("services: {a: {image: x}}");
    assert_eq!(plain, hash("services: {a: {image: x, scale: 3, pull_policy: always, depends_on: [b]}, b: {image: y}}"));
    assert_eq!(plain, hash("services: {a: {image: x, x-note: 1, deploy: {replicas: 2}}}"));
    assert_ne!(plain, hash("services: {a: {image: x, tty: true}}"));
    let inline = |content: &str| {
        hash(&format!("services: {{a: {{image: x, configs: [c]}}}}\nconfigs: {{c: {{content: {content}}}}}"))
    };
    assert_ne!(inline("one"), inline("two"));
}

#[test]
fn links_name_the_containers_of_the_other_service() {
    let project = project(SHARED);
    let observed = Observed::default();
    let plan = up(&project, &observed, &UpOptions::default()).unwrap();
    let request = plan.steps.iter().find_map(|step| match &step.step {
        Step::CreateContainer { service, request, .. } if service == "t" => Some(request),
        _ => None,
    });
    let body = &request.unwrap().body;
    let endpoints = body.networking_config.as_ref().unwrap().endpoints_config.as_ref().unwrap();
    let links = endpoints["shop_default"].links.as_ref().unwrap();
    assert_eq!(links, &["shop-p-1:proxy", "shop-p-1:p-1", "shop-p-1:shop-p-1"]);
    assert_eq!(body.host_config.as_ref().unwrap().volumes_from.as_ref().unwrap(), &["shop-s-1:ro"]);
}
