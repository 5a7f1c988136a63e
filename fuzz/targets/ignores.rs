//! `.dockerignore`, and paths held against it: patterns, a zero byte, a path.

#![no_main]

use bireme_core::ignore::Ignore;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (patterns, path) = text.split_once('\0').unwrap_or((&text, "a/b"));
    // Longer ones take longer, and show no more.
    if patterns.len() > 4096 || path.len() > 512 {
        return;
    }
    if let Ok(ignore) = Ignore::parse(patterns) {
        ignore.hides(path);
    }
});
