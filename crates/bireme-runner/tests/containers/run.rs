//! Starting, ending, and what a program finds around it.

use bireme_core::spec::{MountSource, NamespaceMode, NetworkMode, Propagation, Signal};
use bireme_core::{ErrorKind, ExecSpec, Executor as _};

use crate::bench::{Bench, end, until};

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_are_the_programs_own() {
    let bench = Bench::new();
    for (script, expected) in [("true", 0), ("exit 42", 42), ("kill -9 $$; sleep 1", 137), ("kill -TERM $$; exit 3", 3)]
    {
        // Process 1 cannot be ended by its own signals: a child stands in for it.
        let script =
            if script.starts_with("kill -9") { "sh -c 'kill -9 $$'; exit $?".to_owned() } else { script.to_owned() };
        let (exit, _) = bench.run(&bench.sh(&script)).await;
        assert_eq!(exit.code, expected, "{script}");
        assert_eq!(exit.error, None);
        assert!(!exit.oom_killed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_end_it_with_128_and_their_number() {
    let bench = Bench::new();
    let mut spec = bench.spec(&["sleep", "1000"]);
    spec.init = true;
    for (signal, expected) in [(Signal::TERM, 143), (Signal::KILL, 137)] {
        let workload = bench.start(&spec).await;
        until("the sleep", || bench.cgroup(&spec).processes().get(1).copied()).await;
        workload.signal(signal).await.unwrap();
        assert_eq!(end(&*workload).await.code, expected);
        assert_eq!(workload.signal(signal).await.unwrap_err().kind(), ErrorKind::Conflict);
        workload.delete().await.unwrap();
    }
}

/// Whoever was ended by a signal without a name was missed, and waited for until the end of days.
#[tokio::test(flavor = "multi_thread")]
async fn real_time_signals_end_it_too() {
    let bench = Bench::new();
    // No signal ends process 1 of a namespace of its own, but for KILL.
    for (init, pid, processes) in [(true, NamespaceMode::Private, 2), (false, NamespaceMode::Host, 1)] {
        for signal in ["RTMIN", "40", "RTMAX"].map(|name| Signal::parse(name).unwrap()) {
            let mut spec = bench.spec(&["sleep", "1000"]);
            (spec.init, spec.namespaces.pid) = (init, pid.clone());
            let workload = bench.start(&spec).await;
            until("the sleep", || (bench.cgroup(&spec).processes().len() == processes).then_some(())).await;
            workload.signal(signal).await.unwrap();
            assert_eq!(end(&*workload).await.code, 128 + signal.0, "{pid:?}");
            workload.delete().await.unwrap();
        }
    }
    let workload = bench.start(&bench.spec(&["sleep", "1000"])).await;
    let exec = workload.as_exec().unwrap();
    let args = ["sh", "-c", "kill -40 $$; sleep 1000"].map(str::to_owned).to_vec();
    exec.exec("it", ExecSpec { args, ..ExecSpec::default() }).await.unwrap();
    assert_eq!(exec.exec_wait("it").await.unwrap(), 168);
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_cannot_run_says_why() {
    let bench = Bench::new();
    let cases = [
        ("nope", 127, "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "permission denied"),
    ];
    for init in [false, true] {
        for (program, code, message) in cases {
            let mut spec = bench.spec(&[program]);
            spec.init = init;
            let workload = bench.create(&spec).await.unwrap();
            let error = workload.start().await.unwrap_err();
            assert_eq!(error.exit_code(), Some(code), "{program}: {error:?}");
            assert!(error.message().contains(message), "{program}: {error:?}");
            let exit = end(&*workload).await;
            assert_eq!((exit.code, exit.error.is_some()), (code, true));
            workload.delete().await.unwrap();
            assert!(!bench.cgroup(&spec).exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_dockers() {
    let bench = Bench::new();
    let mut spec = bench.sh("env | sort; pwd; hostname; cat /etc/hosts; id");
    spec.env = vec!["B=2".into(), "A=x y".into(), "PATH=/bin".into()];
    spec.cwd = "/made/for/it".into();
    spec.hostname = "box".into();
    spec.user = "bob".into();
    let output = bench.output(&spec).await;
    for line in
        ["A=x y", "B=2", "HOME=/home/bob", "HOSTNAME=box", "PATH=/bin", "/made/for/it", "box", "127.0.0.1\tlocalhost"]
    {
        assert!(output.lines().any(|got| got == line), "{line} in {output}");
    }
    assert!(
        output.contains("uid=1000(bob) gid=1001(bob) groups=1001(bob),10(wheel)")
            || output.contains("uid=1000(bob) gid=1001(bob) groups=10(wheel)"),
        "{output}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_refused_and_nothing_stays() {
    let bench = Bench::new();
    let mut spec = bench.spec(&["true"]);
    spec.user = "nobody-here".into();
    let error = bench.create(&spec).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("nobody-here"), "{error}");
    assert!(!bench.cgroup(&spec).exists());
    assert!(!bench.folder(&spec).join("run/runner.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_where_they_belong_and_read_only_where_asked() {
    let bench = Bench::new();
    let outside = bench.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "hello\n").unwrap();
    let bind = |target: &str, read_only| bireme_core::spec::Mount {
        source: MountSource::Bind { path: outside.clone(), propagation: Propagation::Private, recursive: true },
        target: target.into(),
        read_only,
    };
    let mut spec = bench.sh(
        "cat /data/deep/file; echo new > /data/deep/new || exit 1; echo no > /ro/no 2>/dev/null && exit 2; \
         mount | grep ' /tmpfs ' ; touch /tmpfs/x || exit 3; touch /root/written || exit 4; grep -c . /dev/shm/x 2>/dev/null; df -k /dev/shm | tail -1",
    );
    spec.mounts = vec![
        bind("/data/deep", false),
        bind("/ro", true),
        bireme_core::spec::Mount {
            source: MountSource::Tmpfs { size: Some(1 << 20), mode: Some(0o700), options: vec![] },
            target: "/tmpfs".into(),
            read_only: false,
        },
    ];
    spec.shm_size = 1 << 20;
    let output = bench.output(&spec).await;
    assert!(output.starts_with("hello\n"), "{output}");
    assert!(output.contains("size=1024k") && output.contains("noexec"), "{output}");
    assert!(output.contains("1024"), "{output}");
    assert_eq!(std::fs::read_to_string(outside.join("new")).unwrap(), "new\n");
    assert!(!outside.join("no").exists());
    assert!(bench.folder(&spec).join("upper/root/written").exists());
    assert!(!bench.image().join("root/written").exists());

    let mut spec = bench.sh("touch /x 2>/dev/null && exit 1; touch /dev/shm/y");
    spec.security.read_only_root = true;
    bench.output(&spec).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_layers_than_a_page_of_options_holds() {
    let bench = Bench::new();
    let spec = bench.sh("ls /layers | wc -l; cat /last");
    let mut work = bench.prepare(&spec);
    let bireme_core::Program::Layers { lower, .. } = &mut work.program else { panic!() };
    for number in 0..150 {
        let layer = bench.dir.path().join(format!("a-rather-long-name-for-a-layer-as-digests-are-long-too-{number}"));
        std::fs::create_dir_all(layer.join("layers")).unwrap();
        std::fs::write(layer.join("layers").join(number.to_string()), "").unwrap();
        std::fs::write(layer.join("last"), number.to_string()).unwrap();
        lower.push(layer);
    }
    let workload = bench.executor.create(work).await.unwrap();
    workload.start().await.unwrap();
    assert_eq!(end(&*workload).await.code, 0);
    assert_eq!(bench.log(&spec), "150\n149");
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn init_reaps_orphans_and_forwards_signals() {
    let bench = Bench::new();
    let mut spec = bench.sh(
        "trap 'echo got it; exit 7' TERM; (sh -c 'sleep 0.1 & exit' &) ; echo ready; while true; do sleep 0.05; done",
    );
    spec.init = true;
    let workload = bench.start(&spec).await;
    until("the shell", || bench.log(&spec).contains("ready").then_some(())).await;
    // An orphan that ended must not stay as a zombie: only sleeps come and go.
    until("no zombie", || {
        let zombies =
            bench.cgroup(&spec).processes().into_iter().filter(|pid| {
                std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
            });
        (zombies.count() == 0).then_some(())
    })
    .await;
    workload.signal(Signal::TERM).await.unwrap();
    assert_eq!(end(&*workload).await.code, 7);
    assert!(bench.log(&spec).contains("got it"));
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loopback_is_up() {
    let bench = Bench::new();
    let output = bench.output(&bench.sh("ip addr show lo; ip link | wc -l")).await;
    assert!(output.contains("127.0.0.1/8") && output.contains("UP"), "{output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_can_be_the_hosts_or_anothers() {
    let bench = Bench::new();
    let mut first = bench.spec(&["sleep", "1000"]);
    first.hostname = "first".into();
    let running = bench.start(&first).await;
    let mut second = bench.sh("hostname; ps | grep -c 'sleep 1000'; readlink /proc/self/ns/net");
    second.namespaces.pid = NamespaceMode::Workload(first.id.clone());
    second.namespaces.uts = NamespaceMode::Workload(first.id.clone());
    second.namespaces.ipc = NamespaceMode::Workload(first.id.clone());
    second.namespaces.network = NetworkMode::Workload(first.id.clone());
    let output = bench.output(&second).await;
    let net = std::fs::read_link(format!("/proc/{}/ns/net", running.pid().unwrap())).unwrap();
    assert!(output.starts_with("first\n") && output.contains(net.to_str().unwrap()), "{output}");

    let mut host = bench.sh("readlink /proc/self/ns/net; readlink /proc/self/ns/uts; readlink /proc/self/ns/pid");
    host.namespaces.network = NetworkMode::Host;
    host.namespaces.uts = NamespaceMode::Host;
    host.namespaces.pid = NamespaceMode::Host;
    let output = bench.output(&host).await;
    for kind in ["net", "uts", "pid"] {
        let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(output.contains(own.to_str().unwrap()), "{kind}: {output}");
    }
    running.delete().await.unwrap();
    // Whoever is named must be there.
    let mut lost = bench.spec(&["true"]);
    lost.namespaces.pid = NamespaceMode::Workload(first.id.clone());
    assert_eq!(bench.create(&lost).await.err().unwrap().kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shares_the_ipc_namespace_shares_its_memory() {
    let bench = Bench::new();
    let first =
        bench.sh("echo first > /dev/shm/words; while [ ! -e /dev/shm/end ]; do sleep 0.01; done; cat /dev/shm/end");
    let running = bench.start(&first).await;
    let mut second = bench.sh("grep -c . /dev/shm/words; echo second >> /dev/shm/words; exec sleep 1000");
    second.namespaces.ipc = NamespaceMode::Workload(first.id.clone());
    let other = bench.start(&second).await;
    until("the second", || (bench.log(&second) == "1\n").then_some(())).await;
    // Through another that shares it.
    let mut third = bench.sh("cat /dev/shm/words; grep -o '/dev/shm tmpfs rw,nosuid,nodev,noexec' /proc/mounts");
    third.namespaces.ipc = NamespaceMode::Workload(second.id.clone());
    let output = bench.output(&third).await;
    assert!(output.starts_with("first\nsecond\n/dev/shm tmpfs rw,nosuid,nodev,noexec\n"), "{output}");
    // It is there for the others when those who came later are gone.
    other.delete().await.unwrap();
    assert!(!bench.folder(&second).join("run/shm").exists());
    let mut last = bench.sh("echo the end > /dev/shm/new && mv /dev/shm/new /dev/shm/end");
    last.namespaces.ipc = NamespaceMode::Workload(first.id.clone());
    bench.output(&last).await;
    assert_eq!(end(&*running).await.code, 0);
    assert_eq!(bench.log(&first), "the end\n");
    running.delete().await.unwrap();
}

/// Its number goes to another process once a process has ended: what is kept of it must not be taken for the new one's.
#[tokio::test(flavor = "multi_thread")]
async fn an_exec_that_gets_the_number_of_one_that_ended_has_its_own_end() {
    let bench = Bench::new();
    let workload = bench.start(&bench.spec(&["sleep", "1000"])).await;
    let exec = workload.as_exec().unwrap();
    let run =
        |code: u32| ExecSpec { args: vec!["sh".into(), "-c".into(), format!("exit {code}")], ..ExecSpec::default() };
    let first = exec.exec("first", run(3)).await.unwrap().pid;
    assert_eq!(exec.exec_wait("first").await.unwrap(), 3);
    let mut same = 0;
    for round in 0..200 {
        // A helper comes before the process; whatever else starts on the machine may come between.
        let _ = std::fs::write("/proc/sys/kernel/ns_last_pid", (first - 2).to_string());
        let name = format!("again{round}");
        let pid = exec.exec(&name, run(4)).await.unwrap().pid;
        let end = tokio::time::timeout(std::time::Duration::from_secs(20), exec.exec_wait(&name)).await;
        assert_eq!(end.expect("its end is told").unwrap(), 4, "round {round}");
        same += u32::from(pid == first);
        if same == 3 {
            break;
        }
    }
    assert_eq!(same, 3, "the number came again");
    workload.signal(Signal::KILL).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_runs_beside_it() {
    let bench = Bench::new();
    let mut spec = bench.spec(&["sleep", "1000"]);
    spec.env = vec!["ONE=1".into()];
    let workload = bench.start(&spec).await;
    let exec = workload.as_exec().unwrap();
    let run =
        |args: &[&str]| ExecSpec { args: args.iter().map(|arg| (*arg).to_owned()).collect(), ..ExecSpec::default() };

    let mut wanted = run(&["sh", "-c", "echo $ONE $TWO; pwd; id -u; cat; echo oops >&2; exit 5"]);
    wanted.env = vec!["TWO=2".into()];
    wanted.cwd = Some("/tmp".into());
    wanted.user = Some("bob".into());
    wanted.stdin = true;
    let started = exec.exec("first", wanted).await.unwrap();
    assert!(started.pid > 0);
    let stream = crate::bench::blocking(started.stream);
    let bytes = tokio::task::spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        (&stream).write_all(b"input\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut bytes = Vec::new();
        (&stream).read_to_end(&mut bytes).unwrap();
        bytes
    })
    .await
    .unwrap();
    assert_eq!(crate::bench::frames(&bytes), ("1 2\n/tmp\n1000\ninput\n".to_owned(), "oops\n".to_owned()));
    assert_eq!(exec.exec_wait("first").await.unwrap(), 5);
    // The code is kept.
    assert_eq!(exec.exec_wait("first").await.unwrap(), 5);
    assert_eq!(exec.exec_wait("unknown").await.unwrap_err().kind(), ErrorKind::NotFound);

    for (program, code, message) in
        [("nope", 127, "exec: \"nope\": executable file not found in $PATH"), ("/etc/passwd", 126, "permission denied")]
    {
        let error = exec.exec(program, run(&[program])).await.err().unwrap();
        assert_eq!(error.exit_code(), Some(code));
        assert!(error.message().contains(message), "{error}");
    }
    let mut nowhere = run(&["true"]);
    nowhere.cwd = Some("/not/there".into());
    assert!(exec.exec("nowhere", nowhere).await.err().unwrap().message().contains("/not/there"));
    let mut stranger = run(&["true"]);
    stranger.user = Some("stranger".into());
    assert!(exec.exec("stranger", stranger).await.err().unwrap().message().contains("stranger"));

    // One that ends before anybody asks, many at once.
    for number in 0..10 {
        exec.exec(&format!("quick{number}"), run(&["sh", "-c", &format!("exit {number}")])).await.unwrap();
    }
    for number in 0..10 {
        assert_eq!(exec.exec_wait(&format!("quick{number}")).await.unwrap(), number);
    }
    let table = workload.processes("-o pid,cmd").await.unwrap();
    assert_eq!(table.titles, ["PID", "CMD"]);
    assert_eq!(table.rows.len(), 1, "{table:?}");
    assert_eq!(table.rows[0][1], "sleep 1000");
    // What still runs ends with the container.
    exec.exec("long", run(&["sleep", "1000"])).await.unwrap();
    let waiting = exec.exec_wait("long");
    let (code, ()) = tokio::join!(waiting, async { workload.signal(Signal::KILL).await.unwrap() });
    assert_eq!(code.unwrap(), 137);
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_before_start_misses_nothing() {
    let bench = Bench::new();
    let workload = bench.create(&bench.sh("echo out; echo err >&2")).await.unwrap();
    let stream = crate::bench::blocking(workload.as_attach().unwrap().attach(false).await.unwrap());
    workload.start().await.unwrap();
    let bytes = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut &stream, &mut bytes).unwrap();
        bytes
    });
    assert_eq!(crate::bench::frames(&bytes.await.unwrap()), ("out\n".to_owned(), "err\n".to_owned()));
    end(&*workload).await;
    workload.delete().await.unwrap();
}
