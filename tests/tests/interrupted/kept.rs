//! What is kept, and mended where it is damaged.

use bireme_testing::{Engine, Registry};

use super::story::{is_well, names_in};

#[test]
fn what_is_damaged_is_fetched_again_on_request() {
    let registry = Registry::start();
    let engine = Engine::start();
    engine.load("busybox");
    let name = format!("{}/app:1", registry.host());
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
