//! Members of tar archives, written byte for byte: as hostile as they like to be.

use bireme_image::{ImageError, Platform};
use std::path::PathBuf;

use super::archives::{load, oci_archive_of};
use super::images::image;
use super::{Place, TestImage};

/// One member of an archive.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) kind: u8,
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) device: (u32, u32),
    /// Records of extended headers in front of it.
    pub(crate) records: Vec<(Vec<u8>, Vec<u8>)>,
}

fn of_kind(kind: u8, name: impl AsRef<[u8]>) -> Member {
    let (name, mode) = (name.as_ref().to_vec(), if kind == b'5' { 0o755 } else { 0o644 });
    let (link, content, records) = (Vec::new(), Vec::new(), Vec::new());
    Member { kind, name, link, content, mode, owner: (0, 0), device: (0, 0), records }
}

pub(crate) fn file(name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Member {
    Member { content: content.as_ref().to_vec(), ..of_kind(b'0', name) }
}

pub(crate) fn folder(name: impl AsRef<[u8]>) -> Member {
    of_kind(b'5', name)
}

pub(crate) fn symlink(name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Member {
    Member { link: to.as_ref().to_vec(), ..of_kind(b'2', name) }
}

pub(crate) fn hard_link(name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Member {
    Member { link: to.as_ref().to_vec(), ..of_kind(b'1', name) }
}

/// A device of `kind` `3` or `4`.
pub(crate) fn device(kind: u8, name: impl AsRef<[u8]>, device: (u32, u32)) -> Member {
    Member { device, ..of_kind(kind, name) }
}

impl Member {
    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn record(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.records.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }
}

/// `length key=value`, the length being that of the whole. Source: POSIX.1-2017, pax.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap();
    [format!("{} ", rest + digits).as_bytes(), key, b"=", value, b"\n"].concat()
}

/// A tar of these, with GNU's long names where they need them.
pub(crate) fn tar_with(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for member in members {
        for (kind, long) in [(b'L', &member.name), (b'K', &member.link)] {
            if long.len() > 100 {
                block(&mut out, &file("././@LongLink", [long.as_slice(), b"\0"].concat()).of(kind));
            }
        }
        if !member.records.is_empty() {
            let records: Vec<u8> = member.records.iter().flat_map(|(key, value)| record(key, value)).collect();
            block(&mut out, &file("pax", records).of(b'x'));
        }
        block(&mut out, member);
    }
    out.extend_from_slice(&[0; 1024]);
    out
}

impl Member {
    pub(crate) fn of(self, kind: u8) -> Self {
        Self { kind, ..self }
    }
}

fn block(out: &mut Vec<u8>, member: &Member) {
    let mut header = tar::Header::new_gnu();
    let old = header.as_old_mut();
    let cut = |bytes: &[u8]| bytes[..bytes.len().min(100)].to_vec();
    let (name, link) = (cut(&member.name), cut(&member.link));
    old.name[..name.len()].copy_from_slice(&name);
    old.linkname[..link.len()].copy_from_slice(&link);
    old.linkflag = [member.kind];
    header.set_mode(member.mode);
    header.set_uid(member.owner.0);
    header.set_gid(member.owner.1);
    header.set_mtime(1_000_000_000);
    header.set_size(member.content.len() as u64);
    header.set_device_major(member.device.0).unwrap();
    header.set_device_minor(member.device.1).unwrap();
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(&member.content);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// An image for this machine with these layers.
pub(crate) fn image_with(tars: &[Vec<u8>]) -> TestImage {
    image(&Platform::host().to_string(), tars, serde_json::json!({}))
}

/// Loads an image with these layers, and answers the folders they are unpacked into.
pub(crate) async fn unpacked(place: &Place, tars: &[Vec<u8>]) -> Result<Vec<PathBuf>, ImageError> {
    let loaded = load(place, oci_archive_of(&image_with(tars), None)).await?;
    place.store.layers(&loaded[0].id).await
}
