//! Programs of the kernel's own (eBPF) that decide which devices a cgroup may use.
//!
//! This is what version 2 of cgroups has instead of a `devices` controller. A program lives as long as anything holds it: a
//! descriptor, or the cgroup it is attached to.

#![expect(unsafe_code, reason = "bpf(2) has no safe wrapper")]

use std::ffi::CStr;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// One instruction, as the kernel has it in memory (`struct bpf_insn`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Class, operation and operand kind, as `linux/bpf.h` adds them up.
    pub code: u8,
    /// The destination in the lower four bits, the source in the upper four.
    pub registers: u8,
    /// Of a jump: how many instructions are left out. Of a load: where in memory.
    pub offset: i16,
    /// The constant operand; unused bits are 0.
    pub immediate: i32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
/// Programs attached further up and further down are asked as well, and each of them has to agree.
const ALLOW_MULTI: u32 = 2;

/// The program calls none of the helpers that ask for a certain licence.
const LICENCE: &CStr = c"Apache-2.0";

/// The beginning of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is left out for zero.
#[repr(C)]
struct Load {
    program_type: u32,
    count: u32,
    instructions: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

/// The beginning of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct Attach {
    target: RawFd,
    program: RawFd,
    attach_type: u32,
    flags: u32,
}

/// Hands a program of the type `BPF_PROG_TYPE_CGROUP_DEVICE` to the kernel, which checks that it ends and touches nothing
/// that it must not.
///
/// # Errors
/// `EPERM` without `CAP_BPF` or `CAP_SYS_ADMIN`; `EINVAL` or `EACCES` for a program that the kernel does not trust, and
/// where it was built without `CONFIG_CGROUP_BPF`; `ENOSYS` where it was built without bpf(2).
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    match load(program) {
        // Before Linux 5.11 a program counts as locked memory of the user, all of whose programs share one limit.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let before = getrlimit(Resource::Memlock);
            setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).map_err(|_| error)?;
            let loaded = load(program);
            setrlimit(Resource::Memlock, before)?;
            loaded
        }
        other => other,
    }
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..14].copy_from_slice(b"bireme_devices");
    let attributes = Load {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr().expose_provenance() as u64,
        licence: LICENCE.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name,
        interface: 0,
        attach_type: CGROUP_DEVICE,
    };
    // SAFETY: the kernel reads `size_of::<Load>()` bytes at `attributes`, `count` instructions at `instructions` and the
    // string at `licence`; all three outlive the call. With a log of size 0 it writes nothing.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const attributes, size_of::<Load>()) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for this call, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds a cgroup of version 2, and all that are or come below it, to a program of [`load_device_program`]. From then on the
/// program is asked whenever a process in there opens or makes a device node; what is open already stays open.
///
/// # Errors
/// `EBADF` when `cgroup` is no folder of a version 2 hierarchy; `EPERM` without `CAP_NET_ADMIN`, or where a program further
/// up tolerates none below.
pub fn attach_device_program(program: impl AsFd, cgroup: impl AsFd) -> io::Result<()> {
    let attributes = Attach {
        target: cgroup.as_fd().as_raw_fd(),
        program: program.as_fd().as_raw_fd(),
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: the kernel reads `size_of::<Attach>()` bytes at `attributes`, which outlives the call, and writes nothing.
    let result = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attributes, size_of::<Attach>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_refuses_what_it_cannot_trust() {
        // An end without an answer.
        let program = [Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 }];
        let refused = load_device_program(&program).unwrap_err();
        assert!(matches!(refused.raw_os_error(), Some(libc::EACCES | libc::EINVAL)), "{refused}");
        // No place to attach it to.
        let program = [Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 1 }, program[0]];
        let program = load_device_program(&program).unwrap();
        let folder = std::fs::File::open("/tmp").unwrap();
        assert_eq!(attach_device_program(&program, &folder).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}
