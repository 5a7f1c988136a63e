//! The cgroup of a sandbox: `<hierarchy>/bireme-<instance>-w/<sandbox>` in every hierarchy that is there.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use bireme_sys::bpf::{self, Instruction};

const ROOT: &str = "/sys/fs/cgroup";
/// cgroup v1 controllers worth accounting, and the one of devices. `cpuset` is left out: it refuses members until it is
/// filled in.
const CONTROLLERS: [&str; 6] = ["memory", "cpu,cpuacct", "pids", "blkio", "freezer", "devices"];
/// The only devices that a host opens: `/dev/null` and `/dev/urandom`, both of this major number.
const DEVICES: (u16, [u16; 2]) = (1, [3, 9]);

/// Folders of the cgroup `name`, one per hierarchy of this machine (v1, hybrid or v2).
pub fn folders(name: &Path) -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    if is_hierarchy(root) {
        return vec![root.join(name)];
    }
    let mut found: Vec<PathBuf> = CONTROLLERS.iter().map(|c| root.join(c)).filter(|p| is_hierarchy(p)).collect();
    if !is_hierarchy(&root.join("cpu,cpuacct")) {
        found.extend(["cpu", "cpuacct"].iter().map(|c| root.join(c)).filter(|p| is_hierarchy(p)));
    }
    found.extend([root.join("unified")].into_iter().filter(|p| is_hierarchy(p)));
    found.into_iter().map(|p| p.join(name)).collect()
}

/// Whether one is mounted at `path`: another engine may have left a folder of that name where none is.
fn is_hierarchy(path: &Path) -> bool {
    const KINDS: [u64; 2] = [0x0027_e0eb, 0x6367_7270];
    let kind = rustix::fs::statfs(path).ok().and_then(|found| u64::try_from(found.f_type).ok());
    kind.is_some_and(|kind| KINDS.contains(&kind))
}

/// Removes the cgroup `name` from every hierarchy. Its parent stays, as another sandbox may be about to make its own there.
pub fn remove(name: &Path) {
    for folder in folders(name) {
        if let Err(error) = fs::remove_dir(&folder)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::debug!(folder = %folder.display(), %error, "cgroup not removed");
        }
    }
}

/// Makes the cgroup `name` one whose processes open no device but `/dev/null` and `/dev/urandom`. A host has no business
/// with any other, and volumes that containers write to may hold nodes of all of them.
///
/// # Errors
/// Those of the kernel, with what was attempted. A machine without a cgroup for devices at all is none.
pub fn deny_devices(name: &Path) -> io::Result<()> {
    let (major, minors) = DEVICES;
    let told = |what: &Path| {
        let what = what.display().to_string();
        move |error: io::Error| io::Error::new(error.kind(), format!("cannot deny devices in {what}: {error}"))
    };
    for folder in folders(name) {
        let parent = folder.components().count() - name.components().count();
        let hierarchy: PathBuf = folder.components().take(parent).collect();
        let unified = hierarchy == Path::new(ROOT);
        if hierarchy.ends_with("devices") {
            fs::create_dir_all(&folder).map_err(told(&folder))?;
            fs::write(folder.join("devices.deny"), "a").map_err(told(&folder))?;
            for minor in minors {
                fs::write(folder.join("devices.allow"), format!("c {major}:{minor} rw")).map_err(told(&folder))?;
            }
        } else if unified {
            fs::create_dir_all(&folder).map_err(told(&folder))?;
            bind_devices(&folder).map_err(told(&folder))?;
        }
    }
    Ok(())
}

/// The same in a folder of version 2.
fn bind_devices(folder: &Path) -> io::Result<()> {
    let folder = fs::File::open(folder)?;
    bpf::attach_device_program(bpf::load_device_program(&device_program())?, folder)
}

/// Answers 1 for the character devices of [`DEVICES`] and 0 for everything else. What is asked comes as three numbers of 32
/// bits: kind and access, major, minor.
///
/// Source: `struct bpf_cgroup_dev_ctx` in the kernel's `include/uapi/linux/bpf.h`.
fn device_program() -> Vec<Instruction> {
    const LOAD: u8 = 0x61;
    const AND: u8 = 0x57;
    const JUMP_IF: u8 = 0x15;
    const JUMP_IF_NOT: u8 = 0x55;
    const MOVE: u8 = 0xb7;
    const EXIT: u8 = 0x95;
    const CHARACTER: i32 = 2;
    let step = |code, registers, offset, immediate| Instruction { code, registers, offset, immediate };
    let (major, [one, other]) = DEVICES;
    vec![
        step(LOAD, 0x12, 0, 0),
        step(AND, 0x02, 0, 0xffff),
        step(JUMP_IF_NOT, 0x02, 5, CHARACTER),
        step(LOAD, 0x12, 4, 0),
        step(JUMP_IF_NOT, 0x02, 3, major.into()),
        step(LOAD, 0x12, 8, 0),
        step(JUMP_IF, 0x02, 3, one.into()),
        step(JUMP_IF, 0x02, 2, other.into()),
        step(MOVE, 0x00, 0, 0),
        step(EXIT, 0x00, 0, 0),
        step(MOVE, 0x00, 0, 1),
        step(EXIT, 0x00, 0, 0),
    ]
}

/// The names of the cgroups in the cgroup `name`, in any hierarchy.
pub fn children(name: &Path) -> BTreeSet<String> {
    let entries = folders(name).into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    let children = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    children.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The processes in the cgroup `name`.
pub fn members(name: &Path) -> Vec<u32> {
    folders(name)
        .first()
        .and_then(|folder| fs::read_to_string(folder.join("cgroup.procs")).ok())
        .map(|text| text.lines().filter_map(|line| line.parse().ok()).collect())
        .unwrap_or_default()
}

/// Lets the processes in the cgroup `name` have at most `bytes` of memory together, swap included where the kernel counts
/// it, and `sockets` more where it also counts what is in sockets. Does what can be done: a controller that is not there
/// limits nothing.
pub fn limit_memory(name: &Path, bytes: u64, sockets: u64) {
    for folder in folders(name) {
        pass_on(&folder, name, "memory");
        for (file, bytes) in [("memory.max", bytes.saturating_add(sockets)), ("memory.limit_in_bytes", bytes)] {
            let file = folder.join(file);
            if !file.exists() {
                continue;
            }
            // Fails while more than that is in use, which is less than was allowed before.
            if let Err(error) = fs::write(&file, bytes.to_string()) {
                tracing::debug!(file = %file.display(), bytes, %error, "the memory of a host is not limited anew");
            }
        }
    }
}

/// Keeps what the processes in the cgroup `name` write to memory out of swap. Answers whether it is: the kernel has a controller
/// that does it (cgroup v2), or the machine has no swap at this moment. What is added later is not noticed.
///
/// Source: `memory.swap.max`, Documentation/admin-guide/cgroup-v2.rst.
pub fn keep_from_swap(name: &Path) -> bool {
    let kept = folders(name).iter().any(|folder| {
        pass_on(folder, name, "memory");
        let most = folder.join("memory.swap.max");
        most.exists() && fs::write(most, "0").is_ok()
    });
    kept || !has_swap()
}

/// Whether the machine has swap at this moment, as far as can be told.
///
/// Source: `/proc/swaps`, proc(5).
pub fn has_swap() -> bool {
    // The first line is a heading. A kernel without swap has no such file.
    match fs::read_to_string("/proc/swaps") {
        Ok(text) => text.lines().count() > 1,
        Err(error) => error.kind() != io::ErrorKind::NotFound || !Path::new("/proc/self").exists(),
    }
}

/// What the kernel keeps in the sockets of a cgroup's processes, as it counts that to their memory (cgroup v2).
///
/// Source: `sock` of `memory.stat`, Documentation/admin-guide/cgroup-v2.rst.
#[derive(Debug)]
pub struct SocketMemory(fs::File);

impl SocketMemory {
    /// Opens the account of the cgroup `name`, which then can be read by who cannot reach its folder; `None` where the
    /// kernel has none.
    pub fn open(name: &Path) -> Option<Self> {
        folders(name).into_iter().find_map(|folder| {
            pass_on(&folder, name, "memory");
            let account = Self(fs::File::open(folder.join("memory.stat")).ok()?);
            account.bytes().map(|_| account)
        })
    }

    /// Bytes at this moment; `None` when it cannot be read.
    pub fn bytes(&self) -> Option<u64> {
        // Some fifty lines.
        let mut buffer = [0; 8192];
        let length = self.0.read_at(&mut buffer, 0).ok()?;
        let text = std::str::from_utf8(buffer.get(..length)?).ok()?;
        text.lines().find_map(|line| line.strip_prefix("sock ")?.parse().ok())
    }
}

/// Lets there be at most `most` processes and threads in the cgroup `name`. Answers whether there is a controller that does.
pub fn limit_processes(name: &Path, most: u64) -> bool {
    let mut limited = false;
    for folder in folders(name) {
        pass_on(&folder, name, "pids");
        let file = folder.join("pids.max");
        if !file.exists() {
            continue;
        }
        match fs::write(&file, most.to_string()) {
            Ok(()) => limited = true,
            Err(error) => {
                tracing::debug!(file = %file.display(), most, %error, "the processes of a host are not limited");
            }
        }
    }
    limited
}

/// Has a controller be there in a folder of cgroup v2: it is where every cgroup above passes it on.
fn pass_on(folder: &Path, name: &Path, controller: &str) {
    if !folder.join("cgroup.controllers").exists() || folder.join(format!("{controller}.max")).exists() {
        return;
    }
    let above: Vec<&Path> = folder.ancestors().skip(1).take(name.components().count()).collect();
    for above in above.into_iter().rev() {
        let _ = fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `head` in `folder` reads from a device.
    fn reads(folder: &Path, device: &str) -> bool {
        let script = format!("echo $$ > {}/cgroup.procs && exec head -c 1 {device}", folder.display());
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(
            output.status.success() || String::from_utf8_lossy(&output.stderr).contains("not permitted"),
            "{output:?}"
        );
        output.status.success()
    }

    #[test]
    fn a_folder_is_no_hierarchy() {
        assert!(!is_hierarchy(&std::env::temp_dir()) && !is_hierarchy(Path::new("/nowhere")));
        let found = folders(Path::new("x"));
        assert!(found.iter().all(|folder| folder.parent().is_some_and(is_hierarchy)), "{found:?}");
    }

    #[test]
    fn a_cgroup_has_a_number_of_processes() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let name = PathBuf::from(format!("bireme-test-processes-{}", std::process::id()));
        let folders = folders(&name);
        folders.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        let limited = limit_processes(&name, 3);
        let Some(folder) = folders.iter().find(|folder| folder.join("pids.max").exists()) else {
            // A machine without that controller limits nothing.
            assert!(!limited);
            remove(&name);
            return;
        };
        assert!(limited);
        let script =
            format!("echo $$ > {}/cgroup.procs; for n in 1 2 3 4 5; do sleep 1 & done; wait", folder.display());
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("fork"), "{output:?}");
        for _ in 0..500 {
            remove(&name);
            if !folder.exists() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{} stays", folder.display());
    }

    /// What a client sends that is read by nobody is counted, where it is counted at all: by cgroup v2.
    #[test]
    fn what_is_in_sockets_is_counted() {
        use std::io::Write as _;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let name = PathBuf::from(format!("bireme-test-sockets-{}", std::process::id()));
        let folders = folders(&name);
        folders.iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        let account = SocketMemory::open(&name);
        let unified = folders.len() == 1 && folders[0].join("memory.max").exists();
        assert_eq!(account.is_some(), unified, "{folders:?}");
        if let Some(account) = account {
            // A socket is of the cgroup that its process is in when it is made.
            let listens = format!("echo $$ > {}/cgroup.procs && exec nc -l -p 47123 -e sleep 60", folders[0].display());
            let mut server = std::process::Command::new("sh").args(["-c", &listens]).spawn().unwrap();
            let mut stream = (0..500)
                .find_map(|_| {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    std::net::TcpStream::connect("127.0.0.1:47123").ok()
                })
                .unwrap();
            assert!(account.bytes().unwrap() < 32 << 10, "{account:?}");
            stream.set_nonblocking(true).unwrap();
            for _ in 0..100 {
                let _ = stream.write(&[b'x'; 64 << 10]);
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            // The kernel sums up what its processors counted every two seconds.
            let counted = (0..250).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(20));
                account.bytes().unwrap() >= 32 << 10
            });
            assert!(counted, "{:?}", account.bytes());
            server.kill().unwrap();
            server.wait().unwrap();
        }
        for _ in 0..500 {
            remove(&name);
            if !folders.iter().any(|folder| folder.exists()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{folders:?} stay");
    }

    #[test]
    fn a_host_opens_no_device() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let name = PathBuf::from(format!("bireme-test-devices-{}", std::process::id()));
        deny_devices(&name).unwrap();
        let mut tried = folders(&name);
        tried.retain(|folder| folder.exists());
        // Version 2 wherever it is, also beside version 1.
        let unified = Path::new(ROOT).join("unified");
        if unified.join("cgroup.procs").exists() {
            let folder = unified.join(&name);
            fs::create_dir_all(&folder).unwrap();
            bind_devices(&folder).unwrap();
            tried.push(folder);
        }
        for folder in &tried {
            assert!(!reads(folder, "/dev/zero"), "{}", folder.display());
            assert!(reads(folder, "/dev/null") && reads(folder, "/dev/urandom"), "{}", folder.display());
        }
        assert!(!tried.is_empty(), "this machine has no cgroup that denies devices");
        remove(&name);
    }
}
