//! From a container's network: spoofed frames, the host's loopback, names of others.
//!
//! What the rules of nf_tables stop is tried frame by frame in `bireme-net/tests/attacks.rs`; here, from real containers.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::packet::PacketSocket;
use bireme_sys::{netns, nft, route};
use bireme_testing::{Engine, client, eventually, free_port};

/// Longer than any frame on this machine takes.
const NEVER: Duration = Duration::from_millis(500);

/// The network namespace of a running container.
fn namespace_of(engine: &Engine, container: &str) -> PathBuf {
    let pid = engine.docker(["inspect", "-f", "{{.State.Pid}}", container]).stdout().trim().to_owned();
    format!("/proc/{pid}/ns/net").into()
}

fn inspected(engine: &Engine, container: &str, field: &str) -> String {
    let format = format!("{{{{range .NetworkSettings.Networks}}}}{{{{.{field}}}}}{{{{end}}}}");
    engine.docker(["inspect", "-f", &format, container]).stdout().trim().to_owned()
}

fn address_of(engine: &Engine, container: &str) -> Ipv4Addr {
    inspected(engine, container, "IPAddress").parse().unwrap()
}

fn gateway_of(engine: &Engine, container: &str) -> Ipv4Addr {
    inspected(engine, container, "Gateway").parse().unwrap()
}

fn mac_of(engine: &Engine, container: &str) -> [u8; 6] {
    let text = inspected(engine, container, "MacAddress");
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// Sends a datagram out of `container`, as somebody with `CAP_NET_RAW` there can, from and to whichever addresses.
fn send_raw(engine: &Engine, container: &str, to_mac: [u8; 6], from: Ipv4Addr, to: (Ipv4Addr, u16), payload: &[u8]) {
    let length = u16::try_from(payload.len()).unwrap();
    let mut header =
        [&[0x45, 0][..], &(28 + length).to_be_bytes(), &[0, 0, 0, 0, 64, 17, 0, 0], &from.octets(), &to.0.octets()]
            .concat();
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    header[10..12].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
    let udp = [&4000u16.to_be_bytes()[..], &to.1.to_be_bytes(), &(8 + length).to_be_bytes(), &[0, 0]].concat();
    netns::run_in_netns(&namespace_of(engine, container), || {
        let link = route::link(&mut Socket::open(Subsystem::Route).unwrap(), "eth0").unwrap().unwrap();
        let frame = [&to_mac[..], &link.mac, &[0x08, 0x00], &header, &udp, payload].concat();
        PacketSocket::open(link.index).unwrap().send(&frame).unwrap();
    })
    .unwrap();
}

/// Docker's rule for the address of a bridge, which ours has too.
fn mac_for(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

fn hears_within(socket: &UdpSocket, limit: Duration) -> Option<String> {
    socket.set_read_timeout(Some(limit)).unwrap();
    let mut buffer = [0; 64];
    socket.recv(&mut buffer).ok().map(|count| String::from_utf8_lossy(&buffer[..count]).into_owned())
}

fn hears(socket: &UdpSocket) -> String {
    hears_within(socket, bireme_testing::PATIENCE).expect("a datagram that is let through")
}

/// CVE-2020-8558.
#[test]
fn frames_from_a_container_do_not_reach_the_hosts_loopback() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "--internal", "inside"]).stdout();
    let service = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = service.local_addr().unwrap().port();
    for network in ["bridge", "inside"] {
        engine.docker(["run", "-d", "--name", network, "--network", network, "busybox", "sleep", "1000"]).stdout();
        // Internal networks tell no gateway: it is the first address all the same.
        let own = address_of(&engine, network);
        let [a, b, c, _] = own.octets();
        let gateway = Ipv4Addr::new(a, b, c, 1);
        for from in [own, Ipv4Addr::LOCALHOST] {
            send_raw(&engine, network, mac_for(gateway), from, (Ipv4Addr::LOCALHOST, port), b"attack");
        }
        assert_eq!(hears_within(&service, NEVER), None, "over {network}");
    }
    // The same frame to the gateway arrives: only its address stopped it.
    let open = UdpSocket::bind("0.0.0.0:0").unwrap();
    let (own, gateway) = (address_of(&engine, "bridge"), gateway_of(&engine, "bridge"));
    let to = (gateway, open.local_addr().unwrap().port());
    send_raw(&engine, "bridge", mac_for(gateway), own, to, b"honest");
    assert_eq!(hears(&open), "honest");
    engine.finish();
}

#[test]
fn a_container_is_not_taken_for_its_neighbour_or_the_host() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "front"]).stdout();
    let run = ["run", "-d", "--network", "front", "--name"];
    for (name, more) in [("victim", None), ("peer", None), ("plain", None), ("admin", Some("--cap-add=NET_ADMIN"))] {
        let args = run.into_iter().chain([name]).chain(more).chain(["busybox", "sleep", "1000"]);
        engine.docker(args).stdout();
    }
    for restarted in [false, true] {
        let peer = namespace_of(&engine, "peer");
        let service = netns::run_in_netns(&peer, || UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        let to = (address_of(&engine, "peer"), service.local_addr().unwrap().port());
        let of_others = [address_of(&engine, "victim"), gateway_of(&engine, "peer"), to.0];
        for attacker in ["plain", "admin"] {
            for from in of_others {
                send_raw(&engine, attacker, mac_of(&engine, "peer"), from, to, b"attack");
            }
            assert_eq!(hears_within(&service, NEVER), None, "from {attacker}, restarted: {restarted}");
            let own = address_of(&engine, attacker);
            send_raw(&engine, attacker, mac_of(&engine, "peer"), own, to, b"honest");
            assert_eq!(hears(&service), "honest", "from {attacker}, restarted: {restarted}");
        }
        // What comes from elsewhere is passed on by whoever may set up routes, and by nobody else.
        let [a, b, c, d] = to.0.octets();
        let elsewhere = Ipv4Addr::new(a, b, c, d + 64);
        send_raw(&engine, "plain", mac_of(&engine, "peer"), elsewhere, to, b"routed");
        assert_eq!(hears_within(&service, NEVER), None);
        send_raw(&engine, "admin", mac_of(&engine, "peer"), elsewhere, to, b"routed");
        assert_eq!(hears(&service), "routed");
        if !restarted {
            engine.crash();
            engine.come_back();
        }
    }
    engine.finish();
}

/// CVE-2024-29018.
#[test]
fn a_member_of_an_internal_network_gets_no_question_outside() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "--internal", "inside"]).stdout();
    engine.docker(["network", "create", "open"]).stdout();
    engine.docker(["run", "-d", "--name", "alone", "--network", "inside", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["run", "-d", "--name", "both", "--network", "inside", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["network", "connect", "open", "both"]).stdout();
    let [a, b, c, _] = address_of(&engine, "alone").octets();
    let gateway = Ipv4Addr::new(a, b, c, 1).to_string();
    for server in ["127.0.0.11", &gateway] {
        let asked = engine.docker(["exec", "alone", "nslookup", "-type=a", "example.org", server]);
        assert!(asked.raw_stdout().contains("REFUSED") || asked.stderr().contains("REFUSED"), "{asked}");
        let named = engine.docker(["exec", "alone", "nslookup", "-type=a", "both", server]);
        assert!(named.raw_stdout().contains("Name:\tboth"), "{named}");
    }
    // Not in the name of one that is on another network too: at this gateway nobody is led outside.
    let asked = engine.docker(["exec", "both", "nslookup", "-type=a", "example.org", &gateway]);
    assert!(asked.raw_stdout().contains("REFUSED") || asked.stderr().contains("REFUSED"), "{asked}");
    engine.finish();
}

/// moby forgets what the kernel remembers of a removed port as well.
#[test]
fn a_steady_sender_reaches_nobody_who_gets_the_address_of_a_removed_container() {
    let engine = Engine::start();
    engine.load("busybox");
    // An address can be asked for where the range was; the machine may run others of this test.
    let [.., high, low] = std::process::id().to_be_bytes();
    let subnet = format!("10.{}.{low}.0/24", 200 + high % 50);
    engine.docker(["network", "create", "--subnet", &subnet, "front"]).stdout();
    let run = ["run", "-d", "--network", "front", "--name"];
    let (free, sender) = (UdpSocket::bind("0.0.0.0:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let port = free.local_addr().unwrap().port();
    drop(free);
    let publish = format!("{port}:53/udp");
    engine.docker(run.into_iter().chain(["first", "-p", &publish, "busybox", "sleep", "1000"])).stdout();
    let inside = |container: &str| {
        netns::run_in_netns(&namespace_of(&engine, container), || UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap()
    };
    let address = address_of(&engine, "first");
    let gateway = gateway_of(&engine, "first");
    let send = || sender.send_to(b"again", ("127.0.0.1", port)).unwrap();
    let first = inside("first");
    send();
    assert_eq!(hears(&first), "again");
    drop(first);
    engine.docker(["rm", "-f", "first"]).stdout();
    let ip = address.to_string();
    engine.docker(run.into_iter().chain(["next", "--ip", &ip, "busybox", "sleep", "1000"])).stdout();
    assert_eq!((address_of(&engine, "next"), gateway_of(&engine, "next")), (address, gateway));
    let next = inside("next");
    for _ in 0..10 {
        send();
        assert_eq!(hears_within(&next, NEVER / 10), None, "nothing is published");
    }
    engine.finish();
}

/// CVE-2025-54388: only this engine's own tables are tried, the machine's others are left alone. A flush of everything is
/// tried in `bireme-net/tests/flushed.rs`.
#[test]
fn nobody_takes_the_rules_of_a_running_engine_away() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["run", "-d", "--name", "web", "-p", "127.0.0.1::80", "busybox", "httpd", "-f"]).stdout();
    let table = format!("bireme_{}", engine.instance());
    let mut socket = Socket::open(Subsystem::Netfilter).unwrap();
    let port = engine.docker(["port", "web", "80"]).stdout().trim().rsplit(':').next().unwrap().to_owned();
    for family in [nft::Family::Inet, nft::Family::Bridge] {
        let mut batch = nft::Batch::new(&table);
        batch.on(family, &table).delete_table();
        // Refused where the kernel can (6.9); elsewhere it is made again.
        let _ = batch.commit(&mut socket);
        let begin = std::time::Instant::now();
        while !nft::table_exists(&mut socket, family, &table).unwrap() {
            assert!(begin.elapsed() < bireme_testing::PATIENCE, "the table is made again");
            std::thread::yield_now();
        }
        std::net::TcpStream::connect(format!("127.0.0.1:{port}")).expect("the published port");
    }
    engine.docker(["run", "-d", "-p", "127.0.0.1::80", "busybox", "httpd", "-f"]).stdout();
    engine.finish();
}

/// What an app's published ports answer, and `None` where nobody does.
fn fetch(port: u16) -> Option<String> {
    client::tcp(port, "GET", "/", "", b"").ok().map(|answer| answer.text().trim().to_owned())
}

/// A range of this test alone; the machine may run others.
fn subnet(number: u8) -> String {
    let [.., high, low] = std::process::id().to_be_bytes();
    format!("10.{}.{low}.{}/26", 200 + high % 50, u16::from(number) * 64)
}

#[test]
fn ports_of_a_network_that_is_left_lead_to_nobody_else() {
    let engine = Engine::start();
    engine.load("busybox");
    for (number, name) in [(0, "n1"), (1, "n2")] {
        engine.docker(["network", "create", "--subnet", &subnet(number), name]).stdout();
    }
    let says = |name: &str| format!("echo {name} > /tmp/index.html; exec httpd -f -h /tmp");
    let port = free_port();
    let publish = format!("{port}:80");
    engine
        .docker(["run", "-d", "--name", "aa", "--network", "n1", "-p", &publish, "busybox", "sh", "-c", &says("aa")])
        .stdout();
    let address = address_of(&engine, "aa").to_string();
    engine.docker(["network", "connect", "n2", "aa"]).stdout();
    eventually("an answer", || fetch(port));
    engine.docker(["network", "disconnect", "n1", "aa"]).stdout();
    let next =
        ["run", "-d", "--name", "next", "--network", "n1", "--ip", &address, "busybox", "sh", "-c", &says("next")];
    engine.docker(next).stdout();
    let out = ["exec", "next", "wget", "-q", "-O", "-", "http://127.0.0.1/"];
    eventually("the next one serves", || (engine.docker(out).raw_stdout().trim() == "next").then_some(()));
    // It is reached by way of the other network, as Docker has it, and finds its way out there.
    assert_eq!(fetch(port).as_deref(), Some("aa"));
    assert!(engine.docker(["port", "aa"]).stdout().contains(&port.to_string()));
    let routes = engine.docker(["exec", "aa", "ip", "route"]).stdout().to_owned();
    assert!(routes.contains("default via"), "{routes}");
    engine.docker(["network", "disconnect", "n2", "aa"]).stdout();
    assert_eq!(fetch(port), None);
    assert_eq!(engine.docker(["port", "aa"]).stdout(), "");
    // With the next way in it has its ports again.
    engine.docker(["network", "connect", "n2", "aa"]).stdout();
    assert_eq!(fetch(port).as_deref(), Some("aa"));
    engine.finish();
}

#[test]
fn networks_that_are_made_and_removed_at_once_leave_nothing() {
    let mut engine = Engine::start();
    let named = |engine: &Engine| -> Vec<String> {
        let all = engine.request("GET", "/networks", b"").json();
        let names = all.as_array().unwrap().iter().map(|one| one["Name"].as_str().unwrap().to_owned());
        names.filter(|name| !matches!(name.as_str(), "bridge" | "host" | "none")).collect()
    };
    let making = std::sync::atomic::AtomicUsize::new(2);
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // Others keep the kernel's part busy, so that a removal may overtake what it removes.
        for name in ["other", "another", "third"] {
            let (engine, making) = (&engine, &making);
            scope.spawn(move || {
                while making.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                    let body = format!(r#"{{"Name":"{name}"}}"#);
                    let _ = engine.request("POST", "/networks/create", body.as_bytes());
                    let _ = engine.request("DELETE", &format!("/networks/{name}"), b"");
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..60 {
                    let answer = engine.request("POST", "/networks/create", br#"{"Name":"one"}"#);
                    made.fetch_add(usize::from(answer.status == 201), std::sync::atomic::Ordering::Relaxed);
                }
                making.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            });
            scope.spawn(|| {
                while making.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                    let _ = engine.request("DELETE", "/networks/one", b"");
                }
            });
        }
    });
    assert!(made.into_inner() > 1, "it was made again and again");
    for restarted in [false, true] {
        let left = named(&engine);
        assert!(left.iter().filter(|name| *name == "one").count() <= 1, "restarted: {restarted}: {left:?}");
        if !restarted {
            engine.crash();
            engine.come_back();
            assert_eq!(named(&engine), left, "as many as were there are remembered");
        }
    }
    for name in named(&engine) {
        engine.docker(["network", "rm", &name]).stdout();
    }
    engine.docker(["network", "create", "one"]).stdout();
    engine.finish();
}

#[test]
fn a_container_that_is_renamed_twice_at_once_has_one_name() {
    let engine = Engine::start();
    engine.load("busybox");
    let id = engine.docker(["create", "--name", "first", "busybox"]).stdout().trim().to_owned();
    for round in 0..15 {
        // None that an ID may begin with.
        let names = ["x", "y", "z"].map(|letter| format!("{letter}{round}"));
        std::thread::scope(|scope| {
            for name in &names {
                let path = format!("/containers/{id}/rename?name={name}");
                let engine = &engine;
                scope.spawn(move || engine.request("POST", &path, b""));
            }
        });
        let is = engine.request("GET", &format!("/containers/{id}/json"), b"").json()["Name"].clone();
        for name in &names {
            let status = engine.request("GET", &format!("/containers/{name}/json"), b"").status;
            let own = is.as_str() == Some(&format!("/{name}"));
            assert_eq!(status, if own { 200 } else { 404 }, "{name}, and it is called {is}");
        }
    }
    engine.finish();
}

#[test]
fn a_connect_that_its_guest_makes_fail_leaves_it_where_it_was() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "--subnet", &subnet(2), "front"]).stdout();
    engine.docker(["run", "-d", "--name", "guest", "busybox", "sleep", "1000"]).stdout();
    let inside = namespace_of(&engine, "guest");
    // All ports that the kernel would choose from are its own.
    let _held = netns::run_in_netns(&inside, || {
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50000").unwrap();
        UdpSocket::bind("0.0.0.0:50000").unwrap()
    });
    for _ in 0..3 {
        assert_ne!(engine.docker(["network", "connect", "front", "guest"]).code, 0);
    }
    let networks = ["inspect", "-f", "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}", "guest"];
    assert_eq!(engine.docker(networks).stdout().trim(), "bridge");
    let links = netns::run_in_netns(&inside, || route::links(&mut Socket::open(Subsystem::Route).unwrap()).unwrap());
    let names: Vec<String> = links.unwrap().into_iter().map(|link| link.name).collect();
    assert!(!names.contains(&"eth1".to_owned()), "{names:?}");
    let [a, b, c, d] = subnet(2).split('/').next().unwrap().parse::<Ipv4Addr>().unwrap().octets();
    let first = Ipv4Addr::new(a, b, c, d + 2).to_string();
    engine.docker(["run", "--rm", "--network", "front", "--ip", &first, "busybox", "true"]).stdout();
    engine.docker(["network", "rm", "front"]).stdout();
    engine.finish();
}

#[test]
fn a_container_without_a_network_is_put_on_one_after_a_restart_of_the_engine() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "front"]).stdout();
    engine.docker(["run", "-d", "--name", "bare", "--network", "front", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["network", "disconnect", "front", "bare"]).stdout();
    engine.crash();
    engine.come_back();
    engine.docker(["network", "connect", "front", "bare"]).stdout();
    let own = engine.docker(["exec", "bare", "ip", "address", "show", "eth0"]).stdout().to_owned();
    assert!(own.contains(&address_of(&engine, "bare").to_string()), "{own}");
    // Whoever shares its network is where it is, also when the file of its namespace is gone.
    let file =
        engine.exec_root().join("net/netns").join(engine.docker(["inspect", "-f", "{{.Id}}", "bare"]).stdout().trim());
    netns::remove(&file).unwrap();
    let joined = ["run", "--rm", "--network", "container:bare", "busybox", "ip", "address", "show", "eth0"];
    assert_eq!(engine.docker(joined).stdout(), own);
    engine.docker(["run", "-d", "--name", "hosts", "--network", "host", "busybox", "sleep", "1000"]).stdout();
    let joined = engine.docker(["run", "--rm", "--network", "container:hosts", "busybox", "true"]);
    assert!(joined.code != 0 && joined.stderr().contains("use --network host"), "{joined}");
    engine.finish();
}

/// What is remembered of another container is its ID, and a container may be called like any.
#[test]
fn a_container_that_is_called_by_anothers_id_is_not_taken_for_it() {
    let engine = Engine::start();
    engine.load("busybox");
    let id = engine.docker(["create", "--name", "first", "busybox", "sleep", "1000"]).stdout().trim().to_owned();
    engine.docker(["create", "--name", "second", "--network", "container:first", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["rm", "first"]).stdout();
    engine.docker(["create", "--name", &id, "--network", "container:second", "busybox", "sleep", "1000"]).stdout();
    for name in [&id, "second"] {
        engine.docker(["start", name]).fails(1, &format!("No such container: {id}"));
    }
    engine.docker(["ps"]).stdout();
    engine.docker(["rm", "-f", &id, "second"]).stdout();
    engine.finish();
}

/// While no engine runs, another account of the machine takes what only the engine had: a published port, or the port at which
/// members ask for names.
#[test]
fn ports_of_an_engine_that_is_away_are_its_own_again() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let port = free_port();
    let publish = format!("{port}:80");
    let serve = "while true; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nours' | nc -l -p 80; done";
    engine.docker(["run", "-d", "--name", "web", "-p", &publish, "busybox", "sh", "-c", serve]).stdout();
    let gateway = gateway_of(&engine, "web");
    engine.crash();
    let thief = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    engine.come_back();
    let at = SocketAddr::from((gateway, port));
    let say = || {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect_timeout(&at, Duration::from_secs(5)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        text.contains("ours").then_some(())
    };
    eventually("an answer of the workload", say);
    drop(thief);
    // The port is the engine's again in a while, on both families.
    eventually("that nobody else can have the port", || {
        let taken = |any: &str| std::net::TcpListener::bind((any, port)).is_err();
        (taken("0.0.0.0") && taken("::")).then_some(())
    });
    eventually("an answer of the workload", say);
    let sockets = std::fs::read_to_string("/proc/net/udp").unwrap();
    let gateway = format!("{:08X}:", u32::from_le_bytes(gateway.octets()));
    let asked: Vec<u16> = sockets
        .lines()
        .filter_map(|line| u16::from_str_radix(line.split_whitespace().nth(1)?.strip_prefix(&gateway)?, 16).ok())
        .collect();
    assert!(!asked.is_empty() && asked.iter().all(|port| *port < 1024), "{asked:?}");
    engine.docker(["rm", "-f", "web"]).stdout();
    engine.finish();
}
