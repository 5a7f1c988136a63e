//! From the path of a request to a file of the site.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// Where the app file mounts the site.
const ROOT: &str = "/site";

/// A file that may be served.
pub(crate) struct Found {
    pub(crate) file: File,
    pub(crate) size: u64,
    /// A strong entity tag, quotes included: from the size and the time of the last change.
    pub(crate) tag: String,
    pub(crate) kind: &'static str,
}

/// Opens what `path` (as it stands in the request, still escaped) names; a folder is its `index.html`.
///
/// # Errors
/// `NotFound` for whatever is not a file of the site, whether it is absent or out of bounds.
pub(crate) fn find(path: &str) -> io::Result<Found> {
    let mut place = PathBuf::from(ROOT);
    place.extend(segments(path).ok_or(io::ErrorKind::NotFound)?);
    let mut known = fs::metadata(&place)?;
    if known.is_dir() {
        place.push("index.html");
        known = fs::metadata(&place)?;
    }
    if !known.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let changed = known.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let size = known.len();
    let kind = kind(place.extension().and_then(|ending| ending.to_str()).unwrap_or_default());
    Ok(Found { file: File::open(&place)?, size, tag: format!("\"{size:x}-{changed:x}\""), kind })
}

/// The segments of a path, unescaped; `None` if any could lead elsewhere than down into the site.
fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Some(Vec::new());
    }
    path.split('/')
        .map(|segment| {
            let segment = unescape(segment)?;
            let safe = !segment.is_empty() && !segment.starts_with('.') && !segment.contains(['/', '\\', '\0']);
            safe.then_some(segment)
        })
        .collect()
}

fn unescape(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut plain = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(bytes.next())? * 16 + digit(bytes.next())?).ok()?
            }
            plain => plain,
        });
    }
    String::from_utf8(plain).ok()
}

fn kind(ending: &str) -> &'static str {
    match ending {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "json" => "application/json",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::segments;

    #[test]
    fn a_path_leads_down_into_the_site_or_nowhere() {
        let check = |path: &str, expected: Option<&[&str]>| {
            let got = segments(path);
            assert_eq!(
                got.as_deref().map(|got| got.iter().map(String::as_str).collect::<Vec<_>>()).as_deref(),
                expected,
                "{path}"
            );
        };
        check("/", Some(&[]));
        check("/index.html", Some(&["index.html"]));
        check("/art/a%20cat.svg", Some(&["art", "a cat.svg"]));
        check("/art/", Some(&["art"]));
        for bad in [
            "",
            "x",
            "//x",
            "/a//b",
            "/..",
            "/a/../b",
            "/%2e%2e/x",
            "/a%2fb",
            "/a%5cb",
            "/.git",
            "/a%00",
            "/%zz",
            "/%f",
            "/%ff",
        ] {
            check(bad, None);
        }
    }
}
