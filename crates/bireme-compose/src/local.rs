//! Images that are files: a component beside the Compose file (`image: ./app.wasm`), under a name made of its content.

use std::path::Path;

use sha2::{Digest as _, Sha256};

/// Whether an `image` is meant as a file: it ends in `.wasm` and has a path, which no name of an image has.
pub fn is_component_file(image: &str) -> bool {
    image.ends_with(".wasm") && image.starts_with(['.', '/'])
}

/// Whether an `image` is meant as a manifest of Spin: it ends in `.toml` and has a path.
pub(crate) fn is_manifest_file(image: &str) -> bool {
    image.ends_with(".toml") && image.starts_with(['.', '/'])
}

/// The image that the file at `path` is loaded as: `local/<stem>:sha256-<content>`, so that the same file is the same image.
pub fn component_image(path: &Path, content: &[u8]) -> String {
    format!("local/{}:sha256-{}", stem(path), hex::encode(Sha256::digest(content)))
}

/// The same for a file that cannot be read: no image has this name.
pub(crate) fn absent(path: &Path) -> String {
    format!("local/{}:absent", stem(path))
}

/// The name of a component's file without its ending, of letters, digits and single dashes.
pub fn stem(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let mut name: String = stem.chars().map(plain).collect();
    while name.contains("--") {
        name = name.replace("--", "-");
    }
    match name.trim_matches('-') {
        "" => "module".to_owned(),
        name => name.to_owned(),
    }
}
