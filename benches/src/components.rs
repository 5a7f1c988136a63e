//! A small component that was never here: from the pull to its first answer, its compilation included.

use std::time::Instant;

use bireme_testing::{Engine, client, free_port, guest};
use serde_json::json;

use crate::Peers;
use crate::images::Place;
use crate::registry::Registry;
use crate::sample::{Samples, print_table};

pub(crate) fn run(peers: &Peers) {
    let place = Place::new();
    let registry = Registry::start(&place.0, free_port(), &[]);
    let component = std::fs::read(guest("hello")).expect("the guest is built");
    // Another engine makes the images, so that the one that is timed knows nothing of them.
    let maker = Engine::start();
    let context = place.folder("context");
    let put = |name: &str, bytes: &[u8]| std::fs::write(context.join(name), bytes).expect("target/ can be written to");
    put("Dockerfile", b"FROM scratch\nCOPY app.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n");
    let context = context.to_str().expect("a plain path");
    for round in 0..=peers.rounds {
        put("app.wasm", &marked(&component, round));
        let name = format!("{}:{round}", registry.name("hello"));
        maker.bireme(["build", "-q", "--platform", "wasi/wasm", "-t", &name, context]).stdout();
        maker.docker(["push", "-q", &name]).stdout();
    }
    maker.finish();

    let engine = Engine::on(&place.folder("bireme"));
    let mut samples: [Samples; 4] = Default::default();
    for round in 0..=peers.rounds {
        let (name, port) = (registry.name("hello"), free_port());
        let began = Instant::now();
        let mut last = 0.0;
        let mut took = Vec::new();
        let mut lap = || {
            let now = began.elapsed().as_secs_f64() * 1e3;
            took.push(now - last);
            last = now;
            now
        };
        let pull = format!("/images/create?fromImage={}&tag={round}&platform=wasi%2Fwasm", name.replace('/', "%2F"));
        let pulled = engine.request("POST", &pull, b"");
        assert!(pulled.status == 200 && !pulled.text().contains("\"error\""), "{}", pulled.text());
        lap();
        let body = json!({
            "Image": format!("{name}:{round}"),
            "HostConfig": { "PortBindings": { "80/tcp": [{ "HostIp": "127.0.0.1", "HostPort": port.to_string() }] } },
        });
        let created = engine.request("POST", "/containers/create?platform=wasi%2Fwasm", body.to_string().as_bytes());
        assert_eq!(created.status, 201, "{}", created.text());
        let id = created.json()["Id"].as_str().unwrap_or_default().to_owned();
        let started = engine.request("POST", &format!("/containers/{id}/start"), b"");
        assert_eq!(started.status, 204, "{}", started.text());
        lap();
        let answer = client::tcp(port, "GET", "/", "", b"").expect("the component answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let whole = lap();
        engine.request("DELETE", &format!("/containers/{id}?force=1"), b"");
        // The first round starts what the engine starts once.
        if round > 0 {
            for (samples, took) in samples.iter_mut().zip(took.into_iter().chain([whole])) {
                samples.add(took);
            }
        }
    }
    let names = ["the pull", "create and start", "the first answer", "all of it"];
    let rows: Vec<_> = names.iter().zip(&samples).map(|(name, one)| vec![(*name).to_owned(), one.told()]).collect();
    print_table(
        &format!(
            "A component of {} kB that was never here, from the pull to its first answer, {} rounds",
            component.len() / 1000,
            peers.rounds
        ),
        &["what", "ms: median (least–most)"],
        &rows,
    );
    engine.finish();
}

/// The same component with a section that nobody reads: another digest, so that it is compiled anew.
///
/// Source: WebAssembly specification, "Custom Section".
pub(crate) fn marked(component: &[u8], round: usize) -> Vec<u8> {
    let text = format!("{round:04}");
    let name = b"round";
    let mut bytes = component.to_vec();
    bytes.push(0);
    bytes.push((1 + name.len() + text.len()) as u8);
    bytes.push(name.len() as u8);
    bytes.extend(name);
    bytes.extend(text.bytes());
    bytes
}
