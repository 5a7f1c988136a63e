//! Raw sockets, and HTTPS: permissions by name, and whom a component trusts.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use bireme_core::Names;
use bireme_core::spec::{Mount, MountSource, Propagation};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::common::{Deployed, Rig, program};

/// A component that knows `names`.
async fn with_names(rig: &Rig, guest: &str, allow: &str, names: Names) -> Deployed {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let spec = rig.spec(guest, &[("bireme.allow", allow)]);
    rig.run_in(spec, &program(guest), address, Some(socket), None, names).await.unwrap()
}

fn names(pairs: &[(&str, &str)]) -> Names {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    pairs.iter().map(|(name, ip)| ((*name).to_owned(), vec![address(ip)])).collect::<BTreeMap<_, _>>()
}

/// Accepts on `ip` for as long as the test runs.
fn accept_on(address: SocketAddr) -> SocketAddr {
    let server = TcpListener::bind(address).unwrap();
    let address = server.local_addr().unwrap();
    std::thread::spawn(move || server.incoming().for_each(drop));
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_permits_the_addresses_it_has_and_no_others() {
    let rig = Rig::new();
    let port = accept_on(([127, 0, 0, 11], 0).into()).port();
    accept_on(([127, 0, 0, 12], port).into());
    let second = accept_on(([127, 0, 0, 11], 0).into()).port();
    let known = names(&[("redis", "127.0.0.11"), ("other", "127.0.0.12")]);
    for guest in ["probe", "probe3"] {
        let allow = format!("tcp://redis:{port}");
        let probe = with_names(&rig, guest, &allow, known.clone()).await;
        let connect = |target: String| {
            let answer = probe.get(&format!("/connect?{target}"));
            (answer.status, answer.body)
        };
        let denied = |target: String| {
            let (status, said) = connect(target.clone());
            assert_eq!(status, 502, "{guest} reached {target}");
            let said = said.to_lowercase();
            assert!(["denied", "permi", "lookup", "not allowed"].iter().any(|word| said.contains(word)), "{said}");
        };
        denied(format!("127.0.0.11:{port}"));
        assert_eq!(connect(format!("redis:{port}")), (200, "connected".to_owned()), "{}", probe.log());
        assert_eq!(connect(format!("REDIS:{port}")).0, 200, "names have no case");
        denied(format!("127.0.0.12:{port}"));
        denied(format!("redis:{second}"));
        denied(format!("other:{port}"));
        probe.logged("looking up other is not permitted; add it to bireme.allow");
        // The address goes to another workload: the right goes with the name and not with the address.
        rig.names(&probe.spec, names(&[("redis", "127.0.0.12"), ("other", "127.0.0.11")])).await;
        assert_eq!(connect(format!("redis:{port}")).0, 200);
        denied(format!("127.0.0.11:{port}"));
        rig.names(&probe.spec, names(&[])).await;
        denied(format!("127.0.0.12:{port}"));
        assert_eq!(connect(format!("redis:{port}")).0, 502, "the name is gone");
        probe.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_allows_the_way_to_connect_that_its_scheme_names_and_no_other() {
    let rig = Rig::new();
    let port = accept_on(([127, 0, 0, 11], 0).into()).port();
    let known = names(&[("redis", "127.0.0.11")]);
    for (allow, permitted) in [
        ("tcp://redis:PORT", true),
        ("redis:PORT", true),
        ("*://redis:*", true),
        ("redis://redis:PORT", false),
        ("https://redis:PORT", false),
        ("http://redis:PORT", false),
        ("udp://redis:PORT", false),
    ] {
        for guest in ["probe", "probe3"] {
            let probe = with_names(&rig, guest, &allow.replace("PORT", &port.to_string()), known.clone()).await;
            let answer = probe.get(&format!("/connect?redis:{port}"));
            assert_eq!(answer.status, if permitted { 200 } else { 502 }, "{allow} {guest}");
            if !permitted {
                probe.logged(&format!("tcp://redis:{port} is not permitted; add it to bireme.allow"));
            }
            probe.workload.delete().await.unwrap();
        }
    }
    // Without any entry too the log says what is missing.
    let none = with_names(&rig, "probe", "", known).await;
    assert_eq!(none.get(&format!("/connect?127.0.0.11:{port}")).status, 502);
    none.logged(&format!("tcp://127.0.0.11:{port} is not permitted; add it to bireme.allow"));
    none.workload.delete().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_name_that_leads_to_a_private_address_is_refused() {
    let rig = Rig::new();
    let port = accept_on(([127, 0, 0, 1], 0).into()).port();
    // A name with a dot to us, and to the resolver of the C library the address 127.0.0.1: what DNS could answer too.
    let told = "127.1 leads to 127.0.0.1, an address of this machine or of a private network";
    for guest in ["probe", "probe3"] {
        let allow = format!("tcp://127.1:{port},http://127.1:{port}");
        let probe = with_names(&rig, guest, &allow, Names::new()).await;
        assert_eq!(probe.get(&format!("/connect?127.1:{port}")).status, 502, "{guest}: {}", probe.log());
        probe.logged(told);
        // Outgoing requests take the same way for both; our guest of 0.3 makes none.
        if guest == "probe" {
            assert_eq!(probe.get(&format!("/fetch?http://127.1:{port}/")).status, 502, "{}", probe.log());
            probe.logged(&format!("outgoing request refused: {told}"));
        }
        probe.workload.delete().await.unwrap();
        let allow = format!("tcp://127.1:{port},tcp://127.0.0.0/8");
        let probe = with_names(&rig, guest, &allow, Names::new()).await;
        assert_eq!(probe.get(&format!("/connect?127.1:{port}")).status, 200, "{guest}: {}", probe.log());
        probe.workload.delete().await.unwrap();
        // A name that says it is this machine's.
        let probe = with_names(&rig, guest, &format!("tcp://localhost:{port}"), Names::new()).await;
        assert_eq!(probe.get(&format!("/connect?localhost:{port}")).status, 200, "{guest}: {}", probe.log());
        probe.workload.delete().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_go_where_a_name_permits() {
    let rig = Rig::new();
    let echo = |ip: [u8; 4], port: u16| {
        let socket = UdpSocket::bind(SocketAddr::from((ip, port))).unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], peer);
            }
        });
        address.port()
    };
    let port = echo([127, 0, 0, 11], 0);
    echo([127, 0, 0, 12], port);
    let known = names(&[("time", "127.0.0.11"), ("other", "127.0.0.12")]);
    for guest in ["probe", "probe3"] {
        let probe = with_names(&rig, guest, &format!("udp://time:{port}"), known.clone()).await;
        let udp = |target: &str| {
            let answer = probe.get(&format!("/udp?{target}:{port}"));
            (answer.status, answer.body)
        };
        assert_eq!(udp("127.0.0.11").0, 502, "{guest}");
        assert_eq!(udp("time"), (200, "ping".to_owned()), "{guest}: {}", probe.log());
        for target in ["127.0.0.12", "other"] {
            assert_eq!(udp(target).0, 502, "{guest} reached {target}");
        }
        assert_eq!(probe.get(&format!("/connect?time:{port}")).status, 502, "UDP is not TCP");
        probe.workload.delete().await.unwrap();
        let probe = with_names(&rig, guest, &format!("tcp://time:{port}"), known.clone()).await;
        assert_eq!(probe.get(&format!("/udp?time:{port}")).status, 502, "TCP is not UDP");
        probe.workload.delete().await.unwrap();
    }
    let probe = with_names(&rig, "probe", "*://*:*", known).await;
    assert_eq!(probe.get("/listen?127.0.0.1:0").status, 502, "listening is what ports are for");
    probe.workload.delete().await.unwrap();
}

/// A certificate authority, and a server's certificate by it for `localhost`, in `folder`.
fn authority(folder: &Path) {
    let openssl = |arguments: &str| {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
        assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=Private"));
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=localhost"));
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names");
}

/// Answers every HTTPS request with `private`.
fn https(folder: &Path) -> u16 {
    let chain = CertificateDer::pem_file_iter(folder.join("server.pem")).unwrap().collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let config = Arc::new(ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap());
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            // A client that does not trust us ends here.
            if stream.read(&mut [0; 4096]).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nprivate");
                let _ = stream.flush();
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_when_the_component_is_given_it() {
    let rig = Rig::new();
    let folder = rig.dir.path().join("tls");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    authority(&folder);
    std::fs::write(folder.join("empty.pem"), "nothing\n").unwrap();
    std::os::unix::fs::symlink("/etc/ssl/certs/ca-certificates.crt", folder.join("outside.pem")).unwrap();
    std::fs::copy(folder.join("ca.pem"), folder.join("sub/ca.pem")).unwrap();
    let port = https(&folder);
    let known = names(&[("localhost", "127.0.0.1"), ("elsewhere", "127.0.0.1")]);
    let run = async |file: &str, mounted: bool| {
        let allow = format!("https://localhost:{port},https://elsewhere:{port}");
        let mut spec = rig.spec("secure", &[("bireme.allow", &allow)]);
        if !file.is_empty() {
            spec.env = vec![format!("SSL_CERT_FILE={file}")];
        }
        if mounted {
            let source = MountSource::Bind { path: folder.clone(), propagation: Propagation::Private, recursive: true };
            spec.mounts = vec![Mount { source, target: "/certs".to_owned(), read_only: true }];
        }
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        rig.run_in(spec, &program("probe"), address, Some(socket), None, known.clone()).await
    };
    let fetch = |probe: &Deployed, host: &str| {
        let answer = probe.get(&format!("/fetch?https://{host}:{port}/"));
        (answer.status, answer.body)
    };
    for file in ["/certs/ca.pem", "/certs/sub/../ca.pem"] {
        let trusting = run(file, true).await.unwrap();
        assert_eq!(fetch(&trusting, "localhost"), (200, "private".to_owned()), "{}", trusting.log());
        let (status, said) = fetch(&trusting, "elsewhere");
        assert!(status == 502 && said.contains("TlsCertificate"), "a certificate is one for a name: {said}");
        trusting.workload.delete().await.unwrap();
    }
    for (file, mounted) in [("", true), ("/etc/ssl/ca.pem", true), ("/certs/ca.pem", false)] {
        let plain = run(file, mounted).await.unwrap();
        let (status, said) = fetch(&plain, "localhost");
        assert!(status == 502 && said.contains("TlsCertificate"), "{said}");
        if !file.is_empty() {
            // Images of both kinds set it to what only a container's file tree holds.
            plain.logged(&format!("SSL_CERT_FILE={file} is in no folder that is mounted"));
        }
        plain.workload.delete().await.unwrap();
    }
    for file in ["/certs/absent.pem", "/certs/empty.pem", "/certs/outside.pem", "/certs/sub"] {
        let refused = run(file, true).await.err().unwrap();
        assert!(refused.message().contains(&format!("SSL_CERT_FILE={file}")), "{refused}");
    }
}
