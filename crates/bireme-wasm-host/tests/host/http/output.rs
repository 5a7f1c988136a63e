//! What instances print.

use std::io::{Read as _, Write as _};

use bireme_core::spec::Signal;

use crate::common::{LIMIT, Rig};

#[tokio::test(flavor = "multi_thread")]
async fn output_is_logged_and_attached() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("chatty", &[]), "probe").await;
    let attach = probe.workload.as_attach().unwrap();
    let mut client = attach.attach(false).await.unwrap();
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    assert_eq!(probe.get("/log?hi").status, 200);
    probe.logged("out hi\n");
    probe.logged("err hi\n");
    let mut frame = [0; 15];
    client.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x07out hi\n");
    // Whoever is attached misses nothing of what comes then.
    for _ in 0..50 {
        let mut client = attach.attach(false).await.unwrap();
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        assert_eq!(probe.get("/log?hi").status, 200);
        client.read_exact(&mut frame).unwrap();
    }
    // Docker's clients attach input to whatever they attach to. What has none takes it and throws it away: nobody is left
    // hanging with it, output goes on, and the end of the input is not the end of the output.
    let mut client = attach.attach(true).await.unwrap();
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.set_write_timeout(Some(LIMIT)).unwrap();
    client.write_all(&vec![b'x'; 4 << 20]).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(probe.get("/log?hi").status, 200);
    client.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x07out hi\n");
    // The end of the component is the end of the output.
    probe.workload.signal(Signal::TERM).await.unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"\x02\0\0\0\0\0\0\x07err hi\n");
    assert_eq!(probe.workload.wait().await.unwrap().code, 0);
    probe.workload.delete().await.unwrap();
}

/// One instance asks for room on more handles of its output than there are places in the log, and keeps them.
#[tokio::test(flavor = "multi_thread")]
async fn an_instance_with_many_outputs_leaves_the_log_to_the_others() {
    let rig = Rig::new();
    for guest in ["probe", "probe3"] {
        let probe = rig.run(rig.spec("chatty", &[("bireme.timeout", "60s")]), guest).await;
        for _ in 0..4 {
            assert_eq!(probe.get("/outputs?300,30000").body, "300", "{guest}: each has room");
        }
        let attach = probe.workload.as_attach().unwrap();
        let mut client =
            tokio::time::timeout(LIMIT / 3, attach.attach(false)).await.expect("attached in time").unwrap();
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(LIMIT)).unwrap();
        // Of another instance.
        assert_eq!(probe.get("/log?hi").status, 200);
        let mut frame = [0; 15];
        client.read_exact(&mut frame).unwrap();
        assert_eq!(&frame, b"\x01\0\0\0\0\0\0\x07out hi\n", "{guest}");
        probe.workload.signal(Signal::KILL).await.unwrap();
        tokio::time::timeout(LIMIT / 2, probe.workload.wait()).await.expect("it ends in time").unwrap();
        probe.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn more_output_than_there_is_room_for_ends_the_instance() {
    let rig = Rig::new();
    let probe = rig.run(rig.spec("chatty", &[]), "probe").await;
    assert_eq!(probe.get("/overrun").status, 500, "{}", probe.log());
    probe.workload.delete().await.unwrap();
}
