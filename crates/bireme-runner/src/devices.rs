//! The device rules of a container on cgroup v2: a program for the kernel, made of those of the runtime specification.
//!
//! Version 2 has no `devices` controller, and libcontainer as we build it sets no rules there: it would need libbpf. On v1
//! and hybrid machines it does, and nothing here is used.
//!
//! The rules mean what they mean to v1: each kind of access that is asked for (read, write, mknod) is decided by the last
//! rule that names it for that device, and refused where none does. What comes of that is found out here for each device
//! that any rule names, and for all others: the program only looks it up. One that went through the rules would take the
//! kernel too long to check, if some hundred devices were given.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use bireme_core::ErrorKind;
use bireme_linux::cgroup::Cgroup;
use bireme_linux::protocol::Failure;
use bireme_sys::bpf::{self, Instruction};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde_json::Value;

/// `BPF_DEVCG_ACC_*`.
const ACCESS: [(char, u8); 3] = [('m', 1), ('r', 2), ('w', 4)];
const ALL_ACCESS: u8 = 7;

/// Binds the container's cgroup to the rules of a runtime specification's `linux.resources.devices`. Does nothing on
/// machines where libcontainer has set them.
///
/// # Errors
/// `Internal` for rules that cannot be; `Unavailable` when the kernel refuses: then nothing may run in there.
pub(crate) fn confine(cgroup: &Cgroup, rules: &Value) -> Result<(), Failure> {
    match cgroup.unified() {
        Some(folder) => bind(&folder, &parse(rules)?),
        None => Ok(()),
    }
}

/// Binds the cgroup of version 2 in `folder`.
fn bind(folder: &Path, rules: &[Rule]) -> Result<(), Failure> {
    if rules.last().is_some_and(Rule::allows_everything) {
        return Ok(());
    }
    File::open(folder)
        .and_then(|folder| bpf::attach_device_program(bpf::load_device_program(&program(rules))?, folder))
        .map_err(|error| {
            let message = format!(
                "cannot set the container's device rules: {error}; on cgroup v2 they need a kernel with CONFIG_CGROUP_BPF, \
                 and the capabilities CAP_BPF and CAP_NET_ADMIN or CAP_SYS_ADMIN"
            );
            Failure::new(ErrorKind::Unavailable, message)
        })
}

/// `BPF_DEVCG_DEV_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Block = 1,
    Character = 2,
}

/// What `None` is of is any.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<Kind>,
    major: Option<u32>,
    minor: Option<u32>,
    /// Of [`ACCESS`].
    access: u8,
}

impl Rule {
    fn allows_everything(&self) -> bool {
        *self == Self { allow: true, kind: None, major: None, minor: None, access: ALL_ACCESS }
    }
}

/// The access that `rules` allow, all in all.
fn granted<'a>(rules: impl Iterator<Item = &'a Rule>) -> u8 {
    rules.fold(0, |granted, rule| if rule.allow { granted | rule.access } else { granted & !rule.access })
}

/// Source: the OCI runtime specification, "Allowed Device list".
fn parse(rules: &Value) -> Result<Vec<Rule>, Failure> {
    let invalid = |why: &dyn std::fmt::Display| Failure::new(ErrorKind::Internal, format!("bad device rule: {why}"));
    if rules.is_null() {
        return Ok(Vec::new());
    }
    let rules: Vec<LinuxDeviceCgroup> = serde_json::from_value(rules.clone()).map_err(|error| invalid(&error))?;
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|error| invalid(&error)),
    };
    rules
        .iter()
        .map(|rule| {
            let kind = match rule.typ() {
                None | Some(LinuxDeviceType::A) => None,
                Some(LinuxDeviceType::B) => Some(Kind::Block),
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(Kind::Character),
                Some(LinuxDeviceType::P) => return Err(invalid(&"a pipe is no device")),
            };
            let mut access = 0;
            for letter in rule.access().as_deref().ok_or_else(|| invalid(&"it names no access"))?.chars() {
                let known = ACCESS.iter().find(|(known, _)| *known == letter);
                access |= known.ok_or_else(|| invalid(&format!("there is no access {letter:?}")))?.1;
            }
            let (major, minor) = (number(rule.major())?, number(rule.minor())?);
            Ok(Rule { allow: rule.allow(), kind, major, minor, access })
        })
        .collect()
}

// Registers. What is asked arrives in memory, where CONTEXT points to (`struct bpf_cgroup_dev_ctx`): the kind of device in
// the lower half of the first word and the access in its upper half, then major and minor.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 1;
/// The access that is asked for.
const ASKED: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// Source: the kernel's instruction set, Documentation/bpf/standardization/instruction-set.rst; all of 32 bits, so that no
// number is taken for a negative one.
const LOAD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const COPY: u8 = 0xbc;
const SET: u8 = 0xb4;
const JUMP_IF_NOT: u8 = 0x56;
const EXIT: u8 = 0x95;

fn with(code: u8, register: u8, number: u32) -> Instruction {
    Instruction { code, registers: register, offset: 0, immediate: number.cast_signed() }
}

fn load(register: u8, word: i16) -> Instruction {
    Instruction { code: LOAD, registers: register | CONTEXT << 4, offset: 4 * word, immediate: 0 }
}

fn answer(allow: bool) -> [Instruction; 2] {
    [with(SET, ANSWER, allow.into()), with(EXIT, 0, 0)]
}

/// The program that answers 1 for what the rules allow and 0 for all else.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut program = vec![
        load(ASKED, 0),
        Instruction { code: COPY, registers: KIND | ASKED << 4, offset: 0, immediate: 0 },
        with(AND, KIND, 0xffff),
        with(SHIFT_RIGHT, ASKED, 16),
        load(MAJOR, 1),
        load(MINOR, 2),
    ];
    // The first step that fits decides, so numbers come before all others.
    let named = |numbers: BTreeSet<u32>| numbers.into_iter().map(Some).chain([None]);
    for kind in [Kind::Block, Kind::Character] {
        let of_kind = || rules.iter().filter(move |rule| rule.kind.is_none_or(|own| own == kind));
        for major in named(of_kind().filter_map(|rule| rule.major).collect()) {
            let of_major = || of_kind().filter(move |rule| rule.major.is_none() || rule.major == major);
            for minor in named(of_major().filter_map(|rule| rule.minor).collect()) {
                let granted = granted(of_major().filter(|rule| rule.minor.is_none() || rule.minor == minor));
                step(&mut program, kind, major, minor, granted);
            }
        }
    }
    program.extend(answer(false));
    program
}

/// Decides, for devices that fit, and goes on with what follows for all others.
fn step(program: &mut Vec<Instruction>, kind: Kind, major: Option<u32>, minor: Option<u32>, granted: u8) {
    let decision = [
        // Is there anything left of what is asked, without what is granted?
        &[with(AND, ASKED, !u32::from(granted)), Instruction { offset: 2, ..with(JUMP_IF_NOT, ASKED, 0) }],
        &answer(true)[..],
        &answer(false)[..],
    ]
    .concat();
    let conditions = [Some((KIND, kind as u32)), major.map(|major| (MAJOR, major)), minor.map(|minor| (MINOR, minor))];
    let conditions: Vec<(u8, u32)> = conditions.into_iter().flatten().collect();
    for (left, (register, wanted)) in (0..conditions.len()).rev().zip(conditions) {
        let offset = i16::try_from(left + decision.len()).expect("a step has at most nine instructions");
        program.push(Instruction { offset, ..with(JUMP_IF_NOT, register, wanted) });
    }
    program.extend(decision);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// What the kernel would do.
    fn run(program: &[Instruction], context: [u32; 3]) -> u32 {
        let mut registers = [0u32; 11];
        let mut at = 0usize;
        loop {
            let Instruction { code, registers: named, offset, immediate } = program[at];
            let (to, from) = (usize::from(named & 0xf), usize::from(named >> 4));
            let number = immediate.cast_unsigned();
            at += 1;
            let jump = match code {
                LOAD => {
                    assert_eq!(from, usize::from(CONTEXT));
                    registers[to] = context[usize::try_from(offset / 4).unwrap()];
                    false
                }
                AND => {
                    registers[to] &= number;
                    false
                }
                SHIFT_RIGHT => {
                    registers[to] >>= number;
                    false
                }
                COPY => {
                    registers[to] = registers[from];
                    false
                }
                SET => {
                    registers[to] = number;
                    false
                }
                JUMP_IF_NOT => registers[to] != number,
                EXIT => return registers[0],
                other => panic!("there is no instruction {other:#x}"),
            };
            if jump {
                at += usize::try_from(offset).unwrap();
            }
        }
    }

    fn asks(program: &[Instruction], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        run(program, [u32::from(access) << 16 | kind as u32, major, minor]) == 1
    }

    /// The plain meaning of the rules.
    fn allowed(rules: &[Rule], kind: Kind, major: u32, minor: u32, access: u8) -> bool {
        ACCESS.iter().filter(|(_, bit)| access & bit != 0).all(|(_, bit)| {
            let last = rules.iter().rev().find(|rule| {
                rule.kind.is_none_or(|of| of == kind)
                    && rule.major.is_none_or(|of| of == major)
                    && rule.minor.is_none_or(|of| of == minor)
                    && rule.access & bit != 0
            });
            last.is_some_and(|rule| rule.allow)
        })
    }

    fn number() -> impl Strategy<Value = u32> {
        prop_oneof![4 => 0..3u32, 1 => Just(u32::MAX)]
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let kind = prop::option::of(prop_oneof![Just(Kind::Block), Just(Kind::Character)]);
        (any::<bool>(), kind, prop::option::of(number()), prop::option::of(number()), 0..8u8)
            .prop_map(|(allow, kind, major, minor, access)| Rule { allow, kind, major, minor, access })
    }

    proptest! {
        #[test]
        fn the_program_means_what_the_rules_mean(
            rules in prop::collection::vec(rule(), 0..12), major in number(), minor in number(),
        ) {
            let program = program(&rules);
            for kind in [Kind::Block, Kind::Character] {
                for access in 1..8 {
                    prop_assert_eq!(
                        asks(&program, kind, major, minor, access),
                        allowed(&rules, kind, major, minor, access),
                        "{:?} {:?} {}:{} {}", rules, kind, major, minor, access
                    );
                }
            }
        }
    }

    fn defaults() -> Vec<Rule> {
        parse(&json!([
            { "allow": false, "access": "rwm" },
            { "allow": true, "type": "c", "access": "m" },
            { "allow": true, "type": "b", "access": "m" },
            { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
            { "allow": true, "type": "c", "major": 136, "access": "rwm" },
            { "allow": true, "type": "b", "major": 7, "minor": -1, "access": "r" },
        ]))
        .unwrap()
    }

    #[test]
    fn the_defaults_allow_what_is_listed_and_making_nodes() {
        let program = program(&defaults());
        for (kind, major, minor, access, expected) in [
            (Kind::Character, 1, 3, 6, true),
            (Kind::Character, 1, 3, 7, true),
            (Kind::Block, 1, 3, 2, false),
            (Kind::Character, 1, 1, 2, false),
            (Kind::Character, 1, 1, 1, true),
            (Kind::Character, 136, 12, 6, true),
            (Kind::Block, 8, 0, 1, true),
            (Kind::Block, 8, 0, 2, false),
            (Kind::Block, 8, 0, 3, false),
            (Kind::Block, 7, 5, 3, true),
            (Kind::Block, 7, 5, 6, false),
        ] {
            assert_eq!(asks(&program, kind, major, minor, access), expected, "{kind:?} {major}:{minor} {access}");
        }
    }

    #[test]
    fn rules_that_cannot_be_are_refused() {
        for (field, value) in [("type", json!("p")), ("type", json!("z")), ("access", json!("x")), ("major", json!(-2))]
        {
            let mut rule = json!({ "allow": true, "type": "c", "access": "rwm" });
            assert!(parse(&json!([rule])).is_ok());
            rule[field] = value;
            assert!(parse(&json!([rule])).is_err(), "{rule}");
        }
        assert!(parse(&json!([{ "allow": false }])).is_err());
        assert_eq!(parse(&Value::Null).unwrap(), []);
        assert!(parse(&json!([{ "allow": true, "access": "mrw" }])).unwrap()[0].allows_everything());
        assert!(!parse(&json!([{ "allow": true, "type": "c", "access": "rwm" }])).unwrap()[0].allows_everything());
    }

    /// A cgroup of version 2, gone with the test.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            let root = mounts.lines().find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
                [_, at, "cgroup2", ..] => Some(PathBuf::from(at)),
                _ => None,
            });
            let place = root.expect("no cgroup v2 is mounted").join(format!("bireme-{name}-{}", std::process::id()));
            fs::create_dir(&place).unwrap();
            Self(place)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir(&self.0);
        }
    }

    /// What a shell in a cgroup with these rules has to say.
    fn inside(name: &str, rules: &[Rule], script: &str) -> String {
        let place = Place::new(name);
        bind(&place.0, rules).unwrap();
        let folder = tempfile::Builder::new().prefix("bireme-").tempdir_in("/dev").unwrap();
        let script =
            format!("echo $$ > {}/cgroup.procs && cd {} && {script}", place.0.display(), folder.path().display());
        let output = Command::new("/bin/busybox").args(["sh", "-c", &script]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_kernel_does_as_the_program_says() {
        let script = "for device in 'c 1 3' 'c 240 0' 'b 240 0'; do \
                        rm -f d; mknod d $device && echo made; (: < d) 2>&1; (: > d) 2>&1; \
                      done; true";
        // No mount option forbids devices there, and no driver has the number 240.
        let output = inside("rules", &defaults(), script);
        assert_eq!(output.matches("made").count(), 3, "{output}");
        // /dev/null is allowed; of the two others neither reading nor writing is.
        assert_eq!(output.matches("Operation not permitted").count(), 4, "{output}");
        let output = inside("deny", &[], "mknod d c 1 3 2>&1; (: > /dev/null) 2>&1; true");
        assert_eq!(output.matches("Operation not permitted").count(), 2, "{output}");
    }

    #[test]
    fn where_the_kernel_refuses_there_is_no_container() {
        let refused = bind(Path::new("/tmp"), &defaults()).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable);
        assert!(
            refused.message.starts_with("cannot set the container's device rules: Bad file descriptor"),
            "{refused}"
        );
        // Who may use everything needs no program.
        let all = parse(&json!([{ "allow": true, "access": "rwm" }])).unwrap();
        bind(Path::new("/tmp"), &all).unwrap();
    }

    /// More than a machine has.
    #[test]
    fn the_kernel_takes_long_programs() {
        let rules: Vec<Rule> = (0..2000)
            .map(|minor| Rule {
                allow: minor % 3 != 0,
                kind: Some(Kind::Character),
                major: Some(1),
                minor: Some(minor),
                access: (minor % 8) as u8,
            })
            .collect();
        bpf::load_device_program(&program(&rules)).unwrap();
    }
}
