//! What a container must not be able to do. Each story names the class of attack.

use std::io::Read as _;

use bireme_core::spec::{Device, Mount, MountSource, NamespaceMode, Propagation, Seccomp};
use bireme_core::{ErrorKind, ExecSpec};

use crate::bench::{Bench, blocking, frames, until};

fn bind(path: &std::path::Path, target: &str) -> Mount {
    Mount {
        source: MountSource::Bind { path: path.to_owned(), propagation: Propagation::Private, recursive: true },
        target: target.into(),
        read_only: false,
    }
}

/// libcontainer mounts cgroup v1 writable whatever the options say.
#[tokio::test(flavor = "multi_thread")]
async fn root_cannot_raise_its_own_limits() {
    let bench = Bench::new();
    let mut spec = bench.sh(
        "for f in $(find /sys/fs/cgroup -name memory.limit_in_bytes -o -name memory.max -o -name pids.max -o -name devices.allow -o -name cgroup.procs -o -name release_agent); do \
           (echo 100000000 > $f) 2>/dev/null && echo \"wrote $f\"; done; \
         mkdir /sys/fs/cgroup/memory/sub /sys/fs/cgroup/sub 2>/dev/null && echo made; \
         mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted; \
         find /sys/fs/cgroup -name 'memory.limit_in_bytes' -o -name memory.max | xargs cat",
    );
    spec.resources.memory = Some(50 << 20);
    spec.resources.pids = Some(50);
    assert_eq!(bench.output(&spec).await, format!("{}\n", 50 << 20));
}

/// CVE-2019-5736: the runner's binary, seen as /proc/self/exe, overwritten from inside.
#[tokio::test(flavor = "multi_thread")]
async fn the_runners_binary_cannot_be_overwritten() {
    let bench = Bench::new();
    let before = std::fs::read(env!("CARGO_BIN_EXE_bireme-runner")).unwrap();
    // With --init process 1 is the runner's own binary for as long as the container lives.
    let mut spec = bench.sh("sleep 0.1; for n in 1 2 3; do (echo broken > /proc/1/exe) 2>/dev/null && echo wrote; done; cat /proc/1/exe >/dev/null 2>&1; tr '\\0' ' ' < /proc/1/cmdline; cat /proc/1/environ 2>/dev/null | tr '\\0' '\\n'; ls /proc/1/fd 2>/dev/null");
    spec.init = true;
    spec.security.cap_add = vec!["SYS_PTRACE".into()];
    let output = bench.output(&spec).await;
    assert!(!output.contains("wrote"), "{output}");
    assert!(!output.contains('/') && !output.contains('='), "nothing of the host shows: {output}");
    // The script whose interpreter is the binary itself.
    std::fs::write(bench.image().join("bin/again"), "#!/proc/self/exe\n").unwrap();
    std::fs::set_permissions(bench.image().join("bin/again"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let spec = bench.spec(&["again"]);
    let workload = bench.create(&spec).await.unwrap();
    let _ = workload.start().await;
    crate::bench::end(&*workload).await;
    workload.delete().await.unwrap();
    assert!(std::fs::read(env!("CARGO_BIN_EXE_bireme-runner")).unwrap() == before);
    bench.output(&bench.sh("true")).await;
}

/// CVE-2024-21626: descriptors of the host, and a working directory reached through one.
#[tokio::test(flavor = "multi_thread")]
async fn no_descriptor_of_the_host_leaks() {
    let bench = Bench::new();
    let output = bench
        .output(
            &bench.sh("ls -l /proc/self/fd 2>/dev/null | grep -v 'pipe:\\|/dev/null\\|/proc/' | grep -- '->'; true"),
        )
        .await;
    assert_eq!(output, "");
    let workload = bench.start(&bench.spec(&["sleep", "1000"])).await;
    let exec = workload.as_exec().unwrap();
    let wanted =
        |args: &[&str]| ExecSpec { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..ExecSpec::default() };
    let stream = exec
        .exec(
            "fds",
            wanted(&[
                "sh",
                "-c",
                "ls -l /proc/self/fd 2>/dev/null | grep -v 'pipe:\\|/dev/null\\|/proc/' | grep -- '->'; true",
            ]),
        )
        .await
        .unwrap()
        .stream;
    let mut bytes = Vec::new();
    blocking(stream).read_to_end(&mut bytes).unwrap();
    assert_eq!(frames(&bytes), (String::new(), String::new()));
    for number in 3..20 {
        let cwd = format!("/proc/self/fd/{number}");
        let refused = exec.exec(&cwd, ExecSpec { cwd: Some(cwd.clone()), ..wanted(&["true"]) }).await;
        assert!(refused.is_err(), "{cwd}");
        let mut spec = bench.spec(&["pwd"]);
        spec.cwd = cwd.clone();
        match bench.create(&spec).await {
            Err(_) => assert!(!bench.cgroup(&spec).exists()),
            Ok(_) => panic!("{cwd} was taken as the working directory"),
        }
    }
    workload.delete().await.unwrap();
}

/// CVE-2025-31133: /dev/null of the image swapped for a link, so that masking opens up what it should hide.
#[tokio::test(flavor = "multi_thread")]
async fn masked_paths_stay_masked() {
    let bench = Bench::new();
    std::fs::create_dir_all(bench.image().join("dev")).unwrap();
    std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", bench.image().join("dev/null")).unwrap();
    std::os::unix::fs::symlink("/proc/sysrq-trigger", bench.image().join("dev/console")).unwrap();
    let output = bench
        .output(&bench.sh(
            "stat -c '%t:%T' /dev/null; cat /proc/kcore 2>/dev/null | head -c 1 | wc -c; cat /proc/timer_list | wc -c; ls /sys/firmware | wc -l; \
             (echo x > /proc/sysrq-trigger) 2>/dev/null && echo wrote; (echo x > /proc/sys/kernel/core_pattern) 2>/dev/null && echo wrote; true",
        ))
        .await;
    assert_eq!(output, "1:3\n0\n0\n0\n");
}

/// CVE-2025-52565: a link of the image where the terminal is mounted.
#[tokio::test(flavor = "multi_thread")]
async fn the_console_is_mounted_over_nothing_else() {
    let bench = Bench::new();
    std::os::unix::fs::symlink("/proc/sysrq-trigger", bench.image().join("dev/console")).unwrap();
    let mut spec = bench.sh(
        "test -c /dev/console && stat -c %t /dev/console; mount | grep -c 'on /proc/sysrq-trigger type devpts'; true",
    );
    spec.tty = true;
    assert_eq!(bench.output(&spec).await, "88\r\n0\r\n");
}

/// CVE-2025-52881: mounts over /proc, by name or through links of the image.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_mounted_over_the_kernels_files() {
    let bench = Bench::new();
    let fake = bench.dir.path().join("fake");
    std::fs::create_dir(&fake).unwrap();
    for (name, to) in [("innocent", "/proc"), ("deeper", "proc/sys"), ("system", "../../sys/fs")] {
        std::os::unix::fs::symlink(to, bench.image().join(name)).unwrap();
    }
    for target in
        ["/proc", "/proc/self/attr", "/sys/fs/cgroup", "/innocent", "/innocent/sys", "/deeper", "/system", "/"]
    {
        let mut spec = bench.spec(&["true"]);
        spec.mounts = vec![bind(&fake, target)];
        let error = bench.create(&spec).await.err().unwrap_or_else(|| panic!("{target} was taken"));
        assert_eq!(error.kind(), ErrorKind::Invalid, "{target}: {error:?}");
    }
    // Links lead inside the container, never to the host.
    std::fs::create_dir_all(bench.image().join(bench.dir.path().strip_prefix("/").unwrap())).unwrap();
    std::os::unix::fs::symlink(bench.dir.path(), bench.image().join("out")).unwrap();
    let mut spec = bench.sh("ls -d /out/*");
    spec.mounts = vec![bind(&fake, "/out/there")];
    let output = bench.output(&spec).await;
    assert!(output.ends_with("/there\n"), "{output}");
    assert!(!bench.dir.path().join("there").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_and_system_calls_are_dockers() {
    let bench = Bench::new();
    let script = "grep -E 'Cap(Prm|Bnd|Inh|Amb)|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'; \
                  unshare -U true 2>/dev/null && echo unshared; mount -t tmpfs x /tmp 2>/dev/null && echo mounted; mknod /tmp/d b 8 0 2>/dev/null && cat /tmp/d 2>/dev/null && echo device; true";
    let expected = "CapInh:0000000000000000\nCapPrm:00000000a80425fb\nCapBnd:00000000a80425fb\nCapAmb:0000000000000000\nNoNewPrivs:0\nSeccomp:2\n";
    assert_eq!(bench.output(&bench.sh(script)).await, expected);

    // A process beside it has no more: libcontainer's own exec leaves the filter out.
    let workload = bench.start(&bench.spec(&["sleep", "1000"])).await;
    let exec = workload.as_exec().unwrap();
    let wanted = ExecSpec { args: ["sh", "-c", script].map(str::to_owned).to_vec(), ..ExecSpec::default() };
    let mut bytes = Vec::new();
    blocking(exec.exec("status", wanted.clone()).await.unwrap().stream).read_to_end(&mut bytes).unwrap();
    assert_eq!(frames(&bytes).0, expected);
    let privileged = ExecSpec {
        privileged: true,
        args: ["sh", "-c", "grep CapEff /proc/self/status"].map(str::to_owned).to_vec(),
        ..wanted
    };
    let mut bytes = Vec::new();
    blocking(exec.exec("privileged", privileged).await.unwrap().stream).read_to_end(&mut bytes).unwrap();
    assert!(!frames(&bytes).0.contains("a80425fb"));
    workload.delete().await.unwrap();

    let mut spec = bench.sh("grep -E 'CapPrm|NoNewPrivs|Seccomp:' /proc/self/status | tr -d '\\t'; chmod 700 /tmp 2>/dev/null || echo denied");
    spec.security.cap_drop = vec!["ALL".into()];
    spec.security.no_new_privileges = true;
    spec.security.seccomp = Seccomp::Profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO"}]}"#.into(),
    );
    assert_eq!(bench.output(&spec).await, "CapPrm:0000000000000000\nNoNewPrivs:1\nSeccomp:2\ndenied\n");

    let mut spec = bench.sh("grep Seccomp: /proc/self/status | tr -d '\\t'; mount -t tmpfs x /tmp && echo mounted; test -e /dev/kmsg && echo kmsg");
    spec.security.privileged = true;
    let output = bench.output(&spec).await;
    assert!(output.starts_with("Seccomp:0\nmounted\n"), "{output}");
}

/// Loading the filter takes powers that init has for that long only, whoever it becomes and whatever it may.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_loading_a_filter_takes_stays() {
    let bench = Bench::new();
    let show = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)|Seccomp:' /proc/self/status | tr -d '\t'";
    let caps = |own: &str, bounding: &str| {
        format!(
            "CapInh:0000000000000000\nCapPrm:{own}\nCapEff:{own}\nCapBnd:{bounding}\nCapAmb:0000000000000000\nSeccomp:2\n"
        )
    };
    let none = "0000000000000000";
    for (user, drop, add, own, bounding) in [
        ("", "", "", "00000000a80425fb", "00000000a80425fb"),
        ("1000:1000", "", "", none, "00000000a80425fb"),
        ("", "ALL", "", none, none),
        ("1000:1000", "ALL", "", none, none),
        ("", "SETPCAP", "", "00000000a80424fb", "00000000a80424fb"),
        ("", "ALL", "SYS_ADMIN", "0000000000200000", "0000000000200000"),
    ] {
        for init in [false, true] {
            let mut spec = bench.sh(show);
            spec.user = user.into();
            spec.init = init;
            spec.security.cap_drop = Vec::from_iter((!drop.is_empty()).then(|| drop.to_owned()));
            spec.security.cap_add = Vec::from_iter((!add.is_empty()).then(|| add.to_owned()));
            assert_eq!(bench.output(&spec).await, caps(own, bounding), "{user:?} -{drop} +{add} init {init}");
        }
    }
    // Process 1 of `--init` is bound as the program is.
    let mut spec = bench.sh("grep -E 'Cap(Prm|Bnd)|Seccomp:' /proc/1/status | tr -d '\t'");
    (spec.init, spec.security.cap_drop) = (true, vec!["ALL".into()]);
    assert_eq!(bench.output(&spec).await, format!("CapPrm:{none}\nCapBnd:{none}\nSeccomp:2\n"));

    // A profile that forbids giving them back is refused; nothing runs with more than it was given.
    let mut spec = bench.sh("echo ran");
    spec.security.seccomp = Seccomp::Profile(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["capset"],"action":"SCMP_ACT_ERRNO"}]}"#.into(),
    );
    let refusal = bench.create(&spec).await.err().unwrap().to_string();
    assert!(refusal.contains("cannot drop capabilities, which the seccomp profile may forbid"), "{refusal}");
}

/// Making device nodes is allowed, as in Docker; using those that are not the container's must not be.
#[tokio::test(flavor = "multi_thread")]
async fn devices_of_the_host_are_out_of_reach() {
    let bench = Bench::new();
    // No mount option forbids devices here, and no driver has these numbers: without rules it would be "No such device".
    let host = tempfile::Builder::new().prefix("bireme-").tempdir_in("/dev").unwrap();
    for name in ["taken", "given"] {
        let node = host.path().join(name);
        let minor = if name == "given" { "1" } else { "0" };
        assert!(std::process::Command::new("mknod").arg(node).args(["c", "240", minor]).status().unwrap().success());
    }
    let mut spec = bench.sh("mknod /dev/block b 240 0; mknod /dev/other c 240 2; mknod /dev/nothing c 1 3; \
         for file in /dev/block /dev/other /dev/extra /host/taken /host/given /dev/nothing /dev/null; do \
           for how in '<' '>'; do echo \"$file $how $(eval \": $how $file\" 2>&1 | sed 's/.*: //')\"; done; \
         done");
    spec.mounts = vec![bind(host.path(), "/host")];
    spec.security.devices = vec![Device {
        host: host.path().join("given").display().to_string(),
        target: "/dev/extra".into(),
        permissions: "r".into(),
    }];
    let (refused, none) = ("Operation not permitted", "No such device or address");
    let expected = [
        ("/dev/block", refused, refused),
        ("/dev/other", refused, refused),
        ("/dev/extra", none, refused),
        ("/host/taken", refused, refused),
        ("/host/given", none, refused),
        ("/dev/nothing", "", ""),
        ("/dev/null", "", ""),
    ];
    let expected: String =
        expected.iter().map(|(file, read, write)| format!("{file} < {read}\n{file} > {write}\n")).collect();
    assert_eq!(bench.output(&spec).await, expected);

    // A process beside it is bound as well.
    let workload = bench.start(&bench.spec(&["sleep", "1000"])).await;
    let args = ["sh", "-c", "mknod /dev/block b 240 0; : < /dev/block"].map(str::to_owned).to_vec();
    let exec = workload.as_exec().unwrap().exec("device", ExecSpec { args, ..ExecSpec::default() }).await.unwrap();
    let mut bytes = Vec::new();
    blocking(exec.stream).read_to_end(&mut bytes).unwrap();
    assert!(frames(&bytes).1.contains(refused));
    workload.delete().await.unwrap();

    // And whoever is privileged is not.
    let mut spec = bench.sh("mknod /dev/block b 240 0; (: < /dev/block) 2>&1; true");
    spec.security.privileged = true;
    let output = bench.output(&spec).await;
    assert!(output.contains(none), "{output}");
}

/// A link of the joined container's would be followed on the host.
#[tokio::test(flavor = "multi_thread")]
async fn shared_memory_is_not_looked_up_outside() {
    let bench = Bench::new();
    std::fs::write(bench.dir.path().join("secret"), "").unwrap();
    let place = bench.dir.path().display();
    let mut first =
        bench.sh(&format!("umount /dev/shm && rmdir /dev/shm && ln -s {place} /dev/shm && echo done; exec sleep 1000"));
    first.security.privileged = true;
    let running = bench.start(&first).await;
    until("the link", || (bench.log(&first) == "done\n").then_some(())).await;
    let mut second = bench.sh("ls /dev/shm");
    second.namespaces.ipc = NamespaceMode::Workload(first.id.clone());
    let refused = bench.create(&second).await.err().unwrap();
    assert!(refused.message().starts_with("cannot share /dev/shm"), "{refused:?}");
    assert!(!bench.cgroup(&second).exists());
    running.delete().await.unwrap();
}

/// The daemon's groups are not the container's.
#[tokio::test(flavor = "multi_thread")]
async fn groups_of_the_daemon_are_not_inherited() {
    let bench = Bench::new();
    assert_eq!(bench.output(&bench.sh("grep Groups: /proc/self/status | tr -d '\\t '")).await, "Groups:0\n");
    let mut spec = bench.sh("grep Groups: /proc/self/status | tr -d '\\t '");
    spec.security.group_add = vec!["wheel".into(), "555".into()];
    assert_eq!(bench.output(&spec).await, "Groups:010555\n");
}

/// A write to a closed pipe must end the writer, as everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn signals_have_their_defaults() {
    let bench = Bench::new();
    let output = bench.output(&bench.sh("grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\t'; umask")).await;
    let lines: Vec<&str> = output.lines().collect();
    let ignored = u64::from_str_radix(lines[1].strip_prefix("SigIgn:").unwrap(), 16).unwrap();
    // 32 and 33 belong to the C library, which lets nobody change them; they come from whoever runs the tests.
    assert_eq!((lines[0], ignored & !0x1_8000_0000, lines[2]), ("SigBlk:0000000000000000", 0, "0022"));
}
