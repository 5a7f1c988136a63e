//! From an image or a component: rights that nobody granted.

use bireme_testing::{Engine, client, eventually, free_port, guest};
use serde_json::json;

/// Builds `guest` as the image `tag` with further lines of a Dockerfile.
fn build(engine: &Engine, guest_name: &str, tag: &str, lines: &str) {
    let context = tempfile::tempdir().unwrap();
    std::fs::copy(guest(guest_name), context.path().join("app.wasm")).unwrap();
    let file = format!("FROM scratch\nCOPY app.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n{lines}");
    std::fs::write(context.path().join("Dockerfile"), file).unwrap();
    let folder = context.path().to_str().unwrap();
    engine.bireme(["build", "-q", "--platform", "wasi/wasm", "-t", tag, folder]).stdout();
}

fn get(port: u16, path: &str) -> String {
    let answer = eventually("an answer", || client::tcp(port, "GET", path, "", b"").ok().filter(|a| a.status != 503));
    answer.text()
}

#[test]
fn what_an_image_says_of_rights_is_a_request() {
    let engine = Engine::start();
    build(
        &engine,
        "probe",
        "greedy",
        "LABEL bireme.allow=http://nowhere.invalid bireme.allow-requested=true bireme.kv=default,far=redis://far.invalid\n",
    );
    let run = |name: &str, flags: &[&str]| {
        let port = free_port();
        let publish = format!("{port}:80");
        let mut words = vec!["run", "-d", "--name", name, "-p", publish.as_str()];
        words.extend(flags);
        words.push("greedy");
        let output = engine.bireme(words);
        output.stdout();
        (port, output.stderr().to_owned())
    };
    let inspect = |name: &str| engine.request("GET", &format!("/containers/{name}/json"), b"").json();
    let fetch = |port: u16| get(port, "/fetch?http://nowhere.invalid/");

    let (port, told) = run("unconfirmed", &[]);
    assert!(told.contains("the image requests bireme.allow=http://nowhere.invalid and bireme.kv"), "{told}");
    assert!(fetch(port).contains("HttpRequestDenied"));
    let log = eventually("the refusal in the log", || {
        let log = engine.docker(["logs", "unconfirmed"]).stderr().to_owned();
        log.contains("is not permitted").then_some(log)
    });
    assert!(log.contains("or confirm what the image requests with bireme.allow-requested=true"), "{log}");
    let shown = inspect("unconfirmed");
    assert_eq!(shown["Bireme"]["Allow"], json!([]), "{shown}");
    assert_eq!(shown["Bireme"]["Requested"]["bireme.allow"], "http://nowhere.invalid");
    assert_eq!(shown["Bireme"]["Requested"]["bireme.kv"], "far=redis://far.invalid");

    // Permitted now, so that only the name is missing.
    for (name, flags) in [
        ("by-flag", &["--allow-requested"][..]),
        ("by-label", &["--label", "bireme.allow-requested=true"]),
        ("by-entry", &["--allow", "http://nowhere.invalid"]),
    ] {
        let (port, told) = run(name, flags);
        assert!(!told.contains("requests bireme.allow"), "{name}: {told}");
        let answer = fetch(port);
        assert!(!answer.contains("HttpRequestDenied") && answer.contains("Dns"), "{name}: {answer}");
        assert_eq!(inspect(name)["Bireme"]["Allow"], json!(["http://nowhere.invalid:80"]), "{name}");
    }
    // What the container's label says counts, and not the image's beside it.
    let (port, _) = run("narrower", &["--allow", "http://other.invalid"]);
    assert!(fetch(port).contains("HttpRequestDenied"));
    // Nor does a commit make a request a right.
    engine.docker(["rm", "-f", "unconfirmed", "by-flag", "by-label", "by-entry", "narrower"]).stdout();

    // A channel that only the image names is not listened to.
    build(&engine, "inbound-redis2", "listener", "LABEL bireme.redis.subscribe=redis://far.invalid/x\n");
    let create = ["create", "--platform", "wasi/wasm", "listener"];
    engine.docker(create).fails(1, "the image requests the channel of its label bireme.redis.subscribe");
    engine.finish();
}

#[test]
fn stores_of_what_is_gone_are_listed_and_removed_on_request_alone() {
    let engine = Engine::start();
    engine.build_guest("keyvalue", "keyvalue");
    let run = |name: &str| {
        let port = free_port();
        let publish = format!("{port}:80");
        let words = ["run", "-d", "--name", name, "--platform", "wasi/wasm", "-p", &publish, "keyvalue"];
        engine.docker(words).stdout();
        assert_eq!(get(port, "/draft2/set?default/k/v"), "Ok(())");
    };
    run("gone");
    run("kept");
    engine.docker(["rm", "-f", "gone"]).stdout();
    let list = || {
        let answer = engine.request("GET", "/bireme/v1/stores", b"").json();
        let mut found: Vec<(String, bool)> = answer
            .as_array()
            .unwrap()
            .iter()
            .map(|store| {
                assert!(store["Size"].as_u64().unwrap() > 0, "{store}");
                (store["Name"].as_str().unwrap().to_owned(), store["InUse"].as_bool().unwrap())
            })
            .collect();
        found.sort_by_key(|(_, used)| *used);
        found
    };
    let both = list();
    let [(gone, false), (kept, true)] = both.as_slice() else { panic!("{both:?}") };
    let refused = engine.request("DELETE", &format!("/bireme/v1/stores/{kept}"), b"");
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(engine.request("DELETE", "/bireme/v1/stores/app-none", b"").status, 404);
    assert_eq!(engine.request("DELETE", "/bireme/v1/stores/..", b"").status, 404);
    let listed = engine.bireme(["store", "ls"]);
    let line = |name: &str| listed.stdout().lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(line(gone).ends_with("no") && line(kept).ends_with("yes"), "{listed}");
    engine.bireme(["store", "rm", kept]).fails(1, "are those of a component that is there; remove it first");
    engine.bireme(["store", "prune"]).fails(1, "pass --force");
    assert_eq!(list().len(), 2, "nothing goes unasked");
    let pruned = engine.bireme(["store", "prune", "-f"]);
    assert!(pruned.stdout().contains(&format!("Deleted Stores:\n{gone}\n")), "{pruned}");
    assert_eq!(list(), [(kept.clone(), true)]);
    // One that is stopped has its stores still.
    engine.docker(["stop", "kept"]).stdout();
    assert_eq!(engine.request("POST", "/bireme/v1/stores/prune", b"").json()["StoresDeleted"], json!([]));
    engine.docker(["rm", "kept"]).stdout();
    // As deep as whoever took its host over has made it.
    let folder = engine.data_root().join("wasm/kv").join(kept);
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
    let mut deepest = rustix::fs::open(&folder, flags, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..12_000 {
        rustix::fs::mkdirat(&deepest, c"d", rustix::fs::Mode::RWXU).unwrap();
        deepest = rustix::fs::openat(&deepest, c"d", flags, rustix::fs::Mode::empty()).unwrap();
    }
    drop(deepest);
    let removed = engine.request("DELETE", &format!("/bireme/v1/stores/{kept}"), b"").json();
    assert_eq!(removed["StoresDeleted"], json!([kept]), "{removed}");
    assert_eq!(list(), []);
    engine.finish();
}

/// Workloads of one app share a host process, its network and its stores: which app one belongs to is never for its image
/// to say.
#[test]
fn an_image_does_not_choose_the_app_it_runs_in() {
    let engine = Engine::start();
    engine.build_guest("hello", "hello");
    build(&engine, "hello", "stranger", "LABEL com.docker.compose.project=shop com.docker.compose.service=api\n");
    let shop = ["run", "-d", "--name", "api", "-l", "com.docker.compose.project=shop", "hello"];
    engine.docker(shop).stdout();
    engine.docker(["run", "-d", "--name", "stranger", "stranger"]).stdout();
    let host = |name: &str| engine.docker(["inspect", "-f", "{{.State.Pid}}", name]).stdout().trim().to_owned();
    assert_ne!(host("api"), host("stranger"), "each has a host process of its own");
    engine.finish();
}
