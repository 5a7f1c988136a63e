//! `include`: other Compose files, whose members come beside those of the file, never over them.

use std::path::{Path, PathBuf};

use super::env_file::read_env;
use super::{Env, Loader, SECTIONS};
use crate::canonical::absolute;
use crate::error::ComposeError;
use crate::keys::check_keys;
use crate::merge::{clean, merge};
use crate::schema;
use crate::yaml::{Map, Node, Value};

impl Loader<'_> {
    pub(super) fn includes(
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
