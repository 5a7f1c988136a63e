//! Files of variables: `.env`, `--env-file`, a service's `env_file` and `label_file`.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::{Env, Files, Loader};
use crate::dotenv;
use crate::error::{ComposeError, Place};
use crate::yaml;

pub(super) fn read_env(
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

impl Loader<'_> {
    pub(super) fn variables(
        &self,
        path: &str,
        raw: bool,
        env: &Env,
    ) -> Result<Option<BTreeMap<String, String>>, String> {
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
}
