//! What is done with a component as its image comes in: it is compiled, whoever waits is told, and what it asks for is read.

use std::time::Instant;

use bireme_testing::{Engine, PATIENCE, Registry, client, guest};
use serde_json::Value;

use super::build;

/// Components that stand compiled.
pub(super) fn compiled(engine: &Engine) -> usize {
    let entries = std::fs::read_dir(engine.data_root().join("wasm/cache"));
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().extension().is_some_and(|e| e == "cwasm"))
        .count()
}

/// What the lines of an answer say of compiling, one word each.
fn said(answer: &client::Answer) -> Vec<String> {
    let lines = answer.text();
    let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let words = lines.filter_map(|line| line["status"].as_str().map(str::to_owned));
    let mut words: Vec<String> =
        words.filter(|word| word.starts_with("Compil") || word.starts_with("Cannot be run")).collect();
    words.dedup();
    words
}

/// Takes away all compiled code, as another version of the compiler finds none of its own. The engine remembers what it has
/// compiled while it runs.
fn forget(engine: &mut Engine) {
    engine.crash();
    for entry in std::fs::read_dir(engine.data_root().join("wasm/cache")).into_iter().flatten().flatten() {
        std::fs::remove_file(entry.path()).unwrap();
    }
    engine.come_back();
}

/// An archive of an image of these bytes as a component, made by this engine and forgotten by it.
fn archive(engine: &mut Engine, name: &str, bytes: &[u8]) -> Vec<u8> {
    let folder = engine.folder().join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("app.wasm"), bytes).unwrap();
    std::fs::write(folder.join("Dockerfile"), "FROM scratch\nCOPY app.wasm /\nENTRYPOINT [\"/app.wasm\"]\n").unwrap();
    build(engine, &folder, &["-q", "--platform", "wasi/wasm", "-t", name]).stdout();
    let path = folder.join("saved.tar");
    engine.docker(["save", "-o", path.to_str().unwrap(), name]).stdout();
    engine.docker(["rmi", name]).stdout();
    forget(engine);
    std::fs::read(path).unwrap()
}

fn load(engine: &Engine, archive: &[u8]) -> client::Answer {
    let headers = "Content-Type: application/x-tar\r\n";
    let answer = client::unix(&engine.socket(), "POST", "/images/load", headers, archive).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

#[test]
fn a_component_is_compiled_when_its_image_is_loaded_and_only_then() {
    let mut engine = Engine::start();
    let archive = archive(&mut engine, "hello", &std::fs::read(guest("hello")).unwrap());
    assert_eq!(said(&load(&engine, &archive)), ["Compiling", "Compiled"]);
    assert_eq!(compiled(&engine), 1, "before anything is created");
    assert_eq!(said(&load(&engine, &archive)), [] as [&str; 0], "it stands ready");
    // After a restart, too.
    engine.crash();
    engine.come_back();
    let prepare = |engine: &Engine| engine.request("POST", "/bireme/v1/images/prepare?image=hello", b"");
    assert_eq!(said(&prepare(&engine)), [] as [&str; 0]);
    forget(&mut engine);
    assert_eq!(said(&prepare(&engine)), ["Compiling", "Compiled"]);
    engine.finish();
}

#[test]
fn an_image_that_cannot_be_run_is_taken_and_said_to_be_none() {
    let mut engine = Engine::start();
    let component = "(component (import \"acme:odd/thing\" (instance)))";
    let archive = archive(&mut engine, "odd", &wat::parse_str(component).unwrap());
    let said = said(&load(&engine, &archive));
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("Cannot be run here: ") && said[0].contains("acme:odd/thing"), "{said:?}");
    engine.docker(["create", "--platform", "wasi/wasm", "odd"]).fails(1, "acme:odd/thing");
    let inspected = engine.docker(["image", "inspect", "odd"]);
    let inspected: Value = serde_json::from_str(inspected.stdout()).unwrap();
    assert!(inspected[0]["RepoTags"][0] == "odd:latest", "{inspected}");
    let world = engine.bireme(["inspect", "--world", "odd"]);
    assert!(world.stdout().contains("Refused   the component imports what this engine does not offer: acme:odd/thing"));
    engine.finish();
}

#[test]
fn what_is_no_component_at_all_is_told_so_and_harms_nothing() {
    let mut engine = Engine::start();
    // Sections that lie about their length, and names without end.
    let endless = [&b"\0asm\x0d\0\x01\0\x0a\xff\xff\xff\xff\x0f"[..], &[0; 64]].concat();
    for (name, bytes, told) in [
        ("script", &b"#!/bin/sh\nexit 0\n"[..], "it does not begin with \\0asm"),
        ("endless", &endless, "is longer than the file"),
    ] {
        let archive = archive(&mut engine, name, bytes);
        let said = said(&load(&engine, &archive));
        assert!(said.len() == 1 && said[0].starts_with("Cannot be run here: "), "{name}: {said:?}");
        let world = engine.bireme(["inspect", "--world", name]);
        assert!(world.stdout().contains(told), "{name}: {world}");
    }
    engine.finish();
}

#[test]
fn a_world_is_shown_before_anything_runs() {
    let engine = Engine::start();
    let folder = engine.folder().join("kv");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(guest("keyvalue"), folder.join("app.wasm")).unwrap();
    let dockerfile =
        "FROM scratch\nCOPY app.wasm /\nLABEL bireme.allow=https://example.com\nENTRYPOINT [\"/app.wasm\"]\n";
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    build(&engine, &folder, &["-q", "--platform", "wasi/wasm", "-t", "kv"]).stdout();
    let inspected = engine.request("GET", "/images/kv/json", b"").json();
    let component = &inspected["Bireme"];
    assert_eq!(component["Trigger"], "http", "{component}");
    let names = |key: &str| component[key].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>();
    assert!(names("Exports").iter().any(|name| name.starts_with("wasi:http/incoming-handler@0.2")), "{component}");
    assert!(names("Imports").iter().any(|name| name.starts_with("wasi:keyvalue/store@")), "{component}");
    let permissions = component["Permissions"].as_array().unwrap();
    assert!(permissions.iter().any(|one| one["Name"] == "key-value" && one["Label"] == "bireme.kv"), "{component}");
    let world = engine.bireme(["image", "inspect", "--world", "kv"]);
    assert!(world.stdout().contains("Trigger   http\n") && world.stdout().contains("wasi:keyvalue/store@"), "{world}");
    // An image of a container has none.
    engine.load("busybox");
    assert_eq!(engine.request("GET", "/images/busybox/json", b"").json().get("Bireme"), None);
    engine.bireme(["inspect", "--world", "busybox"]).fails(1, "is no image of a component");
    engine.finish();
}

#[test]
fn a_component_is_compiled_when_it_is_pulled_and_two_pulls_share_it() {
    let mut engine = Engine::start();
    let registry = Registry::start();
    let name = format!("{}/hello:1", registry.host());
    engine.build_guest("hello", &name);
    engine.docker(["push", "-q", &name]).stdout();
    engine.docker(["rmi", &name]).stdout();
    forget(&mut engine);
    let path = format!("/images/create?fromImage={name}&platform=wasi/wasm");
    let pulls: Vec<client::Answer> = std::thread::scope(|scope| {
        let pull = || client::unix(&engine.socket(), "POST", &path, "", b"").unwrap();
        let both = [scope.spawn(pull), scope.spawn(pull)];
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(compiled(&engine), 1);
    let words: Vec<Vec<String>> = pulls.iter().map(said).collect();
    assert!(words.iter().any(|said| *said == ["Compiling", "Compiled"]), "{words:?}");
    for pull in &pulls {
        let last = pull.text();
        let last = last.lines().last().unwrap_or_default();
        assert!(last.contains("Status: "), "the last word is on the pull: {last}");
    }
    let text = engine.bireme(["pull", "--platform", "wasi/wasm", &name]);
    assert!(!text.stderr().contains("Compil"), "{text}");
    // Its files lie in the engine's folder.
    drop(registry);
    engine.finish();
}

#[test]
fn whoever_leaves_ends_no_compilation() {
    let mut engine = Engine::start();
    // Functions enough for a second or so.
    let body: String = (0..200).map(|n| format!("i32.const {n} i32.add i32.const 3 i32.mul ")).collect();
    let functions: String = (0..500).map(|_| format!("(func (param i32) (result i32) local.get 0 {body})")).collect();
    let module = format!("(module {functions} (func (export \"_start\")))");
    let archive = archive(&mut engine, "big", &wat::parse_str(module).unwrap());
    assert_eq!(compiled(&engine), 0);
    let began = Instant::now();
    // Gone as soon as the image is there.
    let mut stream = std::os::unix::net::UnixStream::connect(engine.socket()).unwrap();
    let head = format!(
        "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        archive.len()
    );
    std::io::Write::write_all(&mut stream, head.as_bytes()).unwrap();
    std::io::Write::write_all(&mut stream, &archive).unwrap();
    let mut answer = String::new();
    while !answer.contains("Compiling") {
        let mut bytes = [0; 4096];
        let got = std::io::Read::read(&mut stream, &mut bytes).unwrap();
        assert!(got > 0 && began.elapsed() < PATIENCE, "{answer}");
        answer.push_str(&String::from_utf8_lossy(&bytes[..got]));
    }
    drop(stream);
    // On a busy machine it takes long.
    while compiled(&engine) == 0 {
        assert!(began.elapsed() < 4 * PATIENCE, "it is not compiled: {}", engine.daemon_log());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    engine.finish();
}
