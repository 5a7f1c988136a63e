//! The process that compiles: what it refuses to be brought down by.

use std::os::unix::fs::PermissionsExt as _;

use bireme_core::{ErrorKind, Executor as _};
use bireme_wasm::{WasmExecutor, WasmOptions};

use crate::common::{Rig, bytes, program, text};

fn leb(mut n: usize, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push((n & 0x7f) as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn section(id: u8, content: &[u8], out: &mut Vec<u8>) {
    out.push(id);
    leb(content.len(), out);
    out.extend_from_slice(content);
}

/// One function in which each of `locals` variables is live through each of `loops` loops: the memory that it takes to
/// compile grows with the product of the two. 3,000 and 6,000 are 100 KB and take 1.2 GB.
fn pathological(locals: usize, loops: usize) -> Vec<u8> {
    let mut function = vec![1];
    leb(locals, &mut function);
    function.push(0x7f); // i32
    let set = |n: usize, function: &mut Vec<u8>| {
        function.push(0x21); // local.set
        leb(1 + n % locals, function);
    };
    let get = |n: usize, function: &mut Vec<u8>| {
        function.push(0x20); // local.get
        leb(1 + n % locals, function);
    };
    for n in 0..locals {
        function.extend([0x20, 0]); // local.get of the parameter
        set(n, &mut function);
    }
    for n in 0..loops {
        function.extend([0x03, 0x40]); // loop
        get(n * 31, &mut function);
        function.extend([0x41, 1, 0x6a]); // i32.const 1, i32.add
        set(n * 17, &mut function);
        function.extend([0x20, 0, 0x0d, 0, 0x0b]); // br_if to the loop, by the parameter
    }
    get(0, &mut function);
    function.push(0x0b);
    let mut code = vec![2];
    leb(function.len(), &mut code);
    code.extend(function);
    code.extend([2, 0, 0x0b]); // _start: nothing
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    section(1, &[2, 0x60, 0, 0, 0x60, 1, 0x7f, 1, 0x7f], &mut module);
    section(3, &[2, 1, 0], &mut module);
    section(7, b"\x01\x06_start\0\x01", &mut module);
    section(10, &code, &mut module);
    module
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_takes_too_much_memory_to_compile_is_refused_in_a_sentence() {
    const LIMIT: u32 = 256 << 20;
    let rig = Rig::new();
    // The real thing with less memory; most of what its allocator sets aside at its start would not count here.
    let host = rig.dir.path().join("host");
    let real = env!("CARGO_BIN_EXE_bireme-wasm-host");
    let script = format!(
        "#!/bin/sh\nexport MIMALLOC_ARENA_EAGER_COMMIT=0\n[ \"$1\" = compile ] && exec {real} compile \"$2\" {LIMIT}\nexec {real} \"$@\"\n"
    );
    std::fs::write(&host, script).unwrap();
    std::fs::set_permissions(&host, std::fs::Permissions::from_mode(0o755)).unwrap();
    let small = WasmExecutor::new(WasmOptions { host, ..rig.options.clone() });
    let spec = rig.spec("greedy", &[]);

    let module = pathological(10_000, 20_000);
    assert!(module.len() < 400_000, "{}", module.len());
    let error = small.check(&spec, &bytes(&rig, &module)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains("of memory, the most that is allowed here; divide its largest"), "{error}");
    let cache = rig.options.data_root.join("wasm/cache");
    assert_eq!(std::fs::read_dir(cache).unwrap().count(), 0, "something half-made was left");

    // Others compile as before, and a lesser one of the kind with what there usually is.
    small.check(&spec, &program("probe")).await.unwrap();
    let module = bytes(&rig, &pathological(1_000, 2_000));
    rig.executor.check(&spec, &module).await.unwrap();
}

/// SDKs import interfaces that their users never call.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_imported_and_not_offered_traps_when_it_is_called() {
    let rig = Rig::new();
    let component = |interface: &str, call: &str| {
        format!(
            r#"(component
              (import "{interface}" (instance $other (export "ask" (func))))
              (core func $ask (canon lower (func $other "ask")))
              (core module $m
                (import "" "ask" (func $ask))
                (func (export "run") (result i32) {call} (i32.const 0)))
              (core instance $i (instantiate $m (with "" (instance (export "ask" (func $ask))))))
              (func $run (result (result)) (canon lift (core func $i "run")))
              (component $c (import "run" (func $f (result (result)))) (export "run" (func $f)))
              (instance $out (instantiate $c (with "run" (func $run))))
              (export "wasi:cli/run@0.2.0" (instance $out)))"#
        )
    };
    for (call, code) in [("", 0), ("(call $ask)", 134)] {
        let program = text(&rig, &component("fermyon:spin/llm@2.0.0", call));
        let spec = rig.spec("asks", &[]);
        let address = "127.0.0.1:0".parse().unwrap();
        let deployed = rig.run_on(spec, &program, address, None).await.unwrap();
        assert_eq!(deployed.workload.wait().await.unwrap().code, code, "{}", deployed.log());
        if code != 0 {
            deployed.logged("fermyon:spin/llm@2.0.0");
        }
    }
    let program = text(&rig, &component("acme:thing/api@1.0.0", ""));
    let error = rig.executor.check(&rig.spec("asks", &[]), &program).await.unwrap_err();
    assert!(error.to_string().contains("imports what this engine does not offer: acme:thing/api@1.0.0"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_by_the_interface_is_in_the_log() {
    let rig = Rig::new();
    for interface in ["wasi:logging/logging", "wasi:logging/logging@0.1.0-draft"] {
        let program = format!(
            r#"(component
              (import "{interface}" (instance $logging
                (type $levels (enum "trace" "debug" "info" "warn" "error" "critical"))
                (export "level" (type $level (eq $levels)))
                (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
              (core module $texts (memory (export "memory") 1) (data (i32.const 0) "shoptwo items"))
              (core instance $texts (instantiate $texts))
              (alias core export $texts "memory" (core memory $memory))
              (core func $log (canon lower (func $logging "log") (memory $memory)))
              (core module $m
                (import "" "log" (func $log (param i32 i32 i32 i32 i32)))
                (func (export "run") (result i32)
                  (call $log (i32.const 3) (i32.const 0) (i32.const 4) (i32.const 4) (i32.const 9))
                  (call $log (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4))
                  (i32.const 0)))
              (core instance $i (instantiate $m (with "" (instance (export "log" (func $log))))))
              (func $run (result (result)) (canon lift (core func $i "run")))
              (component $c (import "run" (func $f (result (result)))) (export "run" (func $f)))
              (instance $out (instantiate $c (with "run" (func $run))))
              (export "wasi:cli/run@0.2.0" (instance $out)))"#
        );
        let program = text(&rig, &program);
        let deployed = rig.run_on(rig.spec("logs", &[]), &program, "127.0.0.1:0".parse().unwrap(), None).await.unwrap();
        assert_eq!(deployed.workload.wait().await.unwrap().code, 0);
        assert_eq!(deployed.log(), "warn shop: two items\ntrace: shop\n", "{interface}");
        deployed.workload.delete().await.unwrap();
    }
}
