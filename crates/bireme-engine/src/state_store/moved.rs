//! Records of an engine whose data root was moved or copied: paths in them are put below the new one.

use std::path::Path;

use serde_json::Value;

/// The record of a workload with its paths below this data root. It may have been moved since, or copied: what is written then
/// would be written into the files of the other.
pub(super) fn at_home(id: &str, config: String, data_root: &Path) -> String {
    /// Nothing but what is the engine's own: a container may have the same path among its words.
    fn replace(value: &mut Value, old: &str, new: &str) {
        const OURS: [&str; 3] = ["/containers/", "/images/", "/volumes/"];
        match value {
            Value::String(text) => {
                let rest = text.strip_prefix(old).filter(|rest| OURS.iter().any(|folder| rest.starts_with(folder)));
                if let Some(rest) = rest {
                    *text = format!("{new}{rest}");
                }
            }
            Value::Array(all) => all.iter_mut().for_each(|one| replace(one, old, new)),
            Value::Object(all) => all.values_mut().for_each(|one| replace(one, old, new)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    /// The root of the first path that is one of its own folder.
    fn root_of<'v>(value: &'v Value, own: &str) -> Option<&'v str> {
        match value {
            Value::String(text) => text.rsplit_once(own).map(|(root, _)| root).filter(|root| root.starts_with('/')),
            Value::Array(all) => all.iter().find_map(|one| root_of(one, own)),
            Value::Object(all) => all.values().find_map(|one| root_of(one, own)),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }
    let (Some(new), Ok(mut value)) = (data_root.to_str(), serde_json::from_str::<Value>(&config)) else {
        return config;
    };
    let own = format!("/containers/{id}/");
    let places = [("/log_path", own.as_str()), ("/program", &own), ("/program", "/images/")];
    let old = places.into_iter().find_map(|(place, own)| root_of(value.pointer(place)?, own)).map(str::to_owned);
    match old {
        Some(old) if old != new => {
            for place in ["/log_path", "/program"] {
                value.pointer_mut(place).into_iter().for_each(|place| replace(place, &old, new));
            }
            for list in ["/mounts", "/spec/mounts"] {
                let mounts = value.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
                mounts.filter_map(|mount| mount.get_mut("source")).for_each(|source| replace(source, &old, new));
            }
            value.to_string()
        }
        _ => config,
    }
}
