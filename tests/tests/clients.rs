//! Clients that others wrote, with `DOCKER_HOST` alone: Docker's SDK for Python.
//!
//! Each script of `tests/clients/docker_py` is run on Docker's own engine too (`./x oracle test`) and must pass there.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use bireme_testing::{Subject, workspace};

/// A test for each script, and one that no script is without a test.
macro_rules! scripts {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*

        #[test]
        fn every_script_has_a_test() {
            let mut scripts: Vec<String> = std::fs::read_dir(workspace().join("tests/clients/docker_py"))
                .unwrap()
                .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_prefix("try_")?.strip_suffix(".py").map(str::to_owned))
                .collect();
            scripts.sort();
            assert_eq!(scripts, [$(stringify!($name)),*], "one test a script, in the order of their names");
        }
    };
}

scripts! {
    archives
    containers
    errors
    execs
    images
    networks
    streams
    system
    volumes
}

fn check(name: &str) {
    let python = workspace().join("target/setup/docker-py/bin/python");
    assert!(python.is_file(), "{} is missing: run `./x setup`", python.display());
    let subject = Subject::start();
    subject.load("busybox");
    subject.load("hello-world");
    let mut command = subject.command("timeout", ["120"]);
    command
        .arg(python)
        .args(["-B", "-m", "unittest", "--verbose", &format!("try_{name}")])
        .current_dir(workspace().join("tests/clients/docker_py"))
        .env("IMAGES", workspace().join("target/images"));
    let output = subject.run(command);
    assert_eq!(output.code, 0, "{output}");
    subject.finish();
}
