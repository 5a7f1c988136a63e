//! From an archive that goes into a container, and from a container that changes its files while they are copied.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use bireme_testing::Engine;

/// Starts a container that runs until it is removed.
fn running(engine: &Engine, name: &str, script: &str) {
    engine.docker(["run", "-d", "--name", name, "busybox", "sh", "-c", script]).stdout();
}

/// The most memory that a process has had since it was last asked, in kilobytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().split(' ').next().unwrap().parse().unwrap()
}

fn forget_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
}

fn gzipped(write: impl FnOnce(&mut std::process::ChildStdin) + Send + 'static) -> Vec<u8> {
    let mut gzip = Command::new("gzip").arg("-1").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = gzip.stdin.take().unwrap();
    let writer = std::thread::spawn(move || write(&mut input));
    let packed = gzip.wait_with_output().unwrap().stdout;
    writer.join().unwrap();
    packed
}

/// A header of the old tar format.
fn header(name: &str, kind: u8, size: u64) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar  \0");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

#[test]
fn a_name_or_headers_of_200_megabytes_in_a_copy_leave_the_daemons_memory_flat() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["create", "--name", "cc", "busybox"]).stdout();
    let pid = engine.pid();
    let size = 200_u64 << 20;
    for (kind, words) in [(b'L', "a name of 209715200 bytes"), (b'x', "extended headers of 209715200 bytes")] {
        let bomb = gzipped(move |out| {
            // Whoever refuses it need not read it to its end; gzip does.
            out.write_all(&header("././@LongLink", kind, size)).unwrap();
            let piece = vec![b'a'; 1 << 20];
            for _ in 0..200 {
                out.write_all(&piece).unwrap();
            }
            out.write_all(&header("x", b'0', 0)).unwrap();
        });
        assert!(bomb.len() < 2 << 20, "{} bytes", bomb.len());
        forget_peak(pid);
        let before = peak(pid);
        let answer = engine.request("PUT", "/containers/cc/archive?path=/", &bomb);
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
        let grown = peak(pid).saturating_sub(before);
        assert!(grown < 48 << 10, "{grown} kB more");
    }
    engine.finish();
}

/// CVE-2018-15664: a link that takes a folder's place between the look and the use.
#[test]
fn a_link_swapped_in_while_files_are_copied_leads_nowhere() {
    let engine = Engine::start();
    engine.load("busybox");
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "of the host").unwrap();
    let target = outside.path().display();
    // The path is one of the host; in the container it leads nowhere.
    running(
        &engine,
        "swap",
        &format!(
            "mkdir -p /w/d; echo own >/w/d/secret; ln -s {target} /w/l; cd /w; while :; do mv d t; mv l d; mv d l; mv t d; done"
        ),
    );
    let file = [header("planted", b'0', 1), {
        let mut block = vec![0; 512];
        block[0] = b'x';
        block
    }]
    .concat();
    let mut own = 0;
    for _ in 0..60 {
        let out = engine.request("GET", "/containers/swap/archive?path=/w/d/secret", &[]);
        assert!(!out.text().contains("of the host"), "{}", out.text());
        own += usize::from(out.text().contains("own\n"));
        let tree = engine.request("GET", "/containers/swap/archive?path=/w", &[]);
        assert!(!tree.text().contains("of the host"));
        engine.request("PUT", "/containers/swap/archive?path=/w/d", &file);
    }
    let left: Vec<_> = std::fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"], "nothing is written outside");
    assert!(own > 0, "the folder was never in its place: nothing was tried");
    engine.finish();
}

#[test]
fn a_folder_that_is_replaced_by_a_file_never_takes_a_volume_with_it() {
    let engine = Engine::start();
    engine.load("busybox");
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("kept"), "kept").unwrap();
    let bind = format!("{}:/w/d/volume", host.path().display());
    engine.docker(["run", "-d", "--name", "cc", "-v", &bind, "busybox", "sleep", "1000"]).stdout();
    let file = header("d", b'0', 0);
    let answer = engine.request("PUT", "/containers/cc/archive?path=/w", &file);
    assert_ne!(answer.status, 200, "{}", answer.text());
    assert_eq!(std::fs::read_to_string(host.path().join("kept")).unwrap(), "kept");
    engine.finish();
}

#[test]
fn links_and_folders_are_copied_as_docker_copies_them() {
    let engine = Engine::start();
    engine.load("busybox");
    running(&engine, "cc", "mkdir -p /x/dir; echo one >/x/dir/f; ln /x/dir/f /x/dir/g; ln -s dir /x/link; sleep 1000");
    bireme_testing::eventually("the files", || {
        (engine.request("HEAD", "/containers/cc/archive?path=/x/link", &[]).status == 200).then_some(())
    });
    let out = tempfile::tempdir().unwrap();
    let path = out.path().display();
    engine.docker(["cp", "cc:/x/link/.", &format!("{path}/contents")]).stdout();
    assert_eq!(std::fs::read_to_string(out.path().join("contents/f")).unwrap(), "one\n");
    engine.docker(["cp", "cc:/x/dir", &format!("{path}/tree")]).stdout();
    let file = |name: &str| std::fs::metadata(out.path().join("tree").join(name)).unwrap();
    assert_eq!((file("f").ino(), file("f").nlink()), (file("g").ino(), 2), "two names of one file");
    engine.docker(["cp", "-L", "cc:/x/link", &format!("{path}/followed")]).stdout();
    assert!(out.path().join("followed").is_dir());
    let refused = engine.request("GET", "/containers/cc/archive?path=/x/dir/f/", &[]);
    assert_eq!(refused.status, 404, "{}", refused.text());
    // The link count tells that an export has them, too.
    let export = out.path().join("export.tar");
    engine.docker(["export", "-o", export.to_str().unwrap(), "cc"]).stdout();
    let listed = Command::new("tar").args(["tvf", export.to_str().unwrap()]).output().unwrap().stdout;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    assert!(listed.contains("x/dir/g link to x/dir/f") || listed.contains("x/dir/f link to x/dir/g"), "{listed}");
    engine.finish();
}

#[test]
fn an_archive_replaces_a_folder_by_a_file_only_where_it_may() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["create", "--name", "cc", "busybox"]).stdout();
    let folder = header("w/", b'5', 0);
    assert_eq!(engine.request("PUT", "/containers/cc/archive?path=/", &folder).status, 200);
    let file = header("w", b'0', 0);
    let refused = engine.request("PUT", "/containers/cc/archive?path=/&noOverwriteDirNonDir=1", &file);
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("cannot overwrite directory"), "{}", refused.text());
    assert_eq!(engine.request("PUT", "/containers/cc/archive?path=/", &file).status, 200);
    engine.docker(["create", "--read-only", "--name", "sealed", "busybox"]).stdout();
    let refused = engine.request("PUT", "/containers/sealed/archive?path=/", &file);
    assert!(refused.text().contains("container rootfs is marked read-only"), "{}", refused.text());
    engine.finish();
}

/// A copy to a container that does not run goes where the container will see it.
#[test]
fn a_copy_lands_in_what_a_volume_mounts() {
    let engine = Engine::start();
    engine.load("busybox");
    let (folder, file) = (engine.folder().join("outside"), engine.folder().join("file"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("old"), "old").unwrap();
    std::fs::write(&file, "new").unwrap();
    let device = format!("device={}", folder.display());
    let make = ["volume", "create", "--opt", "type=none", "--opt", "o=bind", "--opt", &device, "bound"];
    engine.docker(make).stdout();
    engine.docker(["create", "--name", "resting", "-v", "bound:/data", "busybox", "cat", "/data/file"]).stdout();
    engine.docker(["cp", file.to_str().unwrap(), "resting:/data/file"]).stdout();
    assert_eq!(std::fs::read_to_string(folder.join("file")).unwrap(), "new");
    let back = engine.folder().join("back");
    engine.docker(["cp", "resting:/data/old", back.to_str().unwrap()]).stdout();
    assert_eq!(std::fs::read_to_string(back).unwrap(), "old");
    assert_eq!(engine.docker(["start", "-a", "resting"]).stdout(), "new");

    engine
        .docker(["run", "--rm", "-v", "whole:/v", "busybox", "sh", "-c", "mkdir /v/part; echo no >/v/sibling"])
        .stdout();
    let mount = "type=volume,src=whole,dst=/data,volume-subpath=part";
    engine.docker(["create", "--name", "parted", "--mount", mount, "busybox", "cat", "/data/file"]).stdout();
    engine.docker(["cp", file.to_str().unwrap(), "parted:/data/file"]).stdout();
    assert_eq!(engine.docker(["start", "-a", "parted"]).stdout(), "new");
    let hidden = engine.docker(["cp", "parted:/data/sibling", "-"]);
    hidden.fails(1, "Could not find the file");
    engine.finish();
}

/// Names are bytes: one that is no text is committed as any other.
#[test]
fn a_name_that_is_no_text_is_committed_and_told() {
    let engine = Engine::start();
    engine.load("busybox");
    let script = "printf here > /tmp/$(printf '\\377name')";
    engine.docker(["run", "--name", "odd", "busybox", "sh", "-c", script]).stdout();
    assert!(engine.docker(["diff", "odd"]).stdout().contains("name"));
    engine.docker(["commit", "odd", "kept"]).stdout();
    assert_eq!(engine.docker(["run", "--rm", "kept", "sh", "-c", "cat /tmp/*name"]).stdout(), "here");
    engine.finish();
}

/// A copy mounts the file tree of a container that rests. Were that done while it starts, its own mount could not be
/// written to any more.
#[test]
fn copies_and_starts_do_not_meet() {
    let engine = Engine::start();
    engine.load("busybox");
    let script = "sleep 2; chmod 600 /etc/passwd && echo a >> /etc/group && echo fine";
    for number in 0..3 {
        let name = format!("early{number}");
        engine.docker(["create", "--name", &name, "busybox", "sh", "-c", script]).stdout();
        let look = format!("/containers/{name}/archive?path=/etc/passwd");
        std::thread::scope(|scope| {
            for write in [false, true] {
                let (engine, name, look) = (&engine, &name, &look);
                scope.spawn(move || {
                    for _ in 0..20 {
                        if write {
                            let mut copy = engine.command("docker", ["cp", "-", &format!("{name}:/tmp")]);
                            let mut copy = copy.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
                            let block = [header("x", b'0', 0), vec![0; 1024]].concat();
                            copy.stdin.take().unwrap().write_all(&block).unwrap();
                            assert!(copy.wait().unwrap().success());
                        } else {
                            assert_eq!(engine.request("HEAD", look, b"").status, 200);
                        }
                    }
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
            engine.docker(["start", &name]).stdout();
        });
        engine.docker(["wait", &name]).stdout();
        assert_eq!(engine.docker(["logs", &name]).stdout(), "fine\n");
    }

    // A start waits for a copy that goes on.
    engine.docker(["create", "--name", "late", "busybox", "cat", "/tmp/x"]).stdout();
    let mut copy = engine.command("docker", ["cp", "-", "late:/tmp"]);
    let mut copy = copy.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut input = copy.stdin.take().unwrap();
    input.write_all(&header("x", b'0', 6)).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    let start = engine.command("docker", ["start", "-a", "late"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}}", "late"]).stdout(), "created\n");
    let mut rest = vec![0; 512 + 1024];
    rest[..6].copy_from_slice(b"whole\n");
    input.write_all(&rest).unwrap();
    drop(input);
    assert!(copy.wait().unwrap().success());
    assert_eq!(start.wait_with_output().unwrap().stdout, b"whole\n");
    engine.docker(["rm", "-f", "early0", "early1", "early2", "late"]).stdout();
    engine.finish();
}

/// Where a path leads is known once all that would be mounted is there: a copy would land below a volume, and not be seen, or
/// lack what the volume has.
#[test]
fn copies_of_a_container_that_rests_see_its_volumes() {
    let engine = Engine::start();
    engine.load("busybox");
    let script = "echo in > /data/vol/in; echo host > /h/f; ln -s /data/vol /link";
    let host = engine.folder().join("host");
    std::fs::create_dir(&host).unwrap();
    let bind = format!("{}:/h", host.display());
    let run = ["run", "--name", "cc", "-v", "vv:/data/vol", "-v", &bind, "--read-only", "--tmpfs", "/tmp"];
    let failed = engine.docker(run.iter().chain(&["busybox", "sh", "-c", script]));
    // Its own tree is closed; so the link is made by another.
    failed.fails(1, "Read-only file system");
    engine.docker(["rm", "cc"]).stdout();
    let run = ["run", "--name", "cc", "-v", "vv:/data/vol", "-v", &bind];
    engine.docker(run.iter().chain(&["busybox", "sh", "-c", script])).stdout();
    let file = engine.folder().join("file");
    std::fs::write(&file, "copied").unwrap();
    let copy = |from: &str, to: &str| engine.docker(["cp", from, to]);
    copy(file.to_str().unwrap(), "cc:/link/by-link").stdout();
    copy(file.to_str().unwrap(), "cc:/h/by-path").stdout();
    let tree = engine.folder().join("tree");
    std::fs::create_dir_all(tree.join("vol")).unwrap();
    std::fs::write(tree.join("vol/by-tree"), "copied").unwrap();
    copy(&format!("{}/.", tree.display()), "cc:/data").stdout();
    let volume = engine.docker(["volume", "inspect", "-f", "{{.Mountpoint}}", "vv"]).stdout().trim().to_owned();
    for (folder, name) in [(volume.as_str(), "by-link"), (&volume, "by-tree"), (host.to_str().unwrap(), "by-path")] {
        assert_eq!(std::fs::read_to_string(format!("{folder}/{name}")).unwrap(), "copied", "{name}");
    }
    let out = engine.folder().join("out");
    copy("cc:/data", out.to_str().unwrap()).stdout();
    for name in ["in", "by-link", "by-tree"] {
        assert!(out.join("vol").join(name).exists(), "{name} is not in the copy");
    }
    assert!(copy("cc:/link/in", "-").raw_stdout().contains("in\n"));
    // Where the image has no such folder, and nothing was started yet.
    engine
        .docker(["create", "--name", "new", "-v", "fresh:/not/there", "busybox", "cat", "/not/there/by-tree"])
        .stdout();
    std::fs::create_dir_all(tree.join("not/there")).unwrap();
    std::fs::write(tree.join("not/there/by-tree"), "copied").unwrap();
    copy(&format!("{}/.", tree.display()), "new:/").stdout();
    assert_eq!(engine.docker(["start", "-a", "new"]).stdout(), "copied");
    engine.docker(["rm", "-v", "new"]).stdout();
    engine.docker(["start", "-a", "cc"]).stdout();
    let mounts = std::fs::read_to_string(format!("/proc/{}/mountinfo", engine.pid())).unwrap();
    assert!(!mounts.contains("volumes/vv"), "{mounts}");
    engine.docker(["rm", "-v", "cc"]).stdout();
    engine.finish();
}

/// A few bytes tell of terabytes of zeros: they take no space, and end with the client.
#[test]
fn holes_of_a_copy_take_no_space() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["create", "--name", "cc", "busybox"]).stdout();
    let mut sparse = header("sparse", b'S', 0);
    let size = |block: &mut [u8], bytes: u64| {
        // One stretch of no bytes, at the end.
        for (at, number) in [(386, bytes), (398, 0), (483, bytes)] {
            block[at..at + 12].copy_from_slice(format!("{number:011o} ").as_bytes());
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    };
    size(&mut sparse, 4 << 30);
    let archive = [sparse.as_slice(), &[0; 1024]].concat();
    let answer = engine.request("PUT", "/containers/cc/archive?path=/", &archive);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = engine.docker(["inspect", "-f", "{{.Id}}", "cc"]).stdout().trim().to_owned();
    let about = std::fs::metadata(engine.data_root().join("containers").join(id).join("diff/sparse")).unwrap();
    assert_eq!(about.len(), 4 << 30);
    assert!(about.blocks() < 1000, "{} blocks", about.blocks());
    // GNU tar's newer form, which Go reads.
    let folder = engine.folder().join("sparse");
    std::fs::create_dir(&folder).unwrap();
    let file = std::fs::File::create(folder.join("holes")).unwrap();
    file.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"here", 1 << 20).unwrap();
    let tar =
        Command::new("tar").args(["--sparse", "--format=posix", "-cf", "-", "-C"]).arg(&folder).arg("holes").output();
    let answer = engine.request("PUT", "/containers/cc/archive?path=/", &tar.unwrap().stdout);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let copied = engine.folder().join("copied");
    engine.docker(["cp", "cc:/holes", copied.to_str().unwrap()]).stdout();
    assert_eq!(std::fs::read(copied).unwrap(), std::fs::read(folder.join("holes")).unwrap());
    engine.docker(["rm", "cc"]).stdout();
    engine.finish();
}
