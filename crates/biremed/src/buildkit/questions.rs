//! Questions about a Dockerfile or a result, in place of a build or after it.

use std::path::Path;
use std::sync::Arc;

use bireme_buildkit::{Build, BuildError, Entry, EntryKind, Output, Solved};
use bireme_core::ErrorKind;
use bireme_core::glob::Pattern;
use bireme_image::{BuildOutput, BuildRequest, BuildSources, Tree, TreeEntry};
use rustix::fs::FileType;

use super::failed;
use super::progress::{Teller, lines};
use crate::app::App;

/// Answers a subrequest: the checks of a Dockerfile, its targets, its arguments.
pub(super) async fn answer(
    app: &App,
    build: &Build,
    request: &BuildRequest,
    sources: &dyn BuildSources,
    question: &str,
) -> Result<Solved, BuildError> {
    let teller = Teller::new(build.progress());
    let log = |event| teller.tell(event);
    let answers = app.images.ask(request, sources, question, &log).await;
    let answers = answers.map_err(|error| teller.located(failed(&error), &lines(&error)))?;
    let answers = answers.ok_or_else(|| BuildError::unsupported_subrequest(question))?;
    let metadata = answers.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Ok(Solved { metadata, ..Solved::default() })
}

fn tree(output: &Output) -> Result<Tree, BuildError> {
    let output = Arc::clone(output).downcast::<BuildOutput>().ok();
    let output =
        output.ok_or_else(|| BuildError::new(ErrorKind::Invalid, "what is asked about is no result of a build"))?;
    let tree = output.tree(None).map_err(|error| failed(&error))?;
    tree.ok_or_else(|| BuildError::new(ErrorKind::NotFound, "the result has no files"))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BuildError> + Send + 'static,
) -> Result<T, BuildError> {
    let stopped = |_| Err(BuildError::new(ErrorKind::Unavailable, "the daemon stops"));
    tokio::task::spawn_blocking(work).await.unwrap_or_else(stopped)
}

pub(super) async fn read_file(output: &Output, path: &str, range: Option<(u64, u64)>) -> Result<Vec<u8>, BuildError> {
    let (tree, path) = (tree(output)?, path.to_owned());
    blocking(move || {
        use std::io::{Read as _, Seek as _, SeekFrom};
        let absent =
            |error: std::io::Error| BuildError::new(ErrorKind::NotFound, format!("cannot read {path}: {error}"));
        let mut file = tree.open(Path::new(&path)).map_err(absent)?;
        let (offset, length) = range.unwrap_or((0, bireme_buildkit::MAX_FILE));
        file.seek(SeekFrom::Start(offset)).map_err(absent)?;
        let mut content = Vec::new();
        file.take(length.min(bireme_buildkit::MAX_FILE)).read_to_end(&mut content).map_err(absent)?;
        Ok(content)
    })
    .await
}

pub(super) async fn stat_file(output: &Output, path: &str) -> Result<Entry, BuildError> {
    let (tree, path) = (tree(output)?, path.to_owned());
    blocking(move || {
        let absent = |why: String| BuildError::new(ErrorKind::NotFound, format!("cannot look at {path}: {why}"));
        match tree.stat(Path::new(&path)) {
            Ok(Some(entry)) => Ok(entry_of(entry)),
            Ok(None) => Err(absent("no such file or directory".to_owned())),
            Err(error) => Err(absent(error.to_string())),
        }
    })
    .await
}

pub(super) async fn read_dir(output: &Output, path: &str, include: &str) -> Result<Vec<Entry>, BuildError> {
    let (tree, path, include) = (tree(output)?, path.to_owned(), include.to_owned());
    blocking(move || {
        let pattern = match include.as_str() {
            "" => None,
            include => {
                Some(Pattern::new(include).map_err(|error| BuildError::new(ErrorKind::Invalid, error.to_string()))?)
            }
        };
        let entries = tree
            .list(Path::new(&path))
            .map_err(|error| BuildError::new(ErrorKind::NotFound, format!("cannot list {path}: {error}")))?;
        let named = entries.into_iter().map(|entry| {
            let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Entry { path: name, ..entry_of(entry) }
        });
        Ok(named.filter(|entry| pattern.as_ref().is_none_or(|pattern| pattern.matches(&entry.path))).collect())
    })
    .await
}

/// An entry as it travels.
pub(super) fn entry_of(entry: TreeEntry) -> Entry {
    let kind = match FileType::from_raw_mode(entry.mode) {
        FileType::Directory => EntryKind::Folder,
        FileType::Symlink => {
            EntryKind::Link { target: entry.link.map(|link| link.to_string_lossy().into_owned()).unwrap_or_default() }
        }
        FileType::CharacterDevice | FileType::BlockDevice => EntryKind::Device {
            character: FileType::from_raw_mode(entry.mode) == FileType::CharacterDevice,
            major: entry.device.0,
            minor: entry.device.1,
        },
        FileType::Fifo => EntryKind::Pipe,
        FileType::Socket => EntryKind::Socket,
        _ => match entry.same_as {
            Some(first) => EntryKind::HardLink { to: first.to_string_lossy().into_owned() },
            None => EntryKind::File { size: entry.size },
        },
    };
    Entry {
        path: entry.path.to_string_lossy().into_owned(),
        kind,
        mode: entry.mode & 0o7777,
        uid: entry.uid,
        gid: entry.gid,
        modified: entry.modified,
        xattrs: entry.attributes.into_iter().collect(),
    }
}
