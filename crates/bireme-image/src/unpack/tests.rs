use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use proptest::prelude::*;
use rustix::io::Errno;
use tar::EntryType;

use super::whiteout::OPAQUE;
use super::*;

/// One entry of a hostile archive: written byte for byte, without the checks of the tar writer.
#[derive(Clone, Debug)]
struct Raw {
    kind: u8,
    path: Vec<u8>,
    link: Vec<u8>,
    content: Vec<u8>,
    mode: u32,
}

fn raw(kind: u8, path: &str, link: &str, content: &str) -> Raw {
    let mode = if kind == b'5' { 0o755 } else { 0o644 };
    Raw { kind, path: path.into(), link: link.into(), content: content.into(), mode }
}

fn archive(entries: &[Raw]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        for (kind, long) in [(b'L', &entry.path), (b'K', &entry.link)] {
            if long.len() > 100 {
                block(&mut out, kind, b"././@LongLink", b"", &[long.as_slice(), b"\0"].concat(), 0);
            }
        }
        let cut = |bytes: &[u8]| bytes[..bytes.len().min(100)].to_vec();
        block(&mut out, entry.kind, &cut(&entry.path), &cut(&entry.link), &entry.content, entry.mode);
    }
    out.extend_from_slice(&[0; 1024]);
    out
}

fn block(out: &mut Vec<u8>, kind: u8, path: &[u8], link: &[u8], content: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    let old = header.as_old_mut();
    old.name[..path.len()].copy_from_slice(path);
    old.linkname[..link.len()].copy_from_slice(link);
    header.as_old_mut().linkflag = [kind];
    header.set_mode(mode);
    header.set_uid(1000);
    header.set_gid(1001);
    header.set_mtime(1_000_000_000);
    header.set_size(content.len() as u64);
    if matches!(kind, b'3' | b'4') {
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
    }
    header.set_cksum();
    out.extend_from_slice(header.as_bytes());
    out.extend_from_slice(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

const LAYER: Options<'static> =
    Options { name: "test", whiteouts: true, owners: true, max_bytes: 1 << 20, max_entries: 1000 };

fn run(entries: &[Raw]) -> (tempfile::TempDir, Result<Unpacked, ImageError>) {
    let folder = tempfile::tempdir().unwrap();
    let answer = unpack(archive(entries).as_slice(), &Wanted::default(), folder.path(), &LAYER);
    (folder, answer)
}

#[test]
fn keeps_what_files_are() {
    let mut suid = raw(b'0', "bin/su", "", "program");
    suid.mode = 0o4755;
    let (folder, answer) = run(&[
        raw(b'5', "bin/", "", ""),
        suid,
        raw(b'1', "bin/same", "bin/su", ""),
        raw(b'2', "sh", "/bin/su", ""),
        raw(b'3', "dev/null", "", ""),
        raw(b'6', "pipe", "", ""),
        raw(b'0', "./a/b/c", "", "deep"),
    ]);
    assert_eq!(answer.unwrap().bytes, 11);
    let at = |path: &str| folder.path().join(path).symlink_metadata().unwrap();
    assert_eq!((at("bin/su").mode() & 0o7777, at("bin/su").uid(), at("bin/su").gid()), (0o4755, 1000, 1001));
    assert_eq!(
        (at("bin/su").mtime(), at("bin").mtime(), at("sh").mtime()),
        (1_000_000_000, 1_000_000_000, 1_000_000_000)
    );
    assert_eq!(at("bin/su").ino(), at("bin/same").ino());
    assert_eq!(std::fs::read_link(folder.path().join("sh")).unwrap(), Path::new("/bin/su"));
    assert!(at("dev/null").file_type().is_char_device() && at("dev/null").rdev() == fs::makedev(1, 3));
    assert!(at("pipe").file_type().is_fifo());
    assert_eq!((at("a/b").mode() & 0o7777, at("a/b").uid()), (0o755, 0));
}

#[test]
fn modes_and_owners_are_as_said_whatever_is_inherited() {
    let files = [
        ("group/", EntryType::Directory, 0o2775, 1001),
        ("group/file", EntryType::Regular, 0o664, 0),
        ("group/folder/", EntryType::Directory, 0o777, 0),
        ("group/theirs", EntryType::Regular, 0o640, 1002),
        ("closed", EntryType::Regular, 0, 0),
        ("set", EntryType::Regular, 0o6755, 0),
        ("folder/", EntryType::Directory, 0, 0),
    ];
    let mut tar = tar::Builder::new(Vec::new());
    for (path, kind, mode, gid) in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(gid);
        header.set_size(0);
        tar.append_data(&mut header, path, std::io::empty()).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let answer = unpack(tar.into_inner().unwrap().as_slice(), &Wanted::default(), folder.path(), &LAYER);
    rustix::process::umask(before);
    answer.unwrap();
    for (path, _, mode, gid) in files {
        let found = folder.path().join(path).metadata().unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid(), u64::from(found.gid())), (mode, 0, gid), "{path}");
    }
}

#[test]
fn deletions_become_overlayfs_marks() {
    let (folder, answer) = run(&[
        raw(b'0', "etc/.wh.gone", "", ""),
        raw(b'0', "var/.wh..wh..opq", "", ""),
        raw(b'0', "var/new", "", "x"),
        raw(b'0', ".wh..wh.plnk", "", ""),
        // Deleted below and made anew here, in both orders.
        raw(b'0', ".wh.one", "", ""),
        raw(b'5', "one/", "", ""),
        raw(b'5', "two/", "", ""),
        raw(b'0', ".wh.two", "", ""),
        raw(b'0', ".wh.three", "", ""),
        raw(b'0', "three/deep/file", "", ""),
        raw(b'0', ".wh.four", "", ""),
        raw(b'0', "four", "", "again"),
    ]);
    answer.unwrap();
    let gone = folder.path().join("etc/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert!(!folder.path().join(".wh..wh.plnk").exists());
    let opaque = |path: &str| {
        let mut value = [0; 4];
        fs::getxattr(folder.path().join(path), OPAQUE, &mut value[..]) == Ok(1) && value[0] == b'y'
    };
    assert!(opaque("var") && opaque("one") && opaque("two") && opaque("three") && !opaque("etc"));
    assert_eq!(std::fs::read_to_string(folder.path().join("four")).unwrap(), "again");
}

#[test]
fn links_lead_nowhere_but_inside() {
    let (folder, answer) = run(&[
        raw(b'2', "out", "../../../../../../tmp", ""),
        raw(b'2', "abs", "/inside", ""),
        raw(b'5', "inside/", "", ""),
        raw(b'0', "abs/file", "", "kept in"),
    ]);
    answer.unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("inside/file")).unwrap(), "kept in");
    for (entries, reason) in [
        (vec![raw(b'0', "../x", "", "")], "it leads out by \"..\""),
        (vec![raw(b'0', "a/../../x", "", "")], "it leads out by \"..\""),
        (vec![raw(b'2', "a", "/nowhere", ""), raw(b'0', "a/x", "", "")], "a link to nothing"),
        (vec![raw(b'0', "a", "", ""), raw(b'0', "a/x", "", "")], "a file or a link"),
        (vec![raw(b'1', "a", "../../etc/passwd", "")], "hard link"),
        (vec![raw(b'1', "a", "/etc/passwd", "")], "does not stand before it"),
        (vec![raw(b'2', "l", "/", ""), raw(b'1', "a", "l/etc/passwd", "")], "does not stand before it"),
        (vec![raw(b'2', "l", "l", ""), raw(b'0', "l/a", "", "")], "cannot open the folder of"),
        (vec![raw(b'0', ".wh...", "", "")], "deletes nothing"),
        (vec![raw(b'0', ".wh..", "", "")], "deletes nothing"),
        (vec![raw(b'2', "a", "", "")], "without a target"),
        (vec![raw(b'0', "/", "", "")], "the root itself"),
        (vec![raw(b'Z', "a", "", "")], "not known"),
        (vec![raw(b'0', &"n".repeat(256), "", "")], "longer than 255"),
    ] {
        let (_folder, answer) = run(&entries);
        let error = answer.unwrap_err().to_string();
        assert!(error.contains(reason), "{entries:?}: {error}");
    }
}

#[test]
fn names_mean_what_they_come_to() {
    let (folder, answer) =
        run(&[raw(b'0', "dir/../foo", "", "one"), raw(b'0', "/../bar", "", "two"), raw(b'1', "same", "a/../foo", "")]);
    answer.unwrap();
    for (name, content) in [("foo", "one"), ("bar", "two"), ("same", "one")] {
        assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), content);
    }
    assert!(!folder.path().join("dir").exists());
}

#[test]
fn folders_are_not_nested_without_end() {
    let deep = |count: usize| vec!["d"; count].join("/");
    let (_folder, answer) = run(&[raw(b'5', &deep(400), "", "")]);
    answer.unwrap();
    let (_folder, answer) = run(&[raw(b'5', &deep(600), "", "")]);
    assert!(answer.unwrap_err().to_string().contains("deeper than 512 folders"));
    // Each link stands for many.
    let (_folder, answer) = run(&[
        raw(b'5', &deep(300), "", ""),
        raw(b'2', "l", &deep(300), ""),
        raw(b'5', &format!("l/{}", deep(300)), "", ""),
        raw(b'2', "m", &format!("l/{}", deep(300)), ""),
        raw(b'5', "m/x", "", ""),
    ]);
    assert!(answer.unwrap_err().to_string().contains("deeper than 512 folders"));
}

/// A path makes a folder of each of its parts.
#[test]
fn folders_that_no_entry_names_are_counted() {
    let deep = |first: usize| format!("{first}/{}/x", vec!["d"; 400].join("/"));
    let entries: Vec<Raw> = (0..3).map(|first| raw(b'0', &deep(first), "", "")).collect();
    let (_folder, answer) = run(&entries);
    assert!(matches!(answer, Err(ImageError::TooManyEntries { limit: 1000, .. })), "{answer:?}");
    // The same two again and again are few on the disk, and much to do.
    let turns: Vec<Raw> =
        (0..4).flat_map(|_| [raw(b'0', &deep(0), "", ""), raw(b'0', "0", "", ""), raw(b'5', "0", "", "")]).collect();
    let (_folder, answer) = run(&turns);
    assert!(matches!(answer, Err(ImageError::TooManyEntries { limit: 1000, .. })), "{answer:?}");
}

#[test]
fn folders_of_the_oldest_archives_end_in_a_slash() {
    let (folder, answer) = run(&[raw(0, "old/", "", ""), raw(0, "old/file", "", "x"), raw(b'0', "new", "", "")]);
    answer.unwrap();
    assert_eq!(std::fs::read_to_string(folder.path().join("old/file")).unwrap(), "x");
}

/// Zeros that an archive only tells of are neither written nor waited for.
#[test]
fn holes_take_no_space_and_end_with_whoever_waits() {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_path("sparse").unwrap();
    header.set_mode(0o644);
    header.set_size(0);
    let size = b"00010000000\0";
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize[..12].copy_from_slice(size);
    gnu.sparse[0].offset[..12].copy_from_slice(size);
    gnu.sparse[0].numbytes[..12].copy_from_slice(b"00000000000\0");
    header.set_cksum();
    let bytes = [header.as_bytes().as_slice(), &[0; 1024]].concat();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let options = Options { max_bytes: 1 << 30, ..LAYER };
    let unpacked = unpack(bytes.as_slice(), &Wanted::default(), folder.path(), &options).unwrap();
    let about = folder.path().join("sparse").metadata().unwrap();
    assert_eq!((unpacked.bytes, about.len(), about.blocks()), (2 << 20, 2 << 20, 0));
    let gone = Wanted::default();
    gone.give_up();
    unpack(bytes.as_slice(), &gone, folder.path(), &options).unwrap_err();
}

#[test]
fn an_absolute_name_is_inside() {
    let (folder, answer) = run(&[raw(b'0', "/etc/bireme-unpack-test", "", "x")]);
    answer.unwrap();
    assert!(folder.path().join("etc/bireme-unpack-test").is_file());
    assert!(!Path::new("/etc/bireme-unpack-test").exists());
}

#[test]
fn bombs_and_cut_off_archives_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let big = archive(&[raw(b'0', "big", "", &"x".repeat(100_000))]);
    let small = Options { max_bytes: 50_000, ..LAYER };
    assert!(matches!(unpack(big.as_slice(), &Wanted::default(), folder.path(), &small), Err(ImageError::Bomb { .. })));
    let many: Vec<Raw> = (0..20).map(|at| raw(b'0', &format!("{at}"), "", "")).collect();
    let few = Options { max_entries: 10, ..LAYER };
    assert!(matches!(
        unpack(archive(&many).as_slice(), &Wanted::default(), folder.path(), &few),
        Err(ImageError::TooManyEntries { .. })
    ));
    let cut = &big[..50_000];
    assert!(matches!(unpack(cut, &Wanted::default(), folder.path(), &LAYER), Err(ImageError::BadLayer { .. })));
    let noise = vec![0x5a; 2000];
    assert!(matches!(
        unpack(noise.as_slice(), &Wanted::default(), folder.path(), &LAYER),
        Err(ImageError::BadLayer { .. })
    ));
}

#[test]
fn attributes_of_overlayfs_are_dropped() {
    let mut tar = tar::Builder::new(Vec::new());
    let pairs: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.user.colour", b"blue"),
        ("mtime", b"1234567890.5"),
    ];
    tar.append_pax_extensions(pairs).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(0);
    header.set_mode(0o600);
    header.set_uid(0);
    header.set_gid(0);
    tar.append_data(&mut header, "file", io::empty()).unwrap();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    unpack(tar.into_inner().unwrap().as_slice(), &Wanted::default(), folder.path(), &LAYER).unwrap();
    let file = folder.path().join("file");
    let mut value = [0; 16];
    assert_eq!(fs::getxattr(&file, "trusted.overlay.redirect", &mut value[..]), Err(Errno::NODATA));
    assert_eq!(fs::getxattr(&file, "user.colour", &mut value[..]), Ok(4));
    let meta = file.metadata().unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_234_567_890, 500_000_000));
}

fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned),
        1 => prop::sample::select(vec!["..", ".", "", ".wh.a", ".wh..wh..opq", ".wh..", "victim"]).prop_map(str::to_owned),
    ]
}

fn path() -> impl Strategy<Value = String> {
    (any::<bool>(), prop::collection::vec(part(), 1..4))
        .prop_map(|(absolute, parts)| format!("{}{}", if absolute { "/" } else { "" }, parts.join("/")))
}

fn target() -> impl Strategy<Value = String> {
    let outside = vec!["..", "../victim", "../../victim", "/", "/victim", ".", "/proc/self/root", "/proc/self/cwd"];
    prop_oneof![path(), prop::sample::select(outside).prop_map(str::to_owned)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_written_outside(
        entries in prop::collection::vec(
            (prop::sample::select(b"00012255346".to_vec()), path(), target()), 1..12)
    ) {
        let entries: Vec<Raw> = entries.iter().map(|(kind, path, target)| {
            let content = if *kind == b'0' { "written" } else { "" };
            raw(*kind, path, if matches!(kind, b'1' | b'2') { target } else { "" }, content)
        }).collect();
        let outer = tempfile::tempdir().unwrap();
        let inner = outer.path().join("x/inner");
        std::fs::create_dir_all(&inner).unwrap();
        for victim in ["victim", "x/victim"] {
            std::fs::write(outer.path().join(victim), "untouched").unwrap();
        }
        let _ = unpack(archive(&entries).as_slice(), &Wanted::default(), &inner, &LAYER);
        let mut names: Vec<_> = ["", "x"].iter()
            .flat_map(|folder| std::fs::read_dir(outer.path().join(folder)).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        prop_assert_eq!(names, ["inner", "victim", "victim", "x"]);
        for victim in ["victim", "x/victim"] {
            let meta = outer.path().join(victim).symlink_metadata().unwrap();
            prop_assert_eq!((meta.nlink(), meta.uid(), meta.len()), (1, 0, 9));
        }
        prop_assert!(!Path::new("/victim").exists() && !Path::new("/a").exists());
    }
}
