//! Somebody flushes all rules of the machine, as `systemctl reload nftables` does. CVE-2025-54388, CVE-2025-54410.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod common;

use std::path::PathBuf;

use bireme_net::{KernelNet, NetworkSpec};
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::nft::{Batch, Family, chains};
use common::*;

const TABLE: &str = "bireme_0000007";
const FORWARDING: &str = "bireme_forwarding";

fn setting(path: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned()
}

fn ours() -> usize {
    all_tables().iter().filter(|(_, name)| name.starts_with(TABLE)).count()
}

fn exists(table: &str) -> bool {
    all_tables().iter().any(|(_, name)| name == table)
}

/// A workload with a published port and another one.
async fn serving(net: &KernelNet, one: &NetworkSpec) -> PathBuf {
    net.ensure_network(one).await.unwrap();
    let web = place(net, &endpoint("web", one, "10.1.0.2")).await;
    serve_tcp(&web, "0.0.0.0:80");
    serve_tcp(&web, "0.0.0.0:81");
    net.publish(&forward("web", "0.0.0.0:8080", "10.1.0.2:80", one)).await.unwrap();
    web
}

#[test]
fn tables_are_nobodys_to_flush_while_their_daemon_lives_and_outlive_it() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open("00000070").await, network(1));
        serving(&net, &one).await;
        let before = ours();
        assert_eq!(before, 2, "this kernel filters bridges");
        flush_ruleset();
        assert_eq!(ours(), before);
        let neighbour = machine.neighbour();
        assert!(reach(Some(&neighbour), &format!("{HOST}:8080")).is_ok());
        cannot_reach(Some(&neighbour), "10.1.0.2:81");
        drop(net);
        assert_eq!(ours(), before, "a daemon that dies takes nothing along");
        assert!(reach(Some(&neighbour), &format!("{HOST}:8080")).is_ok());
        // The next one takes them up, and makes them where they are gone.
        for flushed in [false, true] {
            if flushed {
                flush_ruleset();
                assert_eq!(ours(), 0, "without a daemon they are anybody's");
            }
            let net = machine.open("00000070").await;
            let keep = bireme_net::Keep {
                networks: vec![one.clone()],
                endpoints: vec![endpoint("web", &one, "10.1.0.2")],
                forwards: vec![forward("web", "0.0.0.0:8080", "10.1.0.2:80", &one)],
                ..Default::default()
            };
            net.sweep(keep).await.unwrap();
            flush_ruleset();
            assert_eq!(ours(), before);
            assert!(reach(Some(&neighbour), &format!("{HOST}:8080")).is_ok());
            cannot_reach(Some(&neighbour), "10.1.0.2:81");
        }
    });
}

#[test]
fn tables_that_somebody_removes_are_made_again_at_once() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open_as_before_6_9("00000071").await, network(1));
        let web = serving(&net, &one).await;
        let neighbour = machine.neighbour();
        let mut dns = forward("web", "0.0.0.0:5353", "10.1.0.2:53", &one);
        dns.protocol = bireme_core::spec::Protocol::Udp;
        net.publish(&dns).await.unwrap();
        let (published, secret) = (udp_at(&web, "0.0.0.0:53"), udp_at(&web, "0.0.0.0:99"));
        beside(move || {
            // They go on without a pause, also while nothing stops them.
            keep_sending(&neighbour, "10.1.0.2:99");
            keep_sending(&neighbour, &format!("{HOST}:5353"));
            assert!(hears(&published, LIMIT));
            for round in 0..3 {
                flush_ruleset();
                eventually("the tables are made again", || ours() == 2);
                assert!(reach(Some(&neighbour), &format!("{HOST}:8080")).is_ok(), "{round}");
                cannot_reach(Some(&neighbour), "10.1.0.2:81");
                // Nor does what got in meanwhile stay in.
                eventually("what got in is forgotten", || !hears(&secret, REFUSED_AFTER));
                while hears(&published, std::time::Duration::from_millis(1)) {}
                assert!(hears(&published, LIMIT), "{round}");
            }
        })
        .await;
        assert_eq!(setting("ipv4/conf/all/route_localnet"), "0");
    });
}

#[test]
fn a_change_finds_the_tables_again() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open_as_before_6_9("00000072").await, network(1));
        serving(&net, &one).await;
        // On this runtime nobody hears of it before the next change.
        flush_ruleset();
        net.publish(&forward("web", "0.0.0.0:8081", "10.1.0.2:81", &one)).await.unwrap();
        assert_eq!(ours(), 2);
        flush_ruleset();
        net.ensure_network(&network(2)).await.unwrap();
        place(&net, &endpoint("late", &network(2), "10.2.0.2")).await;
        for port in ["8080", "8081"] {
            assert!(reach(Some(&machine.neighbour()), &format!("{HOST}:{port}")).is_ok());
        }
        flush_ruleset();
        net.unpublish("web").await.unwrap();
        net.detach(&endpoint("late", &network(2), "10.2.0.2")).await.unwrap();
        net.remove_network(&network(2).id).await.unwrap();
        beside(|| eventually("they are made again", || ours() == 2)).await;
        cannot_reach(Some(&machine.neighbour()), &format!("{HOST}:8080"));
    });
}

#[test]
fn an_older_copy_that_somebody_puts_back_does_not_stay() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open_as_before_6_9("00000073").await, network(1));
        serving(&net, &one).await;
        beside(move || {
            let mut socket = Socket::open(Subsystem::Netfilter).unwrap();
            let mut batch = Batch::new("bireme_00000073");
            // As a saved ruleset that is loaded begins; there are no rules in this one.
            batch.on(Family::Inet, "bireme_00000073").delete_table().add_table();
            batch.commit(&mut socket).unwrap();
            // Not by asking: meanwhile the socket that keeps the port from others takes who connects, and says nothing.
            eventually("the rules are made again", || {
                !chains(&mut socket, Family::Inet, "bireme_00000073").unwrap().is_empty()
            });
            assert!(reach(Some(&machine.neighbour()), &format!("{HOST}:8080")).is_ok());
            cannot_reach(Some(&machine.neighbour()), "10.1.0.2:81");
        })
        .await;
    });
}

#[test]
fn how_the_host_forwarded_is_known_after_a_flush_and_a_restart() {
    on_machine(|machine| async move {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let one = network(1);
        let net = machine.open("00000074").await;
        net.ensure_network(&one).await.unwrap();
        assert!(exists(FORWARDING));
        flush_ruleset();
        beside(|| eventually("it is made again", || exists(FORWARDING))).await;
        // Also where no daemon was there to hear of it.
        drop(net);
        flush_ruleset();
        assert!(!exists(FORWARDING));
        assert_eq!(setting("ipv4/ip_forward"), "1");
        let net = machine.open("00000074").await;
        net.sweep(bireme_net::Keep { networks: vec![one.clone()], ..Default::default() }).await.unwrap();
        assert!(exists(FORWARDING));
        net.clear().await.unwrap();
        assert_eq!(setting("ipv4/ip_forward"), "0");
        assert!(all_tables().is_empty(), "{:?}", all_tables());
        // Nothing is known of it any longer: a machine that is made a router stays one.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        net.ensure_network(&one).await.unwrap();
        assert!(!exists(FORWARDING));
    });
}
