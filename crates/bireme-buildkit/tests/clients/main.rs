//! The real clients against the protocol, with a builder behind it that only pretends.
//!
//! They are what `./x setup` installs: the newest buildx that Debian has and an older one, and Compose.

#![allow(clippy::unwrap_used, reason = "in tests, which fail by it")]

mod fake;
mod front;

use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use front::{Client, Engine};

const BOTH: [Client; 2] = [Client::New, Client::Old];

#[test]
fn a_build_of_an_image_ends_with_it_in_the_store() {
    for client in BOTH {
        let engine = Engine::start();
        engine.write("Dockerfile", "FROM x\nCOPY\nSAY hello from the build\nCACHED\n");
        engine.write("sub/file", "content");
        let ran = engine.run(client, &["build", "-t", "made", "--build-arg", "A=b", "."]);
        ran.says(&["hello from the build", "load build definition", "CACHED", "[2/4] COPY", "transferring context:"]);
        let images = engine.fake.images.lock();
        assert_eq!(images["made"]["sub/file"], b"content", "{client:?}");
        assert_eq!(engine.fake.options.lock()["build-arg:A"], "b");
    }
}

#[test]
fn a_failing_step_shows_its_place_and_its_output() {
    for client in BOTH {
        let engine = Engine::start();
        engine.write("Dockerfile", "FROM x\nSAY one\nFAIL 3\n");
        let ran = engine.run(client, &["build", "."]);
        ran.fails(&["oops", "Dockerfile:3", ">>> FAIL 3", "1 | ", "exit code: 3"]);
        assert_eq!(ran.0.status.code(), Some(1), "{client:?}");
        assert!(engine.fake.images.lock().is_empty());
    }
}

#[test]
fn a_warning_is_printed_with_its_place() {
    let engine = Engine::start();
    engine.write("Dockerfile", "FROM x\nWARN mind the gap\n");
    engine.run(Client::New, &["build", "."]).says(&["1 warning found", "mind the gap"]);
    engine.run(Client::New, &["--debug", "build", "."]).says(&[
        "mind the gap",
        "Dockerfile:2",
        ">>> WARN mind the gap",
    ]);
}

#[test]
fn check_and_call_answer_from_metadata() {
    let engine = Engine::start();
    engine.write("Dockerfile", "FROM x\n");
    let ran = engine.run(Client::New, &["build", "--check", "."]);
    ran.fails(&["JustAFake", "Dockerfile:1"]);
    engine.run(Client::New, &["build", "--call=outline", "."]).fails(&["unsupported request"]);
}

#[test]
fn secrets_come_from_the_client() {
    for client in BOTH {
        let engine = Engine::start();
        engine.write("Dockerfile", "SECRET tok\nSECRET other\n");
        engine.write("tok", "s3cret");
        let ran = engine.run(client, &["build", "--secret", "id=tok,src=tok", "."]);
        ran.says(&["secret Some(\"s3cret\")", "secret None"]);
    }
}

#[test]
fn credentials_come_from_the_clients_configuration() {
    let engine = Engine::start();
    engine.write("Dockerfile", "LOGIN r.example\nLOGIN none.example\n");
    // "me:pw" in base64.
    engine.configure(r#"{"auths":{"r.example":{"auth":"bWU6cHc="}}}"#);
    let ran = engine.run(Client::New, &["build", "."]);
    ran.says(&["credentials Some((\"me\", \"pw\"))", "credentials None"]);
}

#[test]
fn an_agent_is_forwarded() {
    let engine = Engine::start();
    engine.write("Dockerfile", "SSH default\n");
    let socket = engine.folder.path().join("agent.sock");
    let agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        // Clients ask it once themselves, to see whether it is one.
        for connection in agent.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                use std::io::{Read as _, Write as _};
                let mut asked = [0; 5];
                while connection.read_exact(&mut asked).is_ok() {
                    assert_eq!(asked, [0, 0, 0, 1, 11]);
                    connection.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
                }
            });
        }
    });
    let mut command = engine.command(Client::New, &["build", "--ssh", "default", "."]);
    front::Ran(command.env("SSH_AUTH_SOCK", socket).output().unwrap()).says(&["agent answered 12"]);
    engine.run(Client::New, &["build", "."]).fails(&["SSH"]);
}

#[test]
fn results_go_to_a_folder_or_a_file_of_the_client() {
    for client in BOTH {
        let engine = Engine::start();
        engine.snapshotter();
        engine.write("Dockerfile", "FROM x\nCOPY\nWRITE made some words\n");
        engine.write("big", vec![7; 3_000_000]);
        let out = |name: &str| engine.folder.path().join("work").join(name);

        engine.run(client, &["build", "-o", "type=local,dest=out", "."]).says(&[]);
        assert_eq!(std::fs::read(out("out/made")).unwrap(), b"some words", "{client:?}");
        assert_eq!(std::fs::read(out("out/big")).unwrap(), vec![7; 3_000_000]);
        std::fs::remove_dir_all(out("out")).unwrap();

        std::fs::remove_file(out("big")).unwrap();
        for kind in ["tar", "oci", "docker"] {
            let name = format!("{kind}.tar");
            engine.run(client, &["build", "-o", &format!("type={kind},dest={name}"), "-q", "."]).says(&[]);
            let made = String::from_utf8(std::fs::read(out(&name)).unwrap()).unwrap();
            assert!(made.ends_with("some words"), "{client:?} {kind}: {made}");
            std::fs::remove_file(out(&name)).unwrap();
        }
    }
}

#[test]
fn several_platforms_and_exporters_are_asked_for_at_once() {
    let engine = Engine::start();
    engine.snapshotter();
    engine.write("Dockerfile", "FROM x\nWRITE made some words\n");
    let args = [
        "build",
        "--platform",
        "linux/amd64,wasi/wasm",
        "-t",
        "two",
        "-o",
        "type=image",
        "-o",
        "type=local,dest=out",
        ".",
    ];
    engine.run(Client::New, &args).says(&[]);
    let out = engine.folder.path().join("work/out");
    assert_eq!(std::fs::read(out.join("wasi_wasm-made")).unwrap(), b"some words");
    let images = engine.fake.images.lock();
    assert!(images["two"].contains_key("linux_amd64-made"), "{images:?}");
}

#[test]
fn a_context_comes_from_standard_input_or_from_another_folder() {
    let engine = Engine::start();
    engine.write("there/a", "aaa");
    let dockerfile = engine.write("Dockerfile", "FROM other\nCOPY\n");
    engine.write("here/b", "bbb");
    let args = ["build", "-t", "n", "--build-context", "other=there", "-f", "Dockerfile", "here"];
    engine.run(Client::New, &args).says(&[]);
    {
        let images = engine.fake.images.lock();
        let made = &images["n"];
        assert_eq!((made["a"].as_slice(), made["b"].as_slice()), (&b"aaa"[..], &b"bbb"[..]));
    }

    let archive = engine.folder.path().join("context.tar");
    let mut tar = std::process::Command::new("tar");
    tar.arg("-cf").arg(&archive).arg("-C").arg(dockerfile.parent().unwrap()).args(["Dockerfile", "here/b"]);
    assert!(tar.status().unwrap().success());
    let mut command = engine.command(Client::New, &["build", "-t", "piped", "-"]);
    command.stdin(std::fs::File::open(&archive).unwrap());
    front::Ran(command.output().unwrap()).says(&[]);
    let images = engine.fake.images.lock();
    assert_eq!(images["piped"]["archive.tar"], std::fs::read(&archive).unwrap());
}

#[test]
fn bake_builds_upon_another_target() {
    for client in BOTH {
        let engine = Engine::start();
        engine.write("Dockerfile.a", "FROM x\nWRITE a from a\n");
        engine.write("Dockerfile.b", "FROM base\nWRITE b from b\n");
        engine.write(
            "docker-bake.json",
            r#"{"group":{"default":{"targets":["a","b"]}},"target":{
                "a":{"dockerfile":"Dockerfile.a","tags":["a"]},
                "b":{"dockerfile":"Dockerfile.b","tags":["b"],"contexts":{"base":"target:a"}}}}"#,
        );
        engine.run(client, &["buildx", "bake"]).says(&[]);
        let images = engine.fake.images.lock();
        let made = &images["b"];
        assert_eq!((made["a"].as_slice(), made["b"].as_slice()), (&b"from a"[..], &b"from b"[..]), "{client:?}");
        assert!(!images["a"].contains_key("b"));
    }
}

#[test]
fn compose_builds_with_the_plugin_and_without() {
    for client in [Client::New, Client::ComposeAlone] {
        let engine = Engine::start();
        engine.write("a/Dockerfile", "FROM x\nCOPY\nSAY hello from compose\n");
        engine.write("b/Dockerfile", "FROM x\nWRITE b from b\n");
        engine.write("compose.yaml", "services:\n  a: {build: a, image: ca}\n  b: {build: b, image: cb}\n");
        engine.run(client, &["compose", "build"]).says(&["hello from compose"]);
        let images = engine.fake.images.lock();
        assert!(images["ca"].contains_key("Dockerfile"), "{client:?}");
        assert_eq!(images["cb"]["b"], b"from b");
    }
}

#[test]
fn workers_and_the_cache_are_listed_and_cleared() {
    for client in BOTH {
        let engine = Engine::start();
        engine.run(client, &["buildx", "ls"]).says(&["default", "running", "linux/amd64", "wasi/wasm"]);
        engine.run(client, &["buildx", "inspect"]).says(&["Status:", "running"]);
        engine.run(client, &["buildx", "du"]).says(&["fakerecord", "1.5MB"]);
        engine.run(client, &["buildx", "du", "--verbose"]).says(&["local source for context", "source.local"]);
        engine.run(client, &["buildx", "prune", "-f"]).says(&["fakerecord", "1.5MB"]);
    }
}

#[test]
fn a_build_ends_with_its_client() {
    for client in BOTH {
        let engine = Engine::start();
        engine.write("Dockerfile", "FROM x\nWAIT\n");
        let mut command = engine.command(client, &["build", "."]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("waiting") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut stderr, &mut line).unwrap() > 0, "it ended before it waited");
        }
        // Not asked to end, but gone: the plugin, which is the build's client, dies with the command line.
        child.kill().unwrap();
        child.wait().unwrap();
        let since = Instant::now();
        while !engine.fake.cancelled.load(Ordering::SeqCst) {
            assert!(since.elapsed() < Duration::from_secs(10), "{client:?}: the build goes on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_thousand_small_files_come_at_once() {
    let engine = Engine::start();
    engine.write("Dockerfile", "COPY\n");
    for index in 0..1000 {
        engine.write(&format!("many/{index}"), format!("file {index}"));
    }
    let ran = engine.run(Client::New, &["build", "-t", "many", "."]);
    ran.says(&[]);
    assert_eq!(engine.fake.images.lock()["many"]["many/999"], b"file 999");
    let took = engine.fake.copied.lock().unwrap();
    assert!(took < Duration::from_millis(1500), "a thousand files took {took:?}");
}
