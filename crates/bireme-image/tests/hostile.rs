//! Layers that try what layers must not, each attempt by name: links, whiteouts, devices, rights, attributes and names.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use bireme_core::ErrorKind;
use common::*;

/// Whether overlayfs takes it for the mark of a deletion.
fn marks_a_deletion(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.file_type().is_char_device() && about.rdev() == 0)
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 128];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn is_opaque(path: &Path) -> bool {
    attribute(path, "trusted.overlay.opaque").is_some_and(|value| value == b"y")
}

/// Every one of these is refused with these words, as the fault of the image, and nothing is left of it.
async fn refused(place: &Place, cases: Vec<(Vec<Member>, &str)>) {
    for (members, words) in cases {
        let error = unpacked(place, &[tar_with(&members)]).await.expect_err(words);
        assert!(error.to_string().contains(words), "{members:?}: {error}");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert!(place.store.list().await.unwrap().is_empty());
    place.settles_to(0, 0).await;
}

/// A folder outside, and what would lead there: absolutely, and by climbing.
struct Outside {
    folder: tempfile::TempDir,
    ways: [String; 2],
}

impl Outside {
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(folder.path().join("victim"), "untouched").unwrap();
        let absolute = folder.path().to_str().unwrap().to_owned();
        let climbing = format!("{}{}", "../".repeat(40), &absolute[1..]);
        Self { folder, ways: [absolute, climbing] }
    }

    #[track_caller]
    fn is_untouched(&self) {
        let about = self.folder.path().join("victim").symlink_metadata().unwrap();
        assert_eq!((about.nlink(), about.uid(), about.mode() & 0o7777, about.len()), (1, 0, 0o644, 9));
        assert_eq!(std::fs::read_dir(self.folder.path()).unwrap().count(), 1);
        assert!(!is_opaque(self.folder.path()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kind_of_entry_goes_through_a_link_to_the_outside() {
    let (place, outside) = (place().await, Outside::new());
    let nothing = "a part of it is a file or a link to nothing";
    for way in &outside.ways {
        let link = || symlink("l", way);
        let cases = vec![
            (vec![link(), file("l/x", "evil")], nothing),
            (vec![link(), folder("l/x")], nothing),
            (vec![link(), symlink("l/x", "y")], nothing),
            (vec![link(), device(b'3', "l/x", (1, 3))], nothing),
            (vec![link(), file("l/.wh.victim", "")], nothing),
            (vec![link(), file("l/.wh..wh..opq", "")], nothing),
            (vec![link(), file("real", ""), hard_link("l/x", "real")], nothing),
            (vec![link(), hard_link("x", "l/victim")], "does not stand before it in the layer"),
            // A link to a link, and a link in a folder that is reached through one.
            (vec![link(), symlink("m", "l"), file("m/x", "evil")], nothing),
            (vec![folder("d"), symlink("m", "d"), symlink("m/l", way), file("d/l/x", "evil")], nothing),
            // The same by a hard link to the link, which is the link.
            (vec![link(), hard_link("h", "l"), file("h/x", "evil")], nothing),
        ];
        refused(&place, cases).await;
        outside.is_untouched();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_replaced_and_not_followed_by_an_entry_of_its_own_name() {
    let (place, outside) = (place().await, Outside::new());
    for way in &outside.ways {
        for last in [file("l", "mine").mode(0o4755), folder("l").mode(0o700), symlink("l", "other"), file(".wh.l", "")]
        {
            let victim = format!("{way}/victim");
            let layers = unpacked(&place, &[tar_with(&[symlink("l", victim), last])]).await.unwrap();
            assert!(layers[0].join("l").symlink_metadata().is_ok());
            outside.is_untouched();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_a_later_layer_makes_a_link_leads_nowhere_else() {
    let (place, outside) = (place().await, Outside::new());
    let [way, climbing] = &outside.ways;
    let lower = tar_with(&[folder("d"), file("d/f", "lower")]);
    let link = tar_with(&[symlink("d", way)]);
    // Through the link of the layer below, this layer knows only a folder that it makes for itself.
    let above = tar_with(&[file("d/evil", "kept in"), file("d/.wh.victim", ""), file("d/.wh..wh..opq", "")]);
    let layers = unpacked(&place, &[lower, link, above]).await.unwrap();
    assert_eq!(std::fs::read_to_string(layers[0].join("d/f")).unwrap(), "lower");
    assert_eq!(std::fs::read_link(layers[1].join("d")).unwrap(), Path::new(way));
    assert!(layers[2].join("d").symlink_metadata().unwrap().is_dir() && is_opaque(&layers[2].join("d")));
    assert!(marks_a_deletion(&layers[2].join("d/victim")));
    // Within one layer: first a folder with something in it, then a link in its place, then more.
    let turned = |way: &str| tar_with(&[folder("d"), file("d/f", "x"), symlink("d", way), file("d/evil", "evil")]);
    for way in [way, climbing] {
        let error = unpacked(&place, &[turned(way)]).await.unwrap_err().to_string();
        assert!(error.contains("a link to nothing"), "{error}");
    }
    outside.is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_proc_lead_nowhere() {
    let place = place().await;
    for way in ["/proc/self/root", "/proc/self/cwd", "/proc/1/root/etc", "/proc/self/fd/3", "../../proc/self/root"] {
        let case = vec![symlink("l", way), file("l/bireme-hostile", "evil")];
        refused(&place, vec![(case, "a part of it is a file or a link to nothing")]).await;
    }
    assert!(!Path::new("/bireme-hostile").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn deletions_through_links_stay_inside() {
    let place = place().await;
    let layers = unpacked(
        &place,
        &[tar_with(&[folder("real"), symlink("l", "/real"), file("l/.wh.gone", ""), file("l/.wh..wh..opq", "")])],
    )
    .await
    .unwrap();
    assert!(marks_a_deletion(&layers[0].join("real/gone")));
    assert!(is_opaque(&layers[0].join("real")) && !is_opaque(&layers[0]));
    assert_eq!(std::fs::read_link(layers[0].join("l")).unwrap(), Path::new("/real"));
}

#[tokio::test(flavor = "multi_thread")]
async fn whiteouts_that_name_nothing_are_refused() {
    let place = place().await;
    let nothing = "it deletes nothing that can be named";
    refused(
        &place,
        vec![
            (vec![file(".wh.", "")], nothing),
            (vec![file(".wh..", "")], nothing),
            (vec![file(".wh...", "")], nothing),
            (vec![folder("d"), file("d/.wh..", "")], nothing),
            (vec![folder("d"), file("d/.wh...", "")], nothing),
            (vec![folder(".wh..")], nothing),
            (vec![symlink(".wh...", "/")], nothing),
            (vec![file("../.wh.x", "")], "it leads out by"),
            (vec![file(".wh.x/y", "")], "a part of it is the mark of a deletion"),
            (vec![folder("a/.wh.x/b")], "a part of it is the mark of a deletion"),
        ],
    )
    .await;
}

/// By the name alone, whatever it is, as for Docker.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_called_a_whiteout_is_one() {
    let place = place().await;
    let mut all = vec![file(".wh.file", "content"), folder(".wh.folder"), symlink(".wh.link", "/etc/passwd")];
    all.extend([file("f", ""), hard_link(".wh.hard", "f"), device(b'3', ".wh.device", (1, 3)), file(".wh.-", "")]);
    all.extend([file(".whx", "no"), file("a.wh.b", "no"), file(".wh", "no"), file(".WH.x", "no")]);
    let layers = unpacked(&place, &[tar_with(&all)]).await.unwrap();
    for name in ["file", "folder", "link", "hard", "device", "-"] {
        assert!(marks_a_deletion(&layers[0].join(name)), "{name}");
        assert!(!exists(&layers[0].join(format!(".wh.{name}"))), "{name}");
    }
    for name in [".whx", "a.wh.b", ".wh", ".WH.x"] {
        assert_eq!(std::fs::read_to_string(layers[0].join(name)).unwrap(), "no");
    }
}

/// Old images have them: AUFS kept its books there. Source: moby, `pkg/archive/diff.go`.
#[tokio::test(flavor = "multi_thread")]
async fn notes_of_aufs_are_nothing() {
    let place = place().await;
    let members = [
        folder(".wh..wh.plnk"),
        file(".wh..wh.plnk/12.34", "of a link"),
        file(".wh..wh.aufs", ""),
        folder(".wh..wh.orph"),
        file("d/.wh..wh.plnk/x", ""),
        file("kept", "content"),
    ];
    let layers = unpacked(&place, &[tar_with(&members)]).await.unwrap();
    let names: Vec<_> = std::fs::read_dir(&layers[0]).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["kept"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_is_neither_deleted_nor_replaced() {
    let place = place().await;
    for name in ["", "/", ".", "./", "..", "a/.."] {
        let words = if name == ".." { "it leads out by" } else { "it names the root itself" };
        for member in [file(name, "x"), symlink(name, "/etc"), hard_link(name, "f"), device(b'3', name, (1, 3))] {
            refused(&place, vec![(vec![file("f", ""), member], words)]).await;
        }
    }
    refused(&place, vec![(vec![hard_link("a", "/")], "it is a hard link to the root")]).await;
    // Its rights may be said, and hiding all that is below is for a layer to do.
    let root = [folder("./").mode(0o711), file(".wh..wh..opq", "")];
    let layers = unpacked(&place, &[tar_with(&[file("a", "")]), tar_with(&root)]).await.unwrap();
    assert_eq!(layers[1].metadata().unwrap().mode() & 0o7777, 0o711);
    assert!(is_opaque(&layers[1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_dockers_and_none_is_a_whiteout() {
    let place = place().await;
    let whiteout = "the device 0/0 is overlayfs's mark of a deletion";
    refused(&place, vec![(vec![device(b'3', "etc/shadow", (0, 0))], whiteout)]).await;
    let members =
        [device(b'3', "null", (1, 3)).mode(0o666), device(b'4', "disk", (8, 0)), device(b'4', "zero", (0, 0))];
    let layers = unpacked(&place, &[tar_with(&members)]).await.unwrap();
    let about = |name: &str| layers[0].join(name).symlink_metadata().unwrap();
    assert_eq!((about("null").rdev(), about("null").mode() & 0o7777), (rustix::fs::makedev(1, 3), 0o666));
    assert!(about("disk").file_type().is_block_device() && about("zero").file_type().is_block_device());
    assert_eq!(place.folder.path().join("layers").metadata().unwrap().mode() & 0o077, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_and_capabilities_are_kept() {
    let place = place().await;
    // VFS_CAP_REVISION_2 with CAP_NET_RAW effective. Source: linux/capability.h.
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend([0x2000_u32, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    let owned = |member: Member| Member { owner: (1000, 2000), ..member };
    let ping = owned(file("ping", "program").mode(0o6755)).record("SCHILY.xattr.security.capability", &capability);
    let members = [
        ping,
        hard_link("same", "ping"),
        owned(folder("tmp").mode(0o1777)),
        owned(folder("setgid").mode(0o2775)),
        // Bits that are none of a mode.
        file("odd", "").mode(0o177_4755),
    ];
    let layers = unpacked(&place, &[tar_with(&members)]).await.unwrap();
    let about = |name: &str| layers[0].join(name).symlink_metadata().unwrap();
    let told = |name: &str| (about(name).mode() & 0o7777, about(name).uid(), about(name).gid());
    assert_eq!(told("ping"), (0o6755, 1000, 2000));
    assert_eq!(told("tmp"), (0o1777, 1000, 2000));
    assert_eq!(told("setgid"), (0o2775, 1000, 2000));
    assert_eq!(told("odd"), (0o4755, 0, 0));
    assert_eq!(attribute(&layers[0].join("same"), "security.capability").unwrap(), capability);
    // One that the kernel does not take is the layer's fault.
    let broken = file("x", "").record("SCHILY.xattr.security.capability", "no capability");
    let error = unpacked(&place, &[tar_with(&[broken])]).await.unwrap_err();
    assert!(error.to_string().contains("cannot set an attribute of it"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// Records of extended headers have lengths; a byte of a value that looks like a line break ends none of them.
#[tokio::test(flavor = "multi_thread")]
async fn capabilities_may_have_any_bytes() {
    let place = place().await;
    // CAP_DAC_OVERRIDE and CAP_FOWNER: bits 1 and 3, which make the byte of a line break.
    let mut capability = 0x0200_0001_u32.to_le_bytes().to_vec();
    capability.extend([0x0a_u32, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()));
    let member = file("program", "x").record("SCHILY.xattr.security.capability", &capability).record("size", "1");
    let commented = file("other", "y").record("comment", "two\nlines\n").record("path", "d/a\nb");
    let link = symlink("l", "x").record("linkpath", "to\nlines");
    let layers = unpacked(&place, &[tar_with(&[member, commented, link])]).await.unwrap();
    assert_eq!(attribute(&layers[0].join("program"), "security.capability").unwrap(), capability);
    assert_eq!(std::fs::read_to_string(layers[0].join("d/a\nb")).unwrap(), "y");
    assert_eq!(std::fs::read_link(layers[0].join("l")).unwrap(), Path::new("to\nlines"));
}

/// GNU's old headers keep further times where others have the start of the name.
#[tokio::test(flavor = "multi_thread")]
async fn times_of_gnu_are_no_part_of_a_name() {
    let place = place().await;
    let mut tar = tar_with(&[file("file", "x")]);
    tar[345..357].copy_from_slice(b"13727410000\0");
    let mut header = tar::Header::from_byte_slice(&tar[..512]).clone();
    header.set_cksum();
    tar[..512].copy_from_slice(header.as_bytes());
    let layers = unpacked(&place, &[tar]).await.unwrap();
    assert_eq!(std::fs::read_to_string(layers[0].join("file")).unwrap(), "x");
}

#[tokio::test(flavor = "multi_thread")]
async fn attributes_that_would_mean_something_to_the_machine_are_dropped() {
    let place = place().await;
    let taken = ["user.mime", "user.a"];
    let dropped = [
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.opaque",
        "trusted.overlay.origin",
        "trusted.anything",
        "user.overlay.redirect",
        "user.overlay.whiteout",
        "security.selinux",
        "security.ima",
        "system.posix_acl_access",
        "",
        "user",
        "nonsense",
    ];
    let with_all = |mut member: Member| {
        for name in taken.iter().chain(&dropped) {
            member = member.record(format!("SCHILY.xattr.{name}"), "y");
        }
        member
    };
    let members = [with_all(file("file", "x")), with_all(folder("folder")), with_all(symlink("link", "file"))];
    let layers = unpacked(&place, &[tar_with(&members)]).await.unwrap();
    for name in ["file", "folder", "link"] {
        let path = layers[0].join(name);
        let mut names = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut names[..]).unwrap();
        let mut names: Vec<_> = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        // The kernel has no attributes of the user on links.
        let expected: &[&[u8]] = if name == "link" { &[] } else { &[b"user.a", b"user.mime"] };
        assert_eq!(names, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_bytes() {
    let place = place().await;
    let names: [&[u8]; 9] = [
        b"\xff\xfe invalid",
        "e\u{301}".as_bytes(),
        "\u{e9}".as_bytes(),
        "\u{202e}gpj.exe".as_bytes(),
        "new\nline".as_bytes(),
        "\u{1b}[31mred".as_bytes(),
        b"back\\slash",
        b" ",
        b"C:",
    ];
    let members: Vec<Member> = names.iter().map(|name| file(name, name)).collect();
    let by_records: Vec<Member> =
        names.iter().map(|name| file("short", name).record("path", [b"d/", *name].concat())).collect();
    let layers = unpacked(&place, &[tar_with(&members), tar_with(&by_records)]).await.unwrap();
    for name in names {
        assert_eq!(std::fs::read(layers[0].join(OsStr::from_bytes(name))).unwrap(), name);
        assert_eq!(std::fs::read(layers[1].join("d").join(OsStr::from_bytes(name))).unwrap(), name);
    }
    assert_eq!(std::fs::read_dir(&layers[0]).unwrap().count(), names.len(), "each is another file");
    // What is told of them harms no terminal: a sentence has no control characters.
    let error = unpacked(&place, &[tar_with(&[file("../\u{1b}[31m\n", "")])]).await.unwrap_err().to_string();
    assert!(!error.contains(|letter: char| letter.is_control()), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_as_long_as_the_kernel_takes_them() {
    let place = place().await;
    let longest = "n".repeat(255);
    // 4,096 bytes with the zero at its end.
    let deep = format!("{}{}", "d".repeat(199), format!("/{}", "e".repeat(199)).repeat(19));
    let layers = unpacked(
        &place,
        &[tar_with(&[file(&longest, "x"), file(&deep, "deep"), symlink("l", "t".repeat(4095)), hard_link("h", &deep)])],
    )
    .await
    .unwrap();
    assert!(layers[0].join(&longest).exists());
    assert_eq!(std::fs::read_to_string(layers[0].join("h")).unwrap(), "deep");
    let place = common::place().await;
    refused(
        &place,
        vec![
            (vec![file("n".repeat(256), "x")], "longer than 255 bytes"),
            (vec![folder(format!("{}/x", "n".repeat(256)))], "longer than 255 bytes"),
            (vec![file("é".repeat(128), "x")], "longer than 255 bytes"),
            (vec![file(format!("{deep}/{}", "f/".repeat(200)), "x")], "File name too long"),
            (vec![symlink("l", "t".repeat(4096))], "File name too long"),
            (vec![hard_link("l", "t/".repeat(3000))], "File name too long"),
            (vec![file("short", "").record("path", "a\0b")], "it contains a zero byte"),
            (vec![file("short", "").record("path", "../x")], "it leads out by"),
            (vec![symlink("short", "a").record("linkpath", "a\0b")], "a symbolic link without a target"),
            (vec![hard_link("short", "a").record("linkpath", "../../etc/passwd")], "it leads out by"),
        ],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_many_times_is_the_last_of_them() {
    let (place, outside) = (place().await, Outside::new());
    let [way, _] = &outside.ways;
    let layers = unpacked(
        &place,
        &[tar_with(&[
            file("a", "first"),
            hard_link("kept", "a"),
            symlink("a", format!("{way}/victim")),
            file("./a", "third"),
            folder("a/"),
            file("a/b", "in it"),
            device(b'3', "a", (1, 3)),
            file("x/../a", "last"),
        ])],
    )
    .await
    .unwrap();
    assert_eq!(std::fs::read_to_string(layers[0].join("a")).unwrap(), "last");
    assert_eq!(std::fs::read_to_string(layers[0].join("kept")).unwrap(), "first");
    outside.is_untouched();
}

#[tokio::test(flavor = "multi_thread")]
async fn hard_links_are_to_what_the_layer_has() {
    let place = place().await;
    let absent = "does not stand before it in the layer";
    refused(
        &place,
        vec![
            (vec![hard_link("a", "a")], absent),
            (vec![hard_link("a", "later"), file("later", "")], absent),
            (vec![file("a", ""), hard_link("a", "a")], absent),
            (vec![folder("d"), hard_link("h", "d")], "a hard link to something that can have none"),
            (vec![hard_link("a", "")], "it is a hard link to the root"),
        ],
    )
    .await;
    // Of a link, it is that link; of a deleted name, another deleted name.
    let members = [symlink("l", "/etc/shadow"), hard_link("h", "l"), file(".wh.gone", ""), hard_link("also", "gone")];
    let layers = unpacked(&place, &[tar_with(&members)]).await.unwrap();
    assert_eq!(std::fs::read_link(layers[0].join("h")).unwrap(), Path::new("/etc/shadow"));
    assert!(marks_a_deletion(&layers[0].join("also")));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_no_numbers_are_refused_or_dockers() {
    let place = place().await;
    refused(
        &place,
        vec![
            (vec![file("a", "").record("uid", "4294967295")], "is not a user or group ID of Linux"),
            (vec![file("a", "").record("gid", "18446744073709551615")], "is not a user or group ID of Linux"),
            (vec![Member { owner: (u64::from(u32::MAX), 0), ..file("a", "") }], "is not a user or group ID of Linux"),
        ],
    )
    .await;
    // Times at the ends of what can be written, and beyond.
    for time in [
        "-9223372036854775808.5",
        "-9223372036854775808",
        "9223372036854775807.999999999",
        "-0.5",
        "-1.5",
        "1.-5",
        "1.+5",
        "99999999999999999999",
        "nan",
        "",
        ".",
        "1.",
    ] {
        let layers = unpacked(&place, &[tar_with(&[file("a", time).record("mtime", time)])]).await;
        let layers = layers.unwrap_or_else(|error| panic!("{time}: {error}"));
        let about = layers[0].join("a").metadata().unwrap();
        match time {
            "-0.5" => assert_eq!((about.mtime(), about.mtime_nsec()), (-1, 500_000_000)),
            "-1.5" => assert_eq!((about.mtime(), about.mtime_nsec()), (-2, 500_000_000)),
            "1." => assert_eq!((about.mtime(), about.mtime_nsec()), (1, 0)),
            _ => {}
        }
    }
}

/// A tree of folders as deep as is taken is also replaced and removed.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deep_is_replaced_and_removed() {
    let place = place().await;
    let deep = vec!["d"; 480].join("/");
    let tar = tar_with(&[folder(&deep), file("d", "in its place")]);
    let layers = unpacked(&place, &[tar]).await.unwrap();
    assert_eq!(std::fs::read_to_string(layers[0].join("d")).unwrap(), "in its place");
    let layers = unpacked(&place, &[tar_with(&[folder(&deep)])]).await.unwrap();
    assert!(layers[0].join(&deep).is_dir());
    let all: Vec<_> = place.store.list().await.unwrap().iter().map(|image| image.id.to_string()).collect();
    for id in all {
        place.store.remove(&id, true, &|_| None).await.unwrap();
    }
    place.settles_to(0, 0).await;
}
