//! Where a registry's images may be fetched from and brought to: itself, and the mirrors that its folder names.
//!
//! A registry may have a folder below each of the folders that the settings name, called by its host and port: with a
//! `hosts.toml` as containerd reads it, or else with certificates as Docker does. The first that has anything for a registry
//! is read, at each pull anew; one for `_default` only where no folder has anything for the registry itself.
//!
//! Source: containerd, `docs/hosts.md`; Docker, "Verify repository client with certificates".

mod file;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::{HUB, is_plain};
use crate::error::ImageError;
use crate::reference::valid_registry;
use crate::settings::RegistrySettings;

pub(crate) use file::{Can, Hosts, Listed, Manner};

/// Bytes of a file of settings or certificates that are read.
const FILE_LIMIT: u64 = 1 << 20;

/// Certificates that one folder may hold.
const MOST_FILES: usize = 64;

/// Somewhere that images are fetched from or brought to.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Host and port, as people know it.
    pub(crate) host: String,
    /// Where its interface begins; ends in a slash.
    pub(crate) root: Url,
    pub(crate) can: Can,
    pub(crate) manner: Manner,
    /// It is the registry itself, which credentials are for. A mirror is somebody else.
    pub(crate) own: bool,
}

/// All places of a registry in the order in which they are asked, the registry itself last.
///
/// # Errors
/// `RegistryConfig` for a file that cannot be used; `Registry` for a mirror of the settings that is none.
pub(crate) fn places(settings: &RegistrySettings, registry: &str) -> Result<Vec<Place>, ImageError> {
    let mut places = Vec::new();
    if registry == "docker.io" {
        for mirror in &settings.mirrors {
            places.push(mirror_of_settings(settings, mirror)?);
        }
    }
    let found = folder(settings, registry)?;
    let (hosts, folder) = match found {
        Some((hosts, folder)) => (Some(hosts), Some(folder)),
        None => (None, None),
    };
    let Hosts { mirrors, server } = hosts.unwrap_or_else(|| Hosts { mirrors: Vec::new(), server: itself() });
    // Whoever gives certificates for a registry wants them used, also on this machine.
    let secured = server.manner.skip_verify || !(server.manner.ca.is_empty() && server.manner.client.is_empty());
    let own = address(settings, registry, secured).map_err(|reason| failed(registry, reason))?;
    let mut place = |listed: Listed, is_server: bool| -> Result<(), ImageError> {
        let root = match listed.root {
            Some(root) => root,
            None => own.clone(),
        };
        let root = at_hub(root);
        let host = host_of(&root).ok_or_else(|| {
            let path = folder.clone().unwrap_or_default();
            ImageError::RegistryConfig { path, reason: format!("{root} names no host") }
        })?;
        // One that is listed under the registry's own address is no mirror.
        let is_own =
            is_server || (root.host() == own.host() && root.port_or_known_default() == own.port_or_known_default());
        let host = if is_own { registry.to_owned() } else { host };
        places.push(Place { host, root, can: listed.can, manner: listed.manner, own: is_own });
        Ok(())
    };
    for mirror in mirrors {
        place(mirror, false)?;
    }
    place(server, true)?;
    Ok(places)
}

/// The registry itself, without what stands before it.
pub(crate) fn own_place(settings: &RegistrySettings, registry: &str) -> Result<Place, ImageError> {
    let last = places(settings, registry)?.pop();
    last.ok_or_else(|| failed(registry, "it has no address".to_owned()))
}

fn failed(registry: &str, reason: String) -> ImageError {
    ImageError::Registry { registry: registry.to_owned(), attempt: "prepare a connection".to_owned(), reason }
}

fn itself() -> Listed {
    Listed { root: None, can: Can::ALL, manner: Manner::default() }
}

fn address(settings: &RegistrySettings, registry: &str, secured: bool) -> Result<Url, String> {
    let host = if registry == "docker.io" { HUB } else { registry };
    let insecure = settings.insecure.iter().any(|insecure| insecure == registry);
    let scheme = if insecure || (!secured && is_plain(settings, registry)) { "http" } else { "https" };
    Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|error| error.to_string())
}

/// Docker Hub's names for people are no addresses of its registry, and are often written as such.
fn at_hub(mut root: Url) -> Url {
    if matches!(root.host_str(), Some("docker.io" | "index.docker.io")) {
        // A host in the place of a host is always taken.
        let _ = root.set_host(Some(HUB));
    }
    root
}

fn host_of(root: &Url) -> Option<String> {
    let host = root.host_str()?;
    Some(root.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

fn mirror_of_settings(settings: &RegistrySettings, mirror: &str) -> Result<Place, ImageError> {
    let bad = || ImageError::Registry {
        registry: mirror.to_owned(),
        attempt: "pull".to_owned(),
        reason: "the mirror must be given as http://HOST[:PORT], https://HOST[:PORT] or HOST[:PORT]".to_owned(),
    };
    let (host, http) = match mirror.split_once("://") {
        Some(("http", host)) => (host, true),
        Some(("https", host)) => (host, false),
        Some(_) => return Err(bad()),
        None => (mirror, is_plain(settings, mirror)),
    };
    let host = host.trim_end_matches('/');
    if !valid_registry(host) {
        return Err(bad());
    }
    // The certificates that its own folder gives are for it also as a mirror.
    let manner = match folder(settings, host)? {
        Some((hosts, _)) => hosts.server.manner,
        None => Manner::default(),
    };
    let scheme = if http { "http" } else { "https" };
    let root = Url::parse(&format!("{scheme}://{host}/v2/")).map_err(|_| bad())?;
    let can = Can { pull: true, resolve: true, push: false };
    Ok(Place { host: host.to_owned(), root, can, manner, own: false })
}

/// What the folders of the settings say of a registry, and which of them does.
fn folder(settings: &RegistrySettings, registry: &str) -> Result<Option<(Hosts, PathBuf)>, ImageError> {
    // It becomes part of a path.
    if !valid_registry(registry) {
        return Ok(None);
    }
    let mut names = vec![registry.to_owned(), "_default".to_owned()];
    if let Some((host, port)) = registry.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        // A colon is no good in paths; Docker writes it all the same.
        names.insert(0, format!("{host}_{port}_"));
    }
    let (specific, default) = names.split_at(names.len() - 1);
    for names in [specific, default] {
        for folder in &settings.config_dirs {
            for name in names {
                let folder = folder.join(name);
                if let Some(hosts) = read_folder(&folder)? {
                    return Ok(Some((hosts, folder)));
                }
            }
        }
    }
    Ok(None)
}

fn read_folder(folder: &Path) -> Result<Option<Hosts>, ImageError> {
    let file = folder.join("hosts.toml");
    match read(&file) {
        Ok(bytes) => {
            let bad = |reason: String| ImageError::RegistryConfig { path: file.clone(), reason };
            let text = String::from_utf8(bytes).map_err(|_| bad("it is no text in UTF-8".to_owned()))?;
            return Hosts::parse(&text, folder).map(Some).map_err(bad);
        }
        Err(ReadError(std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory, _)) => {}
        Err(ReadError(_, reason)) => return Err(ImageError::RegistryConfig { path: file, reason }),
    }
    certificates(folder)
}

/// Certificates as Docker keeps them: `*.crt` is trusted, `NAME.cert` with `NAME.key` is shown.
fn certificates(folder: &Path) -> Result<Option<Hosts>, ImageError> {
    let bad = |reason: String| ImageError::RegistryConfig { path: folder.to_owned(), reason };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(bad(error.to_string())),
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| bad(error.to_string()))?.path());
        if paths.len() > MOST_FILES {
            return Err(bad(format!("there are more than {MOST_FILES} files in it")));
        }
    }
    paths.sort();
    let mut manner = Manner::default();
    for path in paths {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => manner.ca.push(path),
            Some("cert") => {
                let key = Some(path.with_extension("key")).filter(|key| key.exists());
                manner.client.push((path, key));
            }
            _ => {}
        }
    }
    let found = !(manner.ca.is_empty() && manner.client.is_empty());
    Ok(found.then(|| Hosts { mirrors: Vec::new(), server: Listed { manner, ..itself() } }))
}

/// Why a file could not be read, as a kind and in words.
pub(super) struct ReadError(std::io::ErrorKind, pub(super) String);

/// A file of the machine's owner, up to a bound.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let failed = |error: std::io::Error| ReadError(error.kind(), error.to_string());
    let file = std::fs::File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(ReadError(std::io::ErrorKind::InvalidInput, "it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(FILE_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > FILE_LIMIT {
        let reason = format!("it is larger than {FILE_LIMIT} bytes");
        return Err(ReadError(std::io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked, in order: host, address, and whether credentials are for it.
    fn asked(
        folders: &[&Path],
        registry: &str,
        change: impl FnOnce(&mut RegistrySettings),
    ) -> Vec<(String, String, bool)> {
        let config_dirs = folders.iter().map(|folder| (*folder).to_owned()).collect();
        let mut settings = RegistrySettings { config_dirs, ..RegistrySettings::default() };
        change(&mut settings);
        let places = places(&settings, registry).unwrap();
        places.into_iter().map(|place| (place.host, place.root.to_string(), place.own)).collect()
    }

    fn put(folder: &Path, name: &str, content: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn one(host: &str, root: &str, own: bool) -> (String, String, bool) {
        (host.to_owned(), root.to_owned(), own)
    }

    #[test]
    fn without_folders_a_registry_is_asked_itself() {
        for (registry, root) in [
            ("docker.io", "https://registry-1.docker.io/v2/"),
            ("ghcr.io", "https://ghcr.io/v2/"),
            ("localhost:5000", "http://localhost:5000/v2/"),
            ("[::1]:5000", "http://[::1]:5000/v2/"),
            ("lan:5000", "http://lan:5000/v2/"),
        ] {
            let insecure = |settings: &mut RegistrySettings| settings.insecure.push("lan:5000".to_owned());
            assert_eq!(asked(&[], registry, insecure), [one(registry, root, true)]);
        }
    }

    #[test]
    fn mirrors_come_in_order_and_the_registry_last() {
        let folder = tempfile::tempdir().unwrap();
        put(
            folder.path(),
            "docker.io/hosts.toml",
            "server = \"https://docker.io\"\n[host.\"http://m1:5000\"]\n[host.\"https://m2/hub\"]\n",
        );
        let mirrors = |settings: &mut RegistrySettings| settings.mirrors.push("http://m0".to_owned());
        let hub = one("docker.io", "https://registry-1.docker.io/v2/", true);
        assert_eq!(
            asked(&[folder.path()], "docker.io", mirrors),
            [
                one("m0", "http://m0/v2/", false),
                one("m1:5000", "http://m1:5000/v2/", false),
                one("m2", "https://m2/hub/v2/", false),
                hub,
            ]
        );
        // A registry that is asked elsewhere is still the one that credentials are for.
        put(
            folder.path(),
            "reg.example/hosts.toml",
            "server = \"http://inside:5000\"\n[host.\"https://reg.example\"]\n",
        );
        assert_eq!(
            asked(&[folder.path()], "reg.example", |_| ()),
            ["https://reg.example/v2/", "http://inside:5000/v2/"].map(|root| one("reg.example", root, true))
        );
    }

    #[test]
    fn the_first_folder_with_something_for_a_registry_counts_and_the_default_last() {
        let (one_dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [one_dir.path(), other.path()];
        put(one_dir.path(), "_default/hosts.toml", "[host.\"http://everything\"]");
        put(other.path(), "a_5000_/hosts.toml", "[host.\"http://for-a\"]");
        put(other.path(), "b:5000/ca.crt", "");
        std::fs::create_dir(one_dir.path().join("b_5000_")).unwrap();
        let first = |registry: &str| asked(&folders, registry, |_| ())[0].clone();
        assert_eq!(first("a:5000"), one("for-a", "http://for-a/v2/", false));
        assert_eq!(first("b:5000"), one("b:5000", "https://b:5000/v2/", true));
        assert_eq!(first("c"), one("everything", "http://everything/v2/", false));
        // What is no name of a registry leads nowhere.
        assert!(
            super::folder(
                &RegistrySettings { config_dirs: folders.map(Path::to_owned).into(), ..Default::default() },
                "../x"
            )
            .unwrap()
            .is_none()
        );
    }

    #[test]
    fn certificates_as_docker_keeps_them_are_found_also_for_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.crt", "client.cert", "client.key", "both.cert", "README"] {
            put(folder.path(), &format!("localhost:5000/{name}"), "");
        }
        let settings = RegistrySettings { config_dirs: vec![folder.path().to_owned()], ..RegistrySettings::default() };
        let place = own_place(&settings, "localhost:5000").unwrap();
        let file = |name: &str| folder.path().join("localhost:5000").join(name);
        assert_eq!(place.root.as_str(), "https://localhost:5000/v2/");
        assert_eq!(place.manner.ca, [file("ca.crt")]);
        assert_eq!(place.manner.client, [(file("both.cert"), None), (file("client.cert"), Some(file("client.key")))]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named() {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "a/hosts.toml", "[host.\"x\"]\ncapabilities = [\"fly\"]");
        let settings = RegistrySettings { config_dirs: vec![folder.path().to_owned()], ..RegistrySettings::default() };
        let error = places(&settings, "a").unwrap_err().to_string();
        assert!(error.contains("a/hosts.toml") && error.contains("fly"), "{error}");
        put(folder.path(), "b/hosts.toml", &" ".repeat(2 << 20));
        assert!(places(&settings, "b").unwrap_err().to_string().contains("larger than"));
    }
}
