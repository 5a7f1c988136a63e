//! Published ports: from everywhere, once each, and gone afterwards.

mod common;

use bireme_core::ErrorKind;
use bireme_core::spec::Protocol;
use bireme_net::Endpoint;
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::route;
use common::*;

#[test]
fn a_published_port_answers_everywhere_and_is_freed() {
    on_machine(|machine| async move {
        let net = machine.open("00000010").await;
        let (one, two) = (network(1), network(2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        let web = place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        let peer = place(&net, &endpoint("peer", &one, "10.1.0.3")).await;
        let other = place(&net, &endpoint("other", &two, "10.2.0.2")).await;
        serve_tcp(&web, "0.0.0.0:80");
        let published = forward("web", "0.0.0.0:8080", "10.1.0.2:80", &one);
        let at = net.publish(&published).await.unwrap();
        assert_eq!(at, published.host);
        assert_eq!(net.publish(&published).await.unwrap(), at);
        assert!(reach(None, "127.0.0.1:8080").is_ok());
        assert!(reach(None, "127.0.0.2:8080").is_ok());
        assert_eq!(reach(None, &format!("{HOST}:8080")).unwrap().to_string(), HOST);
        let seen = reach(Some(&machine.neighbour()), &format!("{HOST}:8080")).unwrap();
        assert_eq!(seen.to_string(), NEIGHBOUR, "the workload sees who asks");
        for filtered in [true, false] {
            bridge_frames_filtered(filtered);
            for inside in [&web, &peer, &other] {
                assert!(reach(Some(inside), &format!("{HOST}:8080")).is_ok(), "hairpin");
                assert!(reach(Some(inside), "10.1.0.1:8080").is_ok(), "over the gateway");
            }
        }
        net.unpublish("nobody").await.unwrap();
        net.unpublish("web").await.unwrap();
        net.unpublish("web").await.unwrap();
        for address in ["127.0.0.1:8080", &format!("{HOST}:8080")] {
            cannot_reach(None, address);
        }
        cannot_reach(Some(&machine.neighbour()), &format!("{HOST}:8080"));
        std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
    });
}

#[test]
fn a_port_of_loopback_is_the_hosts_alone() {
    on_machine(|machine| async move {
        let net = machine.open("00000011").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let web = place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        serve_tcp(&web, "0.0.0.0:80");
        net.publish(&forward("web", "127.0.0.1:8080", "10.1.0.2:80", &one)).await.unwrap();
        net.publish(&forward("web", &format!("{HOST}:8081"), "10.1.0.2:80", &one)).await.unwrap();
        assert!(reach(None, "127.0.0.1:8080").is_ok());
        cannot_reach(None, &format!("{HOST}:8080"));
        cannot_reach(Some(&machine.neighbour()), &format!("{HOST}:8080"));
        cannot_reach(None, "127.0.0.1:8081");
        assert!(reach(Some(&machine.neighbour()), &format!("{HOST}:8081")).is_ok());
    });
}

#[test]
fn udp_and_chosen_ports_work() {
    on_machine(|machine| async move {
        let net = machine.open("00000012").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let web = place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        serve_udp(&web, "0.0.0.0:53");
        // 53 as well: our own DNS is not in the way.
        let mut udp = forward("web", "0.0.0.0:53", "10.1.0.2:53", &one);
        udp.protocol = Protocol::Udp;
        net.publish(&udp).await.unwrap();
        assert!(reach_udp(None, "127.0.0.1:53").is_ok());
        assert!(reach_udp(None, &format!("{HOST}:53")).is_ok());
        assert!(reach_udp(Some(&machine.neighbour()), &format!("{HOST}:53")).is_ok());

        serve_tcp(&web, "0.0.0.0:80");
        let chosen = net.publish(&forward("web", "0.0.0.0:0", "10.1.0.2:80", &one)).await.unwrap();
        assert_ne!(chosen.port(), 0);
        assert!(reach(None, &format!("127.0.0.1:{}", chosen.port())).is_ok());
    });
}

#[test]
fn a_taken_port_is_refused_in_dockers_words() {
    on_machine(|machine| async move {
        let net = machine.open("00000013").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let _web = place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        let stranger = std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
        let wanted = forward("web", "0.0.0.0:8080", "10.1.0.2:80", &one);
        let taken = net.publish(&wanted).await.unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::Conflict);
        assert_eq!(
            taken.to_string(),
            "driver failed programming external connectivity on endpoint web: failed to bind host port for \
             0.0.0.0:8080:10.1.0.2:80/tcp: address already in use"
        );
        drop(stranger);
        net.publish(&wanted).await.unwrap();
        let again = forward("other", "127.0.0.1:8080", "10.1.0.2:81", &one);
        let allocated = net.publish(&again).await.unwrap_err();
        assert_eq!(allocated.kind(), ErrorKind::Conflict);
        assert!(allocated.to_string().ends_with("Bind for 127.0.0.1:8080 failed: port is already allocated"));
        let elsewhere = forward("web", "198.51.100.7:8080", "10.1.0.2:80", &one);
        assert_eq!(net.publish(&elsewhere).await.unwrap_err().kind(), ErrorKind::Invalid);
        // The port is held, so that no other program can take what would never reach it.
        assert!(std::net::TcpListener::bind("0.0.0.0:8080").is_err());
        net.unpublish("web").await.unwrap();
        net.publish(&again).await.unwrap();
    });
}

#[test]
fn udp_leads_from_ipv6_to_a_workload_of_ipv4() {
    on_machine(|machine| async move {
        let net = machine.open("00000014").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let web = place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        serve_udp(&web, "0.0.0.0:90");
        let mut udp = forward("web", "[::]:9000", "10.1.0.2:90", &one);
        udp.protocol = Protocol::Udp;
        assert_eq!(net.publish(&udp).await.unwrap(), udp.host);
        beside(|| {
            // Each gets its own answers, and as many as there are.
            let clients: Vec<_> = (0..20).map(|_| std::net::UdpSocket::bind("[::1]:0").unwrap()).collect();
            for round in 0..3 {
                for client in &clients {
                    client.set_read_timeout(Some(LIMIT)).unwrap();
                    client.send_to(b"hello", "[::1]:9000").unwrap();
                }
                for client in &clients {
                    let mut buffer = [0; 64];
                    let (count, from) = client.recv_from(&mut buffer).unwrap();
                    assert_eq!((&buffer[..count], from), (&b"10.1.0.1"[..], "[::1]:9000".parse().unwrap()), "{round}");
                }
            }
        })
        .await;
        net.unpublish("web").await.unwrap();
        std::net::UdpSocket::bind("[::]:9000").unwrap();
    });
}

/// As many connections as a proxied port has places, and somebody else.
#[test]
fn one_client_does_not_lock_others_out_of_a_port_of_ipv6() {
    const PLACES: usize = 1024;
    on_machine(|machine| async move {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let more = rustix::process::Rlimit { current: files, maximum: files };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, more).unwrap();
        let mut socket = Socket::open(Subsystem::Route).unwrap();
        for address in ["2001:db8:0:1::1", "2001:db8:0:2::1"] {
            socket.request(&[route::add_address(1, (address.parse().unwrap(), 128))]).unwrap();
        }
        let net = machine.open("00000016").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let web = place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        serve_tcp(&web, "0.0.0.0:80");
        net.publish(&forward("web", "[::]:8080", "10.1.0.2:80", &one)).await.unwrap();
        let at: std::net::SocketAddr = "[::1]:8080".parse().unwrap();
        let connect = async |from: &str| {
            let socket = tokio::net::TcpSocket::new_v6().unwrap();
            socket.bind(format!("[{from}]:0").parse().unwrap()).unwrap();
            let mut stream = socket.connect(at).await.unwrap();
            let mut answer = String::new();
            let read = tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer);
            match tokio::time::timeout(LIMIT, read).await {
                // The workload has said all it has to say; the connection is left open on this side.
                Ok(Ok(_)) if answer == "10.1.0.1" => Some(stream),
                _ => None,
            }
        };
        let mut idle = Vec::new();
        for _ in 0..PLACES {
            idle.push(connect("2001:db8:0:1::1").await.unwrap());
        }
        let mut others = Vec::new();
        for _ in 0..20 {
            others.push(connect("2001:db8:0:2::1").await.expect("others get places"));
        }
        net.unpublish("web").await.unwrap();
    });
}

#[test]
fn ports_that_the_kernel_chooses_are_different_ones() {
    on_machine(|machine| async move {
        let net = machine.open("00000015").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        place(&net, &endpoint("web", &one, "10.1.0.2")).await;
        let any = forward("web", "0.0.0.0:0", "10.1.0.2:80", &one);
        assert_ne!(net.publish(&any).await.unwrap(), net.publish(&any).await.unwrap());
    });
}

/// Whoever forgets to take the port back first.
#[test]
fn a_port_goes_with_the_address_that_it_leads_to() {
    on_machine(|machine| async move {
        let (net, one) = (machine.open("00000017").await, network(1));
        net.ensure_network(&one).await.unwrap();
        // Once as the only one of its sandbox, once beside another.
        for with in [None, Some("beside")] {
            let shared = Endpoint { sandbox: sandbox("shared"), ..endpoint("web", &one, "10.1.0.2") };
            place(&net, &shared).await;
            if let Some(with) = with {
                net.attach(&Endpoint { sandbox: sandbox("shared"), ..endpoint(with, &one, "10.1.0.4") }).await.unwrap();
            }
            net.publish(&forward("web", "0.0.0.0:8080", "10.1.0.2:80", &one)).await.unwrap();
            net.publish(&forward("web", "[::]:8080", "10.1.0.2:80", &one)).await.unwrap();
            net.detach(&shared).await.unwrap();
            let next = endpoint("next", &one, "10.1.0.2");
            let inside = place(&net, &next).await;
            serve_tcp(&inside, "0.0.0.0:80");
            for address in ["127.0.0.1:8080", "[::1]:8080", &format!("{HOST}:8080")] {
                cannot_reach(None, address);
            }
            std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
            std::net::TcpListener::bind("[::]:8080").unwrap();
            net.detach(&next).await.unwrap();
            net.remove_sandbox(&next.sandbox).await.unwrap();
            net.remove_sandbox(&shared.sandbox).await.unwrap();
        }
    });
}

/// As those of components: their sockets are not this daemon's.
#[test]
fn internal_networks_reach_no_port_whose_socket_was_handed_over() {
    on_machine(|machine| async move {
        let net = machine.open("00000018").await;
        let (mut inside, open) = (network(1), network(2));
        inside.internal = true;
        net.ensure_network(&inside).await.unwrap();
        net.ensure_network(&open).await.unwrap();
        let (a, b) = (endpoint("a", &inside, "10.1.0.2"), endpoint("b", &open, "10.2.0.2"));
        let (closed, outside) = (place(&net, &a).await, place(&net, &b).await);
        let listener = std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = std::io::Write::write_all(&mut stream.unwrap(), b"10.0.0.0");
            }
        });
        assert!(reach(Some(&closed), "10.1.0.1:8080").is_ok(), "as any program of the host");
        // Two sockets, of IPv4 and of IPv6.
        net.hand_over(&[8080, 8080]).await.unwrap();
        net.take_back(&[8080]).await.unwrap();
        cannot_reach(Some(&closed), "10.1.0.1:8080");
        assert!(reach(Some(&outside), "10.2.0.1:8080").is_ok());
        drop(net);
        let net = machine.open("00000018").await;
        let keep = bireme_net::Keep {
            networks: vec![inside.clone(), open.clone()],
            endpoints: vec![a, b],
            handed: vec![8080],
            ..Default::default()
        };
        net.sweep(keep).await.unwrap();
        cannot_reach(Some(&closed), "10.1.0.1:8080");
        net.take_back(&[8080]).await.unwrap();
        assert!(reach(Some(&closed), "10.1.0.1:8080").is_ok());
    });
}
