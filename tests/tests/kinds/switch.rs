//! A Compose service changes from a container to a component and back, by one label.

use std::path::PathBuf;

use bireme_testing::{Engine, Output, eventually, free_port, workspace};

use super::{FROM_LINUX, FROM_WASM, answer, both};

const FILE: &str = r#"
name: switch
services:
  # Takes the address before that of the service, and lets go of it: what is chosen next would be another.
  other:
    image: busybox
    command: sleep 600
    stop_signal: SIGKILL
  web:
    image: both
    ports: ["${PORT}:80"]
    volumes: [data:/data]
    stop_signal: SIGKILL
    labels:
      bireme.class: ${CLASS}
volumes:
  data:
"#;

struct Story {
    engine: Engine,
    file: PathBuf,
    port: u16,
}

/// What a service keeps.
#[derive(Debug, PartialEq)]
struct Place {
    name: String,
    address: String,
    published: String,
    volume: String,
}

impl Story {
    fn begin() -> Self {
        let engine = Engine::start();
        both(&engine, &[]);
        let file = engine.folder().join("compose.yaml");
        std::fs::write(&file, FILE).unwrap();
        Self { engine, file, port: free_port() }
    }

    fn with(&self, program: &PathBuf, class: &str, args: &[&str]) -> Output {
        let mut command = self.engine.command(program, args);
        command.current_dir(self.file.parent().unwrap()).env("PORT", self.port.to_string()).env("CLASS", class);
        self.engine.run(command)
    }

    fn place(&self) -> Place {
        let one = |template: &str| {
            let told = self.engine.docker(["inspect", "-f", template, "switch-web-1"]);
            told.stdout().trim().to_owned()
        };
        Place {
            name: one("{{.Name}}"),
            address: one("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"),
            published: one("{{json .NetworkSettings.Ports}}"),
            volume: one("{{range .Mounts}}{{.Name}} {{.Destination}}{{end}}"),
        }
    }

    /// Through this client of Compose.
    fn told_by(&self, program: &PathBuf) {
        let up = |class: &str| self.with(program, class, &["up", "-d"]).stdout().to_owned();
        up("linux");
        assert_eq!(eventually("the container", || answer(self.port)), FROM_LINUX);
        let before = self.place();
        assert!(before.address.contains('.') && before.volume.contains("switch_data /data"), "{before:?}");
        self.engine.docker(["exec", "switch-web-1", "sh", "-c", "echo kept > /data/file"]).stdout();
        let id = || self.engine.docker(["ps", "-q", "--filter", "name=switch-web-1"]).stdout().to_owned();
        let first = id();

        up("wasm");
        assert_eq!(eventually("the component", || answer(self.port)), FROM_WASM);
        assert_eq!(self.place(), before);
        let second = id();
        assert_ne!(second, first);
        up("wasm");
        assert_eq!(id(), second, "nothing has changed");
        // By its name, from a neighbour that looked it up before.
        let fetch = format!("wget -q -O - http://{}/", before.address);
        self.engine.docker(["exec", "switch-other-1", "sh", "-c", &fetch]).stdout();

        up("linux");
        assert_eq!(eventually("the container again", || answer(self.port)), FROM_LINUX);
        assert_eq!(self.place(), before);
        assert_eq!(self.engine.docker(["exec", "switch-web-1", "cat", "/data/file"]).stdout(), "kept\n");
        self.with(program, "linux", &["down", "-v", "-t", "0"]).stdout();
    }
}

#[test]
fn a_service_that_changes_its_kind_keeps_its_name_address_ports_and_volumes() {
    let story = Story::begin();
    story.told_by(&bireme_testing::binaries().join("bireme"));
    let plugin = workspace().join("target/setup/docker/cli-plugins/docker-compose");
    assert!(plugin.is_file(), "{} is missing: run `./x setup`", plugin.display());
    story.told_by(&plugin);
    story.engine.finish();
}
