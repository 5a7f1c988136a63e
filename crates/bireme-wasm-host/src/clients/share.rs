//! How many connections one client may have: half of all there may be, so that others come in whatever it does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::LazyLock;

use parking_lot::{Mutex, MutexGuard};

/// Connections by who has them.
static HELD: LazyLock<Mutex<HashMap<IpAddr, usize>>> = LazyLock::new(Mutex::default);

fn held() -> MutexGuard<'static, HashMap<IpAddr, usize>> {
    HELD.lock()
}

/// One connection of a client; given back when dropped.
pub(crate) struct Share(IpAddr);

impl Share {
    /// `None` for a client that has half of `all` already.
    pub(crate) fn take(client: IpAddr, all: usize) -> Option<Self> {
        let client = one_of(client);
        let mut held = held();
        let count = held.entry(client).or_default();
        if *count >= (all / 2).max(1) {
            return None;
        }
        *count += 1;
        Some(Self(client))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = held();
        if let Some(count) = held.get_mut(&self.0) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.0);
            }
        }
    }
}

/// Who owns an address: of IPv6 whoever has one has all of its /64.
fn one_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_has_half_and_others_come_in() {
        let all = 10;
        for (one, same, other) in
            [("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1")]
        {
            let [one, same, other]: [IpAddr; 3] = [one, same, other].map(|text| text.parse().unwrap());
            let mut shares: Vec<Share> = (0..5).map(|_| Share::take(one, all).unwrap()).collect();
            assert!(Share::take(one, all).is_none() && Share::take(same, all).is_none());
            let others: Vec<Share> = (0..5).map(|_| Share::take(other, all).unwrap()).collect();
            shares.pop();
            shares.push(Share::take(same, all).unwrap());
            drop((shares, others));
            assert!(!held().contains_key(&one_of(one)) && !held().contains_key(&one_of(other)));
        }
        assert!(Share::take("192.0.2.9".parse().unwrap(), 1).is_some(), "one at least");
    }
}
