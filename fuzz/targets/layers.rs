//! Layers and build contexts, unpacked into a temporary folder. Headers get the sums that they need to be read.

#![no_main]

use bireme_image::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if choice & 2 == 0 {
        for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    fuzz::headers(&bytes);
    fuzz::layer(&bytes, choice & 1 == 0);
});
