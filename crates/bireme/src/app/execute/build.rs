//! Building the image of a service.

use std::path::Path;

use anyhow::bail;
use bireme_compose::{Build, labels};
use serde_json::{Value, json};

use super::Executor;
use crate::archive::BuildContext;
use crate::commands::build;
use crate::registry;

impl Executor<'_> {
    /// Sends the context of `service`, or names its address, and says what the build says, each line after the service's name.
    pub(super) async fn build(
        &self,
        service: &str,
        image: &str,
        platform: Option<&str>,
        build: &Build,
    ) -> anyhow::Result<()> {
        let remote = build::is_remote(&build.context).then(|| build.context.clone());
        if remote.is_none() && build.context.contains("://") {
            bail!("cannot build from {}: it is neither a folder nor an address of http, https or git", build.context);
        }
        let folder = if remote.is_some() {
            None
        } else {
            Some(BuildContext::open(
                Path::new(&build.context),
                build
                    .dockerfile
                    .as_deref()
                    .map(|file| Path::new(&build.context).join(file))
                    .as_deref()
                    .and_then(Path::to_str),
                build.dockerfile_inline.as_deref(),
            )?)
        };
        let mut tags = vec![registry::with_tag(image)];
        tags.extend(build.tags.iter().map(|tag| registry::with_tag(tag)));
        let map = |pairs: Value| pairs.as_object().cloned().unwrap_or_default();
        let mut image_labels = map(json!(build.labels));
        image_labels.insert(labels::PROJECT.to_owned(), self.project.name.clone().into());
        image_labels.insert(labels::SERVICE.to_owned(), service.into());
        let wish = build::Wish {
            tags,
            platform: platform.map(str::to_owned),
            target: build.target.clone(),
            args: map(json!(build.args)),
            labels: image_labels,
            extra_hosts: build.extra_hosts.clone(),
            network: build.network.clone(),
            shm_size: build.shm_size,
            cache_from: build.cache_from.clone(),
            no_cache: build.no_cache,
            pull: build.pull,
            quiet: false,
            keep: false,
            remote,
        };
        let mut rest = String::new();
        let say = |text: &str| {
            rest.push_str(text);
            while let Some(end) = rest.find('\n') {
                let line = rest[..end].trim_end();
                if !line.is_empty() {
                    self.context.printer.note(format!(" {service} | {line}"))?;
                }
                rest.drain(..=end);
            }
            Ok(())
        };
        match folder {
            Some(folder) => {
                let dockerfile = folder.dockerfile.clone();
                build::submit(self.context, &wish, &dockerfile, folder.stream(), say).await?;
            }
            None => {
                let dockerfile = build.dockerfile.as_deref().unwrap_or("Dockerfile");
                build::submit(self.context, &wish, dockerfile, futures::stream::empty(), say).await?;
            }
        }
        Ok(())
    }
}
