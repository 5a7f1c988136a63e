//! From inside a container: the kernel's doors, and paths that lead out.

use std::path::Path;
use std::process::Command;

use bireme_testing::{Engine, Output};

/// Asks the kernel for what its arguments say, and prints the number of the error, or 0.
const PROBE: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int count, char **arguments) {
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
