//! Images of what is there already: what a container changed, or a whole file tree from elsewhere.

use std::collections::HashSet;

use chrono::{SubsecRound as _, Utc};
use tokio::io::AsyncRead;
use tokio_util::io::SyncIoBridge;

use crate::admit::Candidate;
use crate::build::stage::Stage;
use crate::digest::ImageId;
use crate::error::ImageError;
use crate::guard::GcGuard;
use crate::made::Changes;
use crate::model::{ConfigFile, History, ImageConfig};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::settings::Limits;
use crate::store::ImageStore;
use crate::unpack::open_sent;

/// An image to be made.
pub struct Commit {
    /// The image that the new layer lies on; `None` for a layer on nothing.
    pub parent: Option<ImageId>,
    /// `None` is the parent's, else Linux on this machine.
    pub platform: Option<Platform>,
    /// Writes the files of the image, or what of them is other than in `parent`. A layer without entries is left out.
    pub layer: Changes,
    /// What the image shall start with; `changes` come on top.
    pub config: ImageConfig,
    /// Fills what `config` and `changes` leave open.
    pub defaults: ImageConfig,
    /// Instructions as in a Dockerfile: those that change the configuration alone.
    pub changes: Vec<String>,
    /// Who made it, in free text; Docker's form is `NAME <ADDRESS>`.
    pub author: Option<String>,
    /// What `docker history` shows beside the new layer.
    pub comment: Option<String>,
    /// What the history says of the new layer.
    pub created_by: Option<String>,
    /// A name to give to the image; `None` leaves it dangling.
    pub name: Option<Reference>,
}

impl Commit {
    /// A file tree as an image.
    ///
    /// `archive` may be compressed. Reads it while it is packed, so that it is never whole in memory.
    pub fn import(archive: impl AsyncRead + Send + Unpin + 'static, changes: Vec<String>) -> Self {
        let archive = SyncIoBridge::new(archive);
        let layer: Changes = Box::new(move |out| {
            let mut archive = open_sent(archive, &Limits::default())?;
            std::io::copy(&mut archive, out).map(|_| ())
        });
        Self {
            parent: None,
            platform: None,
            layer,
            config: ImageConfig::default(),
            defaults: ImageConfig::default(),
            changes,
            author: None,
            comment: None,
            created_by: None,
            name: None,
        }
    }
}

impl ImageStore {
    /// Makes an image of a layer and, if there is one, the image below it.
    ///
    /// # Errors
    /// `Dockerfile` for a change that is wrong; `NotFound` for the parent; `NoComponent` for one without files; whatever
    /// unpacking the layer refuses; `NoSpace`. Nothing is recorded then.
    /// # Cancel safety
    /// Dropping the future records nothing and deletes what was made.
    ///
    /// Source: Docker Engine API, `ImageCommit` and `ImageCreate` with `fromSrc`.
    pub async fn commit(&self, commit: Commit) -> Result<ImageId, ImageError> {
        let mut claim = GcGuard::new(&self.inner);
        let (mut file, layers) = match &commit.parent {
            Some(parent) => {
                let record = self.inner.record(parent)?;
                if record.artifact_type.is_some() {
                    return Err(ImageError::NoComponent {
                        image: parent.to_string(),
                        reason: "it is a Wasm artifact, which has no root filesystem to commit on".to_owned(),
                    });
                }
                record.layers.iter().for_each(|layer| claim.both(layer));
                (record.config_file()?, record.layers)
            }
            None => (ConfigFile::empty(commit.platform.unwrap_or_else(Platform::host)), Vec::new()),
        };
        file.config = commit.config;
        let mut stage = Stage::new(file, layers);
        stage.change(&commit.changes)?;
        stage.config.config.fill(commit.defaults);

        let now = Utc::now().trunc_subsecs(3);
        let layer = self.pack(commit.layer, false, &mut claim).await?;
        stage.config.history.push(History {
            created: Some(now),
            created_by: commit.created_by,
            author: commit.author.clone(),
            comment: commit.comment.clone(),
            empty_layer: layer.is_none(),
        });
        if let Some(layer) = layer {
            stage.push(layer);
        }
        stage.config.created = Some(now);
        stage.config.author = commit.author;
        stage.config.comment = commit.comment;
        let record = stage.record()?;
        let id = record.id.clone();
        let names = commit.name.into_iter().map(|name| (name, None)).collect();
        self.admit(vec![Candidate { record, names }], &mut claim).await?;
        Ok(id)
    }
}

impl ImageConfig {
    /// Takes over what is not set. Source: moby, `daemon/commit.go`, `merge`.
    fn fill(&mut self, other: Self) {
        if self.user.is_empty() {
            self.user = other.user;
        }
        for (port, empty) in other.exposed_ports {
            self.exposed_ports.entry(port).or_insert(empty);
        }
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        let mut known: HashSet<String> = self.env.iter().map(|own| name(own)).collect();
        self.env.extend(other.env.into_iter().filter(|pair| known.insert(name(pair))));
        for (key, value) in other.labels {
            self.labels.entry(key).or_insert(value);
        }
        // A command of the other's is for the other's entrypoint.
        if self.entrypoint.is_none() {
            if self.cmd.as_ref().is_none_or(Vec::is_empty) {
                self.cmd = other.cmd;
            }
            self.entrypoint = other.entrypoint;
        }
        self.healthcheck = self.healthcheck.take().or(other.healthcheck);
        if self.working_dir.is_empty() {
            self.working_dir = other.working_dir;
        }
        self.volumes.extend(other.volumes);
        self.stop_signal = self.stop_signal.take().or(other.stop_signal);
        self.shell = self.shell.take().or(other.shell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_set_stays_and_the_rest_is_filled() {
        let container = ImageConfig {
            user: "1000".to_owned(),
            env: vec!["A=1".to_owned(), "B=2".to_owned()],
            cmd: words(&["sh"]),
            entrypoint: words(&["/entry"]),
            ..ImageConfig::default()
        };
        let mut plain = ImageConfig::default();
        plain.fill(container.clone());
        assert_eq!(plain, container);

        let mut command = ImageConfig { cmd: words(&["other"]), env: vec!["B=3".to_owned()], ..ImageConfig::default() };
        command.fill(container.clone());
        assert_eq!((command.cmd, command.entrypoint), (words(&["other"]), words(&["/entry"])));
        assert_eq!(command.env, ["B=3", "A=1"]);

        // As many as a document of 4 MiB holds: each against each, that took minutes.
        let many = |value: u8| (0..300_000).map(|n| format!("V{n}={value}")).collect::<Vec<_>>();
        let mut twice = ImageConfig { env: many(1), ..ImageConfig::default() };
        twice.fill(ImageConfig { env: many(2), ..ImageConfig::default() });
        assert_eq!(twice.env, many(1));

        let mut entrypoint = ImageConfig { entrypoint: words(&["/new"]), ..ImageConfig::default() };
        entrypoint.fill(container);
        assert_eq!((entrypoint.cmd, entrypoint.entrypoint), (None, words(&["/new"])));
    }
}
