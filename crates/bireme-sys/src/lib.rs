//! Linux as the rest of Bireme uses it: the home of `unsafe`, behind functions that anyone may call.
//! What stands outside is named with its reason in ARCHITECTURE.md.
//!
//! - [`bpf`]: programs that say which devices a cgroup may use;
//! - [`fds`]: file descriptors sent between processes;
//! - [`memory`]: memory given back to the kernel;
//! - [`mounts`]: mount namespaces that nobody is in, and attributes of mounts;
//! - [`netns`]: network namespaces, made and entered without leaving the caller's thread in another one;
//! - [`netlink`]: the socket and the message encoding that [`route`] and [`nft`] share;
//! - [`route`]: links, addresses and routes; [`nft`]: tables, sets, chains and rules of nf_tables;
//!   [`conntrack`]: connections that the kernel remembers;
//! - [`keyring`]: keys that the kernel keeps for a session;
//! - [`listen`]: bound and listening sockets; [`packet`]: whole Ethernet frames;
//! - [`path`]: paths that the kernel resolves below a folder;
//! - [`pidfd`]: processes that are not our children, watched without races;
//! - [`process`]: processes copied, signalled and ended; [`signals`]: those of this one;
//! - [`program`]: a program that nobody changes;
//! - [`seccomp`]: filters of system calls;
//! - [`walk`]: all files below a folder, and none outside it; [`removal`]: removing them.
//!
//! Everything here blocks: callers with an async runtime use its pool for blocking work.

#![warn(missing_docs)]

pub mod bpf;
pub mod conntrack;
pub mod fds;
pub mod keyring;
pub mod listen;
pub mod memory;
pub mod mounts;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod path;
pub mod pidfd;
pub mod process;
pub mod program;
pub mod removal;
pub mod route;
pub mod seccomp;
pub mod signals;
pub mod socket;
pub mod walk;
