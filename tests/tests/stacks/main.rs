//! Compose stacks of every sort, run by the real Compose, and what Docker's own engine made of them.
//!
//! A stack is a folder `tests/compose/NAME` with a Compose file and `steps`, one shell command a line; in them `compose`
//! is the real Compose, `docker` the real command line, and `eventually COMMAND` tries it for ten seconds. What the
//! steps print, how they end and what they leave is kept in `expected`, which only Docker's engine writes
//! (`./x oracle test --record`), and which ours must reach.
//!
//! Three lines in `steps` are not commands: `load IMAGE…` names the test images that the stack needs, `guest NAME…` the
//! components (Docker's engine leaves such a stack out), `state` has what the engine holds now written down.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod state;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bireme_testing::{Output, Subject, free_port, workspace};
use libtest_mimic::{Arguments, Trial};

use state::Witness;

/// A test for each stack, so that they run side by side and each by its name.
fn main() -> ExitCode {
    let mut names: Vec<String> =
        std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 23, "stacks are missing: {names:?}");
    let trials = names.into_iter().map(|name| {
        Trial::test(name.clone(), move || {
            check(&name);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Stacks that ours does not bring to the same end yet, and why. One that does must leave this list.
const KNOWN: &[(&str, &str)] = &[];

fn folder() -> PathBuf {
    workspace().join("tests/compose")
}

struct Stack<'a> {
    name: &'a str,
    /// Where its own copy of the files is.
    folder: PathBuf,
    ports: [u16; 2],
    subject: Subject,
}

fn check(name: &str) {
    let source = folder().join(name);
    let steps = std::fs::read_to_string(source.join("steps")).unwrap();
    let subject = Subject::start();
    if subject.is_docker() && steps.lines().any(|line| line.starts_with("guest ")) {
        return;
    }
    // Compose calls a project after its folder.
    let folder = subject.folder().join("stack").join(name);
    std::fs::create_dir(folder.parent().unwrap()).unwrap();
    let copied = Command::new("cp").arg("-r").arg(&source).arg(&folder).status().unwrap();
    assert!(copied.success(), "{} cannot be copied", source.display());
    let stack = Stack { name, folder, ports: [free_port(), free_port()], subject };
    stack.clear();
    let told = stack.play(&steps);
    stack.clear();
    compare(&stack, &source.join("expected"), &told);
    stack.subject.finish();
}

impl Stack<'_> {
    fn play(&self, steps: &str) -> String {
        self.offer_words();
        let mut told = String::new();
        let mut witness = Witness::new(self.name, &self.subject);
        for line in steps.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "load" => rest.split_whitespace().for_each(|image| self.subject.load(image)),
                "guest" => {
                    let Subject::Ours(engine) = &self.subject else { unreachable!("left out") };
                    rest.split_whitespace().for_each(|guest| engine.build_guest(guest, guest));
                }
                "state" => {
                    let _ = writeln!(told, "== state\n{}", self.plain(&witness.look()));
                }
                _ => {
                    let _ = writeln!(told, "$ {line}");
                    self.tell(&mut told, &self.shell(line));
                }
            }
        }
        told
    }

    /// The words that steps may use beside those of the machine.
    fn offer_words(&self) {
        let plugin = workspace().join("target/setup/docker/cli-plugins/docker-compose");
        assert!(plugin.is_file(), "{} is missing: run `./x setup`", plugin.display());
        let words = self.subject.folder().join("words");
        std::fs::create_dir(&words).unwrap();
        let word = |name: &str, script: String| {
            let path = words.join(name);
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        word("compose", format!("exec '{}' --ansi=never --progress=quiet \"$@\"", plugin.display()));
        word(
            "eventually",
            "n=0; until \"$@\" 2> /dev/null; do n=$((n + 1)); [ $n -lt 100 ] || exit 99; sleep 0.1; done".to_owned(),
        );
    }

    fn shell(&self, line: &str) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.subject.command("timeout", ["60", "sh", "-c", line]);
        command
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", self.subject.folder().join("words").display()))
            .env("PORT", self.ports[0].to_string())
            .env("PORT2", self.ports[1].to_string())
            .env("IMAGES", workspace().join("target/images"))
            .env("DOCKER_BUILDKIT", "0")
            .env_remove("COMPOSE_PROJECT_NAME");
        self.subject.run(command)
    }

    fn tell(&self, told: &mut String, output: &Output) {
        told.push_str(&self.plain(output.raw_stdout()));
        if !told.ends_with('\n') {
            told.push_str("\\\n");
        }
        if output.code != 0 {
            let last = output.stderr().lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let _ = writeln!(told, "! {} {}", output.code, self.plain(last));
        }
    }

    /// Without what differs from run to run.
    fn plain(&self, text: &str) -> String {
        let text = text
            .replace(&self.folder.display().to_string(), "<folder>")
            .replace(&self.ports[0].to_string(), "<port>")
            .replace(&self.ports[1].to_string(), "<port2>");
        without_ids(&text)
    }

    /// Removes what an earlier run on a shared engine left, or this one.
    fn clear(&self) {
        let project = format!("label=com.docker.compose.project={}", self.name);
        let name = format!("name=^{}[-_]", self.name);
        let script = format!(
            "for f in '{project}' '{name}'; do docker ps -aqf \"$f\"; done | xargs -r docker rm -fv\n\
             for f in '{project}' '{name}'; do docker network ls -qf \"$f\"; done | sort -u | xargs -r docker network rm\n\
             for f in '{project}' '{name}'; do docker volume ls -qf \"$f\"; done | sort -u | xargs -r docker volume rm"
        );
        self.subject.run(self.subject.command("sh", ["-c", &script]));
    }
}

/// With `<id>` for every 64 hexadecimal digits.
fn without_ids(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let (before, from) = rest.split_at(start);
        let length = from.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(from.len());
        let (digits, after) = from.split_at(length);
        plain.push_str(before);
        plain.push_str(if length == 64 { "<id>" } else { digits });
        rest = after;
    }
    plain + rest
}

fn compare(stack: &Stack<'_>, expected: &Path, told: &str) {
    // A stack that Docker's engine cannot run has what it expects from ours, read by a person.
    let ours_alone = std::fs::read_to_string(stack.folder.join("steps")).unwrap().contains("\nguest ");
    if stack.subject.records() || (ours_alone && Subject::is_recorded()) {
        std::fs::write(expected, told).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(expected).unwrap_or_default();
    let known = KNOWN.iter().find(|(name, _)| *name == stack.name && !stack.subject.is_docker());
    if wanted == told {
        assert!(known.is_none(), "{} ends as on Docker's engine now: take it out of KNOWN", stack.name);
        return;
    }
    if known.is_some() {
        return;
    }
    let got = stack.subject.folder().join("told");
    std::fs::write(&got, told).unwrap();
    let difference = Command::new("diff").arg("-U8").arg(expected).arg(&got).output().unwrap();
    panic!(
        "not as {} (which `./x oracle test --record` writes):\n{}",
        expected.display(),
        String::from_utf8_lossy(&difference.stdout)
    );
}
