//! `bireme cp`: as `docker cp` in every case, links and trailing slashes included.

use std::io::{IsTerminal, Seek, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use bireme_api::answers::container::PathStat;
use bireme_core::size;
use futures::TryStreamExt;
use tokio_util::io::ReaderStream;

use crate::archive::{self, produce};
use crate::cli::CpArgs;
use crate::context::Context;
use crate::copy::{self, End, Placement};
use crate::error::{Failure, Outcome};

pub(super) async fn cp(context: &Context, args: &CpArgs) -> Outcome {
    match (side(&args.source), side(&args.target)) {
        (_, _) if args.source.is_empty() => Err(Failure::new("source can not be empty").into()),
        (_, _) if args.target.is_empty() => Err(Failure::new("destination can not be empty").into()),
        (Some((container, path)), None) => {
            let container = crate::app::resolve(context, container).await?;
            copy_out(context, args, &container, path).await
        }
        (None, Some((container, path))) => {
            let container = crate::app::resolve(context, container).await?;
            copy_in(context, args, &container, path).await
        }
        (Some(_), Some(_)) => Err(Failure::new("copying between containers is not supported")
            .hint("copy to a folder here, and from there")
            .into()),
        (None, None) => Err(Failure::new("must specify at least one container source")
            .hint("write CONTAINER:PATH on one side")
            .into()),
    }
}

/// `CONTAINER:PATH`; a path of ours begins with `/` or `.`, or has no colon.
fn side(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('/') {
        return None;
    }
    text.split_once(':').filter(|(name, _)| !name.is_empty() && !name.starts_with('.'))
}

/// What the engine says of a path in a container.
#[derive(Clone, Debug, Default)]
struct Stat {
    mode: u64,
    link: String,
}

/// The bits of Go's `os.FileMode`.
const MODE_DIR: u64 = 1 << 31;
const MODE_SYMLINK: u64 = 1 << 27;
const MODE_DEVICE: u64 = 1 << 26;
const MODE_IRREGULAR: u64 = 1 << 19;

impl Stat {
    fn is(&self, bit: u64) -> bool {
        self.mode & bit != 0
    }
}

/// `None` when the engine does not say: the request that follows has the better sentence.
async fn stat(context: &Context, container: &str, path: &str) -> anyhow::Result<Option<Stat>> {
    let call = context.client.call(http::Method::HEAD, format!("/containers/{container}/archive")).query("path", path);
    let header = match call.with_header("x-docker-container-path-stat").await {
        Ok((header, _)) => header,
        Err(bireme_api::ClientError::Refused { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(header.as_deref().and_then(read_stat))
}

fn read_stat(header: &str) -> Option<Stat> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(header).ok()?;
    let stat: PathStat = serde_json::from_slice(&bytes).ok()?;
    Some(Stat { mode: stat.mode?, link: stat.link_target })
}

/// A path of ours made absolute, with the ending it had.
fn absolute(path: &str) -> anyhow::Result<String> {
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", here.display()) };
    Ok(copy::keep_ending(path, &copy::clean(&whole)).0)
}

async fn copy_out(context: &Context, args: &CpArgs, container: &str, path: &str) -> Outcome {
    let mut source = End { path: path.to_owned(), exists: true, ..End::default() };
    let target = if args.target == "-" { None } else { Some(local_target(&args.target)?) };
    if args.follow_link
        && let Some(link) = stat(context, container, path).await?.filter(|stat| stat.is(MODE_SYMLINK))
    {
        (source.path, source.asked_as) = copy::keep_ending(path, &copy::clean(&copy::follow(path, &link.link)));
    }
    let call = context.client.get(format!("/containers/{container}/archive")).query("path", &source.path);
    let (header, mut chunks) = call.with_header("x-docker-container-path-stat").await?;
    let Some(target) = target else {
        while let Some(chunk) = chunks.try_next().await? {
            context.printer.raw(&chunk)?;
        }
        return Ok(0);
    };
    source.is_dir = header.as_deref().and_then(read_stat).is_some_and(|stat| stat.is(MODE_DIR));
    let placement = copy::place(&source, &target).map_err(|refused| refusal(refused, &args.source, &args.target))?;
    let folder = PathBuf::from(&placement.folder);
    // Unpacked beside the target, where nothing of it can lead outside, then moved into place.
    let unpacked = tempfile::Builder::new().prefix(".bireme-cp-").tempdir_in(&folder);
    let unpacked = unpacked.with_context(|| format!("cannot write into {}", folder.display()))?;
    let mut file = tempfile::tempfile_in(unpacked.path()).context("cannot make a temporary file")?;
    let mut received = 0u64;
    while let Some(chunk) = chunks.try_next().await? {
        received += chunk.len() as u64;
        file.write_all(&chunk)?;
    }
    file.rewind()?;
    let root = unpacked.path().join("root");
    std::fs::create_dir(&root)?;
    archive::unpack(file, &root).context("cannot unpack what the container sent")?;
    put(&root, &copy::split(&source.path).1, &placement)?;
    say_copied(context, args, received)
}

/// Moves what was unpacked in `root`, whose own name is `own`, to its place.
fn put(root: &Path, own: &str, placement: &Placement) -> anyhow::Result<()> {
    let folder = Path::new(&placement.folder);
    let Some(name) = &placement.name else {
        return fill(root, folder);
    };
    let mut roots = std::fs::read_dir(root)?.collect::<Result<Vec<_>, _>>()?;
    let from = match (own, roots.len()) {
        ("." | "/", _) => root.to_path_buf(),
        (_, 1) => roots.remove(0).path(),
        _ => bail!("the container sent {} things where one was expected", roots.len()),
    };
    merge(&from, &folder.join(name))
}

/// Moves everything in `from` into the folder `to`.
fn fill(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        merge(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Moves `from` to `to`: folders that are there are filled, files and links replaced. A folder and what is none never
/// take each other's place, and a link to a folder is no folder.
fn merge(from: &Path, to: &Path) -> anyhow::Result<()> {
    let source = from.symlink_metadata().with_context(|| format!("cannot read {}", from.display()))?;
    if let Ok(there) = to.symlink_metadata() {
        match (there.is_dir(), source.is_dir()) {
            (true, true) => {
                fill(from, to)?;
                return std::fs::set_permissions(to, source.permissions())
                    .with_context(|| format!("cannot set the mode of {}", to.display()));
            }
            (true, false) => bail!("cannot overwrite directory {to:?} with non-directory"),
            (false, true) => bail!("cannot overwrite non-directory {to:?} with directory"),
            // A device or a pipe of the machine is not exchanged for a file.
            (false, false) if !there.is_file() && !there.is_symlink() => {
                bail!(
                    "cannot overwrite {to:?}: it is neither a file nor a folder; name another target, or - for an archive"
                )
            }
            (false, false) => {}
        }
    }
    match std::fs::rename(from, to) {
        // Below the target another filesystem is mounted.
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => across(from, to, &source),
        answer => answer.map_err(anyhow::Error::new),
    }
    .with_context(|| format!("cannot write {}", to.display()))
}

/// The same where a move is not possible.
fn across(from: &Path, to: &Path, source: &std::fs::Metadata) -> anyhow::Result<()> {
    if source.is_dir() {
        std::fs::create_dir(to)?;
        fill(from, to)?;
        return Ok(std::fs::set_permissions(to, source.permissions())?);
    }
    if let Err(error) = std::fs::remove_file(to)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error.into());
    }
    if source.is_symlink() {
        return Ok(std::os::unix::fs::symlink(std::fs::read_link(from)?, to)?);
    }
    std::fs::copy(from, to).map(drop).map_err(Into::into)
}

/// The target of a copy to here, behind links.
fn local_target(given: &str) -> anyhow::Result<End> {
    let mut path = absolute(given)?;
    let parent = copy::split(&copy::clean(&path)).0;
    if !Path::new(&parent).exists() {
        return Err(Failure::new(format!("invalid output path: directory {parent:?} does not exist")).into());
    }
    // `file/` is neither there nor a place to make something in.
    if let Err(error) = std::fs::metadata(&path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).with_context(|| format!("cannot write to {given}"));
    }
    for _ in 0..40 {
        // A slash at the end would make the system follow the link itself.
        let bare = copy::clean(&path);
        match std::fs::symlink_metadata(&bare) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let parent = copy::split(&bare).0;
                let folder = std::fs::metadata(&parent).with_context(|| format!("cannot write into {parent}"))?;
                if !folder.is_dir() {
                    return Err(Failure::new(format!("{parent}: not a directory")).into());
                }
                return Ok(End { path, ..End::default() });
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {bare}")),
            Ok(found) if found.is_symlink() => {
                let link = std::fs::read_link(&bare).with_context(|| format!("cannot read {bare}"))?;
                path = copy::keep_ending(&path, &copy::follow(&bare, &link.to_string_lossy())).0;
            }
            Ok(found) => {
                let kind = found.file_type();
                if kind.is_block_device() || kind.is_char_device() {
                    let message = format!("invalid output path: {given:?} must be a directory or a regular file");
                    return Err(Failure::new(format!("{message}: got a device")).into());
                }
                return Ok(End { path, exists: true, is_dir: found.is_dir(), asked_as: None });
            }
        }
    }
    Err(Failure::new(format!("{given}: too many levels of symbolic links")).into())
}

/// The source of a copy from here: the link itself, unless it is to be followed or is asked for as a folder.
fn local_source(given: &str, follow: bool) -> anyhow::Result<End> {
    let path = absolute(given)?;
    let real = |path: &str| -> anyhow::Result<String> {
        let real = std::fs::canonicalize(path).with_context(|| format!("cannot read {path}"))?;
        real.into_os_string().into_string().map_err(|name| anyhow::anyhow!("{name:?} is not UTF-8"))
    };
    let (path, asked_as) = if follow || copy::asserts_folder(&path) {
        copy::keep_ending(&path, &real(&path)?)
    } else {
        let (folder, name) = copy::split(&path);
        (copy::clean(&format!("{}/{name}", real(&folder)?)), None)
    };
    let found = std::fs::symlink_metadata(&path).with_context(|| format!("cannot read {given}"))?;
    Ok(End { path, exists: true, is_dir: found.is_dir(), asked_as })
}

async fn copy_in(context: &Context, args: &CpArgs, container: &str, path: &str) -> Outcome {
    let mut target = End { path: path.to_owned(), ..End::default() };
    let mut found = stat(context, container, path).await?;
    if let Some(link) = found.as_ref().filter(|stat| stat.is(MODE_SYMLINK)) {
        target.path = copy::follow(path, &link.link);
        found = stat(context, container, &target.path).await?;
    }
    if let Some(found) = &found {
        let got = match () {
            () if found.is(MODE_DEVICE) => Some("a device"),
            () if found.is(MODE_IRREGULAR) => Some("an irregular file"),
            () => None,
        };
        if let Some(got) = got {
            let message =
                format!("destination \"{container}:{path}\" must be a directory or a regular file: got {got}");
            return Err(Failure::new(message).into());
        }
        (target.exists, target.is_dir) = (true, found.is(MODE_DIR));
    }
    let upload = |folder: &str| {
        context
            .client
            .put(format!("/containers/{container}/archive"))
            .query("path", folder)
            .query("noOverwriteDirNonDir", "true")
            .query("copyUIDGID", u8::from(args.archive))
    };
    if args.source == "-" {
        if target.exists && !target.is_dir {
            return Err(Failure::new(format!("destination \"{container}:{path}\" must be a directory")).into());
        }
        upload(&target.path).archive(ReaderStream::new(tokio::io::stdin())).done().await?;
        return Ok(0);
    }
    let source = local_source(&args.source, args.follow_link)?;
    let placement = copy::place(&source, &target).map_err(|refused| refusal(refused, &args.source, &args.target))?;
    let (folder, own) = copy::split(&source.path);
    let name = placement.name.unwrap_or_else(|| own.clone());
    let root = if own == "." || own == "/" { PathBuf::from(folder) } else { Path::new(&folder).join(own) };
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&sent);
    let body = produce(move |out| {
        let mut archive = tar::Builder::new(out);
        let bytes = archive::pack(&mut archive, &root, Path::new(&name))?;
        counted.store(bytes, std::sync::atomic::Ordering::Relaxed);
        archive.into_inner()?.flush()
    });
    upload(&placement.folder).archive(body).done().await?;
    say_copied(context, args, sent.load(std::sync::atomic::Ordering::Relaxed))
}

fn refusal(refused: copy::Refused, source: &str, target: &str) -> Failure {
    let failure = Failure::new(refused.to_string());
    match refused {
        copy::Refused::FolderOntoFile => failure.hint(format!("{source} is a folder, and {target} is none")),
        copy::Refused::NoSuchFolder => {
            failure.hint(format!("{target} is not there; make it first, or leave out the slash at its end"))
        }
    }
}

/// As Docker: said to whoever sits at a terminal.
fn say_copied(context: &Context, args: &CpArgs, bytes: u64) -> Outcome {
    if !args.quiet && std::io::stdout().is_terminal() {
        #[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
        let size = size::decimal_short(bytes as f64);
        context.printer.note(format!("Successfully copied {size} to {}", args.target))?;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        assert_eq!(side("web:/etc/x"), Some(("web", "/etc/x")));
        assert_eq!(side("./web:/etc"), None);
        assert_eq!(side("/a:b"), None);
        assert_eq!(side("file"), None);
        assert_eq!(side("-"), None);
    }

    #[test]
    fn a_link_on_our_side_is_never_filled() {
        let here = tempfile::tempdir().unwrap();
        let path = |name: &str| here.path().join(name);
        for folder in ["from/x", "to", "elsewhere"] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        std::fs::write(path("from/x/f"), "planted").unwrap();
        std::os::unix::fs::symlink(path("elsewhere"), path("to/x")).unwrap();
        let refused = fill(&path("from"), &path("to")).unwrap_err().to_string();
        assert!(refused.starts_with("cannot overwrite non-directory"), "{refused}");
        assert!(!path("elsewhere/f").exists());
    }
}
