//! Loading and saving of archives: what `docker save` writes, old and new, and OCI layouts in a tar.
//!
//! The archive is read once, in whatever order it comes, into files aside; then its tables of contents are read, and
//! only what they name becomes part of the store.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::TempPath;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::SyncIoBridge;

use crate::admit::{Candidate, check_names};
use crate::blob::Ingest;
use crate::blocking::blocking;
use crate::digest::{Digest, ImageId, Summed};
use crate::error::{ImageError, StoreContext as _};
use crate::events::{OnProgress, Progress};
use crate::guard::GcGuard;
use crate::model::{DOCUMENT_LIMIT, Descriptor, Document, LayerForm, Manifest, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST};
use crate::platform::Platform;
use crate::record::{MAX_LAYERS, Record, make_record, too_many_layers};
use crate::reference::Reference;
use crate::store::{ImageStore, Inner};
use crate::tar_bounds::Bounded;
use crate::unpack::{is_cut_off, open_sent, parts, sniff};
use crate::wanted::{Wanted, while_wanted};

/// Files in one archive; an image has two per layer and a few more.
const MAX_FILES: usize = 100_000;

/// Bytes of the names in one archive.
const MAX_NAMES: usize = 16 << 20;

/// Indexes within indexes that are followed.
const MAX_DEPTH: u32 = 4;

/// Bytes of all manifests, indexes and configurations that one archive may have read; each is read once.
const MAX_DOCUMENTS: u64 = 64 << 20;

/// Mentions of images by all indexes of an archive, each of which stands for all images below it.
const MAX_MENTIONS: usize = 1_000_000;

/// One image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: ImageId,
    /// Familiar names it was given; empty if the archive names none.
    pub references: Vec<String>,
}

impl ImageStore {
    /// Loads all images of an archive: `docker save` (old and new form) or an OCI layout, possibly compressed with gzip
    /// or zstd. An index is loaded with all its platforms that the archive holds whole.
    ///
    /// # Errors
    /// `BadArchive`, `MissingBlob`, `DigestMismatch`, what reading manifests and unpacking refuse; nothing is loaded
    /// then.
    /// # Cancel safety
    /// Dropping the future loads nothing and deletes what was read of it.
    pub async fn load(
        &self,
        archive: impl AsyncRead + Send + Unpin + 'static,
        progress: OnProgress<'_>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let inner = self.inner.clone();
        let staged = while_wanted("read an archive", move |wanted| {
            Staged::read(&inner, wanted.lend(SyncIoBridge::new(archive)))
        })
        .await?;
        let (staged, plan) = blocking("read what an archive holds", move || {
            let plan = staged.plan()?;
            Ok((staged, plan))
        })
        .await?;
        let mut claim = GcGuard::new(&self.inner);
        for blob in plan.iter().flat_map(|candidate| &candidate.record.layers).map(|layer| &layer.blob) {
            claim.blob(&blob.digest);
            progress(Progress::counted(blob.digest.short(), "Loading layer", blob.size, blob.size));
        }
        let inner = self.inner.clone();
        let plan = while_wanted("store the layers of an archive", move |wanted| {
            let mut staged = staged;
            let layers = plan.iter().flat_map(|candidate| &candidate.record.layers);
            let digests: HashSet<&Digest> = layers.map(|layer| &layer.blob.digest).collect();
            for digest in digests {
                staged.settle(&inner, digest, wanted)?;
            }
            Ok(plan)
        })
        .await?;
        let mut loaded: Vec<Loaded> = Vec::new();
        for candidate in &plan {
            let references: Vec<String> = candidate.names.iter().map(|(name, _)| name.familiar()).collect();
            loaded.push(Loaded { id: candidate.record.id.clone(), references });
        }
        self.admit(plan, &mut claim).await?;
        for image in &loaded {
            for reference in &image.references {
                progress(Progress::whole(format!("Loaded image: {reference}")));
            }
            if image.references.is_empty() {
                progress(Progress::whole(format!("Loaded image ID: {}", image.id)));
            }
        }
        Ok(loaded)
    }

    /// What `name` asks to be saved: as in Docker, a repository's name alone stands for all its tags.
    ///
    /// # Errors
    /// `Database`.
    pub fn to_save(&self, name: &str) -> Result<Vec<String>, ImageError> {
        let repository = Reference::parse(name).ok().filter(|_| is_name_only(name));
        let tags = repository.map(|reference| self.inner.db.tags_of(&reference)).transpose()?.unwrap_or_default();
        match tags.is_empty() {
            true => Ok(vec![name.to_owned()]),
            false => Ok(tags.iter().map(Reference::familiar).collect()),
        }
    }

    /// Writes images as one archive that is both an OCI layout and what `docker load` reads.
    ///
    /// `names` are references, IDs or prefixes; a reference with several platforms is saved with all of them. Wasm
    /// artifacts stand only in the layout: Docker's form has no place for them.
    ///
    /// # Errors
    /// `NotFound`, `Ambiguous`; `Output` if `out` fails.
    pub async fn save(
        &self,
        names: &[String],
        out: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(), ImageError> {
        let mut chosen: Vec<(Record, Option<Reference>)> = Vec::new();
        let mut claim = GcGuard::new(&self.inner);
        for name in names {
            let reference = Reference::parse(name).ok();
            let by_name = match &reference {
                Some(reference) => self.inner.db.by_name(reference)?,
                None => Vec::new(),
            };
            let (ids, reference) = if by_name.is_empty() {
                (vec![self.inner.find(name, None)?], None)
            } else {
                let tagged = reference.filter(|reference| reference.tag().is_some() && reference.digest().is_none());
                (by_name.into_iter().map(|(_, id)| id).collect(), tagged)
            };
            for id in ids {
                let record = self.inner.record(&id)?;
                record.layers.iter().for_each(|layer| claim.blob(&layer.blob.digest));
                chosen.push((record, reference.clone()));
            }
        }
        let inner = self.inner.clone();
        blocking("save images", move || {
            let _claim = claim;
            write_archive(&inner, &chosen, SyncIoBridge::new(out))
        })
        .await
    }
}

/// Whether `name` has neither tag nor digest.
fn is_name_only(name: &str) -> bool {
    !name.rsplit('/').next().unwrap_or_default().contains([':', '@'])
}

/// A file of the archive, put aside.
struct Part {
    path: TempPath,
    size: u64,
    form: LayerForm,
}

/// The whole archive, put aside. A file is known by what was hashed while it was read, and a path is no more than a way to
/// say which: an archive may have a path twice.
struct Staged {
    parts: HashMap<Digest, Part>,
    /// What lies at a path: of several, the last.
    paths: HashMap<String, Digest>,
    /// Old archives share layers through links: path to path.
    links: HashMap<String, String>,
}

fn bad(reason: impl Into<String>) -> ImageError {
    ImageError::BadArchive { reason: reason.into() }
}

/// An entry of `manifest.json`. Source: github.com/moby/docker-image-spec, `v1.2.md`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SaveEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// `index.json` of a layout: as any index, but what matters are the names in its annotations.
#[derive(Deserialize)]
struct LayoutIndex {
    #[serde(default)]
    manifests: Vec<LayoutEntry>,
}

#[derive(Deserialize)]
struct LayoutEntry {
    digest: Digest,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Staged {
    fn read(inner: &Inner, archive: impl io::Read) -> Result<Self, ImageError> {
        let unreadable = |error: io::Error| match is_cut_off(&error) {
            true => bad("it is cut off"),
            false => bad(format!("it is not a tar archive: {}", crate::error::chain(&error))),
        };
        let mut staged = Self { parts: HashMap::new(), paths: HashMap::new(), links: HashMap::new() };
        let limits = &inner.settings.limits;
        let (mut files, mut names) = (0, 0);
        let mut tar = tar::Archive::new(Bounded::new(open_sent(archive, limits).map_err(unreadable)?));
        for entry in tar.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            let path = normal(&entry.path_bytes())?;
            files += 1;
            if files > MAX_FILES {
                return Err(bad(format!("it has more than {MAX_FILES} files")));
            }
            let kind = entry.header().entry_type();
            let target = entry.link_name_bytes().unwrap_or_default().into_owned();
            names += path.len() + target.len();
            if names > MAX_NAMES {
                return Err(bad(format!("the names of its files have more than {MAX_NAMES} bytes")));
            }
            if kind.is_symlink() || kind.is_hard_link() {
                let target = if kind.is_symlink() { beside(&path, &target) } else { normal(&target)? };
                staged.links.insert(path, target);
                continue;
            }
            if !kind.is_file() {
                continue;
            }
            let mut file = Ingest::new(inner)?;
            let mut start = Vec::with_capacity(4);
            entry.by_ref().take(4).read_to_end(&mut start).map_err(unreadable)?;
            file.write(&start)?;
            file.copy_from(&mut entry, limits.layer_bytes, &path).map_err(|error| match error {
                ImageError::Input { source } => unreadable(source),
                other => other,
            })?;
            let size = file.written();
            let (path_on_disk, digest) = file.aside()?;
            staged.paths.insert(path, digest.clone());
            staged.parts.insert(digest, Part { path: path_on_disk, size, form: sniff(&start) });
        }
        // To the end, so that the client is not cut off while it still sends.
        io::copy(&mut tar.into_inner(), &mut io::sink()).map_err(unreadable)?;
        Ok(staged)
    }

    /// What lies at a path, and its digest.
    fn part(&self, path: &str) -> Option<(&Digest, &Part)> {
        let mut path = path;
        for _ in 0..8 {
            if let Some(digest) = self.paths.get(path) {
                return Some((digest, self.parts.get(digest)?));
            }
            path = self.links.get(path)?;
        }
        None
    }

    /// A blob of the layout, by its name; that its content is what the name says is checked here.
    fn blob(&self, digest: &Digest, what: &str) -> Result<&Part, ImageError> {
        let Some((actual, part)) = self.part(&format!("blobs/sha256/{}", digest.hex())) else {
            return Err(ImageError::MissingBlob { what: what.to_owned(), digest: digest.to_string() });
        };
        if actual != digest {
            return Err(ImageError::DigestMismatch {
                what: format!("{what} {digest}"),
                expected: digest.clone(),
                actual: actual.clone(),
            });
        }
        Ok(part)
    }

    fn plan(&self) -> Result<Vec<Candidate>, ImageError> {
        let mut walk =
            Walk { staged: self, read: 0, names: 0, mentions: 0, known: HashMap::new(), candidates: Vec::new() };
        if let (Some(_), Some((_, index))) = (self.part("oci-layout"), self.part("index.json")) {
            let bytes = walk.document(index, "index.json")?;
            let layout: LayoutIndex =
                serde_json::from_slice(&bytes).map_err(|error| ImageError::malformed("index.json", error))?;
            for entry in &layout.manifests {
                let names = layout_names(entry)?;
                match walk.entry(&entry.digest, None, MAX_DEPTH)? {
                    Listed::Images(images) => {
                        walk.name(names.len().saturating_mul(images.len()))?;
                        for image in images {
                            walk.candidates[image].names.extend(names.iter().map(|name| (name.clone(), None)));
                        }
                    }
                    Listed::Missing { what, digest } => return Err(ImageError::MissingBlob { what, digest }),
                }
            }
            if walk.candidates.is_empty() {
                return Err(bad("its index.json lists no image"));
            }
            return Ok(walk.candidates);
        }
        let Some((_, manifest)) = self.part("manifest.json") else {
            return Err(bad("it has neither a manifest.json nor an oci-layout with an index.json"));
        };
        let bytes = walk.document(manifest, "manifest.json")?;
        let entries: Vec<SaveEntry> =
            serde_json::from_slice(&bytes).map_err(|error| ImageError::malformed("manifest.json", error))?;
        if entries.is_empty() {
            return Err(bad("its manifest.json lists no image"));
        }
        entries.iter().map(|entry| walk.saved(entry)).collect()
    }

    /// Moves a layer into the store. One that is there is hashed again, and replaced if it is not what its name says: the
    /// honest archive is at hand.
    fn settle(&mut self, inner: &Inner, digest: &Digest, wanted: &Wanted) -> Result<(), ImageError> {
        let path = inner.blob_path(digest);
        if path.exists() {
            let stored = std::fs::File::open(&path).during("open the layer", &path)?;
            if Digest::of_all(wanted.lend(stored)).during("read", &path)? == *digest {
                return Ok(());
            }
            tracing::warn!(%digest, "a blob was not what its name says, and is replaced");
        }
        let Some(part) = self.parts.remove(digest) else {
            return Err(ImageError::MissingBlob { what: "layer".to_owned(), digest: digest.to_string() });
        };
        part.path.persist(&path).map_err(|error| ImageError::store("put in its place", &path, error.error))
    }
}

/// What a digest in an index came to.
#[derive(Clone)]
enum Listed {
    /// By position among the candidates.
    Images(Vec<usize>),
    /// What it names, or all that it names, is not in the archive.
    Missing { what: String, digest: String },
}

/// A walk through the tables of contents. Each is read once, however many others name it: a few of them that name each
/// other many times would else stand for any number of images.
struct Walk<'a> {
    staged: &'a Staged,
    /// Bytes of documents so far.
    read: u64,
    /// Names so far, one for each image that has it.
    names: usize,
    /// See [`MAX_MENTIONS`].
    mentions: usize,
    known: HashMap<Digest, Listed>,
    candidates: Vec<Candidate>,
}

impl Walk<'_> {
    /// Counts names before they are given to images: an index gives its own to all of them.
    fn name(&mut self, names: usize) -> Result<(), ImageError> {
        self.names = self.names.saturating_add(names);
        check_names(self.names)
    }

    fn document(&mut self, part: &Part, what: &str) -> Result<Vec<u8>, ImageError> {
        if part.size > DOCUMENT_LIMIT {
            return Err(ImageError::TooLarge { what: what.to_owned(), limit: DOCUMENT_LIMIT });
        }
        self.read += part.size;
        if self.read > MAX_DOCUMENTS {
            let what = "what the archive says of its images (manifests, indexes and configurations)".to_owned();
            return Err(ImageError::TooLarge { what, limit: MAX_DOCUMENTS });
        }
        std::fs::read(&part.path).during("read", &part.path)
    }

    /// One manifest or index of a layout, with all platforms that are there whole.
    fn entry(&mut self, digest: &Digest, listed: Option<&Platform>, depth: u32) -> Result<Listed, ImageError> {
        if let Some(known) = self.known.get(digest) {
            return Ok(known.clone());
        }
        let found = match self.read_entry(digest, listed, depth) {
            Ok(images) => Listed::Images(images),
            Err(ImageError::MissingBlob { what, digest }) => Listed::Missing { what, digest },
            Err(error) => return Err(error),
        };
        self.known.insert(digest.clone(), found.clone());
        Ok(found)
    }

    fn read_entry(&mut self, digest: &Digest, listed: Option<&Platform>, depth: u32) -> Result<Vec<usize>, ImageError> {
        let what = format!("manifest {digest}");
        let bytes = self.document(self.staged.blob(digest, "manifest")?, &what)?;
        match Document::parse(&bytes, &what)? {
            Document::Manifest(manifest) => {
                let record = self.record(bytes, &manifest, listed)?;
                self.candidates.push(Candidate { record, names: Vec::new() });
                Ok(vec![self.candidates.len() - 1])
            }
            Document::Index(entries) => {
                if depth == 0 {
                    return Err(ImageError::malformed(what, "indexes are nested too deeply"));
                }
                let (mut images, mut missing) = (BTreeSet::new(), None);
                let mut seen = HashSet::new();
                for (entry, platform) in &entries {
                    if !seen.insert(&entry.digest) {
                        continue;
                    }
                    // Attestations of the builder, which are no images.
                    if platform.as_ref().is_some_and(|platform| platform.os == "unknown") {
                        continue;
                    }
                    match self.entry(&entry.digest, platform.as_ref(), depth - 1)? {
                        Listed::Images(more) => {
                            self.mentions += more.len();
                            if self.mentions > MAX_MENTIONS {
                                let reason = format!("indexes name images more than {MAX_MENTIONS} times");
                                return Err(ImageError::malformed(what, reason));
                            }
                            images.extend(more);
                        }
                        Listed::Missing { what, digest } => missing = Some((what, digest)),
                    }
                }
                match missing {
                    Some((what, digest)) if images.is_empty() => Err(ImageError::MissingBlob { what, digest }),
                    _ => Ok(images.into_iter().collect()),
                }
            }
        }
    }

    fn record(&mut self, bytes: Vec<u8>, manifest: &Manifest, listed: Option<&Platform>) -> Result<Record, ImageError> {
        let config = self.staged.blob(&manifest.config.digest, "configuration")?;
        let config = self.document(config, "the configuration")?;
        for layer in &manifest.layers {
            let part = self.staged.blob(&layer.digest, "layer")?;
            if part.size != layer.size {
                return Err(ImageError::SizeMismatch {
                    what: format!("layer {}", layer.digest),
                    expected: layer.size,
                    actual: part.size,
                });
            }
        }
        make_record(bytes, manifest, config, listed)
    }

    /// One image of `manifest.json`: a manifest is made up for it.
    fn saved(&mut self, entry: &SaveEntry) -> Result<Candidate, ImageError> {
        let part = |path: &String, what: &str| {
            let absent = || ImageError::MissingBlob { what: what.to_owned(), digest: path.clone() };
            self.staged.part(&normal(path.as_bytes())?).ok_or_else(absent)
        };
        // Before any of them is looked up: a word of two letters names a layer.
        let listed = entry.layers.as_ref().map_or(0, Vec::len);
        if listed > MAX_LAYERS {
            return Err(ImageError::malformed("manifest.json", too_many_layers(listed)));
        }
        self.names = self.names.saturating_add(entry.repo_tags.as_ref().map_or(0, Vec::len));
        check_names(self.names)?;
        let (config_digest, config_part) = part(&entry.config, "configuration")?;
        let mut layers = Vec::new();
        for path in entry.layers.iter().flatten() {
            let (digest, part) = part(path, "layer")?;
            let media_type = part.form.media_type();
            layers.push(Descriptor { media_type: media_type.to_owned(), digest: digest.clone(), size: part.size });
        }
        let config = self.document(config_part, "the configuration")?;
        let config_descriptor =
            Descriptor { media_type: OCI_CONFIG.to_owned(), digest: config_digest.clone(), size: config_part.size };
        let manifest = Manifest { config: config_descriptor, layers, artifact_type: None };
        let names = entry.repo_tags.iter().flatten();
        let names: Vec<_> = names.map(|name| Ok((Reference::parse(name)?, None))).collect::<Result<_, ImageError>>()?;
        let manifest_bytes = manifest.to_json();
        self.read += manifest_bytes.len() as u64;
        Ok(Candidate { record: make_record(manifest_bytes, &manifest, config, None)?, names })
    }
}

/// A path of the archive without leading slash or dots.
fn normal(path: &[u8]) -> Result<String, ImageError> {
    let text = || String::from_utf8_lossy(path).into_owned();
    let parts = parts(path).map_err(|reason| ImageError::UnsafePath {
        layer: "(the archive itself)".to_owned(),
        path: text(),
        reason: reason.to_owned(),
    })?;
    Ok(parts.iter().map(|part| part.to_string_lossy()).collect::<Vec<_>>().join("/"))
}

/// The target of a link in the archive, beside the link itself. Only a key to look up: nothing is opened by it.
fn beside(path: &str, target: &[u8]) -> String {
    let target = String::from_utf8_lossy(target);
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// The name a layout gives to one of its entries.
fn layout_names(entry: &LayoutEntry) -> Result<Vec<Reference>, ImageError> {
    let annotation = |key: &str| entry.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let name = annotation("io.containerd.image.name").or_else(|| {
        // By the specification a free text; some writers put a whole reference there, others only a tag.
        annotation("org.opencontainers.image.ref.name").filter(|name| *name != "latest")
    });
    match name {
        Some(name) => Ok(vec![Reference::parse(name)?]),
        None => Ok(Vec::new()),
    }
}

fn write_archive(inner: &Inner, images: &[(Record, Option<Reference>)], out: impl io::Write) -> Result<(), ImageError> {
    let mut out = Out { tar: tar::Builder::new(out), written: HashSet::new() };
    let mut index: Vec<serde_json::Value> = Vec::new();
    let mut saved: Vec<SaveEntry> = Vec::new();
    for (image, reference) in images {
        for layer in &image.layers {
            let path = inner.blob_path(&layer.blob.digest);
            let file = std::fs::File::open(&path).during("open the layer", &path)?;
            out.add_layer(&layer.blob, file)?;
        }
        let manifest = Digest::of(&image.manifest);
        let config = Digest::of(&image.config);
        out.add(&blob_name(&config), image.config.len() as u64, image.config.as_slice())?;
        out.add(&blob_name(&manifest), image.manifest.len() as u64, image.manifest.as_slice())?;
        let annotations = reference.as_ref().map(|reference| {
            serde_json::json!({
                "io.containerd.image.name": reference.to_string(),
                "org.opencontainers.image.ref.name": reference.tag().unwrap_or_default(),
            })
        });
        let mut platform = serde_json::json!({ "os": image.platform.os, "architecture": image.platform.architecture });
        if !image.platform.variant.is_empty() {
            platform["variant"] = image.platform.variant.clone().into();
        }
        let mut entry = serde_json::json!({
            "mediaType": OCI_MANIFEST, "digest": manifest, "size": image.manifest.len(), "platform": platform,
        });
        if let Some(annotations) = annotations {
            entry["annotations"] = annotations;
        }
        if !index.contains(&entry) {
            index.push(entry);
        }
        if image.artifact_type.is_none() {
            let config = blob_name(&config);
            let tag = reference.as_ref().map(Reference::familiar);
            match saved.iter_mut().find(|entry| entry.config == config) {
                Some(entry) => entry.repo_tags.get_or_insert_default().extend(tag),
                None => saved.push(SaveEntry {
                    config,
                    repo_tags: Some(tag.into_iter().collect()),
                    layers: Some(image.layers.iter().map(|layer| blob_name(&layer.blob.digest)).collect()),
                }),
            }
        }
    }
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": index });
    let documents = [
        ("index.json", serde_json::to_vec(&index)),
        ("manifest.json", serde_json::to_vec(&saved)),
        ("oci-layout", Ok(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec())),
    ];
    for (name, bytes) in documents {
        let bytes = bytes.map_err(|error| ImageError::malformed(name, error))?;
        out.add(name, bytes.len() as u64, bytes.as_slice())?;
    }
    let mut inner = out.tar.into_inner().map_err(|source| ImageError::Output { source })?;
    inner.flush().map_err(|source| ImageError::Output { source })
}

struct Out<W: io::Write> {
    tar: tar::Builder<W>,
    written: HashSet<String>,
}

impl<W: io::Write> Out<W> {
    /// Adds a layer's blob, and sees whether it is what it is called: nobody could load an archive with another in it.
    fn add_layer(&mut self, blob: &Descriptor, content: impl io::Read) -> Result<(), ImageError> {
        let name = blob_name(&blob.digest);
        if self.written.contains(&name) {
            return Ok(());
        }
        let mut sum = Sha256::new();
        self.add(&name, blob.size, Summed { from: content, sum: &mut sum })?;
        let actual = Digest::from_hash(sum);
        if actual != blob.digest {
            return Err(ImageError::DigestMismatch {
                what: format!("layer {}", blob.digest),
                expected: blob.digest.clone(),
                actual,
            });
        }
        Ok(())
    }

    /// Content that is not as long as is said would be read as something else, or something else as it.
    fn add(&mut self, name: &str, size: u64, content: impl io::Read) -> Result<(), ImageError> {
        if !self.written.insert(name.to_owned()) {
            return Ok(());
        }
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(0);
        let mut content = content.take(size);
        self.tar
            .append_data(&mut header, Path::new(name), &mut content)
            .map_err(|source| ImageError::Output { source })?;
        match content.limit() {
            0 => Ok(()),
            short => Err(ImageError::SizeMismatch { what: name.to_owned(), expected: size, actual: size - short }),
        }
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
