//! A client wants something built.

use std::collections::BTreeMap;
use std::sync::Arc;

use bireme_buildkit::{Build, BuildError, Frontend, Output, Outputs, Solved};
use bireme_core::ErrorKind;
use bireme_image::{
    BuildContext, BuildOutput, BuildRequest, BuildSources, BuildStyle, KeepContainers, LocalSources, NamedContext,
};
use serde_json::{Value, json};

use super::content::ClientContent;
use super::options::{self, Named, Options};
use super::progress::{self, Teller};
use super::sources::{ClientSources, Keys};
use super::{caches, failed, questions};
use crate::app::App;
use crate::convert;

/// The client's own place, where it puts an archive that came by its standard input.
const UPLOAD: &str = "http://buildkit-session/";

pub(super) async fn solve(app: App, build: Arc<Build>, frontend: Frontend) -> Result<Solved, BuildError> {
    match (frontend.name.as_str(), frontend.options.get("source")) {
        ("" | "dockerfile.v0", _) => {}
        // Clients that read the line # syntax= themselves name the image of the front end.
        ("gateway.v0", Some(source)) => options::check_syntax(source)?,
        (name, _) => {
            return Err(BuildError::new(
                ErrorKind::Unsupported,
                format!("the front end {name} is not offered: dockerfile.v0 is built in, and no other is run"),
            ));
        }
    }
    let options = Options::read(&frontend.options)?;
    let sources = sources(&app, &build, &frontend, &options).await?;
    let multi = options.multi || options.platforms.len() > 1;
    let request = request(&build, &frontend, &options).await?;
    if let Some(question) = &options.request {
        return questions::answer(&app, &build, &request, &*sources, question).await;
    }
    let hostname = options.hostname.as_deref().unwrap_or(options::HOSTNAME);
    let steps =
        convert::create::create(json!({ "Image": "", "Hostname": hostname, "HostConfig": options.host }), None, None)
            .map_err(|error| BuildError::new(ErrorKind::Invalid, error.message))?;
    let output = on_a_thread(app.clone(), Arc::clone(&build), request, sources, steps).await?;
    app.collect_soon();
    solved(output, multi)
}

/// What a client is told of what was built.
fn solved(output: BuildOutput, multi: bool) -> Result<Solved, BuildError> {
    let platforms = output.platforms();
    let mut metadata = BTreeMap::new();
    let output = Arc::new(output);
    for platform in &platforms {
        let config = output.config_json(platform).map_err(|error| failed(&error))?;
        let key = match multi {
            true => format!("containerimage.config/{platform}"),
            false => "containerimage.config".to_owned(),
        };
        metadata.insert(key, config);
    }
    let shared: Output = output;
    let outputs = if multi {
        let listed: Vec<Value> = platforms
            .iter()
            .map(|platform| {
                let mut described = json!({ "architecture": platform.architecture, "os": platform.os });
                if !platform.variant.is_empty() {
                    described["variant"] = json!(platform.variant);
                }
                json!({ "ID": platform.to_string(), "Platform": described })
            })
            .collect();
        metadata.insert("refs.platforms".to_owned(), json!({ "Platforms": listed }).to_string().into_bytes());
        Outputs::Platforms(platforms.iter().map(|platform| (platform.to_string(), Arc::clone(&shared))).collect())
    } else {
        Outputs::One(shared)
    };
    Ok(Solved { outputs, metadata })
}

/// Where the files of a build come from.
async fn sources(
    app: &App,
    build: &Arc<Build>,
    frontend: &Frontend,
    options: &Options,
) -> Result<Arc<dyn BuildSources>, BuildError> {
    let named = options.named.iter().filter_map(|(name, named)| match named {
        Named::Files(key) => Some((name.to_ascii_lowercase(), key.clone())),
        _ => None,
    });
    let keys = Keys {
        context: options.context_key.clone(),
        dockerfile: options.dockerfile_key.clone(),
        filename: options.filename.clone(),
        named: named.collect(),
        known: known(frontend, options),
    };
    let run = app.engine.secrets_folder();
    let client = Arc::new(ClientSources::new(Arc::clone(build), frontend.clone(), keys, app.images.clone(), run));
    let Some(address) = &options.context else { return Ok(client) };
    let context = match address.strip_prefix(UPLOAD) {
        Some(id) => {
            let session = build.session().await?;
            BuildContext::Archive(Box::new(session.upload(id).await?))
        }
        None => BuildContext::Address(address.clone()),
    };
    let step = build.progress().vertex(&format!("[internal] load remote build context {}", shown(address)), &[]);
    step.start();
    // A Dockerfile that the client has itself, beside a context from elsewhere.
    let own = frontend.options.contains_key("dockerfilekey");
    let opened =
        LocalSources::open(&app.images, context, &options.filename, options.keep_git_dir, Some(client.clone())).await;
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            step.fail(&error.to_string());
            return Err(failed(&error));
        }
    };
    step.complete();
    if !own {
        return Ok(Arc::new(opened.below(&options.subdir)));
    }
    let definition = client.definition(&|_| {}).await.map_err(|error| failed(&error))?;
    Ok(Arc::new(opened.below(&options.subdir).with_dockerfile(definition.text)))
}

/// What a client says of where its files are, beside the files.
fn known(frontend: &Frontend, options: &Options) -> String {
    let said = frontend
        .options
        .iter()
        .filter(|(key, _)| key.starts_with("vcs:localdir") || key.starts_with("label:com.docker.compose"));
    let said: Vec<String> = said.map(|(key, value)| format!("{key}={value}")).collect();
    format!("{} {}", options.filename, said.join(" "))
}

/// An address without what its owner may want to keep to himself.
fn shown(address: &str) -> String {
    match address.split_once("://") {
        Some((scheme, rest)) => match rest.split_once('@') {
            Some((_, place)) if !rest.split('/').next().unwrap_or_default().is_empty() => format!("{scheme}://{place}"),
            _ => address.to_owned(),
        },
        None => address.to_owned(),
    }
}

async fn request(build: &Build, frontend: &Frontend, options: &Options) -> Result<BuildRequest, BuildError> {
    // What the files are read from comes with the sources.
    let mut request = BuildRequest::new(BuildContext::Folder(std::path::PathBuf::new()));
    request.style = BuildStyle::Steps;
    request.dockerfile = options.filename.clone();
    request.run_key = serde_json::Value::Object(options.host.clone()).to_string();
    request.keep_containers = KeepContainers::None;
    request.args = options.args.clone();
    request.labels = options.labels.clone();
    request.platforms = options.platforms.clone();
    request.target = options.target.clone();
    request.pull = options.pull;
    request.no_cache = options.no_cache;
    request.no_cache_stages = options.no_cache_stages.clone();
    request.epoch = options.epoch;
    request.inline_cache = options.inline_cache;
    request.cache_imports = caches::imports(build, &frontend.cache_imports).await?;
    request.allowed = options::allowed(build.entitlements());
    for (name, named) in &options.named {
        let context = match named {
            Named::Files(_) => NamedContext::Files,
            Named::Image(image) => NamedContext::Image(image.clone()),
            Named::Address(address) => NamedContext::Address(address.clone()),
            Named::Layout { store, digest } => NamedContext::Content {
                name: format!("oci-layout://{name}@{digest}"),
                store: Arc::new(ClientContent::new(build.session().await?, format!("oci:{store}"))),
                digest: digest.clone(),
            },
            Named::Input(key) => {
                let output = frontend.inputs.get(key).cloned().and_then(|output| output.downcast::<BuildOutput>().ok());
                NamedContext::Built(output.ok_or_else(|| {
                    BuildError::new(
                        ErrorKind::Invalid,
                        format!("the context {name} is the result of another build, which is not known here any more: build it again"),
                    )
                })?)
            }
        };
        request.named.insert(name.to_ascii_lowercase(), context);
    }
    Ok(request)
}

/// Builds on a thread of its own: it is bound by disk, and its futures borrow in ways that keep them from moving between
/// threads.
async fn on_a_thread(
    app: App,
    build: Arc<Build>,
    request: BuildRequest,
    sources: Arc<dyn BuildSources>,
    steps: bireme_engine::request::CreateRequest,
) -> Result<BuildOutput, BuildError> {
    let place = crate::work::place(crate::work::Way::In).await;
    let runtime = tokio::runtime::Handle::current();
    let built = tokio::task::spawn_blocking(move || {
        let _place = place;
        let teller = Teller::new(build.progress());
        let log = |event| teller.tell(event);
        let work = async {
            tokio::select! {
                built = bireme_engine::solve(&app.engine, request, &*sources, steps, &log) => {
                    built.map_err(|error| teller.located(failed(&error), &progress::lines(&error)))
                }
                () = build.cancelled().cancelled() => Err(BuildError::cancelled()),
                () = app.stop.cancelled() => Err(BuildError::new(ErrorKind::Unavailable, "the daemon stops")),
            }
        };
        runtime.block_on(work)
    });
    built.await.unwrap_or_else(|_| Err(BuildError::new(ErrorKind::Internal, "the build ended without an answer")))
}
