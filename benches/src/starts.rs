//! How long the start of a workload takes inside the engine: the time of `POST /containers/…/start`, without any client.

use std::time::Instant;

use bireme_testing::Engine;
use serde_json::json;

use crate::Peers;
use crate::sample::{Samples, print_table};

pub(crate) fn run(peers: &Peers) {
    let engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("hello", "hello");
    let none = json!({ "NetworkMode": "none" });
    let container = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": none });
    let bridged = json!({ "Image": "busybox", "Cmd": ["sleep", "1000"] });
    let component = |app: &str| json!({ "Image": "hello", "Labels": { "com.docker.compose.project": app } });

    let mut samples: [Samples; 5] = Default::default();
    for round in 0..=peers.rounds {
        let mut kept = Vec::new();
        let app = format!("app{round}");
        let took = [
            start(&engine, &container, &mut kept),
            start(&engine, &bridged, &mut kept),
            start(&engine, &component(&app), &mut kept),
            start(&engine, &component(&app), &mut kept),
        ];
        // Ended by the kernel's hand, so that what is timed is what the engine does about it.
        let began = Instant::now();
        let removed = engine.request("DELETE", &format!("/containers/{}?force=1", kept[1]), b"");
        assert_eq!(removed.status, 204, "{}", removed.text());
        let end = began.elapsed().as_secs_f64() * 1e3;
        for id in [&kept[0], &kept[2], &kept[3]] {
            engine.request("DELETE", &format!("/containers/{id}?force=1"), b"");
        }
        // The first round compiles the component and the filter.
        if round > 0 {
            for (samples, took) in samples.iter_mut().zip(took.into_iter().chain([end])) {
                samples.add(took);
            }
        }
    }
    let names = [
        "a container without network: a runner, from its exec to the program's",
        "a container on the bridge",
        "the first component of an app: a host, from its exec to answering",
        "a further component of the app: loaded into the host",
        "killing and removing a container on the bridge",
    ];
    let rows: Vec<_> =
        names.iter().zip(&samples).map(|(name, samples)| vec![(*name).to_owned(), samples.told()]).collect();
    print_table(
        &format!("Inside the engine: one API request, {} rounds", peers.rounds),
        &["start of", "ms: median (least–most)"],
        &rows,
    );
    engine.finish();
}

/// Creates one and answers how many milliseconds its start took.
fn start(engine: &Engine, body: &serde_json::Value, kept: &mut Vec<String>) -> f64 {
    let platform = if body["Image"] == "hello" { "?platform=wasi%2Fwasm" } else { "" };
    let created = engine.request("POST", &format!("/containers/create{platform}"), body.to_string().as_bytes());
    assert_eq!(created.status, 201, "{}", created.text());
    let id = created.json()["Id"].as_str().unwrap_or_default().to_owned();
    let began = Instant::now();
    let started = engine.request("POST", &format!("/containers/{id}/start"), b"");
    let took = began.elapsed().as_secs_f64() * 1e3;
    assert_eq!(started.status, 204, "{}", started.text());
    kept.push(id);
    took
}
