//! Who gets a place where there are only so many of them. Pure: what is held is told, and what to do is answered.
//!
//! Clients that hold many places make room for those that hold few, and what lies still makes room for what is new. So
//! nobody can keep others out by holding places, however many there are: whoever has fewer than an equal share gets one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Whom a place counts against: an address of IPv4, or a network of IPv6, for whoever has one address there has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(IpAddr::V6((address.to_bits() >> 64 << 64).into())),
            address @ IpAddr::V4(_) => Self(address),
        }
    }
}

/// A place that somebody has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) source: Source,
    /// For how long nothing has passed.
    pub(crate) silent: Duration,
}

/// What becomes of who comes when all places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// He gets that one's place, by its position.
    Instead(usize),
    /// Nobody makes room for him.
    Refuse,
}

/// Decides who makes room for `source` where `held` are all the places there are.
///
/// First whoever holds the most, if that is more than `source` would have with one more: what of his has been silent for
/// the longest time, busy or not. Else what has been silent for the longest time, if that is `quiet` at least, of `source`
/// itself and of those that hold no less than it would have.
pub(crate) fn decide(held: &[Held], source: Source, quiet: Duration) -> Decision {
    let mut counts: HashMap<Source, usize> = HashMap::new();
    for one in held {
        *counts.entry(one.source).or_default() += 1;
    }
    let count = |source: Source| counts.get(&source).copied().unwrap_or_default();
    let would_have = count(source) + 1;
    let most = counts.values().copied().max().unwrap_or_default();
    let longest = |yields: &dyn Fn(&Held) -> bool| {
        let yielding = held.iter().enumerate().filter(|(_, one)| yields(one));
        yielding.max_by_key(|(_, one)| one.silent).map(|(at, _)| at)
    };
    let found = if most > would_have {
        longest(&|one| count(one.source) == most)
    } else {
        longest(&|one| one.silent >= quiet && (one.source == source || count(one.source) >= would_have))
    };
    found.map_or(Decision::Refuse, Decision::Instead)
}

/// The descriptors that one place takes at most: a client's and that towards the workload.
const FILES_OF_A_PLACE: u64 = 2;
/// More are of no use, and looking at all of them takes its time.
const MOST_OF_ALL_PORTS: u64 = 1 << 14;

/// How many places all published ports have together in a process that may have `files` descriptors: what takes no more
/// than half of them. The other half is for requests, for the kernel's answers and for what is remembered.
pub(crate) fn places_of_all_ports(files: u64) -> usize {
    usize::try_from((files / 2 / FILES_OF_A_PLACE).clamp(1, MOST_OF_ALL_PORTS)).unwrap_or(1)
}

/// The same for what the DNS does at once of one kind, with `most` at all: an eighth.
pub(crate) fn share_of_dns(files: u64, most: usize) -> usize {
    usize::try_from(files / 8).unwrap_or(most).clamp(1, most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUIET: Duration = Duration::from_secs(10);

    fn source(number: u8) -> Source {
        Source::of(IpAddr::from([192, 0, 2, number]))
    }

    fn held(list: &[(u8, u64)]) -> Vec<Held> {
        list.iter().map(|(from, silent)| Held { source: source(*from), silent: Duration::from_secs(*silent) }).collect()
    }

    #[test]
    fn whoever_has_an_address_of_ipv6_has_its_network() {
        let of = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:0:0:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[test]
    fn half_of_all_descriptors_are_left_for_everything_else() {
        for files in [64, 1024, 4096, 1 << 20, u64::MAX] {
            let ports = u64::try_from(places_of_all_ports(files)).unwrap();
            assert!(ports >= 1 && ports * FILES_OF_A_PLACE <= files / 2, "{files}");
            let dns = u64::try_from(share_of_dns(files, 1024)).unwrap();
            // Connections, and questions to servers.
            assert!(dns >= 1 && 2 * dns <= files / 4, "{files}");
        }
        assert_eq!((places_of_all_ports(1024), share_of_dns(1024, 1024)), (256, 128));
        assert_eq!((places_of_all_ports(1 << 20), share_of_dns(1 << 20, 1024)), (1 << 14, 1024));
    }

    #[test]
    fn one_who_holds_all_makes_room_even_where_he_is_busy() {
        let all = held(&[(1, 0), (1, 3), (1, 1), (1, 0)]);
        assert_eq!(decide(&all, source(2), QUIET), Decision::Instead(1));
        assert_eq!(decide(&all, source(1), QUIET), Decision::Refuse, "he does not push himself out");
        let all = held(&[(1, 0), (1, 30), (1, 11), (1, 0)]);
        assert_eq!(decide(&all, source(1), QUIET), Decision::Instead(1), "but for what lies still");
    }

    #[test]
    fn equal_shares_are_left_to_who_uses_them() {
        let all = held(&[(1, 0), (1, 3), (2, 9), (2, 0)]);
        assert_eq!(decide(&all, source(3), QUIET), Decision::Instead(2));
        let all = held(&[(1, 0), (2, 9), (3, 0), (4, 3)]);
        assert_eq!(decide(&all, source(5), QUIET), Decision::Refuse);
        let all = held(&[(1, 0), (2, 10), (3, 0), (4, 30)]);
        assert_eq!(decide(&all, source(5), QUIET), Decision::Instead(3));
        let all = held(&[(1, 0), (1, 0), (2, 30), (3, 0)]);
        assert_eq!(decide(&all, source(1), QUIET), Decision::Refuse, "nobody takes from whoever has less");
    }

    /// Places as the proxies keep them: `most` at once, each with the time at which something passed.
    fn story(most: usize, steps: &[(u8, u8)], mut check: impl FnMut(&[Held], Source, Option<Decision>)) {
        let (mut places, mut now): (Vec<(Source, u64)>, u64) = (Vec::new(), 0);
        for (what, which) in steps {
            now += u64::from(*which % 7);
            let source = source(*which % 6);
            match what % 4 {
                // Something passes, or somebody goes.
                0 if !places.is_empty() => {
                    let at = usize::from(*which) % places.len();
                    places[at].1 = now;
                }
                1 if !places.is_empty() => drop(places.swap_remove(usize::from(*which) % places.len())),
                _ => {
                    let held: Vec<_> = places
                        .iter()
                        .map(|(source, at)| Held { source: *source, silent: Duration::from_secs(now - at) })
                        .collect();
                    let full = places.len() == most;
                    let decision = full.then(|| decide(&held, source, QUIET));
                    check(&held, source, decision);
                    match decision {
                        None => places.push((source, now)),
                        Some(Decision::Instead(at)) => places[at] = (source, now),
                        Some(Decision::Refuse) => {}
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whoever_has_less_than_an_equal_share_gets_a_place(
            most in 1..40usize, steps in prop::collection::vec(any::<(u8, u8)>(), 0..400),
        ) {
            story(most, &steps, |held, source, decision| {
                let own = held.iter().filter(|one| one.source == source).count();
                let mut others: Vec<Source> = held.iter().map(|one| one.source).filter(|one| *one != source).collect();
                others.sort_by_key(|source| format!("{source:?}"));
                others.dedup();
                if own < most / (others.len() + 1) {
                    assert_ne!(decision, Some(Decision::Refuse));
                }
            });
        }

        #[test]
        fn nobody_loses_what_he_uses_to_one_who_has_as_much(
            most in 1..40usize, steps in prop::collection::vec(any::<(u8, u8)>(), 0..400),
        ) {
            story(most, &steps, |held, source, decision| {
                let Some(Decision::Instead(at)) = decision else { return };
                let count = |source: Source| held.iter().filter(|one| one.source == source).count();
                let loser = held[at];
                if loser.source == source || count(loser.source) <= count(source) + 1 {
                    assert!(loser.silent >= QUIET);
                }
                assert!(loser.source == source || count(loser.source) > count(source), "never from who has less");
                let longest = held.iter().filter(|one| one.source == loser.source).map(|one| one.silent).max();
                assert_eq!(Some(loser.silent), longest, "what lay still for the longest time");
            });
        }
    }
}
