//! A case of the corpus: a folder `tests/builds/NAME` with a Dockerfile, its context, and `case.json`. The keys of that
//! file are told in `tests/builds/README.md`.

use std::path::PathBuf;

use bireme_testing::workspace;
use serde_json::Value;

use crate::client::Client;

pub(crate) struct Case {
    pub(crate) name: String,
    /// What it shows.
    pub(crate) says: String,
    /// Of the builder; for whoever wonders why a case does not pass yet.
    pub(crate) needs: Vec<String>,
    pub(crate) images: Vec<String>,
    pub(crate) clients: Vec<Client>,
    pub(crate) prepare: Vec<String>,
    pub(crate) flags: Vec<String>,
    pub(crate) steps: Vec<String>,
    /// Steps in place of these on Docker's engine, for what it has no word for but another one.
    pub(crate) reference: Vec<String>,
    pub(crate) run: Vec<String>,
    /// Whether it ends with an error, and makes nothing.
    pub(crate) fails: bool,
    pub(crate) words: Vec<String>,
    pub(crate) hidden: Vec<String>,
    pub(crate) varies: Vec<String>,
    pub(crate) outputs: Vec<String>,
}

const KEYS: [&str; 14] = [
    "says",
    "fails",
    "needs",
    "images",
    "clients",
    "prepare",
    "flags",
    "steps",
    "reference",
    "run",
    "words",
    "hidden",
    "varies",
    "outputs",
];

pub(crate) fn folder() -> PathBuf {
    workspace().join("tests/builds")
}

/// Every case, by name.
pub(crate) fn all() -> Vec<Case> {
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .expect("the corpus is there")
        .filter_map(|entry| Some(entry.ok()?.path()).filter(|path| path.join("case.json").is_file()))
        .filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names.into_iter().map(Case::read).collect()
}

impl Case {
    fn read(name: String) -> Self {
        let path = folder().join(&name).join("case.json");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let case: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for key in case.as_object().into_iter().flatten().map(|(key, _)| key.as_str()) {
            assert!(KEYS.contains(&key), "{}: there is no key {key:?}, but {KEYS:?}", path.display());
        }
        let list = |key: &str| -> Vec<String> {
            let words = case[key].as_array().into_iter().flatten();
            words.map(|word| word.as_str().unwrap_or_else(|| panic!("{name}: {key} lists words")).to_owned()).collect()
        };
        let clients = list("clients");
        assert!(!clients.is_empty(), "{name}: nobody builds it");
        let clients = clients
            .iter()
            .map(|client| Client::named(client).unwrap_or_else(|| panic!("{name}: there is no client {client:?}")))
            .collect();
        Self {
            says: case["says"].as_str().unwrap_or_else(|| panic!("{name}: it says nothing")).to_owned(),
            needs: list("needs"),
            images: list("images"),
            clients,
            prepare: list("prepare"),
            flags: list("flags"),
            steps: list("steps"),
            reference: list("reference"),
            run: list("run"),
            fails: case["fails"] == true,
            words: list("words"),
            hidden: list("hidden"),
            varies: list("varies"),
            outputs: list("outputs"),
            name,
        }
    }

    /// What is typed on the engine `docker` or ours; `None` where the one command does that everybody knows.
    pub(crate) fn typed(&self, docker: bool) -> Option<&[String]> {
        let steps = if docker && !self.reference.is_empty() { &self.reference } else { &self.steps };
        (!steps.is_empty()).then_some(steps.as_slice())
    }
}
