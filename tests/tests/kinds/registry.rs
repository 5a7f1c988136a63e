//! Debian's registry, with its files in a folder of the test.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bireme_testing::eventually;

/// On a port of this machine.
pub(super) struct Registry(Child, u16);

impl Registry {
    pub(super) fn start(folder: &Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let root = folder.join("registry");
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\n\
             http: {{ addr: '{address}', secret: x }}\n",
            root.display()
        );
        let file = folder.join("registry.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        let child = command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("the registry", || std::net::TcpStream::connect(address).ok());
        Self(child, address.port())
    }

    pub(super) fn port(&self) -> u16 {
        self.1
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
