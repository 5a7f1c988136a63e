//! What `docker logs --details` puts before each line: what the options of the log driver choose of a workload.

use bireme_core::go::query_escape;

use crate::EngineError;
use crate::refusal::{LogFault, RequestRefusal};
use crate::view::WorkloadView;

/// Options of `json-file` that choose details.
pub(crate) const OPTIONS: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];

/// Refuses an expression or a tag that could not be worked out later.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check(option: &str, value: &str) -> Result<(), LogFault> {
    match option {
        "labels-regex" | "env-regex" => regex::Regex::new(value)
            .map(|_| ())
            .map_err(|_| LogFault::Expression { option: option.to_owned(), text: value.to_owned() }),
        "tag" => tag(value, |_| Some(String::new())).map(|_| ()),
        _ => Ok(()),
    }
}

/// `key=value` of all, in the order of their keys, with commas between; escaped as in the query of an address.
///
/// # Errors
/// When the options of a stored workload are not what [`check`] lets through.
pub(crate) fn of(container: &WorkloadView) -> Result<String, EngineError> {
    let config = &container.config;
    let spec = &config.spec;
    let option = |name: &str| config.log.options.get(name).filter(|value| !value.is_empty());
    let chosen = |list: &str, expression: &str| {
        let names: Vec<&str> = option(list).map(|names| names.split(',').collect()).unwrap_or_default();
        let expression = option(expression).and_then(|text| regex::Regex::new(text).ok());
        move |name: &str| names.contains(&name) || expression.as_ref().is_some_and(|fits| fits.is_match(name))
    };
    let mut all = std::collections::BTreeMap::new();
    let wanted = chosen("labels", "labels-regex");
    all.extend(spec.labels.iter().filter(|(key, _)| wanted(key)).map(|(key, value)| (key.clone(), value.clone())));
    let wanted = chosen("env", "env-regex");
    let variables = spec.env.iter().filter_map(|entry| entry.split_once('='));
    all.extend(variables.filter(|(key, _)| wanted(key)).map(|(key, value)| (key.to_owned(), value.to_owned())));
    if let Some(text) = option("tag") {
        let image_id = config.image_id.as_str();
        let field = |name: &str| {
            Some(match name {
                "ID" => spec.id.short().to_owned(),
                "FullID" => spec.id.to_string(),
                "Name" => container.name.clone(),
                "FullName" => format!("/{}", container.name),
                "ImageName" => spec.image.clone(),
                "ImageID" => image_id.trim_start_matches("sha256:").chars().take(12).collect(),
                "ImageFullID" => image_id.to_owned(),
                "DaemonName" => "docker".to_owned(),
                _ => return None,
            })
        };
        all.insert("tag".to_owned(), tag(text, field).map_err(RequestRefusal::from)?);
    }
    let pairs = all.iter().map(|(key, value)| format!("{}={}", query_escape(key), query_escape(value)));
    Ok(pairs.collect::<Vec<_>>().join(","))
}

pub(crate) const FIELDS: [&str; 8] =
    ["ID", "FullID", "Name", "FullName", "ImageName", "ImageID", "ImageFullID", "DaemonName"];

/// The part of Go's templates that tags are written in: text, and fields.
fn tag(text: &str, field: impl Fn(&str) -> Option<String>) -> Result<String, LogFault> {
    let mut made = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("{{") {
        let unclosed = || LogFault::TagUnclosed { text: text.to_owned() };
        let (action, after) = from.split_once("}}").ok_or_else(unclosed)?;
        let name = action.trim();
        let known = name.strip_prefix('.').filter(|name| FIELDS.contains(name));
        let value = known.and_then(&field).ok_or_else(|| LogFault::TagField { field: name.to_owned() })?;
        made.push_str(before);
        made.push_str(&value);
        rest = after;
    }
    Ok(made + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_tag(text: &str, expected: Result<&str, &str>) {
        let made = tag(text, |name| Some(name.to_lowercase()));
        assert_eq!(made.as_deref().map_err(ToString::to_string), expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn tags_are_text_and_fields() {
        check_tag("plain", Ok("plain"));
        check_tag("{{.Name}}/{{ .ID }}!", Ok("name/id!"));
        check_tag("a{{.Name", Err("log opt 'tag': \"a{{.Name\" has a {{ without its }}"));
        let refused = "log opt 'tag': \".Odd\" is not offered: .ID, .FullID, .Name, .FullName, .ImageName, .ImageID, \
                       .ImageFullID, .DaemonName are";
        check_tag("{{.Odd}}", Err(refused));
    }
}
