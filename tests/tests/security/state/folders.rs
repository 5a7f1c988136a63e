//! The folders of an engine: closed to other accounts, of one engine alone, and nothing removed that is not its own.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bireme_testing::{Engine, eventually};

#[test]
fn a_volume_with_something_mounted_in_it_is_not_removed() {
    let engine = Engine::start();
    let host = engine.folder().join("of the host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("kept"), "x").unwrap();
    engine.docker(["volume", "create", "vv"]).stdout();
    let inside = engine.data_root().join("volumes/vv/_data/inside");
    std::fs::create_dir(&inside).unwrap();
    rustix::mount::mount_bind(&host, &inside).unwrap();
    let told = "something is mounted at";
    engine.docker(["volume", "rm", "vv"]).fails(1, told);
    engine.docker(["volume", "rm", "-f", "vv"]).fails(1, told);
    engine.docker(["volume", "prune", "-af"]).fails(1, told);
    assert!(host.join("kept").exists());
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "vv\n");
    rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::DETACH).unwrap();
    engine.docker(["volume", "rm", "vv"]).stdout();
    assert!(host.join("kept").exists());
    engine.finish();
}

#[test]
fn a_create_that_is_refused_takes_no_folder_that_was_there() {
    let engine = Engine::start();
    engine.load("busybox");
    let folder = engine.data_root().join("volumes/by-hand/_data");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("kept"), "x").unwrap();
    engine.docker(["volume", "create", "ours"]).stdout();
    let mounts = [
        "type=volume,src=by-hand,dst=/v",
        "type=volume,src=ours,dst=/o",
        "type=volume,src=new,dst=/n",
        "type=volume,src=bad,dst=/b,volume-driver=nope",
    ];
    let options = mounts.iter().flat_map(|mount| ["--mount", mount]);
    engine
        .docker(["run", "--pull", "never", "--name", "cc"].into_iter().chain(options).chain(["busybox", "true"]))
        .fails(125, "nope");
    assert!(folder.join("kept").exists());
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "by-hand\nours\n", "only what the create made is gone");
    assert_eq!(engine.docker(["run", "--rm", "-v", "by-hand:/v", "busybox", "ls", "/v"]).stdout(), "kept\n");
    engine.finish();
}

/// Everything below `folder` but what containers see of it, which has modes of its own.
fn stored(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        all.push(path.clone());
        let theirs = ["_data", "diff", "work", "layers", "etc", "kv"].iter().any(|name| entry.file_name() == *name);
        if !theirs && entry.file_type().unwrap().is_dir() {
            stored(&path, all);
        }
    }
}

#[test]
fn another_account_of_the_machine_reads_and_runs_nothing_that_is_stored() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("hello", "hello");
    let script = "cp /bin/busybox /v/sh; chmod 4755 /v/sh; echo x > /own; echo said; exec sleep 1000";
    engine
        .docker(["run", "-d", "--name", "cc", "-e", "SECRET=hunter2", "-v", "vv:/v", "busybox", "sh", "-c", script])
        .stdout();
    engine.docker(["run", "-d", "--name", "ww", "--platform", "wasi/wasm", "-p", "80", "hello"]).stdout();
    eventually("it is ready", || (engine.docker(["logs", "cc"]).stdout() == "said\n").then_some(()));
    let data = engine.data_root();
    // Up to the engine's own folders the way is open to all.
    std::fs::set_permissions(engine.folder(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let as_another = |path: &Path, program: &str| {
        let mut command = Command::new(program);
        command.arg(path).uid(65_533).gid(65_533).output().unwrap()
    };
    let look = |engine: &Engine| {
        let planted = data.join("volumes/vv/_data/sh");
        assert_eq!(std::fs::metadata(&planted).unwrap().mode() & 0o7777, 0o4755);
        for (program, path) in [
            ("ls", data.clone()),
            ("ls", data.join("volumes")),
            ("cat", data.join("engine.db")),
            ("cat", data.join("images/images.db")),
            ("stat", planted),
            ("ls", engine.exec_root().join("c")),
        ] {
            let tried = as_another(&path, program);
            assert!(!tried.status.success(), "{program} {}", path.display());
            assert!(
                String::from_utf8_lossy(&tried.stderr).contains("Permission denied"),
                "{program} {}",
                path.display()
            );
        }
        // The first fence apart, each file is closed by itself.
        let mut all = vec![data.clone(), data.join("wasm"), data.join("images")];
        stored(&data, &mut all);
        for path in all {
            let about = path.symlink_metadata().unwrap();
            // What lies in the folder of a workload is its runner's or host's to write, behind a folder that is closed.
            let within = |folder: &str, depth| {
                path.strip_prefix(data.join(folder)).is_ok_and(|rest| rest.components().count() > depth)
            };
            let seen = within("containers", 1) || within("wasm", 0) || path.ends_with("_data");
            let beyond = if within("containers", 0) { 0o007 } else { 0o077 };
            if !about.is_symlink() && !seen {
                assert_eq!(about.mode() & beyond, 0, "{} is open: {:o}", path.display(), about.mode());
            }
        }
    };
    look(&engine);
    // What an older version left open is mended.
    engine.crash();
    for path in ["", "volumes", "containers", "images", "images/blobs", "images/blobs/sha256", "wasm"] {
        std::fs::set_permissions(data.join(path), std::fs::Permissions::from_mode(0o711)).unwrap();
    }
    let blobs = data.join("images/blobs/sha256").read_dir().unwrap().flatten().map(|entry| entry.path());
    for path in blobs.chain(["engine.db", "engine.db-wal", "images/images.db"].map(|name| data.join(name))) {
        if path.exists() {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
        }
    }
    engine.come_back();
    look(&engine);
    engine.finish();
}

#[test]
fn an_exec_root_has_one_engine() {
    let engine = Engine::start();
    let other = engine.folder().join("other data");
    let socket = format!("unix://{}", engine.folder().join("other").display());
    let mut second = Command::new(bireme_testing::binaries().join("biremed"));
    second.arg("--data-root").arg(&other).arg("--exec-root").arg(engine.exec_root()).args(["-H", &socket]);
    let refused = second.output().unwrap();
    assert!(!refused.status.success());
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(told.contains("another engine (process") && told.contains("a --exec-root of its own"), "{told}");
    engine.finish();
}

#[test]
fn what_a_shell_left_open_does_not_go_on_to_runners() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).stdout();
    let holds = |pid: u32| {
        let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        fds.flat_map(|fd| std::fs::read_link(fd.path())).any(|target| target == secret.path())
    };
    assert!(holds(engine.pid()), "the engine was started with it");
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let started = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        name.starts_with("bireme-runner") || name.contains("bireme-wasm-host")
    });
    let started: Vec<u32> = started.collect();
    assert!(!started.is_empty());
    for pid in started {
        assert!(!holds(pid), "process {pid} has it");
    }
    engine.finish();
}

/// Where paths were remembered, an engine on a copy would write into the volumes and containers of the other, and one whose
/// folder was moved would find nothing.
#[test]
fn a_data_root_that_was_copied_or_moved_is_its_own() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let run = ["run", "--name", "cc", "-v", "vv:/d", "-v", "/anonymous", "busybox", "sh", "-c"];
    engine.docker(run.iter().chain(&["echo precious > /d/f; echo own > /own; echo said"])).stdout();
    engine.crash();
    let (here, copy) = (engine.data_root(), engine.folder().join("copy"));
    assert!(Command::new("cp").arg("-a").args([&here, &copy]).status().unwrap().success());
    let moved = engine.folder().join("moved");
    std::fs::rename(&here, &moved).unwrap();
    // The copy is called as the original was, which is still there.
    std::fs::rename(&copy, &here).unwrap();
    let other = Engine::on(&moved);
    let mountpoint = other.docker(["volume", "inspect", "-f", "{{.Mountpoint}}", "vv"]).stdout().trim().to_owned();
    assert_eq!(std::fs::canonicalize(&mountpoint).unwrap(), moved.join("volumes/vv/_data").canonicalize().unwrap());
    assert_eq!(other.docker(["logs", "cc"]).stdout(), "said\n");
    other.docker(["run", "--rm", "-v", "vv:/d", "busybox", "sh", "-c", "rm /d/*; echo gone > /d/f"]).stdout();
    other.docker(["start", "-a", "cc"]).stdout();
    other.docker(["cp", other.data_root().join("engine.db").to_str().unwrap(), "cc:/planted"]).stdout();
    assert_eq!(std::fs::read_to_string(here.join("volumes/vv/_data/f")).unwrap(), "precious\n");
    let planted = |root: &Path| {
        let containers = std::fs::read_dir(root.join("containers")).unwrap().flatten();
        containers.filter(|one| one.path().join("diff/planted").exists()).count()
    };
    assert_eq!((planted(&here), planted(&moved)), (0, 1));
    other.docker(["commit", "cc", "kept"]).stdout();
    other.docker(["rm", "-v", "cc"]).stdout();
    other.finish();
    engine.come_back();
    assert_eq!(engine.docker(["run", "--rm", "-v", "vv:/d", "busybox", "cat", "/d/f"]).stdout(), "precious\n");
    engine.docker(["rm", "-v", "cc"]).stdout();
    engine.finish();
}
