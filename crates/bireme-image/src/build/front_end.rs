//! Which front end a Dockerfile asks for: there is one, and it is built in.
//!
//! Source: the Dockerfile reference, "syntax".

use bireme_dockerfile::{Dockerfile, detect_syntax};

use super::source::Definition;
use crate::error::ImageError;

/// Whether a front end is the one that is built in, by the name of its image.
pub fn is_built_in(image: &str) -> bool {
    let plain = image.split('@').next().unwrap_or_default();
    let plain = ["docker.io/", "index.docker.io/"].iter().find_map(|start| plain.strip_prefix(start)).unwrap_or(plain);
    let (name, tag) = plain.split_once(':').unwrap_or((plain, "latest"));
    match name {
        "docker/dockerfile" => matches!(tag, "latest" | "labs" | "1") || tag.starts_with("1.") || tag.starts_with("1-"),
        "docker/dockerfile-upstream" => true,
        _ => image.is_empty(),
    }
}

/// # Errors
/// `Instruction` for a Dockerfile that asks for another one.
pub(super) fn check(file: &Dockerfile, definition: &Definition) -> Result<(), ImageError> {
    let text = String::from_utf8_lossy(&definition.text);
    let asked = file.directives.syntax.clone().or_else(|| detect_syntax(&text).map(|(image, _)| image));
    let image = asked.as_deref().and_then(|asked| asked.split_whitespace().next()).unwrap_or_default();
    if is_built_in(image) {
        return Ok(());
    }
    Err(ImageError::Instruction {
        line: 1,
        instruction: format!("the front end {image}"),
        reason: "docker/dockerfile:1 is built in, and no other is run; leave the line # syntax= out".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_end_that_is_built_in_is_known_by_all_its_names() {
        for image in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker.io/docker/dockerfile:1.7-labs",
            "docker/dockerfile:1.8.1@sha256:00",
            "docker/dockerfile:labs",
            "docker/dockerfile-upstream:master",
        ] {
            assert!(is_built_in(image), "{image}");
        }
        for image in ["docker/dockerfile:2", "example.com/buildpacks", "tonistiigi/dockerfile:1"] {
            assert!(!is_built_in(image), "{image}");
        }
    }
}
