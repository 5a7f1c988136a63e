//! A process's streams: pipes or a terminal, of which the runner holds one end.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::pipe::PipeFlags;
use rustix::pty::OpenptFlags;

/// Our ends of a process's streams, in non-blocking mode.
#[derive(Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// With a terminal this alone is there.
    pub(crate) terminal: Option<OwnedFd>,
}

/// The process's ends of fresh pipes.
pub(crate) struct Ends {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Pipes for a process of user `uid`, who may open `/dev/stdout` and its like again.
pub(crate) fn pipes(uid: u32, stdin: bool) -> io::Result<(Streams, Ends)> {
    let (output, errors) = (rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?, rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?);
    let mut streams = Streams { stdin: None, stdout: Some(output.0), stderr: Some(errors.0), terminal: None };
    let input = if stdin {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        streams.stdin = Some(write);
        read
    } else {
        null()?
    };
    let ends = Ends { stdin: input, stdout: output.1, stderr: errors.1 };
    if uid != 0 {
        let owner = Some(rustix::fs::Uid::from_raw(uid));
        for end in [Some(&ends.stdout), Some(&ends.stderr), stdin.then_some(&ends.stdin)].into_iter().flatten() {
            rustix::fs::fchown(end, owner, None)?;
        }
    }
    for fd in [&streams.stdin, &streams.stdout, &streams.stderr].into_iter().flatten() {
        rustix::io::ioctl_fionbio(fd, true)?;
    }
    Ok((streams, ends))
}

/// `/dev/null`, for streams that lead nowhere.
pub(crate) fn null() -> io::Result<OwnedFd> {
    Ok(File::options().read(true).write(true).open("/dev/null")?.into())
}

/// One descriptor sent through `socket`.
pub(crate) fn receive(socket: impl std::os::fd::AsFd) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 64];
    rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        })
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no descriptor came"))
}

/// Makes the terminal the user's, and ours not to wait on.
pub(crate) fn own_terminal(master: &OwnedFd, uid: u32) -> io::Result<()> {
    let slave = rustix::pty::ioctl_tiocgptpeer(master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(uid)), None)?;
    Ok(rustix::io::ioctl_fionbio(master, true)?)
}

/// Sets the size of a terminal.
pub(crate) fn resize(terminal: &OwnedFd, columns: u16, rows: u16) -> io::Result<()> {
    let size = rustix::termios::Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}
