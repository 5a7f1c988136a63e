//! The DNS: our names, the world's names, nobody else's questions.

#![allow(clippy::unwrap_used, reason = "all of it is test")]

mod common;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use bireme_core::Names;
use bireme_sys::netns;
use common::*;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Asks inside `netns`; answers the code and the records' data as text.
fn ask(netns: &Path, server: &str, name: &str, kind: RecordType) -> Option<(ResponseCode, Vec<String>)> {
    let server: SocketAddr = format!("{server}:53").parse().unwrap();
    netns::run_in_netns(netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.send_to(&question(name, kind), server).unwrap();
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).ok()?;
        Some(read(&buffer[..count]))
    })
    .unwrap()
}

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn read(answer: &[u8]) -> (ResponseCode, Vec<String>) {
    let answer = Message::from_vec(answer).unwrap();
    assert_eq!(answer.metadata.id, 4711);
    (answer.metadata.response_code, answer.answers.iter().map(|record| record.data.to_string()).collect())
}

fn ask_tcp(netns: &Path, server: &str, name: &str) -> (ResponseCode, Vec<String>) {
    let server: SocketAddr = format!("{server}:53").parse().unwrap();
    netns::run_in_netns(netns, || {
        let mut stream = TcpStream::connect_timeout(&server, LIMIT).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let question = question(name, RecordType::A);
        stream.write_all(&(question.len() as u16).to_be_bytes()).unwrap();
        stream.write_all(&question).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut answer).unwrap();
        read(&answer)
    })
    .unwrap()
}

/// A DNS server of the world, on UDP and TCP: every name is 192.0.2.7.
fn world() -> SocketAddr {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = UdpSocket::bind(address).unwrap();
    let answer = |question: &[u8]| {
        let asked = Message::from_vec(question).unwrap();
        let mut answer = Message::response(asked.metadata.id, OpCode::Query);
        let to = RData::A("192.0.2.7".parse().unwrap());
        let record = Record::from_rdata(asked.queries[0].name.clone(), 60, to);
        answer.add_queries(asked.queries).add_answer(record);
        answer.to_vec().unwrap()
    };
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((count, peer)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&answer(&buffer[..count]), peer);
        }
    });
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = tcp.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut question).unwrap();
            let answer = answer(&question);
            stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
    address
}

fn names(pairs: &[(&str, &[&str])]) -> Names {
    let parse = |addresses: &[&str]| addresses.iter().map(|one| one.parse::<IpAddr>().unwrap()).collect();
    pairs.iter().map(|(name, addresses)| ((*name).to_owned(), parse(addresses))).collect()
}

#[test]
fn names_are_answered_by_the_clients_networks() {
    on_machine(|machine| async move {
        // The first server is dead: the second answers.
        let dead = UdpSocket::bind("127.0.0.1:0").unwrap();
        let upstream = vec![dead.local_addr().unwrap(), world()];
        drop(dead);
        let net = machine.open_with("00000020", Some(upstream)).await;
        let (one, two) = (network(1), network(2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        net.set_network_names(
            &one.id,
            names(&[("redis", &["10.1.0.2"]), ("cache", &["10.1.0.2"]), ("web", &["10.1.0.3", "10.1.0.4"])]),
            HashMap::from([("10.1.0.2".parse().unwrap(), names(&[("mine", &["10.1.0.3"])]))]),
        );
        net.set_network_names(&two.id, names(&[("Tally", &["10.2.0.2"])]), HashMap::new());
        let a = place(&net, &endpoint("a", &one, "10.1.0.2")).await;
        let c = place(&net, &endpoint("c", &two, "10.2.0.2")).await;
        assert_eq!(net.dns_servers(&sandbox("a")), ["10.1.0.1".parse::<IpAddr>().unwrap()]);
        let neighbour = machine.neighbour();
        let (network_one, net_of_test) = (one.clone(), net.clone());
        beside(move || {
            let found =
                |codes: &[&str]| Some((ResponseCode::NoError, codes.iter().map(|one| (*one).to_owned()).collect()));
            assert_eq!(ask(&a, "10.1.0.1", "redis.", RecordType::A), found(&["10.1.0.2"]));
            assert_eq!(ask(&a, "10.1.0.1", "CaChe.", RecordType::A), found(&["10.1.0.2"]));
            // A name that one alone uses.
            assert_eq!(ask(&a, "10.1.0.1", "mine.", RecordType::A), found(&["10.1.0.3"]));
            assert_eq!(ask(&c, "10.2.0.1", "mine.", RecordType::A), found(&["192.0.2.7"]));
            assert_eq!(ask(&a, "10.1.0.1", "redis.", RecordType::AAAA), found(&[]));
            assert_eq!(ask(&a, "10.1.0.1", "redis.", RecordType::MX), found(&[]));
            assert_eq!(ask(&a, "10.1.0.1", "web.", RecordType::A).unwrap().1.len(), 2);
            assert_eq!(ask(&a, "10.1.0.1", "3.0.1.10.in-addr.arpa.", RecordType::PTR), found(&["web."]));
            // Another network's name is the world's; its own is answered at whichever gateway it asks.
            assert_eq!(ask(&a, "10.1.0.1", "tally.", RecordType::A), found(&["192.0.2.7"]));
            assert_eq!(ask(&a, "10.1.0.1", "example.org.", RecordType::A), found(&["192.0.2.7"]));
            assert_eq!(ask(&c, "10.2.0.1", "tally.", RecordType::A), found(&["10.2.0.2"]));
            assert_eq!(ask(&c, "10.1.0.1", "tally.", RecordType::A), found(&["10.2.0.2"]));
            assert_eq!(Some(ask_tcp(&a, "10.1.0.1", "redis.")), found(&["10.1.0.2"]));
            assert_eq!(Some(ask_tcp(&a, "10.1.0.1", "example.org.")), found(&["192.0.2.7"]));
            // A stranger is not even told that there is a server.
            netns::run_in_netns(&neighbour, || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                socket.send_to(&question("redis.", RecordType::A), "10.1.0.1:53").unwrap();
                assert!(socket.recv(&mut [0; 512]).is_err());
            })
            .unwrap();
            net_of_test.set_network_names(&network_one.id, names(&[("redis", &["10.1.0.9"])]), HashMap::new());
            assert_eq!(ask(&a, "10.1.0.1", "redis.", RecordType::A), found(&["10.1.0.9"]));
        })
        .await;
    });
}

#[test]
fn a_dead_upstream_is_servfail_and_internal_networks_ask_nobody() {
    on_machine(|machine| async move {
        let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let net = machine.open_with("00000021", Some(vec![dead])).await;
        let (one, mut inside) = (network(1), network(2));
        inside.internal = true;
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&inside).await.unwrap();
        net.set_network_names(&inside.id, names(&[("db", &["10.2.0.2"])]), HashMap::new());
        let a = place(&net, &endpoint("a", &one, "10.1.0.2")).await;
        let b = place(&net, &endpoint("b", &inside, "10.2.0.2")).await;
        beside(move || {
            assert_eq!(ask(&a, "10.1.0.1", "example.org.", RecordType::A), Some((ResponseCode::ServFail, vec![])));
            assert_eq!(
                ask(&b, "10.2.0.1", "db.", RecordType::A),
                Some((ResponseCode::NoError, vec!["10.2.0.2".into()]))
            );
            assert_eq!(ask(&b, "10.2.0.1", "example.org.", RecordType::A), Some((ResponseCode::Refused, vec![])));
        })
        .await;
    });
}

#[test]
fn reverse_lookups_tell_the_name_and_its_network() {
    on_machine(|machine| async move {
        let net = machine.open("00000022").await;
        let (one, two) = (network(1), network(2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        net.set_network_names(
            &one.id,
            names(&[("0123456789ab", &["10.1.0.2"]), ("alias", &["10.1.0.2"])]),
            HashMap::new(),
        );
        let a = place(&net, &endpoint("a", &one, "10.1.0.2")).await;
        let b = place(&net, &endpoint("b", &one, "10.1.0.3")).await;
        let c = place(&net, &endpoint("c", &two, "10.2.0.2")).await;
        let renamed = net.clone();
        beside(move || {
            let asked = |netns: &Path, gateway: &str| ask(netns, gateway, "2.0.1.10.in-addr.arpa.", RecordType::PTR);
            assert_eq!(asked(&b, "10.1.0.1"), Some((ResponseCode::NoError, vec!["a.net1.".into()])));
            assert_ne!(asked(&c, "10.2.0.1"), Some((ResponseCode::NoError, vec!["a.net1.".into()])), "no member");
            renamed.set_reverse_name(&["10.1.0.2".parse().unwrap()], "z.net1");
            assert_eq!(asked(&a, "10.1.0.1"), Some((ResponseCode::NoError, vec!["z.net1.".into()])));
        })
        .await;
    });
}

/// CVE-2024-29018.
#[test]
fn over_an_internal_network_nobody_is_led_outside() {
    on_machine(|machine| async move {
        let net = machine.open_with("00000023", Some(vec![world()])).await;
        let (open, mut internal) = (network(1), network(2));
        internal.internal = true;
        net.ensure_network(&open).await.unwrap();
        net.ensure_network(&internal).await.unwrap();
        // On both, so that it may ask outside; a neighbour that could ask in its name would have a way out.
        let both = place(&net, &endpoint("both", &open, "10.1.0.2")).await;
        let mut second = endpoint("both", &internal, "10.2.0.2");
        second.default_route = false;
        net.attach(&second).await.unwrap();
        net.serve_inside(&sandbox("both")).await.unwrap();
        beside(move || {
            let refused = Some((ResponseCode::Refused, vec![]));
            let answered = Some((ResponseCode::NoError, vec!["192.0.2.7".into()]));
            assert_eq!(ask(&both, "10.2.0.1", "example.org.", RecordType::A), refused);
            assert_eq!(ask(&both, "10.1.0.1", "example.org.", RecordType::A), answered);
            assert_eq!(ask(&both, "127.0.0.11", "example.org.", RecordType::A), answered);
        })
        .await;
    });
}

/// What is removed waits for its DNS to end, and that for the runtime: nobody there may wait for the removal.
#[test]
fn one_sandbox_is_served_while_another_goes() {
    on_machine(|machine| async move {
        let net = machine.open("00000026").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        for round in 0..20 {
            let (goes, comes) = (format!("goes{round}"), format!("comes{round}"));
            place(&net, &endpoint(&goes, &one, "10.1.0.3")).await;
            net.serve_inside(&sandbox(&goes)).await.unwrap();
            place(&net, &endpoint(&comes, &one, "10.1.0.2")).await;
            let (leaving, id) = (net.clone(), sandbox(&goes));
            let leaving = tokio::spawn(async move { leaving.remove_sandbox(&id).await });
            // Until the removal is at work, and no longer.
            tokio::time::sleep(std::time::Duration::from_micros(50 * round)).await;
            for _ in 0..50 {
                net.serve_inside(&sandbox(&comes)).await.unwrap();
            }
            leaving.await.unwrap().unwrap();
            net.remove_sandbox(&sandbox(&comes)).await.unwrap();
        }
    });
}

#[test]
fn one_who_asks_too_much_leaves_room_for_others() {
    on_machine(|machine| async move {
        // Takes every question and answers none.
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let net = machine.open_with("00000024", Some(vec![silent.local_addr().unwrap()])).await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        net.set_network_names(&one.id, names(&[("db", &["10.1.0.2"])]), HashMap::new());
        let greedy = place(&net, &endpoint("greedy", &one, "10.1.0.3")).await;
        let modest = place(&net, &endpoint("modest", &one, "10.1.0.2")).await;
        beside(move || {
            let found = (ResponseCode::NoError, vec!["10.1.0.2".to_owned()]);
            let held = netns::run_in_netns(&greedy, || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                for _ in 0..20_000 {
                    let _ = socket.send_to(&question("example.org.", RecordType::A), "10.1.0.1:53");
                }
                // Connections that say nothing.
                let connect = |_| TcpStream::connect_timeout(&"10.1.0.1:53".parse().unwrap(), LIMIT).unwrap();
                (socket, (0..300).map(connect).collect::<Vec<_>>())
            })
            .unwrap();
            assert_eq!(ask(&modest, "10.1.0.1", "db.", RecordType::A), Some(found.clone()));
            assert_eq!(ask_tcp(&modest, "10.1.0.1", "db."), found);
            drop(held);
        })
        .await;
    });
}

#[test]
fn many_who_ask_too_much_leave_the_world_to_others() {
    on_machine(|machine| async move {
        // Answers what is fine, and nothing else.
        let slow = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = slow.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((count, peer)) = slow.recv_from(&mut buffer) {
                let asked = Message::from_vec(&buffer[..count]).unwrap();
                if asked.queries[0].name.to_ascii().starts_with("fine") {
                    let mut answer = Message::response(asked.metadata.id, OpCode::Query);
                    answer.add_queries(asked.queries);
                    let _ = slow.send_to(&answer.to_vec().unwrap(), peer);
                }
            }
        });
        let net = machine.open_with("00000026", Some(vec![address])).await;
        let (one, two) = (network(1), network(2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        let mut greedy = vec![];
        for last in 10..22 {
            let name = format!("greedy{last}");
            greedy.push(place(&net, &endpoint(&name, &one, &format!("10.1.0.{last}"))).await);
            net.serve_inside(&sandbox(&name)).await.unwrap();
        }
        let near = place(&net, &endpoint("near", &one, "10.1.0.2")).await;
        let far = place(&net, &endpoint("far", &two, "10.2.0.2")).await;
        net.serve_inside(&sandbox("near")).await.unwrap();
        beside(move || {
            let held: Vec<_> = greedy
                .iter()
                .map(|netns| {
                    netns::run_in_netns(netns, || {
                        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                        for server in ["127.0.0.11:53", "10.1.0.1:53"] {
                            for _ in 0..64 {
                                let _ = socket.send_to(&question("slow.example.", RecordType::A), server);
                            }
                        }
                        socket
                    })
                    .unwrap()
                })
                .collect();
            let fine = Some((ResponseCode::NoError, vec![]));
            assert_eq!(ask(&far, "10.2.0.1", "fine.example.", RecordType::A), fine);
            for server in ["127.0.0.11", "10.1.0.1"] {
                assert_eq!(ask(&near, server, "fine.example.", RecordType::A), fine, "{server}");
            }
            drop(held);
        })
        .await;
    });
}

#[test]
fn a_client_that_never_reads_holds_no_place() {
    on_machine(|machine| async move {
        let net = machine.open("00000025").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let all: Vec<String> = (0..200).map(|last| format!("10.1.0.{last}")).collect();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        net.set_network_names(&one.id, names(&[("many", &all)]), HashMap::new());
        let greedy = place(&net, &endpoint("greedy", &one, "10.1.0.3")).await;
        beside(move || {
            let end = netns::run_in_netns(&greedy, || {
                let mut stream = TcpStream::connect_timeout(&"10.1.0.1:53".parse().unwrap(), LIMIT).unwrap();
                stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
                let question = question("many.", RecordType::A);
                let framed = [&(question.len() as u16).to_be_bytes()[..], &question].concat();
                // Until its answers fill all there is to fill; then it is closed.
                loop {
                    if let Err(error) = stream.write_all(&framed) {
                        break error.kind();
                    }
                }
            })
            .unwrap();
            let closed = [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::BrokenPipe];
            assert!(closed.contains(&end), "{end:?}");
        })
        .await;
    });
}
