//! BuildKit's clients: what they ask for is built by the image library and the engine, and given back to them.
//!
//! ```text
//! routes/buildkit ── bireme-buildkit (protocol) ── Builder, here ── bireme-engine::solve ── bireme-image
//!                                                    │ options    what the front end is asked for
//!                                                    │ sources    files, secrets and agents over the client's session
//!                                                    │ progress   steps as the client sees them
//!                                                    │ export     images, archives, folders, pushes
//!                                                    └ usage      the cache of builds
//! ```

mod annotations;
mod caches;
mod content;
mod export;
mod exporting;
mod options;
mod progress;
mod questions;
mod solve;
mod sources;
mod usage;

use std::collections::BTreeMap;
use std::sync::Arc;

use bireme_buildkit::{
    Build, BuildError, Builder, Entry, Exports, Frontend, GcPolicy, Output, Platform, Prune, SNAPSHOTTER_LABEL, Server,
    Solved, Usage, UsageQuery, Worker,
};
use bireme_core::{BoxFuture, ErrorKind};
use tokio::sync::mpsc;

use crate::app::App;

/// What answers BuildKit's clients.
pub(crate) fn server(app: App) -> Server {
    let results = app.build_results.clone();
    Server::new(Arc::new(ImageBuilder { app }), results)
}

/// Builds with the engine of this daemon.
struct ImageBuilder {
    app: App,
}

impl Builder for ImageBuilder {
    fn version(&self) -> String {
        format!("v{}", env!("CARGO_PKG_VERSION"))
    }

    fn workers(&self) -> BoxFuture<'_, Result<Vec<Worker>, BuildError>> {
        Box::pin(async move {
            let host = bireme_image::Platform::host();
            let platforms = [host, bireme_image::Platform::wasm()].map(|platform| Platform {
                os: platform.os,
                architecture: platform.architecture,
                variant: platform.variant,
            });
            let labels = [
                (SNAPSHOTTER_LABEL, "overlayfs"),
                ("org.mobyproject.buildkit.worker.executor", "bireme"),
                ("org.mobyproject.buildkit.worker.moby.host-gateway-ip", "host-gateway"),
            ];
            let policies = self.app.cache_policy().into_iter().map(|policy| GcPolicy {
                all: true,
                keep_duration: policy.unused,
                max_used_space: policy.most_bytes,
                ..GcPolicy::default()
            });
            Ok(vec![Worker {
                id: self.app.settings.instance.clone(),
                labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
                platforms: platforms.to_vec(),
                gc_policies: policies.collect(),
            }])
        })
    }

    fn solve(&self, build: Arc<Build>, frontend: Frontend) -> BoxFuture<'_, Result<Solved, BuildError>> {
        Box::pin(solve::solve(self.app.clone(), build, frontend))
    }

    fn export(
        &self,
        build: Arc<Build>,
        solved: Option<Solved>,
        exports: Exports,
    ) -> BoxFuture<'_, Result<BTreeMap<String, String>, BuildError>> {
        Box::pin(export::export(self.app.clone(), build, solved, exports))
    }

    fn read_file<'a>(
        &'a self,
        _: Arc<Build>,
        output: &'a Output,
        path: &'a str,
        range: Option<(u64, u64)>,
    ) -> BoxFuture<'a, Result<Vec<u8>, BuildError>> {
        Box::pin(questions::read_file(output, path, range))
    }

    fn stat_file<'a>(
        &'a self,
        _: Arc<Build>,
        output: &'a Output,
        path: &'a str,
    ) -> BoxFuture<'a, Result<Entry, BuildError>> {
        Box::pin(questions::stat_file(output, path))
    }

    fn read_dir<'a>(
        &'a self,
        _: Arc<Build>,
        output: &'a Output,
        path: &'a str,
        include: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Entry>, BuildError>> {
        Box::pin(questions::read_dir(output, path, include))
    }

    fn disk_usage(&self, query: UsageQuery) -> BoxFuture<'_, Result<Vec<Usage>, BuildError>> {
        Box::pin(usage::disk_usage(&self.app, query))
    }

    fn prune(&self, prune: Prune, gone: mpsc::Sender<Usage>) -> BoxFuture<'_, Result<(), BuildError>> {
        Box::pin(usage::prune(&self.app, prune, gone))
    }
}

/// A failure of the image library as clients are told it.
fn failed(error: &bireme_image::ImageError) -> BuildError {
    use bireme_image::ImageError;
    match error {
        ImageError::Run { code, .. } => {
            let error = BuildError::failed(error.of_step());
            u32::try_from(*code).map_or(error.clone(), |code| error.exit_code(code))
        }
        other => match other.kind() {
            ErrorKind::Invalid | ErrorKind::Internal => BuildError::failed(bireme_core::error::chain(other)),
            kind => BuildError::new(kind, bireme_core::error::chain(other)),
        },
    }
}
