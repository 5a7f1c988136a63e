//! Compressions of layers and of what clients send, told apart by the first bytes, and bounds on how far they unpack.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use crate::model::LayerForm;
use crate::settings::Limits;

/// KiB that unpacking xz may take: what the largest setting of its command line needs, and no more.
const XZ_MEMORY: u32 = 80 << 10;

/// Unwraps the compression of a layer.
pub(crate) fn open_form<'a>(form: LayerForm, packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match form {
        LayerForm::Tar | LayerForm::Wasm => Box::new(packed),
        LayerForm::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::with_capacity(1 << 16, packed)))
        }
        LayerForm::Zstd => {
            let mut decoder = zstd::Decoder::new(packed)?;
            // 128 MiB, the most the zstd command line accepts unasked: a frame may not order more memory than that.
            decoder.window_log_max(27)?;
            Box::new(decoder)
        }
    })
}

/// Tells the compression of a layer by its first bytes.
pub(crate) fn sniff(start: &[u8]) -> LayerForm {
    match start {
        [0x1f, 0x8b, ..] => LayerForm::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => LayerForm::Zstd,
        // A frame to be skipped, which any may begin with. Source: RFC 8878, section 3.1.2.
        [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => LayerForm::Zstd,
        _ => LayerForm::Tar,
    }
}

/// Unwraps whatever compression `packed` has: none, gzip, bzip2, xz or zstd, told apart by the first bytes.
///
/// # Errors
/// Those of reading the first bytes.
pub(crate) fn open_any<'a>(mut packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut start = Vec::with_capacity(6);
    packed.by_ref().take(6).read_to_end(&mut start)?;
    let (bzip2, xz) = (is_bzip2(&start), is_xz(&start));
    let form = sniff(&start);
    let whole = io::Cursor::new(start).chain(packed);
    if bzip2 {
        return Ok(Box::new(bzip2::read::MultiBzDecoder::new(whole)));
    }
    if xz {
        let whole = io::BufReader::with_capacity(1 << 16, whole);
        return Ok(Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, XZ_MEMORY)));
    }
    open_form(form, whole)
}

/// Whether an unpacked archive that begins with these bytes is a tar, by the checksum of its first header.
pub(crate) fn is_tar(start: &[u8; 512]) -> bool {
    let header = tar::Header::from_byte_slice(start);
    let value = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) };
    let sum: u32 = start.iter().enumerate().map(value).sum();
    header.cksum().is_ok_and(|promised| promised == sum) && sum != 8 * 32
}

/// Whether it begins as something that [`open_any`] unwraps.
pub(crate) fn is_packed(start: &[u8]) -> bool {
    is_bzip2(start) || is_xz(start) || sniff(start) != LayerForm::Tar
}

/// Source: bzip2's file format: magic, size of blocks, and the mark of a block or of the end.
fn is_bzip2(start: &[u8]) -> bool {
    matches!(start, [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..])
}

fn is_xz(start: &[u8]) -> bool {
    start.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0])
}

/// As [`open_any`], and breaks off what unpacks to far more than was read of it.
pub(crate) fn open_sent<'a>(packed: impl Read + 'a, limits: &Limits) -> io::Result<Box<dyn Read + 'a>> {
    let read = Rc::new(Cell::new(0));
    let unpacked = open_any(Counted { inner: packed, count: read.clone() })?;
    Ok(Box::new(Expanding { inner: unpacked, read, written: 0, limits: limits.clone() }))
}

/// Unwraps whatever compression what a client sends has, and breaks it off where it unpacks to far more than was read.
///
/// # Errors
/// Those of reading the first bytes.
pub fn open_bounded<'a>(packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    open_sent(packed, &Limits::default())
}

struct Counted<R> {
    inner: R,
    count: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.count.set(self.count.get() + got as u64);
        Ok(got)
    }
}

struct Expanding<R> {
    inner: R,
    /// Bytes so far, packed and not.
    read: Rc<Cell<u64>>,
    written: u64,
    limits: Limits,
}

impl<R: Read> Read for Expanding<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.written += got as u64;
        let most = self.limits.sent(self.read.get());
        if self.written > most {
            let read = self.read.get();
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{read} bytes of it unpack to more than {most}, refused as a decompression bomb"),
            ));
        }
        Ok(got)
    }
}
