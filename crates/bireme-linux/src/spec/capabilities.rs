//! Which capabilities a container has: Docker's set, with what is added and dropped.

use std::collections::BTreeSet;

use bireme_core::ErrorKind;
use bireme_core::linux_names::{CAPABILITIES, capability_number, plain_capability};
use bireme_core::spec::Security;

use super::invalid;
use crate::protocol::Failure;

/// What root in a container may do, as in Docker.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// The capabilities a container has, without their `CAP_` prefix. `available` is the set of whoever starts it, as in
/// `/proc/self/status`.
///
/// # Errors
/// `Invalid` for a name that is none, `Denied` for one that is not available here.
pub fn capabilities(security: &Security, available: u64) -> Result<BTreeSet<String>, Failure> {
    let have = |name: &str| capability_number(name).is_some_and(|number| available >> number & 1 == 1);
    let all = || CAPABILITIES.iter().filter(|name| have(name)).map(|name| (*name).to_owned());
    let plain = |names: &[String]| names.iter().map(|name| plain_capability(name)).collect::<Vec<_>>();
    let (add, drop) = (plain(&security.cap_add), plain(&security.cap_drop));
    for name in add.iter().chain(&drop) {
        if name != "ALL" && capability_number(name).is_none() {
            return Err(invalid(format!("unknown capability {name:?}: see capabilities(7) for their names")));
        }
    }
    if security.privileged {
        return Ok(all().collect());
    }
    let mut set: BTreeSet<String> = if add.iter().any(|name| name == "ALL") {
        all().collect()
    } else if drop.iter().any(|name| name == "ALL") {
        BTreeSet::new()
    } else {
        DEFAULT_CAPABILITIES.iter().filter(|name| have(name)).map(|name| (*name).to_owned()).collect()
    };
    for name in &drop {
        set.remove(name);
    }
    for name in add.iter().filter(|name| *name != "ALL") {
        if !have(name) {
            return Err(Failure::new(
                ErrorKind::Denied,
                format!("capability {name} is not available on this machine; leave it out"),
            ));
        }
        set.insert(name.clone());
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_caps(add: &[&str], drop: &[&str], available: u64, expected: Option<(&[&str], &[&str])>) {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let security = Security { cap_add: list(add), cap_drop: list(drop), ..Security::default() };
        match (capabilities(&security, available), expected) {
            (Ok(set), Some((with, without))) => {
                assert!(with.iter().all(|name| set.contains(*name)), "{add:?} {drop:?} {set:?}");
                assert!(without.iter().all(|name| !set.contains(*name)), "{add:?} {drop:?} {set:?}");
            }
            (Err(_), None) => {}
            (got, _) => panic!("{add:?} {drop:?} {got:?}"),
        }
    }

    #[test]
    fn capabilities_are_dockers() {
        check_caps(&[], &[], u64::MAX, Some((&["CHOWN", "NET_RAW"], &["SYS_ADMIN", "NET_ADMIN"])));
        check_caps(&["NET_ADMIN"], &["ALL"], u64::MAX, Some((&["NET_ADMIN"], &["CHOWN"])));
        check_caps(&["ALL"], &["SYS_ADMIN"], u64::MAX, Some((&["SYS_TIME"], &["SYS_ADMIN"])));
        check_caps(&["CAP_SYS_TIME"], &[], u64::MAX, Some((&["SYS_TIME"], &[])));
        check_caps(&["SYS_RESOURCE"], &[], !(1 << 24), None);
        check_caps(&["NONSENSE"], &[], u64::MAX, None);
        check_caps(&["CAP_CAP_SYS_TIME"], &[], u64::MAX, None);
    }
}
