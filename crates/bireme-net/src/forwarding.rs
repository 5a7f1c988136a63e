//! Whether the host passes packets on, and how it was before us.
//!
//! Networks with a way out need it. Where it was off, the machine was no router and does not become one: what neither
//! comes from a bridge nor goes to one is dropped, as Docker's policy does, and it is off again when the last engine has
//! nothing left. All engines of the machine share the nf_tables table `inet bireme_forwarding`, which is there exactly
//! while one of them has turned something on. The names of its chains tell what to put back: they live as long as the
//! settings themselves, whatever becomes of the engine.

use std::io;
use std::net::IpAddr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use bireme_sys::netlink::{Refused, Socket};
use bireme_sys::nft::{Batch, Family, Hook, Register, Step, Verdict, chains, tables};
use rustix::io::Errno;

use crate::NetError;

const TABLE: &str = "bireme_forwarding";
/// What the chains that remember are called, before `VALUE/PATH`.
const WAS: &str = "was/";
/// Of one engine's table: this and eight hexadecimal digits.
const OF_ENGINE: &str = "bireme_";
/// Of the network namespace. Whoever holds it decides about forwarding.
const LOCK: &[u8] = b"bireme_forwarding";
/// Anyone may take the lock's name: it is then gone without.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Turns forwarding on for the families of `gateways`.
pub(crate) fn open(socket: &mut Socket, gateways: impl Iterator<Item = IpAddr>) -> Result<(), NetError> {
    let (mut four, mut six) = (false, false);
    gateways.for_each(|gateway| if gateway.is_ipv4() { four = true } else { six = true });
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
        remember(socket, family, &before)
            .map_err(NetError::kernel("remembering how the host forwards in nf_tables table bireme_forwarding"))?;
        // A router takes no routes from others but where it is told to: first, or the routes it has are gone.
        for path in &of_routers {
            write(path, "2").map_err(NetError::io(format!("keeping net.{}", path.replace('/', "."))))?;
        }
        write(switch, "1").map_err(NetError::io(format!("enabling net.{}", switch.replace('/', "."))))?;
    }
    Ok(())
}

/// Puts back what was turned on, unless another engine is there. Call it when one's own table is gone.
pub(crate) fn close(socket: &mut Socket) -> Result<(), NetError> {
    let _lock = lock();
    let failed = || NetError::kernel("asking how the host forwarded before");
    let others = tables(socket, Family::Inet).map_err(failed())?;
    if others.iter().any(|name| is_of_engine(name)) || !others.iter().any(|name| name == TABLE) {
        return Ok(());
    }
    let mut before: Vec<(String, String)> = chains(socket, Family::Inet, TABLE)
        .map_err(failed())?
        .iter()
        .filter_map(|name| name.strip_prefix(WAS)?.split_once('/'))
        .map(|(value, path)| (path.to_owned(), value.to_owned()))
        .collect();
    // The switches first: they change the others along with them.
    before.sort_by_key(|(path, _)| (!path.ends_with("ip_forward"), !path.ends_with("all/forwarding"), path.clone()));
    for (path, value) in before {
        match write(&path, &value) {
            // Its interface is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path, value, %error, "a setting of the host could not be put back"),
            Ok(()) => {}
        }
    }
    let mut batch = Batch::new(TABLE);
    batch.delete_table();
    batch.commit(socket).map_err(NetError::kernel("removing nf_tables table bireme_forwarding"))
}

/// Makes the table, drops what the host did not forward before, and writes down what was.
fn remember(socket: &mut Socket, family: u8, before: &[(String, String)]) -> Result<(), Refused> {
    let mut batch = Batch::new(TABLE);
    let chain = if family == 2 { "forward" } else { "forward6" };
    batch.add_table().add_base_chain(chain, Hook::FilterForward);
    let first = Register::FIRST;
    let mut bridge = b"bridge".to_vec();
    bridge.resize(16, 0);
    // Whoever has a bridge, of ours or not, decides what passes it.
    for load in [Step::LoadInKind(first), Step::LoadOutKind(first)] {
        batch.add_rule(chain, &[load, Step::Equals(first, bridge.clone()), Step::Verdict(Verdict::Accept)]);
    }
    let rest = [Step::LoadFamily(first), Step::Equals(first, vec![family]), Step::Verdict(Verdict::Drop)];
    batch.add_rule(chain, &rest);
    for (path, value) in before {
        batch.add_chain(&format!("{WAS}{value}/{path}"));
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

/// Keeps other engines of this network namespace from deciding at the same time. `None` where somebody else has the
/// name for long.
fn lock() -> Option<UnixDatagram> {
    let name = SocketAddr::from_abstract_name(LOCK).ok()?;
    let begin = Instant::now();
    loop {
        match UnixDatagram::bind_addr(&name) {
            Ok(held) => return Some(held),
            Err(_) if begin.elapsed() < LOCK_WAIT => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => {
                tracing::warn!(%error, "forwarding is decided about without the lock that engines share");
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_engines_are_told_from_others() {
        let ours = ["bireme_0123abcd", "bireme_forwarding", "bireme_dns", "bireme_0123abcd_probe", "filter"];
        assert_eq!(ours.map(is_of_engine), [true, false, false, false, false]);
    }
}
