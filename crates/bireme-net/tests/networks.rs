//! Who reaches whom.

mod common;

use bireme_core::ErrorKind;
use bireme_net::{Endpoint, KernelNet, NetOptions, Subnet};
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::{netns, route};
use common::*;

#[test]
fn members_of_a_network_talk_and_others_do_not() {
    on_machine(|machine| async move {
        let net = machine.open("00000001").await;
        let (one, two) = (network(1), network(2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        let a = place(&net, &endpoint("a", &one, "10.1.0.2")).await;
        let b = place(&net, &endpoint("b", &one, "10.1.0.3")).await;
        let c = place(&net, &endpoint("c", &two, "10.2.0.2")).await;
        // 80 is open to all users there, as is everything below 1024.
        serve_tcp(&b, "10.1.0.3:80");
        assert_eq!(reach(Some(&a), "10.1.0.3:80").unwrap().to_string(), "10.1.0.2");
        assert_eq!(reach(None, "10.1.0.3:80").unwrap().to_string(), "10.1.0.1");
        cannot_reach(Some(&c), "10.1.0.3:80");
        cannot_reach(Some(&machine.neighbour()), "10.1.0.3:80");
        // Out, as the host.
        serve_tcp(&machine.neighbour(), &format!("{NEIGHBOUR}:80"));
        assert_eq!(reach(Some(&a), &format!("{NEIGHBOUR}:80")).unwrap().to_string(), HOST);
        assert_eq!(reach(Some(&c), &format!("{NEIGHBOUR}:80")).unwrap().to_string(), HOST);

        // On both, once it is attached to the second.
        let mut second = endpoint("c", &one, "10.1.0.4");
        second.default_route = false;
        assert_eq!(net.attach(&second).await.unwrap().interface, "eth1");
        assert_eq!(reach(Some(&c), "10.1.0.3:80").unwrap().to_string(), "10.1.0.4");
        net.detach(&second).await.unwrap();
        cannot_reach(Some(&c), "10.1.0.3:80");
    });
}

#[test]
fn an_internal_network_has_no_way_out_or_in() {
    on_machine(|machine| async move {
        let net = machine.open("00000002").await;
        let (mut inside, open) = (network(1), network(2));
        inside.internal = true;
        net.ensure_network(&inside).await.unwrap();
        net.ensure_network(&open).await.unwrap();
        let a = place(&net, &endpoint("a", &inside, "10.1.0.2")).await;
        let b = place(&net, &endpoint("b", &inside, "10.1.0.3")).await;
        let c = place(&net, &endpoint("c", &open, "10.2.0.2")).await;
        serve_tcp(&b, "10.1.0.3:80");
        serve_tcp(&c, "10.2.0.2:80");
        serve_tcp(&machine.neighbour(), &format!("{NEIGHBOUR}:80"));
        assert!(reach(Some(&a), "10.1.0.3:80").is_ok());
        cannot_reach(Some(&a), &format!("{NEIGHBOUR}:80"));
        // Nor with a route that it makes itself.
        netns::run_in_netns(&a, || {
            let mut socket = bireme_sys::netlink::Socket::open(bireme_sys::netlink::Subsystem::Route).unwrap();
            let link = bireme_sys::route::link(&mut socket, "eth0").unwrap().unwrap();
            let way = bireme_sys::route::add_default_route(link.index, "10.1.0.1".parse().unwrap());
            socket.request(&[way]).unwrap();
        })
        .unwrap();
        cannot_reach(Some(&a), &format!("{NEIGHBOUR}:80"));
        cannot_reach(Some(&a), "10.2.0.2:80");
        let forward = forward("b", "0.0.0.0:8080", "10.1.0.3:80", &inside);
        assert_eq!(net.publish(&forward).await.unwrap_err().kind(), ErrorKind::Unsupported);
    });
}

#[test]
fn without_icc_members_reach_the_world_but_not_each_other() {
    on_machine(|machine| async move {
        let net = machine.open("00000003").await;
        let mut quiet = network(1);
        quiet.icc = false;
        net.ensure_network(&quiet).await.unwrap();
        let a = place(&net, &endpoint("a", &quiet, "10.1.0.2")).await;
        let b = place(&net, &endpoint("b", &quiet, "10.1.0.3")).await;
        serve_tcp(&b, "10.1.0.3:80");
        serve_tcp(&machine.neighbour(), &format!("{NEIGHBOUR}:80"));
        cannot_reach(Some(&a), "10.1.0.3:80");
        assert!(reach(Some(&a), &format!("{NEIGHBOUR}:80")).is_ok());
        net.publish(&forward("b", "0.0.0.0:8080", "10.1.0.3:80", &quiet)).await.unwrap();
        bridge_frames_filtered(false);
        assert!(reach(Some(&a), &format!("{HOST}:8080")).is_ok());
    });
}

#[test]
fn workloads_of_one_sandbox_share_an_interface() {
    on_machine(|machine| async move {
        let net = machine.open("00000004").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let mut first = endpoint("app", &one, "10.1.0.2");
        first.owner = "first".into();
        let mut second = endpoint("app", &one, "10.1.0.3");
        second.owner = "second".into();
        let app = net.ensure_sandbox(&first.sandbox).await.unwrap();
        let attached = net.attach(&first).await.unwrap();
        assert_eq!(attached.mac, "02:42:0a:01:00:02");
        assert_eq!(net.attach(&second).await.unwrap(), attached);
        assert_eq!(net.attach(&second).await.unwrap(), attached);
        serve_tcp(&app, "0.0.0.0:80");
        assert!(reach(None, "10.1.0.2:80").is_ok() && reach(None, "10.1.0.3:80").is_ok());
        net.detach(&first).await.unwrap();
        cannot_reach(None, "10.1.0.2:80");
        assert!(reach(None, "10.1.0.3:80").is_ok());
        net.detach(&second).await.unwrap();
        net.detach(&second).await.unwrap();
        cannot_reach(None, "10.1.0.3:80");
        // At once again, though the kernel may still be about the former interface.
        assert_eq!(net.attach(&first).await.unwrap().interface, "eth0");
        assert!(reach(None, "10.1.0.2:80").is_ok());
        net.remove_sandbox(&first.sandbox).await.unwrap();
        net.remove_sandbox(&first.sandbox).await.unwrap();
        net.remove_network(&one.id).await.unwrap();
        net.remove_network(&one.id).await.unwrap();
        assert_eq!(machine.links(), ["lo", "wire0"].map(String::from));
    });
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    on_machine(|machine| async move {
        let run_dir = machine.run_dir();
        let options = NetOptions { instance: "xyz".into(), run_dir, upstream_dns: None };
        assert_eq!(KernelNet::open(options).await.err().unwrap().kind(), ErrorKind::Invalid);
        let net = machine.open("00000005").await;
        let one = network(1);
        let nowhere = endpoint("a", &one, "10.1.0.2");
        assert_eq!(net.attach(&nowhere).await.unwrap_err().kind(), ErrorKind::NotFound);
        net.ensure_network(&one).await.unwrap();
        assert_eq!(net.attach(&nowhere).await.unwrap_err().kind(), ErrorKind::NotFound);

        let mut overlapping = network(2);
        overlapping.subnets[0] = bireme_net::Subnet { net: "10.1.0.0/16".parse().unwrap(), ..one.subnets[0] };
        assert_eq!(net.ensure_network(&overlapping).await.unwrap_err().kind(), ErrorKind::Conflict);
        let mut taken = network(2);
        taken.bridge_name = Some("wire0".into());
        assert_eq!(net.ensure_network(&taken).await.unwrap_err().kind(), ErrorKind::Conflict);
        taken.bridge_name = Some("far-too-long-a-name".into());
        assert_eq!(net.ensure_network(&taken).await.unwrap_err().kind(), ErrorKind::Invalid);
        taken.bridge_name = None;
        taken.subnets.clear();
        assert_eq!(net.ensure_network(&taken).await.unwrap_err().kind(), ErrorKind::Invalid);

        place(&net, &endpoint("a", &one, "10.1.0.2")).await;
        net.ensure_sandbox(&sandbox("b")).await.unwrap();
        for (address, kind) in
            [("10.1.0.2", ErrorKind::Conflict), ("10.1.0.1", ErrorKind::Invalid), ("10.9.0.1", ErrorKind::Invalid)]
        {
            assert_eq!(net.attach(&endpoint("b", &one, address)).await.unwrap_err().kind(), kind);
        }
        assert_eq!(net.remove_network(&one.id).await.unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(machine.links().len(), 4, "{:?}", machine.links());
        let taken = net.host_routes().unwrap();
        assert!(taken.contains(&one.subnets[0].net), "{taken:?}");
        assert!(taken.contains(&"203.0.113.0/24".parse().unwrap()), "{taken:?}");
    });
}

#[test]
fn fifty_are_attached_at_once() {
    on_machine(|machine| async move {
        let net = machine.open("00000006").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        for number in 2..52 {
            let (net, endpoint) = (net.clone(), endpoint(&format!("s{number}"), &one, &format!("10.1.0.{number}")));
            tasks.spawn(async move { place(&net, &endpoint).await });
        }
        let paths = tasks.join_all().await;
        serve_tcp(&paths[0], "0.0.0.0:80");
        let first: u8 = paths[0].file_name().unwrap().to_str().unwrap()[1..].parse().unwrap();
        for path in &paths[1..] {
            assert!(reach(Some(path), &format!("10.1.0.{first}:80")).is_ok());
        }
    });
}

#[test]
fn two_engines_stand_side_by_side() {
    on_machine(|machine| async move {
        let (first, second) = (machine.open("0000000a").await, machine.open("0000000b").await);
        let (one, two) = (network(1), network(2));
        first.ensure_network(&one).await.unwrap();
        second.ensure_network(&two).await.unwrap();
        let a = place(&first, &endpoint("a", &one, "10.1.0.2")).await;
        let b = place(&second, &endpoint("a", &two, "10.2.0.2")).await;
        serve_tcp(&a, "0.0.0.0:80");
        serve_tcp(&b, "0.0.0.0:80");
        serve_tcp(&machine.neighbour(), "0.0.0.0:80");
        for path in [&a, &b] {
            assert_eq!(reach(Some(path), &format!("{NEIGHBOUR}:80")).unwrap().to_string(), HOST);
        }
        cannot_reach(Some(&a), "10.2.0.2:80");
        cannot_reach(Some(&b), "10.1.0.2:80");
        first.publish(&forward("a", "0.0.0.0:8080", "10.1.0.2:80", &one)).await.unwrap();
        let taken = second.publish(&forward("b", "0.0.0.0:8080", "10.2.0.2:80", &two)).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::Conflict);
        second.publish(&forward("b", "0.0.0.0:8081", "10.2.0.2:80", &two)).await.unwrap();
        assert!(reach(Some(&b), &format!("{HOST}:8080")).is_ok());
        assert!(reach(Some(&a), &format!("{HOST}:8081")).is_ok());
        // What one clears away, the other keeps.
        let report = first.sweep(bireme_net::Keep::default()).await.unwrap();
        assert_eq!(report.removed.len(), 3, "{report:?}");
        cannot_reach(None, "127.0.0.1:8080");
        assert!(reach(None, "127.0.0.1:8081").is_ok());
    });
}

#[test]
fn ipv6_networks_work() {
    on_machine(|machine| async move {
        let net = machine.open("00000007").await;
        let mut one = network(1);
        one.subnets
            .push(bireme_net::Subnet { net: "fd00:1::/64".parse().unwrap(), gateway: "fd00:1::1".parse().unwrap() });
        net.ensure_network(&one).await.unwrap();
        let both = |name: &str, last: u8| {
            let mut endpoint = endpoint(name, &one, &format!("10.1.0.{last}"));
            endpoint.addresses.push(format!("fd00:1::{last}/64").parse().unwrap());
            endpoint
        };
        let a = place(&net, &both("a", 2)).await;
        let b = place(&net, &both("b", 3)).await;
        serve_tcp(&b, "[::]:80");
        assert_eq!(reach(Some(&a), "[fd00:1::3]:80").unwrap().to_string(), "fd00:1::2");
        net.publish(&forward("b", "[::]:8080", "[fd00:1::3]:80", &one)).await.unwrap();
        beside(|| reach(None, "[::1]:8080")).await.unwrap();
        net.publish(&forward("b", "[::]:8081", "10.1.0.3:80", &one)).await.unwrap();
        beside(|| reach(None, "[::1]:8081")).await.unwrap();
        net.unpublish("b").await.unwrap();
        cannot_reach(None, "[::1]:8081");
        net.publish(&forward("b", "[::]:8080", "[fd00:1::3]:80", &one)).await.unwrap();
        assert!(reach(Some(&a), "[fd00:1::1]:8080").is_ok());
    });
}

#[test]
fn link_local_addresses_are_further_ones() {
    on_machine(|machine| async move {
        let net = machine.open("00000008").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let with = |name: &str, last: u8| {
            let mut endpoint = endpoint(name, &one, &format!("10.1.0.{last}"));
            endpoint.addresses.push(format!("169.254.7.{last}/16").parse().unwrap());
            endpoint
        };
        let (a, b) = (with("a", 2), with("b", 3));
        let (at_a, at_b) = (place(&net, &a).await, place(&net, &b).await);
        serve_tcp(&at_b, "0.0.0.0:80");
        assert_eq!(reach(Some(&at_a), "169.254.7.3:80").unwrap().to_string(), "169.254.7.2");
        assert_eq!(reach(Some(&at_a), "10.1.0.3:80").unwrap().to_string(), "10.1.0.2");
        let mut alone = endpoint("c", &one, "10.1.0.4");
        alone.addresses = vec!["169.254.7.4/16".parse().unwrap()];
        net.ensure_sandbox(&alone.sandbox).await.unwrap();
        assert_eq!(net.attach(&alone).await.unwrap_err().kind(), ErrorKind::Invalid);
        alone.addresses = vec!["10.1.0.4/24".parse().unwrap(), "169.254.7.3/16".parse().unwrap()];
        assert_eq!(net.attach(&alone).await.unwrap_err().kind(), ErrorKind::Conflict);
    });
}

#[test]
fn the_way_out_goes_over_another_network_when_its_own_is_left() {
    on_machine(|machine| async move {
        let net = machine.open("000000a0").await;
        let (one, two, mut inside) = (network(1), network(2), network(3));
        inside.internal = true;
        for network in [&one, &two, &inside] {
            net.ensure_network(network).await.unwrap();
        }
        let first = endpoint("a", &one, "10.1.0.2");
        let a = place(&net, &first).await;
        for (network, address) in [(&inside, "10.3.0.2"), (&two, "10.2.0.2")] {
            net.attach(&Endpoint { default_route: false, ..endpoint("a", network, address) }).await.unwrap();
        }
        serve_tcp(&machine.neighbour(), &format!("{NEIGHBOUR}:80"));
        assert_eq!(net.lead_out(&first.sandbox, &[]).await.unwrap(), Some(one.id.clone()), "there is one");
        net.detach(&first).await.unwrap();
        cannot_reach(Some(&a), &format!("{NEIGHBOUR}:80"));
        let wanted = [inside.id.clone(), one.id.clone()];
        assert_eq!(net.lead_out(&first.sandbox, &wanted).await.unwrap(), Some(two.id.clone()));
        assert!(reach(Some(&a), &format!("{NEIGHBOUR}:80")).is_ok());
        net.detach(&endpoint("a", &two, "10.2.0.2")).await.unwrap();
        assert_eq!(net.lead_out(&first.sandbox, &[]).await.unwrap(), None, "an internal network leads nowhere");
    });
}

#[test]
fn an_owner_has_no_addresses_but_those_it_was_given_last() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open("000000a1").await, network(1));
        net.ensure_network(&one).await.unwrap();
        let a = place(&net, &endpoint("a", &one, "10.1.0.2")).await;
        net.attach(&endpoint("a", &one, "10.1.0.3")).await.unwrap();
        let has = netns::run_in_netns(&a, || {
            let found = route::addresses(&mut Socket::open(Subsystem::Route).unwrap()).unwrap();
            found
                .into_iter()
                .map(|(_, (address, _))| address.to_string())
                .filter(|one| one.starts_with("10."))
                .collect::<Vec<_>>()
        });
        assert_eq!(has.unwrap(), Vec::from(["10.1.0.3".to_owned()]));
        // What is kept from everybody but whoever has it would be kept from the next.
        let b = place(&net, &endpoint("b", &one, "10.1.0.2")).await;
        serve_tcp(&a, "0.0.0.0:80");
        assert_eq!(reach(Some(&b), "10.1.0.3:80").unwrap().to_string(), "10.1.0.2");
    });
}

/// One with `CAP_NET_ADMIN` may use addresses that nobody has, and is known by them to all who asked.
#[test]
fn what_is_for_a_newcomer_does_not_go_on_to_whoever_used_its_address() {
    on_machine(|machine| async move {
        let (net, mut one) = (machine.open("000000a2").await, network(1));
        one.subnets.push(Subnet { net: "fd00:1::/64".parse().unwrap(), gateway: "fd00:1::1".parse().unwrap() });
        net.ensure_network(&one).await.unwrap();
        let member = |name: &str, number: u8| {
            let mut member = endpoint(name, &one, &format!("10.1.0.{number}"));
            member.addresses.push(format!("fd00:1::{number}/64").parse().unwrap());
            member
        };
        let admin = place(&net, &Endpoint { routes: true, ..member("admin", 2) }).await;
        let peer = place(&net, &member("peer", 3)).await;
        netns::run_in_netns(&admin, || {
            let mut socket = Socket::open(Subsystem::Route).unwrap();
            let index = route::link(&mut socket, "eth0").unwrap().unwrap().index;
            let four = route::add_address(index, ("10.1.0.9".parse().unwrap(), 24));
            socket.request(&[four, route::add_address(index, ("fd00:1::9".parse().unwrap(), 64))]).unwrap();
        })
        .unwrap();
        let senders = |from: &str| {
            let bind = || std::net::UdpSocket::bind(from).unwrap();
            [netns::run_in_netns(&peer, bind).unwrap(), bind()]
        };
        let families = [("0.0.0.0:0", "10.1.0.9:90", "0.0.0.0:90"), ("[::]:0", "[fd00:1::9]:91", "[::]:91")];
        let families = families.map(|(from, to, at)| (senders(from), to, at));
        let send_all = |senders: &[std::net::UdpSocket; 2], to: &str| {
            for sender in senders {
                sender.send_to(b"secret", to).unwrap();
            }
        };
        let held = families.each_ref().map(|(senders, to, at)| {
            let attacker = udp_at(&admin, at);
            for _ in senders {
                send_all(senders, to);
                assert!(hears(&attacker, LIMIT), "nobody had {to}");
            }
            while hears(&attacker, REFUSED_AFTER) {}
            attacker
        });
        let newcomer = place(&net, &member("newcomer", 9)).await;
        for ((senders, to, at), attacker) in families.iter().zip(&held) {
            let victim = udp_at(&newcomer, at);
            send_all(senders, to);
            for _ in senders {
                assert!(hears(&victim, LIMIT), "{to}");
            }
            assert!(!hears(attacker, REFUSED_AFTER), "{to}");
        }
    });
}
