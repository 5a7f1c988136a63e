//! Archives made here: the context of a build, and an image around one local .wasm file.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bireme_core::ignore::Ignore;
use bytes::Bytes;
use futures::Stream;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::error::Failure;

/// What `build` sends: a folder, and a Dockerfile that may lie outside it.
#[derive(Clone, Debug)]
pub struct BuildContext {
    folder: PathBuf,
    ignore: Ignore,
    /// Path inside the archive.
    pub dockerfile: String,
    /// Content of a Dockerfile from outside the folder.
    injected: Option<Vec<u8>>,
}

impl BuildContext {
    /// Looks at the folder and reads what is to be left out.
    ///
    /// # Errors
    /// A folder or Dockerfile that is not there; patterns that cannot be read.
    pub fn open(folder: &Path, dockerfile: Option<&str>, inline: Option<&str>) -> anyhow::Result<Self> {
        let named = folder;
        let folder = folder.canonicalize().ok().filter(|folder| folder.is_dir()).ok_or_else(|| {
            Failure::new(format!("unable to prepare context: path {} is not a folder", named.display()))
        })?;
        if let Some(inline) = inline {
            let ignore = read_ignore(&folder, None)?;
            return Ok(Self {
                folder,
                ignore,
                dockerfile: ".bireme.Dockerfile".to_owned(),
                injected: Some(inline.as_bytes().to_vec()),
            });
        }
        if dockerfile == Some("-") {
            let text = io::read_to_string(io::stdin()).context("cannot read the Dockerfile from standard input")?;
            let ignore = read_ignore(&folder, None)?;
            return Ok(Self {
                folder,
                ignore,
                dockerfile: ".bireme.Dockerfile".to_owned(),
                injected: Some(text.into_bytes()),
            });
        }
        let path = match dockerfile {
            None => folder.join("Dockerfile"),
            // As Docker has it: relative to where we are, or else to the folder.
            Some(path) if Path::new(path).exists() => PathBuf::from(path),
            Some(path) => folder.join(path),
        };
        let path = path.canonicalize().map_err(|error| {
            Failure::new(format!("unable to prepare context: cannot read the Dockerfile {}: {error}", path.display()))
                .hint("name it with --file")
        })?;
        let ignore = read_ignore(&folder, Some(&path))?;
        Ok(match path.strip_prefix(&folder) {
            Ok(inside) => Self { dockerfile: inside.to_string_lossy().into_owned(), ignore, injected: None, folder },
            Err(_) => Self {
                dockerfile: ".bireme.Dockerfile".to_owned(),
                ignore,
                injected: Some(std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?),
                folder,
            },
        })
    }

    /// The archive, made while it is read.
    pub fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        produce(move |out| {
            let mut archive = tar::Builder::new(out);
            archive.follow_symlinks(false);
            archive.sparse(false);
            self.add(&mut archive, &self.folder, "")?;
            if let Some(content) = &self.injected {
                append(&mut archive, &self.dockerfile, content)?;
            }
            archive.into_inner()?.flush()
        })
    }

    fn add<W: Write>(&self, archive: &mut tar::Builder<W>, folder: &Path, prefix: &str) -> io::Result<()> {
        let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            let path = if prefix.is_empty() {
                name.to_string_lossy().into_owned()
            } else {
                format!("{prefix}/{}", name.to_string_lossy())
            };
            let kind = entry.file_type()?;
            let needed = path == self.dockerfile || path == ".dockerignore";
            let left_out = !needed && self.ignore.hides(&path);
            let holds_dockerfile = self.dockerfile.starts_with(&format!("{path}/"));
            if left_out && !(kind.is_dir() && (self.ignore.has_exceptions() || holds_dockerfile)) {
                continue;
            }
            // Sockets and the like have no place in an archive.
            if kind.is_dir() {
                if !left_out {
                    archive.append_path_with_name(entry.path(), &path)?;
                }
                self.add(archive, &entry.path(), &path)?;
            } else if kind.is_file() || kind.is_symlink() {
                archive.append_path_with_name(entry.path(), &path)?;
            }
        }
        Ok(())
    }
}

fn read_ignore(folder: &Path, dockerfile: Option<&Path>) -> anyhow::Result<Ignore> {
    // `X.dockerignore` beside the Dockerfile `X` comes first.
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for path in own.into_iter().chain([folder.join(".dockerignore")]) {
        match std::fs::read_to_string(&path) {
            Ok(text) => return Ignore::parse(&text).with_context(|| path.display().to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
    Ok(Ignore::default())
}

fn append<W: Write>(archive: &mut tar::Builder<W>, path: &str, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    // The epoch: the same file makes the same layer, wherever and whenever.
    header.set_mtime(0);
    archive.append_data(&mut header, path, content)
}

/// Adds the tree at `root` under `name`, as Docker's client does: links stay links, hard links inside the tree stay
/// what they are, and a file keeps its capabilities. `name` `.` adds only what is inside. Answers the bytes of the files.
///
/// # Errors
/// As reading fails; sockets are left out.
pub fn pack<W: Write>(archive: &mut tar::Builder<W>, root: &Path, name: &Path) -> io::Result<u64> {
    let mut packer = Packer { archive, seen: BTreeMap::new(), bytes: 0 };
    if name == Path::new(".") || name == Path::new("/") {
        packer.children(root, Path::new(""))?;
    } else {
        packer.add(root, name)?;
    }
    Ok(packer.bytes)
}

struct Packer<'a, W: Write> {
    archive: &'a mut tar::Builder<W>,
    /// Device and inode of files with several names, and the first name they were added under.
    seen: BTreeMap<(u64, u64), PathBuf>,
    bytes: u64,
}

impl<W: Write> Packer<'_, W> {
    fn children(&mut self, folder: &Path, name: &Path) -> io::Result<()> {
        let mut entries: Vec<_> = named(folder, std::fs::read_dir(folder))?.collect::<Result<_, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        entries.iter().try_for_each(|entry| self.add(&entry.path(), &name.join(entry.file_name())))
    }

    fn add(&mut self, path: &Path, name: &Path) -> io::Result<()> {
        let found = named(path, path.symlink_metadata())?;
        let kind = found.file_type();
        if kind.is_socket() {
            return Ok(());
        }
        let mut header = tar::Header::new_gnu();
        header.set_metadata(&found);
        if kind.is_symlink() {
            return self.archive.append_link(&mut header, name, named(path, path.read_link())?);
        }
        if kind.is_dir() {
            header.set_size(0);
            self.archive.append_data(&mut header, name, io::empty())?;
            return self.children(path, name);
        }
        if found.nlink() > 1 {
            match self.seen.get(&(found.dev(), found.ino())) {
                Some(first) => {
                    header.set_entry_type(tar::EntryType::Link);
                    header.set_size(0);
                    return self.archive.append_link(&mut header, name, first);
                }
                None => {
                    self.seen.insert((found.dev(), found.ino()), name.to_path_buf());
                }
            }
        }
        if !kind.is_file() {
            header.set_size(0);
            header.set_device_major(rustix::fs::major(found.rdev()))?;
            header.set_device_minor(rustix::fs::minor(found.rdev()))?;
            return self.archive.append_data(&mut header, name, io::empty());
        }
        let file = named(path, std::fs::File::open(path))?;
        let mut value = [0; 256];
        if let Ok(length) = rustix::fs::lgetxattr(path, CAPABILITY, &mut value[..]) {
            let key = format!("{XATTR}{CAPABILITY}");
            self.archive.append_pax_extensions([(key.as_str(), &value[..length])])?;
        }
        self.bytes += found.len();
        // A file that grows or shrinks meanwhile must not shift what follows it.
        let rest = io::Read::chain(file, io::repeat(0));
        self.archive.append_data(&mut header, name, io::Read::take(rest, found.len()))
    }
}

/// Where extended attributes stand in an archive's extended headers.
const XATTR: &str = "SCHILY.xattr.";
/// What a file's capabilities are kept in: the one attribute that Docker's client sends.
const CAPABILITY: &str = "security.capability";

/// An error with the path it is about.
fn named<T>(path: &Path, answer: io::Result<T>) -> io::Result<T> {
    answer.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Unpacks an archive below `folder`, from which nothing of it can lead out. Owners become ours; modes, times, hard
/// links and extended attributes stay.
///
/// # Errors
/// A broken archive, or as writing fails.
pub fn unpack(archive: impl io::Read, folder: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(archive);
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    // Folders last, the deepest first: a folder's mode may forbid writing into it.
    let mut folders = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut attributes = Vec::new();
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(XATTR)) {
                attributes.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
        if entry.header().entry_type().is_dir() {
            folders.push((entry, attributes));
            continue;
        }
        let path = below(folder, &entry.path()?);
        let is_file = entry.header().entry_type().is_file();
        if entry.unpack_in(folder)? && is_file {
            set_attributes(&path, &attributes);
        }
    }
    folders.sort_by_key(|(entry, _)| std::cmp::Reverse(entry.path_bytes().len()));
    for (entry, attributes) in &mut folders {
        let path = below(folder, &entry.path()?);
        if !entry.unpack_in(folder)? {
            continue;
        }
        set_attributes(&path, attributes);
        // After all that is written in it. Nobody who may not set it is told so: it is no reason to fail.
        let time = Timespec { tv_sec: entry.header().mtime()?.try_into().unwrap_or(i64::MAX), tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        let _ = rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
    Ok(())
}

/// Where an entry of an archive is unpacked to.
fn below(folder: &Path, name: &Path) -> PathBuf {
    folder.join(name.strip_prefix("/").unwrap_or(name))
}

/// Not every user may set every attribute, nor does every filesystem have them.
fn set_attributes(path: &Path, attributes: &[(String, Vec<u8>)]) {
    for (name, value) in attributes {
        let _ = rustix::fs::lsetxattr(path, name.as_str(), value, rustix::fs::XattrFlags::empty());
    }
}

/// Runs `work` beside us and hands on what it writes.
pub fn produce<F>(work: F) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static
where
    F: FnOnce(io::BufWriter<Chunks>) -> io::Result<()> + Send + 'static,
{
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let failures = sender.clone();
    tokio::task::spawn_blocking(move || {
        if let Err(error) = work(io::BufWriter::with_capacity(128 * 1024, Chunks(sender))) {
            // The reader may be gone, which is what the error then says.
            let _ = failures.blocking_send(Err(error));
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
}

/// The writing end of [`produce`]. It waits when the reader is slow.
pub struct Chunks(tokio::sync::mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = || io::Error::new(io::ErrorKind::BrokenPipe, "the engine stopped reading");
        self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes))).map_err(|_| gone())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An image around one .wasm file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasmImage {
    /// `local/<stem>:sha256-<content>`: the same file is the same image.
    pub reference: String,
    /// A `docker load` archive.
    pub archive: Vec<u8>,
}

/// Whether `image` is meant as a local file: it ends in `.wasm` and has a path, or is a file here.
pub fn is_wasm_file(image: &str) -> bool {
    bireme_compose::is_component_file(image) || (image.ends_with(".wasm") && Path::new(image).is_file())
}

/// Reads the file at `path`; see [`wasm_image`].
pub fn read_wasm(path: &str) -> anyhow::Result<WasmImage> {
    let module =
        std::fs::read(path).map_err(|error| {
            Failure::new(format!("cannot read {path}: {error}"))
                .code(if error.kind() == io::ErrorKind::PermissionDenied { 126 } else { 127 })
        })?;
    if !module.starts_with(b"\0asm") {
        return Err(Failure::new(format!(
            "{path} is not a WebAssembly module or component: it does not begin with \\0asm"
        ))
        .hint("build it for wasm32-wasip2, or pass the name of an image")
        .code(126)
        .into());
    }
    wasm_image(Path::new(path), &module)
}

/// An image of platform wasi/wasm whose entrypoint is `module`.
/// Source: the archive format of `docker save`, with `manifest.json` and one layer.
pub fn wasm_image(path: &Path, module: &[u8]) -> anyhow::Result<WasmImage> {
    let digest = |bytes: &[u8]| hex::encode(Sha256::digest(bytes));
    let (name, reference) = (bireme_compose::stem(path), bireme_compose::component_image(path, module));
    let mut layer = tar::Builder::new(Vec::new());
    let file = format!("{name}.wasm");
    let mut header = tar::Header::new_gnu();
    header.set_size(module.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    layer.append_data(&mut header, &file, module)?;
    let layer = layer.into_inner()?;
    let config = json!({
        "architecture": "wasm",
        "os": "wasi",
        "config": {"Entrypoint": [&file], "Env": null, "Labels": BTreeMap::<&str, &str>::new()},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
        "created": "1970-01-01T00:00:00Z",
    })
    .to_string()
    .into_bytes();
    let config_name = format!("{}.json", digest(&config));
    let layer_name = format!("{}/layer.tar", digest(&layer));
    let manifest = json!([{"Config": config_name, "RepoTags": [reference], "Layers": [layer_name]}]).to_string();
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, &config_name, &config)?;
    append(&mut archive, &layer_name, &layer)?;
    append(&mut archive, "manifest.json", manifest.as_bytes())?;
    Ok(WasmImage { reference, archive: archive.into_inner()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt;
    use std::io::Read;

    #[test]
    fn folders_are_unpacked_with_their_times_and_attributes() {
        let temp = tempfile::tempdir().unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind: tar::EntryType| {
            let key = format!("{XATTR}user.of");
            archive.append_pax_extensions([(key.as_str(), name.as_bytes())]).unwrap();
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(0);
            header.set_mode(0o750);
            header.set_mtime(1_000_000);
            archive.append_data(&mut header, name, io::empty()).unwrap();
        };
        for folder in ["y/", "y/inner/"] {
            add(folder, tar::EntryType::Directory);
        }
        add("y/inner/file", tar::EntryType::Regular);
        unpack(archive.into_inner().unwrap().as_slice(), temp.path()).unwrap();
        for name in ["y/", "y/inner/", "y/inner/file"] {
            let path = temp.path().join(name);
            let about = path.metadata().unwrap();
            assert_eq!((about.mtime(), about.mode() & 0o777), (1_000_000, 0o750), "{name}");
            let mut value = [0; 64];
            let length = rustix::fs::lgetxattr(&path, "user.of", &mut value[..]).unwrap();
            assert_eq!(&value[..length], name.as_bytes());
        }
    }

    #[test]
    fn a_module_becomes_an_image_named_after_its_content() {
        let image = wasm_image(Path::new("Hello World.wasm"), b"\0asm\x0d\0\x01\0").unwrap();
        assert!(image.reference.starts_with("local/hello-world:sha256-"), "{}", image.reference);
        assert_eq!(image, wasm_image(Path::new("Hello World.wasm"), b"\0asm\x0d\0\x01\0").unwrap());
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(image.archive.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        let config: serde_json::Value =
            serde_json::from_slice(&files[manifest[0]["Config"].as_str().unwrap()]).unwrap();
        assert_eq!((&config["os"], &config["architecture"]), (&"wasi".into(), &"wasm".into()));
        let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()];
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", hex::encode(Sha256::digest(layer))));
    }

    #[test]
    fn only_wasm_paths_are_files() {
        assert!(is_wasm_file("./x.wasm") && is_wasm_file("/nowhere/x.wasm"));
        assert!(!is_wasm_file("x.wasm") && !is_wasm_file("alpine"));
        let error = read_wasm("/nowhere/x.wasm").unwrap_err().to_string();
        assert_eq!(error, "cannot read /nowhere/x.wasm: No such file or directory (os error 2)");
    }

    #[tokio::test]
    async fn the_context_leaves_out_what_is_ignored() {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in
            [("Dockerfile", "FROM scratch"), (".dockerignore", "*.log\nsub\n!sub/keep"), ("a.log", "x"), ("b", "y")]
        {
            std::fs::write(folder.path().join(path), text).unwrap();
        }
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/keep"), "k").unwrap();
        std::fs::write(folder.path().join("sub/drop"), "d").unwrap();
        let context = BuildContext::open(folder.path(), None, None).unwrap();
        let chunks: Vec<_> = context.stream().collect().await;
        let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap().to_vec()).collect();
        let mut names: Vec<String> = tar::Archive::new(bytes.as_slice())
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        names.sort();
        assert_eq!(names, [".dockerignore", "Dockerfile", "b", "sub/keep"]);
    }

    #[test]
    fn a_context_whose_patterns_cannot_be_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Dockerfile"), "FROM scratch").unwrap();
        std::fs::write(folder.path().join(".dockerignore"), "ok\n[a\n").unwrap();
        let refused = format!("{:#}", BuildContext::open(folder.path(), None, None).unwrap_err());
        assert!(refused.ends_with("/.dockerignore: \"[a\" is a malformed pattern"), "{refused}");
    }
}
