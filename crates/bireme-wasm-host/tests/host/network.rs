//! Components in a network namespace of their own: addresses, names, and calls that need no socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use bireme_core::{Executor as _, NetworkPlace, SandboxId};

use crate::common::{Rig, get, program};

/// A network namespace with nothing but a loopback that is down.
struct Namespace(String);

impl Namespace {
    fn new() -> Self {
        let name = format!("bwt-{}", std::process::id());
        let made = Self(name);
        made.ip(&["netns", "add", &made.0]);
        made
    }

    fn ip(&self, arguments: &[&str]) {
        assert!(Command::new("ip").args(arguments).status().unwrap().success(), "ip {arguments:?}");
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn components_have_addresses_and_call_each_other_without_a_socket() {
    let rig = Rig::new();
    let namespace = Namespace::new();
    let front_ip: IpAddr = "10.213.77.2".parse().unwrap();
    let back_ip: IpAddr = "10.213.77.3".parse().unwrap();
    let place = |ip| NetworkPlace {
        sandbox: SandboxId::parse("app-called").unwrap(),
        netns: namespace.path(),
        addresses: vec![ip],
        dns: vec!["10.213.77.1".parse().unwrap()],
    };
    let names = BTreeMap::from([("back".to_owned(), vec![back_ip])]);
    let spec = |name: &str, labels: &[(&str, &str)]| {
        let mut spec = rig.spec(name, labels);
        spec.app = Some("called".to_owned());
        spec
    };
    let publish = || {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        (socket.local_addr().unwrap(), Some(socket))
    };
    let (address, socket) = publish();
    let mut back = spec("back", &[("bireme.http.route", "/inner/...")]);
    back.env = vec!["REPLY=from the back".to_owned()];
    assert_eq!(rig.executor.sandbox(&back).as_str(), "app-called");
    let back =
        rig.run_in(back, &program("probe"), address, socket, Some(place(back_ip)), BTreeMap::new()).await.unwrap();
    let (address, socket) = publish();
    let front = spec("front", &[("bireme.allow", "http://back")]);
    let front =
        rig.run_in(front, &program("probe"), address, socket, Some(place(front_ip)), names.clone()).await.unwrap();
    let (address, socket) = publish();
    let newer_ip: IpAddr = "10.213.77.4".parse().unwrap();
    let newer = spec("newer", &[("bireme.allow", "http://back,http://newer"), ("bireme.http.route", "/newer/...")]);
    let names_of_newer = BTreeMap::from([("back".to_owned(), vec![back_ip]), ("newer".to_owned(), vec![newer_ip])]);
    let newer =
        rig.run_in(newer, &program("probe3"), address, socket, Some(place(newer_ip)), names_of_newer).await.unwrap();

    // The loopback is down: no packet can pass, so this went from component to component.
    for caller in [&front, &newer] {
        let within = if caller.address == newer.address { "/newer" } else { "" };
        let answer = caller.get(&format!("{within}/fetch?http://back/inner/x"));
        assert_eq!((answer.status, answer.body.as_str()), (200, "from the back"), "{answer:?}");
    }
    // And through an instance of the same component, of either generation.
    let answer = newer.get("/newer/fetch?http://newer/newer/fetch?http://back/inner/x");
    assert_eq!((answer.status, answer.body.as_str()), (200, "from the back"), "{answer:?}");
    assert_eq!(front.get("/fetch?http://back/outside").status, 404);
    assert_eq!(front.get("/fetch?http://front/").status, 502, "only what is permitted");
    rig.names(&front.spec, BTreeMap::new()).await;
    assert_eq!(front.get("/fetch?http://back/inner/x").status, 502, "the name is gone");

    namespace.ip(&["-n", &namespace.0, "link", "set", "lo", "up"]);
    namespace.ip(&["-n", &namespace.0, "address", "add", "10.213.77.3/32", "dev", "lo"]);
    let inside = std::thread::spawn({
        let path = namespace.path();
        move || {
            nix::sched::setns(std::fs::File::open(path).unwrap(), nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            get(SocketAddr::new(back_ip, 80), "/inner/x").body
        }
    });
    assert_eq!(inside.join().unwrap(), "from the back");
    front.workload.delete().await.unwrap();
    back.workload.delete().await.unwrap();
}
