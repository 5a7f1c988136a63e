//! Which files, in which order, with which variables → one tree → the project.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use crate::canonical::{self, Base, absolute};
use crate::decode::{self, Surroundings};
use crate::dotenv;
use crate::error::{ComposeError, Place};
use crate::interpolate::{MAX_TOTAL, interpolate, interpolate_node};
use crate::merge::{clean, merge, unique};
use crate::model::{MountKind, Network, Project, Service};
use crate::schema::{self, check_keys};
use crate::yaml::{self, Map, Mark, Node, Value};

/// The standard names, the first of which is found wins.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];
/// Most files one project may bring together, so that includes cannot grow without end.
const MAX_FILES: usize = 256;
/// Most values that `extends` may copy, so that small files cannot make a big project.
const MAX_COPIED: usize = 1_000_000;
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

/// The files, the project folder and the variables.
struct Found {
    files: Vec<PathBuf>,
    folder: PathBuf,
    /// The process's variables over those of the `.env` files.
    env: BTreeMap<String, String>,
    /// Variables that those files use and nobody knows.
    unset: BTreeSet<String>,
}

impl Found {
    fn find(options: &LoadOptions, files: &dyn Files) -> Result<Self, ComposeError> {
        let home = options.environment.get("HOME").map(String::as_str);
        let at = |base: &Path, path: &Path| {
            if path == Path::new("-") { path.to_path_buf() } else { absolute(base, &path.to_string_lossy(), home) }
        };
        let explicit_folder = options.project_directory.as_ref().map(|folder| at(&options.working_dir, folder));
        let start = explicit_folder.clone().unwrap_or_else(|| options.working_dir.clone());
        let mut chosen: Vec<PathBuf> = options.files.iter().map(|path| at(&options.working_dir, path)).collect();
        let mut env = options.environment.clone();
        if chosen.is_empty() {
            // COMPOSE_FILE itself may stand in the .env of the folder we are in.
            let early = if env.contains_key("COMPOSE_FILE") {
                env.clone()
            } else {
                with_env_files(options, files, &start, &mut |_| {})?
            };
            if let Some(list) = early.get("COMPOSE_FILE").filter(|list| !list.is_empty()) {
                let separator =
                    early.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty()).map_or(":", String::as_str);
                chosen = list
                    .split(separator)
                    .filter(|path| !path.is_empty())
                    .map(|path| at(&start, Path::new(path)))
                    .collect();
            }
        }
        if chosen.is_empty() {
            chosen = upward(&start, files).ok_or_else(|| {
                ComposeError::NotFound(format!(
                    "no compose.yaml in {} or any folder above it; write one, or name a file with -f",
                    start.display()
                ))
            })?;
        }
        for path in &chosen {
            if path != Path::new("-") && !files.exists(path) {
                return Err(ComposeError::NotFound(format!(
                    "Compose file {} does not exist; check -f and COMPOSE_FILE",
                    path.display()
                )));
            }
        }
        let first = chosen.first().filter(|path| *path != Path::new("-")).and_then(|path| path.parent());
        let folder = explicit_folder.or_else(|| first.map(Path::to_path_buf)).unwrap_or(start);
        let mut unset = BTreeSet::new();
        env = with_env_files(options, files, &folder, &mut |name| {
            unset.insert(name.to_owned());
        })?;
        Ok(Self { files: chosen, folder, env, unset })
    }
}

/// The standard file of `start` or the nearest folder above, and its override.
fn upward(start: &Path, files: &dyn Files) -> Option<Vec<PathBuf>> {
    start.ancestors().find_map(|folder| {
        let main = NAMES.iter().map(|name| folder.join(name)).find(|path| files.exists(path))?;
        let over = OVERRIDES.iter().map(|name| folder.join(name)).find(|path| files.exists(path));
        Some(std::iter::once(main).chain(over).collect())
    })
}

fn with_env_files(
    options: &LoadOptions,
    files: &dyn Files,
    folder: &Path,
    unset: &mut dyn FnMut(&str),
) -> Result<BTreeMap<String, String>, ComposeError> {
    let mut env = options.environment.clone();
    let is_true =
        |name: &str| env.get(name).is_some_and(|value| matches!(value.as_str(), "1" | "true" | "TRUE" | "yes"));
    let home = env.get("HOME").map(String::as_str);
    let (paths, must): (Vec<PathBuf>, bool) = if !options.env_files.is_empty() {
        let paths = options.env_files.iter().map(|path| absolute(&options.working_dir, &path.to_string_lossy(), home));
        (paths.collect(), true)
    } else if let Some(list) = env.get("COMPOSE_ENV_FILES").filter(|list| !list.is_empty()) {
        (list.split(',').map(|path| absolute(&options.working_dir, path.trim(), home)).collect(), true)
    } else if is_true("COMPOSE_DISABLE_ENV_FILE") {
        (Vec::new(), false)
    } else {
        (vec![folder.join(".env")], false)
    };
    let mut below = BTreeMap::new();
    for path in paths {
        if !must && !files.exists(&path) {
            continue;
        }
        let known = |name: &str| env.get(name).or_else(|| below.get(name)).cloned();
        let found = read_env(files, &path, false, &known, unset)?;
        let found = found.ok_or_else(|| {
            ComposeError::NotFound(format!("environment file {} does not exist; check --env-file", path.display()))
        })?;
        below.extend(found);
    }
    for (name, value) in below {
        env.entry(name).or_insert(value);
    }
    Ok(env)
}

fn read_env(
    files: &dyn Files,
    path: &Path,
    raw: bool,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut dyn FnMut(&str),
) -> Result<Option<BTreeMap<String, String>>, ComposeError> {
    let invalid = |line: Option<usize>, reason: String| ComposeError::Invalid {
        place: Box::new(Place { file: Some(path.to_path_buf()), line, key: String::new() }),
        reason,
    };
    let bytes = match files.read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ComposeError::Read { path: path.to_path_buf(), reason: error.to_string() }),
    };
    if bytes.len() > yaml::MAX_BYTES {
        return Err(invalid(
            None,
            format!("is {} bytes long, more than the {} that are read", bytes.len(), yaml::MAX_BYTES),
        ));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| invalid(None, "is not UTF-8; save it in that encoding".to_owned()))?;
    let read = if raw { dotenv::parse_raw(&text, lookup) } else { dotenv::parse(&text, lookup, unset) };
    read.map(Some).map_err(|(line, reason)| invalid(Some(line), reason))
}

/// Lower case, and only what a project name may have.
fn normalise(name: &str) -> String {
    let kept: String = name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    kept.trim_start_matches(['-', '_']).to_owned()
}

struct Loader<'a> {
    files: &'a dyn Files,
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

type Env = BTreeMap<String, String>;

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
        let documents = yaml::parse(&bytes, path)?;
        self.parsed.borrow_mut().insert(path.to_path_buf(), documents.clone());
        Ok(documents)
    }

    fn project_name(&self, options: &LoadOptions, found: &Found) -> Result<String, ComposeError> {
        let checked = |name: &str, from: &str| {
            if !name.is_empty() && normalise(name) == name {
                Ok(name.to_owned())
            } else {
                Err(ComposeError::invalid(
                    "name",
                    format!(
                        "{name:?} ({from}) is not a project name; use lower-case letters, digits, - and _, beginning with a letter or digit"
                    ),
                ))
            }
        };
        if let Some(name) = options.project_name.as_deref().filter(|name| !name.is_empty()) {
            return checked(name, "from -p");
        }
        if let Some(name) = found.env.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()) {
            return checked(name, "from COMPOSE_PROJECT_NAME");
        }
        for path in found.files.iter().rev().filter(|path| *path != Path::new("-")) {
            for document in self.read(path)?.iter().rev() {
                if let Some(name) = document.get("name").and_then(Node::as_str) {
                    let lookup = |variable: &str| found.env.get(variable).cloned();
                    if let Ok(name) = interpolate(name, &lookup, &mut |_| {})
                        && !normalise(&name).is_empty()
                    {
                        return Ok(normalise(&name));
                    }
                }
            }
        }
        let name =
            normalise(&found.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
        if name.is_empty() {
            return Err(ComposeError::invalid(
                "name",
                "the project has no name: its folder gives none; pass one with -p",
            ));
        }
        Ok(name)
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
        let home = env.get("HOME").map(String::as_str);
        let mut documents = self.read(path)?;
        documents.retain(|document| document.value != Value::Null);
        for document in &mut documents {
            let Some(top) = document.as_map() else {
                return Err(
                    document.invalid("", format!("must be a mapping with `services`, but is {}", document.kind()))
                );
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
        }
        Ok(documents)
    }

    fn extend_all(&self, document: &mut Node, path: &Path, folder: &Path, env: &Env) -> Result<(), ComposeError> {
        let names: Vec<String> = document
            .get("services")
            .and_then(Node::as_map)
            .map(|services| {
                services
                    .iter()
                    .filter(|(_, node)| node.get("extends").is_some())
                    .map(|(name, _)| name.clone())
                    .collect()
            })
            .unwrap_or_default();
        let whole = document.clone();
        for name in names {
            let extended = self.extended(&whole, &name, path, folder, env, &mut Vec::new())?;
            if let Some(services) =
                document.as_map_mut().and_then(|top| top.get_mut("services")).and_then(Node::as_map_mut)
            {
                services.insert(name, extended);
            }
        }
        Ok(())
    }

    /// The service `name` of `document` with what it extends below it.
    fn extended(
        &self,
        document: &Node,
        name: &str,
        path: &Path,
        folder: &Path,
        env: &Env,
        stack: &mut Vec<(PathBuf, String)>,
    ) -> Result<Node, ComposeError> {
        let key = format!("services.{name}.extends");
        let Some(service) = document.get("services").and_then(|services| services.get(name)) else {
            return Err(document.invalid("services", format!("has no service {name:?} to extend; check the name")));
        };
        let mut own = service.clone();
        let Some(extends) =
            own.as_map_mut().and_then(|map| map.remove("extends")).filter(|node| node.value != Value::Null)
        else {
            return Ok(own);
        };
        let here = (path.to_path_buf(), name.to_owned());
        if stack.contains(&here) {
            let circle: Vec<String> = stack.iter().chain([&here]).map(|(_, name)| name.clone()).collect();
            return Err(extends.invalid(
                key,
                format!("services extend each other in a circle: {}; remove one extends", circle.join(" -> ")),
            ));
        }
        stack.push(here);
        let map = extends
            .as_map()
            .ok_or_else(|| extends.invalid(&key, "must be a service's name, or a mapping with `service`"))?;
        check_keys(map, &schema::EXTENDS, &key)?;
        let base_name =
            extends.get("service").and_then(Node::as_str).ok_or_else(|| extends.invalid(&key, "names no service"))?;
        let mut base = match extends.get("file").filter(|file| file.value != Value::Null) {
            None => self.extended(document, base_name, path, folder, env, stack)?,
            Some(file) => {
                let text = file.as_str().ok_or_else(|| file.invalid(format!("{key}.file"), "must be a path"))?;
                let other = absolute(folder, text, env.get("HOME").map(String::as_str));
                let other_folder = other.parent().unwrap_or(folder).to_path_buf();
                if !self.files.exists(&other) {
                    return Err(file.invalid(
                        format!("{key}.file"),
                        format!("file {} does not exist; check the path", other.display()),
                    ));
                }
                let mut whole: Option<Node> = None;
                for document in self.prepared(&other, &other_folder, env)? {
                    match &mut whole {
                        None => whole = Some(document),
                        Some(whole) => merge(whole, document, &[]),
                    }
                }
                let whole = whole.ok_or_else(|| file.invalid(&key, format!("{} is empty", other.display())))?;
                if whole.get("services").and_then(|services| services.get(base_name)).is_none() {
                    return Err(extends
                        .invalid(&key, format!("{} has no service {base_name:?}; check the name", other.display())));
                }
                self.extended(&whole, base_name, &other, &other_folder, env, stack)?
            }
        };
        stack.pop();
        *self.grown.borrow_mut() += base.count();
        if *self.grown.borrow() > MAX_COPIED {
            return Err(
                extends.invalid(key, format!("brings what extends copies above {MAX_COPIED} values; extend less"))
            );
        }
        base = clean(base);
        let line = own.line;
        let mark = own.mark;
        merge(&mut base, own, &["services", "*"]);
        base.line = line;
        base.mark = mark;
        Ok(base)
    }

    fn includes(
        &self,
        whole: &mut Node,
        folder: &Path,
        env: &Env,
        stack: &mut Vec<PathBuf>,
    ) -> Result<(), ComposeError> {
        let Some(include) = whole.as_map_mut().and_then(|top| top.remove("include")) else { return Ok(()) };
        let Value::List(items) = &include.value else {
            return if include.value == Value::Null {
                Ok(())
            } else {
                Err(include.invalid("include", format!("must be a list of paths, but is {}", include.kind())))
            };
        };
        let home = env.get("HOME").map(String::as_str);
        for (index, item) in items.iter().enumerate() {
            let key = format!("include[{index}]");
            let texts = |node: Option<&Node>, key: &str| -> Result<Vec<String>, ComposeError> {
                match node.map(|node| (&node.value, node)) {
                    None | Some((Value::Null, _)) => Ok(Vec::new()),
                    Some((Value::Text(text), _)) => Ok(vec![text.clone()]),
                    Some((Value::List(items), node)) => items
                        .iter()
                        .map(|item| {
                            item.as_str().map(str::to_owned).ok_or_else(|| node.invalid(key, "must be a list of paths"))
                        })
                        .collect(),
                    Some((_, node)) => Err(node.invalid(key, "must be a path or a list of paths")),
                }
            };
            let (paths, project_directory, env_files) = match &item.value {
                Value::Text(path) => (vec![path.clone()], None, Vec::new()),
                Value::Map(map) => {
                    check_keys(map, &schema::INCLUDE, &key)?;
                    let directory = texts(map.get("project_directory"), &format!("{key}.project_directory"))?.pop();
                    (
                        texts(map.get("path"), &format!("{key}.path"))?,
                        directory,
                        texts(map.get("env_file"), &format!("{key}.env_file"))?,
                    )
                }
                _ => return Err(item.invalid(key, "must be a path or a mapping with `path`")),
            };
            let paths: Vec<PathBuf> = paths.iter().map(|path| absolute(folder, path, home)).collect();
            let Some(first) = paths.first() else { return Err(item.invalid(key, "names no path")) };
            let below = project_directory
                .map(|directory| absolute(folder, &directory, home))
                .unwrap_or_else(|| first.parent().unwrap_or(folder).to_path_buf());
            let mut inner_env = env.clone();
            let env_paths: Vec<(PathBuf, bool)> = if env_files.is_empty() {
                vec![(below.join(".env"), false)]
            } else {
                env_files.iter().map(|path| (absolute(folder, path, home), true)).collect()
            };
            for (path, must) in env_paths {
                let known = |name: &str| env.get(name).cloned();
                let mut unset = |name: &str| self.is_unset(name);
                match read_env(self.files, &path, false, &known, &mut unset)? {
                    Some(found) => found.into_iter().for_each(|(name, value)| {
                        inner_env.entry(name).or_insert(value);
                    }),
                    None if must => {
                        return Err(item.invalid(key, format!("environment file {} does not exist", path.display())));
                    }
                    None => {}
                }
            }
            let mut included: Option<Node> = None;
            for path in &paths {
                if !self.files.exists(path) {
                    return Err(item.invalid(key, format!("file {} does not exist; check the path", path.display())));
                }
                let node = self.file(path, &below, &inner_env, stack)?;
                match &mut included {
                    None => included = Some(clean(node)),
                    Some(included) => merge(included, node, &[]),
                }
            }
            let Some(included) = included else { continue };
            adopt(whole, included, item, &key)?;
        }
        Ok(())
    }

    fn variables(&self, path: &str, raw: bool, env: &Env) -> Result<Option<BTreeMap<String, String>>, String> {
        let key = (path.to_owned(), raw);
        if let Some(known) = self.env_files.borrow().get(&key) {
            return Ok(known.clone());
        }
        let lookup = |name: &str| env.get(name).cloned();
        let mut unset = |name: &str| self.is_unset(name);
        let found =
            read_env(self.files, Path::new(path), raw, &lookup, &mut unset).map_err(|error| error.to_string())?;
        self.env_files.borrow_mut().insert(key, found.clone());
        Ok(found)
    }

    fn resolve(
        &self,
        root: &Node,
        name: String,
        found: &Found,
        profiles: BTreeSet<String>,
        env: &Env,
    ) -> Result<Project, ComposeError> {
        let empty = Map::new();
        let section = |key: &str| root.get(key).and_then(Node::as_map).unwrap_or(&empty);
        let lookup = |name: &str| env.get(name).cloned();
        let read = |path: &str, raw: bool| self.variables(path, raw, env);
        let around = Surroundings { read: &read, lookup: &lookup };
        let (mut services, mut disabled) = (BTreeMap::new(), BTreeMap::new());
        for (key, node) in section("services") {
            check_name(key, node, "services")?;
            let mut service = decode::service(key, node, &format!("services.{key}"), &around)?;
            if service.networks.is_empty() && service.network_mode.is_none() {
                service.networks.insert("default".to_owned(), None);
            }
            let active =
                service.profiles.is_empty() || profiles.contains("*") || !service.profiles.is_disjoint(&profiles);
            if active { &mut services } else { &mut disabled }.insert(key.clone(), service);
        }
        let names: BTreeSet<String> = services.keys().chain(disabled.keys()).cloned().collect();
        let declared = |part: &str, key: &str| section(part).contains_key(key);
        for part in [&services, &disabled] {
            decode::check_references(part, section("services"), declared, &names)?;
        }

        let every = || services.values().chain(disabled.values());
        let used_networks: BTreeSet<&str> =
            every().flat_map(|service| service.networks.keys().map(String::as_str)).collect();
        let used_volumes: BTreeSet<&str> = every()
            .flat_map(|service| &service.volumes)
            .filter(|mount| mount.kind == MountKind::Volume)
            .filter_map(|mount| mount.source.as_deref())
            .collect();
        let mut networks = BTreeMap::new();
        for (key, node) in section("networks") {
            check_name(key, node, "networks")?;
            networks.insert(key.clone(), decode::network(key, node, &format!("networks.{key}"), &name)?);
        }
        networks
            .entry("default".to_owned())
            .or_insert_with(|| Network { name: format!("{name}_default"), ..Network::default() });
        networks.retain(|key, _| used_networks.contains(key.as_str()));
        let mut volumes = BTreeMap::new();
        for (key, node) in section("volumes") {
            check_name(key, node, "volumes")?;
            volumes.insert(key.clone(), decode::volume(key, node, &format!("volumes.{key}"), &name)?);
        }
        volumes.retain(|key, _| used_volumes.contains(key.as_str()));
        let mut secrets = BTreeMap::new();
        for (key, node) in section("secrets") {
            secrets
                .insert(key.clone(), decode::file_object(key, node, &format!("secrets.{key}"), &name, false, &lookup)?);
        }
        let mut configs = BTreeMap::new();
        for (key, node) in section("configs") {
            configs
                .insert(key.clone(), decode::file_object(key, node, &format!("configs.{key}"), &name, true, &lookup)?);
        }
        let project = Project {
            name,
            working_dir: found.folder.clone(),
            files: found.files.clone(),
            services,
            networks,
            volumes,
            secrets,
            configs,
            disabled,
            profiles,
            warnings: self
                .unset
                .borrow()
                .iter()
                .map(|name| format!("variable {name} is not set: it stands for nothing"))
                .collect(),
            extensions: root.as_map().map(decode::extensions).unwrap_or_default(),
        };
        check_owners(&project, section("services"))?;
        project.service_order()?;
        Ok(project)
    }
}

/// What is put into a container is owned by numbers: names of users mean nothing outside it.
fn check_owners(project: &Project, nodes: &Map) -> Result<(), ComposeError> {
    for (name, service) in &project.services {
        let secrets = service.secrets.iter().map(|reference| ("secrets", reference, &project.secrets));
        let configs = service.configs.iter().map(|reference| ("configs", reference, &project.configs));
        for (key, reference, objects) in secrets.chain(configs) {
            let Some(object) = objects.get(&reference.source) else { continue };
            let injected = object.file.is_none();
            let bad_id = [&reference.uid, &reference.gid].into_iter().flatten().find(|id| id.parse::<u32>().is_err());
            let place = nodes.get(name).and_then(|node| node.get(key)).or_else(|| nodes.get(name));
            let refuse = |reason: String| match place {
                Some(node) => node.invalid(format!("services.{name}.{key}"), reason),
                None => ComposeError::invalid(format!("services.{name}.{key}"), reason),
            };
            if injected && let Some(id) = bad_id {
                return Err(refuse(format!("{id:?} is not the number of a user or group")));
            }
        }
    }
    Ok(())
}

fn check_name(key: &str, node: &Node, section: &str) -> Result<(), ComposeError> {
    let fits = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
    if fits {
        return Ok(());
    }
    Err(node
        .invalid(format!("{section}.{key}"), "has a name that is not made of letters, digits, ., _ and -; rename it"))
}

/// Puts what an include brought beside what is there; the same name twice is an error unless both say the same.
fn adopt(whole: &mut Node, included: Node, item: &Node, key: &str) -> Result<(), ComposeError> {
    let Value::Map(parts) = included.value else { return Ok(()) };
    for (section, node) in parts {
        if !SECTIONS.contains(&section.as_str()) {
            continue;
        }
        let Value::Map(members) = node.value else { continue };
        let Some(top) = whole.as_map_mut() else { continue };
        let into = top.entry(section.clone()).or_insert_with(|| item.part(Value::Map(Map::new())));
        if into.value == Value::Null {
            into.value = Value::Map(Map::new());
        }
        let Some(into) = into.as_map_mut() else { continue };
        for (name, member) in members {
            match into.get(&name) {
                Some(there) if *there != member => {
                    return Err(item.invalid(key, format!("brings {section}.{name}, which is also defined at {}:{}; rename one of them, or change it in an override file", there.file.display(), there.line)));
                }
                Some(_) => {}
                None => {
                    into.insert(name, member);
                }
            }
        }
    }
    Ok(())
}

impl Project {
    /// The networks, volumes, secrets and configs that the active services use.
    pub(crate) fn used(&self) -> Used<'_> {
        let services = || self.services.values();
        let volumes = |service: &'_ Service| -> Vec<String> {
            service
                .volumes
                .iter()
                .filter(|mount| mount.kind == MountKind::Volume)
                .filter_map(|mount| mount.source.clone())
                .collect()
        };
        Used {
            networks: services().flat_map(|service| service.networks.keys().map(String::as_str)).collect(),
            volumes: services().flat_map(volumes).collect(),
            secrets: services().flat_map(|service| service.secrets.iter().map(|one| one.source.as_str())).collect(),
            configs: services().flat_map(|service| service.configs.iter().map(|one| one.source.as_str())).collect(),
        }
    }
}

/// Keys in use, per section.
pub(crate) struct Used<'a> {
    pub(crate) networks: BTreeSet<&'a str>,
    pub(crate) volumes: BTreeSet<String>,
    pub(crate) secrets: BTreeSet<&'a str>,
    pub(crate) configs: BTreeSet<&'a str>,
}
