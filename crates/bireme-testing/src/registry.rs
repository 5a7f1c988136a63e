//! Debian's registry, for tests that push and pull.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::eventually;

/// A registry on a port of this machine. It ends, with all that it has, when it is dropped.
pub struct Registry {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Registry {
    /// Who may use a registry that asks for a password, and the password.
    pub const USER: (&'static str, &'static str) = ("me", "U*U");
    /// The same password as bcrypt keeps it: the first test vector of Openwall's crypt_blowfish.
    const HASH: &'static str = "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW";

    /// For everyone.
    ///
    /// # Panics
    /// When `docker-registry` is not installed or does not come up.
    #[track_caller]
    pub fn start() -> Self {
        Self::launch(false)
    }

    /// For [`Self::USER`] alone.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[track_caller]
    pub fn with_password() -> Self {
        Self::launch(true)
    }

    #[track_caller]
    fn launch(password: bool) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a port is free");
        let mut config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\n\
             http: {{ addr: '{address}', secret: x }}\n",
            folder.path().join("content").display()
        );
        if password {
            let users = folder.path().join("users");
            std::fs::write(&users, format!("{}:{}\n", Self::USER.0, Self::HASH)).expect("a file can be written");
            let _ = writeln!(config, "auth: {{ htpasswd: {{ realm: test, path: {} }} }}", users.display());
        }
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).expect("a file can be written");
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Self { child: child.expect("docker-registry is installed"), address, _folder: folder };
        eventually("a registry", || TcpStream::connect(address).ok());
        registry
    }

    /// `127.0.0.1:PORT`, with which names of its images begin.
    pub fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
