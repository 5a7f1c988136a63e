//! Every bad input we could think of, and the sentence it gets. `docs/refusals.md` is this table: run with
//! `BIREME_BLESS=1` to write it anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fmt::Write as _;
use std::path::Path;

use bireme_testing::{Engine, Output, free_port, workspace};

/// One input and what it must get.
struct Row {
    subject: &'static str,
    input: &'static str,
    code: i32,
    words: &'static str,
    run: fn(&Bench) -> Output,
}

/// An engine with a busybox, a hello component, a network and a taken port, and a folder for files.
struct Bench {
    engine: Engine,
    files: tempfile::TempDir,
    taken: std::net::TcpListener,
}

impl Bench {
    fn docker(&self, args: &[&str]) -> Output {
        self.engine.docker(args)
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.files.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    fn labelled(&self, label: &str) -> Output {
        self.docker(&["create", "--platform", "wasi/wasm", "--label", label, "hello"])
    }

    /// `bireme config` on a Compose file.
    fn compose(&self, text: &str) -> Output {
        let path = self.file("compose.yaml", text.as_bytes());
        self.engine.bireme(["config", "-f", path.as_str()])
    }

    fn component(&self, wat: &str) -> Output {
        let bytes = wat::parse_str(wat).unwrap();
        let path = self.file("guest.wasm", &bytes);
        self.engine.bireme(["create", path.as_str()])
    }

    fn build(&self, dockerfile: &str) -> Output {
        let path = self.file("context/Dockerfile", dockerfile.as_bytes());
        self.engine.bireme(["build", Path::new(&path).parent().unwrap().to_str().unwrap()])
    }
}

const ROWS: &[Row] = &[
    Row {
        subject: "label",
        input: "a key that does not exist",
        code: 1,
        words: "unknown label \"bireme.alow\": did you mean \"bireme.allow\"?",
        run: |b| b.labelled("bireme.alow=http://x"),
    },
    Row {
        subject: "label",
        input: "a malformed duration",
        code: 1,
        words: "label bireme.timeout: \"soon\" is not a duration such as 500ms, 30s or 1m30s",
        run: |b| b.labelled("bireme.timeout=soon"),
    },
    Row {
        subject: "label",
        input: "a malformed route",
        code: 1,
        words: "route \"tally\" has no path: it must be like /tally, /api/... or host/path",
        run: |b| b.labelled("bireme.http.route=tally"),
    },
    Row {
        subject: "label",
        input: "two routes that cannot be told apart",
        code: 1,
        words: "routes /a/:x and /a/:y cannot be told apart",
        run: |b| b.labelled("bireme.http.route=/a/:x,/a/:y"),
    },
    Row {
        subject: "label",
        input: "a malformed permission",
        code: 1,
        words: "has a bad port: use 1 to 65535, or *",
        run: |b| b.labelled("bireme.allow=http://x:0"),
    },
    Row {
        subject: "label",
        input: "one that is not offered yet",
        code: 1,
        words: "label bireme.schedule is not offered yet",
        run: |b| b.labelled("bireme.schedule=* * * * *"),
    },
    Row {
        subject: "route",
        input: "a clash on a shared host port",
        code: 1,
        words: "clashes with /... of first: give one of them another bireme.http.route or another port",
        run: |b| {
            let publish = format!("{}:80", free_port());
            b.docker(&["create", "--name", "first", "--platform", "wasi/wasm", "-p", &publish, "hello"]).stdout();
            let second = b.docker(&["create", "--name", "second", "--platform", "wasi/wasm", "-p", &publish, "hello"]);
            b.docker(&["rm", "first"]).stdout();
            second
        },
    },
    Row {
        subject: "port",
        input: "one that is taken, for a component",
        code: 125,
        words: "address already in use: stop what listens there, or publish another port",
        run: |b| {
            let publish = format!("{}:80", b.taken.local_addr().unwrap().port());
            b.docker(&["run", "--rm", "--platform", "wasi/wasm", "-p", &publish, "hello"])
        },
    },
    Row {
        subject: "port",
        input: "one that is taken, for a container",
        code: 125,
        words: "address already in use",
        run: |b| {
            let publish = format!("{}:80", b.taken.local_addr().unwrap().port());
            b.docker(&["run", "--rm", "-p", &publish, "busybox", "true"])
        },
    },
    Row {
        subject: "component",
        input: "imports that this engine does not offer",
        code: 1,
        words: "example:thing/made-up",
        run: |b| b.component("(component (import \"example:thing/made-up\" (instance (export \"f\" (func)))))"),
    },
    Row {
        subject: "component",
        input: "bytes that are no WebAssembly",
        code: 126,
        words: "is not a WebAssembly module or component",
        run: |b| {
            let path = b.file("noise.wasm", b"this is a letter, not a program");
            b.engine.bireme(["create", path.as_str()])
        },
    },
    Row {
        subject: "component",
        input: "exec into it",
        code: 1,
        words: "is a WebAssembly component and has no processes or shell to exec into",
        run: |b| {
            b.docker(&["run", "-d", "--name", "sealed", "--platform", "wasi/wasm", "hello"]).stdout();
            let refused = b.docker(&["exec", "sealed", "sh"]);
            b.docker(&["rm", "-f", "sealed"]).stdout();
            refused
        },
    },
    Row {
        subject: "component",
        input: "a health check that runs a command",
        code: 1,
        words: "cannot run a health check command: name a path to probe with the label bireme.health",
        run: |b| b.docker(&["create", "--platform", "wasi/wasm", "--health-cmd", "true", "hello"]),
    },
    Row {
        subject: "component",
        input: "a published UDP port",
        code: 125,
        words: "answers HTTP over TCP",
        run: |b| b.docker(&["run", "--rm", "--platform", "wasi/wasm", "-p", "9/udp", "hello"]),
    },
    Row {
        subject: "image",
        input: "a name that is no reference",
        code: 125,
        words: "invalid reference format",
        run: |b| b.docker(&["run", "--rm", "Not_A Name"]),
    },
    Row {
        subject: "image",
        input: "one that is not here",
        code: 1,
        words: "No such image: absent:latest",
        run: |b| b.docker(&["create", "--pull", "never", "absent"]),
    },
    Row {
        subject: "image",
        input: "an archive that is noise",
        code: 1,
        words: "the archive is no image that can be loaded",
        run: |b| {
            let path = b.file("noise.tar", &[7u8; 4096]);
            b.docker(&["load", "-i", &path])
        },
    },
    Row {
        subject: "image",
        input: "another platform than it has",
        code: 1,
        words: "no matching manifest for wasi/wasm",
        run: |b| b.docker(&["create", "--pull", "never", "--platform", "wasi/wasm", "busybox"]),
    },
    Row {
        subject: "build",
        input: "a flag that is not done",
        code: 1,
        words: "RUN --mount is not offered by this builder: leave the flag out, it is BuildKit's",
        run: |b| b.build("FROM busybox\nRUN --mount=type=cache,target=/c make\n"),
    },
    Row {
        subject: "build",
        input: "a command that fails",
        code: 3,
        words: "The command '/bin/sh -c exit 3' returned a non-zero code: 3",
        run: |b| b.build("FROM busybox\nRUN exit 3\n"),
    },
    Row {
        subject: "build",
        input: "a command in an image for components",
        code: 1,
        words: "commands are run in Linux images: RUN in a stage of one, and COPY --from it",
        run: |b| b.build("FROM --platform=wasi/wasm scratch\nCOPY Dockerfile /\nRUN make\n"),
    },
    Row {
        subject: "build",
        input: "an address that does not answer",
        code: 1,
        words: "cannot fetch http://127.0.0.1:1/x",
        run: |b| b.build("FROM scratch\nADD http://127.0.0.1:1/x /x\n"),
    },
    Row {
        subject: "commit",
        input: "a component",
        code: 1,
        words: "is a WebAssembly component and has no files of its own",
        run: |b| {
            b.docker(&["create", "--platform", "wasi/wasm", "--name", "filed", "hello"]).stdout();
            let refused = b.docker(&["commit", "filed"]);
            b.docker(&["rm", "filed"]).stdout();
            refused
        },
    },
    Row {
        subject: "import",
        input: "an archive that is noise",
        code: 1,
        words: "cannot be read",
        run: |b| {
            let noise = b.file("noise.tar", &[7; 4096]);
            b.docker(&["import", &noise])
        },
    },
    Row {
        subject: "push",
        input: "a name that is not here",
        code: 1,
        words: "An image does not exist locally with the tag: localhost:1/absent",
        run: |b| b.docker(&["push", "localhost:1/absent"]),
    },
    Row {
        subject: "build",
        input: "a word that is no instruction",
        code: 1,
        words: "unknown instruction",
        run: |b| b.build("FROM scratch\nCOPPY a b\n"),
    },
    Row {
        subject: "build",
        input: "a file that the context lacks",
        code: 1,
        words: "file not found in build context",
        run: |b| b.build("FROM scratch\nCOPY nothing /\n"),
    },
    Row {
        subject: "container",
        input: "a name in use",
        code: 1,
        words: "is already in use by container",
        run: |b| {
            b.docker(&["create", "--name", "twin", "busybox", "true"]).stdout();
            let again = b.docker(&["create", "--name", "twin", "busybox", "true"]);
            b.docker(&["rm", "twin"]).stdout();
            again
        },
    },
    Row {
        subject: "container",
        input: "a program that is not there",
        code: 127,
        words: "executable file not found in $PATH",
        run: |b| b.docker(&["run", "--rm", "busybox", "nope"]),
    },
    Row {
        subject: "container",
        input: "a bind source that is not there",
        code: 125,
        words: "bind source path does not exist",
        run: |b| b.docker(&["run", "--rm", "--mount", "type=bind,src=/no/such/folder,dst=/x", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a mount over /",
        code: 125,
        words: "destination can't be '/'",
        run: |b| b.docker(&["run", "--rm", "-v", "/tmp:/", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a user that the image does not know",
        code: 125,
        words: "nobodyknows",
        run: |b| b.docker(&["run", "--rm", "-u", "nobodyknows", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a log driver that is not offered",
        code: 125,
        words: "no log driver named 'syslog' is registered",
        run: |b| b.docker(&["run", "--rm", "--log-driver", "syslog", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a tag of its log that is not offered",
        code: 125,
        words: "log opt 'tag': \".Odd\" is not offered: .ID,",
        run: |b| b.docker(&["run", "--rm", "--log-opt", "tag={{.Odd}}", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "a link to one that is not there",
        code: 125,
        words: "could not get container for absent",
        run: |b| b.docker(&["run", "--rm", "--link", "absent:x", "busybox", "true"]),
    },
    Row {
        subject: "container",
        input: "outbound permissions",
        code: 1,
        words: "label bireme.allow is not offered for containers yet",
        run: |b| b.docker(&["create", "--label", "bireme.allow=http://x", "busybox", "true"]),
    },
    Row {
        subject: "network",
        input: "one that is not there",
        code: 125,
        words: "network absent not found",
        run: |b| b.docker(&["run", "--rm", "--network", "absent", "busybox", "true"]),
    },
    Row {
        subject: "network",
        input: "an address for its ports that is none",
        code: 1,
        words: "is not an address of this host such as 127.0.0.1",
        run: |b| {
            let binding = "com.docker.network.bridge.host_binding_ipv4=127.0.0.l";
            b.docker(&["network", "create", "-o", binding, "misspelt"])
        },
    },
    Row {
        subject: "network",
        input: "a subnet that is taken",
        code: 1,
        words: "Pool overlaps with other one on this address space",
        run: |b| {
            b.docker(&["network", "create", "--subnet", "10.199.0.0/24", "wide"]).stdout();
            let again = b.docker(&["network", "create", "--subnet", "10.199.0.0/25", "narrow"]);
            b.docker(&["network", "rm", "wide"]).stdout();
            again
        },
    },
    Row {
        subject: "network",
        input: "a static address outside its subnet",
        code: 125,
        words: "no configured subnet or ip-range contain the IP address 10.1.1.1",
        run: |b| {
            b.docker(&["network", "create", "small"]).stdout();
            let refused = b.docker(&["run", "--rm", "--network", "small", "--ip", "10.1.1.1", "busybox", "true"]);
            b.docker(&["network", "rm", "small"]).stdout();
            refused
        },
    },
    Row {
        subject: "volume",
        input: "one in use",
        code: 1,
        words: "volume is in use",
        run: |b| {
            b.docker(&["create", "--name", "holder", "-v", "held:/x", "busybox", "true"]).stdout();
            let refused = b.docker(&["volume", "rm", "held"]);
            b.docker(&["rm", "holder"]).stdout();
            b.docker(&["volume", "rm", "held"]).stdout();
            refused
        },
    },
    Row {
        subject: "volume",
        input: "an option that nobody knows",
        code: 1,
        words: "create odd: invalid option: \"colour\"",
        run: |b| b.docker(&["volume", "create", "--opt", "colour=red", "odd"]),
    },
    Row {
        subject: "Compose file",
        input: "a key that nobody knows",
        code: 1,
        words: "imagee",
        run: |b| b.compose("services:\n  web:\n    imagee: x\n"),
    },
    Row {
        subject: "Compose file",
        input: "a key that is not done",
        code: 1,
        words: "develop",
        run: |b| b.compose("services:\n  web:\n    image: x\n    develop:\n      watch: []\n"),
    },
    Row {
        subject: "Compose file",
        input: "a circle of dependencies",
        code: 1,
        words: "in a circle: a -> b -> a",
        run: |b| {
            b.compose("services:\n  a:\n    image: x\n    depends_on: [b]\n  b:\n    image: x\n    depends_on: [a]\n")
        },
    },
    Row {
        subject: "Compose file",
        input: "a variable that is required and not set",
        code: 1,
        words: "say which",
        run: |b| b.compose("services:\n  web:\n    image: ${BIREME_TEST_ABSENT:?say which}\n"),
    },
    Row {
        subject: "Compose file",
        input: "a malformed port",
        code: 1,
        words: "80:eighty",
        run: |b| b.compose("services:\n  web:\n    image: x\n    ports: [\"80:eighty\"]\n"),
    },
    Row {
        subject: "Compose file",
        input: "a malformed label of ours",
        code: 1,
        words: "bireme.timeout",
        run: |b| b.compose("services:\n  web:\n    image: x\n    labels:\n      bireme.timeout: soon\n"),
    },
    Row {
        subject: "Compose file",
        input: "no YAML",
        code: 1,
        words: "compose.yaml",
        run: |b| b.compose("services: [unclosed\n"),
    },
];

#[test]
fn every_bad_input_gets_its_sentence_and_leaves_nothing() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("hello", "hello");
    let bench =
        Bench { engine, files: tempfile::tempdir().unwrap(), taken: std::net::TcpListener::bind("0.0.0.0:0").unwrap() };
    let mut wrong = String::new();
    for row in ROWS {
        let output = (row.run)(&bench);
        let said = output.stderr().contains(row.words) || output.raw_stdout().contains(row.words);
        if !said || output.code != row.code {
            writeln!(wrong, "{}: {}: expected {:?} and {}\n{output}\n", row.subject, row.input, row.words, row.code)
                .unwrap();
        }
        let left = bench.docker(&["ps", "-aq"]);
        if !left.stdout().is_empty() {
            writeln!(wrong, "{}: {}: left a container: {}", row.subject, row.input, left.stdout()).unwrap();
            for id in left.stdout().split_whitespace() {
                bench.docker(&["rm", "-f", id]);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    bench.engine.finish();
}

#[test]
fn a_full_disk_is_told_and_nothing_stored_is_lost() {
    let engine = Engine::on_small_disk(12 << 20);
    engine.load("busybox");
    engine.docker(["load", "-i", bireme_testing::image("redis").to_str().unwrap()]).fails(1, "no space left on device");
    let filler = engine.data_root().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 65536]).is_ok() {}
    drop(file);
    let refused = engine.docker(["run", "--rm", "busybox", "true"]);
    assert_ne!(refused.code, 0, "{refused}");
    std::fs::remove_file(&filler).unwrap();
    assert_eq!(engine.docker(["run", "--rm", "busybox", "echo", "well again"]).stdout(), "well again\n");
    assert_eq!(engine.docker(["ps", "-aq"]).stdout(), "");
    engine.finish();
}

#[test]
fn the_page_of_refusals_is_this_table() {
    let mut page = String::from(
        "# What bad input gets\n\nEvery row is tried by `tests/tests/refusals.rs`, which writes this page. The sentence is the part of the answer that the\ntest looks for; `code` is the exit code of the command line. Hostile layers, registries that lie and malformed references\nhave their tests in `crates/bireme-image/tests`, hostile components in `crates/bireme-wasm-host/tests`, hostile Compose\nfiles in `crates/bireme-compose/tests`.\n\n| subject | input | code | sentence |\n|---|---|---|---|\n",
    );
    for row in ROWS {
        writeln!(page, "| {} | {} | {} | `{}` |", row.subject, row.input, row.code, row.words.replace('|', "\\|"))
            .unwrap();
    }
    page.push_str("| disk | full, while loading an image | 1 | `no space left on device` |\n");
    let path = workspace().join("docs/refusals.md");
    if std::env::var_os("BIREME_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&path).unwrap_or_default(),
        page,
        "run this test with BIREME_BLESS=1 and commit docs/refusals.md"
    );
}
