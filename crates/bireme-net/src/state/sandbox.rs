//! Sandboxes: network namespaces bound to files, and the DNS inside them.

use std::io;
use std::path::{Path, PathBuf};

use bireme_core::SandboxId;
use bireme_sys::netlink::{Socket, Subsystem};
use bireme_sys::{netns, route};

use super::{State, set_sysctl};
use crate::NetError;

/// Where namespaces are bound.
#[derive(Clone)]
pub(crate) struct Sandboxes {
    pub(super) folder: PathBuf,
    pub(super) run_dir: PathBuf,
}

impl Sandboxes {
    pub(crate) fn open(run_dir: &Path) -> Result<Self, NetError> {
        let folder = run_dir.join("netns");
        std::fs::create_dir_all(&folder).map_err(NetError::io(format!("making {}", folder.display())))?;
        Ok(Self { folder, run_dir: run_dir.to_owned() })
    }

    pub(crate) fn path(&self, id: &SandboxId) -> PathBuf {
        self.folder.join(id.as_str())
    }

    pub(crate) fn ensure(&self, id: &SandboxId) -> Result<PathBuf, NetError> {
        let path = self.path(id);
        if netns::exists(&path) {
            return Ok(path);
        }
        let failed = || NetError::io(format!("making a network namespace for {id}"));
        // What a restart of the machine left: the file without the namespace.
        netns::remove(&path).map_err(failed())?;
        self.make(&path).map_err(failed())?;
        Ok(path)
    }

    /// The namespace that `id` has, for another workload to join: where its file is gone, that in which its process
    /// `running` is. Never a new one, which would be without a network.
    pub(crate) fn of_running(&self, id: &SandboxId, running: Option<u32>) -> Result<PathBuf, NetError> {
        let path = self.path(id);
        if netns::exists(&path) {
            return Ok(path);
        }
        let Some(pid) = running else { return Err(NetError::NoSandbox(id.clone())) };
        let failed = || NetError::io(format!("finding the network namespace of {id}"));
        netns::remove(&path).map_err(failed())?;
        netns::keep(&PathBuf::from(format!("/proc/{pid}/ns/net")), &path).map_err(failed())?;
        Ok(path)
    }

    fn make(&self, path: &Path) -> io::Result<()> {
        netns::create(path, || {
            let mut socket = Socket::open(Subsystem::Route)?;
            socket.request(&[route::raise(1)]).map_err(|refused| io::Error::from(refused.errno))?;
            set_sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
            set_sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
            // Otherwise the first workload to leave a shared interface takes the addresses of all others with it.
            set_sysctl("net/ipv4/conf/all/promote_secondaries", "1")?;
            // Interfaces get IPv6 only on networks that have it; `lo` keeps ::1. Absent where the kernel has no IPv6.
            let _ = set_sysctl("net/ipv6/conf/default/disable_ipv6", "1");
            Ok(())
        })
    }

    pub(super) fn remove(&self, id: &SandboxId) -> Result<(), NetError> {
        netns::remove(&self.path(id)).map_err(NetError::io(format!("removing the network namespace of {id}")))
    }
}

impl State {
    /// Whether names are served inside a sandbox.
    pub(crate) fn serves_inside(&self, id: &SandboxId) -> bool {
        self.inside.contains_key(id)
    }

    pub(crate) fn serve_inside(
        &mut self,
        id: SandboxId,
        udp: std::net::UdpSocket,
        tcp: std::net::TcpListener,
    ) -> Result<(), NetError> {
        let attempt = format!("serving names inside {id}");
        let serving = self.service.serve(&self.runtime, udp, tcp, Some(&id)).map_err(NetError::io(attempt))?;
        self.inside.insert(id, serving);
        Ok(())
    }

    pub(crate) fn remove_sandbox(&mut self, id: &SandboxId) -> Result<(), NetError> {
        if let Some(mut serving) = self.inside.remove(id) {
            // Its sockets would keep the namespace alive.
            self.runtime.block_on(serving.shutdown());
        }
        let attached: Vec<_> = self.links.keys().filter(|(of, _)| of == id).cloned().collect();
        let mut first = None;
        for key in attached {
            if let Err(error) = self.drop_link(&key) {
                first.get_or_insert(error);
            }
        }
        if let Err(error) = self.sandboxes.remove(id) {
            first.get_or_insert(error);
        }
        first.map_or(Ok(()), Err)
    }
}
