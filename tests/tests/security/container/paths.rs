//! Paths that lead out: links, working directories, devices, and what a process has open or looks up while it joins.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;

use bireme_testing::{Engine, eventually};

use super::probed;

/// Makes the image `altered` of busybox's files, changed by `alter`.
fn altered(engine: &Engine, alter: impl FnOnce(&Path)) {
    engine.load("busybox");
    let folder = engine.folder().join("altered");
    std::fs::create_dir(&folder).unwrap();
    let (from, to) = (folder.with_extension("from.tar"), folder.with_extension("to.tar"));
    engine.docker(["create", "--name", "donor", "busybox"]).stdout();
    engine.docker(["export", "-o", from.to_str().unwrap(), "donor"]).stdout();
    engine.docker(["rm", "donor"]).stdout();
    let tar = |arguments: &[&str]| assert!(Command::new("tar").args(arguments).status().unwrap().success());
    tar(&["-xf", from.to_str().unwrap(), "-C", folder.to_str().unwrap()]);
    alter(&folder);
    tar(&["-cf", to.to_str().unwrap(), "-C", folder.to_str().unwrap(), "."]);
    engine.docker(["import", to.to_str().unwrap(), "altered"]).stdout();
}

/// A link of the image where the engine makes devices and mounts: root wrote through it on the host.
#[test]
fn links_of_an_image_in_place_of_the_kernels_folders_lead_nowhere() {
    let engine = Engine::start();
    let host = engine.folder().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("ptmx"), "precious").unwrap();
    altered(&engine, |root| {
        for name in ["dev", "proc", "sys"] {
            let _ = std::fs::remove_dir_all(root.join(name));
            std::os::unix::fs::symlink(&host, root.join(name)).unwrap();
        }
    });
    let check = |what: &str| {
        let left: Vec<_> = std::fs::read_dir(&host).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["ptmx"], "{what}");
        assert_eq!(std::fs::read_to_string(host.join("ptmx")).unwrap(), "precious", "{what}");
    };
    let script = "[ -c /dev/null ] && [ -e /proc/self/stat ] && [ -d /sys/kernel ] && echo real";
    let flags: [&[&str]; 3] =
        [&[], &["--read-only", "--cap-drop", "ALL", "-u", "1000"], &["--privileged", "--tmpfs", "/dev/shm"]];
    for flags in flags {
        let run = [&["run", "--rm"], flags, &["altered", "sh", "-c", script]].concat();
        assert_eq!(engine.docker(run).stdout(), "real\n", "{flags:?}");
        check(&format!("run {flags:?}"));
    }
    let context = engine.folder().join("context");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), format!("FROM altered\nRUN {script}\n")).unwrap();
    engine.bireme(["build", "-q", context.to_str().unwrap()]).stdout();
    check("RUN of a build");
    engine.finish();
}

/// As the root file systems of distributions have it for `/etc/resolv.conf`: the link's end is made, and never on the host.
#[test]
fn links_to_nothing_at_a_mounts_target_are_followed_inside() {
    let engine = Engine::start();
    let host = engine.folder().join("host");
    std::fs::create_dir(&host).unwrap();
    let outside = host.join("made");
    altered(&engine, |root| {
        let _ = std::fs::remove_file(root.join("etc/resolv.conf"));
        for (link, end) in [
            ("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
            ("opt", "srv/of/../opt"),
            ("var/spool/a", "/b"),
            ("b", outside.to_str().unwrap()),
            ("round", "/round"),
        ] {
            let _ = std::fs::remove_dir_all(root.join(link));
            std::fs::create_dir_all(root.join(link).parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(end, root.join(link)).unwrap();
        }
        std::fs::create_dir_all(root.join("srv/of")).unwrap();
    });
    let script =
        "cat /etc/resolv.conf | grep -c nameserver; test -f /run/systemd/resolve/stub-resolv.conf && ls -d /srv/opt/x";
    let run = ["run", "--rm", "-v", "/opt/x", "-v", "/var/spool/a/c", "altered", "sh", "-c", script];
    assert_eq!(engine.docker(run).stdout(), "1\n/srv/opt/x\n");
    assert!(!outside.exists());
    engine.docker(["run", "--rm", "-v", "/round", "altered", "true"]).fails(125, "cannot make /round in the container");
    engine.finish();
}

/// A process that joins has what the container must not get until its own program is executed: the runner's memory and
/// descriptors, and capabilities that are about to be dropped.
#[test]
fn nobody_inside_looks_into_a_process_that_is_about_to_join() {
    let engine = probed();
    engine.docker(["run", "-d", "--name", "watching", "probe", "watch"]).stdout();
    let mut execs = 0;
    while engine.docker(["inspect", "-f", "{{.State.Running}}", "watching"]).stdout().trim() == "true" {
        // The last comes too late.
        let _ = engine.docker(["exec", "watching", "/probe", "socket", "1"]);
        execs += 1;
    }
    assert!(execs > 5, "{execs}");
    assert_eq!(engine.docker(["logs", "watching"]).stdout(), "watched\n");
    engine.finish();
}

/// CVE-2024-21626: the image says what its `/proc` leads to until the kernel's is there, and what init has open leads to
/// the host.
#[test]
fn no_working_directory_leads_to_what_init_has_open() {
    let engine = Engine::start();
    engine.load("busybox");
    std::fs::write(engine.folder().join("secret"), "of the host").unwrap();
    altered(&engine, |root| {
        std::fs::create_dir_all(root.join("proc/self/fd")).unwrap();
        for number in 3..40 {
            std::os::unix::fs::symlink("/tmp", root.join(format!("proc/self/fd/{number}"))).unwrap();
            std::os::unix::fs::symlink(format!("/proc/self/fd/{number}"), root.join(format!("way{number}"))).unwrap();
        }
    });
    let up = "../".repeat(12);
    let read = format!("cat {up}{}/secret || echo kept", engine.folder().strip_prefix("/").unwrap().display());
    let mut entered = 0;
    for number in 3..40 {
        let way = format!("/way{number}");
        let output = engine.docker(["run", "--rm", "--network", "none", "-w", &way, "altered", "sh", "-c", &read]);
        assert!(!output.raw_stdout().contains("of the host"), "{output}");
        entered += i32::from(output.code == 0);
    }
    assert_eq!(entered, 0, "what is open is no folder of the container");
    let plain = engine.docker(["run", "--rm", "-w", "/proc/self/fd/4", "altered", "true"]);
    plain.fails(125, "is among the kernel's own files");
    let hidden = engine.docker(["run", "--rm", "-w", "/tmp/../proc/self/fd/4", "altered", "true"]);
    hidden.fails(125, "is among the kernel's own files");
    engine.finish();
}

/// A container may make device nodes; whoever else has the volume is not bound by the container's device rules.
#[test]
fn device_nodes_in_volumes_are_of_no_use() {
    let engine = Engine::start();
    engine.load("busybox");
    let folder = engine.folder().join("folder");
    std::fs::create_dir(&folder).unwrap();
    for mount in ["nodes:/v".to_owned(), format!("{}:/v", folder.display())] {
        // One that every container may use, by its rules.
        engine.docker(["run", "--rm", "-v", &mount, "busybox", "mknod", "/v/zero", "c", "1", "5"]).stdout();
        let read = ["run", "--rm", "-v", &mount, "busybox", "head", "-c", "1", "/v/zero"];
        engine.docker(read).fails(1, "Permission denied");
    }
    let part = "type=volume,src=nodes,dst=/p,volume-subpath=.";
    engine.docker(["run", "--rm", "--mount", part, "busybox", "head", "-c", "1", "/p/zero"]).fails(1, "denied");
    let read = "cat /proc/self/mountinfo | grep -c '/dev/v .*nodev'; head -c 1 /dev/v/zero";
    let output = engine.docker(["run", "--rm", "-v", "nodes:/dev/v", "busybox", "sh", "-c", read]);
    assert!(output.code == 1 && output.raw_stdout() == "1\n", "{output}");
    // What is brought from the machine's own `/dev` is meant to be used, and whoever is privileged uses anything.
    engine.docker(["run", "--rm", "-v", "/dev/zero:/v", "busybox", "head", "-c", "1", "/v"]).stdout();
    engine.docker(["run", "--rm", "--privileged", "-v", "nodes:/v", "busybox", "head", "-c", "1", "/v/zero"]).stdout();
    engine.finish();
}

/// A volume over the whole root has a `/dev` of its own, which may be a link: root then makes and removes files where it
/// leads on the host.
#[test]
fn no_link_at_a_mounts_target_puts_a_volume_over_the_root() {
    let engine = Engine::start();
    engine.load("busybox");
    let host = engine.folder().join("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("ptmx"), "precious").unwrap();
    let host_path = host.to_str().unwrap();
    // The volume that is to become the root: the folder exists inside it, too.
    let fill = format!(
        "mkdir -p /v{host_path} /v/proc /v/sys /v/bin && cp /bin/sh /bin/true /v/bin/ && ln -s {host_path} /v/dev"
    );
    engine.docker(["run", "--rm", "-v", "evil:/v", "busybox", "sh", "-c", &fill]).stdout();
    let untouched = |what: &str| {
        let left: Vec<_> = std::fs::read_dir(&host).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["ptmx"], "{what}");
        assert_eq!(std::fs::read_to_string(host.join("ptmx")).unwrap(), "precious", "{what}");
    };
    let words = "over the whole root filesystem";

    altered(&engine, |root| std::os::unix::fs::symlink("/", root.join("way")).unwrap());
    engine.docker(["run", "--rm", "-v", "evil:/way", "altered", "true"]).fails(125, words);
    untouched("a link of the image");

    engine.docker(["run", "--rm", "-v", "outer:/v", "busybox", "ln", "-s", "/", "/v/way"]).stdout();
    let flags = ["--read-only", "--cap-drop", "ALL", "-u", "1000", "-v", "outer:/a", "-v", "evil:/a/way"];
    engine.docker(["run", "--rm"].into_iter().chain(flags).chain(["busybox", "true"])).fails(125, words);
    untouched("a link in another volume");

    engine.docker(["run", "--rm", "-v", "devs:/v", "busybox", "ln", "-s", "/dev", "/v/way"]).stdout();
    let over_dev = engine.docker(["run", "--rm", "-v", "devs:/a", "-v", "evil:/a/way", "busybox", "true"]);
    over_dev.fails(125, "over the kernel's own files");

    let again = "mv /data /away && mkdir /data && ln -s / /data/way";
    engine.docker(["run", "--name", "again", "-v", "evil:/data/way", "busybox", "sh", "-c", again]).stdout();
    engine.docker(["start", "-a", "again"]).fails(1, words);
    untouched("a link that the container itself made");

    let shared = [
        "run",
        "-d",
        "--name",
        "shares",
        "--ipc",
        "shareable",
        "busybox",
        "sh",
        "-c",
        "ln -s / /dev/shm/way; sleep 300",
    ];
    engine.docker(shared).stdout();
    let joins = ["run", "--rm", "--ipc", "container:shares", "-v", "evil:/dev/shm/way", "busybox", "true"];
    engine.docker(joins).fails(125, "below /dev, one mount may not lie in another");
    untouched("a link in shared memory");
    engine.finish();
}

/// The file of users is looked up where the container's own tree has the kernel's files, with rights that it has not.
#[test]
fn no_lookup_of_a_user_takes_what_the_kernel_says_to_root() {
    let engine = Engine::start();
    engine.load("busybox");
    let lead = "rm /etc/passwd /etc/group; ln -s /proc/kmsg /etc/passwd; ln -s /proc/kmsg /etc/group; sleep 1000";
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sh", "-c", lead]).stdout();
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let mut log = std::fs::File::options().read(true).custom_flags(nonblocking).open("/proc/kmsg").unwrap();
    let mut unread = move || {
        let mut said = Vec::new();
        let mut part = [0; 8192];
        while let Ok(count @ 1..) = std::io::Read::read(&mut log, &mut part) {
            said.extend_from_slice(&part[..count]);
        }
        String::from_utf8_lossy(&said).into_owned()
    };
    eventually("the links", || {
        engine.docker(["exec", "cc", "readlink", "/etc/group"]).stdout().contains("kmsg").then_some(())
    });
    unread();
    let mark = |text: &str| std::fs::write("/dev/kmsg", format!("{text}\n")).unwrap();
    // What another has read is gone: where the machine has somebody who reads its log, nothing can be told here.
    mark("a first mark");
    if !unread().contains("a first mark") {
        return engine.finish();
    }
    mark("a mark of this test");
    engine.docker(["exec", "cc", "true"]).stdout();
    engine.docker(["exec", "-u", "0:0", "cc", "true"]).stdout();
    assert!(unread().contains("a mark of this test"));
    engine.finish();
}

/// The program of the first process is a sealed copy. Its libraries are the machine's, and nobody writes to them either
/// (the kind of CVE-2019-5736).
#[test]
fn nobody_inside_writes_to_the_libraries_of_the_machine() {
    let engine = probed();
    let rights = ["--init", "--cap-add", "SYS_PTRACE", "--cap-add", "CHECKPOINT_RESTORE", "--cap-add", "SYS_ADMIN"];
    let said = engine.docker(["run", "--rm"].iter().chain(&rights).chain(&["probe", "mapped"]));
    assert_eq!(said.stdout(), "read some, written 0\n");
    engine.finish();
}

/// Standard input of an exec, and of a health probe, is nothing of the machine's: root inside owns what it has open, and could
/// take the machine's `/dev/null` from everybody else.
#[test]
fn what_joins_a_container_has_no_file_of_the_machine_open() {
    let engine = probed();
    let context = engine.folder().join("probe");
    std::fs::write(
        context.join("Dockerfile"),
        "FROM probe\nHEALTHCHECK --interval=1s CMD [\"/probe\", \"input\"]\nENTRYPOINT [\"/probe\", \"watch\"]\n",
    )
    .unwrap();
    engine.bireme(["build", "-q", "-t", "checked", context.to_str().unwrap()]).stdout();
    engine.docker(["run", "-d", "--name", "checked", "checked"]).stdout();
    let null = "the null of the container, read 0\n";
    assert_eq!(engine.docker(["exec", "checked", "/probe", "input"]).stdout(), null);
    assert_eq!(engine.docker(["exec", "-u", "1000", "checked", "/probe", "input"]).stdout(), null);
    let probed = || {
        engine.docker(["inspect", "-f", "{{range .State.Health.Log}}{{.Output}}{{end}}", "checked"]).stdout().to_owned()
    };
    eventually("a probe", || probed().contains(null).then_some(()));
    // Without any, it has ended all the same.
    engine.load("busybox");
    let bare =
        ["run", "-d", "--name", "bare", "busybox", "sh", "-c", "rm /dev/null; mkfifo /dev/null; exec sleep 1000"];
    engine.docker(bare).stdout();
    let input =
        || engine.docker(["exec", "bare", "sh", "-c", "readlink /proc/self/fd/0; cat; echo ended"]).stdout().to_owned();
    let said = eventually("a pipe that has ended", || Some(input()).filter(|said| said.starts_with("pipe:")));
    assert!(said.ends_with("\nended\n"), "{said}");
    engine.finish();
}
