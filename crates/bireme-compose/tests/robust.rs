//! Damaged and hostile files are refused; none brings the loader down or makes it grow without bound.

#![allow(clippy::unwrap_used, reason = "an unwrap that fails fails the test")]

use std::path::{Path, PathBuf};
use std::{fs, io};

use bireme_compose::{Files, LoadOptions, load};
use proptest::prelude::*;

struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.is_file()
    }
}

fn load_text(text: &[u8], dotenv: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("compose.yaml"), text).unwrap();
    fs::write(folder.path().join(".env"), dotenv).unwrap();
    let options = LoadOptions { working_dir: folder.path().to_owned(), ..LoadOptions::default() };
    load(&options, &Disk).map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn bombs_are_refused() {
    let check = |text: &str, dotenv: &str, expected: &str| {
        let message = load_text(text.as_bytes(), dotenv).unwrap_err();
        assert!(message.contains(expected), "{message}");
    };
    let doubling: String = (1..40).map(|at| format!("A{at}=${{A{}}}${{A{}}}\n", at - 1, at - 1)).collect();
    check("services: {a: {image: $A39}}", &format!("A0=xxxxxxxx\n{doubling}"), "mebibyte");
    let ports = "['1-65535', '1-65535/udp', '1-65535/sctp']";
    check(&format!("services: {{a: {{image: x, ports: {ports}}}}}"), "", "70000 published ports");
    let big: String = (0..4000).map(|at| format!("      k{at}: v\n")).collect();
    let many: String = (0..400).map(|at| format!("  s{at}: {{extends: base}}\n")).collect();
    check(&format!("services:\n  base:\n    image: x\n    labels:\n{big}{many}"), "", "what extends copies");
    check(&format!("services: {{a: {{image: x}}}}\n# {}", "x".repeat(5 << 20)), "", "more than the 4194304");
    check("services: {a: {image: \"\u{0}\"}}\n\u{1}", "", "compose.yaml");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_damaged_file_is_read_or_refused(
        which in any::<prop::sample::Index>(),
        damages in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..3, any::<u8>()), 1..6),
    ) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/valid");
        let mut files: Vec<PathBuf> =
            fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path().join("compose.yaml")).collect();
        files.retain(|file| file.is_file());
        files.sort();
        let mut text = fs::read(which.get(&files)).unwrap();
        for (at, kind, byte) in damages {
            let at = at.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => text.insert(at, b" :-[]{}&*!$\n\"'#"[usize::from(byte) % 15]),
                _ => {
                    text.remove(at);
                }
            }
            if text.is_empty() {
                break;
            }
        }
        let _ = load_text(&text, "");
    }
}
