//! Pushing: layers that the registry lacks, then the configuration, then the manifest.
//!
//! A name with several platforms goes up as one index, so that one tag serves containers and components. Layers that
//! are stored as they are, because they were made here, are packed on the way; what they are packed to is remembered. Layers
//! that another repository of the registry has are mounted from there.

mod artifact;
mod documents;
mod layer;

use std::collections::BTreeSet;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::auth::RegistryAuth;
use crate::content_store::ContentStore;
use crate::digest::{Digest, ImageId};
use crate::error::{ImageError, StoreContext as _};
use crate::events::{OnProgress, Progress};
use crate::guard::GcGuard;
use crate::model::{Descriptor, Document, OCI_INDEX};
use crate::platform::Platform;
use crate::record::Record;
use crate::reference::Reference;
use crate::registry::{Failure, Remote, Tries};
use crate::store::{ImageStore, offered};

use documents::Entry;

pub(crate) use documents::repacked;
pub use layer::Packing;
pub(crate) use layer::Ready;

/// Repositories of one registry that layers are mounted from in one push.
const MOST_SOURCES: usize = 8;

/// What is pushed, and how.
#[derive(Clone, Debug)]
pub struct PushRequest {
    /// Its tag, or with `all_tags` its repository.
    pub name: Reference,
    /// Every tag of the repository that is stored here.
    pub all_tags: bool,
    /// Of a name with several platforms this one alone; the tag stands for it then.
    pub platform: Option<Platform>,
    /// How layers are packed.
    pub packing: Packing,
    /// A component goes as a Wasm artifact rather than as an image.
    pub artifact: bool,
    /// The index of a name with several platforms, as they are stored; `None` for the one that they came with.
    pub index: Option<Vec<u8>>,
    /// Who pushes.
    pub auth: Option<RegistryAuth>,
}

impl PushRequest {
    /// One tag, all platforms of it, as it is stored.
    pub fn new(name: Reference) -> Self {
        let packing = Packing::default();
        Self { name, all_tags: false, platform: None, packing, artifact: false, index: None, auth: None }
    }
}

/// A tag as its registry has it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Without the repository: `latest`.
    pub tag: String,
    /// Of the manifest or index.
    pub digest: Digest,
    /// Bytes of the manifest or index.
    pub size: u64,
}

/// One push, as all its parts see it.
struct Pushing<'a> {
    store: &'a ImageStore,
    remote: &'a Remote,
    request: &'a PushRequest,
    /// Repositories of the registry that may have layers of it already.
    sources: Vec<String>,
    progress: OnProgress<'a>,
}

impl ImageStore {
    /// Brings a name to its registry. Each tag is told to `done` when the registry has it.
    ///
    /// # Errors
    /// `NothingToPush` when nothing of that name is stored; `NoPlatform`; `NoComponent` where an artifact is wanted of what has
    /// none; `Unauthorized`, `PullDenied`; `Registry` after all retries. Layers that arrived stay with the registry.
    /// # Cancel safety
    /// Dropping the future leaves the tag at the registry as it was.
    ///
    /// Source: Docker Engine API, `ImagePush`; OCI distribution specification, "Push".
    pub async fn push(
        &self,
        request: &PushRequest,
        progress: OnProgress<'_>,
        done: &(dyn Fn(&Pushed) + Send + Sync),
    ) -> Result<(), ImageError> {
        let name = &request.name;
        if name.digest().is_some() {
            return Err(ImageError::NothingToPush { reason: "cannot push a digest reference".to_owned() });
        }
        let stored = self.inner.db.tags_of(name)?;
        let full = format!("{}/{}", name.registry(), name.repository());
        progress(Progress::whole(format!("The push refers to repository [{full}]")));
        if stored.is_empty() {
            let reason = format!("An image does not exist locally with the tag: {}", name.familiar_name());
            return Err(ImageError::NothingToPush { reason });
        }
        let remote = Remote::to_push(&self.inner.settings, name, request.auth.clone())?;
        for name in if request.all_tags { stored } else { vec![name.clone()] } {
            let pushed = self.push_one(&remote, request, &name, progress).await?;
            done(&pushed);
        }
        Ok(())
    }

    /// Brings an image that is not recorded, and whose layers somebody keeps, to a registry; answers its manifest there.
    pub(crate) async fn push_record(
        &self,
        request: &PushRequest,
        record: &Record,
        progress: OnProgress<'_>,
    ) -> Result<Descriptor, ImageError> {
        let name = &request.name;
        let remote = Remote::to_push(&self.inner.settings, name, request.auth.clone())?;
        remote.log_in().await?;
        let pushing = Pushing { store: self, remote: &remote, request, sources: Vec::new(), progress };
        pushing.image(record, Some(name.version())).await
    }

    /// Writes such an image to a client's content store; answers its manifest there.
    pub(crate) async fn write_record(
        &self,
        to: &dyn ContentStore,
        record: &Record,
        packing: Packing,
    ) -> Result<Descriptor, ImageError> {
        let mut layers = Vec::new();
        for layer in &record.layers {
            if let Some(known) = layer::packed(&self.inner, layer, packing)?
                && to.has(&known.digest).await?
            {
                layers.push(known);
                continue;
            }
            let ready = layer::Ready::of(&self.inner, layer, packing).await?;
            let file = tokio::fs::File::open(&ready.path).await.during("open the layer", &ready.path)?;
            to.write(&ready.blob.digest, ready.blob.size, Box::new(file)).await?;
            layers.push(ready.blob);
        }
        let manifest = documents::repacked(&record.manifest, &layers);
        let media_type = documents::media_type(&manifest, crate::model::OCI_MANIFEST);
        let written = Descriptor { media_type, digest: Digest::of(&manifest), size: manifest.len() as u64 };
        for document in [record.config.clone(), manifest] {
            let (digest, size) = (Digest::of(&document), document.len() as u64);
            to.write(&digest, size, Box::new(std::io::Cursor::new(document))).await?;
        }
        Ok(written)
    }

    async fn push_one(
        &self,
        remote: &Remote,
        request: &PushRequest,
        name: &Reference,
        progress: OnProgress<'_>,
    ) -> Result<Pushed, ImageError> {
        let images = self.to_push(request, name)?;
        let mut claim = GcGuard::new(&self.inner);
        let mut records = Vec::new();
        let mut sources = BTreeSet::new();
        for (platform, id) in &images {
            let record = self.inner.record(id)?;
            for layer in &record.layers {
                claim.blob(&layer.blob.digest);
                let known = self.inner.db.repositories_with(&layer.diff_id, name)?;
                sources.extend(known);
            }
            records.push((platform.clone(), record));
        }
        let sources: Vec<String> = sources.into_iter().take(MOST_SOURCES).collect();
        remote.takes_from(sources.clone());
        remote.log_in().await?;
        let pushing = Pushing { store: self, remote, request, sources, progress };
        let tag = name.tag().unwrap_or(name.version()).to_owned();
        let index = match &request.index {
            _ if request.artifact => None,
            Some(index) => Some(index.clone()),
            None => self.index_of(&records)?,
        };
        // Of several, each is known by its digest, and the tag by what lists them.
        let alone = records.len() == 1 && (index.is_none() || request.platform.is_some());
        let version = alone.then_some(tag.as_str());
        let mut sent = Vec::new();
        for (platform, record) in records {
            let was = Digest::of(&record.manifest);
            let descriptor = if request.artifact {
                pushing.artifact(&record, version).await?
            } else {
                pushing.image(&record, version).await?
            };
            sent.push(Entry { platform, was, descriptor });
        }
        let (digest, size) = match &sent[..] {
            [only] if alone => (only.descriptor.digest.clone(), only.descriptor.size),
            several => {
                let bytes = documents::index(index.as_deref(), several);
                let (kind, bytes) = (documents::media_type(&bytes, OCI_INDEX), bytes);
                again(remote, async || remote.send_manifest(&tag, &kind, bytes.clone()).await).await?;
                (Digest::of(&bytes), bytes.len() as u64)
            }
        };
        for (_, id) in &images {
            self.inner.db.add_repo_digest(name, id, &digest)?;
        }
        Ok(Pushed { tag, digest, size })
    }

    /// The images of a name that go.
    fn to_push(&self, request: &PushRequest, name: &Reference) -> Result<Vec<(Platform, ImageId)>, ImageError> {
        let all = self.inner.db.by_name(name)?;
        if all.is_empty() {
            return Err(ImageError::NothingToPush { reason: format!("tag does not exist: {}", name.familiar()) });
        }
        let component = Platform::wasm();
        let wanted = request.platform.as_ref().or_else(|| request.artifact.then_some(&component));
        let Some(wanted) = wanted else { return Ok(all) };
        match all.iter().find(|(own, _)| own.serves(wanted)) {
            Some(found) => Ok(vec![found.clone()]),
            None => Err(ImageError::NoPlatform {
                name: name.familiar(),
                wanted: wanted.clone(),
                offered: offered(all.iter().map(|(own, _)| own)),
            }),
        }
    }

    /// The index that these were taken from: of one platform only if it lists no other, as what is not here cannot go.
    fn index_of(&self, images: &[(Platform, Record)]) -> Result<Option<Vec<u8>>, ImageError> {
        let Some((_, first)) = images.first() else { return Ok(None) };
        let here: Vec<Digest> = images.iter().map(|(_, record)| Digest::of(&record.manifest)).collect();
        let known = self.inner.db.indexes_of(&first.id)?;
        Ok(known.into_iter().find(|index| {
            let listed = documents::listed(index);
            here.iter().all(|own| listed.contains(own)) && (here.len() > 1 || listed.len() == 1)
        }))
    }
}

impl Pushing<'_> {
    /// Sends what one platform is made of; answers how the registry knows it.
    async fn image(&self, record: &Record, version: Option<&str>) -> Result<Descriptor, ImageError> {
        for layer in &record.layers {
            (self.progress)(Progress::of(layer.diff_id.short(), "Preparing"));
        }
        let sending = record.layers.iter().map(|layer| self.layer(layer));
        let at_once = self.store.inner.settings.uploads.max(1);
        let layers: Vec<Descriptor> = futures::stream::iter(sending).buffered(at_once).try_collect().await?;
        let Document::Manifest(own) = Document::parse(&record.manifest, record.id.as_str())? else {
            return Err(ImageError::malformed(record.id.as_str(), "an index stands where the manifest should"));
        };
        self.document(&own.config.digest, &record.config).await?;
        // Unchanged, it has the digest that it came with.
        let bytes =
            if layers == own.layers { record.manifest.clone() } else { documents::repacked(&record.manifest, &layers) };
        self.manifest(bytes, version).await
    }

    /// Sends a small blob, unless the registry has it.
    async fn document(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        again(self.remote, async || {
            if self.remote.has_blob(digest).await? {
                return Ok(());
            }
            let start = self.remote.start_upload().await?;
            let content = bytes::Bytes::copy_from_slice(bytes);
            self.remote.send_blob(start, digest, content.len() as u64, futures::stream::iter([Ok(content)])).await
        })
        .await
    }

    /// Sends a manifest, under its digest or what else it is to be known by.
    async fn manifest(&self, bytes: Vec<u8>, version: Option<&str>) -> Result<Descriptor, ImageError> {
        let media_type = documents::media_type(&bytes, crate::model::OCI_MANIFEST);
        let digest = Digest::of(&bytes);
        let version = version.unwrap_or(digest.as_str());
        let listed =
            again(self.remote, async || self.remote.send_manifest(version, &media_type, bytes.clone()).await).await?;
        let sent = Descriptor { media_type, size: bytes.len() as u64, digest };
        // A registry that keeps no list of what refers to what leaves that to whoever pushes.
        if !listed && let Some(subject) = documents::subject(&bytes) {
            self.list_referrer(&subject, &bytes, &sent).await?;
        }
        Ok(sent)
    }

    /// Adds a manifest to the list of those that refer to `subject`, which is kept under a tag of its own. Two that do so at
    /// once may each leave out the other, as the specification says.
    ///
    /// Source: OCI distribution specification, "Pushing Manifests with Subject".
    async fn list_referrer(&self, subject: &Digest, manifest: &[u8], sent: &Descriptor) -> Result<(), ImageError> {
        let tag = format!("sha256-{}", subject.hex());
        let known = match self.remote.manifest(&tag).await {
            Ok((bytes, _)) => Some(bytes),
            Err(ImageError::ManifestUnknown { .. } | ImageError::PullDenied { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(bytes) = documents::with_referrer(known.as_deref(), manifest, sent) else { return Ok(()) };
        again(self.remote, async || self.remote.send_manifest(&tag, OCI_INDEX, bytes.clone()).await).await.map(|_| ())
    }
}

/// Tries until it succeeds, another attempt makes no sense, or there were enough.
async fn again<T>(remote: &Remote, mut act: impl AsyncFnMut() -> Result<T, Failure>) -> Result<T, ImageError> {
    let mut tries = Tries::default();
    loop {
        match act().await {
            Ok(done) => return Ok(done),
            Err(failure) => tries.again(remote, failure).await?,
        }
    }
}
