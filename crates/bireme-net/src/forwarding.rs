//! Whether the host passes packets on, and how it was before us.
//!
//! Networks with a way out need it. Where it was off, the machine was no router and does not become one: what neither
//! comes from a bridge nor goes to one is dropped, as Docker's policy does, and it is off again when the last engine has
//! nothing left. All engines of the machine share the nf_tables table `inet bireme_forwarding`, which is there exactly
//! while one of them has turned something on. The names of its chains tell what to put back: they live as long as the
//! settings themselves, whatever becomes of the engine. Each engine knows them too, should somebody flush all rules.

use std::io;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bireme_sys::netlink::{Refused, Socket, Subsystem};
use bireme_sys::nft::{Batch, Family, Hook, Register, Step, Verdict, chains, tables};
use rustix::io::Errno;

use crate::NetError;

pub(crate) const TABLE: &str = "bireme_forwarding";
/// What the chains that remember are called, before `VALUE/PATH`.
const WAS: &str = "was/";
/// The chains that drop, by the family of what they see.
const DROPPING: [(&str, u8); 2] = [("forward", 2), ("forward6", 10)];
/// Of one engine's table: this and eight hexadecimal digits.
const OF_ENGINE: &str = "bireme_";
/// Whoever holds it decides about forwarding of the network namespace. It goes with whoever made it.
const LOCK_TABLE: &str = "bireme_forwarding_lock";
/// The same where the kernel knows no tables with an owner. Of the network namespace too, but anyone may take the name.
const LOCK_NAME: &[u8] = b"bireme_forwarding";
/// The lock is then gone without.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// What this engine knows of how the host forwarded: the names of the table's chains, should somebody remove the table.
pub(crate) struct Forwarding {
    chains: Vec<String>,
    /// The same for the next daemon of the same network namespace, as long as the machine runs: elsewhere and later, it
    /// tells of settings that nobody changed.
    file: PathBuf,
}

impl Forwarding {
    /// What an earlier daemon knew.
    pub(crate) fn load(run_dir: &Path) -> Self {
        let file = run_dir.join("forwarding");
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        Self { chains: known(&text, mark().as_deref()), file }
    }

    /// Turns forwarding on for the families of `gateways`, and makes the table again where somebody removed it.
    pub(crate) fn open(&mut self, socket: &mut Socket, gateways: impl Iterator<Item = IpAddr>) -> Result<(), NetError> {
        let (mut four, mut six) = (false, false);
        gateways.for_each(|gateway| if gateway.is_ipv4() { four = true } else { six = true });
        let remembering = || NetError::kernel("remembering how the host forwards in nf_tables table bireme_forwarding");
        if four || six {
            self.make_again(socket).map_err(remembering())?;
        }
        for (wanted, switch, family) in [(four, "ipv4/ip_forward", 2), (six, "ipv6/conf/all/forwarding", 10)] {
            if !wanted || is(switch, "1") {
                continue;
            }
            let _lock = lock();
            // Somebody may have been faster.
            if is(switch, "1") {
                continue;
            }
            let of_routers = if family == 10 { accepting() } else { vec![] };
            let mut before = vec![(switch.to_owned(), "0".to_owned())];
            before.extend(forwarding(if family == 2 { "ipv4" } else { "ipv6" }));
            if family == 2 {
                // The switch changes it along with itself.
                let redirects = "ipv4/conf/all/accept_redirects";
                before.extend(read(redirects).map(|value| (redirects.to_owned(), value)));
            }
            before.extend(of_routers.iter().map(|path| (path.clone(), "1".to_owned())));
            let dropping = DROPPING.iter().filter(|(_, of)| *of == family).map(|(chain, _)| (*chain).to_owned());
            let names = dropping.chain(before.iter().map(|(path, value)| format!("{WAS}{value}/{path}")));
            let there = chains(socket, Family::Inet, TABLE).map_err(remembering())?;
            make(socket, &missing(&names.collect::<Vec<_>>(), &there)).map_err(remembering())?;
            // A router takes no routes from others but where it is told to: first, or the routes it has are gone.
            for path in &of_routers {
                match write(path, "2") {
                    // An interface that went meanwhile has no routes to lose.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    other => other.map_err(NetError::io(format!("keeping net.{}", path.replace('/', "."))))?,
                }
            }
            write(switch, "1").map_err(NetError::io(format!("enabling net.{}", switch.replace('/', "."))))?;
        }
        if four || six {
            let there = chains(socket, Family::Inet, TABLE).map_err(remembering())?;
            self.keep(there);
        }
        Ok(())
    }

    /// Without the table the host would go on forwarding between everybody, and nobody would know how it was before.
    fn make_again(&mut self, socket: &mut Socket) -> Result<(), Refused> {
        if missing(&self.chains, &chains(socket, Family::Inet, TABLE)?).is_empty() {
            return Ok(());
        }
        let _lock = lock();
        let lost = missing(&self.chains, &chains(socket, Family::Inet, TABLE)?);
        if !lost.is_empty() {
            make(socket, &lost)?;
            tracing::warn!(
                "somebody removed nf_tables table {TABLE}, which keeps this host from being a router: it is made again"
            );
        }
        Ok(())
    }

    fn keep(&mut self, chains: Vec<String>) {
        if self.chains == chains {
            return;
        }
        let new = self.file.with_extension("new");
        let text = format!("{}\n{}", mark().unwrap_or_default(), chains.join("\n"));
        let written = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.file));
        if let Err(error) = written {
            tracing::warn!(file = %self.file.display(), %error, "how the host forwarded is not kept for the next daemon");
        }
        self.chains = chains;
    }

    /// Puts back what was turned on, unless another engine is there. Call it when one's own table is gone.
    pub(crate) fn close(&mut self, socket: &mut Socket) -> Result<(), NetError> {
        let _lock = lock();
        let failed = || NetError::kernel("asking how the host forwarded before");
        let known = std::mem::take(&mut self.chains);
        let _ = std::fs::remove_file(&self.file);
        let others = tables(socket, Family::Inet).map_err(failed())?;
        if others.iter().any(|name| is_of_engine(name)) {
            return Ok(());
        }
        let exists = others.iter().any(|name| name == TABLE);
        let names = if exists { chains(socket, Family::Inet, TABLE).map_err(failed())? } else { known };
        for (path, value) in before(&names) {
            match write(&path, &value) {
                // Its interface is gone.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(path, value, %error, "a setting of the host could not be put back"),
                Ok(()) => {}
            }
        }
        if !exists {
            return Ok(());
        }
        let mut batch = Batch::new(TABLE);
        batch.delete_table();
        batch.commit(socket).map_err(NetError::kernel("removing nf_tables table bireme_forwarding"))
    }
}

/// The names of chains in a file that was written under this `mark`.
fn known(text: &str, mark: Option<&str>) -> Vec<String> {
    let mut lines = text.lines();
    if mark.is_none() || lines.next() != mark {
        return Vec::new();
    }
    lines.filter(|name| is_ours(name)).map(str::to_owned).collect()
}

/// Which boot of which machine this is, and which of its network namespaces.
fn mark() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = rustix::fs::stat("/proc/thread-self/ns/net").ok()?;
    Some(format!("of {} {}:{}", boot.trim(), namespace.st_dev, namespace.st_ino))
}

/// Settings and their values before, in the order of being put back.
fn before(chains: &[String]) -> Vec<(String, String)> {
    let mut before: Vec<(String, String)> = chains
        .iter()
        .filter_map(|name| name.strip_prefix(WAS)?.split_once('/'))
        .map(|(value, path)| (path.to_owned(), value.to_owned()))
        .collect();
    // The switches first: they change the others along with them.
    before.sort_by_key(|(path, _)| (!path.ends_with("ip_forward"), !path.ends_with("all/forwarding"), path.clone()));
    before
}

/// Whether a chain of this name is one that [`make`] makes.
fn is_ours(name: &str) -> bool {
    let setting = |name: &str| {
        let (_, path) = name.strip_prefix(WAS)?.split_once('/')?;
        Some((path.starts_with("ipv4/") || path.starts_with("ipv6/")) && path.split('/').all(|part| part != ".."))
    };
    DROPPING.iter().any(|(chain, _)| *chain == name) || setting(name) == Some(true)
}

/// Those of `wanted` that are not `there`.
fn missing(wanted: &[String], there: &[String]) -> Vec<String> {
    wanted.iter().filter(|name| !there.contains(name)).cloned().collect()
}

/// Makes the table and these of its chains, those that drop what the host did not forward before with their rules.
fn make(socket: &mut Socket, names: &[String]) -> Result<(), Refused> {
    let mut batch = Batch::new(TABLE);
    batch.add_table();
    for name in names {
        let Some((_, family)) = DROPPING.iter().find(|(chain, _)| chain == name) else {
            batch.add_chain(name);
            continue;
        };
        batch.add_base_chain(name, Hook::FilterForward);
        let first = Register::FIRST;
        let mut bridge = b"bridge".to_vec();
        bridge.resize(16, 0);
        // Whoever has a bridge, of ours or not, decides what passes it.
        for load in [Step::LoadInKind(first), Step::LoadOutKind(first)] {
            batch.add_rule(name, &[load, Step::Equals(first, bridge.clone()), Step::Verdict(Verdict::Accept)]);
        }
        let rest = [Step::LoadFamily(first), Step::Equals(first, vec![*family]), Step::Verdict(Verdict::Drop)];
        batch.add_rule(name, &rest);
    }
    match batch.commit(socket) {
        Err(refused) if refused.errno == Errno::EXIST => Ok(()),
        answer => answer,
    }
}

/// Interfaces that forward already, with the switch off.
fn forwarding(family: &str) -> impl Iterator<Item = (String, String)> {
    let family = family.to_owned();
    let paths = interfaces(&family).into_iter().map(move |name| format!("{family}/conf/{name}/forwarding"));
    paths.filter(|path| is(path, "1")).map(|path| (path, "1".to_owned()))
}

/// Interfaces that take their routes from routers' announcements.
fn accepting() -> Vec<String> {
    let all = interfaces("ipv6").into_iter().filter(|name| !matches!(name.as_str(), "all" | "default" | "lo"));
    let using = all.filter(|name| is(&format!("ipv6/conf/{name}/disable_ipv6"), "0"));
    using.map(|name| format!("ipv6/conf/{name}/accept_ra")).filter(|path| is(path, "1")).collect()
}

fn interfaces(family: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/sys/net/{family}/conf")) else { return vec![] };
    let plain = |name: &String| name.bytes().all(|b| b.is_ascii_graphic());
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(plain).collect()
}

fn is(path: &str, value: &str) -> bool {
    read(path).is_some_and(|found| found == value)
}

fn read(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/sys/net/{path}")).ok()?.trim().to_owned())
}

fn write(path: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/{path}"), value)
}

fn is_of_engine(table: &str) -> bool {
    let digits = table.strip_prefix(OF_ENGINE);
    digits.is_some_and(|digits| digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// The lock, held until it is dropped.
enum Lock {
    Table(#[expect(dead_code, reason = "the table is there for as long as it is open")] Socket),
    Name(#[expect(dead_code, reason = "nobody else has its name")] UnixDatagram),
}

/// Keeps other engines of this network namespace from deciding at the same time. `None` where somebody else has the
/// lock for long.
fn lock() -> Option<Lock> {
    let begin = Instant::now();
    loop {
        let error: io::Error = match hold() {
            Ok(socket) => return Some(Lock::Table(socket)),
            // What belongs to another socket may not even be named.
            Err(refused) if matches!(refused.errno, Errno::EXIST | Errno::PERM) => refused.errno.into(),
            Err(_) => match SocketAddr::from_abstract_name(LOCK_NAME).and_then(|name| UnixDatagram::bind_addr(&name)) {
                Ok(held) => return Some(Lock::Name(held)),
                Err(error) => error,
            },
        };
        if begin.elapsed() >= LOCK_WAIT {
            tracing::warn!(%error, "forwarding is decided about without the lock that engines share");
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Needs the right to change rules, as the name of a socket does not.
fn hold() -> Result<Socket, Refused> {
    let mut socket = Socket::open(Subsystem::Netfilter)?;
    let mut batch = Batch::new(LOCK_TABLE);
    batch.hold_table();
    batch.commit(&mut socket)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_engines_are_told_from_others() {
        let ours = ["bireme_0123abcd", "bireme_forwarding", "bireme_dns", "bireme_0123abcd_probe", "filter"];
        assert_eq!(ours.map(is_of_engine), [true, false, false, false, false]);
    }

    #[test]
    fn what_a_file_tells_of_is_a_setting_of_the_network() {
        let names = ["forward", "forward6", "was/0/ipv4/ip_forward", "was/1/ipv6/conf/eth0/forwarding"];
        assert_eq!(names.map(is_ours), [true; 4]);
        let foreign = ["", "input", "was/0", "was/0/core/somaxconn", "was/0/ipv4/../../kernel/core_pattern"];
        assert_eq!(foreign.map(is_ours), [false; 5]);
        let names = names.map(str::to_owned);
        assert_eq!(missing(&names, &names[..2]), names[2..]);
        let put_back = before(&names).into_iter().map(|(path, value)| format!("{path}={value}")).collect::<Vec<_>>();
        assert_eq!(put_back, ["ipv4/ip_forward=0", "ipv6/conf/eth0/forwarding=1"]);
    }

    #[test]
    fn a_file_of_another_boot_or_namespace_tells_nothing() {
        let text = "of 1 4:7\nforward\nwas/0/ipv4/ip_forward\ninput\n";
        assert_eq!(known(text, Some("of 1 4:7")), ["forward", "was/0/ipv4/ip_forward"]);
        for other in [Some("of 2 4:7"), Some("of 1 4:8"), None] {
            assert!(known(text, other).is_empty(), "{other:?}");
        }
        assert!(known("forward\nwas/0/ipv4/ip_forward", Some("of 1 4:7")).is_empty(), "of an older version");
        assert!(known("\nforward", None).is_empty());
        let here = mark().unwrap();
        let there = std::thread::spawn(|| {
            bireme_sys::netns::isolate_thread().unwrap();
            mark().unwrap()
        });
        assert_ne!(here, there.join().unwrap());
    }

    #[test]
    fn the_lock_is_held_once_and_nobody_without_rights_holds_it() {
        std::thread::spawn(|| {
            bireme_sys::netns::isolate_thread().unwrap();
            let _name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(LOCK_NAME).unwrap()).unwrap();
            let begin = Instant::now();
            let held = lock();
            assert!(matches!(held, Some(Lock::Table(_))), "this kernel has tables with an owner");
            assert!(begin.elapsed() < LOCK_WAIT, "whoever has the name keeps nobody waiting");
            assert!(hold().is_err());
            drop(held);
            assert!(hold().is_ok());
        })
        .join()
        .unwrap();
    }
}
