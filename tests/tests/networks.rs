//! Networks as Docker's users know them: addresses, names, ports, options.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Read as _;
use std::net::TcpStream;

use bireme_testing::{Engine, eventually, free_port};

const SERVE: &str = "while true; do echo hi | nc -l -p 80; done";

fn says_hi(address: &str, port: u16) -> bool {
    let mut text = String::new();
    let stream = TcpStream::connect((address, port));
    stream.is_ok_and(|mut stream| stream.read_to_string(&mut text).is_ok() && text == "hi\n")
}

#[test]
fn a_port_is_published_on_both_families() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let port = free_port();
    let publish = format!("{port}:80");
    engine.docker(["run", "-d", "--name", "web", "-p", &publish, "busybox", "sh", "-c", SERVE]).stdout();
    let both = format!("80/tcp -> 0.0.0.0:{port}\n80/tcp -> [::]:{port}\n");
    assert_eq!(engine.docker(["port", "web"]).stdout(), both);
    eventually("an answer over IPv4", || says_hi("127.0.0.1", port).then_some(()));
    eventually("an answer over IPv6", || says_hi("::1", port).then_some(()));
    engine.crash();
    engine.come_back();
    assert_eq!(engine.docker(["port", "web"]).stdout(), both);
    eventually("an answer over IPv4 again", || says_hi("127.0.0.1", port).then_some(()));
    eventually("an answer over IPv6 again", || says_hi("::1", port).then_some(()));
    engine.docker(["run", "--rm", "-p", &publish, "busybox", "true"]).fails(125, "port is already allocated");
    engine.docker(["rm", "-f", "web"]).stdout();
    std::net::TcpListener::bind(("::", port)).expect("the port was given back");
    // Any port, the same on both.
    engine.docker(["run", "-d", "--name", "any", "-p", "80", "busybox", "sleep", "1000"]).stdout();
    let ports = engine.docker(["port", "any"]).stdout().to_owned();
    let mut numbers: Vec<&str> = ports.lines().filter_map(|line| line.rsplit(':').next()).collect();
    assert_eq!(numbers.len(), 2, "{ports}");
    numbers.dedup();
    assert_eq!(numbers.len(), 1, "{ports}");
    engine.finish();
}

#[test]
fn a_network_speaks_ipv6() {
    let engine = Engine::start();
    engine.load("busybox");
    let create = ["network", "create", "--ipv6", "--subnet", "fd00:7a::/64", "--subnet", "10.122.0.0/24", "six"];
    engine.docker(create).stdout();
    let port = free_port();
    let publish = format!("{port}:80");
    engine
        .docker(["run", "-d", "--name", "web", "--network", "six", "-p", &publish, "busybox", "sh", "-c", SERVE])
        .stdout();
    let look = "ip -6 route | grep -q '^default via fd00:7a::1' && nslookup -type=aaaa web | grep -c fd00:7a::";
    assert_eq!(engine.docker(["run", "--rm", "--network", "six", "busybox", "sh", "-c", look]).stdout(), "1\n");
    let fixed = ["run", "--rm", "--network", "six", "--ip6", "fd00:7a::99", "busybox", "sh", "-c"];
    let shown = engine.docker(fixed.into_iter().chain(["ip -6 -o a show eth0 scope global"]));
    assert!(shown.stdout().contains("fd00:7a::99/64"), "{shown}");
    eventually("an answer over IPv6", || says_hi("::1", port).then_some(()));
    // Without a subnet it gets one of its own.
    engine.docker(["network", "create", "--ipv6", "own"]).stdout();
    let subnets = engine.docker(["network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}} {{end}}", "own"]);
    assert!(subnets.stdout().contains(" fd"), "{subnets}");
    let has = ["run", "--rm", "--network", "own", "busybox", "sh", "-c", "ip -6 a show eth0 | grep -c 'inet6 fd'"];
    assert_eq!(engine.docker(has).stdout(), "1\n");
    engine.finish();
}

#[test]
fn addresses_and_options_are_as_asked() {
    let engine = Engine::start();
    engine.load("busybox");
    let range = ["--subnet", "10.123.0.0/24", "--ip-range", "10.123.0.128/25", "--gateway", "10.123.0.254"];
    let create = ["network", "create"].into_iter().chain(range);
    engine.docker(create.chain(["--aux-address", "taken=10.123.0.128", "range"])).stdout();
    let look = "ip -4 -o a show eth0 | tr -s ' ' | cut -d' ' -f4; ip route | grep default";
    let shown = engine.docker(["run", "--rm", "--network", "range", "busybox", "sh", "-c", look]);
    assert_eq!(shown.stdout(), "10.123.0.129/24\ndefault via 10.123.0.254 dev eth0 \n");
    engine.docker(["network", "create", "--subnet", "10.123.0.0/25", "x"]).fails(1, "Pool overlaps with other one");
    engine.docker(["network", "create", "--subnet", "10.124.0.5/24", "x"]).fails(1, "it should be 10.124.0.0/24");
    let options = ["bridge.host_binding_ipv4=127.0.0.1", "driver.mtu=1400", "bridge.enable_icc=false"];
    let options = options.map(|option| format!("--opt=com.docker.network.{option}"));
    let create = ["network", "create"].into_iter().chain(options.iter().map(String::as_str));
    engine.docker(create.chain(["quiet"])).stdout();
    let port = free_port();
    let publish = format!("{port}:80");
    engine
        .docker(["run", "-d", "--name", "web", "--network", "quiet", "-p", &publish, "busybox", "sleep", "9"])
        .stdout();
    assert_eq!(engine.docker(["port", "web"]).stdout(), format!("80/tcp -> 127.0.0.1:{port}\n"));
    let look = "cat /sys/class/net/eth0/mtu; ping -c 1 -w 1 web >/dev/null || echo alone";
    let shown = engine.docker(["run", "--rm", "--network", "quiet", "busybox", "sh", "-c", look]);
    assert_eq!(shown.stdout(), "1400\nalone\n");
    engine.finish();
}

#[test]
fn names_follow_who_is_connected() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "--subnet", "10.125.0.0/24", "front"]).stdout();
    engine.docker(["run", "-d", "--name", "db", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["network", "connect", "--alias", "store", "--ip", "10.125.0.50", "front", "db"]).stdout();
    engine.docker(["network", "connect", "front", "db"]).fails(1, "endpoint with name db already exists");
    let look = "for n in db store store.front; do nslookup -type=a $n | grep -c 10.125.0.50; done; grep nameserver /etc/resolv.conf";
    let shown = engine.docker(["run", "--rm", "--network", "front", "busybox", "sh", "-c", look]);
    assert_eq!(shown.stdout(), "1\n1\n1\nnameserver 127.0.0.11\n");
    engine.docker(["network", "disconnect", "front", "db"]).stdout();
    engine.docker(["network", "disconnect", "front", "db"]).fails(1, "is not connected to network front");
    let look = "nslookup store 127.0.0.11 >/dev/null 2>&1 || echo gone";
    assert_eq!(engine.docker(["run", "--rm", "--network", "front", "busybox", "sh", "-c", look]).stdout(), "gone\n");
    engine.finish();
}

#[test]
fn the_dns_inside_outlives_the_daemon_and_leaves_port_53_alone() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "front"]).stdout();
    engine.docker(["run", "-d", "--name", "db", "--network", "front", "busybox", "sleep", "1000"]).stdout();
    // A workload may serve DNS itself: nothing of ours holds its port.
    let serve = "nc -l -p 53 & sleep 0.3; netstat -ltn | grep -c ':53 '; sleep 1000";
    engine.docker(["run", "-d", "--name", "web", "--network", "front", "busybox", "sh", "-c", serve]).stdout();
    eventually("it to hold its port", || (engine.docker(["logs", "web"]).stdout() == "1\n").then_some(()));
    let finds = |engine: &Engine| engine.docker(["exec", "web", "nslookup", "-type=a", "db", "127.0.0.11"]);
    let found = finds(&engine);
    assert!(found.stdout().contains("Name:\tdb"), "{found}");
    engine.crash();
    engine.come_back();
    eventually("names again", || finds(&engine).raw_stdout().contains("Name:\tdb").then_some(()));
    engine.finish();
}

#[test]
fn a_renamed_workload_is_found_by_its_new_name_at_once() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "front"]).stdout();
    for name in ["before", "client"] {
        engine
            .docker([
                "run",
                "-d",
                "--name",
                name,
                "--network",
                "front",
                "--network-alias",
                "db",
                "busybox",
                "sleep",
                "99",
            ])
            .stdout();
    }
    let address = engine.docker(["inspect", "-f", "{{.NetworkSettings.Networks.front.IPAddress}}", "before"]);
    let address = address.stdout().trim().to_owned();
    let finds = |name: &str| {
        let found = engine.docker(["exec", "client", "nslookup", "-type=a", name]);
        found.raw_stdout().lines().any(|line| line.starts_with("Address:") && line.ends_with(&address))
    };
    let called = || {
        let reverse = engine.docker(["exec", "client", "nslookup", &address]);
        reverse.raw_stdout().lines().find_map(|line| line.split("name = ").nth(1).map(str::to_owned))
    };
    assert!(finds("before") && finds("before.front") && finds("db"));
    assert_eq!(called().as_deref(), Some("before.front"));
    engine.docker(["rename", "before", "after"]).stdout();
    assert!(finds("after") && finds("after.front") && finds("db"));
    assert!(!finds("before") && !finds("before.front"), "the old name is nobody's");
    assert_eq!(called().as_deref(), Some("after.front"));
    let names = engine.docker(["inspect", "-f", "{{.NetworkSettings.Networks.front.DNSNames}}", "after"]);
    assert!(names.stdout().contains("after") && !names.stdout().contains("before"), "{names}");
    engine.finish();
}

#[test]
fn udp_is_published_on_both_families() {
    let mut engine = Engine::start();
    engine.load("busybox");
    let port = free_port();
    let publish = format!("{port}:90/udp");
    build_udp_echo(&engine);
    engine.docker(["run", "-d", "--name", "echo", "-p", &publish, "udp-echo", "90"]).stdout();
    let both = format!("90/udp -> 0.0.0.0:{port}\n90/udp -> [::]:{port}\n");
    assert_eq!(engine.docker(["port", "echo"]).stdout(), both);
    let answers = |on: &str| {
        let socket = std::net::UdpSocket::bind((on, 0)).unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(500))).unwrap();
        eventually(&format!("an echo from {on}"), || {
            socket.send_to(b"hello", (on, port)).ok()?;
            let mut buffer = [0; 16];
            let (length, from) = socket.recv_from(&mut buffer).ok()?;
            (&buffer[..length] == b"hello" && from.port() == port).then_some(())
        });
    };
    answers("127.0.0.1");
    answers("::1");
    engine.crash();
    answers("127.0.0.1");
    engine.come_back();
    assert_eq!(engine.docker(["port", "echo"]).stdout(), both);
    answers("127.0.0.1");
    answers("::1");
    engine.docker(["rm", "-f", "echo"]).stdout();
    std::net::UdpSocket::bind(("::", port)).expect("the port was given back");
    engine.finish();
}

/// Builds the image `udp-echo`, whose program sends each datagram back that comes in on the port it is given.
fn build_udp_echo(engine: &Engine) {
    const ECHO: &str = r#"
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>
int main(int count, char **arguments) {
    struct sockaddr_in own = { .sin_family = AF_INET, .sin_port = htons(atoi(arguments[1])) }, from;
    int in = socket(AF_INET, SOCK_DGRAM, 0);
    if (bind(in, (struct sockaddr *)&own, sizeof own)) return 1;
    for (;;) {
        char text[2048];
        socklen_t size = sizeof from;
        ssize_t length = recvfrom(in, text, sizeof text, 0, (struct sockaddr *)&from, &size);
        if (length >= 0) sendto(in, text, length, 0, (struct sockaddr *)&from, size);
    }
}
"#;
    let context = engine.folder().join("udp-echo");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("echo.c"), ECHO).unwrap();
    let mut cc = std::process::Command::new("cc");
    assert!(cc.args(["-static", "-o", "echo", "echo.c"]).current_dir(&context).status().unwrap().success());
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY echo /echo\nENTRYPOINT [\"/echo\"]\n").unwrap();
    engine.bireme(["build", "-q", "-t", "udp-echo", context.to_str().unwrap()]).stdout();
}

#[test]
fn one_port_is_not_published_twice() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.build_guest("hello", "hello");
    let port = free_port();
    let words = format!("Bind for 0.0.0.0:{port} failed: port is already allocated");
    let (one, two) = (format!("{port}:80"), format!("{port}:81"));
    for image in ["busybox", "hello"] {
        let run = engine.docker(["run", "--rm", "-p", &one, "-p", &two, image]);
        run.fails(125, &words);
        let body = format!(
            r#"{{"Image":"{image}","HostConfig":{{"PortBindings":{{"80/tcp":[{{"HostPort":"{port}"}},{{"HostPort":"{port}"}}]}}}}}}"#
        );
        let made = engine.request("POST", "/containers/create", body.as_bytes());
        let id = made.json()["Id"].as_str().unwrap().to_owned();
        let started = engine.request("POST", &format!("/containers/{id}/start"), b"");
        assert!(started.text().contains(&words), "{}", started.text());
        assert_eq!(started.status, 500, "as Docker's engine");
    }
    // Another address, another protocol, or a range with room for both is another port.
    let udp = format!("{port}:80/udp");
    let range = format!("{port}-{}:80", port + 1);
    engine.docker(["run", "--rm", "-p", &one, "-p", &udp, "busybox", "true"]).stdout();
    engine.docker(["run", "--rm", "-p", &range, "-p", &range, "busybox", "true"]).stdout();
    std::net::TcpListener::bind(("0.0.0.0", port)).expect("the port was given back");
    engine.finish();
}

#[test]
fn an_endpoint_has_the_hardware_and_link_local_addresses_asked_for() {
    let mut engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "front"]).stdout();
    engine.docker(["run", "-d", "--name", "peer", "--network", "front", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["run", "-d", "--name", "web", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["create", "--name", "later", "--network", "front", "busybox", "sleep", "1000"]).stdout();
    engine.docker(["network", "create", "back"]).stdout();
    let connect = |network: &str, container: &str, mac: &str, link_local: &str| {
        let body = format!(
            r#"{{"Container":"{container}","EndpointConfig":{{"MacAddress":"{mac}","IPAMConfig":{{"LinkLocalIPs":["{link_local}"]}}}}}}"#
        );
        engine.request("POST", &format!("/networks/{network}/connect"), body.as_bytes())
    };
    assert_eq!(connect("front", "web", "02:42:ac:aa:bb:cc", "10.0.0.1").status, 400);
    assert_eq!(connect("front", "web", "02:42:ac:aa:bb", "169.254.8.8").status, 400);
    assert_eq!(connect("front", "web", "02:42:ac:aa:bb:cc", "169.254.8.8").status, 200);
    assert_eq!(connect("back", "later", "02:42:ac:aa:bb:dd", "169.254.8.9").status, 200);
    let format = |network: &str| {
        format!(
            "{{{{with .NetworkSettings.Networks.{network}}}}}{{{{.MacAddress}}}} {{{{.IPAMConfig.LinkLocalIPs}}}}{{{{end}}}}"
        )
    };
    let shown = |engine: &Engine, network: &str, name: &str| {
        engine.docker(["inspect", "-f", &format(network), name]).stdout().trim().to_owned()
    };
    assert_eq!(shown(&engine, "front", "web"), "02:42:ac:aa:bb:cc [169.254.8.8]");
    assert_eq!(shown(&engine, "back", "later"), "02:42:ac:aa:bb:dd [169.254.8.9]");
    let look = "ip link show eth1 | grep -c 02:42:ac:aa:bb:cc; ip -4 -o a show eth1 | grep -c 169.254.8.8/16";
    assert_eq!(engine.docker(["exec", "web", "sh", "-c", look]).stdout(), "1\n1\n");
    engine.crash();
    engine.come_back();
    let ping = ["exec", "web", "ping", "-c", "1", "-W", "5", "peer"];
    assert!(engine.docker(ping).stdout().contains("1 packets received"));
    engine.finish();
}

#[test]
fn gateway_modes_that_are_not_offered_are_refused() {
    let engine = Engine::start();
    let option = |mode: &str| format!("com.docker.network.bridge.gateway_mode_ipv4={mode}");
    engine.docker(["network", "create", "-o", &option("nat"), "plain"]).stdout();
    let routed = engine.docker(["network", "create", "-o", &option("routed"), "x"]);
    routed.fails(1, "gateway mode routed is not offered");
    engine.docker(["network", "create", "-o", &option("sideways"), "x"]).fails(1, "unknown gateway mode sideways");
    engine.finish();
}
