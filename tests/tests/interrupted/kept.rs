//! What is kept: damage that is mended, and what images share.

use bireme_testing::Engine;
use serde_json::Value;

use super::story::{Registry, all_goes, is_well, names_in};

#[test]
fn what_is_damaged_is_fetched_again_on_request() {
    let registry = Registry::start();
    let engine = Engine::start();
    engine.load("busybox");
    let name = format!("{}/app:1", registry.host);
    engine.docker(["tag", "busybox", &name]).stdout();
    engine.docker(["push", "-q", &name]).stdout();
    let flip = || {
        let folder = engine.data_root().join("images/blobs/sha256");
        let blob = folder.join(&names_in(&folder)[0]);
        let mut bytes = std::fs::read(&blob).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&blob, bytes).unwrap();
    };
    flip();
    let told = engine.bireme(["system", "verify"]);
    assert!(told.code == 1 && told.raw_stdout().ends_with(": 1 damaged\n"), "{told}");
    let mended = engine.bireme(["system", "verify", "--refetch"]);
    assert!(mended.stdout().contains(": it was fetched again\n"), "{mended}");
    assert!(mended.stdout().ends_with(": nothing is damaged\n"), "{mended}");
    is_well(&engine, "fetched again");
    // Where nobody answers, it is told and left as it is.
    drop(registry);
    flip();
    let told = engine.bireme(["system", "verify", "--refetch"]);
    assert!(told.code == 1 && told.raw_stdout().contains("It could not be fetched again: "), "{told}");
    engine.finish();
}

#[test]
fn what_images_share_is_counted_once() {
    let engine = Engine::start();
    engine.load("busybox");
    let context = tempfile::tempdir().unwrap();
    for (tag, size) in [("small", 100_000), ("large", 3_000_000)] {
        std::fs::write(context.path().join("file"), vec![b'x'; size]).unwrap();
        std::fs::write(context.path().join("Dockerfile"), "FROM busybox\nCOPY file /file\n").unwrap();
        let mut build = engine.command("docker", ["build", "-q", "-t", tag, "."]);
        build.current_dir(&context).env("DOCKER_BUILDKIT", "0");
        engine.run(build).stdout();
    }
    engine.docker(["create", "--name", "cc", "small"]).stdout();
    let usage = engine.request("GET", "/system/df", b"").json();
    let image = |tag: &str| {
        let images = usage["Images"].as_array().unwrap();
        let name = Value::from(format!("{tag}:latest"));
        images
            .iter()
            .find(|image| image["RepoTags"].as_array().is_some_and(|tags| tags.contains(&name)))
            .unwrap()
            .clone()
    };
    let number = |image: &Value, key: &str| image[key].as_i64().unwrap();
    let (base, small, large) = (image("busybox"), image("small"), image("large"));
    assert_eq!(number(&base, "SharedSize"), number(&base, "Size"), "{base}");
    for (one, own) in [(&small, 100_000), (&large, 3_000_000)] {
        assert_eq!(number(one, "Size") - number(one, "SharedSize"), own, "{one}");
        assert_eq!(number(one, "SharedSize"), number(&base, "Size"), "{one}");
    }
    assert_eq!((number(&small, "Containers"), number(&large, "Containers")), (1, 0));
    assert_eq!(usage["LayersSize"].as_i64().unwrap(), number(&base, "Size") + 3_100_000);
    // What a prune frees is what nobody shares.
    let pruned = engine.request("POST", "/images/prune?filters=%7B%22dangling%22%3A%5B%22false%22%5D%7D", b"").json();
    assert!(pruned["SpaceReclaimed"].as_i64().unwrap() >= 0, "{pruned}");
    let left = engine.docker(["images", "--format", "{{.Repository}}"]);
    assert_eq!(left.stdout(), "small\n", "what a container needs stays");
    engine.docker(["rm", "cc"]).stdout();
    all_goes(&engine);
    engine.finish();
}
