//! One build makes both kinds under one tag, and a registry keeps them together.

use std::path::PathBuf;
use std::process::Command;

use bireme_testing::{Engine, Registry, eventually, free_port, guest};
use serde_json::Value;

use super::coming_in::compiled;
use super::{FROM_LINUX, FROM_WASM, answer};

/// The program is chosen where it is compiled, on this machine, as in `examples/visits`; all after that is alike. Busybox is
/// whatever its file is called.
const DOCKERFILE: &str = r#"
FROM --platform=$BUILDPLATFORM busybox AS build
ARG TARGETOS
ARG TARGETARCH
COPY hello.wasm /
RUN mkdir -p /out/www; \
    case "$TARGETOS/$TARGETARCH" in \
      wasi/wasm) cp /hello.wasm /out/httpd ;; \
      linux/*) cp /bin/busybox /out/httpd && echo from linux > /out/www/index.html ;; \
      *) exit 1 ;; \
    esac

FROM scratch
COPY --from=build /out /
EXPOSE 80
ENTRYPOINT ["/httpd", "-f", "-p", "80", "-h", "/www"]
"#;

const COMPONENT: &str = "wasi/wasm";

/// The platform of containers on this machine.
fn native() -> String {
    let machine = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{machine}")
}

/// A folder to build from.
fn context(engine: &Engine) -> PathBuf {
    engine.load("busybox");
    let folder = engine.folder().join("context");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("Dockerfile"), DOCKERFILE).unwrap();
    std::fs::copy(guest("hello"), folder.join("hello.wasm")).unwrap();
    folder
}

/// Builds the tag for both platforms; answers what the client printed meanwhile.
fn build_both(engine: &Engine, tag: &str, flags: &[&str]) -> String {
    let folder = context(engine);
    let platforms = format!("{},{COMPONENT}", native());
    let args = ["buildx", "build", "--progress=plain", "--platform", &platforms, "-t", tag, folder.to_str().unwrap()];
    let built = engine.run(engine.buildx([&args, flags].concat()));
    built.stdout();
    built.stderr().to_owned()
}

/// The ID and the platform of one image of the tag.
fn image(engine: &Engine, tag: &str, platform: &str) -> (String, String) {
    let inspected = engine.docker(["image", "inspect", "--platform", platform, tag]);
    let inspected: Value = serde_json::from_str(inspected.stdout()).unwrap();
    let text = |key: &str| inspected[0][key].as_str().unwrap_or_default().to_owned();
    (text("Id"), format!("{}/{}", text("Os"), text("Architecture")))
}

/// What answers when the tag is run so.
fn run(engine: &Engine, tag: &str, args: &[&str]) -> String {
    let port = free_port();
    let publish = format!("{port}:80");
    let all = ["run", "-d", "--name", "one", "--stop-signal", "KILL", "-p", publish.as_str()];
    engine.docker(all.iter().chain(args).chain(&[tag])).stdout();
    let text = eventually("an answer", || answer(port));
    engine.docker(["rm", "-f", "one"]).stdout();
    text
}

/// What a registry has under the name.
fn raw(tag: &str) -> Value {
    let output = Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false"])
        .arg(format!("docker://{tag}"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Media type and platforms of what a registry has under the name.
fn stored(tag: &str) -> (String, Vec<String>) {
    let index = raw(tag);
    let platforms = index["manifests"].as_array().into_iter().flatten().map(|manifest| {
        let word = |key: &str| manifest["platform"][key].as_str().unwrap_or_default();
        format!("{}/{}", word("os"), word("architecture"))
    });
    let mut platforms: Vec<String> = platforms.collect();
    platforms.sort();
    (index["mediaType"].as_str().unwrap_or_default().to_owned(), platforms)
}

#[test]
fn one_build_makes_a_container_and_a_component_of_one_tag() {
    let engine = Engine::start();
    let told = build_both(&engine, "both", &[]);
    assert!(told.contains(" compiling ") && compiled(&engine) == 1, "the component is compiled by then: {told}");
    let (linux, platform) = image(&engine, "both", &native());
    assert_eq!(platform, native());
    let (wasm, platform) = image(&engine, "both", COMPONENT);
    assert_eq!(platform, COMPONENT);
    assert_ne!(linux, wasm);
    for (args, expected) in [
        (&[][..], FROM_LINUX),
        (&["--label", "bireme.class=wasm"], FROM_WASM),
        (&["--label", "bireme.class=auto"], FROM_WASM),
        (&["--label", "bireme.class=linux"], FROM_LINUX),
        (&["--platform", COMPONENT], FROM_WASM),
    ] {
        assert_eq!(run(&engine, "both", args), expected, "{args:?}");
    }
    engine.finish();
}

#[test]
fn a_registry_keeps_both_kinds_of_one_tag_together() {
    let engine = Engine::start();
    let registry = Registry::start();
    let tag = format!("{}/both:1", registry.host());
    build_both(&engine, &tag, &[]);
    let before = (image(&engine, &tag, &native()), image(&engine, &tag, COMPONENT));
    engine.docker(["push", "-q", &tag]).stdout();
    let both = vec![native(), COMPONENT.to_owned()];
    let (kind, platforms) = stored(&tag);
    assert!(kind.ends_with("image.index.v1+json") || kind.ends_with("manifest.list.v2+json"), "{kind}");
    assert_eq!(platforms, both);

    // Another machine takes either of them, or both.
    let other = Engine::start();
    other.docker(["pull", "-q", "--platform", COMPONENT, &tag]).stdout();
    assert_eq!(image(&other, &tag, COMPONENT), before.1);
    other.docker(["image", "inspect", "--platform", &native(), &tag]).fails(1, "");
    assert_eq!(run(&other, &tag, &["--label", "bireme.class=wasm"]), FROM_WASM);
    other.docker(["pull", "-q", "--platform", &native(), &tag]).stdout();
    assert_eq!((image(&other, &tag, &native()), image(&other, &tag, COMPONENT)), before);
    assert_eq!(run(&other, &tag, &["--label", "bireme.class=wasm"]), FROM_WASM);
    assert_eq!(run(&other, &tag, &["--label", "bireme.class=linux"]), FROM_LINUX);
    other.finish();
    drop(registry);
    engine.finish();
}

#[test]
fn a_cache_in_a_registry_spares_another_machine_the_steps_of_both_kinds() {
    let engine = Engine::start();
    let registry = Registry::start();
    let name = |tag: &str| format!("{}/both:{tag}", registry.host());
    let (tag, cache) = (name("1"), name("cache"));
    let to = format!("--cache-to=type=registry,ref={cache},mode=max");
    let said = ["--annotation", "index:who=all", "--annotation", "manifest[wasi/wasm]:what=component", "--push"];
    let told = build_both(&engine, &tag, &[&[to.as_str()], &said[..]].concat());
    assert!(told.contains("exporting cache to registry"), "{told}");
    let index = raw(&tag);
    assert_eq!(index["annotations"]["who"], "all");
    let manifests = index["manifests"].as_array().unwrap().iter();
    let annotations: Vec<Value> = manifests
        .map(|entry| {
            raw(&format!("{}@{}", tag.trim_end_matches(":1"), entry["digest"].as_str().unwrap()))["annotations"].take()
        })
        .collect();
    assert_eq!(annotations, [Value::Null, serde_json::json!({ "what": "component" })]);

    let other = Engine::start();
    let from = format!("--cache-from=type=registry,ref={cache}");
    let told = build_both(&other, &tag, &[&from]);
    assert_eq!(told.matches(" CACHED").count(), 6, "{told}");
    for platform in [native(), COMPONENT.to_owned()] {
        // By its layers: its configuration has another time.
        let layers = |engine: &Engine| {
            let format = ["image", "inspect", "--platform", &platform, "-f", "{{.RootFS.Layers}}", &tag];
            engine.docker(format).stdout().to_owned()
        };
        assert_eq!(layers(&other), layers(&engine), "{platform}");
    }
    other.docker(["image", "inspect", &cache]).fails(1, "No such image");
    other.finish();
    drop(registry);
    engine.finish();
}

#[test]
fn the_classic_builder_tells_that_a_component_is_compiled_and_not_in_a_quiet_build() {
    let engine = Engine::start();
    let folder = engine.folder().join("hello");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(guest("hello"), folder.join("app.wasm")).unwrap();
    std::fs::write(folder.join("Dockerfile"), "FROM scratch\nCOPY app.wasm /\nENTRYPOINT [\"/app.wasm\"]\n").unwrap();
    let built = super::build(&engine, &folder, &["--platform", COMPONENT, "-t", "hello"]);
    assert!(built.stdout().contains("Compiled"), "{built}");
    assert_eq!(compiled(&engine), 1, "before anything is created");
    let bytes = std::fs::read(guest("command")).unwrap();
    std::fs::write(folder.join("app.wasm"), bytes).unwrap();
    let quiet = super::build(&engine, &folder, &["-q", "--platform", COMPONENT, "-t", "command"]);
    let id = quiet.stdout().trim();
    assert!(id.starts_with("sha256:") && id.lines().count() == 1, "{quiet}");
    assert_eq!(compiled(&engine), 2, "as well");
    engine.finish();
}

#[test]
fn our_command_line_builds_both_kinds_at_once() {
    let engine = Engine::start();
    let folder = context(&engine);
    let platforms = format!("{COMPONENT},{}", native());
    let built = engine.bireme(["build", "-q", "--platform", &platforms, "-t", "both", folder.to_str().unwrap()]);
    built.stdout();
    assert_eq!(compiled(&engine), 1, "before anything is created");
    assert_ne!(image(&engine, "both", &native()).0, image(&engine, "both", COMPONENT).0);
    assert_eq!(run(&engine, "both", &[]), FROM_LINUX);
    assert_eq!(run(&engine, "both", &["--label", "bireme.class=wasm"]), FROM_WASM);
    let told = engine.bireme(["build", "--platform", &platforms, folder.to_str().unwrap()]);
    let told = format!("{}{}", told.stdout(), told.stderr());
    let last = told.lines().filter_map(|line| line.strip_prefix("Step ")?.split_once(" : ")).next_back().unwrap().0;
    let (step, all) = last.split_once('/').unwrap();
    assert_eq!(step, all, "the steps of both are counted: {told}");
    engine.bireme(["build", "--platform", "wasi/wasm,tea/pot", folder.to_str().unwrap()]).fails(1, "\"tea/pot\"");
    engine.finish();
}

#[test]
fn a_service_whose_file_lists_both_kinds_is_built_once_for_all_its_classes() {
    let engine = Engine::start();
    let folder = context(&engine);
    let port = free_port();
    let file = format!(
        "name: once\nservices:\n  web:\n    build: {{ context: ., platforms: [{}, {COMPONENT}] }}\n    \
         ports: ['{port}:80']\n    stop_signal: SIGKILL\n    labels: {{ bireme.class: '${{CLASS}}' }}\n",
        native()
    );
    std::fs::write(folder.join("compose.yaml"), file).unwrap();
    let up = |class: &str| {
        let mut command = engine.command(bireme_testing::binaries().join("bireme"), ["up", "-d"]);
        command.current_dir(&folder).env("CLASS", class);
        let output = engine.run(command);
        let built = format!("{}{}", output.stdout(), output.stderr()).contains("Successfully tagged once-web");
        (built, eventually("an answer", || answer(port)))
    };
    assert_eq!(up("linux"), (true, FROM_LINUX.to_owned()));
    assert_eq!(up("wasm"), (false, FROM_WASM.to_owned()));
    assert_eq!(up("linux"), (false, FROM_LINUX.to_owned()));
    let mut command = engine.command(bireme_testing::binaries().join("bireme"), ["down", "-t", "0"]);
    command.current_dir(&folder).env("CLASS", "linux");
    engine.run(command).stdout();
    engine.finish();
}
