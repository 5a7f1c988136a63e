//! Names of images.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bireme_image::fuzz::reference(bytes));
