//! Files into archives and back, and what neither a container nor an archive may reach.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;

use bireme_image::Wanted;
use rustix::fs::{self, AtFlags, FileType, Mode};
use tar::EntryType;

use super::extract::*;
use super::pack::*;
use super::path::*;
use super::tree::*;
use super::*;

fn folder() -> (tempfile::TempDir, OwnedFd) {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(temp.path().join("root/etc")).unwrap();
    std::fs::create_dir(temp.path().join("outside")).unwrap();
    let root = fs::open(temp.path().join("root"), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    (temp, root)
}

fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if *kind == EntryType::Symlink {
            header.set_size(0);
            header.set_link_name(content).unwrap();
            header.set_cksum();
            builder.append(&header, io::empty()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn packed(parent: BorrowedFd<'_>, base: &OsStr, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut packer = Packer::new(&mut out);
    packer.append(parent, base, Path::new(name), 0).unwrap();
    packer.finish().unwrap();
    out
}

fn names_of(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_path_that_ends_as_a_folder_is_one_and_its_link_is_followed() {
    let (temp, root) = folder();
    std::fs::write(temp.path().join("root/etc/f"), "x").unwrap();
    symlink("etc", temp.path().join("root/link")).unwrap();
    let entries = |path: &str| {
        let (parent, base) = parent_of(&root, path)?;
        Ok::<_, io::Error>(names_of(&packed(parent.as_fd(), &base, &base_name(path))))
    };
    assert_eq!(entries("/link").unwrap(), ["link"]);
    assert_eq!(entries("/link/.").unwrap(), ["./", "./f"]);
    assert_eq!(entries("/link/").unwrap(), ["link/", "link/f"]);
    assert_eq!(entries("/etc/f/").unwrap_err().kind(), io::ErrorKind::NotADirectory);
    assert_eq!(entries("/etc/f/.").unwrap_err().kind(), io::ErrorKind::NotADirectory);
}

#[test]
fn links_are_followed_to_their_end_and_never_out() {
    let (temp, root) = folder();
    let at = |name: &str| temp.path().join("root").join(name);
    std::fs::create_dir(at("etc/deep")).unwrap();
    symlink("/etc/deep", at("way")).unwrap();
    symlink("../../../../b", at("etc/deep/a")).unwrap();
    symlink("etc/nothing", at("b")).unwrap();
    symlink("loop", at("loop")).unwrap();
    assert_eq!(follow(&root, Path::new("/way/a")).unwrap(), "/etc/nothing");
    assert_eq!(follow(&root, Path::new("/way/./x/../y")).unwrap(), "/etc/deep/y");
    assert!(follow(&root, Path::new("/loop")).is_err());
}

#[test]
fn hard_links_and_attributes_survive_the_way_out_and_in() {
    use std::os::unix::fs::MetadataExt as _;
    let (temp, root) = folder();
    let from = temp.path().join("root/etc");
    std::fs::write(from.join("one"), "x").unwrap();
    std::fs::hard_link(from.join("one"), from.join("two")).unwrap();
    fs::setxattr(from.join("one"), "user.colour", b"blue", fs::XattrFlags::empty()).unwrap();
    fs::setxattr(&from, "user.kind", b"folder", fs::XattrFlags::empty()).unwrap();
    // cap_net_raw, permitted, revision 2.
    let mut capability = [0_u8; 20];
    (capability[3], capability[5]) = (2, 0x20);
    fs::setxattr(from.join("one"), "security.capability", &capability, fs::XattrFlags::empty()).unwrap();
    let long = "n".repeat(120);
    std::fs::write(from.join(&long), "y").unwrap();
    let (parent, base) = parent_of(&root, "/etc").unwrap();
    let archive = packed(parent.as_fd(), &base, "copy");
    extract(&root, Path::new("/"), archive.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
    let to = temp.path().join("root/copy");
    let (one, two) = (std::fs::metadata(to.join("one")).unwrap(), std::fs::metadata(to.join("two")).unwrap());
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    let attribute = |path: &Path, name: &str| {
        let mut value = [0_u8; 64];
        let length = fs::getxattr(path, name, &mut value).unwrap();
        value[..length].to_vec()
    };
    assert_eq!(attribute(&to.join("two"), "user.colour"), b"blue");
    assert_eq!(attribute(&to, "user.kind"), b"folder");
    assert_eq!(attribute(&to.join("one"), "security.capability"), capability);
    assert_eq!(std::fs::read_to_string(to.join(&long)).unwrap(), "y");
    let (was, is) = (std::fs::metadata(&from).unwrap(), std::fs::metadata(&to).unwrap());
    assert_eq!(was.mtime(), is.mtime(), "a folder keeps its time");
}

#[test]
fn an_archive_cannot_plant_attributes_of_the_overlay() {
    let (temp, root) = folder();
    let mut builder = tar::Builder::new(Vec::new());
    let names = ["trusted.overlay.redirect", "user.overlay.opaque", "user.mine"];
    let named: Vec<String> = names.iter().map(|name| format!("SCHILY.xattr.{name}")).collect();
    builder.append_pax_extensions(named.iter().map(|name| (name.as_str(), b"y".as_slice()))).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    builder.append_data(&mut header, "planted/", io::empty()).unwrap();
    let archive = builder.into_inner().unwrap();
    extract(&root, Path::new("/"), archive.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
    let mut found = [0_u8; 200];
    let length = fs::listxattr(temp.path().join("root/planted"), &mut found).unwrap();
    let found = String::from_utf8_lossy(&found[..length]).into_owned();
    assert!(found.contains("user.mine") && !found.contains("overlay"), "{found:?}");
}

#[test]
fn kinds_are_replaced_unless_they_are_to_be_kept() {
    let (temp, root) = folder();
    std::fs::create_dir_all(temp.path().join("root/etc/d/deep")).unwrap();
    std::fs::write(temp.path().join("root/etc/d/deep/f"), "x").unwrap();
    std::fs::write(temp.path().join("root/etc/f"), "x").unwrap();
    let file = archive(&[("d", EntryType::Regular, "now a file")]);
    let tree = archive(&[("f", EntryType::Directory, "")]);
    let kept = Unpack { keep_kinds: true };
    for (tar, words) in [
        (&file, "cannot overwrite directory \"d\" with non-directory"),
        (&tree, "cannot overwrite non-directory \"f\" with directory"),
    ] {
        let refused = extract(&root, Path::new("/etc"), tar.as_slice(), kept, &Wanted::default()).unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
    extract(&root, Path::new("/etc"), file.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
    extract(&root, Path::new("/etc"), tree.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
    assert_eq!(std::fs::read_to_string(temp.path().join("root/etc/d")).unwrap(), "now a file");
    assert!(temp.path().join("root/etc/f").is_dir());
}

#[test]
fn a_folder_of_a_hundred_thousand_names_is_replaced_at_no_cost_in_memory() {
    let (temp, root) = folder();
    let full = temp.path().join("root/etc/d");
    std::fs::create_dir(&full).unwrap();
    let folder = fs::open(&full, OFlags::DIRECTORY | OFlags::RDONLY, Mode::empty()).unwrap();
    for number in 0..100_000 {
        fs::mknodat(&folder, format!("{number:0>250}"), FileType::Fifo, Mode::empty(), 0).unwrap();
    }
    let tar = archive(&[("d", EntryType::Regular, "now a file")]);
    let grown = crate::testing::peak(|| {
        extract(&root, Path::new("/etc"), tar.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
    });
    assert_eq!(std::fs::read_to_string(full).unwrap(), "now a file");
    assert!(grown < 8 << 20, "{} MiB", grown >> 20);
}

#[test]
fn names_of_files_with_several_are_remembered_up_to_a_bound() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("file");
    std::fs::write(&path, "").unwrap();
    let about = fs::stat(&path).unwrap();
    let mut linked = Linked::default();
    let long = PathBuf::from("d/".repeat(25_000));
    let mut numbered = |number: u64| {
        let mut stat = about;
        stat.st_ino = number;
        linked.before(&stat, &long).is_none() && linked.before(&stat, &long).is_some()
    };
    assert!(numbered(0));
    let kept = (1..10_000).filter(|number| numbered(*number)).count();
    assert!((100..1000).contains(&kept), "{kept}");
}

#[test]
fn what_is_mounted_is_never_emptied_by_a_replacement() {
    let (temp, root) = folder();
    let kept = temp.path().join("outside/kept");
    std::fs::write(&kept, "x").unwrap();
    std::fs::create_dir_all(temp.path().join("root/etc/d/volume")).unwrap();
    let at = temp.path().join("root/etc/d/volume");
    if rustix::mount::mount_bind(temp.path().join("outside"), &at).is_err() {
        // Not root: there is nothing to mount with.
        assert!(!rustix::process::geteuid().is_root());
        return;
    }
    let file = archive(&[("d", EntryType::Regular, "now a file")]);
    let refused = extract(&root, Path::new("/etc"), file.as_slice(), Unpack::default(), &Wanted::default());
    rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(refused.unwrap_err().to_string().contains("mounted there"));
    assert!(kept.exists());
}

#[test]
fn a_link_that_went_or_became_a_file_is_left_out() {
    let (temp, root) = folder();
    let etc = temp.path().join("root/etc");
    symlink("nowhere", etc.join("link")).unwrap();
    let parent = in_root(&root, "/etc", OFlags::DIRECTORY | OFlags::RDONLY).unwrap();
    let seen = fs::statat(&parent, "link", AtFlags::SYMLINK_NOFOLLOW).unwrap();
    let pack = || {
        let mut archive = tar::Builder::new(Vec::new());
        append_one(&mut archive, parent.as_fd(), OsStr::new("link"), Path::new("link"), &seen).unwrap();
        names_of(&archive.into_inner().unwrap())
    };
    assert_eq!(pack(), ["link"]);
    std::fs::remove_file(etc.join("link")).unwrap();
    assert_eq!(pack(), Vec::<String>::new(), "it went");
    std::fs::write(etc.join("link"), "x").unwrap();
    assert_eq!(pack(), Vec::<String>::new(), "it is a file now");
}

#[test]
fn a_device_that_took_a_files_place_is_not_opened() {
    let (temp, root) = folder();
    let path = temp.path().join("root/etc/f");
    std::fs::write(&path, "x").unwrap();
    let (parent, base) = parent_of(&root, "/etc/f").unwrap();
    let seen = fs::statat(&parent, &base, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    std::fs::remove_file(&path).unwrap();
    symlink(temp.path().join("outside"), &path).unwrap();
    let mut out = tar::Builder::new(Vec::new());
    append_one(&mut out, parent.as_fd(), &base, Path::new("f"), &seen).unwrap();
    assert!(names_of(&out.into_inner().unwrap()).is_empty());
}

#[test]
fn a_process_with_our_own_mounts_is_no_container() {
    assert_eq!(root_of_process(std::process::id()).unwrap_err().kind(), io::ErrorKind::NotFound);
}

#[test]
fn what_goes_in_comes_out_and_nothing_lands_outside() {
    let (temp, root) = folder();
    let tar = archive(&[("a/b.txt", EntryType::Regular, "hello"), ("a/link", EntryType::Symlink, "b.txt")]);
    extract(&root, Path::new("/etc"), tar.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
    assert_eq!(std::fs::read_to_string(temp.path().join("root/etc/a/link")).unwrap(), "hello");
    let (parent, base) = parent_of(&root, "/etc/a").unwrap();
    let out = packed(parent.as_fd(), &base, "a");
    assert_eq!(names_of(&out), ["a/", "a/b.txt", "a/link"]);

    let mut packed = std::process::Command::new("gzip")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    packed.stdin.take().unwrap().write_all(&archive(&[("zipped", EntryType::Regular, "small")])).unwrap();
    let packed = packed.wait_with_output().unwrap().stdout;
    extract(&root, Path::new("/"), packed.as_slice(), Unpack::default(), &Wanted::default()).unwrap();
    assert_eq!(std::fs::read_to_string(temp.path().join("root/zipped")).unwrap(), "small");

    let climbing = archive(&[("../../outside/x", EntryType::Regular, "no")]);
    assert_eq!(
        extract(&root, Path::new("/etc"), climbing.as_slice(), Unpack::default(), &Wanted::default())
            .unwrap_err()
            .kind(),
        io::ErrorKind::InvalidData
    );
    symlink(temp.path().join("outside"), temp.path().join("root/etc/way")).unwrap();
    let through = archive(&[("way/x", EntryType::Regular, "no")]);
    // The link's target is looked for inside the root, where it is not.
    assert!(extract(&root, Path::new("/etc"), through.as_slice(), Unpack::default(), &Wanted::default()).is_err());
    let planted = archive(&[("out", EntryType::Symlink, "../../outside"), ("out/x", EntryType::Regular, "no")]);
    let _ = extract(&root, Path::new("/etc"), planted.as_slice(), Unpack::default(), &Wanted::default());
    assert_eq!(std::fs::read_dir(temp.path().join("outside")).unwrap().count(), 0);
    let device = archive(&[("null", EntryType::Char, "")]);
    assert!(extract(&root, Path::new("/etc"), device.as_slice(), Unpack::default(), &Wanted::default()).is_err());
}
