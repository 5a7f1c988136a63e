//! The host's own forwarding: no more than our networks need, and put back.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod common;

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use bireme_net::Subnet;
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::{netns, route};
use common::*;

fn setting(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned()
}

fn set(path: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
}

/// A second wire, to one who knows no way but this machine.
fn second_neighbour(machine: &Machine) -> PathBuf {
    let path = machine.run_dir().with_file_name("second");
    netns::create(&path, || Ok(())).unwrap();
    let namespace = File::open(&path).unwrap();
    let veth = route::Veth {
        name: "wire2",
        peer_name: "wire3",
        peer_mac: [2, 0, 0, 0, 0, 3],
        peer_namespace: namespace.as_fd(),
        mtu: 1500,
    };
    let give = |name: &str, addresses: [&str; 2], gateways: &[&str]| {
        let mut socket = Socket::open(Subsystem::Route).unwrap();
        let index = route::link(&mut socket, name).unwrap().unwrap().index;
        set(&format!("ipv6/conf/{name}/disable_ipv6"), "0");
        let four = route::add_address(index, (addresses[0].parse().unwrap(), 24));
        let six = route::add_address(index, (addresses[1].parse().unwrap(), 64));
        socket.request(&[route::raise(index), four, six]).unwrap();
        for gateway in gateways {
            socket.request(&[route::add_default_route(index, gateway.parse().unwrap())]).unwrap();
        }
    };
    Socket::open(Subsystem::Route).unwrap().request(&[route::add_veth(&veth)]).unwrap();
    give("wire2", ["198.51.100.1", "fd00:99::1"], &[]);
    netns::run_in_netns(&path, || give("wire3", ["198.51.100.2", "fd00:99::2"], &["198.51.100.1", "fd00:99::1"]))
        .unwrap();
    path
}

#[test]
fn a_machine_that_was_no_router_does_not_become_one_and_is_as_before_afterwards() {
    on_machine(|machine| async move {
        for path in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            set(path, "0");
        }
        // An interface that forwarded by itself, and one that takes its routes from a router.
        set("ipv4/conf/wire0/forwarding", "1");
        set("ipv6/conf/wire0/disable_ipv6", "0");
        set("ipv6/conf/wire0/accept_ra", "1");
        set("ipv4/conf/all/accept_redirects", "0");
        let second = second_neighbour(&machine);
        serve_tcp(&machine.neighbour(), "0.0.0.0:80");
        serve_tcp(&second, "0.0.0.0:80");

        let (first, other) = (machine.open("00000060").await, machine.open("00000061").await);
        let mut internal = network(3);
        internal.internal = true;
        first.ensure_network(&internal).await.unwrap();
        assert_eq!(setting("ipv4/ip_forward"), "0", "an internal network needs none");
        let mut one = network(1);
        one.subnets.push(Subnet { net: "fd00:1::/64".parse().unwrap(), gateway: "fd00:1::1".parse().unwrap() });
        first.ensure_network(&one).await.unwrap();
        other.ensure_network(&network(2)).await.unwrap();
        assert_eq!((setting("ipv4/ip_forward"), setting("ipv6/conf/all/forwarding")), ("1".into(), "1".into()));
        assert_eq!(setting("ipv6/conf/wire0/accept_ra"), "2", "it goes on taking routes");
        let a = place(&first, &endpoint("a", &one, "10.1.0.2")).await;
        let b = place(&other, &endpoint("b", &network(2), "10.2.0.2")).await;
        // Workloads of every engine reach the world, and the world does not reach the world through here.
        for inside in [&a, &b] {
            assert!(reach(Some(inside), &format!("{NEIGHBOUR}:80")).is_ok());
            assert!(reach(Some(inside), "198.51.100.2:80").is_ok());
        }
        cannot_reach(Some(&machine.neighbour()), "198.51.100.2:80");
        cannot_reach(Some(&second), &format!("{NEIGHBOUR}:80"));

        // One is started anew and ends: the other still needs it.
        drop(first);
        let first = machine.open("00000060").await;
        first.clear().await.unwrap();
        assert_eq!((setting("ipv4/ip_forward"), setting("ipv6/conf/all/forwarding")), ("1".into(), "1".into()));
        assert!(reach(Some(&b), "198.51.100.2:80").is_ok());
        cannot_reach(Some(&machine.neighbour()), "198.51.100.2:80");
        other.clear().await.unwrap();
        for (path, value) in [
            ("ipv4/ip_forward", "0"),
            ("ipv4/conf/wire0/forwarding", "1"),
            ("ipv4/conf/wire2/forwarding", "0"),
            ("ipv4/conf/all/accept_redirects", "0"),
            ("ipv6/conf/all/forwarding", "0"),
            ("ipv6/conf/wire0/forwarding", "0"),
            ("ipv6/conf/wire0/accept_ra", "1"),
        ] {
            assert_eq!(setting(path), value, "{path}");
        }
        let mut socket = Socket::open(Subsystem::Netfilter).unwrap();
        let left = bireme_sys::nft::tables(&mut socket, bireme_sys::nft::Family::Inet).unwrap();
        assert!(left.is_empty(), "{left:?}");
    });
}

#[test]
fn a_router_stays_one() {
    on_machine(|machine| async move {
        set("ipv4/ip_forward", "1");
        let second = second_neighbour(&machine);
        serve_tcp(&second, "0.0.0.0:80");
        let net = machine.open("00000062").await;
        net.ensure_network(&network(1)).await.unwrap();
        assert!(reach(Some(&machine.neighbour()), "198.51.100.2:80").is_ok());
        net.clear().await.unwrap();
        assert_eq!(setting("ipv4/ip_forward"), "1");
        assert!(reach(Some(&machine.neighbour()), "198.51.100.2:80").is_ok());
    });
}
