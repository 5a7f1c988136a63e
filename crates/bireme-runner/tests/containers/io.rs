//! Standard streams, terminals, logs.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use bireme_core::executor::LogTarget;
use bireme_core::{ErrorKind, ExecSpec, Executor as _};

use crate::bench::{Bench, blocking, end, frames, read_log, until};

#[tokio::test(flavor = "multi_thread")]
async fn input_reaches_it_and_its_end_too() {
    let bench = Bench::new();
    let mut spec = bench.sh("cat; echo done >&2");
    (spec.open_stdin, spec.stdin_once) = (true, true);
    let workload = bench.create(&spec).await.unwrap();
    let stream = blocking(workload.as_attach().unwrap().attach(true).await.unwrap());
    workload.start().await.unwrap();
    let (out, err) = tokio::task::spawn_blocking(move || {
        // More than any pipe or buffer holds, both ways at once.
        let text = "0123456789abcdef\n".repeat(40_000);
        let writer = {
            let (stream, text) = (stream.try_clone().unwrap(), text.clone());
            std::thread::spawn(move || {
                (&stream).write_all(text.as_bytes()).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            })
        };
        let mut bytes = Vec::new();
        (&stream).read_to_end(&mut bytes).unwrap();
        writer.join().unwrap();
        let (out, err) = frames(&bytes);
        assert_eq!(out.len(), text.len());
        (out == text, err)
    })
    .await
    .unwrap();
    assert_eq!((out, err.as_str()), (true, "done\n"));
    assert_eq!(end(&*workload).await.code, 0);
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_ends_input_only_once() {
    let bench = Bench::new();
    for once in [true, false] {
        let mut spec = bench.sh("cat; echo end");
        (spec.open_stdin, spec.stdin_once) = (true, once);
        let workload = bench.start(&spec).await;
        let stream = workload.as_attach().unwrap().attach(true).await.unwrap();
        blocking(stream).write_all(b"first\n").unwrap();
        if once {
            end(&*workload).await;
            assert_eq!(bench.log(&spec), "first\nend\n");
        } else {
            until("the first", || (bench.log(&spec) == "first\n").then_some(())).await;
            let stream = blocking(workload.as_attach().unwrap().attach(true).await.unwrap());
            (&stream).write_all(b"second\n").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            end(&*workload).await;
            assert_eq!(bench.log(&spec), "first\nsecond\nend\n");
        }
        workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_one() {
    let bench = Bench::new();
    // With an init the program must be in the foreground all the same.
    for init in [false, true] {
        let mut spec = bench.sh("tty; stty size; read line; echo \"got $line\"; stty size; echo $TERM");
        (spec.tty, spec.open_stdin, spec.stdin_once) = (true, true, true);
        spec.user = "bob".into();
        spec.init = init;
        let workload = bench.create(&spec).await.unwrap();
        let attach = workload.as_attach().unwrap();
        attach.resize(80, 24).await.unwrap();
        let stream = blocking(attach.attach(true).await.unwrap());
        workload.start().await.unwrap();
        until("its size", || bench.log(&spec).contains("24 80").then_some(())).await;
        attach.resize(132, 43).await.unwrap();
        (&stream).write_all(b"word\n").unwrap();
        let bytes = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            (&stream).read_to_end(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        });
        assert_eq!(end(&*workload).await.code, 0);
        let text = bytes.await.unwrap();
        assert_eq!(text, "/dev/pts/0\r\n24 80\r\nword\r\ngot word\r\n43 132\r\nxterm\r\n");
        workload.delete().await.unwrap();
    }

    let plain = bench.start(&bench.spec(&["sleep", "1000"])).await;
    assert_eq!(plain.as_attach().unwrap().resize(1, 1).await.unwrap_err().kind(), ErrorKind::Conflict);
    plain.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_can_have_a_terminal() {
    let bench = Bench::new();
    let workload = bench.start(&bench.spec(&["sleep", "1000"])).await;
    let exec = workload.as_exec().unwrap();
    let wanted = ExecSpec {
        args: ["sh", "-c", "tty; stty size; read x; stty size; echo $x"].map(str::to_owned).to_vec(),
        user: Some("bob".into()),
        tty: true,
        stdin: true,
        size: Some((100, 30)),
        ..ExecSpec::default()
    };
    let stream = blocking(exec.exec("terminal", wanted).await.unwrap().stream);
    let stream = tokio::task::spawn_blocking(move || {
        let mut seen = String::new();
        let mut buffer = [0; 256];
        while !seen.contains("30 100") {
            let count = (&stream).read(&mut buffer).unwrap();
            assert!(count > 0, "{seen}");
            seen.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        assert!(seen.starts_with("/dev/pts/0\r\n"), "{seen}");
        stream
    })
    .await
    .unwrap();
    exec.exec_resize("terminal", 50, 20).await.unwrap();
    let rest = tokio::task::spawn_blocking(move || {
        (&stream).write_all(b"word\n").unwrap();
        let mut rest = String::new();
        (&stream).read_to_string(&mut rest).unwrap();
        rest
    });
    assert_eq!(rest.await.unwrap(), "word\r\n20 50\r\nword\r\n");
    assert_eq!(exec.exec_wait("terminal").await.unwrap(), 0);
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_nothing_is_cut_off_and_the_log_is_whole() {
    let bench = Bench::new();
    let spec = bench.sh(
        "read x < /dev/null; i=0; while [ $i -lt 400 ]; do head -c 8192 /dev/zero | tr '\\0' x; echo; i=$((i+1)); done",
    );
    let workload = bench.create(&spec).await.unwrap();
    let frozen = workload.as_attach().unwrap().attach(false).await.unwrap();
    workload.start().await.unwrap();
    assert_eq!(end(&*workload).await.code, 0);
    assert_eq!(bench.log(&spec).len(), 400 * 8193);
    drop(frozen);
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_client_loses_nothing() {
    let bench = Bench::new();
    let spec = bench.sh("i=0; while [ $i -lt 300 ]; do head -c 8192 /dev/zero; i=$((i+1)); done");
    let workload = bench.create(&spec).await.unwrap();
    let stream = blocking(workload.as_attach().unwrap().attach(false).await.unwrap());
    workload.start().await.unwrap();
    let bytes = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            std::thread::sleep(Duration::from_millis(2));
            match (&stream).read(&mut buffer).unwrap() {
                0 => return bytes,
                count => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    });
    assert_eq!(frames(&bytes.await.unwrap()).0.len(), 300 * 8192);
    workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_rotate() {
    let bench = Bench::new();
    let spec = bench.sh("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done");
    let mut work = bench.prepare(&spec);
    let path = bench.folder(&spec).join("log");
    work.log = LogTarget { path: Some(path.clone()), max_size: Some(4096), max_files: 3 };
    let workload = bench.executor.create(work).await.unwrap();
    workload.start().await.unwrap();
    end(&*workload).await;
    workload.delete().await.unwrap();
    let numbered = |number: u32| bench.folder(&spec).join(format!("log.{number}"));
    assert!(numbered(2).exists() && !numbered(3).exists());
    for file in [path.clone(), numbered(1), numbered(2)] {
        assert!(std::fs::metadata(&file).unwrap().len() <= 4096 + 200);
    }
    let text = [numbered(2), numbered(1), path].map(|file| read_log(&file)).concat();
    let numbers: Vec<u32> = text.lines().map(|line| line.strip_prefix("line ").unwrap().parse().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&299));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no line is lost between files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_does_not_stop_it() {
    let bench = Bench::new();
    let spec = bench.sh("echo lost; exit 6");
    let mut work = bench.prepare(&spec);
    work.log.path = Some("/dev/full".into());
    let workload = bench.executor.create(work).await.unwrap();
    workload.start().await.unwrap();
    assert_eq!(end(&*workload).await.code, 6);
    workload.delete().await.unwrap();
    let said = bench.runner_log(&spec);
    assert_eq!(said.matches("not logged any more").count(), 1, "{said}");
}
