//! Manifests, indexes and configurations.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bireme_image::fuzz::document(bytes));
