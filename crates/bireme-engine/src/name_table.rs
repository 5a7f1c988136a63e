//! Who is found under which name on one network. Pure.
//!
//! Each change answers with the names that it touched and all their addresses now, so that whoever keeps a copy (the
//! DNS, the host processes of components) is told of a change and never of everything: an app of 1,000 workloads starts
//! with 1,000 small messages and not with 1,000 tables of 1,000 names.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bireme_core::Names;

/// What one workload is called on a network, and what it calls others there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Lower case, without repetitions.
    pub(crate) names: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Further names for this workload alone, and the names on the network that they stand for.
    pub(crate) links: BTreeMap<String, String>,
}

/// The names of one network.
#[derive(Debug, Default)]
pub(crate) struct NameTable {
    /// By workload.
    entries: HashMap<String, Entry>,
    /// By name, then by workload: several may have the same name.
    names: HashMap<String, BTreeMap<String, Vec<IpAddr>>>,
}

impl NameTable {
    /// Replaces what `workload` is called; without addresses it is not found. Answers the names whose addresses changed.
    pub(crate) fn set(&mut self, workload: &str, entry: Entry) -> Names {
        let unchanged = match self.entries.get(workload) {
            Some(before) => *before == entry,
            None => entry.addresses.is_empty(),
        };
        if unchanged {
            return Names::new();
        }
        let before = self.entries.remove(workload).unwrap_or_default();
        let mut touched: Vec<String> = before.names;
        for name in &touched {
            if let Some(by_workload) = self.names.get_mut(name) {
                by_workload.remove(workload);
            }
        }
        if !entry.addresses.is_empty() {
            for name in &entry.names {
                self.names.entry(name.clone()).or_default().insert(workload.to_owned(), entry.addresses.clone());
            }
            touched.extend(entry.names.iter().cloned());
            self.entries.insert(workload.to_owned(), entry);
        }
        let mut changed = Names::new();
        for name in touched {
            let now = self.addresses(&name);
            if now.is_empty() {
                self.names.remove(&name);
            }
            changed.insert(name, now);
        }
        changed
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.names.get(name).into_iter().flat_map(BTreeMap::values).flatten().copied().collect()
    }

    /// Every name with its addresses.
    pub(crate) fn all(&self) -> Names {
        self.names.keys().map(|name| (name.clone(), self.addresses(name))).collect()
    }

    /// What single workloads call others, by the address that they ask from.
    pub(crate) fn linked(&self) -> HashMap<IpAddr, Names> {
        let mut linked = HashMap::new();
        for entry in self.entries.values().filter(|entry| !entry.links.is_empty()) {
            let own: Names = entry
                .links
                .iter()
                .map(|(alias, name)| (alias.clone(), self.addresses(name)))
                .filter(|(_, addresses)| !addresses.is_empty())
                .collect();
            linked.extend(entry.addresses.iter().map(|address| (*address, own.clone())));
        }
        linked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(names: &[&str], last: u8) -> Entry {
        let addresses = if last == 0 { Vec::new() } else { vec![IpAddr::from([10, 0, 0, last])] };
        Entry { names: names.iter().map(|name| (*name).to_owned()).collect(), addresses, links: BTreeMap::new() }
    }

    #[test]
    fn a_change_names_what_it_touched_and_nothing_else() {
        let mut table = NameTable::default();
        assert_eq!(table.set("a", entry(&["one", "web"], 1)).len(), 2);
        let changed = table.set("b", entry(&["two", "web"], 2));
        assert_eq!(changed["web"], [IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2])]);
        assert!(!changed.contains_key("one"));
        assert!(table.set("b", entry(&["two", "web"], 2)).is_empty(), "nothing changed");
        let gone = table.set("a", Entry::default());
        assert!(gone["one"].is_empty(), "a name without addresses is gone");
        assert_eq!(gone["web"], [IpAddr::from([10, 0, 0, 2])]);
        assert_eq!(table.all().len(), 2);
    }

    #[test]
    fn links_follow_the_names_they_stand_for() {
        let mut table = NameTable::default();
        let links = BTreeMap::from([("db".to_owned(), "postgres".to_owned())]);
        table.set("a", Entry { links, ..entry(&["web"], 1) });
        assert!(table.linked()[&IpAddr::from([10, 0, 0, 1])].is_empty());
        table.set("b", entry(&["postgres"], 2));
        assert_eq!(table.linked()[&IpAddr::from([10, 0, 0, 1])]["db"], [IpAddr::from([10, 0, 0, 2])]);
    }

    proptest! {
        /// A copy that is told of changes alone is the table.
        #[test]
        fn a_copy_that_hears_of_changes_alone_is_the_table(
            steps in prop::collection::vec((0..5usize, prop::collection::vec(0..4usize, 0..3), 0..4u8), 0..60),
        ) {
            let (mut table, mut copy) = (NameTable::default(), Names::new());
            for (workload, names, last) in steps {
                let names: std::collections::BTreeSet<String> = names.iter().map(|name| format!("n{name}")).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                for (name, addresses) in table.set(&format!("w{workload}"), entry(&names, last)) {
                    if addresses.is_empty() { copy.remove(&name); } else { copy.insert(name, addresses); }
                }
                prop_assert_eq!(&copy, &table.all());
            }
        }
    }
}
