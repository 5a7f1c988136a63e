//! Looking into components that run.

use std::io::Read as _;
use std::time::Duration;

use bireme_core::ErrorKind;

use crate::common::{Rig, text};

/// A command that computes until it is ended, in functions that have names.
const BURNS: &str = r#"(component
  (core module $m
    (func $inner (param i32) (result i32)
      (local $at i32)
      (loop $again
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $again (i32.lt_u (local.get $at) (local.get 0))))
      (local.get $at))
    (func $outer (result i32)
      (loop $again (drop (call $inner (i32.const 100000))) (br $again))
      (unreachable))
    (func (export "run") (result i32) (call $outer)))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (component $c (import "run" (func $f (result (result)))) (export "run" (func $f)))
  (instance $out (instantiate $c (with "run" (func $run))))
  (export "wasi:cli/run@0.2.0" (instance $out)))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_shows_the_functions_that_compute() {
    let rig = Rig::new();
    let program = text(&rig, BURNS);
    let burns = rig.run_on(rig.spec("burns", &[]), &program, "127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let diagnose = burns.workload.as_diagnose().unwrap();
    let (profile, refused) = tokio::join!(diagnose.profile(Duration::from_secs(1)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        diagnose.profile(Duration::from_secs(1)).await
    });
    let error = refused.unwrap_err();
    assert!(
        error.kind() == ErrorKind::Conflict && error.to_string().contains("somebody else makes a profile"),
        "{error}"
    );
    let profile = profile.unwrap();
    let counted: u64 = profile.stacks.iter().map(|(_, count)| count).sum();
    assert!(profile.samples > 50 && counted == profile.samples, "{profile:?}");
    let (hottest, count) = &profile.stacks[0];
    assert!(hottest.ends_with("outer;inner") && *count * 2 > counted, "{profile:?}");

    // One that computes nothing has an empty one, and another may follow.
    burns.workload.delete().await.unwrap();
    let idle = rig.run(rig.spec("idle", &[]), "hello").await;
    for _ in 0..2 {
        let profile = idle.workload.as_diagnose().unwrap().profile(Duration::from_millis(50)).await.unwrap();
        assert_eq!((profile.samples, profile.stacks.len()), (0, 0));
    }
    idle.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_traps_leaves_a_core_dump_where_one_is_asked_for() {
    let rig = Rig::new();
    for (guest, path) in [("probe", "/trap"), ("probe3", "/status?none")] {
        let probe = rig.run(rig.spec(guest, &[]), guest).await;
        // Nobody asked.
        assert_eq!(probe.get(path).status, 500);
        let diagnose = probe.workload.as_diagnose().unwrap();
        assert!(diagnose.core_dump(Duration::from_millis(300)).await.unwrap().is_none(), "none trapped meanwhile");
        let asked = diagnose.core_dump(Duration::from_secs(20));
        let address = probe.address;
        let (dump, ()) = tokio::join!(asked, async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            tokio::task::spawn_blocking(move || assert_eq!(crate::common::get(address, path).status, 500))
                .await
                .unwrap();
        });
        let (dump, mut file) = dump.unwrap().unwrap();
        assert!(dump.reason.starts_with("it trapped: ") && dump.reason.contains("unreachable"), "{dump:?}");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len() as u64, dump.size);
        // Source: WebAssembly tool conventions, "Coredump": custom sections of these names.
        assert_eq!(&bytes[..8], b"\0asm\x01\0\0\0");
        for section in ["core", "coreinstances", "corestack"] {
            let name = [&[section.len() as u8], section.as_bytes()].concat();
            assert!(bytes.windows(name.len()).any(|part| part == name), "{section}");
        }
        probe.workload.delete().await.unwrap();
    }
    // An instance with more than half of its limit has no room for that.
    let mut spec = rig.spec("small", &[]);
    spec.resources.memory = Some(2 << 20);
    let small = rig.run(spec, "probe").await;
    let address = small.address;
    let (dump, ()) = tokio::join!(small.workload.as_diagnose().unwrap().core_dump(Duration::from_secs(20)), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::spawn_blocking(move || assert_eq!(crate::common::get(address, "/trap").status, 500))
            .await
            .unwrap();
    });
    let (dump, _) = dump.unwrap().unwrap();
    assert!(dump.size == 0 && dump.reason.contains("its state was not written"), "{dump:?}");
    small.workload.delete().await.unwrap();
}
