//! `extends`: a service on top of another one, of the same file or of another.

use std::path::{Path, PathBuf};

use super::{Env, Loader};
use crate::canonical::absolute;
use crate::error::ComposeError;
use crate::keys::check_keys;
use crate::merge::{clean, merge};
use crate::schema;
use crate::yaml::{Node, Value};

/// Most values that `extends` may copy, so that small files cannot make a big project.
const MAX_COPIED: usize = 1_000_000;

impl Loader<'_> {
    pub(super) fn extend_all(
        &self,
        document: &mut Node,
        path: &Path,
        folder: &Path,
        env: &Env,
    ) -> Result<(), ComposeError> {
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
}
