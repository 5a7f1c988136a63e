//! What a workload with raw frames, or with its own routes, may try from its network.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod common;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bireme_net::{KernelNet, NetworkSpec, Subnet};
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::{netns, route};
use common::wire::*;
use common::*;

/// What the host's own service at `address` gets within the time that a packet needs.
struct Service(UdpSocket);

impl Service {
    fn at(netns: Option<&Path>, address: &str) -> Self {
        let bind = || UdpSocket::bind(address).unwrap();
        Self(netns.map_or_else(bind, |netns| netns::run_in_netns(netns, bind).unwrap()))
    }

    fn port(&self) -> u16 {
        self.0.local_addr().unwrap().port()
    }

    fn hears(&self, limit: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        self.0.set_read_timeout(Some(limit)).unwrap();
        let mut buffer = [0; 512];
        match self.0.recv_from(&mut buffer) {
            Ok((count, from)) => Some((buffer[..count].to_vec(), from)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn hears_nothing(&self, what: &str) {
        let heard = self.hears(REFUSED_AFTER);
        assert!(heard.is_none(), "{what}: {heard:?}");
    }
}

fn bridge_mac(network: &NetworkSpec) -> Mac {
    let Some(IpAddr::V4(gateway)) = network.subnets.iter().map(|subnet| subnet.gateway).find(IpAddr::is_ipv4) else {
        panic!("every network has IPv4");
    };
    let [a, b, c, d] = gateway.octets();
    [0x02, 0x42, a, b, c, d]
}

fn with_ipv6(mut network: NetworkSpec, number: u8) -> NetworkSpec {
    let subnet = format!("fd00:{number}::");
    network
        .subnets
        .push(Subnet { net: format!("{subnet}/64").parse().unwrap(), gateway: format!("{subnet}1").parse().unwrap() });
    network
}

async fn place_with_ipv6(net: &KernelNet, name: &str, network: &NetworkSpec, number: u8, last: u8) -> PathBuf {
    let mut endpoint = endpoint(name, network, &format!("10.{number}.0.{last}"));
    endpoint.addresses.push(format!("fd00:{number}::{last}/64").parse().unwrap());
    place(net, &endpoint).await
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

/// CVE-2020-8558.
#[test]
fn frames_for_the_hosts_loopback_are_dropped() {
    on_machine(|machine| async move {
        let net = machine.open("00000040").await;
        let (open, mut internal) = (with_ipv6(network(1), 1), with_ipv6(network(2), 2));
        internal.internal = true;
        for (network, number) in [(&open, 1), (&internal, 2)] {
            net.ensure_network(network).await.unwrap();
            let inside = place_with_ipv6(&net, &format!("c{number}"), network, number, 2).await;
            let (wire, gateway) = (Wire::of(&inside), bridge_mac(network));
            let own = v4(&format!("10.{number}.0.2"));
            for address in ["127.0.0.1", "127.9.9.9"] {
                let service = Service::at(None, &format!("{address}:0"));
                let datagram = |from| ipv4(from, v4(address), UDP, &udp(4000, service.port(), b"attack"));
                for from in [own, v4("127.0.0.1"), v4("8.8.8.8")] {
                    wire.send(&frame(gateway, wire.mac, IPV4, &datagram(from)));
                    wire.send(&frame(EVERYONE, wire.mac, IPV4, &datagram(from)));
                }
                service.hears_nothing(address);
                // It would have heard.
                UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"own", service.0.local_addr().unwrap()).unwrap();
                assert_eq!(service.hears(LIMIT).unwrap().0, b"own");
            }
            let service = Service::at(None, "[::1]:0");
            let own6 = v6(&format!("fd00:{number}::2"));
            for from in [own6, Ipv6Addr::LOCALHOST] {
                let datagram = udp6((from, 4000), (Ipv6Addr::LOCALHOST, service.port()), b"attack");
                wire.send(&frame(gateway, wire.mac, IPV6, &datagram));
            }
            service.hears_nothing("::1");
        }
    });
}

#[test]
fn nobody_is_taken_for_the_host_itself() {
    on_machine(|machine| async move {
        let net = machine.open("00000041").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let mut router = endpoint("router", &one, "10.1.0.3");
        router.routes = true;
        let (plain, router) = (place(&net, &endpoint("plain", &one, "10.1.0.2")).await, place(&net, &router).await);
        // It listens everywhere, and trusts who comes from loopback or from the machine's own addresses.
        let service = Service::at(None, "0.0.0.0:0");
        for inside in [&plain, &router] {
            let wire = Wire::of(inside);
            for from in ["127.0.0.1", HOST, "10.1.0.1", NEIGHBOUR] {
                let datagram = ipv4(v4(from), v4("10.1.0.1"), UDP, &udp(4000, service.port(), b"attack"));
                wire.send(&frame(bridge_mac(&one), wire.mac, IPV4, &datagram));
            }
            service.hears_nothing("from a foreign address");
            let own = if inside == &plain { "10.1.0.2" } else { "10.1.0.3" };
            let datagram = ipv4(v4(own), v4("10.1.0.1"), UDP, &udp(4000, service.port(), b"honest"));
            wire.send(&frame(bridge_mac(&one), wire.mac, IPV4, &datagram));
            assert_eq!(service.hears(LIMIT).unwrap().0, b"honest");
        }
    });
}

#[test]
fn a_loopback_port_is_not_reached_from_a_network() {
    on_machine(|machine| async move {
        let net = machine.open("00000042").await;
        let (one, two) = (network(1), network(2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        let web = place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        let other = place(&net, &endpoint("other", &two, "10.2.0.2")).await;
        let service = Service::at(Some(&web), "0.0.0.0:53");
        let mut published = forward("web", "127.0.0.1:5300", "10.1.0.2:53", &one);
        published.protocol = bireme_core::spec::Protocol::Udp;
        net.publish(&published).await.unwrap();
        let wire = Wire::of(&other);
        let datagram = ipv4(v4("10.2.0.2"), v4("127.0.0.1"), UDP, &udp(4000, 5300, b"attack"));
        wire.send(&frame(bridge_mac(&two), wire.mac, IPV4, &datagram));
        service.hears_nothing("127.0.0.1:5300 from another network");
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"own", "127.0.0.1:5300").unwrap();
        assert_eq!(service.hears(LIMIT).unwrap().0, b"own");
    });
}

#[test]
fn another_members_address_cannot_be_used() {
    on_machine(|machine| async move {
        let net = machine.open("00000043").await;
        let (one, two) = (network(1), network(2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        let victim = place(&net, &endpoint("victim", &one, "10.1.0.2")).await;
        let peer = place(&net, &endpoint("peer", &one, "10.1.0.3")).await;
        place(&net, &endpoint("far", &two, "10.2.0.2")).await;
        let mut router = endpoint("router", &one, "10.1.0.5");
        router.routes = true;
        let (attacker, router) =
            (place(&net, &endpoint("attacker", &one, "10.1.0.4")).await, place(&net, &router).await);
        let (service, victims) = (Service::at(Some(&peer), "0.0.0.0:0"), Wire::of(&victim));
        let peers = Wire::of(&peer);
        for (inside, strict) in [(&attacker, true), (&router, false)] {
            let wire = Wire::of(inside);
            let datagram = |from: &str| ipv4(v4(from), v4("10.1.0.3"), UDP, &udp(4000, service.port(), b"attack"));
            let of_others = ["10.1.0.2", "10.1.0.1", "10.2.0.2", "10.2.0.1", "10.1.0.3"];
            for from in of_others.iter().chain(if strict { &["10.1.0.99", "8.8.8.8"][..] } else { &[] }) {
                wire.send(&frame(peers.mac, wire.mac, IPV4, &datagram(from)));
                // Nor under a tag that its receiver takes off.
                let tagged = [&[0, 0, 0x81, 0x00, 0, 0, 0x08, 0x00][..], &datagram(from)].concat();
                wire.send(&frame(peers.mac, wire.mac, 0x8100, &tagged));
                wire.send(&frame(peers.mac, wire.mac, 0x8100, &tagged[4..]));
            }
            service.hears_nothing("from another's address");
            // Hardware addresses neither: the bridge would send the victim's frames here.
            let own = if strict { "10.1.0.4" } else { "10.1.0.5" };
            for mac in [victims.mac, bridge_mac(&one)] {
                wire.send(&frame(peers.mac, mac, IPV4, &datagram(own)));
                wire.send(&frame(EVERYONE, mac, 0x1234, b"hello, it is me"));
            }
            service.hears_nothing("from another's hardware address");
            assert_eq!(
                reach_udp_port(&peer, "10.1.0.2"),
                io::ErrorKind::ConnectionRefused,
                "the victim is where it was"
            );

            // Nor is a neighbour's table of addresses taught anything.
            for address in ["10.1.0.2", "10.1.0.1"] {
                wire.send(&frame(peers.mac, wire.mac, ARP, &arp_answer(wire.mac, v4(address), v4("10.1.0.3"))));
            }
            assert!(!peers.sees(&arp_answer(wire.mac, v4("10.1.0.2"), v4("10.1.0.3")), REFUSED_AFTER));
            wire.send(&frame(peers.mac, wire.mac, ARP, &arp_answer(wire.mac, v4(own), v4("10.1.0.3"))));
            assert!(peers.sees(&arp_answer(wire.mac, v4(own), v4("10.1.0.3")), LIMIT), "its own it may tell");
            wire.send(&frame(peers.mac, wire.mac, IPV4, &datagram(own)));
            assert_eq!(service.hears(LIMIT).unwrap().1.ip(), own.parse::<IpAddr>().unwrap());
        }
        // A router passes on what comes from elsewhere; an address that somebody gets is then that one's alone.
        let wire = Wire::of(&router);
        let datagram = |from: &str| ipv4(v4(from), v4("10.1.0.3"), UDP, &udp(4000, service.port(), b"routed"));
        for from in ["10.244.1.7", "10.1.0.77"] {
            wire.send(&frame(peers.mac, wire.mac, IPV4, &datagram(from)));
            assert!(peers.sees(b"routed", LIMIT), "{from}");
        }
        while service.hears(Duration::from_millis(20)).is_some() {}
        place(&net, &endpoint("late", &one, "10.1.0.77")).await;
        wire.send(&frame(peers.mac, wire.mac, IPV4, &datagram("10.1.0.77")));
        service.hears_nothing("from the address of one who came later");
    });
}

/// What becomes of a datagram to a port where nobody listens: refused by whoever has the address, if it gets there.
fn reach_udp_port(netns: &Path, address: &str) -> io::ErrorKind {
    netns::run_in_netns(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.connect((address, 9)).unwrap();
        socket.send(b"there?").unwrap();
        socket.recv(&mut [0; 8]).unwrap_err().kind()
    })
    .unwrap()
}

/// CVE-2020-13401 for announcements.
#[test]
fn neighbours_of_ipv6_are_not_lied_to() {
    on_machine(|machine| async move {
        let net = machine.open("00000044").await;
        let one = with_ipv6(network(1), 1);
        net.ensure_network(&one).await.unwrap();
        let victim = place_with_ipv6(&net, "victim", &one, 1, 2).await;
        let attacker = place_with_ipv6(&net, "attacker", &one, 1, 3).await;
        serve_tcp(&victim, "[::]:80");
        assert!(reach(Some(&attacker), "[fd00:1::2]:80").is_ok(), "honest neighbours find each other");
        let (wire, victims) = (Wire::of(&attacker), Wire::of(&victim));
        let [a, b, c, d, e, f] = wire.mac;
        let own = v6(&format!(
            "fe80::{:x}:{:x}:{:x}:{:x}",
            u16::from_be_bytes([a ^ 2, b]),
            u16::from_be_bytes([c, 0xff]),
            u16::from_be_bytes([0xfe, d]),
            u16::from_be_bytes([e, f])
        ));
        let everyone = v6("ff02::1");
        let to_all = [0x33, 0x33, 0, 0, 0, 1];
        // "I am a router for two hours."
        let router = [134, 0, 0, 0, 64, 0, 0x1c, 0x20, 0, 0, 0, 0, 0, 0, 0, 0];
        let neighbour = |address: &str| {
            let head = [136, 0, 0, 0, 0x20, 0, 0, 0];
            [&head[..], &v6(address).octets(), &[2, 1], &wire.mac].concat()
        };
        let lies = [
            icmp6(own, everyone, &router),
            icmp6(v6("fd00:1::3"), everyone, &router),
            icmp6(own, everyone, &neighbour("fd00:1::1")),
            icmp6(v6("fd00:1::3"), everyone, &neighbour("fd00:1::2")),
            icmp6(v6("fd00:1::1"), everyone, &neighbour("fd00:1::3")),
            udp6((v6("fd00:1::1"), 53), (everyone, 4000), b"an answer"),
            udp6((v6("fd00:1::99"), 53), (everyone, 4000), b"an answer"),
        ];
        for lie in &lies {
            wire.send(&frame(to_all, wire.mac, IPV6, lie));
            assert!(!victims.sees(lie, Duration::from_millis(150)), "{lie:02x?}");
        }
        for truth in [icmp6(own, everyone, &neighbour("fd00:1::3")), icmp6(v6("fd00:1::3"), everyone, &[128, 0, 0, 0])]
        {
            wire.send(&frame(to_all, wire.mac, IPV6, &truth));
            assert!(victims.sees(&truth, LIMIT), "{truth:02x?}");
        }
    });
}

#[test]
fn a_port_taken_off_the_bridge_is_dead_at_once_and_what_is_left_over_too() {
    on_machine(|machine| async move {
        let net = machine.open("00000045").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let peer = place(&net, &endpoint("peer", &one, "10.1.0.3")).await;
        let leaver = endpoint("leaver", &one, "10.1.0.4");
        let inside = place(&net, &leaver).await;
        let (wire, peers) = (Wire::of(&inside), Wire::of(&peer));
        let hello = frame(peers.mac, wire.mac, 0x1234, b"hello, it is still me");
        wire.send(&hello);
        assert!(peers.sees(b"hello, it is still me", LIMIT));
        net.detach(&leaver).await.unwrap();
        // The interface may be there for some time yet.
        if wire.socket.send(&hello).is_ok() {
            assert!(!peers.sees(b"hello, it is still me", REFUSED_AFTER));
        }
        // After a crash, what is adopted is as it was.
        drop(net);
        let net = machine.open("00000045").await;
        let kept = endpoint("peer", &one, "10.1.0.3");
        let keep = bireme_net::Keep { networks: vec![one.clone()], endpoints: vec![kept], ..Default::default() };
        net.sweep(keep).await.unwrap();
        let service = Service::at(None, "0.0.0.0:0");
        for (from, heard) in [("10.1.0.3", true), ("10.1.0.4", false)] {
            let datagram = ipv4(v4(from), v4("10.1.0.1"), UDP, &udp(4000, service.port(), b"hello"));
            peers.send(&frame(bridge_mac(&one), peers.mac, IPV4, &datagram));
            assert_eq!(service.hears(REFUSED_AFTER).is_some(), heard, "{from}");
        }
    });
}

#[test]
fn an_internal_network_reaches_no_other_address_of_the_host() {
    on_machine(|machine| async move {
        let net = machine.open("00000046").await;
        let (mut internal, open) = (with_ipv6(network(1), 1), network(2));
        internal.internal = true;
        net.ensure_network(&internal).await.unwrap();
        net.ensure_network(&open).await.unwrap();
        let inside = place_with_ipv6(&net, "inside", &internal, 1, 2).await;
        let web = place(&net, &endpoint("web", &open, "10.2.0.2")).await;
        serve_tcp(&web, "0.0.0.0:80");
        for host in ["0.0.0.0:8080", "[::]:8080"] {
            net.publish(&forward("web", host, "10.2.0.2:80", &open)).await.unwrap();
        }
        let stranger = TcpListener::bind("0.0.0.0:9090").unwrap();
        std::thread::spawn(move || while stranger.accept().is_ok() {});
        netns::run_in_netns(&inside, || {
            let mut socket = Socket::open(Subsystem::Route).unwrap();
            let link = route::link(&mut socket, "eth0").unwrap().unwrap();
            for gateway in ["10.1.0.1", "fd00:1::1"] {
                socket.request(&[route::add_default_route(link.index, gateway.parse().unwrap())]).unwrap();
            }
        })
        .unwrap();
        for address in
            [&format!("{HOST}:9090"), "10.2.0.1:9090", &format!("{HOST}:8080"), "10.1.0.1:8080", "[fd00:1::1]:8080"]
        {
            let inside = inside.clone();
            let address = (*address).to_owned();
            beside(move || cannot_reach(Some(&inside), &address)).await;
        }
        beside(|| reach(None, "[::1]:8080")).await.unwrap();
    });
}

#[test]
fn ports_that_are_not_published_are_nobodys_but_the_networks() {
    on_machine(|machine| async move {
        let net = machine.open("00000047").await;
        let (one, two) = (with_ipv6(network(1), 1), with_ipv6(network(2), 2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        let web = place_with_ipv6(&net, "web", &one, 1, 2).await;
        let other = place_with_ipv6(&net, "other", &two, 2, 2).await;
        serve_tcp(&web, "[::]:80");
        net.publish(&forward("web", "127.0.0.1:8080", "10.1.0.2:80", &one)).await.unwrap();
        net.publish(&forward("web", "0.0.0.0:8081", "10.1.0.2:80", &one)).await.unwrap();
        // The workload's own address is not reached past the published port, whoever asks (Docker since 28).
        for from in [&other, &machine.neighbour()] {
            cannot_reach(Some(from), "10.1.0.2:80");
            cannot_reach(Some(from), &format!("{HOST}:8080"));
        }
        cannot_reach(Some(&other), "[fd00:1::2]:80");
        assert!(reach(Some(&other), &format!("{HOST}:8081")).is_ok());
    });
}

#[test]
fn what_two_have_is_nobodys_but_the_others_when_one_goes() {
    on_machine(|machine| async move {
        let net = machine.open("00000048").await;
        let (one, two) = (with_ipv6(network(1), 1), with_ipv6(network(2), 2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        let mac = [2, 0, 0, 0, 7, 7];
        let both = |name: &str, network: &NetworkSpec, number: u8| {
            let mut endpoint = endpoint(name, network, &format!("10.{number}.0.2"));
            endpoint.addresses.push(format!("fd00:{number}::2/64").parse().unwrap());
            endpoint.addresses.push("169.254.7.7/16".parse().unwrap());
            endpoint.mac = Some(mac);
            endpoint
        };
        place(&net, &both("stays", &one, 1)).await;
        let goes = both("goes", &two, 2);
        place(&net, &goes).await;
        let peer = Wire::of(&place_with_ipv6(&net, "peer", &one, 1, 3).await);
        let mut router = endpoint("router", &one, "10.1.0.4");
        router.addresses.push("fd00:1::4/64".parse().unwrap());
        router.routes = true;
        let router = Wire::of(&place(&net, &router).await);
        for gone in [false, true] {
            router.send(&frame(peer.mac, mac, 0x1234, b"from the hardware of another"));
            let datagram = ipv4(v4("169.254.7.7"), v4("10.1.0.3"), UDP, &udp(4000, 9, b"from the address of another"));
            router.send(&frame(peer.mac, router.mac, IPV4, &datagram));
            let of_hardware = v6("fe80::ff:fe00:707");
            let datagram = udp6((of_hardware, 4000), (v6("fd00:1::3"), 9), b"from the address of another");
            router.send(&frame(peer.mac, router.mac, IPV6, &datagram));
            assert!(!peer.sees(b"of another", REFUSED_AFTER), "gone: {gone}");
            net.detach(&goes).await.unwrap();
        }
        // It would have been seen.
        let datagram = ipv4(v4("169.254.7.8"), v4("10.1.0.3"), UDP, &udp(4000, 9, b"from nobody's address"));
        router.send(&frame(peer.mac, router.mac, IPV4, &datagram));
        assert!(peer.sees(b"nobody's address", LIMIT));
    });
}

#[test]
fn a_neighbour_of_the_machine_is_not_taken_for_a_member() {
    on_machine(|machine| async move {
        let net = machine.open("00000049").await;
        let one = with_ipv6(network(1), 1);
        net.ensure_network(&one).await.unwrap();
        place_with_ipv6(&net, "web", &one, 1, 2).await;
        // By this the neighbour would be answered, were there no network.
        default_route_by_the_wire();
        // The machine itself would not mind.
        for name in ["all", "wire0"] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter"), "0").unwrap();
        }
        std::fs::write("/proc/sys/net/ipv6/conf/wire0/disable_ipv6", "0").unwrap();
        let link = route::link(&mut Socket::open(Subsystem::Route).unwrap(), "wire0").unwrap().unwrap();
        let (wire, to) = (Wire::called(&machine.neighbour(), "wire1"), link.mac.try_into().unwrap());
        let service = Service::at(None, "10.1.0.1:0");
        for from in ["10.1.0.2", "10.1.0.77"] {
            let datagram = ipv4(v4(from), v4("10.1.0.1"), UDP, &udp(4000, service.port(), b"attack"));
            wire.send(&frame(to, wire.mac, IPV4, &datagram));
        }
        service.hears_nothing("from a member's address, off the wire");
        let datagram = ipv4(v4(NEIGHBOUR), v4("10.1.0.1"), UDP, &udp(4000, service.port(), b"honest"));
        wire.send(&frame(to, wire.mac, IPV4, &datagram));
        assert_eq!(service.hears(LIMIT).unwrap().0, b"honest");
        let service = Service::at(None, "[fd00:1::1]:0");
        for (from, heard) in [("fd00:1::2", false), ("fd00:1::1", false), ("fd00:9::2", true)] {
            let datagram = udp6((v6(from), 4000), (v6("fd00:1::1"), service.port()), b"hello");
            wire.send(&frame(to, wire.mac, IPV6, &datagram));
            assert_eq!(service.hears(REFUSED_AFTER).is_some(), heard, "{from}");
        }
        // The host itself speaks from those addresses too.
        let own = UdpSocket::bind("10.1.0.1:0").unwrap();
        let service = Service::at(None, "10.1.0.1:0");
        own.send_to(b"own", service.0.local_addr().unwrap()).unwrap();
        assert_eq!(service.hears(LIMIT).unwrap().0, b"own");
    });
}

fn default_route_by_the_wire() {
    let mut socket = Socket::open(Subsystem::Route).unwrap();
    let index = route::link(&mut socket, "wire0").unwrap().unwrap().index;
    socket.request(&[route::add_default_route(index, NEIGHBOUR.parse().unwrap())]).unwrap();
}

/// As where a telephone gives a machine its network, with addresses that the engine has chosen before.
#[test]
fn a_lan_with_addresses_of_a_network_is_reached_by_the_machines_own_route() {
    on_machine(|machine| async move {
        let net = machine.open("0000004a").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        let join = |name: &str, address: &str| {
            let mut socket = Socket::open(Subsystem::Route).unwrap();
            let index = route::link(&mut socket, name).unwrap().unwrap().index;
            socket.request(&[route::add_address(index, (address.parse().unwrap(), 28))]).unwrap();
        };
        join("wire0", "10.1.0.225");
        default_route_by_the_wire();
        netns::run_in_netns(&machine.neighbour(), || join("wire1", "10.1.0.226")).unwrap();
        serve_udp(&machine.neighbour(), "10.1.0.226:53");
        assert_eq!(reach_udp(None, "10.1.0.226:53").unwrap().to_string(), "10.1.0.225");
        // Nobody there is a member for that, but by the addresses that they have.
        let link = route::link(&mut Socket::open(Subsystem::Route).unwrap(), "wire0").unwrap().unwrap();
        let (wire, to) = (Wire::called(&machine.neighbour(), "wire1"), link.mac.try_into().unwrap());
        std::fs::write("/proc/sys/net/ipv4/conf/wire0/rp_filter", "0").unwrap();
        let service = Service::at(None, "10.1.0.1:0");
        let datagram = ipv4(v4("10.1.0.2"), v4("10.1.0.1"), UDP, &udp(4000, service.port(), b"attack"));
        wire.send(&frame(to, wire.mac, IPV4, &datagram));
        service.hears_nothing("from a member's address, off the wire");
    });
}
