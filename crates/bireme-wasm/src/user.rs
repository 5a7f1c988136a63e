//! The users that host processes run as: one for each sandbox, so that the host of one app can do nothing to another's.

use std::sync::LazyLock;

use bireme_core::SandboxId;
use sha2::{Digest as _, Sha256};

/// The user and group of the processes that compile, and of all hosts where [`RANGE`] cannot be used.
pub const HOST_UID: u32 = 64_530;

/// First of the users of hosts, and how many there are: what systemd's list of user IDs on Linux leaves unused.
///
/// Source: <https://systemd.io/UIDS-GIDS/>.
pub const RANGE: (u32, u32) = (0x7000_0000, 0x1000_0000);

/// The user and group of the host of `sandbox` in the engine called `instance`.
///
/// It follows from the two names, so that nothing need be remembered: files of a sandbox stay its own over any restart.
/// Of a thousand sandboxes two have the same user with a probability of 1 in 500, and then are still apart in every other
/// way.
pub(crate) fn of(instance: &str, sandbox: &SandboxId) -> u32 {
    static WHOLE: LazyLock<bool> = LazyLock::new(|| {
        ["uid_map", "gid_map"]
            .iter()
            .all(|map| std::fs::read_to_string(format!("/proc/self/{map}")).is_ok_and(|map| has_range(&map)))
    });
    if *WHOLE { hashed(instance, sandbox) } else { HOST_UID }
}

fn hashed(instance: &str, sandbox: &SandboxId) -> u32 {
    let hash = Sha256::new().chain_update(instance).chain_update([0]).chain_update(sandbox.as_str()).finalize();
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
        let users: std::collections::BTreeSet<u32> =
            (0..1000).map(|n| hashed("instance", &sandbox(&format!("app-{n}")))).collect();
        assert!(users.len() >= 999, "{}", users.len());
        assert!(users.iter().all(|user| (RANGE.0..RANGE.0 + RANGE.1).contains(user)));
        assert_eq!(hashed("a", &sandbox("app-x")), hashed("a", &sandbox("app-x")));
        assert_ne!(hashed("a", &sandbox("app-x")), hashed("b", &sandbox("app-x")), "two engines on one machine");
    }

    #[test]
    fn a_namespace_with_few_users_is_seen() {
        assert!(has_range("         0          0 4294967295\n"));
        assert!(!has_range("         0     100000      65536\n"));
        assert!(!has_range(""));
    }
}
