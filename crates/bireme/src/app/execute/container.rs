//! Making, replacing, starting and stopping single containers of an app.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use bireme_api::Hijacked;
use bireme_api::answers::container::{Container, Created, MountPoint};
use bireme_api::models::{Mount, MountType};
use bireme_compose::{CreateRequest, labels};

use super::{Executor, Started, gone};
use crate::app::Member;

impl Executor<'_> {
    /// When the last run ended, where anybody asks.
    pub(super) async fn ended_before(&self, reference: &str) -> anyhow::Result<Option<String>> {
        if self.started.is_none() {
            return Ok(None);
        }
        let container: Container = self.context.client.get(format!("/containers/{reference}/json")).read().await?;
        Ok(Some(container.state.finished_at).filter(|time| crate::units::seconds(time).is_some()))
    }

    pub(super) async fn announce(
        &self,
        service: &str,
        reference: &str,
        before: Option<String>,
        output: Hijacked,
    ) -> anyhow::Result<()> {
        let Some(started) = &self.started else { return Ok(()) };
        let container: Container = self.context.client.get(format!("/containers/{reference}/json")).read().await?;
        let number = container.config.labels.get(labels::NUMBER).and_then(|text| text.parse().ok());
        let named = |text: Option<String>| text.unwrap_or_else(|| reference.to_owned());
        let member = Member {
            name: named(container.name).trim_start_matches('/').to_owned(),
            id: named(container.id),
            service: service.to_owned(),
            number: number.unwrap_or(1),
            running: true,
        };
        // Nobody follows any more when the user has left.
        let _ = started.send(Started { member, before, output });
        Ok(())
    }

    /// Makes a container that is called `passing` until it takes the name that was asked for, which is what messages say.
    pub(super) async fn create(&self, request: &CreateRequest, passing: &str) -> anyhow::Result<String> {
        let (client, name) = (&self.context.client, &request.name);
        let created: Created = client
            .post("/containers/create")
            .query("name", passing)
            .query_some("platform", request.platform.as_deref())
            .json(&request.body)
            .read()
            .await
            .with_context(|| format!("cannot create {name}"))?;
        for warning in &created.warnings {
            self.context.printer.note(format!("WARNING: {name}: {warning}"))?;
        }
        if !request.files.is_empty() {
            let archive = files(request).with_context(|| format!("cannot pack the secrets and configs of {name}"))?;
            let body = futures::stream::once(async move { Ok(archive.into()) });
            client
                .put(format!("/containers/{}/archive", created.id))
                .query("path", "/")
                .archive(body)
                .done()
                .await
                .with_context(|| format!("cannot put secrets and configs into {name}"))?;
        }
        Ok(created.id)
    }

    /// The new container is made before the old one goes: if it cannot be made, the old one stays.
    pub(super) async fn recreate(
        &self,
        old: &str,
        old_running: bool,
        timeout: Option<Duration>,
        request: &CreateRequest,
    ) -> anyhow::Result<()> {
        let client = &self.context.client;
        let before: Container = client.get(format!("/containers/{old}/json")).read().await?;
        let mut request = request.clone();
        keep_anonymous_volumes(&before.mounts, &mut request);
        let passing = format!("{}_{}", before.id.as_deref().unwrap_or(old).get(..12).unwrap_or(old), request.name);
        let new = self.create(&request, &passing).await?;
        let removed = async {
            if old_running {
                self.stop_container(old, timeout).await?;
            }
            anyhow::Ok(gone(client.delete(format!("/containers/{old}")).query("force", 1).done().await)?)
        };
        let swapped = match removed.await {
            Ok(()) => {
                let call = client.post(format!("/containers/{new}/rename")).query("name", &request.name);
                call.done().await.map_err(anyhow::Error::from)
            }
            Err(error) => {
                // The old one stays, so the new one goes.
                if let Err(error) = gone(client.delete(format!("/containers/{new}")).query("force", 1).done().await) {
                    self.context.printer.note(format!("WARNING: {passing} is left over: {error:#}"))?;
                }
                Err(error)
            }
        };
        swapped.with_context(|| format!("cannot replace {}", request.name))
    }

    pub(super) async fn stop_container(&self, reference: &str, timeout: Option<Duration>) -> anyhow::Result<()> {
        let call = self
            .context
            .client
            .post(format!("/containers/{reference}/stop"))
            .query_some("t", timeout.map(|timeout| timeout.as_secs()));
        Ok(gone(call.done().await)?)
    }
}

/// Anonymous volumes of the old container go over to the new one.
fn keep_anonymous_volumes(old: &[MountPoint], request: &mut CreateRequest) {
    let host = request.body.host_config.get_or_insert_default();
    let taken: BTreeSet<String> = host
        .mounts
        .iter()
        .flatten()
        .filter_map(|mount| mount.target.clone())
        .chain(host.binds.iter().flatten().filter_map(|bind| bind.split(':').nth(1).map(str::to_owned)))
        .collect();
    for mount in old {
        let name = mount.name.as_deref().unwrap_or_default();
        let target = mount.destination.as_str();
        let anonymous = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if mount.kind == "volume" && anonymous && !taken.contains(target) {
            host.mounts.get_or_insert_default().push(Mount {
                typ: Some(MountType::VOLUME),
                source: Some(name.to_owned()),
                target: Some(target.to_owned()),
                ..Mount::default()
            });
        }
    }
}

/// The secrets and configs of a container as an archive for its root.
fn files(request: &CreateRequest) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for file in &request.files {
        let mut header = tar::Header::new_gnu();
        header.set_size(file.content.len() as u64);
        header.set_mode(file.mode);
        header.set_uid(file.uid.into());
        header.set_gid(file.gid.into());
        header.set_mtime(0);
        archive.append_data(&mut header, file.path.trim_start_matches('/'), file.content.as_slice())?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn anonymous_volumes_go_over() {
        let name = "a".repeat(64);
        let old = json!([
            {"Type": "volume", "Name": name, "Destination": "/data"},
            {"Type": "volume", "Name": "named", "Destination": "/n"},
            {"Type": "bind", "Source": "/x", "Destination": "/x"},
        ]);
        let old: Vec<MountPoint> = serde_json::from_value(old).unwrap();
        let mut request =
            CreateRequest { name: "n".into(), platform: None, body: Default::default(), files: Vec::new() };
        keep_anonymous_volumes(&old, &mut request);
        let mounts = request.body.host_config.unwrap().mounts.unwrap();
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].source.as_deref(), Some(name.as_str()));
    }
}
