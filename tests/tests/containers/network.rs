//! Published ports and names.

use bireme_testing::{Engine, client, eventually, free_port};

#[test]
fn published_ports_answer_on_the_loopback_and_are_given_back() {
    let engine = Engine::start();
    engine.load("busybox");
    let port = free_port();
    let publish = format!("{port}:80");
    let serve = [
        "run",
        "-d",
        "--name",
        "web",
        "-p",
        publish.as_str(),
        "busybox",
        "sh",
        "-c",
        "mkdir /www; echo hello > /www/index.html; exec httpd -f -h /www",
    ];
    engine.docker(serve).stdout();
    let body = eventually("an answer on the published port", || {
        client::tcp(port, "GET", "/", "", b"").ok().filter(|a| a.status == 200)
    });
    assert_eq!(body.text(), "hello\n");
    assert!(engine.docker(["port", "web"]).stdout().contains(&format!("80/tcp -> 0.0.0.0:{port}")));
    let again = engine.docker(["run", "--rm", "-p", publish.as_str(), "busybox", "true"]);
    again.fails(125, "port is already allocated");
    engine.docker(["rm", "-f", "web"]).stdout();
    std::net::TcpListener::bind(("0.0.0.0", port)).expect("the port is free again");
    engine.finish();
}

#[test]
fn names_resolve_on_a_network_and_networks_are_apart() {
    let engine = Engine::start();
    engine.load("busybox");
    engine.docker(["network", "create", "front"]).stdout();
    engine.docker(["network", "create", "back"]).stdout();
    let serve = "mkdir /www; echo here > /www/index.html; exec httpd -f -h /www";
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "front",
            "--network-alias",
            "shop",
            "busybox",
            "sh",
            "-c",
            serve,
        ])
        .stdout();
    for name in ["web", "shop"] {
        let url = format!("http://{name}/");
        let fetch = || {
            let output =
                engine.docker(["run", "--rm", "--network", "front", "busybox", "wget", "-q", "-O", "-", url.as_str()]);
            (output.raw_stdout() == "here\n").then_some(())
        };
        eventually("an answer by name", fetch);
    }
    let address = engine
        .docker(["inspect", "-f", "{{.NetworkSettings.Networks.front.IPAddress}}", "web"])
        .stdout()
        .trim()
        .to_owned();
    let script = format!("nc -w 2 {address} 80 </dev/null && echo reached || echo apart");
    assert_eq!(
        engine.docker(["run", "--rm", "--network", "back", "busybox", "sh", "-c", script.as_str()]).raw_stdout(),
        "apart\n"
    );
    engine.docker(["network", "rm", "front"]).fails(1, "has active endpoints");
    engine.docker(["rm", "-f", "web"]).stdout();
    engine.docker(["network", "rm", "front", "back"]).stdout();
    engine.finish();
}

#[test]
fn a_range_of_ports_leaves_those_that_are_named() {
    let engine = Engine::start();
    engine.load("busybox");
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = std::iter::repeat_with(free_port).find(|first| is_free(first + 1)).unwrap();
    let (range, named) = (format!("127.0.0.1:{first}-{}:90", first + 1), format!("127.0.0.1:{first}:91"));
    engine.docker(["run", "-d", "--name", "ranged", "-p", &range, "-p", &named, "busybox", "sleep", "1000"]).stdout();
    assert_eq!(engine.docker(["port", "ranged", "91"]).stdout(), format!("127.0.0.1:{first}\n"));
    assert_eq!(engine.docker(["port", "ranged", "90"]).stdout(), format!("127.0.0.1:{}\n", first + 1));
    engine.docker(["rm", "-f", "ranged"]).stdout();
    engine.finish();
}
