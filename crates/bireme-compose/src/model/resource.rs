//! What of the machine a service gets: devices, their rates, limits of processes.

use serde::Serialize;

use super::form;
use crate::keys::Keys;
use crate::read::value::{bounded, bytes, integer, list_of, some, string};
use crate::read::{Reader, Result, keyed};
use crate::yaml::Node;

keyed! {
    /// How much of block devices a container may use.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct BlkioConfig = "blkio_config" {
        /// Relative, from 10 to 1000.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub weight: Option<u16> => opt(weight),
        /// Bytes per second.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub device_read_bps: Vec<DeviceRate> => or_default(list_of(DeviceRate::read)),
        /// Requests per second.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub device_read_iops: Vec<DeviceRate> => or_default(list_of(DeviceRate::read)),
        /// Bytes per second.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub device_write_bps: Vec<DeviceRate> => or_default(list_of(DeviceRate::read)),
        /// Requests per second.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pub device_write_iops: Vec<DeviceRate> => or_default(list_of(DeviceRate::read)),
    }
    refused:
        "weight_device" => "weights of single devices are not offered; limit its rates";
}

fn weight(node: &Node, path: &str) -> Result<u16> {
    bounded(0, 1000)(node, path).map(|weight| u16::try_from(weight).unwrap_or_default())
}

keyed! {
    /// A limit of one block device.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct DeviceRate = "a limit of a device" {
        /// The device's file on the host.
        pub path: String => required(string, "has no path; write `path` and `rate`"),
        /// Bytes or requests per second, after the key it stands under; always there.
        #[serde(serialize_with = "form::bytes")]
        pub rate: Option<i64> => required(some(bytes), "has no rate; write `path` and `rate`"),
    }
}

keyed! {
    /// A device of the host that a container may use.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
    pub struct Device = "a device" {
        /// Path on the host.
        pub source: String => required(string, "has no source; name a device such as /dev/fuse"),
        /// Path in the container.
        pub target: String => later,
        /// Of `r` (read), `w` (write) and `m` (make).
        pub permissions: String => or(string, "rwm".to_owned()),
    }
}

impl Device {
    pub(super) fn checked(node: &Node, path: &str) -> Result<Self> {
        let r = Reader::new(node, &Self::KEYS, path)?;
        let device = Self::decode(&r)?;
        if !device.source.starts_with('/') {
            let reason = format!("{:?} is not the path of a device; CDI names are not offered", device.source);
            return Err(node.unsupported(path, reason));
        }
        let target = r.opt("target", string)?.unwrap_or_else(|| device.source.clone());
        Ok(Self { target, ..device })
    }
}

/// A limit of processes (`setrlimit(2)`); -1 is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Ulimit {
    /// Soft and hard limit alike.
    Single(i64),
    /// The soft limit is at most the hard one.
    Pair {
        /// What applies, until the process raises it.
        soft: i64,
        /// How far a process may raise it.
        hard: i64,
    },
}

pub(crate) const ULIMIT: Keys = Keys { what: "a limit", done: &["hard", "soft"], refused: &[] };

impl Ulimit {
    pub(super) fn read(node: &Node, path: &str) -> Result<Self> {
        if node.as_map().is_none() {
            return integer(node, path).map(Self::Single);
        }
        let r = Reader::new(node, &ULIMIT, path)?;
        match (r.opt("soft", integer)?, r.opt("hard", integer)?) {
            (Some(soft), Some(hard)) if soft > hard && hard != -1 => {
                Err(node.invalid(path, format!("has a soft limit ({soft}) above the hard one ({hard}); lower it")))
            }
            (Some(soft), Some(hard)) => Ok(Self::Pair { soft, hard }),
            _ => Err(node.invalid(path, "must have both soft and hard, or be one number")),
        }
    }
}
