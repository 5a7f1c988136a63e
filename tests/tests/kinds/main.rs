//! One name that stands for a container and a component: which of them runs, and what a service keeps that changes from one
//! to the other. And what is done with a component before it runs: compiled as its image comes in, told what it asks for.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod coming_in;
mod one_build;
mod replace;
mod switch;

use std::path::Path;
use std::process::Command;

use bireme_testing::{Engine, Output, client, free_port};

/// `both`: the server of busybox for Linux, and a component that says hello; the Linux one carries these labels.
fn both(engine: &Engine, labels: &[&str]) {
    engine.load("busybox");
    engine.build_guest("hello", "part-wasm");
    let folder = engine.folder().join("both");
    std::fs::create_dir(&folder).unwrap();
    let labels: String = labels.iter().map(|label| format!("LABEL {label}\n")).collect();
    let dockerfile = format!(
        "FROM busybox\n{labels}RUN mkdir /www && echo from linux > /www/index.html\n\
         ENTRYPOINT [\"httpd\", \"-f\", \"-p\", \"80\", \"-h\", \"/www\"]\n"
    );
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    build(engine, &folder, &["-t", "part-linux"]).stdout();
    // An archive that gives one name to images of two platforms, as one that was saved of such a name does.
    let archive = folder.join("both.tar");
    let (saved, path) = (folder.join("saved"), archive.to_str().unwrap());
    engine.docker(["save", "-o", path, "part-linux", "part-wasm"]).stdout();
    std::fs::create_dir(&saved).unwrap();
    tar(&["-xf", path, "-C"], &saved);
    for name in ["index.json", "manifest.json"] {
        let text = std::fs::read_to_string(saved.join(name)).unwrap();
        std::fs::write(saved.join(name), text.replace("part-linux", "both").replace("part-wasm", "both")).unwrap();
    }
    tar(&["-cf", path, "."], &saved);
    engine.docker(["load", "-i", path]).stdout();
    engine.docker(["rmi", "part-linux", "part-wasm"]).stdout();
}

/// `tar` in the folder, or with it as its last argument.
fn tar(args: &[&str], folder: &Path) {
    let mut command = Command::new("tar");
    command.args(args);
    if args.last() == Some(&"-C") {
        command.arg(folder);
    } else {
        command.current_dir(folder);
    }
    assert!(command.status().unwrap().success(), "tar {args:?}");
}

/// Builds with the classic builder.
fn build(engine: &Engine, folder: &Path, args: &[&str]) -> Output {
    let mut command = engine.command("docker", ["build"].iter().chain(args));
    command.arg(folder).env("DOCKER_BUILDKIT", "0");
    engine.run(command)
}

fn answer(port: u16) -> Option<String> {
    client::tcp(port, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200).map(|answer| answer.text())
}

const FROM_LINUX: &str = "from linux\n";
const FROM_WASM: &str = "hello\n";

#[test]
fn a_class_chooses_among_the_kinds_of_one_name() {
    let engine = Engine::start();
    both(&engine, &[]);
    let kind = |args: &[&str]| {
        let all = ["create", "--name", "chosen"].iter().chain(args).chain(&["both"]);
        let created = engine.docker(all);
        if created.code != 0 {
            return created.stderr().to_owned();
        }
        let listed = engine.request("GET", "/bireme/v1/workloads", b"").json();
        engine.docker(["rm", "chosen"]).stdout();
        listed[0]["Kind"].as_str().unwrap().to_owned()
    };
    for (args, expected) in [
        (&[][..], "container"),
        (&["--label", "bireme.class=auto"], "component"),
        (&["--label", "bireme.class=wasm"], "component"),
        (&["--label", "bireme.class=linux"], "container"),
        (&["--platform", "linux/amd64", "--label", "bireme.class=wasm"], "container"),
        (&["--platform", "wasi/wasm", "--label", "bireme.class=linux"], "component"),
    ] {
        // Off this machine's own architecture another platform would have to be asked for.
        if args.contains(&"linux/amd64") && std::env::consts::ARCH != "x86_64" {
            continue;
        }
        assert_eq!(kind(args), expected, "{args:?}");
    }
    let refused = kind(&["--label", "bireme.class=wasi"]);
    assert!(refused.contains("label bireme.class: \"wasi\" is not one of wasm, linux, auto"), "{refused}");
    engine.finish();
}

#[test]
fn an_image_may_prefer_its_lighter_form_and_whoever_runs_it_has_the_last_word() {
    let engine = Engine::start();
    both(&engine, &["bireme.class=auto"]);
    let port = free_port();
    let run = |args: &[&str]| {
        let publish = format!("{port}:80");
        let all = ["run", "-d", "--name", "one", "-p", publish.as_str()];
        engine.docker(all.iter().chain(args).chain(&["both"])).stdout();
        let text = bireme_testing::eventually("an answer", || answer(port));
        engine.docker(["rm", "-f", "one"]).stdout();
        text
    };
    assert_eq!(run(&[]), FROM_WASM);
    assert_eq!(run(&["--label", "bireme.class=linux"]), FROM_LINUX);
    engine.finish();
}
