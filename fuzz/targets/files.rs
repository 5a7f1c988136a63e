//! What clients send as their files, written below a folder beside which nothing changes; an earlier transfer is there.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let outer = tempfile::tempdir().expect("a temporary folder can be made");
    bireme_buildkit::fuzz::files(bytes, outer.path());
});
