//! One Compose file with both kinds, through the real Compose and through `bireme up`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use bireme_testing::{Engine, Output, client, eventually, free_port, workspace};

/// Two components that share a host port by their routes, one of them behind a health-gated container.
const FILE: &str = r#"
name: story
services:
  hello:
    image: hello
    platform: wasi/wasm
    ports: ["${PORT}:80"]
    labels:
      bireme.http.route: /hello
  second:
    image: hello
    platform: wasi/wasm
    ports: ["${PORT}:80"]
    labels:
      bireme.http.route: /second/...
    depends_on:
      web:
        condition: service_healthy
  web:
    image: busybox
    command: sh -c 'echo served > /srv/index.html; cp /run/secrets/word /srv/word; exec httpd -f -h /srv'
    volumes: [files:/srv]
    secrets: [word]
    healthcheck:
      test: wget -q -O /dev/null http://localhost/
      interval: 200ms
      retries: 50
  asker:
    image: busybox
    command: sh -c 'until wget -q -O - http://hello/hello; do sleep 0.2; done'
    depends_on: [hello, web]
volumes:
  files:
secrets:
  word:
    environment: SECRET_WORD
"#;

struct Story {
    engine: Engine,
    file: PathBuf,
    port: u16,
}

impl Story {
    fn begin() -> Self {
        let engine = Engine::start();
        engine.load("busybox");
        engine.build_guest("hello", "hello");
        let file = engine.folder().join("compose.yaml");
        std::fs::write(&file, FILE).unwrap();
        Self { engine, file, port: free_port() }
    }

    /// The real Compose, as its package ships it.
    fn compose(&self, args: &[&str]) -> Output {
        let plugin = workspace().join("target/setup/docker/cli-plugins/docker-compose");
        assert!(plugin.is_file(), "{} is missing: run `./x setup`", plugin.display());
        self.with(plugin, args)
    }

    fn bireme(&self, args: &[&str]) -> Output {
        self.with(bireme_testing::binaries().join("bireme"), args)
    }

    fn with(&self, program: PathBuf, args: &[&str]) -> Output {
        let mut command = self.engine.command(program, args);
        command.current_dir(self.file.parent().unwrap()).env("PORT", self.port.to_string()).env("SECRET_WORD", "hush");
        self.engine.run(command)
    }

    fn answers(&self, path: &str) -> Option<client::Answer> {
        client::tcp(self.port, "GET", path, "", b"").ok().filter(|answer| answer.status == 200)
    }

    fn it_runs(&self) {
        eventually("the first route", || self.answers("/hello"));
        eventually("the second route", || self.answers("/second/x"));
        let id =
            self.engine.docker(["ps", "-aqf", "label=com.docker.compose.service=asker"]).stdout().trim().to_owned();
        assert_eq!(self.engine.docker(["wait", &id]).stdout(), "0\n", "a container reached a component by name");
        let web = self.engine.docker(["ps", "-qf", "label=com.docker.compose.service=web"]).stdout().trim().to_owned();
        assert_eq!(self.engine.docker(["exec", &web, "cat", "/srv/word"]).stdout(), "hush");
    }

    fn ids(&self) -> Vec<String> {
        let all = self.engine.docker(["ps", "-aq", "--no-trunc"]);
        let mut ids: Vec<String> = all.stdout().lines().map(str::to_owned).collect();
        ids.sort();
        ids
    }

    fn is_gone(&self) {
        assert_eq!(self.engine.docker(["ps", "-aq"]).stdout(), "");
        assert_eq!(self.engine.docker(["volume", "ls", "-q"]).stdout(), "");
        let networks = self.engine.docker(["network", "ls", "--format", "{{.Name}}"]);
        assert!(!networks.stdout().contains("story"), "{networks}");
    }
}

#[test]
fn the_real_compose_runs_both_kinds() {
    let story = Story::begin();
    story.compose(&["up", "-d", "--quiet-pull"]).stdout();
    story.it_runs();
    assert!(story.compose(&["ps", "--format", "{{.Service}} {{.State}}"]).stdout().contains("hello running"));
    let before = story.ids();
    story.compose(&["up", "-d"]).stdout();
    assert_eq!(story.ids(), before, "nothing changed, so nothing was recreated");
    story.compose(&["down", "-v", "-t", "1"]).stdout();
    story.is_gone();
    story.engine.finish();
}

#[test]
fn bireme_up_runs_both_kinds_and_changes_only_what_changed() {
    let story = Story::begin();
    story.bireme(&["up", "-d"]).stdout();
    story.it_runs();
    let before = story.ids();
    story.bireme(&["up", "-d"]).stdout();
    assert_eq!(story.ids().len(), before.len());
    let kept = |service: &str, before: &[String]| {
        let id = story.engine.docker([
            "ps",
            "-aq",
            "--no-trunc",
            "-f",
            &format!("label=com.docker.compose.service={service}"),
        ]);
        before.iter().any(|known| known == id.stdout().trim())
    };
    assert!(["hello", "second", "web"].iter().all(|service| kept(service, &before)), "nothing that runs was recreated");
    std::fs::write(&story.file, FILE.replace("/second/...", "/other/...")).unwrap();
    story.bireme(&["up", "-d"]).stdout();
    eventually("the new route", || story.answers("/other/x"));
    assert!(kept("hello", &before) && kept("web", &before) && !kept("second", &before));
    story.bireme(&["down", "-v", "-t", "1"]).stdout();
    story.is_gone();
    story.engine.finish();
}
