//! A machine of its own for every test: a thread in fresh network and mount namespaces, with a neighbour on a wire.
//!
//! The kernel clears everything away when the thread ends, however it ends.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "all of it is test")]

pub(crate) mod wire;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bireme_core::SandboxId;
pub(crate) use bireme_net::Net;
use bireme_net::{Driver, Endpoint, KernelNet, NetOptions, NetworkId, NetworkSpec, Subnet};
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::nft::{Batch, Family, tables};
use bireme_sys::{netns, route};

pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// Long enough for a packet that is let through, which takes a hundredth of it.
pub(crate) const REFUSED_AFTER: Duration = Duration::from_millis(400);
/// The machine's own address, and the neighbour's.
pub(crate) const HOST: &str = "203.0.113.1";
pub(crate) const NEIGHBOUR: &str = "203.0.113.2";

pub(crate) struct Machine {
    folder: tempfile::TempDir,
}

/// Runs `test` on a machine of its own, on one runtime.
pub(crate) fn on_machine<F: Future<Output = ()>>(test: impl FnOnce(Machine) -> F + Send + 'static) {
    let run = move || {
        netns::isolate_thread().unwrap();
        let machine = Machine { folder: tempfile::tempdir().unwrap() };
        machine.wire();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test(machine));
    };
    let thread = std::thread::Builder::new().name("machine".into()).spawn(run).unwrap();
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Machine {
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub(crate) fn neighbour(&self) -> PathBuf {
        self.folder.path().join("neighbour")
    }

    /// `lo` up, and `wire0` to a neighbour that knows no way but this machine.
    fn wire(&self) {
        let mut socket = Socket::open(Subsystem::Route).unwrap();
        socket.request(&[route::raise(1)]).unwrap();
        netns::create(&self.neighbour(), || Ok(())).unwrap();
        let namespace = File::open(self.neighbour()).unwrap();
        let veth = route::Veth {
            name: "wire0",
            peer_name: "wire1",
            peer_mac: [2, 0, 0, 0, 0, 2],
            peer_namespace: namespace.as_fd(),
            mtu: 1500,
        };
        socket.request(&[route::add_veth(&veth)]).unwrap();
        let give = |socket: &mut Socket, name: &str, address: &str| {
            let index = route::link(socket, name).unwrap().unwrap().index;
            let address = (address.parse().unwrap(), 24);
            socket.request(&[route::raise(index), route::add_address(index, address)]).unwrap();
            index
        };
        give(&mut socket, "wire0", HOST);
        netns::run_in_netns(&self.neighbour(), || {
            let mut socket = Socket::open(Subsystem::Route).unwrap();
            let index = give(&mut socket, "wire1", NEIGHBOUR);
            socket.request(&[route::add_default_route(index, HOST.parse().unwrap())]).unwrap();
        })
        .unwrap();
    }

    pub(crate) async fn open(&self, instance: &str) -> KernelNet {
        self.open_with(instance, Some(vec![])).await
    }

    pub(crate) async fn open_with(&self, instance: &str, upstream_dns: Option<Vec<SocketAddr>>) -> KernelNet {
        let run_dir = self.run_dir().join(instance);
        KernelNet::open(NetOptions { instance: instance.into(), run_dir, upstream_dns }).await.unwrap()
    }

    /// As on a kernel on which everybody may remove our rules.
    pub(crate) async fn open_as_before_6_9(&self, instance: &str) -> KernelNet {
        let run_dir = self.run_dir().join(instance);
        let options = NetOptions { instance: instance.into(), run_dir, upstream_dns: Some(vec![]) };
        KernelNet::open_as_before_6_9(options).await.unwrap()
    }

    /// Names of all links of the machine.
    pub(crate) fn links(&self) -> Vec<String> {
        let links = route::links(&mut Socket::open(Subsystem::Route).unwrap()).unwrap();
        links.into_iter().map(|link| link.name).collect()
    }
}

/// Network number `number` is 10.`number`.0.0/24.
pub(crate) fn network(number: u8) -> NetworkSpec {
    NetworkSpec {
        id: NetworkId::parse(&format!("{number:064x}")).unwrap(),
        name: format!("net{number}"),
        driver: Driver::Bridge,
        subnets: vec![Subnet {
            net: format!("10.{number}.0.0/24").parse().unwrap(),
            gateway: format!("10.{number}.0.1").parse().unwrap(),
        }],
        internal: false,
        icc: true,
        mtu: None,
        bridge_name: None,
        masquerade: true,
    }
}

pub(crate) fn sandbox(name: &str) -> SandboxId {
    SandboxId::parse(name).unwrap()
}

/// Of `name`, which is sandbox and owner, at `address`.
pub(crate) fn endpoint(name: &str, network: &NetworkSpec, address: &str) -> Endpoint {
    Endpoint {
        sandbox: sandbox(name),
        network: network.id.clone(),
        addresses: vec![format!("{address}/24").parse().unwrap()],
        mac: None,
        default_route: true,
        routes: false,
        name: Some(format!("{name}.{}", network.name)),
        owner: name.into(),
    }
}

/// Makes the sandbox and attaches it; answers the namespace.
pub(crate) async fn place(net: &KernelNet, endpoint: &Endpoint) -> PathBuf {
    let path = net.ensure_sandbox(&endpoint.sandbox).await.unwrap();
    net.attach(endpoint).await.unwrap();
    path
}

/// Serves TCP connections inside `netns` for as long as the test: each gets the address it came from.
pub(crate) fn serve_tcp(netns: &Path, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = netns::run_in_netns(netns, || TcpListener::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let peer = stream.peer_addr().unwrap().ip().to_string();
            let _ = stream.write_all(peer.as_bytes());
        }
    });
}

pub(crate) fn serve_udp(netns: &Path, address: &str) {
    let address: SocketAddr = address.parse().unwrap();
    let socket = netns::run_in_netns(netns, || UdpSocket::bind(address)).unwrap().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
        }
    });
}

fn talk(address: SocketAddr, limit: Duration) -> io::Result<IpAddr> {
    let mut stream = TcpStream::connect_timeout(&address, limit)?;
    stream.set_read_timeout(Some(limit))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    text.parse().map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Connects from the machine itself, or from inside `netns`; answers as whom the server sees the client.
pub(crate) fn reach(netns: Option<&Path>, address: &str) -> io::Result<IpAddr> {
    let address = address.parse().unwrap();
    match netns {
        Some(netns) => netns::run_in_netns(netns, || talk(address, LIMIT))?,
        None => talk(address, LIMIT),
    }
}

/// That nothing answers at `address`.
pub(crate) fn cannot_reach(netns: Option<&Path>, address: &str) {
    let to = address.parse().unwrap();
    let answer = match netns {
        Some(netns) => netns::run_in_netns(netns, || talk(to, REFUSED_AFTER)).unwrap(),
        None => talk(to, REFUSED_AFTER),
    };
    assert!(answer.is_err(), "{address} answered {answer:?}");
}

pub(crate) fn reach_udp(netns: Option<&Path>, address: &str) -> io::Result<IpAddr> {
    let to: SocketAddr = address.parse().unwrap();
    let ask = || {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect(to)?;
        socket.send(b"hello")?;
        let mut buffer = [0; 64];
        let count = socket.recv(&mut buffer)?;
        String::from_utf8_lossy(&buffer[..count]).parse().map_err(|_| io::ErrorKind::InvalidData.into())
    };
    match netns {
        Some(netns) => netns::run_in_netns(netns, ask)?,
        None => ask(),
    }
}

/// Runs blocking work beside the runtime, whose tasks (the DNS) go on.
pub(crate) async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn forward(owner: &str, host: &str, target: &str, network: &NetworkSpec) -> bireme_net::Forward {
    bireme_net::Forward {
        owner: owner.into(),
        protocol: bireme_core::spec::Protocol::Tcp,
        host: host.parse().unwrap(),
        target: target.parse().unwrap(),
        network: network.id.clone(),
    }
}

/// Whether frames within a bridge pass the rules for routed packets, as Docker has it.
pub(crate) fn bridge_frames_filtered(on: bool) {
    let path = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    // Absent where the kernel cannot do it.
    if Path::new(path).exists() {
        std::fs::write(path, if on { "1" } else { "0" }).unwrap();
    }
}

/// All tables of the machine.
pub(crate) fn all_tables() -> Vec<(Family, String)> {
    let mut socket = Socket::open(Subsystem::Netfilter).unwrap();
    let of = |socket: &mut Socket, family| tables(socket, family).unwrap().into_iter().map(move |name| (family, name));
    let inet: Vec<_> = of(&mut socket, Family::Inet).collect();
    inet.into_iter().chain(of(&mut socket, Family::Bridge)).collect()
}

/// As `nft flush ruleset` does it: what belongs to another stays.
pub(crate) fn flush_ruleset() {
    let mut socket = Socket::open(Subsystem::Netfilter).unwrap();
    for (family, name) in all_tables() {
        let mut batch = Batch::new(&name);
        batch.on(family, &name).delete_table();
        let _ = batch.commit(&mut socket);
    }
}

/// Sends to `to` from one port again and again, as long as it lives; answers that port.
pub(crate) fn keep_sending(netns: &Path, to: &str) -> SocketAddr {
    let to: SocketAddr = to.parse().unwrap();
    let socket = netns::run_in_netns(netns, || UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let from = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let begin = Instant::now();
        while begin.elapsed() < LIMIT * 3 {
            let _ = socket.send_to(b"again", to);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    from
}

/// Whether anything comes to the UDP port within `limit`.
pub(crate) fn hears(socket: &UdpSocket, limit: Duration) -> bool {
    socket.set_read_timeout(Some(limit)).unwrap();
    socket.recv(&mut [0; 64]).is_ok()
}

pub(crate) fn udp_at(netns: &Path, address: &str) -> UdpSocket {
    netns::run_in_netns(netns, || UdpSocket::bind(address).unwrap()).unwrap()
}
