//! Which files make up a project, which folder it is in, and which variables it sees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::env_file::read_env;
use super::{Files, LoadOptions};
use crate::canonical::absolute;
use crate::error::ComposeError;

/// The standard names, the first of which is found wins.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// What is taken of a folder without a Compose file.
const MANIFEST: &str = "spin.toml";

const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

/// The files, the project folder and the variables.
pub(super) struct Found {
    pub(super) files: Vec<PathBuf>,
    pub(super) folder: PathBuf,
    /// The process's variables over those of the `.env` files.
    pub(super) env: BTreeMap<String, String>,
    /// Variables that those files use and nobody knows.
    pub(super) unset: BTreeSet<String>,
}

impl Found {
    pub(super) fn find(options: &LoadOptions, files: &dyn Files) -> Result<Self, ComposeError> {
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

/// The standard file of `start` or the nearest folder above, and its override; or a manifest of Spin.
fn upward(start: &Path, files: &dyn Files) -> Option<Vec<PathBuf>> {
    start.ancestors().find_map(|folder| {
        let Some(main) = NAMES.iter().map(|name| folder.join(name)).find(|path| files.exists(path)) else {
            return Some(folder.join(MANIFEST)).filter(|path| files.exists(path)).map(|path| vec![path]);
        };
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
