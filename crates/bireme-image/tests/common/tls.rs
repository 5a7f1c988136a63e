//! A certificate authority of one test.

use std::path::PathBuf;
use std::process::Command;

/// `ca.pem`, `server.pem` and `server.key` for this machine, `client.pem` and `client.key`, and `client.both`.
pub(crate) struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    pub(crate) fn make() -> Self {
        let made = Self { folder: tempfile::tempdir().unwrap() };
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"];
        made.openssl(
            &[&["req", "-x509", "-subj", "/CN=test-ca", "-keyout", "ca.key", "-out", "ca.pem"], &key[..]].concat(),
        );
        let issued = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
        for (name, extra) in
            [("server", "subjectAltName=IP:127.0.0.1,DNS:localhost"), ("client", "extendedKeyUsage=clientAuth")]
        {
            let (subject, key_file, out) = (format!("/CN={name}"), format!("{name}.key"), format!("{name}.pem"));
            let own = ["req", "-x509", "-subj", &subject, "-keyout", &key_file, "-out", &out, "-addext", extra];
            made.openssl(&[&own[..], &issued, &key].concat());
        }
        let both = [made.content("client.pem"), made.content("client.key")].concat();
        std::fs::write(made.file("client.both"), both).unwrap();
        made
    }

    fn openssl(&self, arguments: &[&str]) {
        let done = Command::new("openssl").args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn content(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.file(name)).unwrap()
    }
}
