//! What clients send as their files, written below a folder beside which nothing changes; an earlier transfer is there.

#![no_main]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let outer = tempfile::tempdir().expect("a temporary folder can be made");
    let [into, before, victim] = ["into", "before", "victim"].map(|name| outer.path().join(name));
    for folder in [&into, &before] {
        std::fs::create_dir(folder).expect("a folder can be made");
    }
    std::fs::write(before.join("f"), "before").expect("a file can be written");
    std::os::unix::fs::symlink("../victim", before.join("l")).expect("a link can be made");
    std::fs::write(&victim, "untouched").expect("a file can be written");
    let open = |path: &Path| OwnedFd::from(File::open(path).expect("the folder can be opened"));
    let _ = bireme_buildkit::fuzz::files(bytes, open(&into), Some(open(&before)));
    assert_eq!(std::fs::read(&victim).expect("the file is there"), b"untouched");
    assert_eq!(std::fs::read(before.join("f")).expect("the file is there"), b"before");
    assert_eq!(std::fs::read_dir(outer.path()).expect("the folder can be listed").count(), 3);
});
