use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Files, LoadOptions, load};

struct One<'a>(&'a str);

/// Files by their paths.
struct Several<'a>(&'a [(&'a str, &'a str)]);

impl Files for Several<'_> {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        let found = self.0.iter().find(|(name, _)| Path::new(name) == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    fn exists(&self, path: &Path) -> bool {
        self.read(path).is_ok()
    }
}

impl Files for One<'_> {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        match path.to_str() {
            Some("/app/spin.toml") => Ok(self.0.as_bytes().to_vec()),
            Some("/app/hello.wasm") => Ok(b"\0asm".to_vec()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    }

    fn exists(&self, path: &Path) -> bool {
        path == Path::new("/app/spin.toml")
    }
}

fn loaded(manifest: &str, environment: &[(&str, &str)]) -> Result<crate::Project, String> {
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let options = LoadOptions {
        files: vec![PathBuf::from("spin.toml")],
        working_dir: PathBuf::from("/app"),
        environment,
        ..LoadOptions::default()
    };
    load(&options, &One(manifest)).map_err(|error| error.to_string())
}

fn yaml(manifest: &str, environment: &[(&str, &str)]) -> String {
    loaded(manifest, environment).unwrap().to_yaml()
}

const TWO: &str = r#"
spin_manifest_version = 2

[application]
name = "Two Apps"
version = "1.0.0"
[application.trigger.redis]
address = "redis://localhost:6379/0"

[variables]
colour = { default = "dark $blue" }
token = { required = true, secret = true }

[[trigger.http]]
route = "/hello/..."
component = "hello"

[[trigger.http]]
route = "/"
component = "hello"

[[trigger.redis]]
channel = "clicks-{{ colour }}"
component = "counts"

[component.hello]
source = "hello.wasm"
allowed_outbound_hosts = ["https://*.example.com", "redis://{{ token }}:7000..7002", "*://*:*", "tcp://10.1.0.0/16:5432"]
key_value_stores = ["default", "other"]
sqlite_databases = ["default"]
environment = { SHAPE = "a {{ colour }} circle", COUNT = 3 }
files = [{ source = "site", destination = "/" }, "assets/**/*"]
[component.hello.variables]
paint = "{{ colour }}/{{token}}"
[component.hello.build]
command = "cargo build"

[component.counts]
source = "target/counts.wasm"
"#;

const ONE: &str = r#"
spin_version = "1"
name = "one"
version = "0.1.0"
trigger = { type = "http", base = "/base/" }

[[component]]
id = "fetched"
source = { url = "https://example.com/x.wasm", digest = "sha256:aa" }
files = [{ source = "static", destination = "/" }]
[component.trigger]
route = "/static/..."
executor = { type = "wagi" }

[[component]]
id = "asks"
source = "hello.wasm"
allowed_http_hosts = ["example.com", "insecure:allow-all", "localhost:8080", "https://api.example.com/"]
[component.trigger]
route = "/asks"
executor = { type = "wagi", argv = "ruby /app/x.rb ${ARGS}" }
[component.config]
a_key = "a value"
"#;

#[test]
fn an_app_of_version_2_is_a_project() {
    insta::assert_snapshot!(yaml(
        TWO,
        &[("SPIN_VARIABLE_TOKEN", "redis.internal"), ("SPIN_HTTP_LISTEN_ADDR", "0.0.0.0:80")]
    ));
}

#[test]
fn an_app_of_version_1_is_a_project() {
    insta::assert_snapshot!(yaml(ONE, &[]));
}

const FILES: &str = r#"
spin_manifest_version = 2
application = { name = "files" }
trigger.http = [
    { route = "/one", component = "patterns" },
    { route = "/two", component = "folders" },
    { route = "/three", component = "fetched" },
    { route = "/four", component = "outside" },
]

[component.patterns]
source = "target/hello.wasm"
files = ["assets/**/*.png", "index.html", "*.css", "**/*.txt", { source = "data/one.json", destination = "conf/one.json" }]
exclude_files = ["assets/*.secret.png", "data/private"]

[component.folders]
source = "hello.wasm"
files = [{ source = "a", destination = "/" }, { source = "b", destination = "/" }]

[component.fetched]
source = { url = "https://example.com/x.wasm", digest = "sha256:aa" }
files = ["a/*"]
exclude_files = ["a/secret"]

[component.outside]
source = "../hello.wasm"
files = ["a.txt"]
"#;

#[test]
fn files_that_are_no_whole_folders_are_copied_into_an_image() {
    let project = loaded(FILES, &[]).unwrap();
    let builds = project.services.values().map(|service| {
        let build = service.build.as_ref().unwrap();
        let dockerfile = build.dockerfile_inline.as_deref().unwrap();
        format!("{}: {}\n{dockerfile}", service.name, build.context)
    });
    insta::assert_snapshot!(builds.collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let v2 = |rest: &str| format!("spin_manifest_version = 2\n[application]\nname = \"a\"\n{rest}");
    let component = |rest: &str| {
        v2(&format!(
            "[[trigger.http]]\nroute = \"/...\"\ncomponent = \"c\"\n[component.c]\nsource = \"c.wasm\"\n{rest}"
        ))
    };
    let cases = [
        ("a = ".to_owned(), "spin.toml:1: is no TOML: "),
        ("name = \"x\"".to_owned(), "spin_manifest_version: is missing"),
        (
            "spin_manifest_version = 3".to_owned(),
            "spin.toml:1: spin_manifest_version: is 3: manifests of versions 1 and 2",
        ),
        (
            v2("[[trigger.mqtt]]\ncomponent = \"c\""),
            "spin.toml:4: trigger.mqtt[0]: \"mqtt\" is no trigger that is offered",
        ),
        (v2("[[trigger.http]]\nroute = \"/\"\ncomponent = \"c\""), "\"c\" is no component of this manifest"),
        (component("ai_models = [\"x\"]"), "language models are not offered"),
        (component("files = [\"../a/*.txt\"]"), "component.c.files: \"../a\" is outside the folder"),
        (component("files = [\"a/$b.txt\"]"), "\"a/$b.txt\" has a character that paths"),
        (
            component("alowed_outbound_hosts = []"),
            "is no key that a component has; did you mean allowed_outbound_hosts?",
        ),
        (component("environment = { A = \"{{ b }}\" }"), "uses the variable \"b\", which [variables] does not have"),
        (component("environment = { A = \"{{ b\" }"), "has a {{ without its }}"),
        (
            component("environment = { A = \"{{ t }}\" }\n[variables]\nt = { required = true }"),
            "variable SPIN_VARIABLE_T is required",
        ),
        (component("allowed_outbound_hosts = [\"example.com\"]"), "is not scheme://host or scheme://host:port"),
        (component("allowed_outbound_hosts = [\"tcp://a:1..9000\"]"), "has more than 64 ports"),
        (
            v2(
                "[[trigger.http]]\nroute = \"/\"\ncomponent = \"c\"\ndependencies.middleware = [\"d\"]\n[component.c]\nsource = \"c.wasm\"",
            ),
            "trigger.http[0].dependencies: is not offered for triggers",
        ),
        (component("dependencies = { \"a:b\" = \"x.wasm\" }"), "dependencies are not composed here"),
    ];
    for (manifest, expected) in cases {
        let error = loaded(&manifest, &[]).unwrap_err();
        assert!(error.contains(expected), "{error}\n  instead of {expected}\n{manifest}");
    }
    for empty in [
        "sqlite_databases = []",
        "ai_models = []",
        "allowed_outbound_hosts = []",
        // As templates have it.
        "exclude_files = [\"**/node_modules\"]",
        "allowed_outbound_hosts = [\"no://no:0000\", \"wss://*:443\"]",
    ] {
        loaded(&component(empty), &[]).unwrap();
    }
}

const SHOP: &str = r#"
spin_manifest_version = 2
application = { name = "shop" }
variables = { where = { required = true } }
trigger.http = [
    { route = "/...", component = "front" },
    { route = { private = true }, component = "prices" },
]
[component.front]
source = "front.wasm"
allowed_outbound_hosts = ["redis://{{ where }}:6379", "http://prices.spin.internal"]
environment = { SHAPE = "$round" }
[component.prices]
source = "prices.wasm"
"#;

fn with_shop(compose: &str) -> Result<crate::Project, String> {
    let files = [("/project/compose.yaml", compose), ("/project/shop/spin.toml", SHOP)];
    let options = LoadOptions { working_dir: PathBuf::from("/project"), ..LoadOptions::default() };
    load(&options, &Several(&files)).map_err(|error| error.to_string())
}

#[test]
fn an_app_is_a_service_of_a_compose_file() {
    let compose = r#"
services:
  shop:
    image: ./shop/spin.toml
    ports: ["8080:80"]
    depends_on: [redis]
    mem_limit: 64m
    environment: { SPIN_VARIABLE_WHERE: redis, LANG: C }
  redis:
    image: redis
  proxy:
    image: proxy
    depends_on: { shop: { condition: service_started, restart: true } }
"#;
    insta::assert_snapshot!(with_shop(compose).unwrap().to_yaml());
}

#[test]
fn services_that_cannot_be_apps_are_refused() {
    let service = |rest: &str| format!("services:\n  shop:\n    image: ./shop/spin.toml\n{rest}");
    let variable = "    environment: [SPIN_VARIABLE_WHERE=redis]\n";
    for (compose, expected) in [
        (service(""), "variable SPIN_VARIABLE_WHERE is required"),
        (service(&format!("{variable}    build: .")), "services.shop.build: stands beside a manifest"),
        (service(&format!("{variable}    container_name: one")), "services.shop.container_name: is one name"),
        (service(&format!("{variable}  front:\n    image: other")), "has a component front, as which the service at"),
        (
            "services:\n  shop:\n    image: ./none/spin.toml".to_owned(),
            "names /project/none/spin.toml, which cannot be read",
        ),
    ] {
        let error = with_shop(&compose).unwrap_err();
        assert!(error.contains(expected), "{error}\n  instead of {expected}\n{compose}");
    }
}
