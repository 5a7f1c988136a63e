//! What BuildKit's clients see and are told, by the real ones.

use std::path::Path;
use std::process::Command;

use bireme_testing::{Engine, Output};
use tempfile::TempDir;

fn context(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn build(engine: &Engine, context: &Path, args: &[&str]) -> Output {
    let mut command = engine.buildx(["build", "--progress=plain"].iter().chain(args));
    command.arg(context);
    engine.run(command)
}

#[test]
fn a_front_end_is_built_in_or_refused_by_its_name() {
    let engine = Engine::start();
    engine.load("busybox");
    let of = |line: &str, args: &[&str]| {
        let folder = context(&[("Dockerfile", &format!("{line}FROM busybox\nRUN <<EOF\necho done\nEOF\n"))]);
        build(&engine, folder.path(), args)
    };
    for line in ["", "# syntax=docker/dockerfile:1\n", "#syntax = docker.io/docker/dockerfile:1.7-labs\n"] {
        of(line, &["--no-cache"]).stdout();
    }
    of("", &["--build-arg", "BUILDKIT_SYNTAX=docker/dockerfile:1"]).stdout();
    let others = [
        of("# syntax=example.com/other:2\n", &[]),
        of("", &["--build-arg", "BUILDKIT_SYNTAX=example.com/other:2"]),
        // What stands in the file is not what the client asks for.
        of("# syntax=docker/dockerfile:1\n", &["--build-arg", "BUILDKIT_SYNTAX=example.com/other:2"]),
    ];
    for refused in others {
        refused.fails(1, "the front end example.com/other:2 is not offered");
    }
    engine.finish();
}

#[test]
fn what_is_hidden_is_read_whole_or_not_at_all() {
    let engine = Engine::start();
    engine.load("busybox");
    let folder = context(&[("Dockerfile", "FROM busybox\nCOPY . /in/\n"), ("secret", "s"), ("plain", "p")]);
    std::fs::write(folder.path().join(".dockerignore"), format!("{}secret\n", "# a comment\n".repeat(2 << 20)))
        .unwrap();
    build(&engine, folder.path(), &["-t", "all"]).fails(1, ".dockerignore is larger than ");
    assert_ne!(engine.docker(["image", "inspect", "all"]).code, 0, "nothing was built");
    std::fs::write(folder.path().join(".dockerignore"), format!("{}secret\n", "# a comment\n".repeat(64 << 10)))
        .unwrap();
    build(&engine, folder.path(), &["-t", "some"]).stdout();
    let found = engine.docker(["run", "--rm", "some", "ls", "/in"]);
    assert_eq!(found.stdout(), "Dockerfile\nplain\n");
    engine.finish();
}

/// The drawing of a terminal is the client's; what it draws is ours.
#[test]
fn a_terminal_shows_steps_as_they_go_and_the_lines_of_one_that_fails() {
    let engine = Engine::start();
    engine.load("busybox");
    let folder = context(&[("Dockerfile", "FROM busybox\nRUN echo first && sleep 2\nRUN echo the reason; exit 3\n")]);
    let log = folder.path().join("log");
    let buildx = engine.buildx(["build", "--progress=tty"]);
    let mut terminal = Command::new("script");
    terminal
        .args(["-qefc", &format!("stty cols 100 rows 40; docker build --progress=tty {}", folder.path().display())]);
    terminal.arg(&log).env("TERM", "xterm");
    terminal.envs(buildx.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ended = engine.run(terminal);
    assert_eq!(ended.code, 1, "{ended}");
    let drawn = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    for part in [
        "[+] Building ",
        "[internal] load build definition from Dockerfile",
        "[2/3] RUN echo first && sleep 2",
        "# first",
        "ERROR [3/3] RUN echo the reason; exit 3",
        " > [3/3] RUN echo the reason; exit 3:",
        "the reason",
        "Dockerfile:3",
        "   3 | >>> RUN echo the reason; exit 3",
    ] {
        assert!(drawn.contains(part), "{part:?} is not in {drawn}");
    }
    // While it runs, its seconds count.
    assert!(drawn.matches("[2/3] RUN echo first && sleep 2").count() > 3, "{drawn}");
    engine.finish();
}
