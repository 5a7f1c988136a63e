//! From an image, an archive or a registry: digests that lie, names that lead out, and sizes that grow.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bireme_testing::{Engine, Output, eventually, guest};
use serde_json::{Value, json};

/// One member of an archive, as hostile as it likes to be.
struct Member {
    kind: u8,
    name: String,
    link: String,
    content: Vec<u8>,
}

fn member(kind: u8, name: &str, link: &str, content: impl Into<Vec<u8>>) -> Member {
    Member { kind, name: name.to_owned(), link: link.to_owned(), content: content.into() }
}

/// A header of GNU's form. Source: GNU tar, "Basic Tar Format".
fn header(kind: u8, name: &str, link: &str, size: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..108].copy_from_slice(if kind == b'5' { b"0000755\0" } else { b"0000644\0" });
    block[108..116].copy_from_slice(b"0000000\0");
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(b"00000000000\0");
    block[148..156].fill(b' ');
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link.as_bytes());
    block[257..265].copy_from_slice(b"ustar  \0");
    if kind == b'3' {
        block[329..345].copy_from_slice(b"0000000\x000000000\0");
    }
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn archive(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    for Member { kind, name, link, content } in members {
        out.extend(header(*kind, name, link, content.len() as u64));
        out.extend(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.extend([0; 1024]);
    out
}

/// What the machine's own programs make of bytes.
fn through(program: &str, args: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new(program).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it is installed");
    let (mut to, bytes) = (child.stdin.take().unwrap(), bytes.to_vec());
    let writer = std::thread::spawn(move || to.write_all(&bytes));
    let mut out = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
    writer.join().unwrap().unwrap();
    assert!(child.wait().unwrap().success());
    out
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", &String::from_utf8(through("sha256sum", &[], bytes)).unwrap()[..64])
}

fn blob(bytes: &[u8]) -> Member {
    member(b'0', &format!("blobs/sha256/{}", &digest(bytes)["sha256:".len()..]), "", bytes)
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": digest(bytes), "size": bytes.len() })
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The members of a layout with one image.
fn layout(name: &str, config: (&str, &[u8]), layer: (&str, &[u8])) -> Vec<Member> {
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(config.0, config.1),
        "layers": [descriptor(layer.0, layer.1)],
    })
    .to_string()
    .into_bytes();
    let mut top = descriptor(MANIFEST, &manifest);
    top["annotations"] = json!({ "io.containerd.image.name": name });
    let index = json!({ "schemaVersion": 2, "manifests": [top] }).to_string();
    vec![
        member(b'0', "oci-layout", "", r#"{"imageLayoutVersion":"1.0.0"}"#),
        blob(config.1),
        blob(layer.1),
        blob(&manifest),
        member(b'0', "index.json", "", index),
    ]
}

/// The layout of a component as an artifact.
fn component(name: &str, bytes: &[u8]) -> Vec<Member> {
    layout(name, ("application/vnd.wasm.config.v0+json", b"{}"), ("application/wasm", bytes))
}

/// The layout of an image for this machine with one layer.
fn image(name: &str, layer: &[u8]) -> Vec<u8> {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "os": "linux", "architecture": architecture, "config": {},
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] }, "history": [],
    })
    .to_string();
    let kinds = ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar");
    archive(&layout(name, (kinds.0, config.as_bytes()), (kinds.1, layer)))
}

fn load(engine: &Engine, archive: &[u8]) -> Output {
    let path = engine.folder().join("attack.tar");
    std::fs::write(&path, archive).unwrap();
    engine.docker(["load", "-i", path.to_str().unwrap()])
}

/// Every blob of the store under a name that is not its digest.
fn misnamed(engine: &Engine) -> Vec<PathBuf> {
    let folder = engine.data_root().join("images/blobs/sha256");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| digest(&std::fs::read(path).unwrap())["sha256:".len()..] != *path.file_name().unwrap())
        .collect()
}

#[test]
fn an_archive_cannot_put_one_component_under_anothers_digest() {
    let engine = Engine::start();
    let [a, b] = ["command", "command-p1"].map(|name| std::fs::read(guest(name)).unwrap());
    let place = blob(&a).name;
    // The path of A, then a path of no meaning, then the path of A again with B in it; and the same by links.
    let again = || member(b'0', &place, "", b.clone());
    let attacks: Vec<(&str, Vec<Member>)> = vec![
        ("twice", component("attack:1", &a).into_iter().chain([again()]).collect()),
        (
            "aside",
            component("attack:1", &a)
                .into_iter()
                .chain([member(b'0', "x", "", a.clone()), member(b'0', "x", "", b.clone()), again()])
                .collect(),
        ),
        (
            "linked",
            component("attack:1", &a)
                .into_iter()
                .filter(|member| member.name != place)
                .chain([
                    member(b'0', "x", "", b.clone()),
                    member(b'1', &place, "x", ""),
                    member(b'2', &place, "../../x", ""),
                ])
                .collect(),
        ),
    ];
    for (how, members) in attacks {
        let refused = load(&engine, &archive(&members));
        refused.fails(1, "is not what its digest says");
        assert_eq!(engine.docker(["images", "-q"]).stdout(), "", "{how}");
        assert_eq!(misnamed(&engine), Vec::<PathBuf>::new(), "{how}");
    }
    // B first and A last is an honest archive of A. A was compiled by then: B never runs in its name.
    let run = |name: &str| engine.docker(["run", "--rm", "--platform", "wasi/wasm", name, "spam", "3"]);
    load(&engine, &archive(&[vec![again()], component("honest:1", &a)].into_iter().flatten().collect::<Vec<_>>()))
        .stdout();
    assert_eq!(misnamed(&engine), Vec::<PathBuf>::new());
    let stored = engine.data_root().join("images").join(&place);
    assert_eq!(std::fs::read(&stored).unwrap(), a);
    let _ = run("honest:1");
    let attack: Vec<Member> = component("attack:1", &a).into_iter().chain([again()]).collect();
    load(&engine, &archive(&attack)).fails(1, "is not what its digest says");
    assert_eq!(std::fs::read(&stored).unwrap(), a);
    engine.finish();
}

#[test]
fn a_layer_writes_nowhere_but_into_itself() {
    let engine = Engine::start();
    let outside = engine.folder().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("victim"), "untouched").unwrap();
    let out = outside.to_str().unwrap();
    let up = "../".repeat(12);
    let far = format!("{}{}", "../".repeat(12), &out[1..]);
    // Refused by name.
    for (how, members, words) in [
        ("a name that climbs", vec![member(b'0', "../x", "", "evil")], "it leads out by"),
        ("one that climbs after a while", vec![member(b'0', "a/../../x", "", "evil")], "it leads out by"),
        ("a hard link to the host", vec![member(b'1', "a", &format!("{out}/victim"), "")], "does not stand before it"),
        ("a hard link that climbs", vec![member(b'1', "a", &format!("{far}/victim"), "")], "it leads out by"),
        (
            "a hard link through a link",
            vec![member(b'2', "l", out, ""), member(b'1', "a", "l/victim", "")],
            "does not stand before it",
        ),
        (
            "a file behind a link to nothing",
            vec![member(b'2', "l", out, ""), member(b'0', "l/x", "", "evil")],
            "a link to nothing",
        ),
        (
            "a deletion of the folder above",
            vec![member(b'0', ".wh...", "", "")],
            "it deletes nothing that can be named",
        ),
        (
            "a deletion of the folder itself",
            vec![member(b'0', "a/.wh..", "", "")],
            "it deletes nothing that can be named",
        ),
        ("a deletion in the folder above", vec![member(b'0', "../.wh.victim", "", "")], "it leads out by"),
        ("the mark of a deletion as a device", vec![member(b'3', "victim", "", "")], "overlayfs's mark of a deletion"),
    ] {
        let refused = load(&engine, &image("attack:1", &archive(&members)));
        assert_ne!(refused.code, 0, "{how}");
        assert!(refused.stderr().contains(words), "{how}: {}", refused.stderr());
    }
    // Taken, and kept inside.
    for members in [
        vec![member(b'0', &format!("{out}/inside"), "", "kept in")],
        vec![member(b'0', &format!("/{up}{}/inside", &out[1..]), "", "kept in")],
        vec![
            member(b'5', &format!("{out}/"), "", ""),
            member(b'2', "l", out, ""),
            member(b'0', "l/inside", "", "kept in"),
            member(b'0', "l/.wh.victim", "", ""),
            member(b'0', "l/.wh..wh..opq", "", ""),
        ],
        vec![
            member(b'5', &format!("{out}/"), "", ""),
            member(b'2', "l", &far, ""),
            member(b'0', "l/inside", "", "kept in"),
            member(b'0', "l/victim", "", "evil"),
        ],
    ] {
        load(&engine, &image("attack:1", &archive(&members))).stdout();
    }
    let names: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["victim"]);
    assert_eq!(std::fs::read_to_string(outside.join("victim")).unwrap(), "untouched");
    for stranger in ["x", "victim", "inside"] {
        assert!(!engine.folder().join(stranger).exists() && !Path::new("/").join(stranger).exists(), "{stranger}");
        assert!(!engine.data_root().join("images/layers").join(stranger).exists(), "{stranger}");
    }
    engine.finish();
}

/// Bytes that the daemon has in memory, or had at most.
fn memory(engine: &Engine, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", engine.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Bytes by which the daemon grew at its largest while something was tried.
fn peak(engine: &Engine, act: impl FnOnce()) -> u64 {
    std::fs::write(format!("/proc/{}/clear_refs", engine.pid()), "5").unwrap();
    let before = memory(engine, "VmRSS");
    act();
    memory(engine, "VmHWM").saturating_sub(before)
}

/// A gzipped tar that begins with a header for 200 MB of a name.
fn bomb(kind: u8) -> Vec<u8> {
    let size = 200_u64 << 20;
    let mut bytes = header(kind, "././@LongLink", "", size).to_vec();
    bytes.resize(bytes.len() + (200 << 20), b'a');
    bytes.extend(header(b'0', "file", "", 0));
    bytes.extend([0; 1024]);
    through("gzip", &["-9"], &bytes)
}

#[test]
fn bombs_leave_the_memory_of_the_engine_flat() {
    let engine = Engine::start();
    engine.load("busybox");
    let path = engine.folder().join("bomb.tar.gz");
    let path = path.to_str().unwrap().to_owned();
    let mut told: BTreeMap<String, u64> = BTreeMap::new();
    for kind in *b"Lx" {
        let (bomb, words) =
            (bomb(kind), if kind == b'L' { "it has a name of 209715200 bytes" } else { "it has extended headers of" });
        std::fs::write(&path, &bomb).unwrap();
        let letter = char::from(kind);
        let grown = peak(&engine, || engine.docker(["import", path.as_str(), "bomb"]).fails(1, words));
        told.insert(format!("import {letter}"), grown);
        let grown = peak(&engine, || engine.docker(["load", "-i", path.as_str()]).fails(1, words));
        told.insert(format!("load {letter}"), grown);
        let grown = peak(&engine, || {
            let mut command = engine.command("docker", ["build", "-"]);
            command.env("DOCKER_BUILDKIT", "0").stdin(std::fs::File::open(&path).unwrap());
            let refused = engine.run(command);
            assert!(refused.stderr().contains(words), "{refused}");
        });
        told.insert(format!("build {letter}"), grown);
        let layer =
            image("bomb:1", &[header(kind, "././@LongLink", "", 200 << 20).to_vec(), vec![b'a'; 4096]].concat());
        let grown = peak(&engine, || load(&engine, &layer).fails(1, words));
        told.insert(format!("layer {letter}"), grown);
    }
    let doubled = format!("FROM scratch\nENV A=0123456789abcdef\n{}", "ENV A=$A$A\n".repeat(23));
    let context = engine.folder().join("doubled");
    std::fs::create_dir(&context).unwrap();
    std::fs::write(context.join("Dockerfile"), doubled).unwrap();
    let grown = peak(&engine, || {
        let mut command = engine.command("docker", ["build", context.to_str().unwrap()]);
        command.env("DOCKER_BUILDKIT", "0");
        let refused = engine.run(command);
        assert!(refused.stderr().contains("it comes to more than 1048576 bytes"), "{refused}");
    });
    told.insert("environment".to_owned(), grown);
    let mib: Vec<String> = told.iter().map(|(what, grown)| format!("{what}: {} MiB", grown >> 20)).collect();
    assert!(told.values().all(|grown| *grown < 64 << 20), "{mib:?}");
    engine.finish();
}

#[test]
fn a_build_stands_still_while_its_client_does_not_read() {
    let engine = Engine::start();
    engine.load("busybox");
    let dockerfile = "FROM busybox\nRUN yes 0123456789012345678901234567890123456789 | head -c 2000000000\n";
    let context = archive(&[member(b'0', "Dockerfile", "", dockerfile)]);
    let mut client = UnixStream::connect(engine.socket()).unwrap();
    let head = format!(
        "POST /build HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        context.len()
    );
    let grown = peak(&engine, || {
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(&context).unwrap();
        eventually("its command runs", || (engine.docker(["ps", "-q"]).stdout() != "").then_some(()));
        std::thread::sleep(Duration::from_secs(4));
    });
    assert!(grown < 64 << 20, "the daemon grew by {} MiB", grown >> 20);
    assert_ne!(engine.docker(["ps", "-q"]).stdout(), "", "it stands still");
    // It goes on when the client reads.
    let (mut read, mut buffer) = (0, vec![0; 1 << 16]);
    let until = Instant::now() + Duration::from_secs(20);
    while read < 20 << 20 && Instant::now() < until {
        read += client.read(&mut buffer).unwrap();
    }
    assert!(read >= 20 << 20, "{read} bytes came");
    // And ends with it.
    drop(client);
    eventually("its container is gone", || (engine.docker(["ps", "-aq"]).stdout() == "").then_some(()));
    engine.finish();
}

#[test]
fn a_damaged_store_is_told_and_left_as_it_is() {
    let engine = Engine::start();
    engine.load("busybox");
    let verified = engine.bireme(["system", "verify"]);
    assert!(verified.stdout().contains(": nothing is damaged\n"), "{verified}");
    let blobs = engine.data_root().join("images/blobs/sha256");
    let blob = std::fs::read_dir(&blobs).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&blob, &bytes).unwrap();
    let verified = engine.bireme(["system", "verify"]);
    assert_eq!(verified.code, 1, "{verified}");
    let name = blob.file_name().unwrap().to_str().unwrap();
    let line = format!("layer sha256:{name} has the digest sha256:");
    assert!(verified.raw_stdout().starts_with(&line), "{verified}");
    assert!(
        verified.raw_stdout().contains("needs it: remove the image and pull, load or build it again\n"),
        "{verified}"
    );
    assert!(verified.raw_stdout().ends_with(": 1 damaged\n"), "{verified}");
    assert_eq!(std::fs::read(&blob).unwrap(), bytes);
    // What is loaded again is whole again.
    engine.load("busybox");
    assert!(engine.bireme(["system", "verify"]).stdout().contains(": nothing is damaged\n"));
    engine.finish();
}

#[test]
fn a_layer_cannot_be_put_in_the_name_of_another() {
    let engine = Engine::start();
    let (good, evil) = (archive(&[member(b'0', "a", "", "good")]), archive(&[member(b'0', "a", "", "evil")]));
    load(&engine, &image("good:1", &good)).stdout();
    // The configuration is that of an image with the good layer, which is unpacked already.
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "os": "linux", "architecture": architecture, "config": { "Labels": { "l": "lie" } },
        "rootfs": { "type": "layers", "diff_ids": [digest(&good)] }, "history": [],
    })
    .to_string();
    let kind = "application/vnd.oci.image.config.v1+json";
    for (form, layer) in [("tar", evil.clone()), ("tar+gzip", through("gzip", &["-1"], &evil))] {
        let form = format!("application/vnd.oci.image.layer.v1.{form}");
        let lying = archive(&layout("lie:1", (kind, config.as_bytes()), (&form, &layer)));
        load(&engine, &lying).fails(1, "unpacked, is not what its digest says");
        assert_eq!(engine.docker(["images", "--format", "{{.Repository}}"]).stdout(), "good\n");
    }
    assert!(engine.bireme(["system", "verify"]).stdout().contains(": nothing is damaged\n"));
    engine.finish();
}

/// A server that answers any request with `start` and zeros without end, piece by piece; tells when it is hung up on.
fn endless(start: Vec<u8>) -> (String, std::sync::mpsc::Receiver<u64>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/x", listener.local_addr().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let _ = client.read(&mut head).unwrap();
        let mut sent = 0;
        let mut piece = [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec(), start].concat();
        // A little at a time, for as long as somebody listens: minutes, were it read to the end of what follows.
        while sent < 1 << 30 && client.write_all(&piece).is_ok() {
            sent += piece.len() as u64;
            piece = vec![0; 1 << 16];
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = tell.send(sent);
    });
    (address, told)
}

#[test]
fn work_ends_with_the_client_that_asked_for_it() {
    let engine = Engine::start();
    for (path, start) in
        [("/images/create?fromSrc=", Vec::new()), ("/build?remote=", header(b'0', "f", "", 7 << 30).to_vec())]
    {
        let (address, hung_up) = endless(start);
        let mut client = UnixStream::connect(engine.socket()).unwrap();
        write!(client, "POST {path}{address} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
        let ingest = engine.data_root().join("images/ingest");
        let holds = || std::fs::read_dir(&ingest).unwrap().count();
        eventually("it is read", || (holds() > 0).then_some(()));
        std::thread::sleep(Duration::from_millis(300));
        drop(client);
        let sent = hung_up.recv_timeout(Duration::from_secs(10));
        assert!(sent.is_ok_and(|sent| sent < 1 << 30), "{path}: it is read on: {sent:?}");
        eventually("nothing is left of it", || (holds() == 0).then_some(()));
    }
    assert_eq!(engine.docker(["images", "-aq"]).stdout(), "");
    engine.finish();
}
