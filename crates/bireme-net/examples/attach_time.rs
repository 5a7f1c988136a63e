//! How long one container's network takes to set up and to take down, step by step. Run as root.

use std::time::{Duration, Instant};

use bireme_core::SandboxId;
use bireme_core::spec::Protocol;
use bireme_net::{Driver, Endpoint, Forward, KernelNet, Net as _, NetOptions, NetworkId, NetworkSpec, Subnet};

const ROUNDS: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Nothing of this reaches the machine's own network.
    bireme_sys::netns::isolate_thread()?;
    let folder = std::env::temp_dir().join(format!("bireme-attach-{}", std::process::id()));
    let options = NetOptions { instance: "beefbeef".into(), run_dir: folder.clone(), upstream_dns: Some(vec![]) };
    let net = KernelNet::open(options).await?;
    let network = NetworkSpec {
        id: NetworkId::parse(&"a".repeat(64))?,
        name: "bench".into(),
        driver: Driver::Bridge,
        subnets: vec![Subnet { net: "10.1.0.0/16".parse()?, gateway: "10.1.0.1".parse()? }],
        internal: false,
        icc: true,
        mtu: None,
        bridge_name: None,
        masquerade: true,
    };
    net.ensure_network(&network).await?;
    let steps = ["sandbox", "attach", "publish", "unpublish", "detach", "remove sandbox"];
    let mut times: Vec<Vec<Duration>> = vec![vec![]; steps.len() + 2];
    for round in 0..ROUNDS {
        let endpoint = Endpoint {
            sandbox: SandboxId::parse(&format!("bench{round}"))?,
            network: network.id.clone(),
            addresses: vec!["10.1.0.2/16".parse()?],
            mac: None,
            default_route: true,
            routes: false,
            name: None,
            owner: "bench".into(),
        };
        let forward = Forward {
            owner: "bench".into(),
            protocol: Protocol::Tcp,
            host: "0.0.0.0:8080".parse()?,
            target: "10.1.0.2:80".parse()?,
            network: network.id.clone(),
        };
        let mut marks = vec![Instant::now()];
        net.ensure_sandbox(&endpoint.sandbox).await?;
        marks.push(Instant::now());
        net.attach(&endpoint).await?;
        marks.push(Instant::now());
        net.publish(&forward).await?;
        marks.push(Instant::now());
        net.unpublish("bench").await?;
        marks.push(Instant::now());
        net.detach(&endpoint).await?;
        marks.push(Instant::now());
        net.remove_sandbox(&endpoint.sandbox).await?;
        marks.push(Instant::now());
        for step in 0..steps.len() {
            times[step].push(marks[step + 1] - marks[step]);
        }
        times[steps.len()].push(marks[3] - marks[0]);
        times[steps.len() + 1].push(marks[6] - marks[3]);
    }
    net.remove_network(&network.id).await?;
    let mut report = String::new();
    for (name, times) in steps.iter().chain(&["all set up", "all taken down"]).zip(&mut times) {
        times.sort();
        let (median, late) = (times[ROUNDS / 2], times[ROUNDS * 95 / 100]);
        report += &format!("{name:15} median {median:>10.1?}  95% below {late:>10.1?}\n");
    }
    std::io::Write::write_all(&mut std::io::stdout(), report.as_bytes())?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
