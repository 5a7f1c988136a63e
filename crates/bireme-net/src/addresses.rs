//! Which addresses to give: subnets for new networks, and addresses in them. Pure.
//!
//! [`SubnetPools`] finds the subnet of a new network; [`AddressPool`] gives addresses of one subnet. Neither remembers
//! anything on disk: whoever does, builds them anew with what is in use.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bireme_core::ErrorKind;
use ipnet::{IpNet, Ipv4Net};

/// Ranges that subnets of new networks are cut from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetPools {
    pools: Vec<(Ipv4Net, u8)>,
}

impl Default for SubnetPools {
    /// Docker's: 172.17.0.0/16 first, which becomes the default bridge's, up to 172.31.0.0/16, then 192.168.0.0/16 in
    /// pieces of /20.
    fn default() -> Self {
        let mut pools: Vec<_> = (17..=31).map(|second| (net(172, second), 16)).collect();
        pools.push((net(192, 168), 20));
        Self { pools }
    }
}

fn net(first: u8, second: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(first, second, 0, 0), 16)
}

impl SubnetPools {
    /// Pools as a base and the prefix length of the pieces cut from it.
    ///
    /// # Errors
    /// `Invalid` when a piece would be larger than its base, or leave no room for a gateway and a member.
    pub fn new(pools: Vec<(Ipv4Net, u8)>) -> Result<Self, AddressError> {
        match pools.iter().find(|(base, size)| *size < base.prefix_len() || *size > 30) {
            Some(&(base, size)) => Err(AddressError::PieceSize { base, size }),
            None => Ok(Self { pools: pools.into_iter().map(|(base, size)| (base.trunc(), size)).collect() }),
        }
    }

    /// The first subnet that overlaps nothing in `taken`: other networks, and what [`crate::Net::host_routes`] answers.
    ///
    /// # Errors
    /// `Unavailable` when all are taken.
    pub fn next(&self, taken: &[IpNet]) -> Result<Ipv4Net, AddressError> {
        self.pools
            .iter()
            .filter_map(|(base, size)| base.subnets(*size).ok())
            .flatten()
            .find(|piece| !taken.iter().any(|other| overlap(&IpNet::V4(*piece), other)))
            .ok_or(AddressError::NoSubnet)
    }
}

/// Whether two ranges share an address.
pub fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(&other.network()) || other.contains(&one.network())
}

/// The addresses of one subnet.
///
/// Gives the next one after that given last, so that an address just freed is not at once another workload's, whose
/// peers would still send it what was meant for the former.
#[derive(Clone, Debug)]
pub struct AddressPool {
    subnet: IpNet,
    /// First and last that may be given by [`Self::take_next`].
    range: (u128, u128),
    /// Never given: gateway, auxiliary addresses.
    reserved: BTreeSet<u128>,
    taken: BTreeSet<u128>,
    last: Option<u128>,
}

impl AddressPool {
    /// `range` is the part of the subnet that addresses are chosen from (Docker's `--ip-range`), `reserved` are the
    /// gateway and the addresses of others in it (`--aux-address`).
    ///
    /// # Errors
    /// `Invalid` when `range` or `reserved` are not within `subnet`.
    pub fn new(subnet: IpNet, range: Option<IpNet>, reserved: &[IpAddr]) -> Result<Self, AddressError> {
        let subnet = subnet.trunc();
        let within = range.unwrap_or(subnet);
        if !subnet.contains(&within) {
            return Err(AddressError::RangeOutside { range: within, subnet });
        }
        if let Some(&address) = reserved.iter().find(|address| !subnet.contains(*address)) {
            return Err(AddressError::Outside { address, subnet });
        }
        let (mut first, mut last) = (number(within.network()), number(within.broadcast()));
        // The lowest address names the subnet (in IPv6 it is the routers' anycast), the highest of IPv4 is broadcast.
        if first == number(subnet.network()) && subnet.prefix_len() < subnet.max_prefix_len() - 1 {
            first += 1;
        }
        if subnet.addr().is_ipv4() && last == number(subnet.broadcast()) && subnet.prefix_len() < 31 {
            last -= 1;
        }
        let reserved = reserved.iter().map(|address| number(*address)).collect();
        Ok(Self { subnet, range: (first, last), reserved, taken: BTreeSet::new(), last: None })
    }

    /// The lowest usable address, which Docker makes the gateway when none is asked for.
    pub fn default_gateway(subnet: IpNet) -> IpAddr {
        let subnet = subnet.trunc();
        address(number(subnet.network()) + 1, &subnet)
    }

    /// The subnet that addresses are taken from, its host bits zero.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// Takes the next free address, with the prefix length of the subnet.
    ///
    /// # Errors
    /// `Unavailable` when there is none.
    pub fn take_next(&mut self) -> Result<IpNet, AddressError> {
        let (first, last) = self.range;
        let start = match self.last {
            Some(given) if given >= first && given < last => given + 1,
            _ => first,
        };
        let found = self.free_in(start, last).or_else(|| self.free_in(first, start.saturating_sub(1)));
        let Some(free) = found else { return Err(AddressError::Exhausted { subnet: self.subnet }) };
        self.taken.insert(free);
        self.last = Some(free);
        Ok(self.with_prefix(free))
    }

    /// Takes `wanted`, which need not be in the range that addresses are chosen from.
    ///
    /// # Errors
    /// `Invalid` when it is not in the subnet, `Conflict` when it is in use or reserved.
    pub fn take(&mut self, wanted: IpAddr) -> Result<IpNet, AddressError> {
        let (subnet, asked) = (self.subnet, number(wanted));
        if !subnet.contains(&wanted) {
            return Err(AddressError::Outside { address: wanted, subnet });
        }
        let small = subnet.prefix_len() >= subnet.max_prefix_len() - 1;
        let edge = wanted == subnet.network() || (subnet.addr().is_ipv4() && wanted == subnet.broadcast());
        if self.reserved.contains(&asked) || (edge && !small) {
            return Err(AddressError::Reserved { address: wanted, subnet });
        }
        if !self.taken.insert(asked) {
            return Err(AddressError::InUse { address: wanted, subnet });
        }
        Ok(self.with_prefix(asked))
    }

    /// Gives an address back. One that was not taken is ignored.
    pub fn free(&mut self, given: IpAddr) {
        self.taken.remove(&number(given));
    }

    /// How many are in use.
    pub fn used(&self) -> usize {
        self.taken.len()
    }

    /// The first free one of `first..=last`. Steps over used ones only, so its cost is their number.
    fn free_in(&self, first: u128, last: u128) -> Option<u128> {
        let mut candidate = first;
        while candidate <= last {
            if !self.taken.contains(&candidate) && !self.reserved.contains(&candidate) {
                return Some(candidate);
            }
            candidate += 1;
        }
        None
    }

    fn with_prefix(&self, value: u128) -> IpNet {
        IpNet::new_assert(address(value, &self.subnet), self.subnet.prefix_len())
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(value: u128, subnet: &IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(_) => Ipv4Addr::from_bits(u32::try_from(value).expect("made from an IPv4 address")).into(),
        IpNet::V6(_) => Ipv6Addr::from_bits(value).into(),
    }
}

/// An address or subnet cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// All default pools are in use by networks of ours or by the machine.
    #[error(
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network: remove unused networks, or name a subnet"
    )]
    NoSubnet,
    /// The settings of the default pools make no sense.
    #[error(
        "default address pool {base} cannot be cut into pieces of /{size}: the size must lie between the base's own and 30"
    )]
    PieceSize {
        /// The pool to be cut.
        base: Ipv4Net,
        /// Length of the prefix of each piece, in bits.
        size: u8,
    },
    /// All addresses of the subnet, or of the range within it, are taken.
    #[error(
        "no available IPv4 or IPv6 addresses left in subnet {subnet}: remove containers, or make a network with a larger one"
    )]
    Exhausted {
        /// Of the network.
        subnet: IpNet,
    },
    /// An address was asked for that the subnet does not have.
    #[error("address {address} is not in subnet {subnet}: choose one that is")]
    Outside {
        /// The one asked for.
        address: IpAddr,
        /// Of the network.
        subnet: IpNet,
    },
    /// Addresses were to come from a range that the subnet does not have.
    #[error("range {range} is not within subnet {subnet}: choose one that is")]
    RangeOutside {
        /// The one asked for, as `docker network create --ip-range`.
        range: IpNet,
        /// Of the network.
        subnet: IpNet,
    },
    /// An address was asked for that no endpoint may have.
    #[error(
        "address {address} is reserved in subnet {subnet} (gateway, network, broadcast or auxiliary address): choose another"
    )]
    Reserved {
        /// The one asked for.
        address: IpAddr,
        /// Of the network.
        subnet: IpNet,
    },
    /// An address was asked for that an endpoint has. The first words are Docker's.
    #[error("Address already in use: {address} of subnet {subnet} belongs to another endpoint, choose another")]
    InUse {
        /// The one asked for.
        address: IpAddr,
        /// Of the network.
        subnet: IpNet,
    },
}

impl AddressError {
    /// What class of failure it is, for whoever answers a client.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSubnet | Self::Exhausted { .. } => ErrorKind::Unavailable,
            Self::InUse { .. } | Self::Reserved { .. } => ErrorKind::Conflict,
            Self::PieceSize { .. } | Self::Outside { .. } | Self::RangeOutside { .. } => ErrorKind::Invalid,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_come_in_dockers_order_and_step_over_what_is_taken() {
        let pools = SubnetPools::default();
        let mut taken = vec![];
        for expected in ["172.17.0.0/16", "172.18.0.0/16"] {
            let next = IpNet::V4(pools.next(&taken).unwrap());
            assert_eq!(next, parse(expected));
            taken.push(next);
        }
        taken.push(parse("172.16.0.0/12"));
        taken.push(parse("192.168.3.7/32"));
        assert_eq!(IpNet::V4(pools.next(&taken).unwrap()), parse("192.168.16.0/20"));
        taken.push(parse("192.168.0.0/16"));
        assert_eq!(pools.next(&taken), Err(AddressError::NoSubnet));
    }

    #[test]
    fn a_freed_address_is_not_the_next_one() {
        let gateway = "10.1.0.1".parse().unwrap();
        let mut pool = AddressPool::new(parse("10.1.0.0/29"), None, &[gateway]).unwrap();
        assert_eq!(pool.take_next().unwrap(), parse("10.1.0.2/29"));
        pool.free("10.1.0.2".parse().unwrap());
        for expected in ["10.1.0.3/29", "10.1.0.4/29", "10.1.0.5/29", "10.1.0.6/29", "10.1.0.2/29"] {
            assert_eq!(pool.take_next().unwrap(), parse(expected));
        }
        assert_eq!(pool.take_next(), Err(AddressError::Exhausted { subnet: parse("10.1.0.0/29") }));
    }

    #[test]
    fn asked_addresses_are_given_once() {
        let gateway = "10.1.0.1".parse().unwrap();
        let mut pool = AddressPool::new(parse("10.1.0.0/24"), Some(parse("10.1.0.128/25")), &[gateway]).unwrap();
        assert_eq!(pool.take_next().unwrap(), parse("10.1.0.128/24"));
        assert_eq!(pool.take("10.1.0.7".parse().unwrap()).unwrap(), parse("10.1.0.7/24"));
        let kind = |wanted: &str| pool.clone().take(wanted.parse().unwrap()).unwrap_err().kind();
        assert_eq!(kind("10.1.0.7"), ErrorKind::Conflict);
        assert_eq!(kind("10.1.0.1"), ErrorKind::Conflict);
        assert_eq!(kind("10.1.0.255"), ErrorKind::Conflict);
        assert_eq!(kind("10.2.0.1"), ErrorKind::Invalid);
        assert!(AddressPool::new(parse("10.1.0.0/24"), Some(parse("10.2.0.0/25")), &[]).is_err());
    }

    #[test]
    fn point_to_point_and_ipv6_subnets_work() {
        let mut pool = AddressPool::new(parse("10.0.0.0/31"), None, &["10.0.0.0".parse().unwrap()]).unwrap();
        assert_eq!(pool.take_next().unwrap(), parse("10.0.0.1/31"));
        assert!(pool.take_next().is_err());
        let gateway = AddressPool::default_gateway(parse("fd00:1::/64"));
        let mut pool = AddressPool::new(parse("fd00:1::/64"), None, &[gateway]).unwrap();
        assert_eq!(pool.take_next().unwrap(), parse("fd00:1::2/64"));
    }

    proptest! {
        #[test]
        fn addresses_given_are_distinct_usable_and_all_given(
            prefix in 24u8..=30,
            base in any::<u32>(),
            frees in proptest::collection::vec(any::<(bool, u8)>(), 0..200),
        ) {
            let subnet = IpNet::V4(Ipv4Net::new_assert(base.into(), prefix).trunc());
            let gateway = AddressPool::default_gateway(subnet);
            let mut pool = AddressPool::new(subnet, None, &[gateway]).unwrap();
            let mut held: Vec<IpAddr> = vec![];
            for (free, which) in frees {
                if free && !held.is_empty() {
                    let address = held.swap_remove(usize::from(which) % held.len());
                    pool.free(address);
                } else if let Ok(given) = pool.take_next() {
                    let address = given.addr();
                    prop_assert!(subnet.contains(&address) && !held.contains(&address));
                    prop_assert!(![subnet.network(), subnet.broadcast(), gateway].contains(&address));
                    held.push(address);
                }
                prop_assert_eq!(pool.used(), held.len());
            }
            while let Ok(given) = pool.take_next() {
                prop_assert!(!held.contains(&given.addr()));
                held.push(given.addr());
            }
            prop_assert_eq!(held.len(), (1usize << (32 - prefix)) - 3);
        }

        #[test]
        fn subnets_given_never_overlap(taken in proptest::collection::vec((any::<u32>(), 8u8..=32), 0..40)) {
            let mut taken: Vec<_> = taken.into_iter().map(|(b, p)| IpNet::V4(Ipv4Net::new_assert(b.into(), p))).collect();
            while let Ok(next) = SubnetPools::default().next(&taken) {
                prop_assert!(!taken.iter().any(|other| overlap(&IpNet::V4(next), other)));
                taken.push(IpNet::V4(next));
            }
        }
    }
}
