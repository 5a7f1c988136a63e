//! Which files, in which order, with which variables → one tree → the project.

mod discover;
mod env_file;
mod extends;
mod include;
mod name;
mod resolve;
mod spin_app;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use discover::Found;

use crate::canonical::{self, Base};
use crate::error::{ComposeError, Place};
use crate::interpolate::{MAX_TOTAL, interpolate_node};
use crate::keys::check_keys;
use crate::merge::{clean, merge, unique};
use crate::model::Project;
use crate::schema;
use crate::spin;
use crate::yaml::{self, Mark, Node, Value};

/// Most files one project may bring together, so that includes cannot grow without end.
const MAX_FILES: usize = 256;
/// Sections of the top level whose members have names.
const SECTIONS: [&str; 5] = ["services", "networks", "volumes", "secrets", "configs"];

/// How the files of a project are read. Paths are absolute, but for `-` (standard input) if the caller passed it.
pub trait Files {
    /// The whole content.
    ///
    /// # Errors
    /// As reading a file fails; [`io::ErrorKind::NotFound`] when it is not there.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Whether a file is there.
    fn exists(&self, path: &Path) -> bool;
}

/// What the command line and the surroundings say.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// `-f`, in the order of merging; empty: `COMPOSE_FILE`, else the standard names, looked for upwards.
    pub files: Vec<PathBuf>,
    /// `--project-directory`; absent: the folder of the first file.
    pub project_directory: Option<PathBuf>,
    /// `-p`; absent: `COMPOSE_PROJECT_NAME`, the file's `name`, the folder's name.
    pub project_name: Option<String>,
    /// `--env-file`; empty: `COMPOSE_ENV_FILES`, else `.env` in the project folder.
    pub env_files: Vec<PathBuf>,
    /// `--profile`; empty: `COMPOSE_PROFILES`. `*` is all.
    pub profiles: Vec<String>,
    /// The variables of the calling process.
    pub environment: BTreeMap<String, String>,
    /// The current folder, absolute.
    pub working_dir: PathBuf,
}

/// Loads and resolves a project.
///
/// # Errors
/// See [`ComposeError`]: the message names file, line and key.
pub fn load(options: &LoadOptions, files: &dyn Files) -> Result<Project, ComposeError> {
    let found = Found::find(options, files)?;
    let loader = Loader {
        files,
        env: &found.env,
        unset: RefCell::new(found.unset.clone()),
        parsed: RefCell::default(),
        grown: RefCell::default(),
        budget: RefCell::new(MAX_TOTAL),
        env_files: RefCell::default(),
    };
    let mut env = found.env.clone();
    let name = loader.project_name(options, &found)?;
    env.insert("COMPOSE_PROJECT_NAME".to_owned(), name.clone());

    let mut root: Option<Node> = None;
    for path in &found.files {
        let node = loader.file(path, &found.folder, &env, &mut Vec::new())?;
        match &mut root {
            None => root = Some(clean(node)),
            Some(root) => merge(root, node, &[]),
        }
    }
    let Some(mut root) = root else {
        return Err(ComposeError::NotFound("no Compose file was named; pass one with -f".to_owned()));
    };
    unique(&mut root, &[]);
    loader.spin_apps(&mut root, &env)?;
    // As with Compose, `--profile` takes the place of COMPOSE_PROFILES.
    let from_env = env.get("COMPOSE_PROFILES").filter(|_| options.profiles.is_empty());
    let profiles: BTreeSet<String> = options
        .profiles
        .iter()
        .map(String::as_str)
        .chain(from_env.map(|all| all.split(',')).into_iter().flatten())
        .map(|profile| profile.trim().to_owned())
        .filter(|profile| !profile.is_empty())
        .collect();
    loader.resolve(&root, name, &found, profiles, &env)
}

type Env = BTreeMap<String, String>;

struct Loader<'a> {
    files: &'a dyn Files,
    /// What the variables of manifests are looked up in.
    env: &'a Env,
    /// Variables that were used and are nowhere set.
    unset: RefCell<BTreeSet<String>>,
    /// Files that were read, before interpolation.
    parsed: RefCell<BTreeMap<PathBuf, Vec<Node>>>,
    /// How many values `extends` has copied.
    grown: RefCell<usize>,
    /// Bytes of text that interpolation may still make.
    budget: RefCell<usize>,
    /// Contents of `env_file`s, read once each.
    #[allow(clippy::type_complexity, reason = "used in this one place")]
    env_files: RefCell<BTreeMap<(String, bool), Option<BTreeMap<String, String>>>>,
}

impl Loader<'_> {
    /// Remembers a variable that was used and is nowhere set.
    fn is_unset(&self, name: &str) {
        self.unset.borrow_mut().insert(name.to_owned());
    }

    fn read(&self, path: &Path) -> Result<Vec<Node>, ComposeError> {
        if let Some(known) = self.parsed.borrow().get(path) {
            return Ok(known.clone());
        }
        if self.parsed.borrow().len() >= MAX_FILES {
            return Err(ComposeError::invalid(
                "",
                format!("the project brings more than {MAX_FILES} files together; use fewer includes"),
            ));
        }
        let bytes = self.files.read(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                ComposeError::NotFound(format!("Compose file {} does not exist", path.display()))
            }
            _ => ComposeError::Read { path: path.to_path_buf(), reason: error.to_string() },
        })?;
        let documents = if spin::is_manifest(path) {
            vec![spin::compose(&bytes, path, &|name| self.env.get(name).cloned())?]
        } else {
            yaml::parse(&bytes, path)?
        };
        self.parsed.borrow_mut().insert(path.to_path_buf(), documents.clone());
        Ok(documents)
    }

    /// One file: interpolated, in long form, its `extends` and includes settled. Marks are kept.
    fn file(&self, path: &Path, folder: &Path, env: &Env, stack: &mut Vec<PathBuf>) -> Result<Node, ComposeError> {
        if stack.iter().any(|open| open == path) {
            let circle: Vec<String> =
                stack.iter().chain([&path.to_path_buf()]).map(|path| path.display().to_string()).collect();
            return Err(ComposeError::invalid(
                "include",
                format!("files include each other in a circle: {}", circle.join(" -> ")),
            ));
        }
        stack.push(path.to_path_buf());
        let mut whole: Option<Node> = None;
        for mut document in self.prepared(path, folder, env)? {
            self.extend_all(&mut document, path, folder, env)?;
            match &mut whole {
                None => whole = Some(document),
                Some(whole) => merge(whole, document, &[]),
            }
        }
        let Some(mut whole) = whole else {
            return Err(ComposeError::Invalid {
                place: Box::new(Place { file: Some(path.to_path_buf()), ..Place::default() }),
                reason: "is empty; a Compose file has at least `services`".to_owned(),
            });
        };
        self.includes(&mut whole, folder, env, stack)?;
        stack.pop();
        Ok(whole)
    }

    /// The documents of a file, interpolated and in long form; keys of the top level are checked.
    fn prepared(&self, path: &Path, folder: &Path, env: &Env) -> Result<Vec<Node>, ComposeError> {
        let mut documents = self.read(path)?;
        documents.retain(|document| document.value != Value::Null);
        documents.iter_mut().try_for_each(|document| self.complete(document, folder, env))?;
        Ok(documents)
    }

    /// Fills in variables and brings a document to its long form.
    fn complete(&self, document: &mut Node, folder: &Path, env: &Env) -> Result<(), ComposeError> {
        let home = env.get("HOME").map(String::as_str);
        let Some(top) = document.as_map() else {
            return Err(document.invalid("", format!("must be a mapping with `services`, but is {}", document.kind())));
        };
        check_keys(top, &schema::TOP, "")?;
        let lookup = |name: &str| env.get(name).cloned();
        let mut unset = |name: &str| self.is_unset(name);
        interpolate_node(document, "", &lookup, &mut unset, &mut self.budget.borrow_mut())?;
        canonical::document(document, Base { folder, home })?;
        for section in SECTIONS {
            if let Some(node) = document.get(section)
                && node.value != Value::Null
                && node.as_map().is_none()
                && node.mark != Mark::Reset
            {
                return Err(node.invalid(section, format!("must be a mapping, but is {}", node.kind())));
            }
        }
        Ok(())
    }
}
