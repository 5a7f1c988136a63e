//! What came of a build, as the JSON that is kept and compared.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use bireme_testing::workspace;
use bireme_tests::archive::{self, Image};
use bireme_tests::tree::Tree;
use serde_json::{Map, Value, json};

use crate::case::Case;
use crate::client::Client;
use crate::side::Side;

/// What of an image's configuration is compared.
const CONFIG: &[&str] = &[
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
];

/// Builds the case in `folder` and looks at what came of it. The second is all that was printed, for whoever must mend it.
pub(crate) fn of(case: &Case, client: Client, side: &Side, folder: &Path, tag: &str) -> (Value, String) {
    for line in &case.prepare {
        let ended = side.shell(client, folder, tag, line);
        assert_eq!(ended.code, 0, "{line:?} prepares nothing: {}", ended.err);
    }
    let usual = [format!("build {}", client.usual_arguments(&case.flags))];
    let typed = case.typed(side.is_docker());
    let mut outcome = Map::new();
    let (mut told, mut shown, mut printed, mut code) = (String::new(), String::new(), String::new(), 0);
    for line in typed.unwrap_or(&usual) {
        let ended = side.shell(client, folder, tag, line);
        let out = String::from_utf8_lossy(&ended.out).into_owned();
        told.push_str(&format!("$ {line}\n{out}{}", ended.err));
        shown.push_str(&out);
        shown.push_str(&ended.err);
        printed.push_str(&out.replace(tag, "$TAG"));
        code = ended.code;
        if code != 0 {
            break;
        }
    }
    outcome.insert("exit".to_owned(), json!(code));
    // Clients of the one command print what they like.
    if typed.is_some() && !printed.is_empty() {
        outcome.insert("printed".to_owned(), json!(printed.lines().collect::<Vec<_>>()));
    }
    let said: Vec<&String> = case.words.iter().filter(|words| shown.contains(*words)).collect();
    if !case.words.is_empty() {
        outcome.insert("said".to_owned(), json!(said));
    }
    let mut secret = Secrets { words: &case.hidden, seen: Vec::new() };
    secret.look("what was printed", shown.as_bytes());
    if code == 0 {
        if let Some(images) = saved(side, tag, &mut told) {
            outcome.insert("image".to_owned(), all(&images, case, &mut secret));
        }
        if !case.run.is_empty() {
            let mut args = vec!["run", "--rm", "--network=none", tag];
            args.extend(case.run.iter().map(String::as_str));
            let ran = side.plain("docker", &args);
            told.push_str(&ran.err);
            let lines: Vec<String> = String::from_utf8_lossy(&ran.out).lines().map(str::to_owned).collect();
            outcome.insert("run".to_owned(), json!({ "exit": ran.code, "printed": lines }));
        }
        for output in &case.outputs {
            outcome.insert(format!("output {output}"), output_of(&folder.join(output), case, &mut secret));
        }
    }
    if !secret.seen.is_empty() {
        outcome.insert("secrets found in".to_owned(), json!(secret.seen));
    }
    (Value::Object(outcome), told)
}

/// Where words are found that should be nowhere.
struct Secrets<'a> {
    words: &'a [String],
    seen: Vec<String>,
}

impl Secrets<'_> {
    fn look(&mut self, place: &str, bytes: &[u8]) {
        let found = |word: &&String| bytes.windows(word.len()).any(|window| window == word.as_bytes());
        self.seen.extend(self.words.iter().filter(found).map(|word| format!("{place}: {word}")));
    }
}

/// The image called `tag`; `None` where there is none.
fn saved(side: &Side, tag: &str, told: &mut String) -> Option<Vec<Image>> {
    if side.plain("docker", &["image", "inspect", tag]).code != 0 {
        return None;
    }
    let saved = side.plain("docker", &["image", "save", tag]);
    told.push_str(&saved.err);
    match archive::read(saved.out.as_slice()) {
        Ok(images) => Some(images),
        Err(error) => {
            told.push_str(&format!("docker save answers with no archive of images: {error}\n"));
            Some(Vec::new())
        }
    }
}

fn all(images: &[Image], case: &Case, secret: &mut Secrets<'_>) -> Value {
    let mut told: Vec<Value> = images.iter().map(|image| one(image, case, secret)).collect();
    if told.len() == 1 { told.swap_remove(0) } else { json!(told) }
}

fn one(image: &Image, case: &Case, secret: &mut Secrets<'_>) -> Value {
    let base = base_layers(image, case);
    if !secret.words.is_empty() {
        secret.look("the configuration", &image.raw_config);
        for (at, layer) in image.layers.iter().enumerate().skip(base) {
            secret.look(&format!("layer {}", at + 1), layer);
        }
    }
    let (tree, below) = match image.trees(base) {
        Ok(trees) => trees,
        Err(error) => return json!(format!("has a layer that cannot be read: {error}")),
    };
    let config: Map<String, Value> = CONFIG
        .iter()
        .map(|key| ((*key).to_owned(), image.config["config"][*key].clone()))
        .filter(|(_, value)| says_something(value))
        .collect();
    // As many of the history as the base image has are its own.
    let history = image.config["history"].as_array().into_iter().flatten().skip(base);
    let history: Vec<&str> = history.map(|step| if step["empty_layer"] == true { "empty" } else { "layer" }).collect();
    let mut told = json!({
        "platform": platform(&image.config),
        "config": config,
        "files beside the base's": tree.beside(&below, &case.varies),
    });
    // Another way to the same files has other steps.
    if case.reference.is_empty() {
        told["history above the base"] = json!(history.join(" "));
    }
    told
}

/// The machine's own architecture is not told: expectations are of any.
fn platform(config: &Value) -> String {
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let text = |key: &str| config[key].as_str().unwrap_or_default().to_owned();
    let architecture = if text("architecture") == own { "<machine>".to_owned() } else { text("architecture") };
    format!("{}/{architecture}", text("os"))
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}

/// How many of its layers are those of the test image that it stands on.
fn base_layers(image: &Image, case: &Case) -> usize {
    let own = image.diff_ids();
    let of = |name: &String| {
        let base = base(name);
        let ids = base.diff_ids();
        own.starts_with(&ids).then_some(ids.len())
    };
    case.images.iter().filter_map(of).max().unwrap_or(0)
}

fn base(name: &str) -> Image {
    let path = workspace().join("target/images").join(format!("{name}.tar"));
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}; run `./x images`", path.display()));
    archive::read(file).expect("a test image is an archive of images").swap_remove(0)
}

/// A folder, an archive of files or one of images, or a text file.
fn output_of(path: &Path, case: &Case, secret: &mut Secrets<'_>) -> Value {
    if path.is_dir() {
        return Tree::of_folder(path).expect("a folder can be read").beside(&Tree::default(), &case.varies);
    }
    let mut bytes = Vec::new();
    match File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return json!("none"),
        Err(error) => panic!("{}: {error}", path.display()),
        Ok(_) => secret.look("the output", &bytes),
    }
    if let Ok(images) = archive::read(bytes.as_slice()) {
        return all(&images, case, secret);
    }
    match Tree::of_archive(bytes.as_slice()) {
        Ok(tree) => tree.beside(&Tree::default(), &case.varies),
        Err(_) => json!(String::from_utf8_lossy(&bytes).lines().collect::<Vec<_>>()),
    }
}
