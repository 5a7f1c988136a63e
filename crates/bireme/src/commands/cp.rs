//! `bireme cp`.

use std::ffi::OsString;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use futures::TryStreamExt;
use serde_json::Value;
use tokio_util::io::ReaderStream;

use crate::archive::produce;
use crate::cli::CpArgs;
use crate::context::Context;
use crate::error::{Failure, Outcome};

pub(super) async fn cp(context: &Context, args: &CpArgs) -> Outcome {
    match (side(&args.source), side(&args.target)) {
        (Some((container, path)), None) => copy_out(context, container, path, &args.target).await,
        (None, Some((container, path))) => copy_in(context, args, container, path).await,
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
    if text.starts_with(['/', '.']) || text == "-" {
        return None;
    }
    text.split_once(':').filter(|(name, _)| !name.is_empty())
}

async fn copy_out(context: &Context, container: &str, path: &str, target: &str) -> Outcome {
    let call = context.client.get(format!("/containers/{container}/archive")).query("path", path);
    let mut chunks = call.stream().await?;
    if target == "-" {
        while let Some(chunk) = chunks.try_next().await? {
            context.printer.raw(&chunk)?;
        }
        return Ok(0);
    }
    let target = PathBuf::from(target);
    let contents = path.ends_with("/.") || path == ".";
    let ends_with_slash = target.as_os_str().as_encoded_bytes().ends_with(b"/");
    if ends_with_slash && !target.is_dir() {
        return Err(Failure::new(format!("destination directory {} must exist", target.display())).into());
    }
    let mut file = tempfile::tempfile().context("cannot make a temporary file")?;
    while let Some(chunk) = chunks.try_next().await? {
        file.write_all(&chunk)?;
    }
    file.rewind()?;
    let parent = match target.parent() {
        _ if target.is_dir() => target.clone(),
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    // Unpacked beside the target, where nothing of it can lead outside, then moved into place.
    let unpacked = tempfile::Builder::new().prefix(".bireme-cp-").tempdir_in(&parent);
    let unpacked = unpacked.with_context(|| format!("cannot write into {}", parent.display()))?;
    let mut archive = tar::Archive::new(file);
    archive.set_preserve_permissions(true);
    archive.unpack(unpacked.path()).context("cannot unpack what the container sent")?;
    let mut roots = std::fs::read_dir(unpacked.path())?.collect::<Result<Vec<_>, _>>()?;
    if contents {
        std::fs::create_dir_all(&target)?;
        let only = match roots.as_slice() {
            [root] if root.file_name() == *Path::new(path.trim_end_matches("/.")).file_name().unwrap_or_default() => {
                root.path()
            }
            _ => unpacked.path().to_path_buf(),
        };
        merge(&only, &target)?;
    } else {
        let root = roots.pop().context("the container sent an empty archive")?;
        let place = if target.is_dir() { target.join(root.file_name()) } else { target };
        merge(&root.path(), &place)?;
    }
    Ok(0)
}

/// Moves `from` to `to`; folders that are there already are filled, files replaced.
fn merge(from: &Path, to: &Path) -> anyhow::Result<()> {
    let is_folder = from.symlink_metadata()?.is_dir();
    if !is_folder && to.is_dir() {
        bail!("cannot put a file in the place of the folder {}", to.display());
    }
    if is_folder && to.is_dir() {
        for entry in std::fs::read_dir(from)? {
            let entry = entry?;
            merge(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    std::fs::rename(from, to).with_context(|| format!("cannot write {}", to.display()))
}

async fn copy_in(context: &Context, args: &CpArgs, container: &str, path: &str) -> Outcome {
    let upload = |folder: &str| {
        context
            .client
            .put(format!("/containers/{container}/archive"))
            .query("path", folder)
            .query("noOverwriteDirNonDir", "true")
            .query("copyUIDGID", u8::from(args.archive))
    };
    if args.source == "-" {
        upload(path).archive(ReaderStream::new(tokio::io::stdin())).done().await?;
        return Ok(0);
    }
    let source = PathBuf::from(&args.source);
    let contents = args.source.ends_with("/.") || args.source == ".";
    source.symlink_metadata().with_context(|| format!("cannot read {}", source.display()))?;
    let is_folder = source.is_dir();
    let (folder, name): (String, OsString) = if is_dir_there(context, container, path).await? {
        let name = if contents { OsString::from(".") } else { base(&source)? };
        (path.to_owned(), name)
    } else if path.ends_with('/') && !is_folder {
        return Err(Failure::new(format!("destination directory {container}:{path} must exist")).into());
    } else {
        let trimmed = path.trim_end_matches('/');
        let (folder, name) = trimmed.rsplit_once('/').unwrap_or(("/", trimmed));
        (if folder.is_empty() { "/".to_owned() } else { folder.to_owned() }, name.into())
    };
    let follow = args.follow_link;
    let body = produce(move |out| {
        let mut archive = tar::Builder::new(out);
        archive.follow_symlinks(follow);
        if is_folder {
            archive.append_dir_all(Path::new(&name), &source)?;
        } else {
            archive.append_path_with_name(&source, Path::new(&name))?;
        }
        archive.into_inner()?.flush()
    });
    upload(&folder).archive(body).done().await?;
    Ok(0)
}

fn base(path: &Path) -> anyhow::Result<OsString> {
    let full = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
    let named = path.file_name().map(OsString::from);
    named.or_else(|| full.file_name().map(OsString::from)).with_context(|| format!("{} has no name", path.display()))
}

async fn is_dir_there(context: &Context, container: &str, path: &str) -> anyhow::Result<bool> {
    let call = context.client.call(http::Method::HEAD, format!("/containers/{container}/archive")).query("path", path);
    let stat = match call.with_header("x-docker-container-path-stat").await {
        Ok((stat, _)) => stat,
        Err(error) if error.is_not_found() => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let stat = stat.and_then(|stat| base64::engine::general_purpose::STANDARD.decode(stat).ok());
    let stat: Value = stat.and_then(|stat| serde_json::from_slice(&stat).ok()).unwrap_or(Value::Null);
    // Go's `os.ModeDir` is the highest bit.
    Ok(stat["mode"].as_u64().is_some_and(|mode| mode & (1 << 31) != 0))
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
}
