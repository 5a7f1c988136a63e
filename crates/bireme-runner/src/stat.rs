//! What the kernel says of a process. Source: proc_pid_stat(5).

/// Some fields of `/proc/PID/stat`, with the numbers of this process's own PID namespace.
pub(crate) struct Stat {
    /// It has ended and was not waited for.
    pub(crate) zombie: bool,
    pub(crate) parent: i32,
    pub(crate) session: i32,
}

/// Nothing of a process that is gone.
pub(crate) fn of(pid: i32) -> Option<Stat> {
    // No text: the name in it is any bytes.
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    // The name before it may hold anything, parentheses too.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let zombie = fields.next()? == "Z";
    let parent = fields.next()?.parse().ok()?;
    // After the group.
    let session = fields.nth(1)?.parse().ok()?;
    Some(Stat { zombie, parent, session })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    #[test]
    fn a_process_has_a_parent_and_a_session_also_when_it_has_ended() {
        let own = i32::try_from(std::process::id()).unwrap();
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        while !super::of(pid).unwrap().zombie {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let ended = super::of(pid).unwrap();
        assert_eq!((ended.parent, ended.session), (own, super::of(own).unwrap().session));
        child.wait().unwrap();
        assert!(super::of(pid).is_none());
    }
}
