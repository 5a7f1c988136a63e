//! From inside a container: the kernel's doors, and paths that lead out.

mod held_up;
mod kernel;
mod paths;
mod told;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bireme_testing::Engine;

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

/// Within seconds, on a machine that does much else.
const SOON: Duration = Duration::from_secs(20);
