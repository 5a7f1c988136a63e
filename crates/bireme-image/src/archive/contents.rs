//! What an archive says it holds, and what of that is there.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::format::{LayoutIndex, SaveEntry, layout_names};
use super::staged::{Part, Staged, bad, normal};
use crate::admit::{Candidate, check_names};
use crate::digest::Digest;
use crate::error::{ImageError, StoreContext as _};
use crate::model::{DOCUMENT_LIMIT, Descriptor, Document, Manifest, OCI_CONFIG};
use crate::platform::Platform;
use crate::record::{MAX_LAYERS, Record, make_record, too_many_layers};
use crate::reference::Reference;

/// Indexes within indexes that are followed.
const MAX_DEPTH: u32 = 4;

/// Bytes of all manifests, indexes and configurations that one archive may have read; each is read once.
const MAX_DOCUMENTS: u64 = 64 << 20;

/// Mentions of images by all indexes of an archive, each of which stands for all images below it.
const MAX_MENTIONS: usize = 1_000_000;

/// The images that an archive holds, as its tables of contents tell of them.
pub(super) fn plan(staged: &Staged) -> Result<Vec<Candidate>, ImageError> {
    let mut walk = Walk { staged, read: 0, names: 0, mentions: 0, known: HashMap::new(), candidates: Vec::new() };
    if let (Some(_), Some((_, index))) = (staged.part("oci-layout"), staged.part("index.json")) {
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
    let Some((_, manifest)) = staged.part("manifest.json") else {
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
