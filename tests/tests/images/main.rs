//! Images made here: builds that run commands, commits, imports.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod artifacts;
mod build;
mod buildx;
mod layers;
mod login;

use bireme_testing::{Engine, Output};

struct Story {
    engine: Engine,
}

impl Story {
    fn begin() -> Self {
        let engine = Engine::start();
        engine.load("busybox");
        Self { engine }
    }

    /// Builds with the classic builder, from a folder with these files.
    fn build(&self, files: &[(&str, &str)], args: &[&str]) -> Output {
        let context = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(context.path().join(name), content).unwrap();
        }
        let mut command = self.engine.command("docker", ["build"].iter().chain(args));
        command.arg(context.path()).env("DOCKER_BUILDKIT", "0");
        self.engine.run(command)
    }

    fn dockerfile(&self, text: &str, args: &[&str]) -> Output {
        self.build(&[("Dockerfile", text)], args)
    }

    fn prints(&self, args: &[&str], expected: &str) {
        assert_eq!(self.engine.docker(args).stdout(), expected, "{args:?}");
    }

    fn end(self) {
        self.prints(&["ps", "-aq"], "");
        self.engine.finish();
    }
}
