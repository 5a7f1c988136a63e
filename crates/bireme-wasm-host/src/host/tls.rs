//! Whom outgoing TLS connections trust: the public authorities, or those in the file that `SSL_CERT_FILE` names.
//!
//! The variable means what it means to the programs in a container: the file takes the place of the public authorities. It
//! is read when the workload is loaded, out of a folder that the workload was given, and of no other.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::component::Folder;

/// Most bytes of a file of certificates; the public authorities take a quarter of one MiB.
const MAX_FILE: u64 = 4 << 20;

/// Whose file it is and where from: a name, as in the refusals here.
const VARIABLE: &str = "SSL_CERT_FILE";

/// What a workload's environment says about whom it trusts.
pub(crate) enum Trust {
    Public,
    /// The file lies in none of the workload's folders; the sentence says so.
    Elsewhere(String),
    Own(Arc<ClientConfig>),
}

impl Trust {
    /// Reads the file that `env` names, if it names one. `cwd` is where a relative path starts.
    ///
    /// # Errors
    /// A sentence when the file lies in a folder of the workload and cannot be used.
    pub(crate) fn read(env: &[String], cwd: &str, folders: &[Folder]) -> Result<Self, String> {
        let value = env.iter().filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == VARIABLE);
        let Some((_, file)) = value.filter(|(_, file)| !file.is_empty()) else { return Ok(Self::Public) };
        let path = Path::new("/").join(cwd).join(file);
        let inside = |folder: &'_ Folder| path.strip_prefix(&folder.target).ok().map(Path::to_owned);
        let deepest = folders.iter().filter(|folder| inside(folder).is_some()).max_by_key(|folder| folder.target.len());
        let Some((folder, rest)) = deepest.and_then(|folder| Some((folder, inside(folder)?))) else {
            let text = format!(
                "{VARIABLE}={file} is in no folder that is mounted here: HTTPS trusts the public authorities; mount the \
                 folder that holds the file to trust others"
            );
            return Ok(Self::Elsewhere(text));
        };
        let refuse = |why: &str| {
            format!("cannot use {VARIABLE}={file}: {why}; name a PEM file with the certificates of whom to trust")
        };
        let bytes = read_beneath(folder, &rest).map_err(|error| refuse(&error.to_string()))?;
        Ok(Self::Own(trusting(&bytes).map_err(|why| refuse(&why))?))
    }

    pub(crate) fn config(self) -> Arc<ClientConfig> {
        static PUBLIC: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        match self {
            Self::Own(config) => config,
            Self::Public | Self::Elsewhere(_) => Arc::clone(
                PUBLIC.get_or_init(|| client(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })),
            ),
        }
    }
}

/// Whoever is certified by the certificates in `pem` is trusted, and nobody else.
///
/// # Errors
/// Why they cannot be used.
pub(crate) fn trusting(pem: &[u8]) -> Result<Arc<ClientConfig>, String> {
    let certificates: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it is not in PEM form ({error})"))?;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err("no certificate is in it".to_owned());
    }
    Ok(client(roots))
}

fn client(roots: RootCertStore) -> Arc<ClientConfig> {
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

/// Reads a file without leaving `folder` on the way, by `..` or by a link.
fn read_beneath(folder: &Folder, path: &Path) -> std::io::Result<Vec<u8>> {
    // Not to wait for the other end of a pipe.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let file = std::fs::File::from(rustix::fs::openat2(&folder.open, path, flags, Mode::empty(), resolve)?);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    if file.take(MAX_FILE + 1).read_to_end(&mut bytes)? as u64 > MAX_FILE {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", MAX_FILE >> 20)));
    }
    Ok(bytes)
}
