//! Filters of system calls.
#![expect(unsafe_code, reason = "a program that is compiled already is loaded by the call itself")]

use std::io;

/// Loads a seccomp filter into the calling thread, for good: `program` is a classic BPF program as the kernel has it in memory
/// and as `seccomp_export_bpf` writes it, eight bytes an instruction. `flags`: `SECCOMP_FILTER_FLAG_*` but for
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`, for whose descriptor there is no place. With `SECCOMP_FILTER_FLAG_TSYNC` the other
/// threads are bound as well.
///
/// What a filter answers for a call that it keeps from the kernel is what the C library and Rust go by: one that tells of
/// success where nothing was done breaks the process.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for what is no whole number of instructions, more than there can be, or that flag; `EACCES`
/// without both `CAP_SYS_ADMIN` and the bit that gives up new privileges; `EINVAL` for what the kernel takes for no program.
///
/// Source: seccomp(2).
pub fn load(program: &[u8], flags: u32) -> io::Result<()> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    if libc::c_ulong::from(flags) & libc::SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
        return Err(invalid("a filter with a listener is not loaded here"));
    }
    let (instructions, []) = program.as_chunks::<8>() else {
        return Err(invalid("a filter is made of instructions of eight bytes"));
    };
    let instructions: Vec<libc::sock_filter> = instructions
        .iter()
        .map(|&[a, b, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([a, b]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(|_| invalid("a filter has fewer instructions"))?;
    let program = libc::sock_fprog { len, filter: instructions.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions from `filter`, which lives until the call is over, and writes nothing.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) } {
        0 => Ok(()),
        -1 => Err(io::Error::last_os_error()),
        thread => Err(io::Error::other(format!("thread {thread} has filters of its own"))),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::MemfdFlags;

    use super::*;

    /// Load the number of the call; is it memfd_create? Then EACCES, else allow.
    fn without_memfd_create() -> Vec<u8> {
        let number = u32::try_from(libc::SYS_memfd_create).unwrap();
        let refused = libc::SECCOMP_RET_ERRNO | libc::EACCES.unsigned_abs();
        let program =
            [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, refused), (0x06, 0, 0, libc::SECCOMP_RET_ALLOW)];
        let bytes = |(code, jt, jf, k): (u16, u8, u8, u32)| {
            [code.to_ne_bytes().as_slice(), &[jt, jf], &k.to_ne_bytes()].concat()
        };
        program.into_iter().flat_map(bytes).collect()
    }

    #[test]
    fn a_thread_is_bound_by_what_it_loaded() {
        let made = || rustix::fs::memfd_create("filter", MemfdFlags::CLOEXEC).map(drop);
        let inside = std::thread::spawn(move || {
            rustix::thread::set_no_new_privs(true).unwrap();
            load(&without_memfd_create(), 0).unwrap();
            made()
        });
        assert_eq!(inside.join().unwrap(), Err(rustix::io::Errno::ACCESS));
        assert_eq!(made(), Ok(()));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let whole = without_memfd_create();
        let listener = u32::try_from(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER).unwrap();
        for (program, flags) in [(&whole[..12], 0), (&whole, listener), (&[], 0)] {
            assert_eq!(load(program, flags).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{program:?} {flags}");
        }
    }
}
