//! Cases are folders: a Compose file, what it refers to, and `options.json` with arguments and variables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use bireme_compose::{Files, LoadOptions};
use serde_json::Value;

pub(crate) struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn exists(&self, path: &Path) -> bool {
        path.is_file()
    }
}

pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) folder: PathBuf,
    pub(crate) cwd: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// We refuse what the real Compose lets pass.
    pub(crate) stricter: bool,
}

impl Case {
    /// Every case of `kind` (`valid` or `invalid`), by name.
    pub(crate) fn all(kind: &str) -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(kind);
        let mut folders: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        folders.sort();
        folders.into_iter().map(Self::read).collect()
    }

    fn read(folder: PathBuf) -> Self {
        let options: Value =
            fs::read(folder.join("options.json")).map_or(Value::Null, |bytes| serde_json::from_slice(&bytes).unwrap());
        let mut env = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
        for (key, value) in options["env"].as_object().into_iter().flatten() {
            env.insert(key.clone(), value.as_str().unwrap().to_owned());
        }
        Self {
            name: folder.file_name().unwrap().to_string_lossy().into_owned(),
            cwd: folder.join(options["cwd"].as_str().unwrap_or("")),
            args: options["args"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|arg| arg.as_str().unwrap().to_owned())
                .collect(),
            env,
            stricter: options["stricter"].as_bool().unwrap_or(false),
            folder,
        }
    }

    pub(crate) fn options(&self) -> LoadOptions {
        let mut options = LoadOptions {
            environment: self.env.clone(),
            working_dir: self.cwd.components().collect(),
            ..LoadOptions::default()
        };
        for pair in self.args.chunks(2) {
            let value = pair[1].clone();
            match pair[0].as_str() {
                "-f" => options.files.push(value.into()),
                "-p" => options.project_name = Some(value),
                "--profile" => options.profiles.push(value),
                "--env-file" => options.env_files.push(value.into()),
                "--project-directory" => options.project_directory = Some(value.into()),
                other => panic!("case {} has the unknown argument {other}", self.name),
            }
        }
        options
    }

    /// `text` without the place of the repository on this machine.
    pub(crate) fn portable(&self, text: &str) -> String {
        let above = self.folder.parent().unwrap();
        text.replace(self.folder.to_str().unwrap(), "<CASE>").replace(above.to_str().unwrap(), "<CASES>")
    }
}

/// The real Compose, if the environment names one.
pub(crate) fn oracle() -> Option<PathBuf> {
    std::env::var_os("BIREME_COMPOSE_ORACLE").map(PathBuf::from)
}
