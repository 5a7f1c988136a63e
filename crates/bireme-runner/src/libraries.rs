//! Where the shared libraries of this program come from: mounts through which nobody can write.
//!
//! The program itself is a sealed file in memory, but its libraries are the machine's. Processes of this program stand inside
//! containers: as their first process, as `exec` and probes until they execute. Whoever may look into those opens what they
//! have mapped by `/proc/PID/map_files` (`CAP_CHECKPOINT_RESTORE` and `CAP_SYS_PTRACE`), by the mount that it was mapped
//! through, and could write into the machine's C library. So the program executes itself once in a mount namespace of which
//! everything is read-only, and goes back to where it came from: the libraries stay mapped as they are.
//!
//! Source: `proc_map_files_get_link` and `mnt_want_write` of Linux, mount_setattr(2); CVE-2019-5736 for the kind.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::Context as _;
use rustix::io::FdFlags;
use rustix::thread::LinkNameSpaceType;

use crate::rootfs;

/// Goes on once this program has its libraries from read-only mounts. By then it has been executed anew.
///
/// # Errors
/// When the kernel does not make the namespace or does not let the program back.
pub(crate) fn from_read_only_mounts() -> anyhow::Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let [program, id, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("bireme-runner is started by biremed, with the ID of a container");
    };
    match rest {
        [] => {
            let home = File::open("/proc/self/ns/mnt").context("cannot open the mount namespace")?;
            rustix::io::fcntl_setfd(&home, FdFlags::empty())?;
            let home = home.as_raw_fd().to_string();
            enter_read_only_namespace().context("cannot make a mount namespace that is read-only")?;
            let error = Command::new("/proc/self/exe").arg0(program).arg(id).arg(home).exec();
            Err(error).context("cannot execute the runner anew")
        }
        [home, ..] => {
            let home: i32 =
                home.to_str().and_then(|number| number.parse().ok()).context("the number of a descriptor")?;
            // By its name, as what is open now is open through the mounts of this namespace.
            let folder = std::env::current_dir().context("cannot tell the working directory")?;
            // Opened anew, and given up under the number that it was left open under.
            let inherited = home;
            let home = File::open(format!("/proc/self/fd/{inherited}"))
                .context("cannot open the mount namespace of the daemon")?;
            nix::unistd::close(inherited)?;
            rustix::thread::move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount))
                .context("cannot go back into the mount namespace of the daemon")?;
            rustix::process::chdir(&folder).context("cannot go back into the run folder")
        }
    }
}

fn enter_read_only_namespace() -> io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let root =
        rustix::fs::open("/", rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    rootfs::make_read_only(root.as_fd())
}
