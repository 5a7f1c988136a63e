//! Components as artifacts, and what registries have beside images, by our own command line and the daemon.

use bireme_testing::{Engine, Registry, client, eventually, free_port};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_component_goes_to_a_registry_as_an_artifact_and_runs_from_there() {
    let registry = Registry::start();
    let engine = Engine::start();
    let (name, image) = (format!("{}/hello:1", registry.host()), format!("{}/hello:image", registry.host()));
    engine.build_guest("hello", &name);
    engine.docker(["tag", &name, &image]).stdout();
    engine.bireme(["push", "-q", "--artifact", &name]).stdout();
    engine.bireme(["push", "-q", &image]).stdout();

    // As the CNCF has it, with the digest of what is there.
    let manifest = engine.bireme(["manifest", "inspect", &name]);
    let document = json(manifest.stdout());
    assert_eq!(document["config"]["mediaType"], "application/vnd.wasm.config.v0+json", "{manifest}");
    assert_eq!(document["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(document["layers"].as_array().map(Vec::len), Some(1));
    let verbose = json(engine.bireme(["manifest", "inspect", "-v", &name]).stdout());
    let digest = verbose["Descriptor"]["digest"].as_str().unwrap().to_owned();
    assert!(digest.starts_with("sha256:"), "{verbose}");
    let other = json(engine.bireme(["manifest", "inspect", &image]).stdout());
    assert_ne!(other["config"]["mediaType"], document["config"]["mediaType"]);

    // What somebody attached to it is listed, by its type, too.
    assert_eq!(json(engine.bireme(["manifest", "referrers", &name]).stdout())["manifests"], Value::Array(Vec::new()));
    let port = registry.host().rsplit_once(':').unwrap().1.parse().unwrap();
    attach(port, &digest, manifest.stdout().trim_end().len());
    let all = json(engine.bireme(["manifest", "referrers", &name]).stdout());
    assert_eq!(all["manifests"].as_array().map(Vec::len), Some(1), "{all}");
    assert_eq!(all["manifests"][0]["artifactType"], "application/vnd.example.note");
    let wanted = ["manifest", "referrers", "--artifact-type", "application/vnd.example.note", &name];
    assert_eq!(json(engine.bireme(wanted).stdout())["manifests"].as_array().map(Vec::len), Some(1));
    let unwanted = ["manifest", "referrers", "--artifact-type", "application/vnd.example.other", &name];
    assert_eq!(json(engine.bireme(unwanted).stdout())["manifests"].as_array().map(Vec::len), Some(0));
    engine.finish();

    // An engine that never saw it.
    let engine = Engine::start();
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:80");
    engine.docker(["pull", "-q", &name]).stdout();
    engine.docker(["run", "-d", "--name", "hello", "-p", &publish, &name]).stdout();
    eventually("an answer", || client::tcp(port, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200));
    engine.docker(["rm", "-f", "hello"]);
    engine.finish();
}

/// Puts a manifest into the registry that refers to another, with nothing but a type.
fn attach(port: u16, digest: &str, size: usize) {
    const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    let begun = client::tcp(port, "POST", "/v2/hello/blobs/uploads/", "Content-Length: 0\r\n", b"").unwrap();
    assert_eq!(begun.status, 202, "{}", begun.text());
    let location = begun.header("location").unwrap();
    let path = &location[location.find("/v2/").unwrap()..];
    let put = format!("{path}&digest={EMPTY}");
    assert_eq!(
        client::tcp(port, "PUT", &put, "Content-Type: application/octet-stream\r\n", b"{}").unwrap().status,
        201
    );
    let empty = serde_json::json!({ "mediaType": "application/vnd.oci.empty.v1+json", "digest": EMPTY, "size": 2 });
    let note = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.note",
        "config": empty, "layers": [empty],
        "subject": { "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": size },
    });
    // Registries without the interface of referrers have them under a tag. Source: OCI distribution specification 1.1.
    let (kind, text) = ("Content-Type: application/vnd.oci.image.manifest.v1+json\r\n", note.to_string());
    let put = client::tcp(port, "PUT", "/v2/hello/manifests/note", kind, text.as_bytes()).unwrap();
    assert_eq!(put.status, 201, "{}", put.text());
    let of_note = put.header("docker-content-digest").unwrap();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": of_note, "size": text.len(),
            "artifactType": "application/vnd.example.note",
        }],
    });
    let kind = "Content-Type: application/vnd.oci.image.index.v1+json\r\n";
    let tag = format!("/v2/hello/manifests/{}", digest.replace(':', "-"));
    assert_eq!(client::tcp(port, "PUT", &tag, kind, index.to_string().as_bytes()).unwrap().status, 201);
}
