//! Every bad input we could think of, and the sentence it gets: a test for each, called `SUBJECT::INPUT`, on an engine of
//! its own. `docs/refusals.md` is this table: run with `BIREME_BLESS=1` to write it anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod components;
mod compose;
mod containers;
mod images;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use bireme_testing::{Engine, Output, workspace};
use libtest_mimic::{Arguments, Failed, Trial};

/// The rows, in the order of the page.
const ROWS: [&[Row]; 4] = [components::ROWS, images::ROWS, containers::ROWS, compose::ROWS];

/// One input and what it must get.
struct Row {
    subject: &'static str,
    input: &'static str,
    /// The exit code of the command line.
    code: i32,
    /// What its output must contain.
    words: &'static str,
    run: fn(&Bench) -> Output,
}

fn main() -> ExitCode {
    let mut trials = vec![
        Trial::test("a_full_disk_is_told_and_nothing_stored_is_lost", || {
            a_full_disk_is_told_and_nothing_stored_is_lost();
            Ok(())
        }),
        Trial::test("the_page_of_refusals_is_this_table", || {
            the_page_of_refusals_is_this_table();
            Ok(())
        }),
    ];
    trials.extend(ROWS.into_iter().flatten().map(|row| {
        let name = format!("{}::{}", row.subject.replace(' ', "_"), row.input);
        Trial::test(name, || is_refused(row))
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn is_refused(row: &Row) -> Result<(), Failed> {
    let engine = Engine::in_memory();
    engine.load("busybox");
    engine.build_guest("hello", "hello");
    let bench =
        Bench { engine, files: tempfile::tempdir().unwrap(), taken: std::net::TcpListener::bind("0.0.0.0:0").unwrap() };
    let output = (row.run)(&bench);
    let said = output.stderr().contains(row.words) || output.raw_stdout().contains(row.words);
    if !said || output.code != row.code {
        return Err(format!("expected {:?} and {}\n{output}", row.words, row.code).into());
    }
    let left = bench.docker(&["ps", "-aq"]);
    if !left.stdout().is_empty() {
        return Err(format!("left a container: {}", left.stdout()).into());
    }
    bench.engine.finish();
    Ok(())
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

fn the_page_of_refusals_is_this_table() {
    let mut page = String::from(
        "# What bad input gets\n\nEvery row is tried by `tests/tests/refusals`, which writes this page. The sentence is the part of the answer that the\ntest looks for; `code` is the exit code of the command line. Hostile layers, registries that lie and malformed references\nhave their tests in `crates/bireme-image/tests`, hostile components in `crates/bireme-wasm-host/tests`, hostile Compose\nfiles in `crates/bireme-compose/tests`.\n\n| subject | input | code | sentence |\n|---|---|---|---|\n",
    );
    for row in ROWS.into_iter().flatten() {
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
