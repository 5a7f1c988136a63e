//! The DNS where Docker's users look for it: at 127.0.0.11, inside a workload's own namespace.
//!
//! Its sockets are on ports of their own there, and one rule of that namespace leads port 53 of the address to them: so a
//! workload may serve DNS itself, on every address it has. Sockets end with the daemon; the next one opens new ones, and
//! puts the rule anew.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::Path;

use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::netns;
use bireme_sys::nft::{Answers, Batch, Element, Field, Hook, Key, Register, Step, Value};

/// Docker's address of the DNS in a container.
pub const DNS_INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

const TABLE: &str = "bireme_dns";
const PORT: u16 = 53;
const IPV4: u8 = 2;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Opens the sockets in the namespace at `path` and leads port 53 to them.
pub(crate) fn open(path: &Path) -> io::Result<(UdpSocket, TcpListener)> {
    netns::run_in_netns(path, || {
        let (udp, tcp) = (UdpSocket::bind((DNS_INSIDE, 0))?, TcpListener::bind((DNS_INSIDE, 0))?);
        let ports = [(UDP, udp.local_addr()?.port()), (TCP, tcp.local_addr()?.port())];
        let mut batch = Batch::new(TABLE);
        // Removing needs a table to be there.
        batch.add_table().delete_table().add_table();
        batch.add_set("dns", &[Field::Ipv4, Field::Protocol], Some(Answers::Fields(&[Field::Ipv4, Field::Port])));
        batch.add_base_chain("output", Hook::NatOutput);
        let first = Register::FIRST;
        let rule = [
            Step::LoadFamily(first),
            Step::Equals(first, vec![IPV4]),
            Step::LoadPort(first),
            Step::Equals(first, PORT.to_be_bytes().to_vec()),
            Step::LoadNetwork { to: first, offset: 16, length: 4 },
            Step::LoadTransport(Register::word(1)),
            Step::Map { from: first, map: "dns", to: first },
            Step::Dnat { family: IPV4, address: first, port: Register::word(1) },
        ];
        batch.add_rule("output", &rule);
        let address = IpAddr::V4(DNS_INSIDE);
        let elements = ports.map(|(protocol, port)| Element {
            key: Key::new().address(address).protocol(protocol),
            value: Some(Value::Fields(Key::new().address(address).port(port))),
            ends_range: false,
        });
        batch.add_elements("dns", &elements);
        let mut socket = Socket::open(Subsystem::Netfilter)?;
        batch.commit(&mut socket).map_err(|refused| io::Error::from(refused.errno))?;
        Ok((udp, tcp))
    })
    .flatten()
}
