//! The network namespace of a container that was given no place on a network.

use std::fs::File;

use bireme_core::ErrorKind;
use bireme_linux::protocol::Failure;

use crate::failure::failed;

/// Makes a network namespace with nothing but a loopback that is up. This process does not stay in it: libcontainer takes
/// the namespace it is in itself for the host's.
pub(crate) fn fresh() -> Result<File, Failure> {
    let own = || File::open("/proc/self/ns/net");
    let made = own().and_then(|before| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        Ok((before, own()?))
    });
    let (before, fresh) = made.map_err(|error| failed("cannot make a network namespace", error))?;
    let client = libcontainer::network::wrapper::create_network_client();
    let raised = libcontainer::network::link::LinkClient::new(client).and_then(|mut links| {
        // The loopback is the first interface of every namespace.
        links.set_up(1)
    });
    raised
        .map_err(|error| Failure::new(ErrorKind::Internal, format!("cannot raise the loopback interface: {error}")))?;
    nix::sched::setns(before, nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|error| failed("cannot leave a network namespace", error.into()))?;
    Ok(fresh)
}
