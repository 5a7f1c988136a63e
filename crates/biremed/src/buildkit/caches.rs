//! Caches of steps that clients name: `--cache-from` and `--cache-to`.
//!
//! Source: BuildKit, `cache/remotecache/registry` and `local`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bireme_buildkit::{Build, BuildError, CacheOption, Session, Vertex, Warning};
use bireme_core::ErrorKind;
use bireme_core::go::parse_bool;
use bireme_image::{BuildOutput, CacheImport, CacheMode, ExportedCache, Packing, Reference};
use serde_json::json;

use super::content::ClientContent;
use super::exporting::{ended, on_a_thread, packing, reference};
use super::failed;
use super::sources::credentials;

/// The caches that steps may be taken from. Of a kind that is not known here there is nothing to take.
///
/// # Errors
/// When the client's session is gone.
pub(super) async fn imports(build: &Build, caches: &[CacheOption]) -> Result<Vec<CacheImport>, BuildError> {
    let mut imports = Vec::new();
    for cache in caches {
        let option = |name: &str| cache.options.get(name).cloned().unwrap_or_default();
        match cache.kind.as_str() {
            "registry" => imports.push(CacheImport::Registry(option("ref"))),
            "local" => imports.push(CacheImport::Client {
                name: option("src"),
                store: Arc::new(ClientContent::new(build.session().await?, store_of(&option("src")))),
                digest: option("digest"),
            }),
            _ => {}
        }
    }
    Ok(imports)
}

/// By which name the client knows the store of a cache in that folder.
fn store_of(folder: &str) -> String {
    format!("local:{folder}")
}

/// Whether one of the caches goes into the image itself.
///
/// # Errors
/// `Unsupported` for one that is not offered, by name.
pub(super) fn is_inline(caches: &[CacheOption]) -> Result<bool, BuildError> {
    if let Some(other) = caches.iter().find(|cache| !matches!(cache.kind.as_str(), "inline" | "registry" | "local")) {
        return Err(BuildError::new(
            ErrorKind::Unsupported,
            format!(
                "--cache-to type={} is not offered by this builder: use type=registry, type=local or type=inline",
                other.kind
            ),
        ));
    }
    Ok(caches.iter().any(|cache| cache.kind == "inline"))
}

/// Gives the steps of a build away; answers what the client keeps of that.
///
/// # Errors
/// What the registry or the client refuses, unless it is to be ignored (`ignore-error=true`).
pub(super) async fn export(
    build: &Arc<Build>,
    output: &Arc<BuildOutput>,
    caches: &[CacheOption],
) -> Result<BTreeMap<String, String>, BuildError> {
    let mut response = BTreeMap::new();
    for cache in caches.iter().filter(|cache| cache.kind != "inline") {
        let place = if cache.kind == "local" { "client directory" } else { "registry" };
        let vertex = build.progress().vertex(&format!("exporting cache to {place}"), &[]);
        vertex.start();
        let exported = ended(&vertex, one(build, output, cache, &vertex).await);
        let ignored = cache.options.get("ignore-error").is_some_and(|value| parse_bool(value) == Some(true));
        match exported {
            Ok(exported) => {
                let described =
                    json!({ "mediaType": exported.media_type, "digest": exported.digest, "size": exported.size });
                response.insert("cache.manifest".to_owned(), described.to_string());
            }
            Err(error) if ignored && !error.is_cancelled() => build.progress().warn(
                None,
                Warning {
                    level: 0,
                    short: format!("the cache was not exported: {}", error.message()),
                    detail: Vec::new(),
                    url: String::new(),
                    place: None,
                },
            ),
            Err(error) => return Err(error),
        }
    }
    Ok(response)
}

async fn one(
    build: &Arc<Build>,
    output: &Arc<BuildOutput>,
    cache: &CacheOption,
    vertex: &Vertex,
) -> Result<ExportedCache, BuildError> {
    let mode = match cache.options.get("mode").map(String::as_str) {
        None | Some("" | "min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => {
            return Err(BuildError::new(
                ErrorKind::Invalid,
                format!("invalid mode \"{other}\" of --cache-to: it is min or max"),
            ));
        }
    };
    let packing = packing(&cache.options)?;
    let session = build.session().await?;
    let option = |name: &str| cache.options.get(name).cloned().unwrap_or_default();
    if cache.kind == "local" {
        let store = ClientContent::new(session, store_of(&option("dest")));
        let output = Arc::clone(output);
        let written = async move { output.write_cache(&store, mode, packing).await };
        return vertex.during("writing layers", written).await.map_err(|error| failed(&error));
    }
    let name = reference(&option("ref"))?;
    vertex.during(&format!("pushing {name}"), push(&session, output, name.clone(), mode, packing)).await
}

async fn push(
    session: &Session,
    output: &Arc<BuildOutput>,
    name: Reference,
    mode: CacheMode,
    packing: Packing,
) -> Result<ExportedCache, BuildError> {
    let auth = credentials(session, name.registry()).await?;
    let output = Arc::clone(output);
    on_a_thread(async move || output.push_cache(name, mode, packing, auth, &|_| {}).await).await
}
