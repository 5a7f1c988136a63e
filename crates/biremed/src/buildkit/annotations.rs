//! Annotations as exporters are given them: pure.
//!
//! Source: BuildKit, `exporter/containerimage/exptypes/annotations.go`.

use std::collections::BTreeMap;

use bireme_buildkit::BuildError;
use bireme_core::ErrorKind;
use bireme_image::{Annotations, Platform};

/// Reads `annotation[-TYPE][\[PLATFORM\]].NAME` among the options of an exporter. `several` says whether there is an index.
///
/// # Errors
/// What cannot be read; what is said of an index where there is none.
pub(super) fn read(options: &BTreeMap<String, String>, several: bool) -> Result<Annotations, BuildError> {
    let mut annotations = Annotations::default();
    for (option, value) in options {
        let Some(rest) = option.strip_prefix("annotation").filter(|rest| rest.starts_with(['-', '.', '['])) else {
            continue;
        };
        let unreadable = || invalid(format!("could not fully parse annotation {option}"));
        let kind_ends = rest.find(['.', '[']).ok_or_else(unreadable)?;
        let (kind, rest) = rest.split_at(kind_ends);
        let (platform, name) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (platform, name) = rest.split_once("].").ok_or_else(unreadable)?;
                let platform: Platform = platform.parse().map_err(|error| invalid(format!("{option}: {error}")))?;
                (Some(platform), name)
            }
            None => (None, &rest[1..]),
        };
        if name.is_empty() {
            return Err(unreadable());
        }
        let (name, value) = (name.to_owned(), value.clone());
        match kind {
            "" | "-manifest" => annotations.manifest.push((platform, name, value)),
            "-manifest-descriptor" => annotations.manifest_descriptor.push((platform, name, value)),
            "-index" | "-index-descriptor" if !several => {
                return Err(invalid("index annotations not supported for single platform export".to_owned()));
            }
            "-index" => drop(annotations.index.insert(name, value)),
            // Nothing refers to an index here.
            "-index-descriptor" => {}
            other => return Err(invalid(format!("unrecognized annotation type {}", &other[1..]))),
        }
    }
    if !several {
        // Nothing refers to the one manifest.
        annotations.manifest_descriptor.clear();
    }
    Ok(annotations)
}

fn invalid(message: String) -> BuildError {
    BuildError::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn annotations_of_all_types_are_read() {
        let options = options(&[
            ("annotation.org.opencontainers.image.title", "t"),
            ("annotation-manifest[linux/amd64].a", "b"),
            ("annotation-manifest-descriptor.c", "d"),
            ("annotation-index.e", "f"),
            ("annotation-index-descriptor.g", "h"),
            ("annotations", "no annotation"),
            ("name", "x"),
        ]);
        let read_all = read(&options, true).unwrap();
        let text = str::to_owned;
        let linux: Platform = "linux/amd64".parse().unwrap();
        assert_eq!(
            read_all.manifest,
            [(Some(linux), text("a"), text("b")), (None, text("org.opencontainers.image.title"), text("t")),]
        );
        assert_eq!(read_all.manifest_descriptor, [(None, text("c"), text("d"))]);
        assert_eq!(read_all.index, BTreeMap::from([(text("e"), text("f"))]));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for (option, several, words) in [
            ("annotation-index.e", false, "not supported for single platform"),
            ("annotation-what.e", true, "unrecognized annotation type what"),
            ("annotation-manifest", true, "could not fully parse"),
            ("annotation.", true, "could not fully parse"),
            ("annotation[linux/amd64]", true, "could not fully parse"),
            ("annotation[what].x", true, "what"),
        ] {
            let error = read(&options(&[(option, "x")]), several).unwrap_err();
            assert!(error.message().contains(words), "{option}: {error}");
        }
    }
}
