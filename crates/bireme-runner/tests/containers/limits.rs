//! What it may use, and what it used.

use bireme_core::ErrorKind;
use bireme_core::spec::Ulimit;

use crate::bench::{Bench, end, until};

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_limited() {
    let bench = Bench::new();
    let mut spec = bench.spec(&["tail", "/dev/zero"]);
    spec.resources.memory = Some(32 << 20);
    spec.resources.memory_swap = Some(32 << 20);
    let workload = bench.start(&spec).await;
    let exit = end(&*workload).await;
    workload.delete().await.unwrap();
    assert_eq!((exit.code, exit.oom_killed), (137, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_and_seen() {
    let bench = Bench::new();
    let mut spec = bench.sh("cat /sys/fs/cgroup/*/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null | head -1; ulimit -n; exec sleep 1000");
    let resources = &mut spec.resources;
    resources.memory = Some(64 << 20);
    resources.nano_cpus = Some(500_000_000);
    resources.pids = Some(77);
    resources.cpu_shares = Some(512);
    resources.ulimits = vec![Ulimit { name: "nofile".into(), soft: 100, hard: 200 }];
    let workload = bench.start(&spec).await;
    until("its words", || (bench.log(&spec) == "67108864\n100\n").then_some(())).await;
    let stats = workload.stats().await.unwrap();
    assert_eq!((stats.memory_limit, stats.pids_limit, stats.pids), (Some(64 << 20), Some(77), 1));
    assert!(stats.cpu_total > 0 && stats.memory_usage > 0, "{stats:?}");
    let quota = ["cpu/cpu.cfs_quota_us", "cpu.max"].into_iter().find_map(|name| {
        let (controller, file) = name.rsplit_once('/').unwrap_or(("", name));
        let path = format!("/sys/fs/cgroup/{controller}/bireme-{}/{}/{file}", bench.instance, spec.id);
        std::fs::read_to_string(path).ok()
    });
    assert!(quota.unwrap().starts_with("50000"));
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_change_while_it_runs() {
    let bench = Bench::new();
    let mut spec = bench.spec(&["sleep", "1000"]);
    spec.resources.memory = Some(64 << 20);
    let workload = bench.start(&spec).await;
    let limits = workload.as_limits().unwrap();
    let mut more = spec.resources.clone();
    (more.memory, more.memory_swap) = (Some(256 << 20), Some(512 << 20));
    (more.pids, more.nano_cpus, more.cpu_shares) = (Some(33), Some(500_000_000), Some(512));
    more.cpuset = Some("0".to_owned());
    let limit = async || {
        let stats = workload.stats().await.unwrap();
        (stats.memory_limit, stats.pids_limit)
    };
    limits.limit(&spec.resources, &more).await.unwrap();
    assert_eq!(limit().await, (Some(256 << 20), Some(33)));
    // The kernel refuses the last of these: what came before it is put back.
    let mut wrong = spec.resources.clone();
    wrong.cpuset = Some("900".to_owned());
    let refusal = limits.limit(&more, &wrong).await.unwrap_err();
    assert!(refusal.message().contains("cpuset.cpus"), "{refusal:?}");
    assert_eq!(limit().await, (Some(256 << 20), Some(33)));
    limits.limit(&more, &spec.resources).await.unwrap();
    assert_eq!(limit().await, (Some(64 << 20), None));
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_at_rest_takes_little_memory() {
    let bench = Bench::new();
    let spec = bench.spec(&["sleep", "1000"]);
    let workload = bench.start(&spec).await;
    let status = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |text: &str, name: &str| -> u32 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let runner = field(&status(workload.pid().unwrap()), "PPid:");
    until("it to rest", || (field(&status(runner), "VmRSS:") < 3 << 10).then_some(())).await;
    // And it is as good as before.
    let exec = bireme_core::ExecSpec { args: vec!["true".into()], ..Default::default() };
    workload.as_exec().unwrap().exec("x", exec).await.unwrap();
    assert_eq!(workload.as_exec().unwrap().exec_wait("x").await.unwrap(), 0);
    until("it to rest again", || (field(&status(runner), "VmRSS:") < 3 << 10).then_some(())).await;
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_limited() {
    let bench = Bench::new();
    let mut spec = bench.sh("for i in 1 2 3 4 5 6 7 8 9; do sleep 100 & done; echo ok");
    spec.resources.pids = Some(5);
    let (exit, _) = bench.run(&spec).await;
    assert_ne!(exit.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_refused_with_a_reason() {
    let bench = Bench::new();
    let check = async |change: &dyn Fn(&mut bireme_core::WorkloadSpec), kind: ErrorKind, word: &str| {
        let mut spec = bench.spec(&["true"]);
        change(&mut spec);
        let error = bench.create(&spec).await.err().unwrap_or_else(|| panic!("{word} was taken"));
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.message().contains(word), "{error:?}");
        assert!(!bench.cgroup(&spec).exists());
    };
    check(&|spec| spec.resources.memory = Some(1024), ErrorKind::Invalid, "6MB").await;
    check(
        &|spec| spec.resources.ulimits = vec![Ulimit { name: "x".into(), soft: 1, hard: 1 }],
        ErrorKind::Invalid,
        "ulimit",
    )
    .await;
    check(&|spec| spec.resources.cpuset = Some("900".into()), ErrorKind::Invalid, "Requested CPUs are not available")
        .await;
    check(&|spec| spec.resources.nano_cpus = Some(u64::MAX), ErrorKind::Invalid, "Range of CPUs is from 0.01 to").await;
    check(&|spec| spec.security.device_rules = vec!["c 1".into()], ErrorKind::Invalid, "device cgroup rule").await;
    check(&|spec| spec.security.cap_add = vec!["FLY".into()], ErrorKind::Invalid, "FLY").await;
    check(
        &|spec| drop(spec.security.sysctls.insert("kernel.panic".into(), "1".into())),
        ErrorKind::Invalid,
        "kernel.panic",
    )
    .await;
    check(&|spec| spec.args.clear(), ErrorKind::Invalid, "command").await;
    check(&|spec| spec.cwd = "relative".into(), ErrorKind::Invalid, "absolute").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sysctls_and_devices_are_its_own() {
    let bench = Bench::new();
    let mut spec = bench
        .sh("cat /proc/sys/net/core/somaxconn; ls -l /dev/extra; head -c 3 /dev/extra | wc -c; ls /dev | tr '\\n' ' '");
    spec.security.sysctls.insert("net.core.somaxconn".into(), "777".into());
    spec.security.devices = vec![bireme_core::spec::Device {
        host: "/dev/zero".into(),
        target: "/dev/extra".into(),
        permissions: "r".into(),
    }];
    let output = bench.output(&spec).await;
    assert!(output.starts_with("777\ncrw"), "{output}");
    assert!(output.contains("\n3\n"), "{output}");
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue", "fd", "stdin"] {
        assert!(output.split_whitespace().any(|word| word == name), "{name}: {output}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_can_be_paused() {
    let bench = Bench::new();
    let spec = bench.sh("while true; do echo tick; sleep 0.01; done");
    let workload = bench.start(&spec).await;
    until("a tick", || (!bench.log(&spec).is_empty()).then_some(())).await;
    let pause = workload.as_pause().unwrap();
    pause.pause().await.unwrap();
    assert_eq!(pause.pause().await.unwrap_err().kind(), ErrorKind::Conflict);
    let exec = workload
        .as_exec()
        .unwrap()
        .exec("x", bireme_core::ExecSpec { args: vec!["true".into()], ..Default::default() })
        .await;
    assert_eq!(exec.err().unwrap().kind(), ErrorKind::Conflict);
    let before = workload.stats().await.unwrap().cpu_total;
    pause.resume().await.unwrap();
    assert_eq!(pause.resume().await.unwrap_err().kind(), ErrorKind::Conflict);
    until("it to go on", || {
        let log = bench.log(&spec);
        (log.len() > 50).then_some(())
    })
    .await;
    assert!(workload.stats().await.unwrap().cpu_total >= before);
    // What is paused can be killed.
    pause.pause().await.unwrap();
    workload.signal(bireme_core::spec::Signal::KILL).await.unwrap();
    assert_eq!(end(&*workload).await.code, 137);
    workload.delete().await.unwrap();
}
