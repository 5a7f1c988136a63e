//! What was built is given away: kept as an image, pushed, or sent to the client as files or as an archive.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use bireme_buildkit::{
    Build, BuildError, Entry, Exporter, Exports, Failure, LogStream, Outputs, Session, Solved, Source, Vertex,
};
use bireme_core::ErrorKind;
use bireme_core::go::parse_bool;
use bireme_engine::{Preparation, PreparationStep};
use bireme_image::{
    ArchiveFor, BuildOutput, BuiltImage, PackedOutput, Packing, Platform, PushRequest, Pushed, Reference, Tree,
};
use tokio::io::AsyncWriteExt as _;
use tokio_util::io::SyncIoBridge;

use super::content::ClientContent;
use super::exporting::{ended, on_a_thread, packing, reference};
use super::sources::credentials;
use super::{annotations, caches, failed, questions};
use crate::app::App;

/// What a client prints and writes as metadata.
type Response = BTreeMap<String, String>;

pub(super) async fn export(
    app: App,
    build: Arc<Build>,
    solved: Option<Solved>,
    exports: Exports,
) -> Result<Response, BuildError> {
    let inline = caches::is_inline(&exports.caches)?;
    let Some(output) = solved.and_then(|solved| output(solved.outputs)) else {
        return match exports.exporters.is_empty() {
            // An empty image has no steps.
            true => Ok(Response::new()),
            false => Err(BuildError::failed("nothing was built that could be exported")),
        };
    };
    let output = if inline { Arc::new(output.with_inline_cache()) } else { output };
    let mut response = Response::new();
    for exporter in &exports.exporters {
        let clamped = match is_set(exporter, "rewrite-timestamp") {
            true => Some(Arc::new(output.with_clamped_times().await.map_err(|error| failed(&error))?)),
            false => None,
        };
        response.extend(one(&app, &build, clamped.as_ref().unwrap_or(&output), exporter).await?);
    }
    response.extend(caches::export(&build, &output, &exports.caches).await?);
    Ok(response)
}

fn output(outputs: Outputs) -> Option<Arc<BuildOutput>> {
    let output = match outputs {
        Outputs::None => None,
        Outputs::One(output) => Some(output),
        // One and the same for all of them.
        Outputs::Platforms(all) => all.into_values().next(),
    };
    output?.downcast().ok()
}

async fn one(
    app: &App,
    build: &Arc<Build>,
    output: &Arc<BuildOutput>,
    exporter: &Exporter,
) -> Result<Response, BuildError> {
    let said = annotations::read(&exporter.options, output.platforms().len() > 1)?;
    let output = &if said.is_empty() { Arc::clone(output) } else { Arc::new(output.with_annotations(said)) };
    match exporter.kind.as_str() {
        "moby" | "image" | "" => {
            let vertex = build.progress().vertex("exporting to image", &[]);
            vertex.start();
            ended(&vertex, image(app, build, output, exporter, &vertex).await)
        }
        "docker" | "oci" => {
            let vertex = build.progress().vertex(&format!("exporting to {} image format", exporter.kind), &[]);
            vertex.start();
            ended(&vertex, archive(build, output, exporter, &vertex).await)
        }
        "local" | "tar" => {
            let what = if exporter.kind == "tar" { "client tarball" } else { "client directory" };
            let vertex = build.progress().vertex(&format!("exporting to {what}"), &[]);
            vertex.start();
            ended(&vertex, files(build, output, exporter, &vertex).await)
        }
        other => Err(BuildError::new(
            ErrorKind::Unsupported,
            format!("the exporter {other} is not offered: image, docker, oci, local and tar are"),
        )),
    }
}

/// The names that an exporter gives.
fn names(exporter: &Exporter) -> Result<Vec<Reference>, BuildError> {
    let names = exporter.options.get("name").map(String::as_str).unwrap_or_default();
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(reference).collect()
}

fn is_set(exporter: &Exporter, option: &str) -> bool {
    exporter.options.get(option).is_some_and(|value| value.is_empty() || value == "true" || value == "1")
}

/// Keeps the images, and pushes them where that is asked for.
async fn image(
    app: &App,
    build: &Arc<Build>,
    output: &Arc<BuildOutput>,
    exporter: &Exporter,
    vertex: &Vertex,
) -> Result<Response, BuildError> {
    if is_set(exporter, "push-by-digest") {
        return Err(BuildError::new(
            ErrorKind::Unsupported,
            "push-by-digest is not offered: leave it out and push under a tag, or build all platforms in one go",
        ));
    }
    let names = names(exporter)?;
    let built = vertex.during("exporting layers", record(output, &names)).await?;
    let Some(first) = built.first() else {
        return Err(BuildError::failed("nothing was built that could be exported"));
    };
    for image in &built {
        vertex.task(&format!("writing image {}", image.id)).done();
    }
    for name in &names {
        vertex.task(&format!("naming to {name}")).done();
    }
    let mut response = Response::new();
    response.insert("containerimage.config.digest".to_owned(), first.id.to_string());
    // As an engine without a content store of manifests has it, the image is known by its configuration.
    let digest = if built.len() == 1 { first.id.to_string() } else { first.manifest.to_string() };
    response.insert("containerimage.digest".to_owned(), digest);
    response.extend(named(&names));
    for image in &built {
        app.engine.prepare_image(&image.id, &|step| prepared(vertex, &step)).await;
    }
    if is_set(exporter, "push") {
        let session = build.session().await?;
        let packing = packing(&exporter.options)?;
        let index = output.index().map_err(|error| failed(&error))?;
        for name in &names {
            let request = PushRequest { packing, index: index.clone(), ..PushRequest::new(name.clone()) };
            let pushed = push(app, &session, request, vertex).await?;
            response.insert("containerimage.digest".to_owned(), pushed);
        }
    }
    Ok(response)
}

/// Tells how far the program of an image is prepared.
fn prepared(vertex: &Vertex, step: &Preparation) {
    match &step.step {
        PreparationStep::Begun | PreparationStep::Going(_) => {}
        PreparationStep::Ready(took) => {
            vertex.task(&format!("compiling {} {:.1}s", step.program, took.as_secs_f64())).done()
        }
        PreparationStep::Refused(why) => vertex.log(LogStream::Stderr, format!("{why}\n").as_bytes()),
        PreparationStep::GoesOn => vertex.task(&format!("compiling {} goes on", step.program)).done(),
    }
}

async fn record(output: &Arc<BuildOutput>, names: &[Reference]) -> Result<Vec<BuiltImage>, BuildError> {
    output.record(names).await.map_err(|error| failed(&error))
}

/// Pushes all that a name stands for; answers the digest by which the registry knows it.
async fn push(app: &App, session: &Session, mut request: PushRequest, vertex: &Vertex) -> Result<String, BuildError> {
    request.auth = credentials(session, request.name.registry()).await?;
    let task = vertex.task(&format!("pushing {}", request.name));
    let images = app.images.clone();
    let pushed = on_a_thread(async move || {
        let digest = parking_lot::Mutex::new(String::new());
        let done = |pushed: &Pushed| *digest.lock() = pushed.digest.to_string();
        images.push(&request, &|_| {}, &done).await?;
        Ok(digest.into_inner())
    })
    .await?;
    task.done();
    Ok(pushed)
}

/// Sends the images to the client: as an archive, or file by file (`tar=false`).
async fn archive(
    build: &Arc<Build>,
    output: &Arc<BuildOutput>,
    exporter: &Exporter,
    vertex: &Vertex,
) -> Result<Response, BuildError> {
    let names = names(exporter)?;
    if exporter.kind == "docker" && output.platforms().len() > 1 {
        return Err(BuildError::new(
            ErrorKind::Unsupported,
            "docker exporter does not currently support exporting manifest lists: use type=oci, or keep it as an image",
        ));
    }
    let (whom, usual) = match exporter.kind.as_str() {
        "docker" => (ArchiveFor::Docker, Packing::Plain),
        _ => (ArchiveFor::Oci, Packing::Kept),
    };
    let packing = if exporter.options.contains_key("compression") { packing(&exporter.options)? } else { usual };
    let output = Arc::clone(output);
    let packed = vertex.during("exporting layers", on_a_thread(async move || output.packed(packing).await)).await?;
    let response = described(&packed, &names);
    let session = build.session().await?;
    let packed = Arc::new(packed);
    if exporter.options.get("tar").is_some_and(|value| parse_bool(value) == Some(false)) {
        // The one store that clients offer for this. Source: BuildKit, `client/solve.go`.
        let store = ClientContent::new(session, "export".to_owned());
        let written = async move { packed.write_to(&store).await };
        vertex.during("copying to the client's folder", written).await.map_err(|error| failed(&error))?;
        return Ok(response);
    }
    let out = session.send_tar(&exporter.id, &response).await?;
    let task = vertex.task("sending tarball");
    let (bridge, done) = finished(out);
    packed.write_archive(&names, whom, bridge).await.map_err(|error| failed(&error))?;
    done.await?;
    task.done();
    Ok(response)
}

/// What the client is told of images that it gets.
fn described(packed: &PackedOutput, names: &[Reference]) -> Response {
    let descriptor = packed.descriptor();
    let mut response = Response::new();
    if let Some(config) = packed.config_digest() {
        response.insert("containerimage.config.digest".to_owned(), config.to_string());
    }
    response.insert("containerimage.digest".to_owned(), descriptor["digest"].as_str().unwrap_or_default().to_owned());
    let descriptor = base64::engine::general_purpose::STANDARD.encode(descriptor.to_string());
    response.insert("containerimage.descriptor".to_owned(), descriptor);
    response.extend(named(names));
    response
}

/// What the client is told of the names of what it built.
fn named(names: &[Reference]) -> Option<(String, String)> {
    let all: Vec<String> = names.iter().map(ToString::to_string).collect();
    (!all.is_empty()).then(|| ("image.name".to_owned(), all.join(",")))
}

/// A writer for blocking code, and what waits until all that was written has arrived.
fn finished<W: tokio::io::AsyncWrite + Send + Unpin + 'static>(
    out: W,
) -> (SyncIoBridge<tokio::io::DuplexStream>, impl Future<Output = Result<(), BuildError>>) {
    let (ours, mut theirs) = tokio::io::duplex(256 << 10);
    let mut out = out;
    let copying = tokio::spawn(async move {
        tokio::io::copy(&mut theirs, &mut out).await?;
        out.shutdown().await
    });
    let done = async move {
        match copying.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(BuildError::failed(format!("the client did not take the result: {error}"))),
            Err(_) => Err(BuildError::new(ErrorKind::Internal, "sending the result ended without an answer")),
        }
    };
    (SyncIoBridge::new(ours), done)
}

/// Sends the files of the images to the client: as they are, or as an archive.
async fn files(
    build: &Arc<Build>,
    output: &Arc<BuildOutput>,
    exporter: &Exporter,
    vertex: &Vertex,
) -> Result<Response, BuildError> {
    let platforms = output.platforms();
    // Those of several are told apart by folders, unless somebody wants them in one.
    let split =
        exporter.options.get("platform-split").map_or(platforms.len() > 1, |value| value == "true" || value == "1");
    let mut trees = Vec::new();
    for platform in &platforms {
        let tree = output.tree(Some(platform)).map_err(|error| failed(&error))?;
        let below = if split { folder_of(platform) } else { String::new() };
        trees.extend(tree.map(|tree| (below, tree)));
    }
    let session = build.session().await?;
    let task = vertex.task("copying files");
    if exporter.kind == "local" {
        session.send_folder(&exporter.id, Arc::new(Files(trees))).await?;
    } else {
        let out = session.send_tar(&exporter.id, &Response::new()).await?;
        let (bridge, done) = finished(out);
        let written = tokio::task::spawn_blocking(move || {
            let mut bridge = bridge;
            match &trees[..] {
                [(below, tree)] if below.is_empty() => tree.write_tar(&mut bridge),
                _ => Err(std::io::Error::other("files of several platforms cannot go into one archive: choose one")),
            }
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(BuildError::failed(format!("cannot send the files: {error}"))),
            Err(_) => return Err(BuildError::new(ErrorKind::Internal, "sending files ended without an answer")),
        }
        done.await?;
    }
    task.done();
    Ok(Response::new())
}

/// `linux_amd64`
fn folder_of(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}

/// Trees of files, each below a folder, or one as it is.
struct Files(Vec<(String, Tree)>);

impl Source for Files {
    fn walk(&self, each: &mut dyn FnMut(Entry) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut ordered: Vec<&(String, Tree)> = self.0.iter().collect();
        ordered.sort_by(|one, other| one.0.cmp(&other.0));
        for (below, tree) in ordered {
            if !below.is_empty() {
                each(Entry {
                    path: below.clone(),
                    kind: bireme_buildkit::EntryKind::Folder,
                    mode: 0o755,
                    uid: 0,
                    gid: 0,
                    modified: 0,
                    xattrs: BTreeMap::new(),
                })?;
            }
            let mut stopped = None;
            let walked = tree.walk(&mut |entry| {
                let mut entry = questions::entry_of(entry);
                if !below.is_empty() {
                    entry.path = format!("{below}/{}", entry.path);
                    if let bireme_buildkit::EntryKind::HardLink { to } = &mut entry.kind {
                        *to = format!("{below}/{to}");
                    }
                }
                each(entry).map_err(|failure| {
                    let text = failure.to_string();
                    stopped = Some(failure);
                    std::io::Error::other(text)
                })
            });
            match (walked, stopped) {
                (_, Some(failure)) => return Err(failure),
                (Err(error), None) => return Err(Failure(format!("the files of the result cannot be read: {error}"))),
                (Ok(()), None) => {}
            }
        }
        Ok(())
    }

    fn open(&self, path: &str) -> Result<Box<dyn Read + Send>, Failure> {
        for (below, tree) in &self.0 {
            let inside = if below.is_empty() {
                Some(path)
            } else {
                path.strip_prefix(below).and_then(|rest| rest.strip_prefix('/'))
            };
            if let Some(inside) = inside {
                let file =
                    tree.open(Path::new(inside)).map_err(|error| Failure(format!("cannot read {path}: {error}")))?;
                return Ok(Box::new(file));
            }
        }
        Err(Failure(format!("the result has no file {path}")))
    }
}
