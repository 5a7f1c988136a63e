use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Files, LoadOptions, load};

struct One<'a>(&'a str);

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
        (
            component("files = [\"a/*\"]\nexclude_files = [\"a/secret\"]"),
            "component.c.exclude_files: files are not left out",
        ),
        (
            component("alowed_outbound_hosts = []"),
            "is no key that a component has; did you mean allowed_outbound_hosts?",
        ),
        (component("files = [\"a/*.txt\"]"), "\"a/*.txt\" is not a whole folder"),
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
        (
            component("files = [{ source = \"a\", destination = \"/\" }, { source = \"b\", destination = \"/\" }]"),
            "two folders are to be seen at /",
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
