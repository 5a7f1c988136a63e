//! Who has what the rules keep others from.

use std::collections::{BTreeSet, HashMap};

use bireme_sys::nft::{Element, Key};

use super::elements::Elements;

/// Who has what nobody else may use. Two may have the same on different networks, as where both asked for it.
#[derive(Default)]
pub(super) struct Holders(HashMap<(&'static str, Key), BTreeSet<String>>);

impl Holders {
    /// Of sets whose elements do not name their holder themselves.
    const SETS: [&'static str; 3] = ["known", "known6", "known_macs"];

    pub(super) fn add(&mut self, holder: &str, elements: &[(&'static str, Element)]) {
        for (set, element) in elements.iter().filter(|(set, _)| Self::SETS.contains(set)) {
            self.0.entry((*set, element.key.clone())).or_default().insert(holder.to_owned());
        }
    }

    pub(super) fn remove(&mut self, holder: &str, elements: &[(&'static str, Element)]) {
        for (set, element) in elements {
            let key = (*set, element.key.clone());
            if let Some(holders) = self.0.get_mut(&key) {
                holders.remove(holder);
                if holders.is_empty() {
                    self.0.remove(&key);
                }
            }
        }
    }

    /// Those of `elements` that nobody but `holder` has.
    pub(super) fn of_nobody_but(&self, holder: &str, elements: Elements) -> Elements {
        let others = |(set, element): &(&'static str, Element)| {
            let holders = self.0.get(&(*set, element.key.clone()));
            holders.is_some_and(|holders| holders.iter().any(|other| other != holder))
        };
        elements.into_iter().filter(|element| !others(element)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Port;

    #[test]
    fn what_two_have_goes_with_the_second() {
        let port = |interface: &str, addresses: &[&str]| Port {
            interface: interface.into(),
            mac: [2, 0, 0, 0, 0, 7],
            addresses: addresses.iter().map(|one| one.parse().unwrap()).collect(),
            routes: false,
        };
        let (one, two) = (
            port("ve1", &["10.1.0.2", "169.254.1.1", "fd00:1::2"]),
            port("ve2", &["10.2.0.2", "169.254.1.1", "fd00:2::2"]),
        );
        let mut holders = Holders::default();
        holders.add(&one.interface, &one.elements());
        holders.add(&one.interface, &one.elements());
        holders.add(&two.interface, &two.elements());
        let going = |holders: &Holders, port: &Port| {
            let elements = holders.of_nobody_but(&port.interface, port.elements());
            let shared = elements.into_iter().filter(|(set, _)| Holders::SETS.contains(set));
            shared.map(|(set, one)| (set, one.key)).collect::<Vec<_>>()
        };
        let key = |address: &str| Key::new().address(address.parse().unwrap());
        assert_eq!(going(&holders, &one), [("known", key("10.1.0.2")), ("known6", key("fd00:1::2"))]);
        holders.remove(&one.interface, &one.elements());
        let all = going(&holders, &two);
        assert_eq!(all.len(), 5, "hardware, its own two, and the two that both had: {all:?}");
        holders.remove(&two.interface, &two.elements());
        assert!(holders.0.is_empty());
    }
}
