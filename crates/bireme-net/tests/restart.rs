//! The daemon is killed and started again.

mod common;

use bireme_net::Keep;
use common::*;

#[test]
fn what_is_wanted_is_adopted_and_the_rest_removed() {
    on_machine(|machine| async move {
        let net = machine.open("00000030").await;
        let (one, two) = (network(1), network(2));
        net.ensure_network(&one).await.unwrap();
        net.ensure_network(&two).await.unwrap();
        let (kept, left) = (endpoint("kept", &one, "10.1.0.2"), endpoint("left", &one, "10.1.0.3"));
        let web = place(&net, &kept).await;
        let attached = net.attach(&kept).await.unwrap();
        place(&net, &left).await;
        place(&net, &endpoint("far", &two, "10.2.0.2")).await;
        net.ensure_sandbox(&sandbox("alone")).await.unwrap();
        serve_tcp(&web, "0.0.0.0:80");
        let published = forward("kept", "0.0.0.0:8080", "10.1.0.2:80", &one);
        net.publish(&published).await.unwrap();
        net.publish(&forward("left", "0.0.0.0:8081", "10.1.0.3:80", &one)).await.unwrap();
        // As by SIGKILL: nothing is said to the kernel.
        drop(net);
        assert!(reach(None, "127.0.0.1:8080").is_ok(), "traffic goes on without a daemon");

        let net = machine.open("00000030").await;
        assert!(reach(None, "127.0.0.1:8080").is_ok(), "and while one starts");
        let gone = endpoint("gone", &one, "10.1.0.9");
        let keep = Keep {
            networks: vec![one.clone()],
            sandboxes: vec![sandbox("alone")],
            endpoints: vec![kept.clone(), gone.clone()],
            forwards: vec![published.clone()],
            ..Keep::default()
        };
        let report = net.sweep(keep).await.unwrap();
        assert_eq!((report.adopted.as_slice(), report.lost.as_slice()), (&[kept.clone()][..], &[gone][..]));
        assert!(report.refused.is_empty());
        // Two interfaces, a bridge, two namespaces.
        assert_eq!(report.removed.len(), 5, "{:?}", report.removed);
        assert_eq!(machine.links().len(), 4, "{:?}", machine.links());

        assert!(reach(Some(&machine.neighbour()), &format!("{HOST}:8080")).is_ok());
        assert!(std::net::TcpListener::bind("0.0.0.0:8080").is_err(), "held again");
        assert!(std::net::TcpListener::bind("0.0.0.0:8081").is_ok(), "free again");
        assert_eq!(net.attach(&kept).await.unwrap(), attached);
        assert_eq!(net.dns_servers(&kept.sandbox).len(), 1);
        // The second network can be made anew, and the adopted one be taken down.
        net.ensure_network(&two).await.unwrap();
        net.unpublish("kept").await.unwrap();
        net.detach(&kept).await.unwrap();
        net.remove_sandbox(&kept.sandbox).await.unwrap();
        net.remove_network(&one.id).await.unwrap();
        net.remove_network(&two.id).await.unwrap();
        assert_eq!(machine.links(), ["lo", "wire0"].map(String::from));
    });
}

#[test]
fn a_port_taken_meanwhile_is_reported_and_taken_once_it_is_free() {
    on_machine(|machine| async move {
        let net = machine.open("00000031").await;
        let one = network(1);
        net.ensure_network(&one).await.unwrap();
        let published = forward("web", "0.0.0.0:8080", "10.1.0.2:80", &one);
        net.publish(&published).await.unwrap();
        drop(net);
        // A task of its own may be at work for a moment longer.
        let mut stranger = std::net::TcpListener::bind("0.0.0.0:8080");
        for _ in 0..100 {
            if stranger.is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            stranger = std::net::TcpListener::bind("0.0.0.0:8080");
        }
        let stranger = stranger.unwrap();
        let net = machine.open("00000031").await;
        let keep = Keep { networks: vec![one], forwards: vec![published.clone()], ..Keep::default() };
        let report = net.sweep(keep).await.unwrap();
        assert_eq!((report.refused.len(), report.taken.len()), (0, 1));
        assert_eq!(report.taken[0].0, published);
        // Its rules are there, so it is the workload's all the same.
        assert_eq!(net.publish(&published).await.unwrap(), published.host);
        assert_eq!(net.retake_ports().await.unwrap(), 1);
        drop(stranger);
        assert_eq!(net.retake_ports().await.unwrap(), 0);
        std::net::TcpListener::bind("0.0.0.0:8080").unwrap_err();
        net.unpublish("web").await.unwrap();
        std::net::TcpListener::bind("0.0.0.0:8080").unwrap();
    });
}
