//! `cp`, and archives that are written to files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bireme_testing::Engine;

use super::{bireme, engine, within};

/// Files, folders and links of every sort.
fn seed(base: &Path) {
    for folder in ["dir/sub", "empty", "full/dir", "clash/file"] {
        fs::create_dir_all(base.join(folder)).unwrap();
    }
    for (path, text) in [
        ("dir/a", "a"),
        ("dir/sub/b", "b"),
        ("file", "file"),
        ("full/file", "old"),
        ("full/dir/a", "olda"),
        ("clash/dir", "a file"),
    ] {
        fs::write(base.join(path), text).unwrap();
    }
    fs::hard_link(base.join("dir/a"), base.join("dir/hard")).unwrap();
    for (target, link) in
        [("a", "dir/la"), ("/nope", "dir/dangling"), ("file", "lfile"), ("dir", "ldir"), ("gone", "lgone")]
    {
        symlink(target, base.join(link)).unwrap();
    }
    fs::set_permissions(base.join("dir/sub"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(base.join("file"), fs::Permissions::from_mode(0o640)).unwrap();
}

/// Everything below a folder: path, kind, mode, names and content.
fn tree(folder: &Path, below: &str, out: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(folder.join(below)).unwrap().map(|entry| entry.unwrap()).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = if below.is_empty() {
            entry.file_name().into_string().unwrap()
        } else {
            format!("{below}/{}", entry.file_name().to_str().unwrap())
        };
        let found = entry.path().symlink_metadata().unwrap();
        if found.is_symlink() {
            out.push(format!("{path} -> {}", fs::read_link(entry.path()).unwrap().display()));
        } else if found.is_dir() {
            out.push(format!("{path}/ {:o}", found.mode() & 0o7777));
            tree(folder, &path, out);
        } else {
            let text = fs::read_to_string(entry.path()).unwrap();
            out.push(format!("{path} {:o} {} {text:?}", found.mode() & 0o7777, found.nlink()));
        }
    }
}

/// What a copy by `program` leaves behind: whether it succeeded, and the tree that it wrote into.
fn copied(engine: &Engine, program: &Path, at: usize, into: bool, args: &[&str]) -> (bool, Vec<String>) {
    let base = engine.folder().join(format!("cp-{at}-{}", program.file_name().unwrap().to_str().unwrap()));
    let (here, there, after) = (base.join("here"), base.join("there"), base.join("after"));
    for folder in [&here, &there, &after] {
        fs::create_dir_all(folder).unwrap();
    }
    seed(&here);
    seed(&there);
    let id = engine.docker(["create", "busybox", "true"]).stdout().trim().to_owned();
    let sent = format!("tar -C {} -c . | docker cp - {id}:/mnt", there.display());
    let sent = within(engine, &base, "sh", &["-c", &sent]);
    assert_eq!(sent.code, 0, "{sent}");
    let args: Vec<String> = args.iter().map(|arg| arg.replace("C:", &format!("{id}:/mnt/"))).collect();
    let mut line = vec!["cp"];
    line.extend(args.iter().map(String::as_str));
    let done = within(engine, &here, program, &line);
    let mut found = Vec::new();
    if into {
        let fetched = format!("docker cp {id}:/mnt - | tar -C {} -x", after.display());
        assert_eq!(within(engine, &base, "sh", &["-c", &fetched]).code, 0);
        tree(&after, "", &mut found);
    } else {
        tree(&here, "", &mut found);
    }
    engine.docker(["rm", "-f", &id]);
    (done.code == 0, found)
}

#[test]
fn cp_does_with_links_slashes_and_clashes_what_docker_does() {
    let cases: &[&[&str]] = &[
        // A folder never takes the place of a file.
        &["dir", "C:file"],
        &["dir/.", "C:file"],
        &["C:dir", "file"],
        &["dir", "C:clash"],
        &["C:dir", "clash"],
        &["file", "C:clash"],
        // New names, folders that are there, slashes.
        &["file", "C:full"],
        &["file", "C:full/file"],
        &["file", "C:empty/new"],
        &["file", "C:empty/new/"],
        &["dir", "C:empty/new/"],
        &["dir", "C:full"],
        &["dir/.", "C:full"],
        &["dir/", "C:empty"],
        &["C:dir", "full"],
        &["C:dir/", "empty/new/"],
        &["C:file", "empty/new/"],
        &["C:file", "full/file/"],
        &["C:file", "nowhere/x"],
        &["C:nope", "empty"],
        // Links as sources, followed or not.
        &["lfile", "C:empty"],
        &["ldir", "C:empty"],
        &["ldir/", "C:empty"],
        &["ldir/.", "C:empty"],
        &["-L", "lfile", "C:empty"],
        &["-L", "ldir", "C:empty"],
        &["C:lfile", "empty"],
        &["C:ldir", "empty"],
        &["-L", "C:lfile", "empty"],
        &["-L", "C:ldir", "empty/new"],
        // Links as targets.
        &["file", "C:lfile"],
        &["file", "C:lgone"],
        &["file", "C:ldir"],
        &["dir", "C:ldir/x"],
        &["C:file", "lgone"],
        &["C:file", "ldir"],
    ];
    let engine = engine();
    let (docker, bireme) = (PathBuf::from("docker"), bireme());
    let next = std::sync::atomic::AtomicUsize::new(0);
    let wrong = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some(case) = cases.get(at) else { break };
                    let into = case.last().unwrap().starts_with("C:");
                    let theirs = copied(&engine, &docker, at, into, case);
                    let ours = copied(&engine, &bireme, at, into, case);
                    if theirs != ours {
                        wrong.lock().unwrap().push(format!("{case:?}\n docker: {theirs:?}\n bireme: {ours:?}"));
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    engine.finish();
}

#[test]
fn copying_into_a_component_tells_the_engines_reason() {
    let engine = Engine::start();
    engine.build_guest("hello", "hello");
    engine.docker(["create", "--name", "part", "--platform", "wasi/wasm", "hello"]);
    let file = engine.folder().join("f");
    fs::write(&file, "x").unwrap();
    let copied = engine.bireme(["cp", file.to_str().unwrap(), "part:/f"]);
    assert_eq!(copied.code, 1, "{copied}");
    assert!(!copied.stderr().contains("501"), "{copied}");
    assert!(copied.stderr().contains("component"), "{copied}");
    engine.docker(["rm", "-f", "part"]);
    engine.finish();
}

/// Whoever is root would exchange /dev/null for a file, and write through what others have put into a folder that is
/// everybody's.
#[test]
fn archives_are_written_to_files_alone() {
    use std::os::unix::fs::FileTypeExt as _;
    let engine = engine();
    let folder = engine.folder().join("out");
    fs::create_dir(&folder).unwrap();
    let (pipe, link, file) = (folder.join("pipe"), folder.join("link"), folder.join("file"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    engine.docker(["create", "--name", "made", "busybox"]).stdout();
    for command in [["save", "busybox", "-o"], ["export", "made", "-o"]] {
        let to = |path: &Path| engine.bireme(command.iter().copied().chain([path.to_str().unwrap()]));
        to(&pipe).fails(1, "it is a named pipe");
        to(&link).fails(1, "it is a symbolic link");
        to(&folder).fails(1, "it is a folder");
        to(Path::new("/dev/null")).fails(1, "it is a device");
        assert_eq!(fs::read(&file).unwrap(), b"old");
        to(&file).stdout();
        let about = fs::metadata(&file).unwrap();
        assert!(about.len() > 1 << 20 && about.permissions().mode() & 0o777 == 0o600, "{about:?}");
        fs::write(&file, "old").unwrap();
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "nothing half written is left");
    engine.bireme(["cp", "made:/etc/passwd", pipe.to_str().unwrap()]).fails(1, "it is neither a file nor a folder");
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    engine.docker(["rm", "made"]).stdout();
    engine.finish();
}
