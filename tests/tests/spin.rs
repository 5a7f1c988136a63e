//! Apps of Spin by their manifests, unmodified, with Redis in a container.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use bireme_testing::{Engine, Output, binaries, client, eventually, free_port, guest, workspace};

/// A folder with a manifest and guests.
fn app(engine: &Engine, name: &str, manifest: &str, guests: &[&str]) -> PathBuf {
    let folder = engine.folder().join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("spin.toml"), manifest).unwrap();
    for name in guests {
        fs::copy(guest(name), folder.join(format!("{name}.wasm"))).unwrap();
    }
    folder
}

fn bireme(engine: &Engine, folder: &Path, port: u16, args: &[&str]) -> Output {
    let mut command = engine.command(binaries().join("bireme"), args);
    command.current_dir(folder).env("SPIN_HTTP_LISTEN_ADDR", format!("127.0.0.1:{port}"));
    engine.run(command)
}

fn get(port: u16, path: &str) -> (u16, String) {
    let answer = client::tcp(port, "GET", path, "", b"").unwrap();
    (answer.status, answer.text())
}

/// A Redis server in a container, which this machine reaches as `localhost`.
fn redis(engine: &Engine) -> u16 {
    engine.load("redis");
    let port = free_port();
    let publish = format!("127.0.0.1:{port}:6379");
    engine
        .docker([
            "run",
            "-d",
            "--name",
            "redis",
            "-p",
            &publish,
            "redis",
            "redis-server",
            "--protected-mode",
            "no",
            "--save",
            "",
        ])
        .stdout();
    eventually("redis answers", || {
        let answer = engine.docker(["exec", "redis", "redis-cli", "ping"]);
        (answer.raw_stdout() == "PONG\n").then_some(())
    });
    port
}

/// As apps were written in 2022: an app that answers requests, and one that handles messages.
#[test]
fn apps_of_version_1_run_as_they_are() {
    let engine = Engine::start();
    let (port, redis) = (free_port(), redis(&engine));
    let web = r#"
spin_version = "1"
authors = ["Somebody <somebody@example.com>"]
description = "An app of 2022"
name = "web-of-2022"
trigger = { type = "http", base = "/" }
version = "0.1.0"

[[component]]
id = "files"
source = "command-p1.wasm"
files = [{ source = "site", destination = "/site" }]
[component.trigger]
route = "/unused"
executor = { type = "wagi" }

[[component]]
id = "asks"
source = "spin1.wasm"
environment = { COLOUR = "blue" }
files = [{ source = "site", destination = "/" }]
[component.trigger]
route = "/..."
[component.config]
shape = "round"

[[component]]
id = "prints"
source = "wagi-p1.wasm"
[component.trigger]
route = "/cgi/..."
executor = { type = "wagi", argv = "wagi show ${SCRIPT_NAME} ${ARGS}" }
"#;
    let folder = app(&engine, "web", web, &["spin1", "wagi-p1", "command-p1"]);
    fs::create_dir(folder.join("site")).unwrap();
    fs::write(folder.join("site/page.txt"), "a page").unwrap();
    bireme(&engine, &folder, port, &["up", "-f", "spin.toml", "-d"]).stdout();
    eventually("an answer", || client::tcp(port, "GET", "/status?200", "", b"").ok());

    assert_eq!(get(port, "/env?COLOUR"), (200, "blue".to_owned()));
    assert_eq!(get(port, "/config?shape"), (200, "round".to_owned()));
    assert_eq!(get(port, "/file?/page.txt"), (200, "a page".to_owned()));
    // What is a variable of the app is none of the environment.
    assert_eq!(get(port, "/env?SPIN_VARIABLE_SHAPE").0, 500);
    // Whom it may ask was no matter then, but for HTTP.
    let (status, said) = get(port, &format!("/redis?redis://localhost:{redis}"));
    assert!(status == 200 && said.starts_with("a value\n"), "{said} {}", engine.docker(["logs", "web-of-2022-asks-1"]));
    assert_eq!(get(port, "/http?http://127.0.0.1:9/").1, "error 1");
    let (status, said) = get(port, "/cgi/a?x=1");
    assert!(status == 200 && said.starts_with("[\"wagi\", \"show\", \"/cgi/a\", \"x=1\"]\n"), "{said}");
    assert!(said.contains("\nPATH_INFO=/a\n") && said.contains("\nSCRIPT_NAME=/cgi\n"), "{said}");

    let messages = format!(
        r#"
spin_manifest_version = "1"
name = "messages-of-2022"
version = "0.1.0"
trigger = {{ type = "redis", address = "redis://localhost:{redis}" }}
[[component]]
id = "keeps"
source = "inbound-redis1.wasm"
environment = {{ REDIS = "redis://localhost:{redis}" }}
[component.trigger]
channel = "messages"
"#
    );
    let other = app(&engine, "messages", &messages, &["inbound-redis1"]);
    bireme(&engine, &other, port, &["up", "-d"]).stdout();
    let cli = |words: &[&str]| {
        let all = [&["exec", "redis", "redis-cli"], words].concat();
        engine.docker(all).raw_stdout().to_owned()
    };
    eventually("a subscription", || (cli(&["publish", "messages", "hello"]) == "1\n").then_some(()));
    eventually("what it kept", || (cli(&["get", "inbound1:last"]) == "hello\n").then_some(()));

    // Each is an app of its own.
    bireme(&engine, &other, port, &["down", "-t", "0"]);
    assert_eq!(get(port, "/status?200").0, 200);
    bireme(&engine, &folder, port, &["down", "-t", "0"]);
    assert!(client::tcp(port, "GET", "/", "", b"").is_err(), "nobody listens any more");
    engine.docker(["rm", "-f", "redis"]);
    engine.finish();
}

#[test]
fn apps_of_version_2_run_beside_containers() {
    let engine = Engine::start();
    let (port, redis) = (free_port(), redis(&engine));
    let manifest = format!(
        r#"
spin_manifest_version = 2
[application]
name = "new-app"
version = "1.0.0"
[application.trigger.redis]
address = "redis://{{{{ server }}}}"
[variables]
server = {{ default = "localhost:{redis}" }}
secret = {{ required = true, secret = true }}
[[trigger.http]]
route = "/two/..."
component = "two"
[[trigger.http]]
route = "/one/:name"
component = "one"
[[trigger.redis]]
channel = "clicks"
component = "keeps"
[component.two]
source = "spin2.wasm"
allowed_outbound_hosts = ["redis://{{{{ server }}}}"]
key_value_stores = ["default"]
[component.two.variables]
colour = "dark {{{{ secret }}}}"
[component.one]
source = "hello.wasm"
[component.keeps]
source = "inbound-redis2.wasm"
allowed_outbound_hosts = ["redis://{{{{ server }}}}"]
environment = {{ REDIS = "redis://{{{{ server }}}}" }}
"#
    );
    let folder = app(&engine, "new", &manifest, &["spin2", "hello", "inbound-redis2"]);
    bireme(&engine, &folder, port, &["up", "-f", "spin.toml", "-d"])
        .fails(1, "variable SPIN_VARIABLE_SECRET is required");
    fs::write(folder.join(".env"), "SPIN_VARIABLE_SECRET=blue\n").unwrap();
    bireme(&engine, &folder, port, &["up", "-f", "spin.toml", "-d"]).stdout();
    eventually("an answer", || client::tcp(port, "GET", "/one/x", "", b"").ok().filter(|answer| answer.status == 200));
    assert_eq!(get(port, "/elsewhere").0, 404);
    assert_eq!(get(port, "/two/count").0, 200);

    // A component that changed is another image: the same command again makes it anew, and nothing else.
    let of_app = ["ps", "-q", "--filter", "label=com.docker.compose.project=new-app"];
    let ids = || engine.docker(of_app).stdout().lines().map(str::to_owned).collect::<Vec<_>>();
    let before = ids();
    bireme(&engine, &folder, port, &["up", "-f", "spin.toml", "-d"]).stdout();
    assert_eq!(ids().len(), 3);
    assert!(ids().iter().all(|id| before.contains(id)), "nothing changed");
    fs::copy(guest("hello3"), folder.join("hello.wasm")).unwrap();
    bireme(&engine, &folder, port, &["up", "-f", "spin.toml", "-d"]).stdout();
    assert_eq!(ids().iter().filter(|id| before.contains(id)).count(), 2);
    eventually("the new one", || {
        client::tcp(port, "GET", "/one/x", "", b"").ok().filter(|answer| answer.status == 200)
    });

    // Containers beside it, in one project.
    let compose = "services:\n  beside: {image: redis, command: [redis-server, --save, '']}\n";
    fs::write(folder.join("compose.yaml"), compose).unwrap();
    bireme(&engine, &folder, port, &["-f", "spin.toml", "-f", "compose.yaml", "up", "-d"]).stdout();
    assert_eq!(
        bireme(&engine, &folder, port, &["-f", "spin.toml", "-f", "compose.yaml", "ps", "-q"]).stdout().lines().count(),
        4
    );
    bireme(&engine, &folder, port, &["-f", "spin.toml", "-f", "compose.yaml", "down", "-t", "0"]);
    engine.docker(["rm", "-f", "redis"]);
    engine.finish();
}

#[test]
fn a_component_beside_a_compose_file_is_an_image() {
    let engine = Engine::start();
    let folder = app(&engine, "beside", "", &["hello"]);
    fs::remove_file(folder.join("spin.toml")).unwrap();
    let port = free_port();
    let file = format!("services:\n  web: {{image: ./hello.wasm, ports: ['127.0.0.1:{port}:80']}}\n");
    fs::write(folder.join("compose.yaml"), &file).unwrap();
    bireme(&engine, &folder, port, &["up", "-d"]).stdout();
    eventually("an answer", || client::tcp(port, "GET", "/", "", b"").ok().filter(|answer| answer.status == 200));
    fs::remove_file(folder.join("hello.wasm")).unwrap();
    assert_eq!(bireme(&engine, &folder, port, &["ps", "-q"]).stdout().lines().count(), 1);
    bireme(&engine, &folder, port, &["up", "-d"]).fails(1, "hello.wasm: No such file or directory");
    bireme(&engine, &folder, port, &["down", "-t", "0"]);
    fs::write(folder.join("compose.yaml"), file.replace("image:", "build: ., image:")).unwrap();
    bireme(&engine, &folder, port, &["up", "-d"]).fails(1, "is a file, and there is a build, too");
    engine.finish();
}

#[test]
fn components_of_an_app_ask_each_other_by_name() {
    let engine = Engine::start();
    let port = free_port();
    let manifest = r#"
spin_manifest_version = 2
[application]
name = "chain"
[[trigger.http]]
route = "/..."
component = "front"
[[trigger.http]]
route = { private = true }
component = "hidden"
[[trigger.http]]
route = "/public"
component = "public"
[component.front]
source = "spin1.wasm"
allowed_outbound_hosts = ["http://*.spin.internal", "http://self"]
[component.hidden]
source = "spin1.wasm"
[component.public]
source = "hello.wasm"
"#;
    let folder = app(&engine, "chain", manifest, &["spin1", "hello"]);
    bireme(&engine, &folder, port, &["up", "-d"]).stdout();
    eventually("an answer", || {
        client::tcp(port, "GET", "/status?200", "", b"").ok().filter(|answer| answer.status == 200)
    });
    let asked = |url: &str| get(port, &format!("/http?{url}"));
    let (status, said) = asked("http://hidden.spin.internal/echo?x=y");
    assert!(status == 200 && said.starts_with("(200, "), "{said}");
    for part in
        ["1 /echo?x=y", "host: hidden.spin.internal", "spin-path-info: /echo", "spin-matched-route: /...", "sent"]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert!(asked("http://public.spin.internal/anything").1.starts_with("(200, "));
    assert_eq!(asked("http://nobody.spin.internal/").1, "error 4");
    // By the routes of the app.
    assert!(asked("http://self.alt/public").1.starts_with("(200, "));
    assert!(asked("http://self.alt/status?418").1.starts_with("(418, "));
    assert_eq!(asked("http://elsewhere.example/").1, "error 1");
    // One that stopped is not found.
    engine.docker(["stop", "chain-hidden-1"]).stdout();
    assert_eq!(asked("http://hidden.spin.internal/echo").1, "error 4");
    engine.docker(["start", "chain-hidden-1"]).stdout();
    assert!(asked("http://hidden.spin.internal/echo").1.starts_with("(200, "));
    bireme(&engine, &folder, port, &["down", "-t", "0"]);
    engine.finish();
}

#[test]
fn a_component_sees_the_files_that_its_manifest_names_and_no_others() {
    let engine = Engine::start();
    let port = free_port();
    let manifest = r#"
spin_manifest_version = 2
application = { name = "files" }
[[trigger.http]]
route = "/..."
component = "reads"
[component.reads]
source = "../outside/spin1.wasm"
files = ["assets/**/*.txt", "*.css", "one.json", { source = "data/of.json", destination = "conf/two.json" }, { source = "site", destination = "/" }]
exclude_files = ["assets/*secret.txt", "site/private"]
"#;
    let folder = app(&engine, "files/app", manifest, &[]);
    let outside = engine.folder().join("files/outside");
    fs::create_dir(&outside).unwrap();
    fs::copy(guest("spin1"), outside.join("spin1.wasm")).unwrap();
    for path in [
        "assets/a.txt",
        "assets/deep/er/b.txt",
        "assets/deep/c.secret.txt",
        "assets/picture.png",
        "a.css",
        "a.js",
        "one.json",
        "data/of.json",
        "data/other.json",
        "site/index.html",
        "site/private/key",
    ] {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, path.file_name().unwrap().to_str().unwrap()).unwrap();
        // As files are whose owner lets nobody else read them.
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    bireme(&engine, &folder, port, &["up", "-d"]).stdout();
    eventually("an answer", || client::tcp(port, "GET", "/status?200", "", b"").ok());
    let read = |path: &str| get(port, &format!("/file?{path}"));
    for (path, content) in [
        ("/assets/a.txt", "a.txt"),
        ("/assets/deep/er/b.txt", "b.txt"),
        ("/a.css", "a.css"),
        ("/one.json", "one.json"),
        ("/conf/two.json", "of.json"),
        ("/index.html", "index.html"),
    ] {
        assert_eq!(read(path), (200, content.to_owned()), "{path}");
    }
    for path in [
        "/assets/picture.png",
        "/assets/deep/c.secret.txt",
        "/a.js",
        "/data/other.json",
        "/conf/of.json",
        "/private/key",
        "/assets/../../../../../etc/passwd",
    ] {
        assert_ne!(read(path).0, 200, "{path}");
    }
    // What changed is seen by the next `up`.
    fs::write(folder.join("one.json"), "another").unwrap();
    bireme(&engine, &folder, port, &["up", "-d"]).stdout();
    eventually("the new file", || (read("/one.json").1 == "another").then_some(()));
    bireme(&engine, &folder, port, &["down", "-t", "0"]);
    engine.finish();
}

#[test]
fn an_app_is_a_service_of_a_compose_file_beside_containers() {
    let engine = Engine::start();
    engine.load("redis");
    engine.load("busybox");
    let port = free_port();
    let manifest = r#"
spin_manifest_version = 2
application = { name = "shop" }
variables = { server = { required = true } }
[[trigger.http]]
route = "/..."
component = "front"
[[trigger.http]]
route = { private = true }
component = "prices"
[[trigger.redis]]
address = "redis://{{ server }}:6379"
channel = "orders"
component = "orders"
[component.front]
source = "spin1.wasm"
allowed_outbound_hosts = ["redis://{{ server }}:6379", "http://prices.spin.internal"]
[component.prices]
source = "hello.wasm"
[component.orders]
source = "inbound-redis2.wasm"
allowed_outbound_hosts = ["redis://{{ server }}:6379"]
environment = { REDIS = "redis://{{ server }}:6379" }
"#;
    let shop = app(&engine, "project/shop", manifest, &["spin1", "hello", "inbound-redis2"]);
    let folder = shop.parent().unwrap();
    let compose = format!(
        r#"
services:
  shop:
    image: ./shop/spin.toml
    ports: ["127.0.0.1:{port}:80"]
    environment: {{ SPIN_VARIABLE_SERVER: store }}
    depends_on: [store]
  store:
    image: redis
    command: [redis-server, --save, "", --protected-mode, "no"]
  beside:
    image: busybox
    command: [sleep, infinity]
    depends_on: [shop]
"#
    );
    fs::write(folder.join("compose.yaml"), compose).unwrap();
    // Docker's Compose reads the same file.
    let plugin = workspace().join("target/setup/docker/cli-plugins/docker-compose");
    let mut real = engine.command(plugin, ["config", "--images"]);
    real.current_dir(folder);
    assert!(engine.run(real).stdout().contains("./shop/spin.toml"));
    bireme(&engine, folder, port, &["up", "-d"]).stdout();
    eventually("an answer", || client::tcp(port, "GET", "/status?200", "", b"").ok());
    let names = bireme(&engine, folder, port, &["ps", "--format", "{{.Names}}"]);
    let mut names: Vec<&str> = names.stdout().lines().collect();
    names.sort_unstable();
    let services = ["beside", "front", "orders", "prices", "store"];
    assert_eq!(names, services.map(|service| format!("project-{service}-1")));
    // From the component to the container, to its neighbour, and from the container to the app by the service's name.
    let (status, said) = get(port, "/redis?redis://store:6379");
    assert!(status == 200 && said.starts_with("a value\n"), "{said}");
    assert!(get(port, "/http?http://prices.spin.internal/").1.starts_with("(200, "));
    let answer = engine.docker(["exec", "project-beside-1", "wget", "-qO-", "http://shop/echo"]);
    assert!(answer.stdout().contains("/echo"), "{answer}");
    let cli = |words: &[&str]| {
        let all = [&["exec", "project-store-1", "redis-cli"], words].concat();
        engine.docker(all).raw_stdout().to_owned()
    };
    eventually("a subscription", || (cli(&["publish", "orders", "hello"]) == "1\n").then_some(()));
    bireme(&engine, folder, port, &["down", "-t", "0"]);
    engine.finish();
}
