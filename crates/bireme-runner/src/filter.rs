//! The seccomp filter of a container: compiled once for each profile, kept, and loaded as late as can be.
//!
//! libseccomp takes some 10 ms to make Docker's default profile into a program for the kernel, and would take them again
//! for each start and each exec. So the program is kept in a folder that only root can reach, under a name made of the
//! profile; the profile itself stands before it in the file, so that a name that two profiles share does no harm.
//!
//! Loading a filter is for whoever has `CAP_SYS_ADMIN`, or gave up new privileges. libcontainer takes the capabilities away
//! before anything of ours runs in init, so init is [`lend`]ed what loading takes, and gives it back right after: the order
//! of runc, which also loads before it drops.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use bireme_core::ErrorKind;
use bireme_linux::protocol::Failure;
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, ScmpVersion};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde_json::Value;

/// Which `compile` made a kept program; another number where the same profile has to become another program.
const COMPILER: u8 = 2;
/// One instruction of a classic BPF program, in bytes.
const INSTRUCTION: usize = 8;

/// A program for the kernel, and the flags it is loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    program: Vec<u8>,
    flags: u32,
}

impl Filter {
    /// The filter of a runtime specification's `linux.seccomp`, from `kept` where it was compiled before.
    ///
    /// # Errors
    /// `Invalid` when the profile asks for what cannot be; never for the want of a place to keep it.
    pub(crate) fn of(profile: &Value, kept: &Path) -> Result<Option<Self>, Failure> {
        if profile.is_null() {
            return Ok(None);
        }
        let parsed: LinuxSeccomp = serde_json::from_value(profile.clone()).map_err(|error| refused(&error))?;
        let flags = flags(&parsed)?;
        let version = ScmpVersion::current().map_err(|error| refused(&error))?;
        let mut title = format!("{COMPILER} libseccomp {version} {profile}").into_bytes();
        title.push(b'\n');
        let mut hasher = DefaultHasher::new();
        title.hash(&mut hasher);
        let file = kept.join(format!("{:016x}", hasher.finish()));
        if let Ok(mut found) = fs::read(&file)
            && found.starts_with(&title)
        {
            let program = found.split_off(title.len());
            if !program.is_empty() && program.len().is_multiple_of(INSTRUCTION) {
                return Ok(Some(Self { program, flags }));
            }
        }
        let program = compile(&parsed)?;
        let _ = keep(kept, &file, &[title.as_slice(), &program].concat());
        Ok(Some(Self { program, flags }))
    }

    /// Binds this process and all that come of it to the filter, for good.
    ///
    /// # Errors
    /// `Denied` without both `CAP_SYS_ADMIN` and the bit that gives up new privileges.
    pub(crate) fn load(&self) -> io::Result<()> {
        bireme_sys::seccomp::load(&self.program, self.flags)
    }
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::Invalid, format!("the seccomp profile cannot be used: {error}"))
}

/// Whole or not at all: another runner may be reading, and a full disk only costs the time to compile.
fn keep(folder: &Path, file: &Path, contents: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let fresh = file.with_extension(std::process::id().to_string());
    fs::write(&fresh, contents).and_then(|()| fs::rename(&fresh, file)).inspect_err(|_| {
        let _ = fs::remove_file(&fresh);
    })
}

fn flags(profile: &LinuxSeccomp) -> Result<u32, Failure> {
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => libc::SECCOMP_FILTER_FLAG_TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(refused(&"no one listens for its notifications, so it cannot wait for them"));
            }
        };
    }
    u32::try_from(flags).map_err(|error| refused(&error))
}

/// Source: the OCI runtime specification, `linux.seccomp`, and seccomp_rule_add(3).
fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>, Failure> {
    let build = || -> Result<ScmpFilterContext, Box<dyn std::error::Error>> {
        let otherwise = action(profile.default_action(), profile.default_errno_ret())?;
        let mut filter = ScmpFilterContext::new(otherwise)?;
        for architecture in profile.architectures().iter().flatten() {
            filter.add_arch(serde_json::to_value(architecture)?.as_str().unwrap_or_default().parse::<ScmpArch>()?)?;
        }
        for rule in profile.syscalls().iter().flatten() {
            let action = action(rule.action(), rule.errno_ret())?;
            // libseccomp refuses a rule that says what is so anyway.
            if action == otherwise {
                continue;
            }
            let conditions: Vec<_> = rule
                .args()
                .iter()
                .flatten()
                .map(|one| {
                    let index = u32::try_from(one.index()).unwrap_or(u32::MAX);
                    let (operator, datum) = comparison(one.op(), one.value(), one.value_two().unwrap_or(0));
                    ScmpArgCompare::new(index, operator, datum)
                })
                .collect();
            let indexes: BTreeSet<_> = rule.args().iter().flatten().map(|one| one.index()).collect();
            for name in rule.names() {
                // One that this machine's kernel does not have cannot be made.
                let Ok(call) = ScmpSyscall::from_name(name) else { continue };
                if conditions.is_empty() {
                    filter.add_rule(action, call)?;
                } else if indexes.len() == conditions.len() {
                    filter.add_rule_conditional(action, call, &conditions)?;
                } else {
                    // One argument can be compared once in a rule; runc makes it a rule for each condition, any of which
                    // is enough.
                    for condition in &conditions {
                        filter.add_rule_conditional(action, call, &[*condition])?;
                    }
                }
            }
        }
        Ok(filter)
    };
    let filter = build().map_err(|error| refused(&error))?;
    let written = || -> io::Result<Vec<u8>> {
        let mut file: fs::File =
            rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC).map(Into::into)?;
        filter.export_bpf(&file).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(0))?;
        let mut program = socketcall_guard(profile);
        file.read_to_end(&mut program)?;
        Ok(program)
    };
    written().map_err(|error| refused(&error))
}

/// Instructions before all others that deny socketcall(2) to 32-bit programs, where the profile does not allow it by name.
///
/// libseccomp takes a rule for `socket` on x86 to be one for `socketcall` too, and leaves its conditions out there: the
/// address family is behind a pointer. So whoever may open some families could open all of them.
fn socketcall_guard(profile: &LinuxSeccomp) -> Vec<u8> {
    const I386: u32 = 0x4000_0003;
    const SOCKETCALL: u32 = 102;
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    let named = profile.syscalls().iter().flatten().any(|rule| rule.names().iter().any(|name| name == "socketcall"));
    let errno = profile.default_errno_ret().unwrap_or(libc::EPERM.unsigned_abs());
    let answer = match profile.default_action() {
        LinuxSeccompAction::ScmpActErrno => libc::SECCOMP_RET_ERRNO | (errno & libc::SECCOMP_RET_DATA),
        LinuxSeccompAction::ScmpActKillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => libc::SECCOMP_RET_KILL_THREAD,
        LinuxSeccompAction::ScmpActTrap => libc::SECCOMP_RET_TRAP,
        _ => return Vec::new(),
    };
    if named || cfg!(not(target_arch = "x86_64")) {
        return Vec::new();
    }
    // Source: seccomp(2), `struct seccomp_data`: the number is at 0, the architecture at 4. Jumps count from the next one.
    let instructions: [(u16, u8, u8, u32); 5] = [
        (LOAD, 0, 0, 4),
        (JUMP_IF_EQUAL, 0, 3, I386),
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, SOCKETCALL),
        (RETURN, 0, 0, answer),
    ];
    let mut bytes = Vec::with_capacity(instructions.len() * INSTRUCTION);
    for (code, if_true, if_false, operand) in instructions {
        bytes.extend_from_slice(&code.to_ne_bytes());
        bytes.extend_from_slice(&[if_true, if_false]);
        bytes.extend_from_slice(&operand.to_ne_bytes());
    }
    bytes
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction, String> {
    let errno = errno.unwrap_or(libc::EPERM.unsigned_abs());
    let wrong = |_| format!("{errno} is no error number");
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(i32::try_from(errno).map_err(wrong)?),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(u16::try_from(errno).map_err(wrong)?),
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActNotify => {
            return Err("SCMP_ACT_NOTIFY needs a listener, which is not offered; use SCMP_ACT_ERRNO".to_owned());
        }
    })
}

/// The comparison of a specification's condition, and the datum that it compares with.
///
/// Source: the OCI runtime specification, `linux.seccomp.syscalls.args`, as runc hands it to libseccomp: of a masked
/// comparison `value` is the mask, and `valueTwo` what the masked argument is to equal.
fn comparison(operator: LinuxSeccompOperator, value: u64, second: u64) -> (ScmpCompareOp, u64) {
    match operator {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, value),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(value), second),
    }
}

/// What loading a filter takes, and giving back what that takes.
const LENT: [(&str, CapabilitySet); 2] =
    [("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN), ("CAP_SETPCAP", CapabilitySet::SETPCAP)];

/// Capabilities that init has beyond its own until the filter is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TemporaryCaps(CapabilitySet);

/// Adds what loading a filter takes to the capabilities of `process`, a runtime specification's.
pub(crate) fn lend(process: &mut Value) -> TemporaryCaps {
    let mut lent = CapabilitySet::empty();
    let sets = &mut process["capabilities"];
    for (name, capability) in LENT {
        if sets["bounding"].as_array().is_some_and(|own| own.iter().any(|own| own == name)) {
            continue;
        }
        lent |= capability;
        for set in ["bounding", "effective", "permitted"] {
            if let Some(set) = sets[set].as_array_mut() {
                set.push(name.into());
            }
        }
    }
    TemporaryCaps(lent)
}

impl TemporaryCaps {
    /// Gives it back, out of every set.
    ///
    /// # Errors
    /// Those of capset(2) and prctl(2): a profile may forbid them.
    pub(crate) fn release(self) -> io::Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        for (_, capability) in LENT {
            if self.0.contains(capability) {
                rustix::thread::remove_capability_from_bounding_set(capability)?;
            }
        }
        let now = rustix::thread::capabilities(None)?;
        let without = CapabilitySets {
            effective: now.effective - self.0,
            permitted: now.permitted - self.0,
            inheritable: now.inheritable - self.0,
        };
        Ok(rustix::thread::set_capabilities(None, without)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn profile() -> Value {
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [
                { "names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW" },
                { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
                { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                    { "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" },
                ] },
            ],
        })
    }

    #[test]
    fn a_filter_is_compiled_once_and_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("filters");
        let compiled = Filter::of(&profile(), &kept).unwrap().unwrap();
        let files: Vec<_> = fs::read_dir(&kept).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        assert_eq!(Filter::of(&profile(), &kept).unwrap().unwrap(), compiled);

        // What is kept under the same name for another profile, or was cut short, is not used.
        for damage in
            [b"libseccomp 0.0.0 {}\n12345678".to_vec(), fs::read(&files[0]).unwrap().split_last().unwrap().1.to_vec()]
        {
            fs::write(&files[0], damage).unwrap();
            assert_eq!(Filter::of(&profile(), &kept).unwrap().unwrap(), compiled);
            assert_eq!(
                fs::read(&files[0]).unwrap().len() % INSTRUCTION,
                (fs::read(&files[0]).unwrap().len() - compiled.program.len()) % INSTRUCTION
            );
        }
        // A place that cannot be written to costs time only.
        assert_eq!(Filter::of(&profile(), Path::new("/proc/none")).unwrap().unwrap(), compiled);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let kept = Path::new("/proc/none");
        let refusal = |change: fn(&mut Value)| {
            let mut profile = profile();
            change(&mut profile);
            Filter::of(&profile, kept).unwrap_err().message
        };
        assert!(refusal(|one| one["syscalls"][0]["action"] = json!("SCMP_ACT_NOTIFY")).contains("needs a listener"));
        assert!(
            refusal(|one| one["defaultAction"] = json!("SCMP_ACT_NONE")).contains("seccomp profile cannot be used")
        );
        assert!(refusal(|one| one["syscalls"][1]["errnoRet"] = json!(1u64 << 31)).contains("no error number"));
        assert_eq!(Filter::of(&Value::Null, kept).unwrap(), None);
    }

    #[test]
    fn only_what_is_missing_is_lent() {
        let sets = |names: &[&str]| json!({ "capabilities": { "bounding": names, "effective": names, "permitted": names, "inheritable": [], "ambient": [] } });
        let mut process = sets(&["CAP_CHOWN", "CAP_SETPCAP"]);
        assert_eq!(lend(&mut process).0, CapabilitySet::SYS_ADMIN);
        let expected = sets(&["CAP_CHOWN", "CAP_SETPCAP", "CAP_SYS_ADMIN"]);
        assert_eq!(process, expected);
        assert!(lend(&mut process).0.is_empty());
        assert_eq!(process, expected);
    }
}
