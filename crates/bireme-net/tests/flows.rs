//! Connections that the kernel remembers end with what they were let through for.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use bireme_core::spec::Protocol;
use bireme_net::{Forward, NetworkSpec};
use bireme_sys::netns;
use common::*;

fn udp_forward(owner: &str, target: &str, network: &NetworkSpec) -> Forward {
    Forward { protocol: Protocol::Udp, ..forward(owner, "0.0.0.0:5353", target, network) }
}

/// The neighbour begins to send, and goes on; `socket` has heard it.
async fn reached(machine: &Machine, socket: UdpSocket) -> UdpSocket {
    let neighbour = machine.neighbour();
    beside(move || {
        keep_sending(&neighbour, &format!("{HOST}:5353"));
        assert!(hears(&socket, LIMIT));
        socket
    })
    .await
}

#[test]
fn a_steady_sender_reaches_nobody_who_gets_the_address_next() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open("00000080").await, network(1));
        net.ensure_network(&one).await.unwrap();
        let first = endpoint("first", &one, "10.1.0.2");
        let inside = place(&net, &first).await;
        let socket = udp_at(&inside, "0.0.0.0:53");
        net.publish(&udp_forward("first", "10.1.0.2:53", &one)).await.unwrap();
        let socket = reached(&machine, socket).await;
        drop(socket);
        net.unpublish("first").await.unwrap();
        net.detach(&first).await.unwrap();
        net.remove_sandbox(&first.sandbox).await.unwrap();
        let next = place(&net, &endpoint("next", &one, "10.1.0.2")).await;
        let victim = udp_at(&next, "0.0.0.0:53");
        assert!(!beside(move || hears(&victim, REFUSED_AFTER)).await, "nothing is published");
    });
}

#[test]
fn a_steady_sender_reaches_the_workload_at_its_new_address() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open("00000081").await, network(1));
        net.ensure_network(&one).await.unwrap();
        let neighbour = machine.neighbour();
        // It began before anything was published.
        beside(move || keep_sending(&neighbour, &format!("{HOST}:5353"))).await;
        beside(|| std::thread::sleep(Duration::from_millis(100))).await;
        for address in ["10.1.0.2", "10.1.0.3", "10.1.0.2"] {
            let web = endpoint("web", &one, address);
            let inside = place(&net, &web).await;
            let socket = udp_at(&inside, "0.0.0.0:53");
            net.publish(&udp_forward("web", &format!("{address}:53"), &one)).await.unwrap();
            assert!(beside(move || hears(&socket, LIMIT)).await, "{address}");
            net.unpublish("web").await.unwrap();
            net.detach(&web).await.unwrap();
            net.remove_sandbox(&web.sandbox).await.unwrap();
        }
    });
}

#[test]
fn a_port_that_is_taken_back_is_closed_to_those_who_send_already() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open("00000082").await, network(1));
        net.ensure_network(&one).await.unwrap();
        let inside = place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        let socket = udp_at(&inside, "0.0.0.0:53");
        let at = net.publish(&udp_forward("web", "10.1.0.2:53", &one)).await.unwrap();
        let socket = reached(&machine, socket).await;
        net.unpublish_one("web", at).await.unwrap();
        beside(move || eventually("it hears nothing any longer", || !hears(&socket, REFUSED_AFTER))).await;
    });
}

#[test]
fn connections_of_others_go_on() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open("00000083").await, network(1));
        net.ensure_network(&one).await.unwrap();
        let stays = place(&net, &endpoint("stays", &one, "10.1.0.2")).await;
        let goes = endpoint("goes", &one, "10.1.0.3");
        place(&net, &goes).await;
        net.publish(&forward("stays", "0.0.0.0:8080", "10.1.0.2:80", &one)).await.unwrap();
        net.publish(&udp_forward("goes", "10.1.0.3:53", &one)).await.unwrap();
        let listener = netns::run_in_netns(&stays, || TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
        let neighbour = machine.neighbour();
        let connect = move || TcpStream::connect_timeout(&format!("{HOST}:8080").parse().unwrap(), LIMIT).unwrap();
        let mut client = beside(move || netns::run_in_netns(&neighbour, connect).unwrap()).await;
        let (mut server, _) = listener.accept().unwrap();
        net.unpublish("goes").await.unwrap();
        net.detach(&goes).await.unwrap();
        place(&net, &endpoint("late", &one, "10.1.0.3")).await;
        beside(move || {
            client.set_read_timeout(Some(LIMIT)).unwrap();
            // The server speaks first: nothing but what is remembered leads it back.
            server.write_all(b"on").unwrap();
            let mut text = [0; 2];
            client.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"on");
        })
        .await;
    });
}

/// Whoever sends decides how much the kernel remembers, and so how long it takes to read it.
#[test]
fn nobody_waits_for_what_the_kernel_forgets_of_others() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open("00000084").await, network(1));
        net.ensure_network(&one).await.unwrap();
        let first = endpoint("first", &one, "10.1.0.2");
        place(&net, &first).await;
        for name in ["again", "other", "new"] {
            net.ensure_sandbox(&sandbox(name)).await.unwrap();
        }
        beside(|| {
            for _ in 0..2 {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                (1024..=u16::MAX).for_each(|port| drop(socket.send_to(b"x", ("127.0.0.1", port))));
            }
        })
        .await;
        net.detach(&first).await.unwrap();
        let (again, other) = (endpoint("again", &one, "10.1.0.2"), endpoint("other", &one, "10.1.0.3"));
        let (two, begin) = (network(2), std::time::Instant::now());
        let waits = async {
            net.attach(&again).await.unwrap();
            begin.elapsed()
        };
        let does_not = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            net.attach(&other).await.unwrap();
            // Of its range, the kernel remembers nothing.
            net.ensure_network(&two).await.unwrap();
            net.attach(&endpoint("new", &two, "10.2.0.2")).await.unwrap();
            begin.elapsed()
        };
        let (concerned, others) = tokio::join!(waits, does_not);
        eprintln!(
            "with 129,000 connections: {concerned:?} for whoever is concerned, {others:?} for three changes of others"
        );
        assert!(others < concerned, "{others:?} and {concerned:?}");
    });
}
