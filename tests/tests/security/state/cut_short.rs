//! Creates, starts and removals that were cut short, and what cannot be done for one thing and must not hold up others.

use std::path::Path;
use std::process::Command;

use bireme_testing::{Engine, eventually};

use super::lose;

#[test]
fn removals_that_were_cut_short_are_carried_out() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["volume", "create", "going"]).stdout();
    engine.docker(["volume", "create", "staying"]).stdout();
    let id = engine.docker(["create", "--name", "going", "busybox"]).stdout().trim().to_owned();
    engine.crash();
    let data = engine.data_root();
    for (folder, name) in [("volumes", "going"), ("containers", id.as_str())] {
        let folder = data.join(folder);
        std::fs::write(folder.join(name).join("file"), "x").unwrap();
        std::fs::rename(folder.join(name), folder.join(".removed").join(name)).unwrap();
    }
    engine.come_back();
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "staying\n");
    assert_eq!(engine.docker(["ps", "-aq"]).stdout(), "");
    for folder in ["volumes", "containers"] {
        assert!(data.join(folder).join(".removed").read_dir().unwrap().next().is_none());
    }
    engine.docker(["create", "--name", "going", "busybox"]).stdout();
    engine.finish();
}

fn copy_folder(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(done.success());
}

#[test]
fn a_start_that_an_engine_was_killed_over_runs_once_below_a_parent_of_its_own() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let parent = format!("/bmparent-{}", std::process::id());
    let args =
        ["create", "--name", "cc", "--cgroup-parent", &parent, "busybox", "sh", "-c", "echo up; exec sleep 1000"];
    let id = engine.docker(args).stdout().trim().to_owned();
    // As if the engine had been killed before it remembered the start: it knows what it knew before.
    engine.crash();
    let (data, old) = (engine.data_root(), engine.folder().join("old"));
    std::fs::create_dir(&old).unwrap();
    let saved = ["engine.db", "engine.db-wal", "records"];
    for name in saved {
        if data.join(name).exists() {
            copy_folder(&data.join(name), &old.join(name));
        }
    }
    engine.come_back();
    engine.docker(["start", "cc"]).stdout();
    let sleeping = || {
        let all = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter(|entry| std::fs::read_to_string(entry.path().join("cgroup")).is_ok_and(|text| text.contains(&id)));
        all.count()
    };
    eventually("it runs", || (engine.docker(["logs", "cc"]).stdout() == "up\n" && sleeping() == 1).then_some(()));
    engine.crash();
    lose(&data);
    std::fs::remove_dir_all(data.join("records")).unwrap();
    for name in saved {
        if old.join(name).exists() {
            copy_folder(&old.join(name), &data.join(name));
        }
    }
    engine.come_back();
    assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}}", "cc"]).stdout(), "created\n");
    eventually("the stranger is ended", || (sleeping() == 0).then_some(()));
    engine.docker(["start", "cc"]).stdout();
    assert_eq!(sleeping(), 1, "it runs once");
    engine.docker(["rm", "-f", "cc"]).stdout();
    engine.finish();
    for entry in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let _ = std::fs::remove_dir(entry.path().join(parent.trim_start_matches('/')));
    }
    let _ = std::fs::remove_dir(Path::new("/sys/fs/cgroup").join(parent.trim_start_matches('/')));
}

#[test]
fn nothing_goes_from_under_a_container_that_is_being_created() {
    let engine = Engine::start();
    engine.load("busybox");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let pruner = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                engine.request("POST", "/volumes/prune", &[]);
            }
        });
        for round in 0..25 {
            let name = format!("c{round}");
            let mounts = ["-v", "/a", "-v", "/b", "-v", "/c", "-v", "/d"];
            let all = [&["create", "--name", &name][..], &mounts, &["busybox"]].concat();
            engine.docker(all).stdout();
            let format = "{{range .Mounts}}{{.Name}} {{end}}";
            let names = engine.docker(["inspect", "-f", format, &name]).stdout().to_owned();
            for volume in names.split_whitespace() {
                let there = engine.data_root().join("volumes").join(volume).join("_data").is_dir();
                assert!(there, "round {round}: {volume} was pruned while its container was created");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        pruner.join().unwrap();
    });
    engine.finish();
}

#[test]
fn what_a_create_that_was_cut_short_made_for_itself_goes() {
    let mut engine = Engine::start();
    let made = |engine: &Engine| engine.docker(["volume", "create"]).stdout().trim().to_owned();
    let (own, others) = (made(&engine), made(&engine));
    engine.docker(["volume", "create", "named"]).stdout();
    engine.crash();
    let note = engine.data_root().join("creating").join("e".repeat(64));
    std::fs::write(&note, format!("{own}\nnamed\n../../escape\n")).unwrap();
    engine.come_back();
    let mut left = [others, "named".to_owned()];
    left.sort_unstable();
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout().lines().collect::<Vec<_>>(), left);
    assert!(!note.exists());
    engine.finish();
}

#[test]
fn one_volume_that_cannot_go_keeps_no_other() {
    let engine = Engine::start();
    let host = engine.folder().join("of the host");
    std::fs::create_dir(&host).unwrap();
    for name in ["aa", "bb", "cc"] {
        engine.docker(["volume", "create", name]).stdout();
    }
    let inside = engine.data_root().join("volumes/bb/_data/inside");
    std::fs::create_dir(&inside).unwrap();
    rustix::mount::mount_bind(&host, &inside).unwrap();
    engine.docker(["volume", "prune", "-af"]).fails(1, "2 volumes were removed, 1 stay: remove bb");
    assert_eq!(engine.docker(["volume", "ls", "-q"]).stdout(), "bb\n");
    rustix::mount::unmount(&inside, rustix::mount::UnmountFlags::DETACH).unwrap();
    engine.docker(["volume", "prune", "-af"]).stdout();
    engine.finish();
}

#[test]
fn a_network_that_cannot_be_made_costs_no_other() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let bridge = format!("bx{}", engine.instance());
    let peer = format!("by{}", engine.instance());
    let option = format!("com.docker.network.bridge.name={bridge}");
    engine.docker(["network", "create", "-o", &option, "taken"]).stdout();
    engine.docker(["create", "--name", "cc", "--network", "taken", "busybox", "true"]).stdout();
    engine.docker(["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).stdout();
    engine.crash();
    let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success(), "{args:?}");
    ip(&["link", "del", &bridge]);
    ip(&["link", "add", &bridge, "type", "veth", "peer", "name", &peer]);
    engine.come_back();
    assert!(engine.daemon_log().contains("a network cannot be made and is left out"));
    assert_eq!(engine.docker(["exec", "other", "echo", "on"]).stdout(), "on\n");
    engine.docker(["start", "cc"]).fails(1, "network taken could not be made and is left out");
    ip(&["link", "del", &bridge]);
    engine.docker(["start", "cc"]).stdout();
    engine.docker(["rm", "-f", "cc"]).stdout();
    engine.crash();
    ip(&["link", "del", &bridge]);
    ip(&["link", "add", &bridge, "type", "veth", "peer", "name", &peer]);
    engine.come_back();
    engine.docker(["network", "rm", "taken"]).stdout();
    ip(&["link", "del", &bridge]);
    engine.finish();
}
