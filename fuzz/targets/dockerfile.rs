//! Dockerfiles of anybody.

#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| bireme_dockerfile::fuzz::dockerfile(text));
