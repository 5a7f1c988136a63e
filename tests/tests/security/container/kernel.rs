//! The kernel's doors: what the profile of system calls lets through, and what processes inherit.

use std::process::Command;

use bireme_testing::{Engine, Output};

use super::probed;

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
