//! The users that host processes run as: one for each sandbox, so that the host of one app can do nothing to another's.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::LazyLock;

use bireme_core::SandboxId;
use sha2::{Digest as _, Sha256};

/// The user and group of the processes that compile, and of all hosts where [`RANGE`] cannot be used.
pub const HOST_UID: u32 = 64_530;

/// First of the users of hosts, and how many there are: what systemd's list of user IDs on Linux leaves unused.
///
/// Source: <https://systemd.io/UIDS-GIDS/>.
pub const RANGE: (u32, u32) = (0x7000_0000, 0x1000_0000);

/// What the users of hosts are computed with, so that nobody else can: a container that ran as the user of a host would take
/// what the kernel counts by the user, such as epoll watches.
pub(crate) struct Secret([u8; 32]);

impl Secret {
    /// Reads the secret at `path`, or makes it.
    ///
    /// # Errors
    /// When it can be neither read nor made.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let mut secret = [0; 32];
        // Whatever else lies there is none, and holds nobody up.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        let open = || {
            let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no file"));
            }
            Ok(file)
        };
        match open().and_then(|mut file| file.read_exact(&mut secret)) {
            // A power cut may have left it empty.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {}
            read => return read.map(|()| Self(secret)),
        }
        let secret = Self::random()?;
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&secret.0)?;
        file.sync_all()?;
        std::fs::rename(&new, path)?;
        Ok(secret)
    }

    /// Another each time.
    pub(crate) fn random() -> io::Result<Self> {
        let mut secret = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut secret)?;
        Ok(Self(secret))
    }
}

/// The user that the process `pid` runs as.
pub(crate) fn of_process(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok())
}

/// The user and group of the host of `sandbox` in the engine called `instance`.
///
/// It follows from the names and the secret, so that nothing need be remembered: files of a sandbox stay its own over any
/// restart. Of a thousand sandboxes two have the same user with a probability of 1 in 500, and then are still apart but for
/// what the kernel counts by the user.
pub(crate) fn of(secret: &Secret, instance: &str, sandbox: &SandboxId) -> u32 {
    static WHOLE: LazyLock<bool> = LazyLock::new(|| {
        ["uid_map", "gid_map"]
            .iter()
            .all(|map| std::fs::read_to_string(format!("/proc/self/{map}")).is_ok_and(|map| has_range(&map)))
    });
    if *WHOLE { hashed(secret, instance, sandbox) } else { HOST_UID }
}

fn hashed(secret: &Secret, instance: &str, sandbox: &SandboxId) -> u32 {
    let hash = Sha256::new()
        .chain_update(secret.0)
        .chain_update(instance)
        .chain_update([0])
        .chain_update(sandbox.as_str())
        .finalize();
    let number = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    RANGE.0 + number % RANGE.1
}

/// Whether a user namespace with this map has all of [`RANGE`]: an engine in a container may not.
fn has_range(map: &str) -> bool {
    map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().map_while(|word| word.parse::<u64>().ok());
        let (Some(first), Some(_), Some(count)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return false;
        };
        first <= RANGE.0.into() && first + count >= u64::from(RANGE.0) + u64::from(RANGE.1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sandbox_has_a_user_of_its_own_and_keeps_it() {
        let sandbox = |name: &str| SandboxId::parse(name).unwrap();
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("wasm/secret");
        let secret = Secret::at(&path).unwrap();
        let hashed = |instance: &str, sandbox: &SandboxId| hashed(&secret, instance, sandbox);
        let users: std::collections::BTreeSet<u32> =
            (0..1000).map(|n| hashed("instance", &sandbox(&format!("app-{n}")))).collect();
        assert!(users.len() >= 999, "{}", users.len());
        assert!(users.iter().all(|user| (RANGE.0..RANGE.0 + RANGE.1).contains(user)));
        assert_eq!(hashed("a", &sandbox("app-x")), hashed("a", &sandbox("app-x")));
        assert_ne!(hashed("a", &sandbox("app-x")), hashed("b", &sandbox("app-x")), "two engines on one machine");
        let user = hashed("a", &sandbox("app-x"));
        assert_eq!(super::hashed(&Secret::at(&path).unwrap(), "a", &sandbox("app-x")), user, "over a restart");
        std::fs::write(&path, "").unwrap();
        let other = Secret::at(&path).unwrap();
        assert_ne!(super::hashed(&other, "a", &sandbox("app-x")), user, "nobody computes it without the secret");
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(of_process(std::process::id()), Some(rustix::process::getuid().as_raw()));
    }

    #[test]
    fn a_namespace_with_few_users_is_seen() {
        assert!(has_range("         0          0 4294967295\n"));
        assert!(!has_range("         0     100000      65536\n"));
        assert!(!has_range(""));
    }
}
