//! From inside a container: the kernel's doors, and paths that lead out.

use std::io::BufRead as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use bireme_testing::{Engine, Output, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// Asks the kernel for what its arguments say, and prints the number of the error, or 0.
const PROBE: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments) {
    if (count > 1 && !strcmp(arguments[1], "mapped")) {
        /* What the first process has mapped from files, and whether it can be written to. */
        DIR *all = opendir("/proc/1/map_files");
        int read = 0, written = 0;
        for (struct dirent *one; all && (one = readdir(all));) {
            int file = openat(dirfd(all), one->d_name, O_RDONLY);
            struct stat about;
            if (file < 0 || fstat(file, &about) || !S_ISREG(about.st_mode)) continue;
            read++;
            /* Nor who may run it: its mode, owner and access control list, all as they are. */
            struct { unsigned version; struct { unsigned short tag, rights; unsigned id; } entries[3]; } list = {
                2, { { 1, about.st_mode >> 6 & 7, -1 }, { 4, about.st_mode >> 3 & 7, -1 }, { 32, about.st_mode & 7, -1 } } };
            if (openat(dirfd(all), one->d_name, O_RDWR) >= 0 || !fchmod(file, about.st_mode)
                || !fchown(file, about.st_uid, about.st_gid)
                || !fsetxattr(file, "system.posix_acl_access", &list, sizeof list, 0)) written++;
        }
        printf("read %s, written %d\n", read ? "some" : "none", written);
        return 0;
    }
    if (count > 1 && !strcmp(arguments[1], "session")) {
        /* The session keyring. */
        printf("%ld\n", syscall(SYS_keyctl, 0, -3, 0));
        return 0;
    }
    if (count > 1 && !strcmp(arguments[1], "input")) {
        /* What standard input is, and whether it has ended. */
        struct stat input, null;
        char byte;
        int same = !fstat(0, &input) && !stat("/dev/null", &null) && input.st_dev == null.st_dev && input.st_ino == null.st_ino;
        printf("%s, read %zd\n", same ? "the null of the container" : S_ISFIFO(input.st_mode) ? "a pipe" : "something else",
               read(0, &byte, 1));
        return 0;
    }
    if (count > 1 && !strcmp(arguments[1], "hold")) {
        /* Has whoever executes the program of the first process wait, or whoever opens a file, and stays. */
        int group = syscall(SYS_fanotify_init, 4, 0);
        unsigned long event = count > 2 ? 0x10000UL : 0x40000UL;
        const char *file = count > 2 ? arguments[2] : "/proc/1/exe";
        if (group < 0 || syscall(SYS_fanotify_mark, group, 1, event, AT_FDCWD, file)) printf("error %d\n", errno);
        else puts("held");
        fflush(stdout);
        for (;;) pause();
    }
    if (count > 1 && !strcmp(arguments[1], "frozen")) {
        /* Freezes another process in a cgroup of its own, beside many others, and stays. */
        char line[32], name[32];
        int others = count > 2 ? atoi(arguments[2]) : 0;
        mkdir("/f", 0700);
        if (mount("freezer", "/f", "cgroup", 0, "freezer") || mkdir("/f/inner", 0700)) {
            puts("no freezer");
            fflush(stdout);
            for (;;) pause();
        }
        for (int other = 0; other < others; other++) {
            snprintf(name, sizeof name, "/f/d%d", other);
            mkdir(name, 0700);
        }
        int child = fork();
        if (!child) for (;;) pause();
        int file = open("/f/inner/cgroup.procs", O_WRONLY);
        if (write(file, line, snprintf(line, sizeof line, "%d", child)) < 0) perror("join");
        file = open("/f/inner/freezer.state", O_WRONLY);
        if (write(file, "FROZEN", 6) < 0) perror("freeze");
        puts("frozen");
        fflush(stdout);
        for (;;) pause();
    }
    if (count > 1 && !strcmp(arguments[1], "watch")) {
        /* Looks into every other process for some seconds, and prints programs that are not this one, and rights that are
           more than this one has. */
        unsigned long long own = 0;
        time_t end = time(NULL) + 8;
        while (time(NULL) < end) {
            DIR *all = opendir("/proc");
            for (struct dirent *one; (one = readdir(all));) {
                char name[64], program[4096];
                if (atoi(one->d_name) < 1) continue;
                snprintf(name, sizeof name, "/proc/%d/status", atoi(one->d_name));
                FILE *status = fopen(name, "r");
                unsigned long long rights = 0;
                int mode = 2;
                while (status && fgets(program, sizeof program, status)) {
                    sscanf(program, "CapPrm: %llx", &rights);
                    sscanf(program, "Seccomp: %d", &mode);
                }
                if (status) fclose(status);
                if (atoi(one->d_name) == getpid()) own = rights;
                else if (own && (rights & ~own || mode != 2)) printf("rights %llx, filter %d\n", rights, mode);
                if (atoi(one->d_name) < 2) continue;
                snprintf(name, sizeof name, "/proc/%d/exe", atoi(one->d_name));
                ssize_t length = readlink(name, program, sizeof program - 1);
                if (length < 0) continue;
                program[length] = 0;
                if (strcmp(program, "/probe")) printf("seen %s\n", program);
            }
            closedir(all);
        }
        puts("watched");
        return 0;
    }
    for (int at = 1; at + 1 < count; at += 2) {
        long number = strtol(arguments[at + 1], NULL, 0), answer;
        errno = 0;
        if (!strcmp(arguments[at], "clone")) {
            answer = syscall(SYS_clone, number | SIGCHLD, 0, 0, 0, 0);
            if (answer == 0) _exit(0);
            if (answer > 0) waitpid(answer, NULL, 0);
        } else if (!strcmp(arguments[at], "unshare")) {
            answer = syscall(SYS_unshare, number);
        } else if (!strcmp(arguments[at], "socket")) {
            answer = socket(number, SOCK_SEQPACKET, 0);
        } else if (!strcmp(arguments[at], "socketcall")) {
            /* As a 32-bit program: call 102, and where the arguments lie has to be below 4 GiB. */
            static unsigned call[3];
            call[0] = number; call[1] = SOCK_SEQPACKET; call[2] = 0;
            long result;
            __asm__ volatile("int $0x80" : "=a"(result) : "a"(102), "b"(1), "c"(call) : "memory", "r8", "r9", "r10", "r11");
            answer = (int)result;
            if (answer < 0) { errno = -answer; answer = -1; }
        } else {
            answer = syscall(number, 0, 0, 0, 0);
        }
        printf("%s %s: %d\n", arguments[at], arguments[at + 1], answer < 0 ? errno : 0);
    }
    return 0;
}
"#;

const EPERM: i32 = 1;
const EACCES: i32 = 13;

/// What `clone` may make anew, by its number.
const NAMESPACES: &[(&str, u64)] = &[
    ("CLONE_NEWNS", 0x0002_0000),
    ("CLONE_NEWCGROUP", 0x0200_0000),
    ("CLONE_NEWUTS", 0x0400_0000),
    ("CLONE_NEWIPC", 0x0800_0000),
    ("CLONE_NEWUSER", 0x1000_0000),
    ("CLONE_NEWPID", 0x2000_0000),
    ("CLONE_NEWNET", 0x4000_0000),
];

/// An engine with the probe as the image `probe`.
fn probed() -> Engine {
    let engine = Engine::start();
    let context = engine.folder().join("probe");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("probe.c"), PROBE).unwrap();
    compile(&context);
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY probe /probe\nENTRYPOINT [\"/probe\"]\n").unwrap();
    engine.bireme(["build", "-q", "-t", "probe", context.to_str().unwrap()]).stdout();
    engine
}

fn compile(folder: &Path) {
    let mut cc = Command::new("cc");
    // Not position independent: its data lie where a 32-bit call can point to.
    cc.args(["-static", "-no-pie", "-O1", "-o", "probe", "probe.c"]).current_dir(folder);
    assert!(cc.status().unwrap().success(), "the probe does not compile");
}

fn run(engine: &Engine, flags: &[&str], asked: &[(&str, u64)]) -> Output {
    let asked: Vec<String> = asked.iter().flat_map(|(what, number)| [(*what).to_owned(), number.to_string()]).collect();
    let arguments = ["run", "--rm"].iter().chain(flags).chain(&["probe"]).map(|word| (*word).to_owned());
    engine.docker(arguments.chain(asked))
}

fn expect(what: &str, number: u64, error: i32) -> String {
    format!("{what} {number}: {error}\n")
}

/// A masked comparison whose mask and value are swapped holds for every `clone`: each container could make user
/// namespaces, and had all capabilities in them.
#[test]
fn the_default_profile_lets_nobody_make_namespaces() {
    let engine = probed();
    let asked: Vec<(&str, u64)> = NAMESPACES
        .iter()
        .flat_map(|(_, flag)| [("clone", *flag), ("unshare", *flag)])
        .chain([("clone", 0x1000_0000 | 0x4000_0000), ("clone", 0)])
        .collect();
    let refused = |(what, number): &(&str, u64)| expect(what, *number, if *number == 0 { 0 } else { EPERM });
    let expected: String = asked.iter().map(refused).collect();
    for flags in [&[][..], &["-u", "1000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]] {
        assert_eq!(run(&engine, flags, &asked).stdout(), expected, "{flags:?}");
    }
    // With the capability that the profile asks for, as in Docker, the kernel answers by itself.
    let allowed: String = NAMESPACES.iter().map(|(_, flag)| expect("clone", *flag, 0)).collect();
    let asked: Vec<(&str, u64)> = NAMESPACES.iter().map(|(_, flag)| ("clone", *flag)).collect();
    assert_eq!(run(&engine, &["--cap-add", "SYS_ADMIN"], &asked).stdout(), allowed);
    let unconfined = run(&engine, &["--security-opt", "seccomp=unconfined"], &[("clone", 0x1000_0000)]);
    assert_eq!(unconfined.stdout(), expect("clone", 0x1000_0000, 0));
    engine.finish();
}

/// Masked comparisons of a profile of one's own mean what they mean to runc: `value` is the mask.
#[test]
fn masked_comparisons_of_a_profile_are_the_kernels() {
    let engine = probed();
    let profile = |value: u64, second: u64| {
        let path = engine.folder().join("profile.json");
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["clone"],"action":"SCMP_ACT_ERRNO","errnoRet":{EACCES},
                "args":[{{"index":0,"value":{value},"valueTwo":{second},"op":"SCMP_CMP_MASKED_EQ"}}]}}]}}"#
        );
        std::fs::write(&path, text).unwrap();
        format!("seccomp={}", path.display())
    };
    const UTS: u64 = 0x0400_0000;
    const IPC: u64 = 0x0800_0000;
    let answers = |value: u64, second: u64| {
        let asked = [("clone", 0), ("clone", UTS), ("clone", IPC), ("clone", UTS | IPC)];
        let flags = ["--cap-add", "SYS_ADMIN", "--security-opt", &profile(value, second)];
        let output = run(&engine, &flags, &asked);
        output.stdout().lines().map(|line| line.ends_with(&format!(": {EACCES}"))).collect::<Vec<_>>()
    };
    assert_eq!(answers(UTS, UTS), [false, true, false, true], "one bit is set");
    assert_eq!(answers(UTS | IPC, 0), [true, false, false, false], "none of two bits is set");
    assert_eq!(answers(UTS | IPC, IPC), [false, false, true, false], "of two bits just one is set");
    engine.finish();
}

/// CVE-2026-31431 and its class: families that no container needs, also by the call of 32-bit programs that hides them.
#[test]
fn no_container_reaches_the_kernels_odd_address_families() {
    let engine = probed();
    const ALG: u64 = 38;
    const VSOCK: u64 = 40;
    let mut asked = vec![("socket", ALG), ("socket", VSOCK)];
    let mut expected = expect("socket", ALG, EPERM) + &expect("socket", VSOCK, EPERM);
    if cfg!(target_arch = "x86_64") {
        asked.extend([("socketcall", ALG), ("socketcall", VSOCK), ("socketcall", 1)]);
        for family in [ALG, VSOCK, 1] {
            expected += &expect("socketcall", family, EPERM);
        }
    }
    asked.push(("socket", 1));
    expected += &expect("socket", 1, 0);
    assert_eq!(run(&engine, &[], &asked).stdout(), expected);
    engine.finish();
}

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

/// One process with megabytes of arguments shares them with its children, at no cost to its container.
#[test]
fn arguments_of_megabytes_are_cut_in_a_list_of_processes() {
    let engine = Engine::start();
    engine.load("busybox");
    let script = "long=$(head -c 100000 /dev/zero | tr '\\0' x); for i in $(seq 40); do sh -c 'sleep 300; true' $long $long & done; wait";
    engine.docker(["run", "-d", "--name", "many", "busybox", "sh", "-c", script]).stdout();
    let answer = bireme_testing::eventually("forty processes", || {
        let answer = engine.request("GET", "/containers/many/top?ps_args=-o%20pid,args", b"");
        (answer.json()["Processes"].as_array()?.len() > 40).then_some(answer)
    });
    assert!(answer.body.len() < 40 * 2 * 5000, "{}", answer.body.len());
    engine.finish();
}

/// `docker rm -f` ends a container whatever became of its runner.
#[test]
fn a_container_whose_runner_does_not_answer_is_removed_all_the_same() {
    let engine = Engine::start();
    engine.load("busybox");
    for verb in [&["rm", "-f", "stuck"][..], &["kill", "stuck"][..]] {
        engine.docker(["run", "-d", "--name", "stuck", "busybox", "sleep", "1000"]).stdout();
        let id = engine.docker(["inspect", "-f", "{{.Id}}", "stuck"]).stdout().trim().to_owned();
        let init = engine.docker(["inspect", "-f", "{{.State.Pid}}", "stuck"]).stdout().trim().to_owned();
        let runners = Command::new("pgrep").args(["-f", &format!("^bireme-runner {id}")]).output().unwrap();
        let runner = String::from_utf8(runners.stdout).unwrap();
        let runner: i32 = runner.lines().next().expect("the runner is found").parse().unwrap();
        let stop = Command::new("kill").args(["-STOP", &runner.to_string()]).status().unwrap();
        assert!(stop.success());
        engine.docker(verb).stdout();
        bireme_testing::eventually("the end of its processes", || {
            (!Path::new(&format!("/proc/{init}")).exists() && !Path::new(&format!("/proc/{runner}")).exists())
                .then_some(())
        });
        let _ = engine.docker(["rm", "-f", "stuck"]);
    }
    engine.finish();
}

/// Stops what is to run in a container and has not executed its program yet, as anybody may who has its user: again and
/// again, until it is dropped. The kernel does the same to a process of root that root inside stops.
struct Stopper {
    over: Arc<AtomicBool>,
    stopped: Arc<AtomicI32>,
    work: Option<std::thread::JoinHandle<()>>,
}

impl Stopper {
    fn of(engine: &Engine, id: &str) -> Self {
        let inside = format!("bireme-{}/{id}/cgroup.procs", engine.instance());
        let folders = ["/sys/fs/cgroup", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup/pids"];
        let lists: Vec<_> = folders.iter().map(|folder| Path::new(folder).join(&inside)).collect();
        let (over, stopped) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI32::new(0)));
        let (end, seen) = (over.clone(), stopped.clone());
        let work = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let pids = lists.iter().filter_map(|list| std::fs::read_to_string(list).ok());
                for pid in pids.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()) {
                    // Until then it runs the runner's own program.
                    let unexecuted = || {
                        std::fs::read_link(format!("/proc/{pid}/exe"))
                            .is_ok_and(|program| program.to_string_lossy().contains("bireme-runner"))
                    };
                    let Some(process) = Pid::from_raw(pid).filter(|_| unexecuted()) else { continue };
                    let _ = kill_process(process, Signal::STOP);
                    if unexecuted() {
                        seen.store(pid, Ordering::Relaxed);
                    } else {
                        let _ = kill_process(process, Signal::CONT);
                    }
                }
                // Tight, and not at the cost of everybody else.
                std::thread::yield_now();
            }
        });
        Self { over, stopped, work: Some(work) }
    }

    /// The last that was stopped, where it is still there.
    fn stopped(&self) -> Option<i32> {
        let pid = self.stopped.load(Ordering::Relaxed);
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(pid)
    }
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.work.take().map(std::thread::JoinHandle::join);
    }
}

/// Within seconds, on a machine that does much else.
const SOON: Duration = Duration::from_secs(20);

#[track_caller]
fn soon(engine: &Engine, words: &[&str]) -> Output {
    let begun = Instant::now();
    let output = engine.docker(words);
    assert!(begun.elapsed() < SOON, "{words:?} took {:?}:\n{}", begun.elapsed(), engine.daemon_log());
    output
}

/// A process that is stopped before its program is executed never answers: whoever waits for it waits for ever, and all
/// that was asked of the container after it.
#[test]
fn a_start_that_never_comes_to_an_end_is_given_up_for_a_kill() {
    let engine = Engine::start();
    engine.load("busybox");
    for words in [&["rm", "-f", "held"][..], &["stop", "-t", "1", "held"]] {
        let held = (0..20).any(|_| {
            let id = engine.docker(["create", "--name", "held", "busybox", "sleep", "1000"]).stdout().trim().to_owned();
            let stopper = Stopper::of(&engine, &id);
            let mut command = engine.command("docker", ["start", "held"]);
            let mut starting = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            let stopped = bireme_testing::eventually("a process that is stopped, or a start", || {
                let over = starting.try_wait().unwrap().is_some();
                stopper.stopped().map(Some).or(over.then_some(None))
            });
            if let Some(stopped) = stopped {
                soon(&engine, words).stdout();
                let refused = starting.wait_with_output().unwrap();
                let said = String::from_utf8_lossy(&refused.stderr).into_owned();
                assert!(said.contains("what was begun with it meanwhile is given up"), "{said}");
                bireme_testing::eventually("the end of what was stopped", || {
                    (!Path::new(&format!("/proc/{stopped}")).exists()).then_some(())
                });
            }
            drop(stopper);
            let _ = engine.docker(["rm", "-f", "held"]);
            stopped.is_some()
        });
        assert!(held, "nothing was stopped in time");
    }
    // What was given up is no hindrance to the next.
    engine.docker(["run", "--rm", "--name", "held", "busybox", "true"]).stdout();
    engine.finish();
}

#[test]
fn an_exec_that_never_begins_stops_neither_probes_nor_a_pause() {
    let engine = Engine::start();
    engine.load("busybox");
    let check =
        ["--health-cmd", "true", "--health-interval", "200ms", "--health-timeout", "5s", "--health-retries", "1"];
    let run = ["run", "-d", "--name", "probed"].into_iter().chain(check).chain(["busybox", "sleep", "1000"]);
    let id = engine.docker(run).stdout().trim().to_owned();
    let healthy = |wanted: &str| {
        bireme_testing::eventually(wanted, || {
            let found =
                engine.docker(["inspect", "-f", "{{.State.Health.Status}}", "probed"]).stdout().trim().to_owned();
            (found == wanted).then_some(())
        });
    };
    healthy("healthy");
    let stopper = Stopper::of(&engine, &id);
    // Before, such a probe was waited for without end, and what was last known of it was told for ever.
    healthy("unhealthy");
    bireme_testing::eventually("an exec that is stopped", || {
        let mut command = engine.command("docker", ["exec", "probed", "true"]);
        let mut joining = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        bireme_testing::eventually("a process that is stopped, or an end", || {
            (stopper.stopped().is_some() || joining.try_wait().unwrap().is_some()).then_some(())
        });
        let held = stopper.stopped().is_some() && joining.try_wait().unwrap().is_none();
        if held {
            soon(&engine, &["pause", "probed"]).stdout();
            assert_eq!(engine.docker(["inspect", "-f", "{{.State.Status}}", "probed"]).stdout(), "paused\n");
        }
        let ended = joining.wait_with_output().unwrap();
        if held {
            // Or it came when the pause had begun; or a probe was what was stopped.
            // As Docker's engine does, the output is where it is told.
            let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
            let told = said.contains("was not executed in time and is ended") || said.contains("paused");
            assert!(told || ended.status.success(), "{said}");
        }
        held.then_some(())
    });
    drop(stopper);
    soon(&engine, &["unpause", "probed"]).stdout();
    healthy("healthy");
    engine.docker(["exec", "probed", "true"]).stdout();
    soon(&engine, &["rm", "-f", "probed"]).stdout();
    engine.finish();
}

/// The log of a container that has ended, to be written to by the test.
fn logged(engine: &Engine, name: &str) -> PathBuf {
    engine.docker(["run", "--name", name, "busybox", "echo", "own"]).stdout();
    PathBuf::from(engine.docker(["inspect", "-f", "{{.LogPath}}", name]).stdout().trim())
}

/// What is not wanted of a log was read on the threads that answer all requests, to the end, and also for nobody.
#[test]
fn long_logs_hold_up_no_other_request() {
    let engine = Engine::start();
    engine.load("busybox");
    let path = logged(&engine, "long");
    let line =
        format!("{{\"log\":\"{}\\n\",\"stream\":\"stdout\",\"time\":\"2020-01-01T00:00:00Z\"}}\n", "x".repeat(400));
    std::fs::write(&path, line.repeat(200_000)).unwrap();
    let (mut longest, begun) = (Duration::ZERO, Instant::now());
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| engine.request("GET", "/containers/long/logs?stdout=1&since=4000000000", b"")))
            .collect();
        while readers.iter().any(|reader| !reader.is_finished()) {
            let asked = Instant::now();
            assert_eq!(engine.request("GET", "/_ping", b"").status, 200);
            longest = longest.max(asked.elapsed());
        }
        for reader in readers {
            let answer = reader.join().unwrap();
            assert_eq!((answer.status, answer.body.len()), (200, 0));
        }
    });
    let all = begun.elapsed();
    assert!(longest * 3 < all, "a request took {longest:?} while logs were read for {all:?}");
    engine.finish();
}

/// The log of a component lies in a folder to which its host writes: what is there may be anything.
#[test]
fn what_stands_in_place_of_a_log_is_neither_followed_nor_waited_for() {
    let engine = Engine::start();
    engine.load("busybox");
    let secret = logged(&engine, "victim");
    let path = logged(&engine, "own");
    let read = |query: &str, words: &str| {
        let begun = Instant::now();
        let answer = engine.request("GET", &format!("/containers/own/logs?stdout=1{query}"), b"").text();
        assert!(begun.elapsed() < SOON, "{words:?} took {:?}", begun.elapsed());
        assert!(answer.contains(words), "{answer:?}");
    };
    read("", "own");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&secret, &path).unwrap();
    read("", "is no log file");
    std::fs::remove_file(&path).unwrap();
    std::fs::hard_link(&secret, &path).unwrap();
    read("&tail=10", "is no log file");
    std::fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    read("", "is no log file");
    std::fs::remove_file(&path).unwrap();
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap();
    read("", "are no records");
    read("&tail=10", "");
    let lease = "import fcntl, signal, sys, time\n\
                 signal.signal(signal.SIGIO, signal.SIG_IGN)\n\
                 log = open(sys.argv[1], 'w')\n\
                 fcntl.fcntl(log, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n\
                 print('held', flush=True)\n\
                 time.sleep(300)";
    let mut holder = Command::new("python3")
        .args(["-c", lease])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is there");
    let mut said = String::new();
    std::io::BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "held\n");
    read("", "its writer has reserved it");
    holder.kill().unwrap();
    holder.wait().unwrap();
    engine.finish();
}

/// Who waits for a removal that fails was left waiting for ever, and nobody tried it again.
#[test]
fn a_removal_by_itself_that_fails_is_told_and_tried_again() {
    let engine = Engine::start();
    engine.load("busybox");
    let id =
        engine.docker(["run", "-d", "--rm", "--name", "stays", "busybox", "sleep", "1000"]).stdout().trim().to_owned();
    // Nothing is removed across a mount.
    let inside = |folder: &str| engine.data_root().join("containers").join(folder).join("mounted");
    let (at, moved) = (inside(&id), inside(&format!(".removed/{id}")));
    std::fs::create_dir(&at).unwrap();
    rustix::mount::mount("none", &at, "tmpfs", rustix::mount::MountFlags::empty(), None::<&std::ffi::CStr>).unwrap();
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| engine.request("POST", "/containers/stays/wait?condition=removed", b""));
        engine.docker(["kill", "stays"]).stdout();
        waiting.join().unwrap().json()
    });
    let place = if moved.exists() { &moved } else { &at };
    rustix::mount::unmount(place, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(answer["StatusCode"], 137, "{answer}");
    assert!(answer["Error"]["Message"].as_str().is_some_and(|why| why.contains("could not be removed")), "{answer}");
    bireme_testing::eventually("its removal", || {
        (engine.request("GET", &format!("/containers/{id}/json"), b"").status == 404).then_some(())
    });
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

/// Whatever the daemon ignores: `nohup` and scripts have it ignore signals.
#[test]
fn a_container_ignores_no_signal() {
    let engine = Engine::start();
    engine.load("busybox");
    let none = "SigIgn:\t0000000000000000\n";
    assert_eq!(engine.docker(["run", "--rm", "busybox", "grep", "SigIgn", "/proc/self/status"]).stdout(), none);
    engine.docker(["run", "-d", "--name", "cc", "busybox", "sleep", "1000"]).stdout();
    assert_eq!(engine.docker(["exec", "cc", "grep", "SigIgn", "/proc/self/status"]).stdout(), none);
    engine.finish();
}

/// A file system whose server never says a word, as long as this is there.
struct Silent {
    at: PathBuf,
    _server: std::os::fd::OwnedFd,
}

impl Silent {
    fn mount(at: &Path) -> Self {
        use std::os::fd::AsRawFd as _;
        let server = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("silent", at, "fuse", rustix::mount::MountFlags::empty(), Some(options.as_c_str()))
            .unwrap();
        Self { at: at.to_owned(), _server: server.into() }
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, rustix::mount::UnmountFlags::DETACH);
    }
}

/// A container may serve such a file system itself, or it lies on another machine.
#[test]
fn a_bind_source_that_does_not_answer_keeps_nobody_else_waiting() {
    if !Path::new("/dev/fuse").exists() {
        eprintln!("this machine has no FUSE: nothing is tried");
        return;
    }
    let engine = Engine::start();
    engine.load("busybox");
    let folder = engine.folder().join("served");
    std::fs::create_dir(&folder).unwrap();
    engine.docker(["create", "--name", "resting", "-v", &format!("{}:/x", folder.display()), "busybox"]).stdout();
    let silent = Silent::mount(&folder);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|number| {
                let (engine, bind) = (&engine, format!("{}/{number}:/x", folder.display()));
                scope.spawn(move || engine.docker(["create", "-v", &bind, "busybox"]))
            })
            .collect();
        let copies: Vec<_> = (0..4).map(|_| scope.spawn(|| engine.docker(["cp", "resting:/x/file", "-"]))).collect();
        std::thread::sleep(Duration::from_secs(2));
        let begun = Instant::now();
        engine.docker(["run", "--rm", "busybox", "true"]).stdout();
        engine.docker(["ps"]).stdout();
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        for refused in waiting {
            let refused = refused.join().unwrap();
            assert!(refused.code != 0 && refused.stderr().contains("does not answer within 20 s"), "{refused}");
        }
        drop(copies);
        drop(silent);
    });
    engine.docker(["rm", "resting"]).stdout();
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

/// Keys that whoever started the engine has in his session, and those of other containers, are out of reach, whatever the
/// filter lets through.
#[test]
fn each_container_has_a_session_keyring_of_its_own() {
    let engine = probed();
    let outside = Command::new(engine.folder().join("probe/probe")).arg("session").output().unwrap();
    let mut seen = vec![String::from_utf8(outside.stdout).unwrap()];
    for _ in 0..2 {
        let said = engine
            .docker(["run", "--rm", "--security-opt", "seccomp=unconfined", "probe", "session"])
            .stdout()
            .to_owned();
        assert!(said.trim().parse::<i64>().is_ok_and(|serial| serial > 0), "{said}");
        assert!(!seen.contains(&said), "{said} was seen before: {seen:?}");
        seen.push(said);
    }
    engine.finish();
}

/// On cgroup v1 a frozen process takes no signal, and its container's init waits for it.
#[test]
fn what_a_container_has_frozen_ends_with_it() {
    let engine = probed();
    for (name, others, end) in [
        ("killed", "0", &["kill"][..]),
        ("stopped", "0", &["stop", "-t", "0"]),
        ("removed", "0", &["rm", "-f"]),
        // More than are gone through in the time there is.
        ("many", "20000", &["rm", "-f"]),
    ] {
        let run = ["run", "-d", "--cap-add", "SYS_ADMIN", "--security-opt", "apparmor=unconfined", "--name", name];
        engine.docker(run.iter().chain(&["probe", "frozen", others])).stdout();
        let pid = engine.docker(["inspect", "-f", "{{.State.Pid}}", name]).stdout().trim().to_owned();
        let below = || {
            let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            list.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let logged = || Some(engine.docker(["logs", name]).stdout().to_owned()).filter(|said| !said.is_empty());
        let said = eventually("a word of the probe", logged);
        // Where the machine has cgroup v2 alone, nothing is frozen.
        assert!(["frozen\n", "no freezer\n"].contains(&said.as_str()), "{said:?}");
        let (begin, children) = (Instant::now(), below());
        engine.docker(end.iter().chain(&[name])).stdout();
        assert!(begin.elapsed() < SOON, "{name} after {:?}", begin.elapsed());
        let left: Vec<_> = children.iter().filter(|pid| Path::new(&format!("/proc/{pid}")).exists()).collect();
        assert!(left.is_empty(), "{name}: {left:?} of {children:?} is still there");
        let ended = || engine.docker(["ps", "-q", "--filter", &format!("name={name}")]).stdout().is_empty();
        eventually("its end", || ended().then_some(()));
    }
    engine.finish();
}

/// Who may watch the files of the machine (`CAP_SYS_ADMIN`) keeps programs from being executed; not the engine from answering,
/// nor itself from being removed.
#[test]
fn a_container_that_holds_up_runners_holds_up_nothing_else() {
    let engine = probed();
    let run = ["run", "-d", "--init", "--cap-add", "SYS_ADMIN", "--cap-add", "SYS_PTRACE", "--name", "holder"];
    engine.docker(run.iter().chain(&["probe", "hold"])).stdout();
    let logged = || Some(engine.docker(["logs", "holder"]).stdout().to_owned()).filter(|said| !said.is_empty());
    let said = eventually("a word of the probe", logged);
    if said != "held\n" {
        eprintln!("this machine lets nobody watch: {said}");
        return engine.finish();
    }
    let begin = Instant::now();
    std::thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..4).map(|_| scope.spawn(|| engine.docker(["run", "--rm", "probe", "session"]))).collect();
        std::thread::sleep(Duration::from_secs(2));
        engine.docker(["ps", "-q"]).stdout();
        engine.docker(["version"]).stdout();
        engine.docker(["rm", "-f", "holder"]).stdout();
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        for other in waiting {
            other.join().unwrap().stdout();
        }
    });
    engine.docker(["run", "--rm", "probe", "session"]).stdout();
    engine.finish();
}

/// The threads for copies are its own: those of clients that left go on hanging.
#[test]
fn copies_that_hang_hold_nobody_else_up() {
    let engine = probed();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).stdout();
    let run = ["run", "-d", "--init", "--cap-add", "SYS_ADMIN", "--name", "holder"];
    engine.docker(run.iter().chain(&["probe", "hold", "/probe"])).stdout();
    let logged = || Some(engine.docker(["logs", "holder"]).stdout().to_owned()).filter(|said| !said.is_empty());
    let said = eventually("a word of the probe", logged);
    if said != "held\n" {
        eprintln!("this machine lets nobody watch: {said}");
        return engine.finish();
    }
    let clients: Vec<_> = (0..600)
        .map(|_| {
            let mut stream = std::os::unix::net::UnixStream::connect(engine.socket()).unwrap();
            let request = "GET /containers/holder/archive?path=/probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
            std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
            stream
        })
        .collect();
    std::thread::sleep(Duration::from_secs(1));
    drop(clients);
    let begin = Instant::now();
    assert!(engine.docker(["cp", "other:/etc/passwd", "-"]).stdout().contains("root:"));
    engine.docker(["logs", "other"]).stdout();
    engine.docker(["images"]).stdout();
    engine.docker(["run", "--rm", "busybox", "true"]).stdout();
    engine.docker(["rm", "-f", "holder"]).stdout();
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    engine.finish();
}
