//! Builds of small contexts.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bireme_image::{BuildContext, BuildEvent, BuildRequest, Image, ImageError};

use super::Place;

/// What Docker gives an image without one.
pub(crate) const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds from a folder with these files.
pub(crate) async fn build(
    place: &Place,
    files: &[(&str, &str)],
    change: impl FnOnce(&mut BuildRequest),
) -> Result<(Image, String), ImageError> {
    let context = tempfile::tempdir_in("/var/tmp").unwrap();
    for (name, content) in files {
        let path = context.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    }
    // Last, as each new file gives its folder a new time.
    for folder in files.iter().filter_map(|(name, _)| Path::new(name).parent()) {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
        std::fs::File::open(context.path().join(folder)).unwrap().set_modified(time).unwrap();
    }
    let mut request = BuildRequest::new(BuildContext::Folder(context.path().to_owned()));
    change(&mut request);
    let text = Arc::new(Mutex::new(String::new()));
    let log = |event: BuildEvent| {
        if let BuildEvent::Stream(line) = event {
            text.lock().unwrap().push_str(&line);
        }
    };
    let id = place.store.build(request, &log).await?;
    let text = text.lock().unwrap().clone();
    Ok((place.store.image(&id).unwrap(), text))
}

pub(crate) fn no_change(_: &mut BuildRequest) {}

/// Builds from an archive as a client sends it.
pub(crate) async fn build_of(place: &Place, archive: Vec<u8>) -> Result<Image, ImageError> {
    let context = BuildContext::Archive(Box::new(std::io::Cursor::new(archive)));
    let id = place.store.build(BuildRequest::new(context), &|_| {}).await?;
    Ok(place.store.image(&id).unwrap())
}
